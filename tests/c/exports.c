/* A model of one input and one output as a WebAssembly module: write the input at input(), call
 * run(), read the output at output(). */
#include "tbc.h"

extern const tbc_model MODEL;

static _Alignas(64) unsigned char x[INPUT_SIZE], y[OUTPUT_SIZE], arena[ARENA_SIZE];

__attribute__((export_name("input"))) void *input(void) { return x; }

__attribute__((export_name("output"))) void *output(void) { return y; }

__attribute__((export_name("run"))) int32_t run(void) {
    const void *const inputs[] = {x};
    void *const outputs[] = {y};
    const tbc_call call = {inputs, outputs, arena, NULL, NULL, NULL, NULL, NULL};
    return MODEL.run(&call);
}
