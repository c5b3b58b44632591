/* Reads a .attar file as a device does: from memory, into memory that is there from the start, without a library but for
 * what opens the file and prints. Prints each tensor and the CRC-32 of its values; decode.py prints the same lines.
 *
 *     make -C examples/c
 */
#include <stdio.h>

#include "attar.h"

static uint8_t file_bytes[1 << 20];     /* on a device: an array in flash */
static uint8_t manifest[16 * 1024];     /* attar_measure tells how much a file needs */
static uint16_t work[ATTAR_WORK + 512]; /* attar_work tells how much a tensor needs; here for 1,024 coded scales */
static float values[500 * 800];         /* the largest tensor, of LeNet-5 */

static const char *const kinds[] = {"dense", "quantized", "codebook", "sparse", "steps"};

static int fail(const char *what, attar_status status)
{
    fprintf(stderr, "%s: status %d, see attar_status in attar.h\n", what, status);
    return 1;
}

static void print(const attar_tensor *tensor)
{
    const size_t size = tensor->elements * attar_item(tensor->type);
    unsigned axis;
    printf("%.*s (", (int)tensor->name_length, tensor->name);
    for (axis = 0; axis < tensor->axes; axis++)
        printf(axis ? ", %lu" : "%lu", (unsigned long)tensor->shape[axis]);
    printf(") %s %08lx\n", kinds[tensor->kind], (unsigned long)attar_crc32(0, (const uint8_t *)values, size));
}

int main(int count, char **arguments)
{
    FILE *stream = count == 2 ? fopen(arguments[1], "rb") : 0;
    size_t length = stream ? fread(file_bytes, 1, sizeof file_bytes, stream) : 0;
    attar_file file;
    attar_tensor tensor;
    attar_status status = attar_open(&file, file_bytes, length, manifest, sizeof manifest, 0);
    if (status != ATTAR_OK)
        return fail("opening the file", status);
    while ((status = attar_next(&file, &tensor)) == ATTAR_OK) {
        status = attar_read_values(&tensor, values, sizeof values, work, sizeof work / sizeof *work);
        if (status != ATTAR_OK)
            return fail("reading a tensor", status);
        print(&tensor);
    }
    return status == ATTAR_END ? 0 : fail("the next tensor", status);
}
