/* Two models with several variants each in one program. Every variant that this CPU can run passes its
 * self-test and gives the bits of the variant that tbc_choose takes: alone, by the threads of a pool
 * that both models share, by run_phase, and while the other model runs on another thread.
 *
 * Both have one input of floats, x, and one output of floats, logits, and no symbols.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "first.h"
#include "second.h"
#include "tbc_pool.h"

enum { THREADS = 3, ROUNDS = 20 };

/* A model's list of variants, and memory for the largest of them. */
typedef struct net {
    const char *name;
    const tbc_model *const *variants;
    const void *inputs[1];
    void *outputs[1], *arena, *expected;
    uint64_t cpu; /* tbc_cpu_bits */
} net;

static void need(int holds, const net *net, const char *what) {
    if (holds) return;
    fprintf(stderr, "%s: %s\n", net->name, what);
    exit(1);
}

static void *allocate(const net *net, size_t size, size_t align) {
    unsigned char *const room = malloc(size + align);
    need(room != NULL, net, "no memory");
    memset(room, 0, size + align);
    return room + (align - (uintptr_t)room % align);
}

static net net_of(
    const char *name, const tbc_model *const *variants, size_t x, size_t y, size_t arena, size_t align) {
    net net = {name, variants, {NULL}, {NULL}, NULL, NULL, tbc_cpu_bits()};
    float *const values = allocate(&net, x, align);
    for (size_t i = 0; i < x / sizeof *values; i++) values[i] = (float)(i * 7 % 17) / 16.0f;
    net.inputs[0] = values;
    net.outputs[0] = allocate(&net, y, align);
    net.expected = allocate(&net, y, align);
    net.arena = allocate(&net, arena, align);
    return net;
}

static tbc_call call_of(const net *net) {
    const tbc_call call = {net->inputs, net->outputs, net->arena, NULL, NULL, NULL, NULL, NULL};
    return call;
}

static void compare(const net *net, const tbc_model *model) {
    need(memcmp(net->outputs[0], net->expected, model->outputs[0].bytes) == 0, net, "other bits");
    memset(net->outputs[0], 0xa5, model->outputs[0].bytes);
}

/* The variants that can run here, one after the other, on `pool` where it is not NULL. */
static void run_all(const net *net, tbc_pool *pool) {
    const tbc_call call = call_of(net);
    for (const tbc_model *const *at = net->variants; *at != NULL; at++) {
        tbc_model phased = **at;
        if (tbc_check(*at, net->cpu) != TBC_OK) continue;
        need((*at)->run(&call) == TBC_OK, net, "run");
        compare(net, *at);
        if (pool == NULL) continue;
        need((*at)->run_part != NULL, net, "no run_part");
        need(tbc_pool_run(pool, *at, &call) == TBC_OK, net, "run_part on threads");
        compare(net, *at);
        phased.run_part = NULL;
        need(tbc_pool_run(pool, &phased, &call) == TBC_OK, net, "run_phase on threads");
        compare(net, *at);
    }
}

static void check_alone(const net *net) {
    const tbc_call call = call_of(net);
    const tbc_model *const chosen = tbc_choose(net->variants, net->cpu);
    void *const x = (void *)net->inputs[0]; /* the self-test writes its own values there */
    void *values;
    int count = 0;
    need(chosen != NULL, net, "no variant");
    values = allocate(net, chosen->inputs[0].bytes, chosen->align);
    memcpy(values, x, chosen->inputs[0].bytes);
    for (const tbc_model *const *at = net->variants; *at != NULL; at++, count++) {
        if (tbc_check(*at, net->cpu) != TBC_OK) continue;
        need(tbc_self_test(*at, &call) == TBC_OK, net, "the self-test fails");
    }
    need(count == COUNT, net, "another number of variants");
    memcpy(x, values, chosen->inputs[0].bytes);
    need(chosen->run(&call) == TBC_OK, net, "run");
    memcpy(net->expected, net->outputs[0], chosen->outputs[0].bytes);
}

static void *run_often(void *at) {
    for (int round = 0; round < ROUNDS; round++) run_all(at, NULL);
    return NULL;
}

int main(void) {
    static tbc_pool pool;
    net first = net_of("first", tbc_first_variants, TBC_FIRST_INPUT_X_BYTES,
        TBC_FIRST_OUTPUT_LOGITS_BYTES, TBC_FIRST_ARENA_SIZE, TBC_FIRST_ARENA_ALIGN);
    net second = net_of("second", tbc_second_variants, TBC_SECOND_INPUT_X_BYTES,
        TBC_SECOND_OUTPUT_LOGITS_BYTES, TBC_SECOND_ARENA_SIZE, TBC_SECOND_ARENA_ALIGN);
    pthread_t other;

    check_alone(&first);
    check_alone(&second);
    need(tbc_pool_start(&pool, THREADS) == THREADS, &first, "tbc_pool_start");
    for (int round = 0; round < ROUNDS; round++) {
        run_all(&first, &pool);
        run_all(&second, &pool);
    }
    need(pthread_create(&other, NULL, run_often, &second) == 0, &second, "no thread");
    for (int round = 0; round < ROUNDS; round++) run_all(&first, &pool);
    need(pthread_join(other, NULL) == 0, &second, "pthread_join");
    tbc_pool_stop(&pool);
    puts("the same bits");
    return 0;
}
