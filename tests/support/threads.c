/* threads.c - every call starts its threads, lets all of them begin before any takes a task, and joins. */
#include "threads.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>

/* A pool is a place in here: its index is the number of threads. */
static char pools[TEST_MAX_THREADS + 1];

struct job {
    void (*task)(void *arg, size_t i);
    void *arg;
    size_t n;
    atomic_size_t next;
    pthread_barrier_t start;
};

static void *work(void *p) {
    struct job *job = p;
    pthread_barrier_wait(&job->start);
    for (size_t i; (i = atomic_fetch_add(&job->next, 1)) < job->n;) job->task(job->arg, i);
    return NULL;
}

static void run(void *pool, size_t n, void (*task)(void *arg, size_t i), void *arg) {
    const unsigned threads = (unsigned)((char *)pool - pools);
    struct job job = {.task = task, .arg = arg, .n = n};
    pthread_t thread[TEST_MAX_THREADS];
    atomic_init(&job.next, 0);
    int rc = pthread_barrier_init(&job.start, NULL, threads);
    for (unsigned t = 1; t < threads; t++) rc |= pthread_create(&thread[t], NULL, work, &job);
    assert(rc == 0);
    work(&job);
    for (unsigned t = 1; t < threads; t++) rc |= pthread_join(thread[t], NULL);
    assert(rc == 0);
    pthread_barrier_destroy(&job.start);
}

struct nn_parallel test_parallel(int threads) {
    assert(threads >= 1 && threads <= TEST_MAX_THREADS);
    return (struct nn_parallel){.run = run, .pool = &pools[threads]};
}
