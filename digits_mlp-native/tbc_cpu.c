/*
 * tbc_cpu.c - tbc_cpu_bits: what the CPU this runs on can do, as the bits of tbc.h.
 *
 * C99. Asks the CPU or the operating system; where there is none, the answer is what the compiler
 * of this file was told. On Linux it also asks for the tile registers of AMX, which a process may
 * only use with leave.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* syscall */
#endif

#include "tbc.h"

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)

#if defined(_MSC_VER)
#include <intrin.h>

static void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4]) {
    int words[4];
    int i;
    __cpuidex(words, (int)leaf, (int)subleaf);
    for (i = 0; i < 4; i++) r[i] = (uint32_t)words[i];
}

static uint64_t enabled_state(void) { return _xgetbv(0); }
#else
#include <cpuid.h>

static void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4]) {
    __cpuid_count(leaf, subleaf, r[0], r[1], r[2], r[3]);
}

/* xgetbv, spelled in bytes for compilers that were not told of it */
static uint64_t enabled_state(void) {
    uint32_t low, high;
    __asm__ __volatile__(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t)high << 32) | low;
}
#endif

#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>

/* arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) */
static int may_use_tiles(void) { return syscall(SYS_arch_prctl, 0x1023L, 18L) == 0; }
#else
static int may_use_tiles(void) { return 1; }
#endif

/* Whether all bits of `mask` are in `word`. */
static int has(uint64_t word, uint64_t mask) { return (word & mask) == mask; }

#define BIT(n) (UINT64_C(1) << (n))

uint64_t tbc_cpu_bits(void) {
    uint32_t leaf0[4], leaf1[4], leaf7[4] = {0, 0, 0, 0}, leaf7_1[4] = {0, 0, 0, 0};
    uint32_t extended[4], features[4] = {0, 0, 0, 0};
    uint64_t bits = 0, state = 0;

    cpuid(0, 0, leaf0);
    if (leaf0[0] < 1) return 0;
    cpuid(1, 0, leaf1);
    if (leaf0[0] >= 7) {
        cpuid(7, 0, leaf7);
        if (leaf7[0] >= 1) cpuid(7, 1, leaf7_1);
    }
    cpuid(UINT32_C(0x80000000), 0, extended);
    if (extended[0] >= UINT32_C(0x80000001)) cpuid(UINT32_C(0x80000001), 0, features);

    /* x86-64-v2: SSSE3, CX16, SSE4.1, SSE4.2, POPCNT */
    if (has(leaf1[2], BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(23))) bits |= TBC_X86_SSE41;

    /* OSXSAVE: the system says which registers it saves; 0xe6 are those of SSE, AVX and AVX-512. */
    if (has(leaf1[2], BIT(27))) state = enabled_state();

    /* x86-64-v3: FMA, MOVBE, AVX, F16C; BMI1, AVX2, BMI2; LZCNT */
    if (bits == 0 || !has(state, 0x6)) return bits;
    if (!has(leaf1[2], BIT(12) | BIT(22) | BIT(28) | BIT(29))) return bits;
    if (!has(leaf7[1], BIT(3) | BIT(5) | BIT(8)) || !has(features[2], BIT(5))) return bits;
    bits |= TBC_X86_AVX2;
    if (has(leaf7_1[0], BIT(4))) bits |= TBC_X86_AVXVNNI;

    /* x86-64-v4: AVX-512 F, DQ, CD, BW and VL */
    if (has(state, 0xe6) && has(leaf7[1], BIT(16) | BIT(17) | BIT(28) | BIT(30) | BIT(31))) {
        bits |= TBC_X86_AVX512;
        if (has(leaf7[2], BIT(11))) bits |= TBC_X86_AVX512VNNI;
        if (has(leaf7[2], BIT(1))) bits |= TBC_X86_AVX512VBMI;
    }
    /* AMX tiles and their 8-bit products; the tile registers are bits 17 and 18 of the state. */
    if (has(state, 0x60000) && has(leaf7[3], BIT(24) | BIT(25)) && may_use_tiles()) {
        bits |= TBC_X86_AMXINT8;
    }
    return bits;
}

#elif defined(__aarch64__) || defined(_M_ARM64)

#if defined(__linux__)
#include <sys/auxv.h>

uint64_t tbc_cpu_bits(void) {
    unsigned long hwcap = getauxval(AT_HWCAP), hwcap2 = getauxval(AT_HWCAP2);
    uint64_t bits = 0;
    if (hwcap & (1ul << 1)) bits |= TBC_ARM_NEON;                           /* ASIMD */
    if (hwcap & (1ul << 20)) bits |= TBC_ARM_DOTPROD;                       /* ASIMDDP */
    if ((hwcap & (1ul << 9)) && (hwcap & (1ul << 10))) bits |= TBC_ARM_FP16; /* FPHP, ASIMDHP */
    if (hwcap & (1ul << 22)) bits |= TBC_ARM_SVE;
    if (hwcap2 & (1ul << 1)) bits |= TBC_ARM_SVE2;
    if (hwcap2 & (1ul << 13)) bits |= TBC_ARM_I8MM;
    return bits;
}
#elif defined(__APPLE__)
#include <sys/sysctl.h>

static int has(const char *name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value != 0;
}

uint64_t tbc_cpu_bits(void) {
    uint64_t bits = TBC_ARM_NEON;
    if (has("hw.optional.arm.FEAT_DotProd")) bits |= TBC_ARM_DOTPROD;
    if (has("hw.optional.arm.FEAT_I8MM")) bits |= TBC_ARM_I8MM;
    if (has("hw.optional.arm.FEAT_FP16")) bits |= TBC_ARM_FP16;
    return bits;
}
#elif defined(_WIN32)
#include <windows.h>

uint64_t tbc_cpu_bits(void) {
    uint64_t bits = TBC_ARM_NEON;
    if (IsProcessorFeaturePresent(43)) bits |= TBC_ARM_DOTPROD; /* PF_ARM_V82_DP */
    if (IsProcessorFeaturePresent(46)) bits |= TBC_ARM_SVE;
    if (IsProcessorFeaturePresent(47)) bits |= TBC_ARM_SVE2;
    if (IsProcessorFeaturePresent(66)) bits |= TBC_ARM_I8MM; /* PF_ARM_V82_I8MM */
    if (IsProcessorFeaturePresent(67)) bits |= TBC_ARM_FP16; /* PF_ARM_V82_FP16 */
    return bits;
}
#else
#define TBC_CPU_BY_COMPILER
#endif

#elif defined(__arm__) && defined(__linux__)
#include <sys/auxv.h>

uint64_t tbc_cpu_bits(void) {
    unsigned long hwcap = getauxval(AT_HWCAP);
    uint64_t bits = 0;
    if (hwcap & (1ul << 12)) bits |= TBC_ARM_NEON;
    if (hwcap & (1ul << 24)) bits |= TBC_ARM_DOTPROD; /* ASIMDDP */
    if (hwcap & (1ul << 27)) bits |= TBC_ARM_I8MM;
    if (hwcap & (1ul << 7)) bits |= TBC_ARM_DSP; /* EDSP */
    if (hwcap & (1ul << 23)) bits |= TBC_ARM_FP16; /* ASIMDHP */
    return bits;
}

#elif defined(__riscv) && defined(__linux__)
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

uint64_t tbc_cpu_bits(void) {
    struct {
        int64_t key;
        uint64_t value;
    } pair = {4, 0}; /* RISCV_HWPROBE_KEY_IMA_EXT_0 */
    /* riscv_hwprobe, since Linux 6.4; before, a letter of the ISA string is a bit of AT_HWCAP. */
    if (syscall(258, &pair, (size_t)1, (size_t)0, NULL, 0u) == 0 && pair.key == 4) {
        return (pair.value & 4u) != 0 ? TBC_RISCV_V : 0;
    }
    return (getauxval(AT_HWCAP) & (1ul << ('v' - 'a'))) != 0 ? TBC_RISCV_V : 0;
}

#else
#define TBC_CPU_BY_COMPILER
#endif

#ifdef TBC_CPU_BY_COMPILER
uint64_t tbc_cpu_bits(void) {
    uint64_t bits = 0;
#ifdef __ARM_NEON
    bits |= TBC_ARM_NEON;
#endif
#ifdef __ARM_FEATURE_DOTPROD
    bits |= TBC_ARM_DOTPROD;
#endif
#ifdef __ARM_FEATURE_MATMUL_INT8
    bits |= TBC_ARM_I8MM;
#endif
#ifdef __ARM_FEATURE_SVE
    bits |= TBC_ARM_SVE;
#endif
#ifdef __ARM_FEATURE_SVE2
    bits |= TBC_ARM_SVE2;
#endif
#ifdef __ARM_FEATURE_DSP
    bits |= TBC_ARM_DSP;
#endif
#ifdef __ARM_FEATURE_MVE
    bits |= TBC_ARM_MVE;
#endif
#ifdef __ARM_FEATURE_FP16_SCALAR_ARITHMETIC
    bits |= TBC_ARM_FP16;
#endif
#ifdef __riscv_v
    bits |= TBC_RISCV_V;
#endif
    return bits;
}
#endif
