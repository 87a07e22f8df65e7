/* pool.h - the compute threads: a bounded queue of jobs, and loops spread over whoever is idle. */
#ifndef SRV_POOL_H
#define SRV_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../api/api.h"

struct srv_pool;

/* A job planned to cost more than this many floating-point operations (some milliseconds of one core) is
 * long: one worker never starts it, so that there is always one whom long jobs do not hold. */
#define SRV_POOL_LONG_JOB UINT64_C(250000000)

/* `threads` workers, at least 1, and room for `queue` jobs that wait. NN_E_NOMEM, NN_E_INTERNAL. */
struct srv_pool *srv_pool_new(int threads, size_t queue, struct nn_error *err);
/* Runs what is queued to its end, and what that adds. No other thread may use the pool any more. */
void srv_pool_free(struct srv_pool *pool);

/* Runs job(arg) on a worker, once. `cost` is in floating-point operations; 0, unknown, counts as little.
 * False: the queue is full, and the job is not run. From any thread. */
bool srv_pool_execute(struct srv_pool *pool, void (*job)(void *arg), void *arg, uint64_t cost);

/* The same after `delay_us` microseconds: then it waits behind what is queued, and goes for a job that is
 * queued. When the pool is freed, at once. False: too many are delayed already. */
bool srv_pool_execute_after(struct srv_pool *pool, int64_t delay_us, void (*job)(void *arg), void *arg,
                            uint64_t cost);

/* What the workers are at. From any thread. */
void srv_pool_load(struct srv_pool *pool, struct api_load *load);

/* Calls task(arg, i) for every i < n, here and on workers that have nothing else to do; returns when all
 * are done. From any thread, tasks included. Fits nn_parallel, so `self` is a struct srv_pool. */
void srv_pool_parallel(void *self, size_t n, void (*task)(void *arg, size_t i), void *arg);

#endif
