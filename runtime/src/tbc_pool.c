/*
 * tbc_pool.c - threads that share the calls of models; see tbc_pool.h.
 *
 * C99 with pthreads, and the atomic operations of GCC and Clang.
 */
#define _POSIX_C_SOURCE 200112L

#include "tbc_pool.h"

#include <sched.h>
#include <unistd.h>

/* How often a thread looks whether something has changed before it sleeps. */
enum { SPINS = 4000 };

static void pause_cpu(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Look at a number until it is no longer `old`, but not for long. */
static void watch(const uint32_t *number, uint32_t old) {
    int i;
    for (i = 0; i < SPINS && __atomic_load_n(number, __ATOMIC_ACQUIRE) == old; i++) pause_cpu();
}

static void yield_cpu(void *context) {
    (void)context;
    sched_yield();
}

/* Wait until all parts have come here. */
static void meet(tbc_pool *pool) {
    uint32_t meeting;
    pthread_mutex_lock(&pool->mutex);
    meeting = pool->meetings;
    if (++pool->arrived == pool->threads) {
        pool->arrived = 0;
        pool->meetings++;
        pthread_cond_broadcast(&pool->met);
    }
    while (pool->meetings == meeting) pthread_cond_wait(&pool->met, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

/* One part of a call. What fails fails in all parts alike, so that none is waited for in vain. */
static int32_t do_part(tbc_pool *pool, const tbc_model *model, const tbc_call *call, uint32_t part) {
    uint32_t phase;
    int32_t status = TBC_OK;
    if (model->run_part != NULL) return model->run_part(call, part, pool->threads);
    for (phase = 0; phase < model->phases && status == TBC_OK; phase++) {
        status = model->run_phase(call, phase, part, pool->threads);
        meet(pool);
    }
    return status;
}

static void *work(void *argument) {
    const tbc_pool_worker *const worker = (const tbc_pool_worker *)argument;
    tbc_pool *const pool = worker->pool;
    uint32_t seen = 0;
    for (;;) {
        const tbc_model *model;
        const tbc_call *call;
        int stop;

        watch(&pool->calls, seen);
        pthread_mutex_lock(&pool->mutex);
        while (pool->calls == seen) pthread_cond_wait(&pool->wake, &pool->mutex);
        seen = pool->calls;
        stop = pool->stop;
        model = pool->model;
        call = pool->call;
        pthread_mutex_unlock(&pool->mutex);
        if (stop) return NULL;
        do_part(pool, model, call, worker->part);
        if (__atomic_sub_fetch(&pool->running, 1u, __ATOMIC_ACQ_REL) == 0) {
            pthread_mutex_lock(&pool->mutex);
            pthread_cond_signal(&pool->ended);
            pthread_mutex_unlock(&pool->mutex);
        }
    }
}

/* Let the threads see the next call, or that they are to stop. */
static void announce(tbc_pool *pool, const tbc_model *model, const tbc_call *call) {
    pthread_mutex_lock(&pool->mutex);
    pool->model = model;
    pool->call = call;
    pool->stop = model == NULL;
    __atomic_store_n(&pool->running, pool->threads - 1, __ATOMIC_RELAXED);
    __atomic_store_n(&pool->calls, pool->calls + 1, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

static int make_locks(tbc_pool *pool) {
    if (pthread_mutex_init(&pool->mutex, NULL) != 0) return 0;
    if (pthread_cond_init(&pool->wake, NULL) == 0) {
        if (pthread_cond_init(&pool->met, NULL) == 0) {
            if (pthread_cond_init(&pool->ended, NULL) == 0) return 1;
            pthread_cond_destroy(&pool->met);
        }
        pthread_cond_destroy(&pool->wake);
    }
    pthread_mutex_destroy(&pool->mutex);
    return 0;
}

/* One more thread. The stacks that systems give are too small (musl) or larger than needed. */
static int start_thread(tbc_pool_worker *worker) {
    pthread_attr_t attributes;
    int failed;
    if (pthread_attr_init(&attributes) != 0) return 0;
    failed = pthread_attr_setstacksize(&attributes, TBC_POOL_STACK) != 0 ||
             pthread_create(&worker->thread, &attributes, work, worker) != 0;
    pthread_attr_destroy(&attributes);
    return !failed;
}

uint32_t tbc_pool_start(tbc_pool *pool, uint32_t threads) {
    const uint32_t most = threads < TBC_POOL_MOST ? threads : TBC_POOL_MOST;
    if (!make_locks(pool)) return 0;
    pool->process = getpid();
    pool->sync.arrived = 0;
    pool->sync.yield = yield_cpu;
    pool->sync.context = NULL;
    pool->calls = pool->running = pool->arrived = pool->meetings = 0;
    pool->stop = 0;
    for (pool->threads = 1; pool->threads < most; pool->threads++) {
        tbc_pool_worker *const worker = &pool->workers[pool->threads - 1];
        worker->pool = pool;
        worker->part = pool->threads;
        if (!start_thread(worker)) break;
    }
    return pool->threads;
}

int32_t tbc_pool_run(tbc_pool *pool, const tbc_model *model, const tbc_call *call) {
    tbc_call shared;
    uint32_t running;
    int32_t status;
    if (model == NULL || call == NULL) return TBC_ERROR_NULL;
    if (pool->threads == 1 || pool->process != getpid()) return model->run(call);
    shared = *call;
    shared.sync = &pool->sync;
    announce(pool, model, &shared);
    status = do_part(pool, model, &shared, 0);
    while ((running = __atomic_load_n(&pool->running, __ATOMIC_ACQUIRE)) != 0) {
        watch(&pool->running, running);
        pthread_mutex_lock(&pool->mutex);
        if (__atomic_load_n(&pool->running, __ATOMIC_ACQUIRE) == running) {
            pthread_cond_wait(&pool->ended, &pool->mutex);
        }
        pthread_mutex_unlock(&pool->mutex);
    }
    return status;
}

void tbc_pool_stop(tbc_pool *pool) {
    uint32_t i;
    if (pool->process != getpid()) return;
    announce(pool, NULL, NULL);
    for (i = 0; i + 1 < pool->threads; i++) pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->ended);
    pthread_cond_destroy(&pool->met);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
}
