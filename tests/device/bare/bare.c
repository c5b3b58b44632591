/* A machine without a C library: Linux on 32-bit x86, called directly. What attar.h needs is all there is: memcpy and
 * memset, and for the compiler the division of 64-bit numbers. */
#include <stdint.h>

#include "device.h"
#include "string.h"

static uint8_t arena[1 << 25];
static size_t used;

static int call(int number, int first, const void *second, size_t third)
{
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second), "d"(third) : "memory");
    return result;
}

static void leave(int status)
{
    for (;;)
        call(1, status, 0, 0);
}

void *memcpy(void *to, const void *from, size_t size)
{
    uint8_t *out = to;
    const uint8_t *in = from;
    while (size--)
        *out++ = *in++;
    return to;
}

void *memset(void *to, int byte, size_t size)
{
    uint8_t *out = to;
    while (size--)
        *out++ = (uint8_t)byte;
    return to;
}

static uint64_t divide(uint64_t dividend, uint64_t divisor, uint64_t *rest)
{
    uint64_t quotient = 0;
    int place;
    *rest = 0;
    for (place = 63; place >= 0; place--) {
        *rest = *rest << 1 | (dividend >> place & 1);
        if (*rest >= divisor) {
            *rest -= divisor;
            quotient |= (uint64_t)1 << place;
        }
    }
    return quotient;
}

uint64_t __udivdi3(uint64_t dividend, uint64_t divisor)
{
    uint64_t rest;
    return divide(dividend, divisor, &rest);
}

uint64_t __umoddi3(uint64_t dividend, uint64_t divisor)
{
    uint64_t rest;
    divide(dividend, divisor, &rest);
    return rest;
}

size_t take(void *bytes, size_t size)
{
    size_t done = 0;
    while (done < size) {
        int more = call(3, 0, (uint8_t *)bytes + done, size - done);
        if (more <= 0)
            break;
        done += (size_t)more;
    }
    return done;
}

void give(const void *bytes, size_t size)
{
    while (size) {
        int done = call(4, 1, bytes, size);
        if (done <= 0)
            leave(4);
        bytes = (const uint8_t *)bytes + done;
        size -= (size_t)done;
    }
}

void *block(size_t size)
{
    void *bytes = arena + used;
    if (size > sizeof arena - used)
        leave(2);
    used += (size + 15) / 16 * 16;
    return bytes;
}

void forget(void)
{
    used = 0;
}

int main(void);

__attribute__((force_align_arg_pointer, noreturn)) void _start(void)
{
    leave(main());
    for (;;)
        ;
}
