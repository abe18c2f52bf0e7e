/* What runs a program on a bare Cortex-M: the vector table, and input and output through the
 * debugger's calls (semihosting), which emulators serve. See Arm's "Semihosting for AArch32 and
 * AArch64", release 2.0. */
#include <stdint.h>

enum { READ, WRITE, EXIT };
enum { SYS_OPEN = 1, SYS_WRITE = 5, SYS_READ = 6, SYS_EXIT_EXTENDED = 32 };
enum { READ_BINARY = 1, WRITE_BINARY = 5, APPLICATION_EXIT = 0x20026 };

extern uint32_t stack_top[];
void _start(void);

static intptr_t ask(int operation, const void *arguments) {
    register intptr_t result __asm__("r0") = operation;
    register const void *block __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(result) : "r"(block) : "memory");
    return result;
}

static intptr_t open_file(const char *name, intptr_t length, intptr_t mode) {
    const intptr_t block[] = {(intptr_t)name, mode, length};
    return ask(SYS_OPEN, block);
}

static intptr_t input, output;

/* As read, write and exit of Unix for the standard files. */
long system_call(long number, long file, long at, long size) {
    if (number == EXIT) {
        const intptr_t block[] = {APPLICATION_EXIT, file};
        ask(SYS_EXIT_EXTENDED, block);
    }
    const intptr_t block[] = {number == READ ? input : output, at, size};
    return size - ask(number == READ ? SYS_READ : SYS_WRITE, block);
}

static void reset(void) {
    *(volatile uint32_t *)0xe000ed88 |= 0xf << 20; /* CPACR: floats and Helium are on */
    __asm__ volatile("dsb\n isb");
    input = open_file("/dev/stdin", 10, READ_BINARY);
    output = open_file("/dev/stdout", 11, WRITE_BINARY);
    _start();
}

static void fault(void) { system_call(EXIT, 99, 0, 0); }

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top, (void *)reset, (void *)fault, (void *)fault,
    (void *)fault, (void *)fault, (void *)fault, (void *)fault,
};
