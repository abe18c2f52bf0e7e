/*
 * Listens to machines whose sounds lie in flash as features, and prints what it thinks of each: the
 * word, and the bits of the sum of its windows' scores. A product would make the features of what its
 * microphone hears, as sounds.py does.
 */
#include <stddef.h>
#include <stdint.h>

#include "../cortex_m0/start.h"
#include "machine_sounds.h"

enum { BANDS = 128, FRAMES = 61, WINDOW = TBC_MACHINE_SOUNDS_INPUT_CODES_COUNT / BANDS };
enum { WINDOWS = FRAMES - WINDOW + 1 };

/* Above it are a tenth of the machines that run well, and most of the others. */
static const float threshold = 0.443f;

__asm__(".section .rodata.clips, \"a\"\n"
        ".global clips, clips_end\n"
        "clips: .incbin \"" CLIPS "\"\n"
        "clips_end:\n"
        ".text\n");
extern const uint8_t clips[], clips_end[];

static unsigned char arena[TBC_MACHINE_SOUNDS_ARENA_SIZE]
    __attribute__((aligned(TBC_MACHINE_SOUNDS_ARENA_ALIGN)));

static void say_bits(float number) {
    union { float number; uint32_t bits; } same = {number};
    char text[] = " 00000000\n";
    for (int i = 8; i > 0; i--, same.bits >>= 4) text[i] = "0123456789abcdef"[same.bits & 15];
    say(text);
}

/* Not inlined, as it may save registers of the floating-point unit that is not on before. */
__attribute__((noinline)) static int listen(void) {
    float score;
    void *const outputs[] = {&score};

    for (const uint8_t *clip = clips; clip < clips_end; clip += FRAMES * BANDS) {
        float sum = 0;
        for (size_t i = 0; i < WINDOWS; i++) {
            const void *const inputs[] = {clip + i * BANDS};
            const tbc_call call = {inputs, outputs, arena, NULL, NULL, NULL, NULL, NULL};
            if (tbc_machine_sounds.run(&call) != TBC_OK) return 1;
            sum += score;
        }
        say(sum > threshold * WINDOWS ? "unusual" : "normal");
        say_bits(sum);
    }
    return 0;
}

int main(void) {
    *(volatile uint32_t *)0xe000ed88 |= 0xfu << 20; /* CPACR: floats and Helium are on */
    __asm__ volatile("dsb\n isb" ::: "memory");
    return listen();
}
