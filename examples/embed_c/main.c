/*
 * Reads images of digits, 8 x 8 numbers from 0 to 16 each, and prints the digit that every one
 * shows. The model is compiled into the program; nothing is allocated and no model file is read.
 */
#include "digits_mlp.h"

#include <stdint.h>
#include <stdio.h>

#define PIXELS TBC_DIGITS_MLP_INPUT_X_COUNT
#define DIGITS TBC_DIGITS_MLP_OUTPUT_LOGITS_COUNT

/* The memory that a call works in. C99 cannot align an array, so there is room to move its start. */
static unsigned char arena_room[TBC_DIGITS_MLP_ARENA_SIZE + TBC_DIGITS_MLP_ARENA_ALIGN];

static void *arena(void) {
    const uintptr_t past = (uintptr_t)arena_room % TBC_DIGITS_MLP_ARENA_ALIGN;
    return arena_room + (past ? TBC_DIGITS_MLP_ARENA_ALIGN - past : 0);
}

/* The next image; 0 at the end of the input, -1 where it is none. */
static int read_image(float image[PIXELS]) {
    size_t i;
    for (i = 0; i < PIXELS; i++) {
        const int found = scanf("%f", &image[i]);
        if (found == EOF && i == 0) return 0;
        if (found != 1 || !(image[i] >= 0.0f && image[i] <= 16.0f)) return -1;
        image[i] /= 16.0f;
    }
    return 1;
}

static size_t largest(const float scores[DIGITS]) {
    size_t best = 0, i;
    for (i = 1; i < DIGITS; i++) {
        if (scores[i] > scores[best]) best = i;
    }
    return best;
}

int main(void) {
    float image[PIXELS], scores[DIGITS];
    const void *inputs[TBC_DIGITS_MLP_INPUTS];
    void *outputs[TBC_DIGITS_MLP_OUTPUTS];
    tbc_call call = {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL};
    int32_t status = tbc_check(&tbc_digits_mlp, tbc_cpu_bits());
    int found = 0;

    inputs[TBC_DIGITS_MLP_INPUT_X] = image;
    outputs[TBC_DIGITS_MLP_OUTPUT_LOGITS] = scores;
    call.inputs = inputs;
    call.outputs = outputs;
    call.arena = arena();

    while (status == TBC_OK && (found = read_image(image)) > 0) {
        status = tbc_digits_mlp.run(&call);
        if (status == TBC_OK) printf("%u\n", (unsigned)largest(scores));
    }
    if (status != TBC_OK) {
        fprintf(stderr, "%s: %s\n", tbc_digits_mlp.name, tbc_status_text(status));
        return 1;
    }
    if (found < 0) {
        fprintf(stderr, "an image is %d numbers from 0 to 16\n", PIXELS);
        return 1;
    }
    return 0;
}
