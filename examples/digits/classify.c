/* Classifies the held-out digits with a network that tbc compiled ahead of time.
 * Takes the MLP, or the CNN with -DDIGITS_CNN; README.md says how to build it. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "test_digits.h"

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

#define CLASSES 10

/* C99 has no way to align an array, so there is room to move its start. */
static unsigned char arena_room[ARENA_SIZE + ARENA_ALIGN];

static void *arena(void) {
    const uintptr_t past = (uintptr_t)arena_room % ARENA_ALIGN;
    return arena_room + (past ? ARENA_ALIGN - past : 0);
}

/* The network's scores for one image; TBC_OK or why there are none. */
static int32_t score(const uint8_t pixels[TEST_PIXELS], float logits[CLASSES]) {
    float x[TEST_PIXELS];
    const void *const inputs[] = {x};
    void *const outputs[] = {logits};
    const tbc_call call = {.inputs = inputs, .outputs = outputs, .arena = arena()};

    for (size_t i = 0; i < TEST_PIXELS; i++) x[i] = (float)pixels[i] / 16.0f;
    return MODEL.run(&call);
}

static size_t largest(const float logits[CLASSES]) {
    size_t best = 0;
    for (size_t i = 1; i < CLASSES; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

int main(void) {
    int correct = 0;
    int32_t status = tbc_check(&MODEL, tbc_cpu_bits());

    for (size_t i = 0; i < TEST_DIGITS && status == TBC_OK; i++) {
        float logits[CLASSES];
        status = score(test_images[i], logits);
        if (status == TBC_OK) {
            const size_t digit = largest(logits);
            correct += digit == test_labels[i];
            printf("%u", (unsigned)digit);
        }
    }
    if (status != TBC_OK) {
        fprintf(stderr, "%s: %s\n", MODEL.name, tbc_status_text(status));
        return 1;
    }
    printf("\n%s: %d of %d images correct\n", MODEL.name, correct, TEST_DIGITS);
    return 0;
}
