/* Decodes streams for fuzz_streams.py, built with sanitizers. Reads cases from stdin until it ends: coder, alphabet,
 * room of the workspace, length of the table, length of the payload and number of symbols, 4 bytes each; the table; the
 * payload. Writes for each its status, one byte, and, if that is ATTAR_OK, the symbols. Every buffer has a heap block
 * of its own, of exactly its size, so that a byte read or written beside it is noticed. */
#include <stdio.h>
#include <stdlib.h>

#include "attar.h"

static uint32_t number(void)
{
    uint8_t bytes[4];
    if (fread(bytes, 1, 4, stdin) != 4)
        exit(0);
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static uint8_t *block(size_t size)
{
    uint8_t *bytes = malloc(size ? size : 1);
    if (!bytes)
        exit(2);
    return bytes;
}

static uint8_t *bytes_of(size_t size)
{
    uint8_t *bytes = block(size);
    if (fread(bytes, 1, size, stdin) != size)
        exit(3);
    return bytes;
}

int main(void)
{
    for (;;) {
        uint32_t coder = number(), alphabet = number(), room = number(), table_length = number();
        uint32_t length = number(), count = number();
        uint8_t *bytes = bytes_of(table_length), *payload = bytes_of(length), *symbols = block(count);
        uint16_t *work = (uint16_t *)block(room * sizeof *work);
        attar_table *table = (attar_table *)block(sizeof *table);
        attar_status status =
            attar_open_table(table, (attar_coder)coder, bytes, table_length, alphabet, work, room);
        if (status == ATTAR_OK)
            status = attar_decode(table, payload, length, symbols, count);
        putchar(status);
        if (status == ATTAR_OK)
            fwrite(symbols, 1, count, stdout);
        fflush(stdout);
        free(bytes);
        free(payload);
        free(symbols);
        free(work);
        free(table);
    }
}
