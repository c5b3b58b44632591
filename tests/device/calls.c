/* Checks what the functions of attar.h do beside reading sound files. Takes a file of tests/device/kinds.py; prints what
 * is not as it should be. */
#include <stdio.h>

#include "attar.h"

static int failures;

#define CHECK(holds)                                                                                                   \
    do {                                                                                                               \
        if (!(holds)) {                                                                                                \
            printf("%s, line %d: %s\n", __func__, __LINE__, #holds);                                                   \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

static uint8_t data[1 << 20], text[1 << 18], values[1 << 18];
static uint16_t work[1 << 18];
#define ROOM (sizeof work / sizeof *work)

static void find(attar_file *file)
{
    attar_tensor tensor;
    CHECK(attar_find(file, "long", &tensor) == ATTAR_OK && tensor.elements == 7000 && tensor.axes == 2);
    CHECK(attar_find(file, "i8", &tensor) == ATTAR_OK && tensor.type == ATTAR_I8);
    CHECK(attar_find(file, "tied", &tensor) == ATTAR_OK && tensor.type == ATTAR_I8);
    CHECK(attar_find(file, "a \"quote\", a back\\slash", &tensor) == ATTAR_OK && tensor.elements == 1);
    CHECK(attar_find(file, "h\xc3\xa9 \xe6\xbc\xa2 \xf0\x9f\x98\x80", &tensor) == ATTAR_OK && tensor.elements == 1);
    CHECK(attar_find(file, "lon", &tensor) == ATTAR_END);
    CHECK(attar_find(file, "longer", &tensor) == ATTAR_END);
    CHECK(attar_find(file, "", &tensor) == ATTAR_END);
}

static void too_little_room(attar_file *file)
{
    attar_tensor tensor, inner;
    float scales[70], offsets[70];
    CHECK(attar_find(file, "long", &tensor) == ATTAR_OK);
    CHECK(attar_work(&tensor) > 0 && attar_work(&tensor) <= ATTAR_WORK);
    CHECK(attar_read_values(&tensor, values, 4 * 7000 - 1, work, ROOM) == ATTAR_NO_ROOM);
    CHECK(attar_read_values(&tensor, values, 4 * 7000, work, 10) == ATTAR_NO_ROOM);
    CHECK(attar_read_codes(&tensor, values, 6999, work, ROOM) == ATTAR_NO_ROOM);
    CHECK(attar_read_scales(&tensor, scales, offsets, 69, work, ROOM) == ATTAR_NO_ROOM);
    CHECK(attar_find(file, "sparse.groups", &tensor) == ATTAR_OK);
    CHECK(attar_read_values(&tensor, values, sizeof values, work, 31) == ATTAR_NO_ROOM);
    CHECK(attar_read_mask(&tensor, values, 62, &inner, work, ROOM) == ATTAR_NO_ROOM);
}

static void wrong_kind(attar_file *file)
{
    attar_tensor tensor, inner;
    float scales[70], offsets[70];
    CHECK(attar_find(file, "floats", &tensor) == ATTAR_OK);
    CHECK(attar_read_codes(&tensor, values, sizeof values, work, ROOM) == ATTAR_WRONG_KIND);
    CHECK(attar_read_scales(&tensor, scales, offsets, 70, work, ROOM) == ATTAR_WRONG_KIND);
    CHECK(attar_read_mask(&tensor, values, sizeof values, &inner, work, ROOM) == ATTAR_WRONG_KIND);
    CHECK(attar_find(file, "sparse.groups", &tensor) == ATTAR_OK);
    CHECK(attar_read_codes(&tensor, values, sizeof values, work, ROOM) == ATTAR_WRONG_KIND);
    CHECK(attar_read_mask(&tensor, values, sizeof values, &inner, work, ROOM) == ATTAR_OK);
    CHECK(inner.kind == ATTAR_QUANTIZED && inner.axes == 1 && inner.elements == inner.shape[0]);
}

static void runs(attar_file *file)
{
    attar_tensor tensor;
    attar_rewind(file);
    while (attar_next(file, &tensor) == ATTAR_OK) {
        size_t i, run, scale;
        if (tensor.kind != ATTAR_QUANTIZED && tensor.kind != ATTAR_CODEBOOK)
            continue;
        for (i = 0; i < tensor.elements; i += run) {
            scale = attar_scale_of(&tensor, i, &run);
            CHECK(scale < tensor.scale_count && run > 0);
        }
        CHECK(i == tensor.elements);
    }
}

static void packed(void)
{
    uint8_t codes[] = {0xf9, 7, 0, 0xff, 3};
    attar_pack_codes(codes, 5);
    CHECK(codes[0] == 0x79 && codes[1] == 0xf0 && codes[2] == 3);
}

static attar_status opened(size_t length, int trusted)
{
    attar_file file;
    return attar_open(&file, data, length, text, sizeof text, trusted);
}

static attar_status changed(size_t length, size_t at, int trusted)
{
    attar_status status;
    data[at] ^= 1;
    status = opened(length, trusted);
    data[at] ^= 1;
    return status;
}

static void statuses(size_t length)
{
    const size_t footer = length - ATTAR_FOOTER;
    const size_t manifest = attar_u32(data + footer);
    attar_file file;
    size_t room;
    CHECK(opened(length, 0) == ATTAR_OK);
    CHECK(opened(79, 0) == ATTAR_NO_FILE);
    CHECK(changed(length, 0, 0) == ATTAR_NO_FILE);
    CHECK(changed(length, 8, 0) == ATTAR_NEW_VERSION);
    CHECK(changed(length, 10, 0) == ATTAR_NEW_VERSION);
    CHECK(opened(length - 1, 0) == ATTAR_CUT);
    CHECK(changed(length, footer, 0) == ATTAR_BAD_LAYOUT);
    CHECK(changed(length, manifest, 1) == ATTAR_DAMAGED);
    CHECK(changed(length, 20, 0) == ATTAR_DAMAGED);
    CHECK(changed(length, 20, 1) == ATTAR_OK);
    CHECK(changed(length, footer + 40, 0) == ATTAR_DAMAGED);
    CHECK(changed(length, footer + 16, 1) == ATTAR_BAD_DEFLATE);
    CHECK(attar_measure(data, length, &room) == ATTAR_OK);
    CHECK(attar_open(&file, data, length, text, room - 1, 0) == ATTAR_NO_ROOM);
    CHECK(attar_open(&file, data, length, text, room, 0) == ATTAR_OK);
}

int main(void)
{
    const size_t length = fread(data, 1, sizeof data, stdin);
    attar_file file;
    if (attar_open(&file, data, length, text, sizeof text, 0) != ATTAR_OK)
        return 2;
    find(&file);
    too_little_room(&file);
    wrong_kind(&file);
    runs(&file);
    packed();
    statuses(length);
    return failures > 0;
}
