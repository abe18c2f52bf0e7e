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

/*
 * read 0: i8[2, 32]
 * read 1: u8[128]
 * v2: i32[2, 5] = PackedDot(kernels=('trit_gemv_1x1c4_scalar',), layout=Layout(code='i2', group=0, rows=16, lanes_k=4), n=5, k=20)(read 0, read 1) anchor
 * read 2: i32[2, 1]
 * v4: i32[2, 5] = Binary(fn='sub')(v2, read 2)
 * v5: i32[2, 5] = Reshape(shape=(2, 5))(v4)
 * v6: f32[2, 5] = Cast(dtype=f32)(v5)
 * read 3: f32[1, 1]
 * v8: f32[2, 5] = Binary(fn='mul')(v6, read 3)
 */
static void tbc_layer_step2_trit_gemv_1x1c4_scalar(float *TBC_RESTRICT out,
        const int8_t *TBC_RESTRICT r0, const unsigned char *TBC_RESTRICT r1,
        const uint32_t *TBC_RESTRICT r2, const float *TBC_RESTRICT r3, const size_t *dims,
        uint32_t part, uint32_t parts) {
    (void)dims;
    uint32_t stack8[16];
    uint32_t stack24[16];
    const uint32_t v7 = (part + 1u) / parts;
    for (int32_t i12 = (int32_t)(part / parts); i12 < (int32_t)v7; i12++) {
        for (int32_t i18 = 0; i18 < 2; i18++) {
            const unsigned char *const v21 = r1 + i12 * 128;
            const int8_t *const v23 = r0 + i18 * 32;
            for (int32_t i28 = 0; i28 < 64; i28 += 16) {
                const unsigned char *const v30 = v21 + i28;
                const unsigned char *const v32 = v30 + 4;
                const unsigned char *const v34 = v30 + 8;
                const unsigned char *const v36 = v30 + 12;
                uint32_t c41 = 0u;
                uint32_t c42 = 0u;
                uint32_t c43 = 0u;
                uint32_t c44 = 0u;
                for (int32_t i40 = 0; i40 < 2; i40++) {
                    const int32_t v46 = i40 * 64;
                    const int8_t *const v59 = v23 + i40 * 16;
                    uint32_t c64 = *(const uint32_t *)(v30 + v46);
                    uint32_t c66 = *(const uint32_t *)(v32 + v46);
                    uint32_t c68 = *(const uint32_t *)(v34 + v46);
                    uint32_t c70 = *(const uint32_t *)(v36 + v46);
                    for (int32_t i63 = 0; i63 < 4; i63++) {
                        const int8_t *const v74 = v59 + i63 * 4;
                        const int32_t v77 = (int32_t)*v74;
                        const int32_t v92 = (int32_t)v74[1];
                        const int32_t v111 = (int32_t)v74[2];
                        const uint32_t v115 = c41 + (c64 & 3u) * (uint32_t)v77 + ((c64 >> 8) & 3u) *
                                (uint32_t)v92 + ((c64 >> 16) & 3u) * (uint32_t)v111;
                        const uint32_t v119 = c42 + (c66 & 3u) * (uint32_t)v77 + ((c66 >> 8) & 3u) *
                                (uint32_t)v92 + ((c66 >> 16) & 3u) * (uint32_t)v111;
                        const uint32_t v123 = c43 + (c68 & 3u) * (uint32_t)v77 + ((c68 >> 8) & 3u) *
                                (uint32_t)v92 + ((c68 >> 16) & 3u) * (uint32_t)v111;
                        const uint32_t v127 = c44 + (c70 & 3u) * (uint32_t)v77 + ((c70 >> 8) & 3u) *
                                (uint32_t)v92 + ((c70 >> 16) & 3u) * (uint32_t)v111;
                        const int32_t v130 = (int32_t)v74[3];
                        c41 = v115 + ((c64 >> 24) & 3u) * (uint32_t)v130;
                        c64 >>= 2;
                        c42 = v119 + ((c66 >> 24) & 3u) * (uint32_t)v130;
                        c66 >>= 2;
                        c43 = v123 + ((c68 >> 24) & 3u) * (uint32_t)v130;
                        c68 >>= 2;
                        c44 = v127 + ((c70 >> 24) & 3u) * (uint32_t)v130;
                        c70 >>= 2;
                    }
                }
                unsigned char *const v153 = (unsigned char *)stack24 + i28;
                *(uint32_t *)v153 = c41;
                *(uint32_t *)(v153 + 4) = c42;
                *(uint32_t *)(v153 + 8) = c43;
                *(uint32_t *)(v153 + 12) = c44;
            }
            for (int lane = 0; lane < 16; lane++) {
                stack8[lane] = stack24[lane];
            }
            const int32_t v181 = i12 * 16;
            uint32_t v177[16];
            for (int lane = 0; lane < 16; lane++) {
                v177[lane] = stack8[lane];
            }
            if (v181 < 0) {
                const uint32_t v186 = r2[i18];
                const float v192 = *r3;
                for (int lane = 0; lane < 16; lane++) {
                    out[i18 * 5 + v181 + lane] = (float)(int32_t)(v177[lane] - v186) * v192;
                }
            }
            if (v181 == 0) {
                const uint32_t *const v204 = r2 + i18;
                const uint32_t v205 = *v204;
                const float v211 = *r3;
                const int32_t v215 = i18 * 5;
                for (int lane = 0; lane < 4; lane++) {
                    out[v215 + v181 + lane] = (float)(int32_t)(v177[lane] - v205) * v211;
                }
                out[v215 + (int32_t)((uint32_t)v181 + 4u)] = (float)(int32_t)(v177[4] - *v204) *
                        *r3;
            }
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
        tbc_layer_step2_trit_gemv_1x1c4_scalar((float *)call->outputs[0], (const int8_t *)(int8_t
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
    2u,
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
    128u,
    TBC_WEIGHTS_SUM,
    &tbc_layer_weights,
    tbc_layer_run,
    tbc_layer_run_phase,
    tbc_layer_output_shape,
    NULL};
