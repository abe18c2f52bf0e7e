/* A program without a C library: reads arrays, calls the functions under test, writes results.
   PROTOTYPES and CALLS are the code between, in terms of in, out, get and put. */

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
#endif

#define SYSTEM(NUMBER, FIRST, SECOND, THIRD, TRAP)                              \
    static long system_call(long n, long a, long b, long c) {                   \
        register long number __asm__(NUMBER) = n;                               \
        register long first __asm__(FIRST) = a;                                 \
        register long second __asm__(SECOND) = b;                               \
        register long third __asm__(THIRD) = c;                                 \
        __asm__ volatile(TRAP                                                   \
                         : "+r"(number), "+r"(first)                            \
                         : "r"(second), "r"(third)                              \
                         : "memory");                                           \
        return RESULT;                                                          \
    }
#ifdef REGISTERS
REGISTERS(SYSTEM)
#endif

static char in[3][1 << 20] __attribute__((aligned(64)));
static char out[1 << 20] __attribute__((aligned(64)));

static void transfer(long number, long file, char *at, long size) {
    while (size > 0) {
        long done = system_call(number, file, (long)at, size);
        if (done <= 0) system_call(EXIT, 1, 0, 0);
        at += done;
        size -= done;
    }
}

static void get(int i, long size) { transfer(READ, 0, in[i], size); }
static void put(long size) { transfer(WRITE, 1, out, size); }

PROTOTYPES

#if defined(__i386__)
__attribute__((force_align_arg_pointer))
#endif
void _start(void) {
    CALLS
    system_call(EXIT, 0, 0, 0);
}
