/* Requests whose peer leaves while they are served, and a service that ends: passes are given up between two nodes, and
 * nothing is left of them; what has begun to change a model is done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/service.h"

static struct test_service service;

/* A peer that leaves when it has been looked for so often. */
static int patience;
static bool leaves(void *pending) {
    (void)pending;
    return patience-- <= 0;
}
static bool stays(void *pending) {
    (void)pending;
    return false;
}

static void make(void) {
    json_decref(test_ask(&service, 201, "POST /models", NULL,
                         "{'name': 'm', 'seed': 1, 'inputs': {'x': {'shape': [3]}},"
                         " 'layers': [{'op': 'linear', 'out_features': 4}, {'op': 'tanh'},"
                         "            {'op': 'linear', 'out_features': 4}, {'op': 'softmax'},"
                         "            {'op': 'linear', 'out_features': 2}],"
                         " 'loss': {'op': 'mse'}, 'optimizer': {'op': 'sgd', 'lr': 0.1, 'momentum': 0.9}}"));
}

static json_t *submit(const char *path, const char *body, const char *key, bool (*left)(void *pending),
                      int *status) {
    char *text = strdup(body);
    assert_non_null(text);
    for (char *c = text; *c; c++)
        if (*c == '\'') *c = '"';
    struct test_pending pending;
    test_submit(&service, &pending,
                &(struct test_request){.method = "POST",
                                       .path = path,
                                       .content_type = "application/json",
                                       .idempotency_key = key,
                                       .body = text,
                                       .size = strlen(text),
                                       .left = left});
    struct test_answer answer = test_take(&pending);
    json_t *json = json_loadb(answer.body, answer.size, 0, NULL);
    assert_non_null(json);
    *status = answer.status;
    test_answer_free(&answer);
    free(text);
    return json;
}

static json_t *state_of_model(void) { return test_ask(&service, 200, "GET /models/m", NULL, NULL); }
static json_t *optimizer(void) { return test_ask(&service, 200, "GET /models/m/optimizer", NULL, NULL); }

#define INPUTS  "'inputs': {'x': [[1, 2, 3], [4, 5, 6]]}"
#define TARGETS "'targets': {'y': [[1, 2], [3, 4]]}"

/* Wherever the peer leaves, the model and the memory are as before, and the key is free; who stays is served. */
static void nothing_is_left_of_it(void **state) {
    (void)state;
    static const struct {
        const char *path, *body;
        int nodes; /* at the least, before each of which it can be given up */
    } cases[] = {
        {"/forward", "{'model': 'm', " INPUTS "}", 4},
        {"/forward", "{'model': 'm', " INPUTS ", 'retain': true}", 4},
        {"/backward", "{'model': 'm', " INPUTS ", " TARGETS "}", 9},
        {"/backward", "{'model': 'm', " INPUTS ", " TARGETS ", 'accumulate': true}", 9},
        {"/backward", "{'model': 'm', " INPUTS ", " TARGETS ", 'apply': true}", 9},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int status = 0, n = 0;
        test_service_start(&service, NULL, 0);
        make();
        json_t *model = state_of_model(), *slots = optimizer();
        const size_t memory = api_memory_in_use(service.api);
        for (; n < 100 && status != 200; n++) {
            patience = n;
            json_decref(submit(cases[i].path, cases[i].body, "k1", leaves, &status));
            if (status == 200) break;
            assert_int_equal(status, 499);
            json_t *now = state_of_model(), *slots_now = optimizer();
            assert_true(json_equal(now, model));
            assert_true(json_equal(slots_now, slots));
            assert_int_equal(api_memory_in_use(service.api), memory);
            json_decref(now);
            json_decref(slots_now);
        }
        assert_in_range(n, cases[i].nodes, 99);
        json_decref(model);
        json_decref(slots);
        test_service_stop(&service);
    }
}

/* A pass over a tape that was kept uses nothing up. */
static void a_context_is_there_still(void **state) {
    (void)state;
    int status;
    char body[256];
    test_service_start(&service, NULL, 0);
    make();
    json_t *kept = submit("/forward", "{'model': 'm', " INPUTS ", 'retain': true}", NULL, stays, &status);
    assert_int_equal(status, 200);
    snprintf(body, sizeof body, "{'context': '%s', " TARGETS "}",
             json_string_value(json_object_get(kept, "context")));
    json_decref(kept);
    for (int n = 0; n < 5; n++) {
        patience = n;
        json_decref(submit("/backward", body, NULL, leaves, &status));
        assert_int_equal(status, 499);
    }
    json_decref(submit("/backward", body, NULL, stays, &status));
    assert_int_equal(status, 200);
    test_service_stop(&service);
}

/* A pass ahead of it may be given up; the change itself is not, whoever has left. */
static void a_change_is_made(void **state) {
    (void)state;
    int status;
    test_service_start(&service, NULL, 0);
    make();
    patience = 0;
    char body[256];
    json_t *before = state_of_model();
    snprintf(body, sizeof body, "{'gradients': {'4.bias': [1, 1]}, 'version': 0, 'incarnation': '%s'}",
             json_string_value(json_object_get(before, "incarnation")));
    json_decref(before);
    json_decref(submit("/models/m/gradients", body, NULL, leaves, &status));
    assert_int_equal(status, 200);
    json_t *model = state_of_model();
    assert_int_equal(json_integer_value(json_object_get(model, "version")), 1);
    json_decref(model);
    test_service_stop(&service);
}

/* --- the end of the service ---------------------------------------------------------------------------------- */

static void nothing_is_begun_any_more(void **state) {
    (void)state;
    static const struct {
        const char *path, *body;
    } cases[] = {
        {"/forward", "{'model': 'm', " INPUTS "}"},
        {"/backward", "{'model': 'm', " INPUTS ", " TARGETS ", 'apply': true}"},
        {"/models", "{'name': 'n', 'inputs': {'x': {'shape': [3]}}, 'layers': [{'op': 'relu'}]}"},
    };
    int status;
    test_service_start(&service, NULL, 0);
    make();
    const size_t memory = api_memory_in_use(service.api);
    api_set_ending(service.api);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *problem = submit(cases[i].path, cases[i].body, NULL, stays, &status);
        assert_int_equal(status, 503);
        assert_string_equal(json_string_value(json_object_get(problem, "detail")), "the service is stopping");
        json_decref(problem);
    }
    assert_int_equal(api_memory_in_use(service.api), memory);
    assert_int_equal(api_in_flight(service.api), 0);
    test_service_stop(&service);
}

/* It ends while a request is at its pass, and before a change is begun. */
static bool ends_meanwhile(void *pending) {
    (void)pending;
    if (patience-- == 0) api_set_ending(service.api);
    return false;
}

static void what_is_at_work_is_given_up(void **state) {
    (void)state;
    for (int n = 0; n < 9; n++) {
        int status;
        test_service_start(&service, NULL, 0);
        make();
        const size_t memory = api_memory_in_use(service.api);
        patience = n;
        json_decref(submit("/backward", "{'model': 'm', " INPUTS ", " TARGETS ", 'apply': true}", NULL,
                           ends_meanwhile, &status));
        assert_int_equal(status, 503);
        assert_int_equal(api_memory_in_use(service.api), memory);
        test_service_stop(&service);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_left_of_it),
        cmocka_unit_test(a_context_is_there_still),
        cmocka_unit_test(a_change_is_made),
        cmocka_unit_test(nothing_is_begun_any_more),
        cmocka_unit_test(what_is_at_work_is_given_up),
    };
    nn_blas_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
