/* Shares calls of a model among the threads of a pool, 1 to MOST of them, and compares the outputs
 * with those of one thread: by run_part, by run_phase, and where the call is wrong.
 *
 * MODEL is the constant's name; it has one input and one output of floats, and no symbols.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tbc_pool.h"

extern const tbc_model MODEL;

enum { MOST = 7, ROUNDS = 50 };

static void need(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "pooled: %s\n", what);
    exit(1);
}

static void *allocate(size_t size) {
    unsigned char *const room = malloc(size + MODEL.align);
    need(room != NULL, "no memory");
    memset(room, 0, size + MODEL.align);
    return room + (MODEL.align - (uintptr_t)room % MODEL.align);
}

static void compare(tbc_pool *pool, const tbc_model *model, tbc_call call, float *x) {
    const size_t size = MODEL.outputs[0].bytes;
    const void *const inputs[] = {x};
    void *const alone[] = {allocate(size)}, *const shared[] = {allocate(size)};
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < MODEL.inputs[0].bytes / sizeof *x; i++) {
            x[i] = (float)((i * 7 + (size_t)round * 13) % 17) / 16.0f;
        }
        call.inputs = inputs;
        call.outputs = alone;
        need(model->run(&call) == TBC_OK, "run");
        call.outputs = shared;
        memset(shared[0], 0xa5, size);
        need(tbc_pool_run(pool, model, &call) == TBC_OK, "tbc_pool_run");
        need(memcmp(alone[0], shared[0], size) == 0, "other bits");
        call.inputs = NULL;
        need(tbc_pool_run(pool, model, &call) == TBC_ERROR_NULL, "a wrong call");
    }
}

int main(void) {
    static tbc_pool pool;
    float *const x = allocate(MODEL.inputs[0].bytes);
    const tbc_call call = {NULL, NULL, allocate(MODEL.arena_size), NULL, NULL, NULL, NULL, NULL};
    tbc_model plain = MODEL;

    plain.run_part = NULL;
    for (uint32_t threads = 0; threads <= MOST; threads++) {
        need(tbc_pool_start(&pool, threads) == (threads ? threads : 1), "tbc_pool_start");
        need(tbc_pool_run(&pool, NULL, &call) == TBC_ERROR_NULL, "no model");
        need(tbc_pool_run(&pool, &MODEL, NULL) == TBC_ERROR_NULL, "no call");
        compare(&pool, &MODEL, call, x);
        compare(&pool, &plain, call, x);
        need(pool.sync.arrived == 0, "a count of arrivals is left");
        tbc_pool_stop(&pool);
    }
    puts("the same bits");
    return 0;
}
