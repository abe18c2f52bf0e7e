/* Runs a compiled model on what it reads, for tbc.emulate. Needs no C library, so that what a model
 * lacks shows at link time.
 *
 * From standard input, in the machine's own byte order: the weights, if the model does not hold
 * them; then for every run the symbols as size_t, the state, and for each input its size as size_t
 * and its bytes. To standard output, for every run: the status as size_t, and the state; if the
 * status is TBC_OK, for each output its shape as size_t and its bytes at the upper bounds.
 *
 * With SELF_TEST it runs the self-test instead, and its exit status is what that returns.
 *
 * MODEL is the constant's name, POOL the bytes that weights, inputs, outputs, arena and state need,
 * GREATEST the greatest number of symbols, inputs, outputs or axes.
 */
#include "tbc.h"

#if defined(__wasm__)
__attribute__((import_module("tbc"), import_name("call"))) long system_call(long number, long file,
                                                                            long at, long size);
enum { READ, WRITE, EXIT };
#elif defined(BOARD)
long system_call(long number, long file, long at, long size);
enum { READ, WRITE, EXIT };
#elif defined(__aarch64__)
#define REGISTERS(F) F("x8", "x0", "x1", "x2", "svc 0")
#define RESULT first
enum { READ = 63, WRITE = 64, EXIT = 93 };
#elif defined(__riscv)
#define REGISTERS(F) F("a7", "a0", "a1", "a2", "ecall")
#define RESULT first
enum { READ = 63, WRITE = 64, EXIT = 93 };
#elif defined(__arm__)
#define REGISTERS(F) F("r7", "r0", "r1", "r2", "svc 0")
#define RESULT first
enum { READ = 3, WRITE = 4, EXIT = 1 };
#elif defined(__s390x__)
#define REGISTERS(F) F("r1", "r2", "r3", "r4", "svc 0")
#define RESULT first
enum { READ = 3, WRITE = 4, EXIT = 1 };
#elif defined(__i386__)
#define REGISTERS(F) F("eax", "ebx", "ecx", "edx", "int $0x80")
#define RESULT number
enum { READ = 3, WRITE = 4, EXIT = 1 };
#elif defined(__x86_64__)
#define REGISTERS(F) F("rax", "rdi", "rsi", "rdx", "syscall")
#define RESULT number
enum { READ = 0, WRITE = 1, EXIT = 60 };
#endif

#define SYSTEM(NUMBER, FIRST, SECOND, THIRD, TRAP)                                  \
    static long system_call(long n, long a, long b, long c) {                       \
        register long number __asm__(NUMBER) = n;                                   \
        register long first __asm__(FIRST) = a;                                     \
        register long second __asm__(SECOND) = b;                                   \
        register long third __asm__(THIRD) = c;                                     \
        __asm__ volatile(TRAP                                                       \
                         : "+r"(number), "+r"(first)                                \
                         : "r"(second), "r"(third)                                  \
                         : "memory" TRASHED);                                       \
        return RESULT;                                                              \
    }
#if defined(__x86_64__)
#define TRASHED , "rcx", "r11"
#else
#define TRASHED
#endif
#ifdef REGISTERS
REGISTERS(SYSTEM)
#endif

extern const tbc_model MODEL;

static unsigned char pool[POOL] __attribute__((aligned(64)));
static size_t used;

/* Room whose contents a model must not rely on. */
static unsigned char *room(size_t size) {
    unsigned char *const start = pool + used;
    used += (size + 63) / 64 * 64;
    if (used > POOL) system_call(EXIT, 2, 0, 0);
    for (volatile unsigned char *p = start; p < start + size; p++) *p = 0xa5;
    return start;
}

/* Whether all bytes arrived: 0 at the end of the input. */
static int get(void *at, size_t size) {
    unsigned char *next = at;
    while (size > 0) {
        const long done = system_call(READ, 0, (long)next, (long)size);
        if (done <= 0) return 0;
        next += done;
        size -= (size_t)done;
    }
    return 1;
}

static void put(const void *at, size_t size) {
    const unsigned char *next = at;
    while (size > 0) {
        const long done = system_call(WRITE, 1, (long)next, (long)size);
        if (done <= 0) system_call(EXIT, 1, 0, 0);
        next += done;
        size -= (size_t)done;
    }
}

#ifdef SELF_TEST
#if defined(__riscv) && !defined(__riscv_mul)
/* What the library of the compiler has, which is not linked: the test multiplies. */
#if __riscv_xlen == 64
#define MULTIPLY __muldi3
#else
#define MULTIPLY __mulsi3
#endif
unsigned long MULTIPLY(unsigned long a, unsigned long b) {
    unsigned long sum = 0;
    for (; b != 0; a <<= 1, b >>= 1) sum += b & 1 ? a : 0;
    return sum;
}
#endif

static void test(const unsigned char *weights) {
    const void *inputs[GREATEST];
    void *outputs[GREATEST];
    tbc_call call = {inputs, outputs, NULL, NULL, weights};
    for (uint32_t i = 0; i < MODEL.n_inputs; i++) inputs[i] = room(MODEL.inputs[i].bytes);
    for (uint32_t i = 0; i < MODEL.n_outputs; i++) outputs[i] = room(MODEL.outputs[i].bytes);
    call.arena = room(MODEL.arena_size);
    call.fast = room(MODEL.fast_size);
    call.state = room(MODEL.state_size);
    system_call(EXIT, tbc_self_test(&MODEL, &call), 0, 0);
}
#endif

/* One run; 0 if there is no more input. */
static int run(const unsigned char *weights) {
    size_t dims[GREATEST], shape[GREATEST], size;
    const void *inputs[GREATEST];
    void *outputs[GREATEST];
    tbc_call call = {inputs, outputs, NULL, NULL, weights, dims};
    for (uint32_t i = 0; i < MODEL.n_outputs; i++) outputs[i] = room(MODEL.outputs[i].bytes);
    call.arena = room(MODEL.arena_size);
    call.fast = room(MODEL.fast_size);
    call.state = room(MODEL.state_size);
    if (!get(dims, MODEL.n_symbols * sizeof *dims)) return 0;
    if (!get(call.state, MODEL.state_size)) return 0;
    for (uint32_t i = 0; i < MODEL.n_inputs; i++) {
        if (!get(&size, sizeof size)) return 0;
        unsigned char *const bytes = room(size);
        if (!get(bytes, size)) return 0;
        inputs[i] = bytes;
    }
    size = (size_t)MODEL.run(&call);
    put(&size, sizeof size);
    put(call.state, MODEL.state_size);
    for (uint32_t i = 0; i < MODEL.n_outputs && size == TBC_OK; i++) {
        if (MODEL.output_shape(&call, i, shape) != TBC_OK) system_call(EXIT, 3, 0, 0);
        put(shape, MODEL.outputs[i].rank * sizeof *shape);
        put(outputs[i], MODEL.outputs[i].bytes);
    }
    return MODEL.n_symbols + MODEL.n_inputs + MODEL.state_size > 0;
}

#if defined(__i386__) || defined(__x86_64__)
__attribute__((force_align_arg_pointer))
#endif
void _start(void) {
    unsigned char *weights = NULL;
    if (MODEL.weights == NULL && MODEL.weights_size > 0) {
        weights = room(MODEL.weights_size);
        if (!get(weights, MODEL.weights_size)) system_call(EXIT, 1, 0, 0);
    }
#ifdef SELF_TEST
    test(weights);
#endif
    const size_t start = used;
    while (run(weights)) used = start;
    system_call(EXIT, 0, 0, 0);
}
