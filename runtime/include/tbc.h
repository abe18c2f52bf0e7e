/*
 * tbc.h - the C side of a model compiled by tbc.
 *
 * A compiled model is one constant, `extern const tbc_model tbc_<name>;`. Nothing here allocates,
 * locks, or writes a global variable: the caller owns every byte a model works in, and any number
 * of calls may run at the same time, each on an arena of its own.
 *
 *     static _Alignas(TBC_NET_ARENA_ALIGN) unsigned char arena[TBC_NET_ARENA_SIZE];
 *     const void *in[] = {pixels};
 *     void *out[] = {scores};
 *     tbc_call call = {in, out, arena, NULL, NULL, NULL, NULL, NULL};
 *     int32_t status = tbc_net.run(&call);
 *
 * C99 and C++11, freestanding: only <stddef.h> and <stdint.h>.
 */
#ifndef TBC_H
#define TBC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The layout of the structures below; a model and its caller must agree on it (tbc_check). */
#define TBC_ABI 4u

/* What a call returns. */
enum tbc_status {
    TBC_OK = 0,
    TBC_ERROR_ABI = 1,     /* the model was compiled for another TBC_ABI */
    TBC_ERROR_CPU = 2,     /* this CPU lacks an instruction set that the model uses */
    TBC_ERROR_NULL = 3,    /* a pointer that the model needs is NULL */
    TBC_ERROR_ALIGN = 4,   /* arena, fast memory, state or weights are not aligned enough */
    TBC_ERROR_DIM = 5,     /* a dimension is outside the range the model was compiled for */
    TBC_ERROR_WEIGHTS = 6, /* the weights are absent, or are not this model's */
    TBC_ERROR_VALUE = 7,   /* an input holds a value the model cannot accept (an index, say) */
    TBC_ERROR_BLOB = 8,    /* this is not a blob, or it is damaged (tbc_blob.h) */
    TBC_ERROR_MEMORY = 9,  /* there is not enough memory to open a blob in */
    TBC_ERROR_FILE = 10,   /* a file cannot be read or mapped */
    TBC_ERROR_SELF_TEST = 11, /* the outputs of the self-test are not what they should be */
    TBC_ERROR_NO_TEST = 12    /* the model has no self-test */
};

/*
 * The type of a tensor's elements. Narrower ones than these are a byte each: 4- and 2-bit integers
 * are TBC_I8 or TBC_U8, and floats of 8 and 4 bits TBC_U8, which holds their bits.
 */
enum tbc_dtype {
    TBC_F32 = 1,
    TBC_U8 = 2,
    TBC_I8 = 3,
    TBC_U16 = 4,
    TBC_I16 = 5,
    TBC_I32 = 6,
    TBC_I64 = 7,
    TBC_BOOL = 9,
    TBC_F16 = 10,
    TBC_F64 = 11,
    TBC_U32 = 12,
    TBC_U64 = 13,
    TBC_BF16 = 16
};

/* An input or output: C order, no gaps, aligned as its element type. */
typedef struct tbc_tensor {
    const char *name;
    uint32_t dtype;      /* enum tbc_dtype */
    uint32_t rank;       /* number of dimensions; 0 is a scalar */
    const size_t *shape; /* `rank` sizes; where a dimension varies, its upper bound */
    const char *dims;    /* the dimensions as text, e.g. "batch,1,8,8" */
    size_t bytes;        /* size at the upper bounds */
} tbc_tensor;

/* A dimension that the caller chooses for each call, from lo to hi. */
typedef struct tbc_symbol {
    const char *name;
    size_t lo, hi;
} tbc_symbol;

/*
 * Where the threads of one run_part wait for each other; at a multiple of 64 bytes it shares no
 * cache line. One run at a time uses it.
 */
typedef struct tbc_sync {
    uint32_t arrived;             /* 0 before the first run; every run leaves it so */
    void (*yield)(void *context); /* called again and again by a part that waits long, or NULL */
    void *context;                /* what it is called with */
} tbc_sync;

/* One run of a model: everything it reads and writes. */
typedef struct tbc_call {
    const void *const *inputs; /* one pointer an input, in the model's order */
    void *const *outputs;      /* one pointer an output; must not overlap anything else, but for
                                  those that <name>.h says may lie in place of an input */
    void *arena;               /* arena_size bytes, aligned to arena_align; contents ignored */
    void *state;               /* state_size bytes, zeros at first; NULL if size is 0 */
    const void *weights;       /* NULL, or weights_size bytes that replace those in the model */
    const size_t *dims;        /* one value a symbol; NULL if the model has none */
    tbc_sync *sync;            /* for run_part alone; the others take NULL */
    void *fast;                /* fast_size bytes, as the arena; NULL if size is 0 */
} tbc_call;

typedef struct tbc_model {
    uint32_t abi;        /* TBC_ABI of the compiler; stays the first field for ever */
    uint32_t phases;     /* how many phases run_phase knows */
    const char *name;    /* the model's name */
    const char *version; /* the tbc that compiled it */
    const char *target;  /* what it was compiled for */
    uint64_t cpu_bits;   /* instruction sets it needs: TBC_X86_..., TBC_ARM_... of its CPU family */
    const tbc_tensor *inputs;
    const tbc_tensor *outputs;
    const tbc_symbol *symbols;
    uint32_t n_inputs, n_outputs, n_symbols;
    uint32_t align;       /* alignment of arena, fast, state and weights in bytes */
    size_t arena_size;    /* scratch memory for one call, in bytes */
    size_t fast_size;     /* more of it, for the fastest memory there is (--fast-ram) */
    size_t state_size;    /* memory kept between calls, in bytes */
    size_t weights_size;  /* constants, in bytes */
    uint32_t weights_sum; /* tbc_sum of the constants */
    const void *weights;  /* the constants, or NULL if they are a file beside the model */

    /* The whole model on this thread. */
    int32_t (*run)(const tbc_call *call);

    /*
     * Share `part` (0 .. parts-1) of `phase` (0 .. phases-1). Never waits: the caller runs all
     * parts of a phase, on any threads, before it starts the next. Results do not depend on parts.
     */
    int32_t (*run_phase)(const tbc_call *call, uint32_t phase, uint32_t part, uint32_t parts);

    /* The sizes of output `index` at this call's dims: shape[0 .. rank-1]. */
    int32_t (*output_shape)(const tbc_call *call, uint32_t index, size_t *shape);

    /*
     * Share `part` (0 .. parts-1) of the whole model. All parts run at the same time, each on a
     * thread of its own, since they wait for each other; the outputs are there when all have
     * returned, and all return the same. NULL where the target has no atomics or no threads.
     */
    int32_t (*run_part)(const tbc_call *call, uint32_t part, uint32_t parts);

    const uint32_t *self_test; /* what tbc_self_test goes by, or NULL if there is no test */
} tbc_model;

/* The instruction sets of cpu_bits, one numbering per CPU family. */
#define TBC_X86_SSE41 (UINT64_C(1) << 0)
#define TBC_X86_AVX2 (UINT64_C(1) << 1) /* with FMA, BMI2 and F16C: x86-64-v3 */
#define TBC_X86_AVXVNNI (UINT64_C(1) << 2)
#define TBC_X86_AVX512 (UINT64_C(1) << 3) /* F, BW, CD, DQ and VL: x86-64-v4 */
#define TBC_X86_AVX512VNNI (UINT64_C(1) << 4)
#define TBC_X86_AVX512VBMI (UINT64_C(1) << 5)
#define TBC_X86_AMXINT8 (UINT64_C(1) << 6)
#define TBC_ARM_NEON (UINT64_C(1) << 0)
#define TBC_ARM_DOTPROD (UINT64_C(1) << 1)
#define TBC_ARM_I8MM (UINT64_C(1) << 2)
#define TBC_ARM_SVE (UINT64_C(1) << 3)
#define TBC_ARM_SVE2 (UINT64_C(1) << 4)
#define TBC_ARM_DSP (UINT64_C(1) << 5)
#define TBC_ARM_MVE (UINT64_C(1) << 6)
#define TBC_ARM_FP16 (UINT64_C(1) << 7)
#define TBC_RISCV_V (UINT64_C(1) << 0)

/* The instruction sets of the CPU this runs on. Defined in tbc_cpu.c, which is optional. */
uint64_t tbc_cpu_bits(void);

/*
 * Whether this model on this machine computes the very bits that its compiler did: TBC_OK,
 * TBC_ERROR_SELF_TEST, or another error. It writes numbers made by a rule to the call's inputs,
 * which must be writable for once, runs the model on one thread and compares a checksum of the
 * outputs. All memory is as for `run` at the upper bounds; call->dims is not read. The state is
 * zeroed first, and has to be zeroed again before the first call. It is for models that tbc_check
 * lets run. Defined in tbc_self_test.c, which is optional.
 */
int32_t tbc_self_test(const tbc_model *model, const tbc_call *call);

/* Whether a model may run here: TBC_OK, TBC_ERROR_ABI or TBC_ERROR_CPU. */
static inline int32_t tbc_check(const tbc_model *model, uint64_t cpu_bits) {
    if (model == NULL) return TBC_ERROR_NULL;
    if (model->abi != TBC_ABI) return TBC_ERROR_ABI;
    return (model->cpu_bits & ~cpu_bits) != 0 ? TBC_ERROR_CPU : TBC_OK;
}

/* The first of a library's variants, a list that ends with NULL, that may run here, or NULL. */
static inline const tbc_model *tbc_choose(const tbc_model *const *variants, uint64_t cpu_bits) {
    while (*variants != NULL && tbc_check(*variants, cpu_bits) != TBC_OK) variants++;
    return *variants;
}

/* The CRC-32 of what `sum` is that of, and then `size` bytes more. */
static inline uint32_t tbc_sum_more(uint32_t sum, const void *data, size_t size) {
    static const uint32_t table[16] = {
        0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u,
        0x4db26158u, 0x5005713cu, 0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu,
        0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu};
    const unsigned char *byte = (const unsigned char *)data;
    sum = ~sum;
    while (size-- != 0) {
        sum = table[(sum ^ *byte) & 15u] ^ (sum >> 4);
        sum = table[(sum ^ (uint32_t)(*byte++ >> 4)) & 15u] ^ (sum >> 4);
    }
    return ~sum;
}

/* CRC-32 (ISO-HDLC, as in zlib) of `size` bytes: what weights_sum is compared with. */
static inline uint32_t tbc_sum(const void *data, size_t size) {
    return tbc_sum_more(0, data, size);
}

/* What a status means, in English. */
static inline const char *tbc_status_text(int32_t status) {
    switch (status) {
    case TBC_OK: return "no error";
    case TBC_ERROR_ABI: return "the model was compiled for another version of tbc.h";
    case TBC_ERROR_CPU: return "this CPU lacks instructions that the model uses";
    case TBC_ERROR_NULL: return "a pointer that the model needs is NULL";
    case TBC_ERROR_ALIGN: return "arena, fast memory, state or weights are not aligned enough";
    case TBC_ERROR_DIM: return "a dimension is outside the range the model was compiled for";
    case TBC_ERROR_WEIGHTS: return "the weights are absent or are not this model's";
    case TBC_ERROR_VALUE: return "an input holds a value the model cannot accept";
    case TBC_ERROR_BLOB: return "this is not a blob, or it is damaged";
    case TBC_ERROR_MEMORY: return "there is not enough memory to open the blob in";
    case TBC_ERROR_FILE: return "the file cannot be read or mapped";
    case TBC_ERROR_SELF_TEST: return "the self-test does not give what it should";
    case TBC_ERROR_NO_TEST: return "the model has no self-test";
    default: return "unknown status";
    }
}

#ifdef __cplusplus
}
#endif

#endif /* TBC_H */
