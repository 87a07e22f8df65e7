/* Buffers in rounds: what a round leaves is the mean of what each worker's replica would hold, by samples, against
 * PyTorch (tests/golden/rounds.json); whatever the gradients are reduced to, and whoever has seen nothing. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/service.h"

enum { WORKERS = 4 };
static const char *const names[WORKERS] = {"a", "b", "c", "d"};
static struct test_service service;

static int setup(void **state) {
    (void)state;
    test_service_start(&service, NULL, 0);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_service_stop(&service);
    return 0;
}

static void ask(int status, const char *request, json_t *body) {
    char *text = json_dumps(body, 0);
    json_decref(test_ask(&service, status, request, NULL, "%s", text));
    free(text);
    json_decref(body);
}

static void create(const json_t *golden, const char *reduce) {
    json_t *body = json_deep_copy(json_object_get(golden, "specification"));
    json_object_set_new(body, "aggregation",
                        json_pack("{s:s, s:i, s:s}", "mode", "sync", "workers", WORKERS, "reduce", reduce));
    ask(201, "POST /models", body);
    ask(200, "PUT /models/m/parameters", json_pack("{s:O}", "parameters", json_object_get(golden, "before")));
}

/* Worker i's batch, with members besides. */
static void contribute(struct test_pending *pending, const json_t *golden, int i, json_t *more) {
    json_t *body = json_deep_copy(json_array_get(json_object_get(golden, "batches"), (size_t)i));
    json_object_update(body, more);
    json_object_update_new(body,
                           json_pack("{s:s, s:b, s:s}", "model", "m", "apply", true, "worker", names[i]));
    char *text = json_dumps(body, 0);
    test_submit(
        &service, pending,
        &(struct test_request){.method = "POST", .path = "/backward", .body = text, .size = strlen(text)});
    free(text);
    json_decref(body);
    json_decref(more);
}

static void finish(struct test_pending *pending, json_t **answer) {
    struct test_answer got = test_take(pending);
    if (got.status != 200) fail_msg("%d: %s", got.status, got.body);
    if (answer) *answer = json_loadb(got.body, got.size, 0, NULL);
    test_answer_free(&got);
}

static double difference(const json_t *a, const json_t *b) {
    size_t i;
    json_t *item;
    double most = 0;
    if (!json_is_array(a)) return fabs(json_number_value(a) - json_number_value(b));
    assert_int_equal(json_array_size(a), json_array_size(b));
    json_array_foreach((json_t *)a, i, item) { most = fmax(most, difference(item, json_array_get(b, i))); }
    return most;
}

static void check(const json_t *expected, const char *prefix, double tolerance) {
    json_t *pulled = test_ask(&service, 200, "GET /models/m/parameters", NULL, NULL), *value;
    const json_t *parameters = json_object_get(pulled, "parameters");
    const char *name;
    json_object_foreach((json_t *)expected, name, value) {
        double off = difference(value, json_object_get(parameters, name));
        if (strncmp(name, prefix, strlen(prefix)) == 0 && !(off <= tolerance))
            fail_msg("%s is off by %g", name, off);
    }
    json_decref(pulled);
}

/* The first worker in the order of names has its gradient returned, and is added to in a copy. */
static void round_of(const json_t *golden, const char *reduce) {
    static const int order[WORKERS] = {2, 0, 3, 1};
    struct test_pending pending[WORKERS];
    json_t *answer;
    create(golden, reduce);
    for (int i = 0; i < WORKERS; i++)
        contribute(&pending[order[i]], golden, order[i],
                   order[i] ? json_object() : json_pack("{s:[s]}", "return", "parameters"));
    finish(&pending[0], &answer);
    for (int i = 1; i < WORKERS; i++) finish(&pending[i], NULL);
    const json_t *seen = json_object_get(json_object_get(answer, "buffers"), "bn.num_batches_tracked");
    assert_int_equal(json_integer_value(seen), 1);
    json_decref(answer);
}

static void rounds_are_means_of_replicas(void **state) {
    (void)state;
    size_t i;
    json_t *golden, *all = json_load_file("tests/golden/rounds.json", 0, NULL);
    assert_true(json_array_size(all) >= 2);
    json_array_foreach(all, i, golden) {
        round_of(golden, "mean");
        check(json_object_get(golden, "after"), "", 1e-12);
        json_decref(test_ask(&service, 200, "DELETE /models/m", NULL, NULL));
        round_of(golden, "sum");
        check(json_object_get(golden, "after"), "bn.running", 1e-12);
        json_decref(test_ask(&service, 200, "DELETE /models/m", NULL, NULL));
    }
    json_decref(all);
}

/* In eval mode a replica sees nothing, and keeps what it has. */
static void who_has_seen_nothing_counts(void **state) {
    (void)state;
    struct test_pending pending[WORKERS];
    json_t *all = json_load_file("tests/golden/rounds.json", 0, NULL), *golden = json_array_get(all, 0);
    const json_t *before = json_object_get(golden, "before");
    create(golden, "mean");
    for (int i = 0; i < WORKERS; i++) contribute(&pending[i], golden, i, json_pack("{s:s}", "mode", "eval"));
    for (int i = 0; i < WORKERS; i++) finish(&pending[i], NULL);
    check(before, "bn.running", 0);
    check(before, "bn.num", 0);
    for (int i = 0; i < WORKERS; i++)
        contribute(&pending[i], golden, i, json_pack("{s:s}", "mode", i == 1 ? "train" : "eval"));
    for (int i = 0; i < WORKERS; i++) finish(&pending[i], NULL);
    json_t *pulled = test_ask(&service, 200, "GET /models/m/parameters", NULL, NULL);
    const json_t *now = json_object_get(pulled, "parameters");
    assert_int_equal(json_integer_value(json_object_get(now, "bn.num_batches_tracked")), 4);
    assert_true(
        difference(json_object_get(before, "bn.running_var"), json_object_get(now, "bn.running_var")) > 1e-6);
    json_decref(pulled);
    json_decref(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rounds_are_means_of_replicas, setup, teardown),
        cmocka_unit_test_setup_teardown(who_has_seen_nothing_counts, setup, teardown),
    };
    nn_blas_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
