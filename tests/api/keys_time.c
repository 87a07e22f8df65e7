/* How old a key is after a start: by the time in which the service was there, whatever clocks were set to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../api/change/effect_inside.h"
#include "../../api/request/service.h"
#include "../support/journal.h"

static struct test_service service;
static struct test_journal journal;

#define TTL  ((int64_t)300 * 1000)
#define YEAR (INT64_C(366) * 24 * 3600 * 1000)
#define STEP "{'model': 'm', 'apply': true, 'inputs': {'x': [[1]]}, 'targets': {'y': [[1]]}}"

static int setup(void **state) {
    (void)state;
    test_journal_init(&journal);
    test_service_start_stored(&service, NULL, 0, &journal.store);
    json_decref(test_ask(&service, 201, "POST /models", NULL,
                         "{'name': 'm', 'seed': 1, 'durability': 'journal', 'inputs': {'x': {'shape': [1]}},"
                         " 'layers': [{'op': 'linear', 'out_features': 1}], 'loss': {'op': 'mse'},"
                         " 'optimizer': {'op': 'sgd', 'lr': 0.1}}"));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_service_stop(&service);
    test_journal_fini(&journal);
    return 0;
}

static void pass(struct test_service *of, int64_t ms) { atomic_fetch_add(&of->now_ms, ms); }
static void set_clock(struct test_service *of, int64_t ms) { atomic_store(&of->wall_set_ms, ms); }

/* A step with a key (NULL: without one); whether it is one that was made before. */
static bool step(struct test_service *of, const char *key) {
    json_t *json = test_ask(of, 200, "POST /backward", &(struct test_request){.idempotency_key = key}, STEP);
    bool replayed = json_is_true(json_object_get(json, "replayed"));
    json_decref(json);
    return replayed;
}

/* Starts on what the journal has, with a clock that is off by so much. */
static void start(struct test_recovered *other, bool checkpoint, int64_t off_ms) {
    struct nn_error err = {0};
    test_journal_init(&other->journal);
    test_service_start_stored(&other->service, NULL, 0, &other->journal.store);
    set_clock(&other->service, off_ms);
    pass(&other->service, 77); /* a process begins at any time */
    if (test_journal_recover(&journal, other->service.api, checkpoint, journal.n, &err))
        fail_msg("%s", err.text);
}

static bool knows_after(bool checkpoint, int64_t off_ms, int64_t later_ms, const char *key) {
    struct test_recovered other;
    start(&other, checkpoint, off_ms);
    pass(&other.service, later_ms);
    bool knows = step(&other.service, key);
    test_recovered_stop(&other);
    return knows;
}

/* A machine boots with an old clock, or one that leapt, before or after the change. */
static void a_clock_that_was_set_forgets_nothing(void **state) {
    (void)state;
    static const int64_t offs[] = {0, -50 * YEAR, -YEAR, -TTL - 1, TTL + 1, YEAR, 50 * YEAR};
    for (size_t i = 0; i < sizeof offs / sizeof offs[0]; i++) {
        char key[24];
        snprintf(key, sizeof key, "key-%zu", i);
        set_clock(&service, offs[i]);
        assert_false(step(&service, key));
        set_clock(&service, 0);
        for (int checkpoint = 0; checkpoint < 2; checkpoint++) {
            if (checkpoint) test_journal_checkpoint(&journal, service.api);
            for (size_t k = 0; k < sizeof offs / sizeof offs[0]; k++)
                if (!knows_after(checkpoint, offs[k], TTL - 1, key))
                    fail_msg("checkpoint %d: made at %lld, it is made again at %lld", checkpoint,
                             (long long)offs[i], (long long)offs[k]);
        }
    }
}

/* And it expires nevertheless. */
static void what_is_left_of_its_time(void **state) {
    (void)state;
    step(&service, "k");
    assert_true(knows_after(false, YEAR, TTL - 1, "k"));
    assert_false(knows_after(false, -YEAR, TTL, "k"));

    /* The next record tells that it was 100 seconds old by then. */
    pass(&service, 100000);
    step(&service, NULL);
    assert_true(knows_after(false, 0, TTL - 100001, "k"));
    assert_false(knows_after(false, 0, TTL - 100000, "k"));

    /* And so does a checkpoint, 150 seconds later. */
    pass(&service, 50000);
    test_journal_checkpoint(&journal, service.api);
    assert_true(knows_after(true, 0, TTL - 150001, "k"));
    assert_false(knows_after(true, 0, TTL - 150000, "k"));

    pass(&service, TTL - 150000);
    step(&service, NULL);
    assert_false(knows_after(false, -YEAR, 0, "k"));
    test_journal_checkpoint(&journal, service.api);
    assert_false(knows_after(true, -YEAR, 0, "k"));
}

/* What one start has of it is what the next one has: while nobody can ask, a key grows no older. */
static void over_several_starts(void **state) {
    (void)state;
    struct test_recovered other;
    step(&service, "k");
    pass(&service, 100000);
    step(&service, NULL);
    pass(&service, 7 * TTL); /* behind the last record nothing is known */
    start(&other, false, 0);
    pass(&other.service, 100000);
    test_journal_checkpoint(&journal, other.service.api);
    journal.saved[0].seq = journal.n; /* the other one counts records of its own */
    test_recovered_stop(&other);
    assert_true(knows_after(true, YEAR, TTL - 200001, "k"));
    assert_false(knows_after(true, -YEAR, TTL - 200000, "k"));
}

/* Records of processes, as life and time; how much a key of the first one has aged. */
static void time_is_never_counted_twice(void **state) {
    (void)state;
    static const struct {
        struct {
            int64_t life, alive;
        } records[8];
        int64_t counted;
    } cases[] = {
        {{{1, 10}, {1, 30}}, 20},
        {{{1, 10}, {1, 30}, {1, 29}, {1, 31}, {1, 30}, {1, 32}}, 22}, /* of two models, out of their order */
        {{{1, 10}, {2, 5}}, 5},
        {{{1, 10}, {2, 50}, {2, 60}}, 60},
        {{{1, 10}, {1, -5}, {1, 10}}, 0},
        {{{1, 10}, {1, INT64_MAX}, {2, INT64_MAX}, {3, INT64_MAX}, {4, INT64_MAX}, {5, INT64_MAX}},
         INT64_MAX / 4 - 10},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct test_service other;
        struct nn_error err = {0};
        test_service_start_stored(&other, NULL, 0, &journal.store);
        api_recover_begin(other.api);
        int64_t first = 0;
        for (int k = 0; k < 8 && (k == 0 || cases[i].records[k].life || cases[i].records[k + 1].life); k++) {
            json_t *time = json_pack("{s:I, s:I}", "life", (json_int_t)cases[i].records[k].life, "alive",
                                     (json_int_t)cases[i].records[k].alive);
            api_effects_pass(other.api, time);
            json_decref(time);
            if (k == 0) first = api_effects_now(other.api);
        }
        api_effects_pass(other.api, NULL);
        assert_int_equal(api_effects_now(other.api) - first, cases[i].counted);
        assert_int_equal(api_recover_end(other.api, false, &err), NN_OK);
        test_service_stop(&other);
    }
}

int main(void) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_clock_that_was_set_forgets_nothing),
        TEST(what_is_left_of_its_time),
        TEST(over_several_starts),
        TEST(time_is_never_counted_twice),
    };
    nn_blas_init();
    return cmocka_run_group_tests_name("keys_time", tests, NULL, NULL);
}
