/* Runs a model with one input and one output of floats on an AVR, and prints the bits of the result
 * to the first serial port. Input i is (7 i mod 17) / 16. MODEL is the constant's name, ARENA its
 * arena's size, INPUTS and OUTPUTS the numbers of elements.
 */
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>

#include "tbc.h"

extern const tbc_model MODEL;

static uint64_t arena[(ARENA + 7) / 8];
static float x[INPUTS];
static union {
    float elements[OUTPUTS];
    uint32_t bits[OUTPUTS];
} y;

static void put(char character) {
    while ((UCSR0A & (1 << UDRE0)) == 0) continue;
    UDR0 = (uint8_t)character;
}

int main(void) {
    const void *const inputs[] = {x};
    void *const outputs[] = {y.elements};
    const tbc_call call = {inputs, outputs, arena, NULL, NULL, NULL, NULL, NULL};
    uint16_t i;
    int8_t digit;

    UCSR0B = 1 << TXEN0;
    for (i = 0; i < INPUTS; i++) x[i] = (float)(i * 7 % 17) / 16.0f;
    put(MODEL.run(&call) == TBC_OK ? '=' : '!');
    for (i = 0; i < OUTPUTS; i++) {
        for (digit = 28; digit >= 0; digit -= 4) put("0123456789abcdef"[y.bits[i] >> digit & 15]);
    }
    put('\n');
    cli();
    sleep_enable();
    sleep_cpu();
    return 0;
}
