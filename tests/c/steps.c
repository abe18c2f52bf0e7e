/* Runs a program of x86 Linux one instruction at a time, and counts those that one of its functions
 * takes, with all that it calls: `steps OUT ADDRESS PROGRAM`. The program has fixed addresses. OUT
 * receives the count of the first call. */
#include <inttypes.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define REGISTER(NAME) offsetof(struct user_regs_struct, NAME)

static unsigned long long peek(pid_t child, size_t at) {
    return (unsigned long)ptrace(PTRACE_PEEKUSER, child, at, NULL);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    const unsigned long long function = strtoull(argv[2], NULL, 16);
    const pid_t child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(126);
        execl(argv[3], argv[3], (char *)NULL);
        _exit(127);
    }
    uint64_t count = 0;
    unsigned long long frame = 0;
    enum { BEFORE, IN, AFTER } state = BEFORE;
    for (;;) {
        int status;
        if (waitpid(child, &status, 0) != child) return 1;
        if (WIFEXITED(status)) {
            FILE *const file = fopen(argv[1], "w");
            if (!file || state != AFTER) return 3;
            fprintf(file, "%" PRIu64 "\n", count);
            fclose(file);
            return WEXITSTATUS(status);
        }
        if (WIFSIGNALED(status) || WSTOPSIG(status) != SIGTRAP) {
            kill(child, SIGKILL);
            return 4;
        }
        if (state == BEFORE && peek(child, REGISTER(rip)) == function) {
            frame = peek(child, REGISTER(rsp));
            state = IN;
        } else if (state == IN && peek(child, REGISTER(rsp)) > frame) {
            state = AFTER; /* the return address is off the stack */
        }
        count += state == IN;
        if (ptrace(state == AFTER ? PTRACE_CONT : PTRACE_SINGLESTEP, child, NULL, NULL) != 0) return 5;
    }
}
