/* The compute pool: everything is done once, loops give the same whoever helps, the queue is bounded, a
 * worker stays free of long jobs, and a stop drains. To be run under the thread sanitizer too. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../server/pool.h"

static struct srv_pool *new_pool(int threads, size_t queue) {
    struct nn_error err = {0};
    struct srv_pool *pool = srv_pool_new(threads, queue, &err);
    assert_non_null(pool);
    return pool;
}

/* A gate that jobs wait at until it is opened, and that tells how many came and how many went on. */
struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int arrived, left;
    bool open;
};
static const struct gate closed_gate = {.mutex = PTHREAD_MUTEX_INITIALIZER,
                                        .changed = PTHREAD_COND_INITIALIZER};

static void wait_at(void *self) {
    struct gate *gate = self;
    pthread_mutex_lock(&gate->mutex);
    gate->arrived++;
    pthread_cond_broadcast(&gate->changed);
    while (!gate->open) pthread_cond_wait(&gate->changed, &gate->mutex);
    gate->left++;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->mutex);
}

static void await_arrivals(struct gate *gate, int n) {
    pthread_mutex_lock(&gate->mutex);
    while (gate->arrived < n) pthread_cond_wait(&gate->changed, &gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
}

static int arrivals(struct gate *gate) {
    pthread_mutex_lock(&gate->mutex);
    int n = gate->arrived;
    pthread_mutex_unlock(&gate->mutex);
    return n;
}

static void open_gate(struct gate *gate) {
    pthread_mutex_lock(&gate->mutex);
    gate->open = true;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->mutex);
}

/* After which the gate may go out of scope. */
static void await_departures(struct gate *gate, int n) {
    pthread_mutex_lock(&gate->mutex);
    while (gate->left < n) pthread_cond_wait(&gate->changed, &gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
}

/* --- loops --- */

struct squares {
    uint64_t *out;
    atomic_int calls;
};

static void square(void *self, size_t i) {
    struct squares *squares = self;
    squares->out[i] = (uint64_t)i * i;
    atomic_fetch_add(&squares->calls, 1);
}

static void check_loop(struct srv_pool *pool, size_t n) {
    struct squares squares = {.out = calloc(n + 1, sizeof(uint64_t))};
    assert_non_null(squares.out);
    srv_pool_parallel(pool, n, square, &squares);
    assert_int_equal(atomic_load(&squares.calls), n);
    for (size_t i = 0; i < n; i++) assert_int_equal(squares.out[i], (uint64_t)i * i);
    free(squares.out);
}

static void loops_do_each_turn_once(void **state) {
    (void)state;
    for (int threads = 1; threads <= 8; threads *= 2) {
        struct srv_pool *pool = new_pool(threads, 16);
        for (size_t n = 0; n < 200; n += n < 5 ? 1 : 39) check_loop(pool, n);
        srv_pool_free(pool);
    }
}

/* Jobs that each spread loops within loops, from every worker at once. */
enum { JOBS = 64, OUTER = 8, INNER = 50 };
struct nest {
    struct srv_pool *pool;
    struct gate *gate;
    struct squares rows[OUTER];
    uint64_t out[OUTER][INNER];
};

static void nest_row(void *self, size_t i) {
    struct nest *nest = self;
    nest->rows[i].out = nest->out[i];
    srv_pool_parallel(nest->pool, INNER, square, &nest->rows[i]);
}

static void nest_job(void *self) {
    struct nest *nest = self;
    srv_pool_parallel(nest->pool, OUTER, nest_row, nest);
    pthread_mutex_lock(&nest->gate->mutex);
    nest->gate->arrived++;
    pthread_cond_broadcast(&nest->gate->changed);
    pthread_mutex_unlock(&nest->gate->mutex);
}

static void jobs_may_spread_loops_at_once(void **state) {
    (void)state;
    struct srv_pool *pool = new_pool(4, JOBS);
    struct gate gate = closed_gate;
    struct nest *nests = calloc(JOBS, sizeof *nests);
    assert_non_null(nests);
    for (size_t i = 0; i < JOBS; i++) {
        nests[i].pool = pool;
        nests[i].gate = &gate;
        assert_true(srv_pool_execute(pool, nest_job, &nests[i], i % 3 ? 0 : SRV_POOL_LONG_JOB + 1));
    }
    for (size_t n = 0; n < 30; n++) check_loop(pool, 97); /* from a thread that is no worker */
    await_arrivals(&gate, JOBS);
    for (size_t i = 0; i < JOBS; i++)
        for (size_t row = 0; row < OUTER; row++) {
            assert_int_equal(atomic_load(&nests[i].rows[row].calls), INNER);
            for (size_t k = 0; k < INNER; k++) assert_int_equal(nests[i].out[row][k], k * k);
        }
    srv_pool_free(pool);
    free(nests);
}

/* Two turns that both have to have begun before either ends: only an idle worker's help can do that. */
static void meet(void *self, size_t i) {
    (void)i;
    struct gate *gate = self;
    pthread_mutex_lock(&gate->mutex);
    gate->arrived++;
    pthread_cond_broadcast(&gate->changed);
    while (gate->arrived < 2) pthread_cond_wait(&gate->changed, &gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
}

static void idle_workers_help(void **state) {
    (void)state;
    struct srv_pool *pool = new_pool(1, 4);
    struct gate gate = closed_gate;
    srv_pool_parallel(pool, 2, meet, &gate);
    assert_int_equal(arrivals(&gate), 2);
    srv_pool_free(pool);
}

/* All workers are held: the caller does everything, and does not wait for help that has not begun. */
static void loops_need_no_help(void **state) {
    (void)state;
    struct srv_pool *pool = new_pool(2, 4);
    struct gate gate = closed_gate;
    assert_true(srv_pool_execute(pool, wait_at, &gate, 0));
    assert_true(srv_pool_execute(pool, wait_at, &gate, 0));
    await_arrivals(&gate, 2);
    check_loop(pool, 100);
    open_gate(&gate);
    srv_pool_free(pool);
}

/* --- the queue --- */

static void a_full_queue_refuses(void **state) {
    (void)state;
    struct srv_pool *pool = new_pool(2, 3);
    struct gate gate = closed_gate;
    assert_true(srv_pool_execute(pool, wait_at, &gate, 0));
    assert_true(srv_pool_execute(pool, wait_at, &gate, 0));
    await_arrivals(&gate, 2);
    assert_true(srv_pool_execute(pool, wait_at, &gate, 0));
    assert_true(srv_pool_execute(pool, wait_at, &gate, SRV_POOL_LONG_JOB + 1));
    assert_true(srv_pool_execute(pool, wait_at, &gate, 0));
    assert_false(srv_pool_execute(pool, wait_at, &gate, 0));
    assert_false(srv_pool_execute(pool, wait_at, &gate, SRV_POOL_LONG_JOB + 1));
    open_gate(&gate);
    srv_pool_free(pool);
    assert_int_equal(arrivals(&gate), 5); /* the refused ones never ran, the queued ones all */
}

static void long_jobs_leave_a_worker_free(void **state) {
    (void)state;
    struct srv_pool *pool = new_pool(3, 8);
    struct gate held = closed_gate, quick = closed_gate;
    for (int i = 0; i < 4; i++) assert_true(srv_pool_execute(pool, wait_at, &held, SRV_POOL_LONG_JOB + 1));
    await_arrivals(&held, 2);
    open_gate(&quick);
    for (int i = 0; i < 4; i++) assert_true(srv_pool_execute(pool, wait_at, &quick, SRV_POOL_LONG_JOB));
    await_arrivals(&quick, 4); /* would wait for ever if a third long job had begun */
    assert_int_equal(arrivals(&held), 2);
    open_gate(&held);
    srv_pool_free(pool);
    assert_int_equal(arrivals(&held), 4);
}

/* A short job before a long one, again and again: whoever takes the short one, the long one finds someone,
 * or the round would never end. */
static void nobody_sleeps_through_work(void **state) {
    (void)state;
    struct srv_pool *pool = new_pool(4, 16);
    for (int round = 0; round < 2000; round++) {
        struct gate gate = closed_gate;
        assert_true(srv_pool_execute(pool, wait_at, &gate, 0));
        assert_true(srv_pool_execute(pool, wait_at, &gate, SRV_POOL_LONG_JOB + 1));
        assert_true(srv_pool_execute(pool, wait_at, &gate, SRV_POOL_LONG_JOB + 1));
        await_arrivals(&gate, 3); /* all at once, each on a worker of its own */
        open_gate(&gate);
        await_departures(&gate, 3);
    }
    srv_pool_free(pool);
}

/* --- its end --- */

struct chain {
    struct srv_pool *pool;
    atomic_int runs;
};

static void run_on(void *self) {
    struct chain *chain = self;
    int runs = atomic_fetch_add(&chain->runs, 1);
    if (runs < 100)
        assert_true(srv_pool_execute(chain->pool, run_on, chain, runs % 2 ? SRV_POOL_LONG_JOB + 1 : 0));
}

static void the_end_waits_for_what_jobs_add(void **state) {
    (void)state;
    for (int threads = 1; threads <= 4; threads++) {
        struct chain chain = {.pool = new_pool(threads, 4)};
        assert_true(srv_pool_execute(chain.pool, run_on, &chain, 0));
        srv_pool_free(chain.pool);
        assert_int_equal(atomic_load(&chain.runs), 101);
    }
    srv_pool_free(NULL);
}

/* --- jobs whose time comes later ------------------------------------------------------------------------ */

/* They run without another job to wake anybody, also one that is due before those that were delayed earlier;
 * and behind a job that was queued meanwhile. */
static void delayed_jobs_come(void **state) {
    (void)state;
    struct srv_pool *pool = new_pool(2, 8);
    struct gate gate = closed_gate, late = closed_gate;
    open_gate(&gate);
    assert_true(srv_pool_execute_after(pool, 3600 * INT64_C(1000000), wait_at, &late, 0));
    for (int i = 0; i < 3; i++) {
        assert_true(srv_pool_execute_after(pool, 20000, wait_at, &gate, 0));
        assert_true(srv_pool_execute_after(pool, 1000, wait_at, &gate, 0));
        await_arrivals(&gate, 2 * i + 2);
    }
    assert_int_equal(arrivals(&late), 0);
    open_gate(&late);
    srv_pool_free(pool); /* which runs what is not due yet */
    assert_int_equal(arrivals(&late), 1);
}

/* A worker that is busy does not keep the time: it hands that on. */
static void somebody_keeps_the_time(void **state) {
    (void)state;
    struct srv_pool *pool = new_pool(2, 8);
    struct gate busy = closed_gate, gate = closed_gate;
    open_gate(&gate);
    assert_true(srv_pool_execute_after(pool, 5000, wait_at, &gate, 0));
    assert_true(srv_pool_execute(pool, wait_at, &busy, 0));
    await_arrivals(&busy, 1);
    await_arrivals(&gate, 1);
    assert_true(srv_pool_execute_after(pool, 100, wait_at, &busy, 0)); /* takes the other one, too */
    await_arrivals(&busy, 2);
    assert_true(srv_pool_execute_after(pool, 100, wait_at, &gate, 0)); /* and nobody is idle */
    open_gate(&busy);
    await_arrivals(&gate, 2);
    srv_pool_free(pool);
}

/* A delayed job has its place in the queue. */
static void delayed_jobs_fill_the_queue(void **state) {
    (void)state;
    struct srv_pool *pool = new_pool(1, 2);
    struct gate gate = closed_gate;
    assert_true(srv_pool_execute_after(pool, 3600 * INT64_C(1000000), wait_at, &gate, 0));
    assert_true(srv_pool_execute_after(pool, 3600 * INT64_C(1000000), wait_at, &gate, 0));
    assert_false(srv_pool_execute_after(pool, 1, wait_at, &gate, 0));
    assert_false(srv_pool_execute(pool, wait_at, &gate, 0));
    open_gate(&gate);
    srv_pool_free(pool);
    assert_int_equal(arrivals(&gate), 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loops_do_each_turn_once),     cmocka_unit_test(jobs_may_spread_loops_at_once),
        cmocka_unit_test(idle_workers_help),           cmocka_unit_test(loops_need_no_help),
        cmocka_unit_test(a_full_queue_refuses),        cmocka_unit_test(long_jobs_leave_a_worker_free),
        cmocka_unit_test(nobody_sleeps_through_work),  cmocka_unit_test(the_end_waits_for_what_jobs_add),
        cmocka_unit_test(delayed_jobs_come),           cmocka_unit_test(somebody_keeps_the_time),
        cmocka_unit_test(delayed_jobs_fill_the_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
