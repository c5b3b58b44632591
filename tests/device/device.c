/* Reads files with attar.h, for program.py. Takes cases until the input ends: the length of a file, 4 bytes, and the file.
 * Gives for each the status of opening, one byte, and if that is ATTAR_OK, for each tensor: ATTAR_OK; its name; what
 * attar_read_values gives, after a byte that tells whether it is
 * sparse; of a sparse one its mask; then codes, scales and offsets of what has them. Whatever is read is
 * a status, and if that is ATTAR_OK a length, 4 bytes, and the bytes. After the last tensor comes the status there.
 * Every buffer has exactly the size that attar.h asks for. */
#include "attar.h"
#include "device.h"

static void give_number(size_t number)
{
    uint8_t bytes[4];
    attar_put(bytes, number);
    give(bytes, 4);
}

static void give_result(attar_status status, const void *bytes, size_t size)
{
    uint8_t byte = (uint8_t)status;
    give(&byte, 1);
    if (status == ATTAR_OK) {
        give_number(size);
        give(bytes, size);
    }
}

static void give_parts(const attar_tensor *tensor, uint16_t *work, size_t room)
{
    const size_t count = tensor->scale_count;
    uint8_t *codes = block(tensor->elements);
    float *scales = block(count * sizeof *scales), *offsets = block(count * sizeof *offsets);
    attar_status status = attar_read_codes(tensor, codes, tensor->elements, work, room);
    give_result(status, codes, tensor->elements);
    status = attar_read_scales(tensor, scales, offsets, count, work, room);
    give_result(status, scales, count * sizeof *scales);
    give_result(status, offsets, count * sizeof *offsets);
}

static void give_tensor(const attar_tensor *tensor)
{
    const size_t room = attar_work(tensor), size = tensor->elements * attar_item(tensor->type);
    uint16_t *work = block(room * sizeof *work);
    uint8_t *values = block(size), *mask;
    uint8_t sparse = tensor->kind == ATTAR_SPARSE;
    attar_tensor inner = *tensor;
    give_result(ATTAR_OK, tensor->name, tensor->name_length);
    give(&sparse, 1);
    give_result(attar_read_values(tensor, values, size, work, room), values, size);
    if (sparse) {
        mask = block(tensor->elements);
        attar_status status = attar_read_mask(tensor, mask, tensor->elements, &inner, work, room);
        give_result(status, mask, tensor->elements);
        if (status != ATTAR_OK)
            return;
    }
    give_parts(&inner, work, room);
}

int main(void)
{
    uint8_t bytes[4];
    while (take(bytes, 4) == 4) {
        size_t length = attar_u32(bytes), room = 0;
        uint8_t *data = block(length), *text, status;
        attar_file file;
        attar_tensor tensor;
        if (take(data, length) != length)
            return 3;
        status = (uint8_t)attar_measure(data, length, &room);
        text = block(room);
        if (status == ATTAR_OK)
            status = (uint8_t)attar_open(&file, data, length, text, room, 0);
        give(&status, 1);
        while (status == ATTAR_OK) {
            status = (uint8_t)attar_next(&file, &tensor);
            if (status == ATTAR_OK)
                give_tensor(&tensor);
            else
                give(&status, 1);
        }
        forget();
    }
    return 0;
}
