/* A model by hand, of tbc.h alone: it copies an input of every type, and counts its calls in the
 * state. Its arena and state must be aligned, and the arena writable to its end. */
#include "tbc.h"

#ifndef ABI
#define ABI TBC_ABI
#endif
enum { TYPES = 13, MOST = 5, ALIGN = 256, ARENA = 100000 };

static const size_t shape[] = {MOST, 2}, one[] = {1};
#define PAIR(name, dtype, size) {name, dtype, 2, shape, "n,2", MOST * 2 * (size)}
#define TENSORS(p)                                                                               \
    PAIR(p "f32", TBC_F32, 4), PAIR(p "u8", TBC_U8, 1), PAIR(p "i8", TBC_I8, 1),                  \
        PAIR(p "u16", TBC_U16, 2), PAIR(p "i16", TBC_I16, 2), PAIR(p "i32", TBC_I32, 4),          \
        PAIR(p "i64", TBC_I64, 8), PAIR(p "bool", TBC_BOOL, 1), PAIR(p "f16", TBC_F16, 2),        \
        PAIR(p "f64", TBC_F64, 8), PAIR(p "u32", TBC_U32, 4), PAIR(p "u64", TBC_U64, 8),          \
        PAIR(p "bf16", TBC_BF16, 2)
static const tbc_tensor inputs[] = {TENSORS("")};
static const tbc_tensor outputs[] = {TENSORS("of "), {"calls", TBC_U32, 1, one, "1", 4}};
static const tbc_symbol symbols[] = {{"n", 1, MOST}};

static int32_t run(const tbc_call *call) {
    unsigned char *const arena = (unsigned char *)call->arena;
    uint32_t *const count = (uint32_t *)call->state;
    if (((uintptr_t)arena | (uintptr_t)count) % ALIGN != 0) return TBC_ERROR_ALIGN;
    for (size_t i = 0; i < ARENA; i++) arena[i] = 0xff;
    for (size_t i = 0; i < TYPES; i++) {
        const unsigned char *const x = (const unsigned char *)call->inputs[i];
        unsigned char *const y = (unsigned char *)call->outputs[i];
        const size_t bytes = inputs[i].bytes / MOST * call->dims[0];
        for (size_t at = 0; at < bytes; at++) y[at] = x[at];
    }
    *(uint32_t *)call->outputs[TYPES] = ++*count;
    return TBC_OK;
}

static int32_t output_shape(const tbc_call *call, uint32_t index, size_t *sizes) {
    sizes[0] = index == TYPES ? 1 : call->dims[0];
    if (index != TYPES) sizes[1] = 2;
    return TBC_OK;
}

#ifdef TEST
static const uint32_t test[] = {TEST};
#else
#define test NULL
#endif
static const tbc_model model = {
    .abi = ABI, .name = "every", .version = "by hand", .target = "wasm32",
    .inputs = inputs, .outputs = outputs, .symbols = symbols,
    .n_inputs = TYPES, .n_outputs = TYPES + 1, .n_symbols = 1,
    .align = ALIGN, .arena_size = ARENA, .state_size = 4,
    .run = run, .output_shape = output_shape, .self_test = test,
};
const tbc_model *const tbc_models[] = {&model, NULL};
