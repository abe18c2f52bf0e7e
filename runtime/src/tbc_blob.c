/* Opens blobs in memory: see tbc_blob.h, and docs/blob.md for every byte of them.
 *
 * C99, freestanding. Numbers are read byte by byte, so that no structure is laid over a file.
 * Nothing is divided by what is not a constant power of two: small cores would call a library.
 */
#include "tbc_blob.h"

enum {
    MAGIC = 0x1a434254,
    SWAPPED = 0x5442431a,
    VERSION = 2,
    HEADER = 160,
    TENSOR = 32,
    SYMBOL = 24,
    CHECKED_FROM = 8,
    MOST = 1 << 26 /* of anything that there is a table of */
};

/* Bit n is set where n is an enum tbc_dtype. */
#define DTYPES UINT32_C(0x13efe)

/* e_machine of ELF; 0 matches no blob. */
#if defined(__x86_64__)
enum { MACHINE = 62 };
#elif defined(__i386__)
enum { MACHINE = 3 };
#elif defined(__aarch64__)
enum { MACHINE = 183 };
#elif defined(__arm__)
enum { MACHINE = 40 };
#elif defined(__riscv)
enum { MACHINE = 243 };
#elif defined(__s390x__)
enum { MACHINE = 22 };
#elif defined(__loongarch__)
enum { MACHINE = 258 };
#else
enum { MACHINE = 0 };
#endif

/* Whether the processor runs nothing but Thumb code, whose addresses are odd. */
#if defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
enum { THUMB = 1 };
#else
enum { THUMB = 0 };
#endif

static uint32_t word(const unsigned char *at) {
    union {
        unsigned char bytes[4];
        uint32_t value;
    } x;
    for (int i = 0; i < 4; i++) x.bytes[i] = at[i];
    return x.value;
}

static uint64_t wide(const unsigned char *at) {
    union {
        unsigned char bytes[8];
        uint64_t value;
    } x;
    for (int i = 0; i < 8; i++) x.bytes[i] = at[i];
    return x.value;
}

/* What is checked of the header, and used more than once. */
typedef struct place {
    const unsigned char *blob;
    size_t length, weights, weights_size;
    uint32_t code, code_size, align, model_align, inputs, outputs, symbols, tensors_at, symbols_at;
    uint32_t test_at;
} place;

/* Whether `count` items of `size` bytes, at most 32, lie between the header and the code. */
static int is_inside(const place *p, uint32_t at, uint32_t size, uint32_t count) {
    return at >= HEADER && at <= p->code && count <= MOST && count * size <= p->code - at;
}

static int is_power(uint32_t x) { return x != 0 && (x & (x - 1)) == 0; }

static int fits(uint64_t x) { return x <= SIZE_MAX; }

/* The text at an offset, or NULL if it does not end before the code. */
static const char *text(const place *p, uint32_t at) {
    if (at < HEADER) return NULL;
    for (uint32_t i = at; i < p->code; i++) {
        if (p->blob[i] == 0) return (const char *)p->blob + at;
    }
    return NULL;
}

/* A function: NULL if it does not lie in the code. */
static uintptr_t function(const place *p, uint32_t at) {
    if (at < p->code || at - p->code >= p->code_size || (at & 1) != THUMB) return 0;
    return (uintptr_t)p->blob + at;
}

/* What the header says: whose blob it is, and where its parts are. */
static int32_t check(const void *blob, size_t length, place *p) {
    const unsigned char *const b = (const unsigned char *)blob;
    if (blob == NULL) return TBC_ERROR_NULL;
    if (length < HEADER) return TBC_ERROR_BLOB;
    if (word(b) == SWAPPED) return TBC_ERROR_CPU;
    const uint64_t total = wide(b + 24);
    if (word(b) != MAGIC || total < HEADER || total > length) return TBC_ERROR_BLOB;
    if (word(b + 8) != VERSION || word(b + 12) != TBC_ABI) return TBC_ERROR_ABI;
    union {
        unsigned char bytes[2];
        uint16_t value;
    } machine = {{b[16], b[17]}};
    if (machine.value != MACHINE || b[18] != sizeof(size_t) || b[19] != THUMB) return TBC_ERROR_CPU;

    const uint64_t code = wide(b + 40), size = wide(b + 48), weights = wide(b + 56);
    if (weights > total || wide(b + 64) != total - weights || code < HEADER || code > weights ||
        size > weights - code || code + size > INT32_MAX) {
        return TBC_ERROR_BLOB;
    }
    p->blob = b;
    p->length = (size_t)total, p->code = (uint32_t)code, p->code_size = (uint32_t)size;
    p->weights = (size_t)weights, p->weights_size = p->length - p->weights;
    p->align = word(b + 20), p->model_align = word(b + 100);
    p->inputs = word(b + 136), p->outputs = word(b + 140), p->symbols = word(b + 144);
    p->tensors_at = word(b + 148), p->symbols_at = word(b + 152), p->test_at = word(b + 156);
    if (!is_power(p->align) || !is_power(p->model_align) || p->model_align < sizeof(size_t) ||
        p->model_align > p->align || (p->weights & (p->model_align - 1)) != 0) {
        return TBC_ERROR_BLOB;
    }
    if (!fits(wide(b + 72)) || !fits(wide(b + 80)) || !fits(wide(b + 88))) return TBC_ERROR_BLOB;
    if (p->tensors_at % 8 != 0 || !is_inside(p, p->tensors_at, TENSOR, p->inputs) ||
        !is_inside(p, p->tensors_at + TENSOR * p->inputs, TENSOR, p->outputs) ||
        p->symbols_at % 8 != 0 || !is_inside(p, p->symbols_at, SYMBOL, p->symbols)) {
        return TBC_ERROR_BLOB;
    }
    if (p->test_at != 0 &&
        (p->test_at % 4 != 0 || !is_inside(p, p->test_at, 4, 1 + p->symbols + 2 * p->inputs))) {
        return TBC_ERROR_BLOB;
    }
    return TBC_OK;
}

static size_t bytes_of(const place *p) {
    /* They lie in less than 2 GiB, and are larger there, so this does not wrap around. */
    return TBC_BLOB_BYTES((size_t)p->inputs + p->outputs, (size_t)p->symbols);
}

size_t tbc_blob_bytes(const void *blob, size_t length) {
    place p;
    return check(blob, length, &p) == TBC_OK ? bytes_of(&p) : 0;
}

static int fill_tensor(const place *p, const unsigned char *from, tbc_tensor *tensor) {
    const uint32_t shape = word(from + 12);
    tensor->name = text(p, word(from));
    tensor->dtype = word(from + 4);
    tensor->rank = word(from + 8);
    tensor->dims = text(p, word(from + 16));
    tensor->bytes = (size_t)wide(from + 24);
    if (tensor->name == NULL || tensor->dims == NULL || tensor->dtype >= 32 ||
        (DTYPES >> tensor->dtype & 1) == 0 || word(from + 20) != 0 || !fits(wide(from + 24)) ||
        shape % sizeof(size_t) != 0 || !is_inside(p, shape, sizeof(size_t), tensor->rank)) {
        return 0;
    }
    tensor->shape = (const size_t *)(const void *)(p->blob + shape);
    return 1;
}

static int fill_symbol(const place *p, const unsigned char *from, tbc_symbol *symbol) {
    const uint64_t lo = wide(from + 8), hi = wide(from + 16);
    symbol->name = text(p, word(from));
    symbol->lo = (size_t)lo, symbol->hi = (size_t)hi;
    return symbol->name != NULL && word(from + 4) == 0 && lo <= hi && fits(hi);
}

int32_t tbc_open(
    const void *blob, size_t length, uint64_t cpu_bits, void *memory, size_t size,
    const tbc_model **model) {
    place p;
    if (memory == NULL || model == NULL) return TBC_ERROR_NULL;
    *model = NULL;
    const int32_t status = check(blob, length, &p);
    if (status != TBC_OK) return status;
    const unsigned char *const b = p.blob;
    if (tbc_sum(b + CHECKED_FROM, p.length - CHECKED_FROM) != word(b + 4)) {
        return TBC_ERROR_BLOB;
    }
    if (((uintptr_t)blob & (p.align - 1)) != 0 || (uintptr_t)memory % sizeof(void *) != 0) {
        return TBC_ERROR_ALIGN;
    }
    if (size < bytes_of(&p)) return TBC_ERROR_MEMORY;

    tbc_model *const m = (tbc_model *)memory;
    tbc_tensor *const tensors = (tbc_tensor *)(void *)(m + 1);
    tbc_symbol *const symbols = (tbc_symbol *)(void *)(tensors + p.inputs + p.outputs);
    for (uint32_t i = 0; i < p.inputs + p.outputs; i++) {
        const unsigned char *const from = b + p.tensors_at + (size_t)TENSOR * i;
        if (!fill_tensor(&p, from, tensors + i)) return TBC_ERROR_BLOB;
    }
    for (uint32_t i = 0; i < p.symbols; i++) {
        const unsigned char *const from = b + p.symbols_at + (size_t)SYMBOL * i;
        if (!fill_symbol(&p, from, symbols + i)) return TBC_ERROR_BLOB;
    }
    m->abi = TBC_ABI;
    m->phases = word(b + 104);
    m->name = text(&p, word(b + 124));
    m->version = text(&p, word(b + 128));
    m->target = text(&p, word(b + 132));
    m->cpu_bits = wide(b + 32);
    m->inputs = tensors, m->outputs = tensors + p.inputs, m->symbols = symbols;
    m->n_inputs = p.inputs, m->n_outputs = p.outputs, m->n_symbols = p.symbols;
    m->align = p.model_align;
    m->arena_size = (size_t)wide(b + 72);
    m->fast_size = (size_t)wide(b + 80);
    m->state_size = (size_t)wide(b + 88);
    m->weights_size = p.weights_size;
    m->weights_sum = word(b + 96);
    m->weights = p.weights_size != 0 ? b + p.weights : NULL;
    m->run = (int32_t(*)(const tbc_call *))function(&p, word(b + 108));
    m->run_phase =
        (int32_t(*)(const tbc_call *, uint32_t, uint32_t, uint32_t))function(&p, word(b + 112));
    m->output_shape =
        (int32_t(*)(const tbc_call *, uint32_t, size_t *))function(&p, word(b + 116));
    m->run_part =
        (int32_t(*)(const tbc_call *, uint32_t, uint32_t))function(&p, word(b + 120));
    m->self_test = p.test_at != 0 ? (const uint32_t *)(const void *)(b + p.test_at) : NULL;
    if (m->name == NULL || m->version == NULL || m->target == NULL || !m->run || !m->run_phase ||
        !m->output_shape || (word(b + 120) != 0 && !m->run_part)) {
        return TBC_ERROR_BLOB;
    }
    if ((m->cpu_bits & ~cpu_bits) != 0) return TBC_ERROR_CPU;
    *model = m;
    return TBC_OK;
}
