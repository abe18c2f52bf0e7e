/*
 * Classifies digits that lie in flash, on a core without floating point, and prints what they show.
 * No C library is linked. Takes the MLP, or the CNN with -DDIGITS_CNN; README.md says how to build it.
 */
#include <stddef.h>
#include <stdint.h>

#include "images.h"
#include "start.h"

#ifdef DIGITS_CNN
#include "digits_cnn.h"
#define MODEL tbc_digits_cnn
#define ARENA_SIZE TBC_DIGITS_CNN_ARENA_SIZE
#define ARENA_ALIGN TBC_DIGITS_CNN_ARENA_ALIGN
#else
#include "digits_mlp.h"
#define MODEL tbc_digits_mlp
#define ARENA_SIZE TBC_DIGITS_MLP_ARENA_SIZE
#define ARENA_ALIGN TBC_DIGITS_MLP_ARENA_ALIGN
#endif

enum { CLASSES = 10 };

static unsigned char arena[ARENA_SIZE] __attribute__((aligned(ARENA_ALIGN)));

/* The network's input and output as the bits of floats: no function of floats is linked for them. */
static uint32_t x[PIXELS], logits[CLASSES];

/* The bits of pixel / 16.0f, for 0 to 16. */
static uint32_t sixteenths(uint32_t pixel) {
    uint32_t exponent = 127;
    if (pixel == 0) return 0;
    for (; pixel < 16; pixel <<= 1) exponent--;
    return exponent << 23 | (pixel & 15) << 19;
}

/* An integer that is ordered as the float with these bits is. */
static int32_t ordered(uint32_t bits) {
    return (int32_t)(bits >> 31 != 0 ? bits ^ 0x7fffffffu : bits);
}

static char digit(void) {
    size_t best = 0;
    for (size_t i = 1; i < CLASSES; i++) {
        if (ordered(logits[i]) > ordered(logits[best])) best = i;
    }
    return (char)('0' + best);
}

int main(void) {
    const void *const inputs[] = {x};
    void *const outputs[] = {logits};
    const tbc_call call = {inputs, outputs, arena, NULL, NULL, NULL, NULL, NULL};
    char text[IMAGES + 2];

    for (size_t i = 0; i < IMAGES; i++) {
        for (size_t j = 0; j < PIXELS; j++) x[j] = sixteenths(images[i][j]);
        if (MODEL.run(&call) != TBC_OK) return 1;
        text[i] = digit();
    }
    text[IMAGES] = '\n';
    text[IMAGES + 1] = '\0';
    say(text);
    return 0;
}
