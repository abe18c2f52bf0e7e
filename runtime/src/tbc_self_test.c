/* Runs a model on inputs made by a rule, and compares what comes out with what should.
 *
 * C99, freestanding. model->self_test is
 *
 *     sum, a value for each symbol, low and span of each input
 *
 * where an input's elements are low + (r * span >> 16), f32 and f64 2^-14 of that and shorter
 * floats 2^-6; r is the upper half of s = s * 1664525 + 1013904223, which starts with the input's
 * number from 1 on. `sum` is the CRC-32 of the bytes of all outputs, the lowest byte of an element
 * first. Nothing is divided, and no 64-bit number is shifted: small cores would call a library.
 */
#include "tbc.h"

enum { MOST = 16 /* symbols, and axes of an output */ };

/* Sets of enum tbc_dtype, which take less room than a switch. */
#define BIT(dtype) (UINT32_C(1) << (dtype))
static const uint32_t ONE = BIT(TBC_U8) | BIT(TBC_I8) | BIT(TBC_BOOL);
static const uint32_t TWO = BIT(TBC_U16) | BIT(TBC_I16) | BIT(TBC_F16) | BIT(TBC_BF16);
static const uint32_t EIGHT = BIT(TBC_I64) | BIT(TBC_U64) | BIT(TBC_F64);

static uint32_t size_of(uint32_t dtype) {
    return ONE & BIT(dtype) ? 1 : TWO & BIT(dtype) ? 2 : EIGHT & BIT(dtype) ? 8 : 4;
}

/* The bits of value * 2^e as a float, of which e is in the bias; of an f64 all but 32 zeros. */
static uint32_t float_bits(int32_t value, uint32_t size, uint32_t fraction, uint32_t bias) {
    uint32_t m = value < 0 ? 0u - (uint32_t)value : (uint32_t)value, e = 0;
    if (m == 0) return 0;
    while (m >> e > 1) e++;
    m = (m << (fraction - e)) & ((UINT32_C(1) << fraction) - 1);
    return (value < 0 ? UINT32_C(1) << (8 * size - 1) : 0) | (bias + e) << fraction | m;
}

static int is_little(void) {
    const union {
        uint32_t word;
        unsigned char bytes[4];
    } one = {1};
    return one.bytes[0];
}

/* Write an element of 1 to 8 bytes, which may be aligned to 1. */
static void put(unsigned char *at, uint32_t size, uint32_t low, uint32_t high) {
    for (uint32_t i = 0; i < size; i++) {
        at[is_little() ? i : size - 1 - i] = (unsigned char)low;
        low = i == 3 ? high : low >> 8;
    }
}

static void fill(const tbc_tensor *tensor, unsigned char *at, uint32_t state, const uint32_t *rule) {
    const uint32_t size = size_of(tensor->dtype);
    const unsigned char *const end = at + tensor->bytes;
    for (; at != end; at += size) {
        state = state * UINT32_C(1664525) + UINT32_C(1013904223);
        uint32_t low = rule[0] + ((state >> 16) * rule[1] >> 16);
        uint32_t high = low >> 31 != 0 ? UINT32_MAX : 0;
        const int32_t value = high != 0 ? -(int32_t)(0u - low) : (int32_t)low;
        switch (tensor->dtype) {
        case TBC_F32: low = float_bits(value, 4, 23, 127 - 14); break;
        case TBC_F16: low = float_bits(value, 2, 10, 15 - 6); break;
        case TBC_BF16: low = float_bits(value, 2, 7, 127 - 6); break;
        case TBC_F64: high = float_bits(value, 4, 20, 1023 - 14), low = 0; break;
        default: break;
        }
        put(at, size, low, high);
    }
}

/* The sum with an output's bytes added, the lowest of each element first. */
static uint32_t add(uint32_t sum, const unsigned char *at, size_t elements, uint32_t size) {
    if (is_little()) return tbc_sum_more(sum, at, elements * size);
    for (; elements != 0; elements--, at += size) {
        unsigned char turned[8];
        for (uint32_t i = 0; i < size; i++) turned[i] = at[size - 1 - i];
        sum = tbc_sum_more(sum, turned, size);
    }
    return sum;
}

int32_t tbc_self_test(const tbc_model *model, const tbc_call *given) {
    size_t sizes[MOST], dims[MOST];
    /* Not copied as a whole, for which a compiler may call memcpy. */
    tbc_call call = {given->inputs, given->outputs, given->arena, given->state, given->weights,
                     NULL, NULL, given->fast};
    const uint32_t *word = model->self_test;
    if (word == NULL) return TBC_ERROR_NO_TEST;
    if (call.inputs == NULL || call.outputs == NULL) return TBC_ERROR_NULL;
    const uint32_t expected = *word++;
    for (uint32_t i = 0; i < model->n_symbols; i++) dims[i] = *word++;
    if (model->n_symbols != 0) call.dims = dims;
    for (uint32_t i = 0; i < model->n_inputs; i++, word += 2) {
        if (call.inputs[i] == NULL) return TBC_ERROR_NULL;
        fill(model->inputs + i, (unsigned char *)(uintptr_t)call.inputs[i], i + 1, word);
    }
    if (model->state_size != 0) {
        if (call.state == NULL) return TBC_ERROR_NULL;
        for (size_t i = 0; i < model->state_size; i++) ((unsigned char *)call.state)[i] = 0;
    }
    const int32_t status = model->run(&call);
    if (status != TBC_OK) return status;
    uint32_t sum = 0;
    for (uint32_t i = 0; i < model->n_outputs; i++) {
        const tbc_tensor *const tensor = model->outputs + i;
        const int32_t sized = model->output_shape(&call, i, sizes);
        size_t elements = 1;
        if (sized != TBC_OK) return sized;
        for (uint32_t axis = 0; axis < tensor->rank; axis++) elements *= sizes[axis];
        sum = add(sum, (const unsigned char *)call.outputs[i], elements, size_of(tensor->dtype));
    }
    return sum == expected ? TBC_OK : TBC_ERROR_SELF_TEST;
}
