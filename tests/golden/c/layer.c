/*
 * layer: compiled by tbc 0.1.0 as portable C. Generated; do not edit.
 *
 * C99 and C++11, freestanding, for any byte order and width of int. It takes for granted that
 * signed integers are two's complement, and that float is IEEE 754's binary32 with no extra
 * precision. Build it without -ffast-math, and with -ffp-contract=off where the compiler has it.
 */
#include "layer.h"

#include <float.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
/* No fused multiply-adds, and no loops turned into calls of memset and memcpy. */
#pragma GCC optimize("fp-contract=off", "no-tree-loop-distribute-patterns")
#elif !defined(__cplusplus)
#pragma STDC FP_CONTRACT OFF
#endif

#if defined(__FAST_MATH__)
#error "with -ffast-math the results would not be those of the model"
#endif
#if defined(FLT_EVAL_METHOD) && (FLT_EVAL_METHOD == 1 || FLT_EVAL_METHOD == 2)
#error "floats are computed with extra precision: on 32-bit x86, -msse2 -mfpmath=sse helps"
#endif
typedef char tbc_layer_needs_ieee_floats[FLT_MANT_DIG == 24 && sizeof(float) == 4 ? 1 : -1];

#if !defined(__cplusplus)
#define TBC_RESTRICT restrict
#elif defined(__GNUC__) || defined(_MSC_VER)
#define TBC_RESTRICT __restrict
#else
#define TBC_RESTRICT
#endif

static const struct {
    uint32_t w0[32]; /* u8[128] */
} tbc_layer_weights = {
    {
        0x18461184u, 0x18461184u, 0x18461184u, 0x18461184u, 0x18461184u, 0x55555555u, 0x55555555u,
        0x55555555u, 0x55555555u, 0x55555555u, 0x55555555u, 0x55555555u, 0x55555555u, 0x55555555u,
        0x55555555u, 0x55555555u, 0x55545655u, 0x55545655u, 0x55545655u, 0x55545655u, 0x55545655u,
        0x55555555u, 0x55555555u, 0x55555555u, 0x55555555u, 0x55555555u, 0x55555555u, 0x55555555u,
        0x55555555u, 0x55555555u, 0x55555555u, 0x55555555u
    }
};
typedef char tbc_layer_weights_have_no_gaps[sizeof(tbc_layer_weights) == 128u ? 1 : -1];

static void tbc_layer_dot_scalar_i2_2(const int8_t *x, const unsigned char *w, unsigned char *out,
        int32_t steps) {
    uint32_t v144;
    uint32_t v148;
    uint32_t stack1[16];
    for (int32_t i5 = 0; i5 < 16; i5++) {
        *(uint32_t *)(out + i5 * 4) = 0u;
    }
    for (int32_t i13 = 0; i13 < steps; i13 += 2) {
        const int32_t v15 = steps - i13;
        const int32_t v17 = v15 < 2 ? v15 : 2;
        const int8_t *const v19 = x + i13 * 16;
        const int32_t v20 = v17 * 4;
        for (int32_t i24 = 0; i24 < v20; i24++) {
            const int8_t *const v27 = v19 + i24 * 4;
            unsigned char *const v43 = (unsigned char *)stack1 + i24 * 8;
            const int32_t v37 = (int32_t)v27[1];
            const int32_t v39 = (int32_t)v27[3];
            *(uint32_t *)v43 = ((uint32_t)(int32_t)*v27 << 16) + (uint32_t)(int32_t)v27[2];
            *(uint32_t *)(v43 + 4) = ((uint32_t)v37 << 16) + (uint32_t)v39;
        }
        const unsigned char *const v51 = w + i13 * 64;
        for (int32_t i55 = 0; i55 < 16; i55 += 2) {
            const int32_t v57 = i55 * 4;
            unsigned char *const v60 = (unsigned char *)stack1 + v17 * 32;
            const unsigned char *c62 = (const unsigned char *)(unsigned char *)stack1;
            const unsigned char *c63 = v51 + v57;
            uint32_t c64 = 0x30003u;
            uint32_t c65 = 0u;
            uint32_t c66 = 0u;
            for (;;) {
                const uint32_t v68 = *(const uint32_t *)c63;
                const uint32_t v70 = *(const uint32_t *)(c63 + 4);
                const uint32_t v72 = *(const uint32_t *)c62;
                const uint32_t v80 = *(const uint32_t *)(c62 + 4);
                const uint32_t v90 = *(const uint32_t *)(c62 + 8);
                const uint32_t v94 = c65 + (v68 & c64) * v72 + ((v68 >> 8) & c64) * v80 + ((v68 >>
                        2) & c64) * v90;
                const uint32_t v98 = c66 + (v70 & c64) * v72 + ((v70 >> 8) & c64) * v80 + ((v70 >>
                        2) & c64) * v90;
                const uint32_t v100 = *(const uint32_t *)(c62 + 12);
                const uint32_t v110 = *(const uint32_t *)(c62 + 16);
                const uint32_t v120 = *(const uint32_t *)(c62 + 20);
                const uint32_t v124 = v94 + ((v68 >> 10) & c64) * v100 + ((v68 >> 4) & c64) * v110 +
                        ((v68 >> 12) & c64) * v120;
                const uint32_t v128 = v98 + ((v70 >> 10) & c64) * v100 + ((v70 >> 4) & c64) * v110 +
                        ((v70 >> 12) & c64) * v120;
                const uint32_t v130 = *(const uint32_t *)(c62 + 24);
                const uint32_t v140 = *(const uint32_t *)(c62 + 28);
                v144 = v124 + ((v68 >> 6) & c64) * v130 + ((v68 >> 14) & c64) * v140;
                v148 = v128 + ((v70 >> 6) & c64) * v130 + ((v70 >> 14) & c64) * v140;
                const unsigned char *const v149 = c62 + 32;
                if (!(v149 != v60)) break;
                c62 = v149;
                c63 += 64;
                c65 = v144;
                c66 = v148;
            }
            unsigned char *const v155 = out + v57;
            const uint32_t v161 = *(uint32_t *)v155 + (uint32_t)((int32_t)(v144 -
                    (uint32_t)((int32_t)(v144 << 16) >> 16)) >> 16);
            *(uint32_t *)v155 = v161;
            uint32_t *const v164 = (uint32_t *)(v155 + 4);
            const uint32_t v170 = *v164 + (uint32_t)((int32_t)(v148 - (uint32_t)((int32_t)(v148 <<
                    16) >> 16)) >> 16);
            *v164 = v170;
        }
    }
}

/*
 * read 0: i8[2, 20]
 * v1: i8[2, 20] = Reshape(shape=(2, 20))(read 0)
 * v2: i8[2, 32] = Pad(before=(0, 0), shape=(2, 32), mode='constant')(v1, scalar 0: i8[]) anchor
 */
static void tbc_layer_step0_pad(uint8_t *TBC_RESTRICT out, const uint8_t *TBC_RESTRICT r0,
        const size_t *dims, uint32_t part, uint32_t parts) {
    (void)dims;
    const uint32_t v3 = (2u * part) / parts;
    const uint32_t v6 = (2u * (part + 1u)) / parts;
    for (int32_t i10 = (int32_t)v3; i10 < (int32_t)v6; i10++) {
        for (int32_t i16 = 0; i16 < 20; i16++) {
            out[i10 * 32 + i16] = r0[i10 * 20 + i16];
        }
    }
    for (int32_t i36 = (int32_t)v3; i36 < (int32_t)v6; i36++) {
        for (int32_t i42 = 0; i42 < 12; i42++) {
            out[i36 * 32 + i42 + 20] = 0u;
        }
    }
}

/*
 * read 0: i8[2, 32]
 * v1: i32[2, 32] = Cast(dtype=i32)(read 0)
 * v2: i32[2, 1] = Reduce(kind='sum', axes=(1,), keepdims=True)(v1) anchor
 */
static void tbc_layer_step1_reduce(uint32_t *TBC_RESTRICT out, const int8_t *TBC_RESTRICT r0,
        const size_t *dims, uint32_t part, uint32_t parts) {
    (void)dims;
    (void)parts;
    if (part == 0u) {
        for (int32_t i8 = 0; i8 < 2; i8++) {
            uint32_t c17[16];
            for (int lane = 0; lane < 16; lane++) {
                c17[lane] = 0u;
            }
            for (int32_t i16 = 0; i16 < 32; i16 += 16) {
                for (int lane = 0; lane < 16; lane++) {
                    c17[lane] += (uint32_t)(int32_t)r0[i8 * 32 + i16 + lane];
                }
            }
            uint32_t v26[8];
            for (int lane = 0; lane < 8; lane++) {
                v26[lane] = c17[lane];
            }
            uint32_t v28[8];
            for (int lane = 0; lane < 8; lane++) {
                v28[lane] = v26[lane] + c17[lane + 8];
            }
            uint32_t v29[4];
            for (int lane = 0; lane < 4; lane++) {
                v29[lane] = v28[lane];
            }
            uint32_t v31[4];
            for (int lane = 0; lane < 4; lane++) {
                v31[lane] = v29[lane] + v28[lane + 4];
            }
            uint32_t v32[2];
            for (int lane = 0; lane < 2; lane++) {
                v32[lane] = v31[lane];
            }
            uint32_t v34[2];
            for (int lane = 0; lane < 2; lane++) {
                v34[lane] = v32[lane] + v31[lane + 2];
            }
            out[i8] = v34[0] + v34[1];
        }
    }
}

/*
 * read 0: i8[2, 32]
 * read 1: u8[128]
 * v2: i32[2, 5] = PackedDot(kernels=('trit_gemv_1x1c4_scalar',), layout=Layout(code='i2', group=0, rows=16, lanes_k=4), n=5, k=20, starts=(), by_row=False)(read 0, read 1) anchor
 * read 2: i32[2, 1]
 * v4: i32[2, 5] = Binary(fn='sub')(v2, read 2)
 * v5: i32[2, 5] = Reshape(shape=(2, 5))(v4)
 * v6: f32[2, 5] = Cast(dtype=f32)(v5)
 * read 3: f32[1, 1]
 * v8: f32[2, 5] = Binary(fn='mul')(v6, read 3)
 */
static void tbc_layer_step2_trit_gemv_1x1c4_scalar(float *TBC_RESTRICT out,
        const uint8_t *TBC_RESTRICT r0, const unsigned char *TBC_RESTRICT r1,
        const uint32_t *TBC_RESTRICT r2, const float *TBC_RESTRICT r3, const size_t *dims,
        uint32_t part, uint32_t parts) {
    (void)dims;
    uint32_t stack8[16];
    const uint32_t v7 = (part + 1u) / parts;
    for (int32_t i12 = (int32_t)(part / parts); i12 < (int32_t)v7; i12++) {
        for (int32_t i17 = 0; i17 < 2; i17++) {
            tbc_layer_dot_scalar_i2_2((const int8_t *)r0 + i17 * 32, r1 + i12 * 128, (unsigned char
                    *)stack8, 2);
            const int32_t v39 = i12 * 16;
            uint32_t v37[16];
            for (int lane = 0; lane < 16; lane++) {
                v37[lane] = stack8[lane];
            }
            if (v39 < 0) {
                const uint32_t v44 = r2[i17];
                const float v50 = *r3;
                for (int lane = 0; lane < 16; lane++) {
                    out[i17 * 5 + v39 + lane] = (float)(int32_t)(v37[lane] - v44) * v50;
                }
            }
            if (v39 == 0) {
                const uint32_t *const v62 = r2 + i17;
                const uint32_t v63 = *v62;
                const float v69 = *r3;
                const int32_t v73 = i17 * 5;
                for (int lane = 0; lane < 4; lane++) {
                    out[v73 + v39 + lane] = (float)(int32_t)(v37[lane] - v63) * v69;
                }
                out[v73 + (int32_t)((uint32_t)v39 + 4u)] = (float)(int32_t)(v37[4] - *v62) * *r3;
            }
        }
    }
}

static int32_t tbc_layer_phase(const tbc_call *call, uint32_t phase, uint32_t part,
        uint32_t parts) {
    switch (phase) {
    case 0: {
        tbc_layer_step0_pad((uint8_t *)call->arena, (const uint8_t *)call->inputs[0], (const size_t
                *)call->dims, part, parts);
        break;
    }
    case 1: {
        tbc_layer_step1_reduce((uint32_t *)((unsigned char *)call->arena + 64), (const int8_t
                *)(int8_t *)call->arena, (const size_t *)call->dims, part, parts);
        break;
    }
    case 2: {
        tbc_layer_step2_trit_gemv_1x1c4_scalar((float *)call->outputs[0], (const uint8_t *)(uint8_t
                *)call->arena, (const unsigned char *)(call->weights == NULL ? &tbc_layer_weights :
                call->weights), (const uint32_t *)(uint32_t *)((unsigned char *)call->arena + 64),
                (const float *)call->inputs[1], (const size_t *)call->dims, part, parts);
        break;
    }
    default: break;
    }
    return TBC_OK;
}

static int32_t tbc_layer_check(const tbc_call *call) {
    if (call == NULL) {
        return TBC_ERROR_NULL;
    }
    if (call->inputs == NULL) {
        return TBC_ERROR_NULL;
    }
    if (call->inputs[0] == NULL) {
        return TBC_ERROR_NULL;
    }
    if (call->inputs[1] == NULL) {
        return TBC_ERROR_NULL;
    }
    if (call->outputs == NULL) {
        return TBC_ERROR_NULL;
    }
    if (call->outputs[0] == NULL) {
        return TBC_ERROR_NULL;
    }
    if (call->arena == NULL) {
        return TBC_ERROR_NULL;
    }
    if (((uint32_t)(uintptr_t)call->arena & 7u) != 0u) {
        return TBC_ERROR_ALIGN;
    }
    if (((uint32_t)(uintptr_t)call->weights & 7u) != 0u) {
        return TBC_ERROR_ALIGN;
    }
    return TBC_OK;
}

static int32_t tbc_layer_run(const tbc_call *call) {
    const int32_t v1 = tbc_layer_check(call);
    if (v1 != 0) {
        return v1;
    }
    for (int32_t i8 = 0; i8 < 3; i8++) {
        const int32_t v10 = tbc_layer_phase(call, (uint32_t)i8, 0u, 1u);
        if (v10 != 0) {
            return v10;
        }
    }
    return TBC_OK;
}

static int32_t tbc_layer_run_phase(const tbc_call *call, uint32_t phase, uint32_t part,
        uint32_t parts) {
    const int32_t v1 = tbc_layer_check(call);
    if (v1 != 0) {
        return v1;
    }
    if ((phase >= 3u) | (part >= parts)) {
        return TBC_ERROR_DIM;
    }
    const int32_t v10 = tbc_layer_phase(call, phase, part, parts);
    return v10;
}

static int32_t tbc_layer_output_shape(const tbc_call *call, uint32_t index, size_t *shape) {
    if (call == NULL) {
        return TBC_ERROR_NULL;
    }
    switch (index) {
    case 0: {
        if (shape == NULL) {
            return TBC_ERROR_NULL;
        }
        *shape = (size_t)2u;
        shape[1] = (size_t)5u;
        return TBC_OK;
    }
    default: break;
    }
    return TBC_ERROR_DIM;
}

static const size_t tbc_layer_input0_shape[] = {2u, 20u};
static const size_t tbc_layer_input1_shape[] = {1u, 1u};
static const size_t tbc_layer_output0_shape[] = {2u, 5u};
static const tbc_tensor tbc_layer_inputs[] = {
    {"x", 3, 2, tbc_layer_input0_shape, "2,20", 40u},
    {"s", 1, 2, tbc_layer_input1_shape, "1,1", 4u},
};
static const tbc_tensor tbc_layer_outputs[] = {
    {"y", 1, 2, tbc_layer_output0_shape, "2,5", 40u},
};

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define TBC_WEIGHTS_SUM 0x25e12958u
#else
#define TBC_WEIGHTS_SUM 0xe87e07edu
#endif

const tbc_model tbc_layer = {
    4u,
    3u,
    "layer",
    "0.1.0",
    "c",
    0u,
    tbc_layer_inputs,
    tbc_layer_outputs,
    NULL,
    2u,
    1u,
    0u,
    8u,
    72u,
    0u,
    0u,
    128u,
    TBC_WEIGHTS_SUM,
    &tbc_layer_weights,
    tbc_layer_run,
    tbc_layer_run_phase,
    tbc_layer_output_shape,
    NULL,
    NULL};
