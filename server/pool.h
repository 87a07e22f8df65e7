/* pool.h - the compute threads: a bounded queue of jobs, and loops that are spread over idle threads. */
#ifndef SRV_POOL_H
#define SRV_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../api/api.h"

struct srv_pool;

/* A job with more floating-point operations than this (some milliseconds of one core) is long. One worker starts no
 * long jobs, so that short ones never wait for all workers to finish long ones. */
#define SRV_POOL_LONG_JOB UINT64_C(250000000)

/* Starts `threads` workers, at least 1, with a queue of `queue` jobs. NN_E_NOMEM, NN_E_INTERNAL. */
struct srv_pool *srv_pool_new(int threads, size_t queue, struct nn_error *err);
/* Runs all queued jobs, and those that they add. No other thread may use the pool any more. */
void srv_pool_free(struct srv_pool *pool);

/* Runs job(arg) on a worker, once. `cost` is in floating-point operations; 0, unknown, counts as little.
 * False: the queue is full, and the job is not run. From any thread. */
bool srv_pool_execute(struct srv_pool *pool, void (*job)(void *arg), void *arg, uint64_t cost);

/* The same after `delay_us` microseconds. Then the job is queued behind the others. A delayed job has a place in the
 * queue. When the pool is freed, it runs at once. False: too many jobs are delayed. */
bool srv_pool_execute_after(struct srv_pool *pool, int64_t delay_us, void (*job)(void *arg), void *arg,
                            uint64_t cost);

/* Tells the pool's load. From any thread. */
void srv_pool_load(struct srv_pool *pool, struct api_load *load);

/* Calls task(arg, i) for every i < n, on this thread and on idle workers. Returns when all are done. From any thread,
 * tasks included. It fits nn_parallel: `self` is a struct srv_pool. */
void srv_pool_parallel(void *self, size_t n, void (*task)(void *arg, size_t i), void *arg);

#endif
