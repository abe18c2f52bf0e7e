/*
 * Listens to speech that lies in flash, frame after frame, and prints once a second what it has heard
 * and the bits of all scores. A product would take the samples from its microphone.
 */
#include <stddef.h>
#include <stdint.h>

#include "../cortex_m0/start.h"
#include "features.h"
#include "keywords.h"

enum { FRAMES = 50, DECIDED = 48 };
/* Frames a second, and the one in it that ends 8 ms before the second does. */

__asm__(".section .rodata.speech, \"a\"\n"
        ".global speech, speech_end\n"
        "speech: .incbin \"" SPEECH "\"\n"
        "speech_end:\n"
        ".text\n");
extern const uint8_t speech[], speech_end[];

static const char *const words[TBC_KEYWORDS_OUTPUT_SCORES_COUNT] = {
    "yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "unknown", "silence",
};

static unsigned char arena[TBC_KEYWORDS_ARENA_SIZE] __attribute__((aligned(TBC_KEYWORDS_ARENA_ALIGN)));
static unsigned char state[TBC_KEYWORDS_STATE_SIZE] __attribute__((aligned(TBC_KEYWORDS_ARENA_ALIGN)));
static int16_t samples[WINDOW];
static int8_t heard[BANDS];
static uint32_t scores[TBC_KEYWORDS_OUTPUT_SCORES_COUNT];

/* G.711's mu-law, with no bit turned over. */
static int16_t sample(uint8_t code) {
    const int size = ((((code & 15) << 3) + 132) << (code >> 4 & 7)) - 132;
    return (int16_t)(code & 128 ? -size : size);
}

/* An integer that is ordered as the float with these bits is. */
static int32_t ordered(uint32_t bits) {
    return (int32_t)(bits >> 31 != 0 ? bits ^ 0x7fffffffu : bits);
}

static size_t best(void) {
    size_t found = 0;
    for (size_t i = 1; i < TBC_KEYWORDS_OUTPUT_SCORES_COUNT; i++) {
        if (ordered(scores[i]) > ordered(scores[found])) found = i;
    }
    return found;
}

static void say_bits(uint32_t bits) {
    char text[] = " 00000000";
    for (int i = 8; i > 0; i--, bits >>= 4) text[i] = "0123456789abcdef"[bits & 15];
    say(text);
}

/* Not inlined, as it may save registers of the floating-point unit that is not on before. */
__attribute__((noinline)) static int listen(void) {
    const void *const inputs[] = {heard};
    void *const outputs[] = {scores};
    const tbc_call call = {inputs, outputs, arena, state, NULL, NULL, NULL, NULL};

    for (size_t i = 0; i < sizeof state; i++) state[i] = 0;
    for (size_t frame = 0; speech + frame * HOP + WINDOW <= speech_end; frame++) {
        for (size_t i = 0; i < WINDOW; i++) samples[i] = sample(speech[frame * HOP + i]);
        features(samples, heard);
        if (tbc_keywords.run(&call) != TBC_OK) return 1;
        if (frame % FRAMES != DECIDED) continue;
        say(words[best()]);
        for (size_t i = 0; i < TBC_KEYWORDS_OUTPUT_SCORES_COUNT; i++) say_bits(scores[i]);
        say("\n");
    }
    return 0;
}

int main(void) {
    *(volatile uint32_t *)0xe000ed88 |= 0xfu << 20; /* CPACR: the floating-point unit is on */
    __asm__ volatile("dsb\n isb" ::: "memory");
    return listen();
}
