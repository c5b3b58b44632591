/* Answers `cpuid` as a processor whose newest vectors are AVX2: the library that as_avx2.py preloads.
 *
 * Each `cpuid` (0f a2) of the libraries in question is `int3; nop` (cc 90) in their copies. The trap comes here, the
 * real instruction is executed, the bits of what is hidden are cleared, and the program goes on at the `nop`.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdlib.h>
#include <ucontext.h>

#define BIT(place) (1u << (place))

/* Leaf 7.0. F, DQ, IFMA, PF, ER, CD, BW, VL | VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ | 4VNNIW, 4FMAPS, VP2INTERSECT, FP16
 * of AVX-512, and AMX-BF16, -TILE, -INT8. */
static const unsigned EBX_7_0 = BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31);
static const unsigned ECX_7_0 = BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14);
static const unsigned EDX_7_0 = BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25);
/* Leaf 7.1. AVX-VNNI, AVX512-BF16, AMX-FP16, AVX-IFMA | AVX-VNNI-INT8, AVX-NE-CONVERT, AMX-COMPLEX, AVX-VNNI-INT16, AVX10. */
static const unsigned EAX_7_1 = BIT(4) | BIT(5) | BIT(21) | BIT(23);
static const unsigned EDX_7_1 = BIT(4) | BIT(5) | BIT(8) | BIT(10) | BIT(19);

static void answer(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *next = (const unsigned char *)registers[REG_RIP];
    if (next[-1] != 0xcc || next[0] != 0x90)
        abort(); /* a trap of someone else */
    unsigned leaf = (unsigned)registers[REG_RAX], sub = (unsigned)registers[REG_RCX], eax, ebx, ecx, edx;
    __cpuid_count(leaf, sub, eax, ebx, ecx, edx);
    if (leaf == 7 && sub == 0)
        ebx &= ~EBX_7_0, ecx &= ~ECX_7_0, edx &= ~EDX_7_0;
    if (leaf == 7 && sub == 1)
        eax &= ~EAX_7_1, edx &= ~EDX_7_1;
    registers[REG_RAX] = eax, registers[REG_RBX] = ebx, registers[REG_RCX] = ecx, registers[REG_RDX] = edx;
}

__attribute__((constructor)) static void listen(void) {
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO};
    if (sigaction(SIGTRAP, &action, NULL) != 0)
        abort();
}
