/*
 * What runs main on a bare Armv6-M core, and says what it finds through a debugger's calls
 * (semihosting: Arm's "Semihosting for AArch32 and AArch64", release 2.0). Without a debugger a board
 * would write to its serial port here instead. RAM is left as it is: main relies on no zeros.
 */
#include "start.h"

#include <stdint.h>

enum { SYS_WRITE0 = 4, SYS_EXIT = 24 };
enum { RUN_TIME_ERROR = 0x20023, APPLICATION_EXIT = 0x20026 };

#ifndef STACK
#define STACK 1024
#endif
__attribute__((section(".stack"), used, aligned(8))) static unsigned char stack[STACK];

static void ask(int operation, const void *argument) {
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

void say(const char *text) { ask(SYS_WRITE0, text); }

static void end(intptr_t reason) {
    for (;;) ask(SYS_EXIT, (const void *)reason);
}

void _start(void);
void _start(void) { end(main() == 0 ? APPLICATION_EXIT : RUN_TIME_ERROR); }

static void fault(void) { end(RUN_TIME_ERROR); }

__attribute__((section(".vectors"), used)) static const void *const vectors[] = {
    stack + STACK, (const void *)_start, (const void *)fault, (const void *)fault,
};
