/* The integers of features.py, step by step. >> of a negative number rounds down, as everywhere. */
#include "features.h"

#include "tables.inc"

enum { GUARD = 6, FLOOR = 96 };

static int32_t real[WINDOW], imaginary[WINDOW];

/* The number behind one, in an order in which they count up with their bits reversed. */
static unsigned next(unsigned reversed) {
    unsigned bit = WINDOW / 2;
    for (; reversed & bit; bit /= 2) reversed ^= bit;
    return reversed | bit;
}

/* A Fourier transform in place, of what lies in reversed order, halved after each stage. */
static void transform(void) {
    for (unsigned half = 1; half < WINDOW; half *= 2) {
        const unsigned step = WINDOW / 2 / half;
        for (unsigned start = 0; start < WINDOW; start += 2 * half) {
            for (unsigned i = 0; i < half; i++) {
                const unsigned a = start + i, b = a + half;
                const int64_t c = turn_cos[i * step], s = turn_sin[i * step];
                const int32_t u = (int32_t)((real[b] * c - imaginary[b] * s) >> 15);
                const int32_t v = (int32_t)((real[b] * s + imaginary[b] * c) >> 15);
                real[b] = (real[a] - u) >> 1;
                imaginary[b] = (imaginary[a] - v) >> 1;
                real[a] = (real[a] + u) >> 1;
                imaginary[a] = (imaginary[a] + v) >> 1;
            }
        }
    }
}

static uint64_t power(unsigned bin) {
    const int64_t re = real[bin] >> GUARD, im = imaginary[bin] >> GUARD;
    return (uint64_t)(re * re + im * im);
}

/* 4 log2(energy), where the fraction is linear between powers of two. */
static int logarithm(uint64_t energy) {
    int whole = 0;
    while (energy >> whole > 1) whole++;
    return 4 * whole + (int)(energy << 2 >> whole & 3);
}

void features(const int16_t samples[WINDOW], int8_t out[BANDS]) {
    const uint8_t *weight = band_weights;
    for (unsigned i = 0, reversed = 0; i < WINDOW; i++, reversed = next(reversed)) {
        real[reversed] = (int32_t)samples[i] * hann[i] >> 1;
        imaginary[i] = 0;
    }
    transform();
    for (unsigned band = 0; band < BANDS; band++) {
        uint64_t sum = 0;
        for (unsigned i = 0; i < band_count[band]; i++) sum += power(band_first[band] + i) * *weight++;
        const int value = logarithm((sum >> 8) + 1) - FLOOR;
        out[band] = (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
    }
}
