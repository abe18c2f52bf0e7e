/* A pool on models written here, for the thread sanitizer, which sees no compiled model: the parts
 * of a phase read what all parts of the phase before wrote, so that a lost wait is a race. Two
 * models share a pool of 1, 2, 3 and 7 threads, one with run_part and one without; a call fails in
 * the middle; a forked process calls too. With -DWAIT=0 the parts do not wait, which must be seen.
 */
#define _POSIX_C_SOURCE 200112L

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tbc_pool.h"

#ifndef WAIT
#define WAIT 1
#endif

enum { PHASES = 5, SIZE = 1000, ROUNDS = 200, WRONG = 3 };

static void need(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "threaded: %s\n", what);
    exit(1);
}

/* Phase n adds to each number of one half of the arena one of the other half, from the far end. */
static int32_t run_phase(const tbc_call *call, uint32_t phase, uint32_t part, uint32_t parts) {
    uint32_t *const numbers = call->arena;
    const uint32_t *const from = phase % 2 ? numbers : numbers + SIZE;
    uint32_t *const to = phase % 2 ? numbers + SIZE : numbers;
    uint32_t i;
    if (phase == WRONG && call->dims != NULL) return TBC_ERROR_VALUE;
    for (i = SIZE * part / parts; i < SIZE * (part + 1) / parts; i++) to[i] += from[SIZE - 1 - i];
    return TBC_OK;
}

static int32_t run(const tbc_call *call) {
    int32_t status = TBC_OK;
    uint32_t phase;
    for (phase = 0; phase < PHASES && status == TBC_OK; phase++) {
        status = run_phase(call, phase, 0, 1);
    }
    return status;
}

/* As compiled code does it: `arrived` grows by `parts` a phase, and who leaves last clears it. */
static int32_t run_part(const tbc_call *call, uint32_t part, uint32_t parts) {
    tbc_sync *const sync = call->sync;
    int32_t status = TBC_OK;
    uint32_t phase, goal = parts;
    for (phase = 0;; phase++, goal += parts) {
        status = run_phase(call, phase, part, parts);
        if (status != TBC_OK || phase + 1 == PHASES) break;
        __atomic_add_fetch(&sync->arrived, 1u, __ATOMIC_ACQ_REL);
        while (WAIT && (int32_t)(__atomic_load_n(&sync->arrived, __ATOMIC_ACQUIRE) - goal) < 0) {
            sync->yield(sync->context);
        }
    }
    if (__atomic_add_fetch(&sync->arrived, 1u, __ATOMIC_ACQ_REL) == goal) {
        __atomic_store_n(&sync->arrived, 0u, __ATOMIC_RELEASE);
    }
    return status;
}

static void fill(uint32_t *numbers) {
    uint32_t i;
    for (i = 0; i < 2 * SIZE; i++) numbers[i] = i * 2654435761u;
}

/* Milliseconds of processor time that the threads of a pool take in 100 ms without a call. */
static long idle(void) {
    const struct timespec pause = {0, 100000000};
    struct timespec before, after;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    nanosleep(&pause, NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    return (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
}

int main(void) {
    static const uint32_t threads[] = {1, 2, 3, 7};
    static uint32_t alone[2 * SIZE], shared[2 * SIZE];
    static const size_t dims[] = {0};
    static tbc_pool pool;
    const struct timespec pause = {0, 2000000}; /* longer than threads look for the next call */
    tbc_model models[2] = {{0}, {0}};
    tbc_call call = {0};
    unsigned i, round, which;

    for (which = 0; which < 2; which++) {
        models[which].phases = PHASES;
        models[which].run = run;
        models[which].run_phase = run_phase;
        models[which].run_part = which == 0 ? run_part : NULL;
    }
    fill(alone);
    call.arena = alone;
    need(run(&call) == TBC_OK, "run");
    call.arena = shared;
    for (i = 0; i < sizeof threads / sizeof *threads; i++) {
        pid_t child;
        int status = 1;
        need(tbc_pool_start(&pool, threads[i]) == threads[i], "tbc_pool_start");
        for (round = 0; round < ROUNDS; round++) {
            unsigned number;
            fill(shared);
            need(tbc_pool_run(&pool, &models[round % 2], &call) == TBC_OK, "tbc_pool_run");
            for (number = 0; number < 2 * SIZE; number++) {
                need(alone[number] == shared[number], "other numbers");
            }
            call.dims = dims;
            need(tbc_pool_run(&pool, &models[round % 2], &call) == TBC_ERROR_VALUE, "no error");
            call.dims = NULL;
            if (round % 50 == 0) nanosleep(&pause, NULL);
        }
        need(idle() < 50, "threads without a call do not sleep");
        child = fork();
        if (child == 0) {
            fill(shared);
            status = tbc_pool_run(&pool, &models[0], &call) != TBC_OK || shared[0] != alone[0];
            tbc_pool_stop(&pool);
            _exit(status);
        }
        need(child > 0 && waitpid(child, &status, 0) == child && status == 0, "a forked process");
        tbc_pool_stop(&pool);
    }
    puts("the same numbers");
    return 0;
}
