/* Runs an int8 network that another generator wrote in C on a board, and what it needs of a C library.
 *
 * PROTOTYPE declares a function and CALL calls it with `arena`, `input` and `output`, of ARENA,
 * INPUT and OUTPUT bytes. */
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { READ, WRITE, EXIT };
long system_call(long number, long file, long at, long size);
void _start(void);
PROTOTYPE

static uint8_t arena[ARENA + 1] __attribute__((aligned(16)));
static int8_t input[INPUT], output[OUTPUT];

void _start(void) {
    long at = 0;
    while (at < INPUT) at += system_call(READ, 0, (long)(input + at), INPUT - at);
    CALL;
    system_call(WRITE, 1, (long)output, OUTPUT);
    (void)arena;
    system_call(EXIT, 0, 0, 0);
}

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    uint8_t *const bytes = to;
    size_t i = 0;
    if ((((uintptr_t)to | (uintptr_t)from) & 3) == 0)
        for (; i + 4 <= size; i += 4) *(uint32_t *)(bytes + i) = *(const uint32_t *)((const uint8_t *)from + i);
    for (; i < size; i++) bytes[i] = ((const uint8_t *)from)[i];
    return to;
}

void *memset(void *to, int value, size_t size) {
    uint8_t *const bytes = to;
    for (size_t i = 0; i < size; i++) bytes[i] = (uint8_t)value;
    return to;
}

/* Round to even, by adding what pushes the fraction out: |x| is less than 2^22, or 2^51. */
float nearbyintf(float x) {
    const float big = x < 0 ? -0x1.8p23f : 0x1.8p23f;
    return x + big - big;
}

double nearbyint(double x) {
    const double big = x < 0 ? -0x1.8p52 : 0x1.8p52;
    return x + big - big;
}

/* Of numbers, not of nans. */
float fmaxf(float a, float b) { return a > b ? a : b; }
float fminf(float a, float b) { return a < b ? a : b; }
double fmax(double a, double b) { return a > b ? a : b; }
long long llrint(double x) { return (long long)nearbyint(x); }
long long llround(double x) { return (long long)(x < 0 ? x - 0.5 : x + 0.5); }

double ldexp(double x, int exponent) {
    for (; exponent > 0; exponent--) x *= 2;
    for (; exponent < 0; exponent++) x /= 2;
    return x;
}

void __aeabi_memcpy(void *to, const void *from, size_t size);
void __aeabi_memcpy(void *to, const void *from, size_t size) { memcpy(to, from, size); }
void __aeabi_memcpy4(void *to, const void *from, size_t size);
void __aeabi_memcpy4(void *to, const void *from, size_t size) { memcpy(to, from, size); }
void __aeabi_memclr(void *to, size_t size);
void __aeabi_memclr(void *to, size_t size) { memset(to, 0, size); }
void __aeabi_memclr4(void *to, size_t size);
void __aeabi_memclr4(void *to, size_t size) { memset(to, 0, size); }
void __aeabi_memset(void *to, size_t size, int value);
void __aeabi_memset(void *to, size_t size, int value) { memset(to, value, size); }
