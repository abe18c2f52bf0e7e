/*
 * tbc_pool.h - threads that share the calls of models, for systems with pthreads. Optional.
 *
 *     static tbc_pool pool;
 *     uint32_t threads = tbc_pool_start(&pool, 4); // this thread and up to 3 more
 *     if (threads != 0) status = tbc_pool_run(&pool, &tbc_net, &call);
 *     if (threads != 0) tbc_pool_stop(&pool);
 *
 * One call at a time: the functions of a pool are for one thread at a time. Between calls its own
 * threads look for the next one for a moment, then sleep. Nothing is allocated: a pool is memory of
 * the caller, who must not move it before it is stopped. Any number of models can share a pool. A
 * process that was forked off has no threads of it: there calls run on the caller's thread alone.
 */
#ifndef TBC_POOL_H
#define TBC_POOL_H

#include <pthread.h>
#include <sys/types.h>

#include "tbc.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The most threads of a pool, that of the caller among them. */
#define TBC_POOL_MOST 64

/* Bytes of stack of its own threads; models use less than half of it. */
#define TBC_POOL_STACK (256u << 10)

struct tbc_pool;

/* One of its threads. */
typedef struct tbc_pool_worker {
    struct tbc_pool *pool;
    uint32_t part;
    pthread_t thread;
} tbc_pool_worker;

/* Its fields are the pool's own. */
typedef struct tbc_pool {
    tbc_sync sync;         /* where the parts of a call meet in run_part */
    unsigned char gap[64]; /* keeps what follows off the cache line that they look at */
    pthread_mutex_t mutex;
    pthread_cond_t wake, met, ended;
    uint32_t threads;
    uint32_t calls;   /* how many there have been; the threads wait for it to grow */
    uint32_t running; /* parts that have not ended, the caller's left out */
    uint32_t arrived; /* parts that have ended a phase, where the model has no run_part */
    uint32_t meetings;
    int stop;
    pid_t process; /* where the threads are */
    const tbc_model *model;
    const tbc_call *call;
    tbc_pool_worker workers[TBC_POOL_MOST - 1];
} tbc_pool;

/*
 * Start a pool of `threads` threads, the caller's included. Returns how many it has: fewer where
 * the system gives no more, at least 1; or 0 if the system has no locks, and there is no pool.
 */
uint32_t tbc_pool_start(tbc_pool *pool, uint32_t threads);

/* Like model->run(call), on all threads of the pool; call->sync is ignored. */
int32_t tbc_pool_run(tbc_pool *pool, const tbc_model *model, const tbc_call *call);

/* End the threads, and give back what the system holds for the pool. */
void tbc_pool_stop(tbc_pool *pool);

#ifdef __cplusplus
}
#endif

#endif /* TBC_POOL_H */
