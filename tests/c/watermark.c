/* How deep a call of run reaches into the stack: of two threads on painted stacks, one calls it. */
#define _XOPEN_SOURCE 700
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "digits_mlp.h"

enum { SIZE = 1 << 18, PAINT = 0xA5 };

static _Alignas(4096) unsigned char stack[SIZE];
static _Alignas(64) unsigned char arena[1 << 16];
static float x[64], logits[10];

static void *nothing(void *call) { return call; }

static void *one_run(void *call) { return tbc_digits_mlp.run(call) == TBC_OK ? call : NULL; }

static int depth(void *(*body)(void *), tbc_call *call) {
    pthread_attr_t attributes;
    pthread_t thread;
    void *result = NULL;
    int untouched = 0;
    memset(stack, PAINT, SIZE);
    if (pthread_attr_init(&attributes) || pthread_attr_setstack(&attributes, stack, SIZE)) return -1;
    if (pthread_create(&thread, &attributes, body, call)) return -1;
    if (pthread_join(thread, &result) || result == NULL) return -1;
    while (untouched < SIZE && stack[untouched] == PAINT) untouched++;
    return SIZE - untouched;
}

int main(void) {
    const void *inputs[] = {x};
    void *outputs[] = {logits};
    tbc_call call;
    int idle, busy;
    memset(&call, 0, sizeof call);
    call.inputs = inputs;
    call.outputs = outputs;
    call.arena = arena;
    idle = depth(nothing, &call);
    busy = depth(one_run, &call);
    printf("%d %d\n", idle, busy);
    return idle < 0 || busy < 0;
}
