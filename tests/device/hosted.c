/* A machine with a C library. Every block is a heap block of exactly its size, so that sanitizers notice a byte read or
 * written beside it. */
#include <stdio.h>
#include <stdlib.h>

#include "device.h"

static void *blocks[100000];
static size_t count;

size_t take(void *bytes, size_t size)
{
    return fread(bytes, 1, size, stdin);
}

void give(const void *bytes, size_t size)
{
    fwrite(bytes, 1, size, stdout);
}

void *block(size_t size)
{
    void *bytes = malloc(size ? size : 1);
    if (!bytes || count == sizeof blocks / sizeof *blocks)
        exit(2);
    blocks[count++] = bytes;
    return bytes;
}

void forget(void)
{
    while (count)
        free(blocks[--count]);
    fflush(stdout);
}
