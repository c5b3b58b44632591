/* What device.c needs of the machine it runs on: hosted.c or bare.c. */
#include <stddef.h>

size_t take(void *bytes, size_t size);       /* read; the return value is less than `size` at the end of the input */
void give(const void *bytes, size_t size);   /* write */
void *block(size_t size);                    /* memory, until the next `forget` */
void forget(void);
