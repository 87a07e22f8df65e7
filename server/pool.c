/* pool.c - see pool.h.
 *
 * One mutex guards everything but the claiming of a loop's turns, which is one atomic addition. Every worker sleeps on
 * a condition of its own. A thread that brings work chooses a sleeper for it, and marks the sleeper awake at once, so
 * that two pieces of work never wake the same worker.
 *
 * Waking a thread takes tens of microseconds, and a request is a dozen loops in a row. So a worker that finds nothing
 * to do while others work looks out for a moment before it sleeps; so does a loop's caller that waits for its helpers'
 * last turns. When nobody works, nobody looks out. */
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum { SHORT, LONG, LENGTHS };

#define LOOKOUT_NS 50000 /* about the time that sleeping and being woken takes */

struct job {
    void (*run)(void *arg);
    void *arg;
    uint64_t order; /* of arrival, over both rings */
};

struct ring {
    struct job *jobs;
    size_t first;
    atomic_size_t count; /* written under the mutex; helpers read it without */
};

/* A loop that is being spread. It lives on its caller's stack, and in the pool's list while helpers may still begin. */
struct loop {
    struct loop *next;
    void (*task)(void *arg, size_t i);
    void *arg;
    size_t n;
    atomic_size_t claimed;
    atomic_int helpers; /* helpers that are at it; written under the mutex */
    pthread_cond_t alone;
};

enum { AWAKE, LOOKING_OUT, ASLEEP, RESTS }; /* how a worker rests */

#define MAX_DELAYED 64

/* A job that is due later. */
struct delayed {
    struct timespec due;
    int length;
    struct job job;
};

struct worker {
    struct srv_pool *pool;
    pthread_t thread;
    pthread_cond_t wake;
    atomic_int rest; /* written under the mutex */
    bool short_only; /* starts no long jobs */
};

struct srv_pool {
    pthread_mutex_t mutex;
    struct ring ring[LENGTHS];
    size_t room; /* the greatest number of queued jobs, of both lengths */
    uint64_t arrivals;
    struct delayed delayed[MAX_DELAYED];
    int n_delayed;
    struct worker
        *timekeeper; /* the worker that sleeps until the first delayed job is due; NULL: none is idle */
    struct loop *loops;
    atomic_int at_work; /* workers that run a job */
    bool stopping;
    int n_workers;
    struct worker *workers;
};

/* --- who does what; the mutex is held ----------------------------------------------------------- */

static bool may_start(const struct worker *worker, int length) {
    /* The last worker to leave takes every job that is left. */
    return length == SHORT || !worker->short_only || worker->pool->stopping;
}

static void rouse(struct worker *worker) {
    bool asleep = atomic_load_explicit(&worker->rest, memory_order_relaxed) == ASLEEP;
    atomic_store_explicit(&worker->rest, AWAKE, memory_order_relaxed);
    if (asleep) pthread_cond_signal(&worker->wake);
}

/* Wakes a resting worker that may start such a job; lightest sleepers first. The worker for short jobs is the first in
 * the array, and so is chosen before those that could do more. */
static bool wake_for(struct srv_pool *pool, int length) {
    for (int rest = LOOKING_OUT; rest < RESTS; rest++)
        for (int i = 0; i < pool->n_workers; i++) {
            struct worker *worker = &pool->workers[i];
            if (atomic_load_explicit(&worker->rest, memory_order_relaxed) != rest ||
                !may_start(worker, length))
                continue;
            rouse(worker);
            return true;
        }
    return false;
}

static bool earlier(const struct timespec *a, const struct timespec *b) {
    return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

/* True if one more job may be queued. Delayed jobs have their places already. */
static bool has_room(const struct srv_pool *pool) {
    size_t n = (size_t)pool->n_delayed;
    for (int length = 0; length < LENGTHS; length++)
        n += atomic_load_explicit(&pool->ring[length].count, memory_order_relaxed);
    return n < pool->room;
}

static void push_job(struct srv_pool *pool, int length, struct job job) {
    struct ring *ring = &pool->ring[length];
    size_t count = atomic_load_explicit(&ring->count, memory_order_relaxed);
    job.order = pool->arrivals++;
    ring->jobs[(ring->first + count) % pool->room] = job;
    atomic_store_explicit(&ring->count, count + 1, memory_order_relaxed);
    wake_for(pool, length);
}

/* Queues the delayed jobs that are due. */
static void queue_due(struct srv_pool *pool) {
    struct timespec now;
    if (pool->n_delayed) clock_gettime(CLOCK_MONOTONIC, &now);
    for (int i = 0; i < pool->n_delayed;) {
        struct delayed delayed = pool->delayed[i];
        if (!pool->stopping && earlier(&now, &delayed.due)) {
            i++;
            continue;
        }
        pool->delayed[i] = pool->delayed[--pool->n_delayed];
        push_job(pool, delayed.length, delayed.job);
    }
}

static bool take_job(struct worker *worker, struct job *job) {
    struct srv_pool *pool = worker->pool;
    struct ring *oldest = NULL;
    for (int length = 0; length < LENGTHS; length++) {
        struct ring *ring = &pool->ring[length];
        if (atomic_load_explicit(&ring->count, memory_order_relaxed) == 0 || !may_start(worker, length))
            continue;
        if (!oldest || ring->jobs[ring->first].order < oldest->jobs[oldest->first].order) oldest = ring;
    }
    if (!oldest) return false;
    *job = oldest->jobs[oldest->first];
    oldest->first = (oldest->first + 1) % pool->room;
    atomic_fetch_sub_explicit(&oldest->count, 1, memory_order_relaxed);
    /* The worker that was woken for this job will find it gone, and may not be allowed to start the next one. */
    for (int length = 0; length < LENGTHS; length++)
        if (atomic_load_explicit(&pool->ring[length].count, memory_order_relaxed) > 0) wake_for(pool, length);
    return true;
}

static struct loop *find_loop(const struct srv_pool *pool) {
    struct loop *loop = pool->loops;
    while (loop && atomic_load_explicit(&loop->claimed, memory_order_relaxed) >= loop->n) loop = loop->next;
    return loop;
}

static void unlist(struct srv_pool *pool, const struct loop *loop) {
    struct loop **link = &pool->loops;
    while (*link != loop) link = &(*link)->next;
    *link = loop->next;
}

/* --- looking out ---------------------------------------------------------------------------------- */

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Looks out until *watched is not `value`: true. False: it took too long, or no worker of `pool` (NULL: of any) is at
 * work. The core is offered to other threads meanwhile. */
static bool look_out(const atomic_int *watched, int value, struct srv_pool *pool) {
    int64_t end = now_ns() + LOOKOUT_NS;
    do {
        for (int i = 0; i < 32; i++) {
            if (atomic_load_explicit(watched, memory_order_relaxed) != value) return true;
            pause_briefly();
        }
        sched_yield();
    } while (now_ns() < end && (!pool || atomic_load_explicit(&pool->at_work, memory_order_relaxed) > 0));
    return false;
}

/* --- workers ------------------------------------------------------------------------------------ */

/* New requests come before helping: a helper leaves its loop when there is a job that it may start. */
static bool job_waits(const struct worker *worker) {
    const struct ring *ring = worker->pool->ring;
    return atomic_load_explicit(&ring[SHORT].count, memory_order_relaxed) > 0 ||
           (!worker->short_only && atomic_load_explicit(&ring[LONG].count, memory_order_relaxed) > 0);
}

static void help(struct worker *worker, struct loop *loop) {
    struct srv_pool *pool = worker->pool;
    atomic_fetch_add_explicit(&loop->helpers, 1, memory_order_relaxed);
    pthread_mutex_unlock(&pool->mutex);
    while (!job_waits(worker)) {
        size_t i = atomic_fetch_add_explicit(&loop->claimed, 1, memory_order_relaxed);
        if (i >= loop->n) break;
        loop->task(loop->arg, i);
    }
    pthread_mutex_lock(&pool->mutex);
    if (atomic_fetch_sub_explicit(&loop->helpers, 1, memory_order_relaxed) == 1)
        pthread_cond_signal(&loop->alone);
}

/* While jobs are delayed, one idle worker keeps the time. */
static void hand_on_time(struct srv_pool *pool) {
    if (pool->n_delayed && !pool->timekeeper) wake_for(pool, SHORT);
}

/* Sleeps until woken. The timekeeper sleeps at most until the first delayed job is due. */
static void sleep_well(struct worker *worker) {
    struct srv_pool *pool = worker->pool;
    const bool keeps = pool->n_delayed && !pool->timekeeper;
    struct timespec due = pool->delayed[0].due;
    for (int i = 1; keeps && i < pool->n_delayed; i++)
        if (earlier(&pool->delayed[i].due, &due)) due = pool->delayed[i].due;
    if (keeps) pool->timekeeper = worker;
    atomic_store_explicit(&worker->rest, ASLEEP, memory_order_relaxed);
    while (atomic_load_explicit(&worker->rest, memory_order_relaxed) == ASLEEP)
        if (!keeps)
            pthread_cond_wait(&worker->wake, &pool->mutex);
        else if (pthread_cond_timedwait(&worker->wake, &pool->mutex, &due) != 0)
            break;
    if (keeps) pool->timekeeper = NULL;
    atomic_store_explicit(&worker->rest, AWAKE, memory_order_relaxed);
}

/* Rests until there may be work. After a loop the next loop is likely soon; after a job, only if others are at work. */
static void rest(struct worker *worker, bool helped) {
    struct srv_pool *pool = worker->pool;
    if (helped || atomic_load_explicit(&pool->at_work, memory_order_relaxed) > 0) {
        atomic_store_explicit(&worker->rest, LOOKING_OUT, memory_order_relaxed);
        pthread_mutex_unlock(&pool->mutex);
        look_out(&worker->rest, LOOKING_OUT, helped ? NULL : pool);
        pthread_mutex_lock(&pool->mutex);
        if (atomic_load_explicit(&worker->rest, memory_order_relaxed) == AWAKE) return;
    }
    sleep_well(worker);
}

static void *work(void *self) {
    struct worker *worker = self;
    struct srv_pool *pool = worker->pool;
    struct job job;
    struct loop *loop;
    bool helped = false;
    pthread_setname_np(pthread_self(), "gradd-compute");
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        queue_due(pool);
        if (take_job(worker, &job)) {
            hand_on_time(pool);
            atomic_fetch_add_explicit(&pool->at_work, 1, memory_order_relaxed);
            pthread_mutex_unlock(&pool->mutex);
            job.run(job.arg);
            pthread_mutex_lock(&pool->mutex);
            atomic_fetch_sub_explicit(&pool->at_work, 1, memory_order_relaxed);
        } else if ((loop = find_loop(pool))) {
            hand_on_time(pool);
            help(worker, loop);
            helped = true;
        } else if (pool->stopping) {
            break;
        } else {
            rest(worker, helped);
            helped = false;
        }
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

/* --- from outside ------------------------------------------------------------------------------- */

static int length_of(uint64_t cost) { return cost > SRV_POOL_LONG_JOB ? LONG : SHORT; }

bool srv_pool_execute(struct srv_pool *pool, void (*job)(void *arg), void *arg, uint64_t cost) {
    pthread_mutex_lock(&pool->mutex);
    bool fits = has_room(pool);
    if (fits) push_job(pool, length_of(cost), (struct job){.run = job, .arg = arg});
    pthread_mutex_unlock(&pool->mutex);
    return fits;
}

bool srv_pool_execute_after(struct srv_pool *pool, int64_t delay_us, void (*job)(void *arg), void *arg,
                            uint64_t cost) {
    struct delayed delayed = {.length = length_of(cost), .job = {.run = job, .arg = arg}};
    clock_gettime(CLOCK_MONOTONIC, &delayed.due);
    int64_t ns = delayed.due.tv_nsec + delay_us * 1000;
    delayed.due.tv_sec += ns / 1000000000;
    delayed.due.tv_nsec = ns % 1000000000;
    pthread_mutex_lock(&pool->mutex);
    bool fits = pool->n_delayed < MAX_DELAYED && has_room(pool);
    if (fits) {
        pool->delayed[pool->n_delayed++] = delayed;
        if (pool->timekeeper)
            rouse(pool->timekeeper);
        else
            wake_for(pool, SHORT);
    }
    pthread_mutex_unlock(&pool->mutex);
    return fits;
}

void srv_pool_load(struct srv_pool *pool, struct api_load *load) {
    pthread_mutex_lock(&pool->mutex);
    uint64_t waiting = 0;
    for (int length = 0; length < LENGTHS; length++)
        waiting += atomic_load_explicit(&pool->ring[length].count, memory_order_relaxed);
    load->queued = waiting + (uint64_t)pool->n_delayed;
    load->room = pool->room;
    load->begun = pool->arrivals - waiting;
    load->threads = (uint64_t)pool->n_workers;
    load->busy = (uint64_t)atomic_load_explicit(&pool->at_work, memory_order_relaxed);
    pthread_mutex_unlock(&pool->mutex);
}

/* Waits for the helpers of a loop that is not listed any more. */
static void await_helpers(struct srv_pool *pool, struct loop *loop) {
    int helpers = atomic_load_explicit(&loop->helpers, memory_order_relaxed);
    if (helpers > 0) {
        pthread_mutex_unlock(&pool->mutex);
        while (helpers > 0 && look_out(&loop->helpers, helpers, NULL))
            helpers = atomic_load_explicit(&loop->helpers, memory_order_relaxed);
        pthread_mutex_lock(&pool->mutex);
    }
    while (atomic_load_explicit(&loop->helpers, memory_order_relaxed) > 0)
        pthread_cond_wait(&loop->alone, &pool->mutex);
}

void srv_pool_parallel(void *self, size_t n, void (*task)(void *arg, size_t i), void *arg) {
    struct srv_pool *pool = self;
    struct loop loop = {.task = task, .arg = arg, .n = n, .alone = PTHREAD_COND_INITIALIZER};
    if (n > 1) {
        pthread_mutex_lock(&pool->mutex);
        loop.next = pool->loops;
        pool->loops = &loop;
        for (size_t i = 1; i < n && wake_for(pool, SHORT); i++) continue;
        pthread_mutex_unlock(&pool->mutex);
    }
    for (size_t i; (i = atomic_fetch_add_explicit(&loop.claimed, 1, memory_order_relaxed)) < n;) task(arg, i);
    if (n > 1) {
        pthread_mutex_lock(&pool->mutex);
        unlist(pool, &loop);
        await_helpers(pool, &loop);
        pthread_mutex_unlock(&pool->mutex);
    }
    pthread_cond_destroy(&loop.alone);
}

/* --- birth and death ---------------------------------------------------------------------------- */

static void stop_workers(struct srv_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    pool->stopping = true;
    while (wake_for(pool, SHORT)) continue;
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->n_workers; i++) {
        pthread_join(pool->workers[i].thread, NULL);
        pthread_cond_destroy(&pool->workers[i].wake);
    }
}

static bool start_worker(struct srv_pool *pool, bool short_only) {
    struct worker *worker = &pool->workers[pool->n_workers];
    worker->pool = pool;
    worker->short_only = short_only;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&worker->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    /* With the mutex held, because workers that run already read the array. */
    pthread_mutex_lock(&pool->mutex);
    bool started = pthread_create(&worker->thread, NULL, work, worker) == 0;
    if (started) pool->n_workers++;
    pthread_mutex_unlock(&pool->mutex);
    if (!started) pthread_cond_destroy(&worker->wake);
    return started;
}

struct srv_pool *srv_pool_new(int threads, size_t queue, struct nn_error *err) {
    struct srv_pool *pool = calloc(1, sizeof *pool);
    if (!pool) goto no_memory;
    pthread_mutex_init(&pool->mutex, NULL);
    pool->room = queue;
    pool->workers = calloc((size_t)threads, sizeof *pool->workers);
    pool->ring[SHORT].jobs = calloc(queue, sizeof(struct job));
    pool->ring[LONG].jobs = calloc(queue, sizeof(struct job));
    if (!pool->workers || !pool->ring[SHORT].jobs || !pool->ring[LONG].jobs) goto no_memory;
    while (pool->n_workers < threads) {
        if (start_worker(pool, threads > 1 && pool->n_workers == 0)) continue;
        nn_fail(err, NN_E_INTERNAL, "only %d of %d compute threads could be started", pool->n_workers,
                threads);
        srv_pool_free(pool);
        return NULL;
    }
    return pool;

no_memory:
    nn_fail(err, NN_E_NOMEM, "no memory for %d compute threads and a queue of %zu", threads, queue);
    srv_pool_free(pool);
    return NULL;
}

void srv_pool_free(struct srv_pool *pool) {
    if (!pool) return;
    stop_workers(pool);
    pthread_mutex_destroy(&pool->mutex);
    for (int length = 0; length < LENGTHS; length++) free(pool->ring[length].jobs);
    free(pool->workers);
    free(pool);
}
