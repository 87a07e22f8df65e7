/* Idempotency-Keys: a request that is sent again has one effect. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/service.h"

static struct test_service service;

#define LAYERS                                                                                               \
    "'seed': 3, 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear', 'out_features': 2}],"           \
    " 'loss': {'op': 'mse'}, 'optimizer': {'op': 'sgd', 'lr': 0.1}"
#define BATCH "'inputs': {'x': [[1, 2], [3, 4]]}, 'targets': {'y': [[0, 1], [1, 0]]}"

enum { KEYS = 12 };

static int start(int workers) {
    struct api_settings settings = {.limits = api_default_limits};
    settings.limits.keys = KEYS;
    settings.limits.key_ttl_ms = 1000;
    test_service_start(&service, &settings, workers);
    return 0;
}

static int setup(void **state) {
    (void)state;
    return start(0);
}

static int teardown(void **state) {
    (void)state;
    test_service_stop(&service);
    return 0;
}

static json_int_t integer(const json_t *json, const char *name) {
    return json_integer_value(json_object_get(json, name));
}

static json_t *ask(int status, const char *request, const char *key, const char *body) {
    struct test_request headers = {.idempotency_key = key};
    return test_ask(&service, status, request, &headers, body ? "%s" : NULL, body);
}

static void expect(int status, const char *request, const char *key, const char *body) {
    json_decref(ask(status, request, key, body));
}

static void check_slug(json_t *json, const char *slug) {
    char type[80];
    snprintf(type, sizeof type, API_PROBLEM_TYPE "%s", slug);
    assert_string_equal(json_string_value(json_object_get(json, "type")), type);
    json_decref(json);
}

static void make(const char *name) {
    json_decref(test_ask(&service, 201, "POST /models", NULL, "{'name': '%s', " LAYERS "}", name));
}

static json_int_t version(void) {
    json_t *json = ask(200, "GET /models/m", NULL, NULL);
    json_int_t v = integer(json, "version");
    json_decref(json);
    return v;
}

/* --- every change -------------------------------------------------------------------------------------- */

static const struct {
    const char *request, *body;
    int status;
} changes[] = {
    {"POST /models", "{'name': 'm', " LAYERS "}", 201},
    {"POST /backward", "{'model': 'm', 'apply': true, " BATCH "}", 200},
    {"POST /backward", "{'model': 'm', 'apply': {'lr': 0.5}, 'return': ['parameters', 'inputs'], " BATCH "}",
     200},
    {"POST /backward", "{'model': 'm', 'accumulate': true, " BATCH "}", 200},
    {"POST /step", "{'model': 'm'}", 200},
    {"PATCH /models/m", "{'optimizer': {'lr': 0.5}}", 200},
    {"PUT /models/m/parameters?partial=true", "{'parameters': {'0.bias': [0, 0]}}", 200},
    {"PUT /models/m/optimizer", "{'steps': 3, 'state': {}}", 200},
    {"POST /models/m/parameters", "{'from': 'm', 'tau': 0.5}", 200},
    {"DELETE /models/m/gradients", NULL, 200},
    {"DELETE /models/m", NULL, 200},
};
enum { CHANGES = sizeof changes / sizeof changes[0] };

/* The state that a client can see; it says so too that there is none. */
static json_t *seen(void) {
    static const char *const paths[] = {"GET /models", "GET /models/m", "GET /models/m/parameters",
                                        "GET /models/m/gradients", "GET /models/m/optimizer"};
    json_t *all = json_array();
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        json_array_append_new(all, test_ask(&service, 0, paths[i], NULL, NULL));
    return all;
}

/* The members of the first answer, but for its tensors, and that it is one again. */
static void check_replay(const json_t *first, json_t *again) {
    static const char *const maps[] = {"gradients", "input_gradients"};
    json_t *expected = json_deep_copy(first);
    for (size_t i = 0; i < sizeof maps / sizeof maps[0]; i++) json_object_del(expected, maps[i]);
    json_object_set_new(expected, "replayed", json_true());
    assert_true(json_equal(expected, again));
    json_decref(expected);
    json_decref(again);
}

static struct test_answer answer_of(const char *method, const char *path, const char *key, const char *accept,
                                    const char *body) {
    return test_request(&service, &(struct test_request){.method = method,
                                                         .path = path,
                                                         .accept = accept,
                                                         .idempotency_key = key,
                                                         .body = body,
                                                         .size = body ? strlen(body) : 0});
}

static void every_change(void **state) {
    (void)state;
    json_t *first[CHANGES];
    char key[40];
    for (int i = 0; i < CHANGES; i++) {
        snprintf(key, sizeof key, "change-%d", i);
        first[i] = ask(changes[i].status, changes[i].request, key, changes[i].body);
        assert_null(json_object_get(first[i], "replayed"));
        json_t *before = seen();
        for (int k = 0; k < 2; k++)
            check_replay(first[i], ask(changes[i].status, changes[i].request, key, changes[i].body));
        json_t *after = seen();
        assert_true(json_equal(before, after));
        json_decref(before);
        json_decref(after);
    }
    for (int i = 0; i < CHANGES; i++) { /* and still, when the model is long gone */
        snprintf(key, sizeof key, "change-%d", i);
        check_replay(first[i], ask(changes[i].status, changes[i].request, key, changes[i].body));
        json_decref(first[i]);
    }
    expect(404, "GET /models/m", NULL, NULL);
}

static void headers_too(void **state) {
    (void)state;
    static const char body[] = "{\"name\": \"m\", \"inputs\": {\"x\": {\"shape\": [2]}},"
                               " \"layers\": [{\"op\": \"linear\", \"out_features\": 2}]}";
    struct test_answer first = answer_of("POST", "/models", "k", NULL, body);
    struct test_answer again = answer_of("POST", "/models", "k", NULL, body);
    struct test_answer file = answer_of("POST", "/models", "k", "application/safetensors", body);
    assert_int_equal(first.status, 201);
    assert_int_equal(again.status, 201);
    assert_int_equal(file.status, 201);
    assert_string_equal(test_answer_header(&first, "Location"), "/models/m");
    assert_string_equal(test_answer_header(&again, "Location"), "/models/m");
    assert_string_equal(test_answer_header(&file, "Content-Type"), "application/safetensors");
    assert_non_null(memmem(file.body, file.size, "\"replayed\":\"true\"", 17));
    test_answer_free(&first);
    test_answer_free(&again);
    test_answer_free(&file);
}

/* --- refusals ------------------------------------------------------------------------------------------ */

static void another_payload(void **state) {
    (void)state;
    make("m");
    make("n");
    expect(200, "PUT /models/m/parameters?partial=true", "k", "{'parameters': {'0.bias': [0, 0]}}");
    static const struct {
        const char *request, *body;
    } others[] = {
        {"PUT /models/m/parameters?partial=true", "{'parameters': {'0.bias': [0, 1]}}"},
        {"PUT /models/m/parameters?partial=true", "{'parameters': {'0.bias': [0, 0]} }"},
        {"PUT /models/n/parameters?partial=true", "{'parameters': {'0.bias': [0, 0]}}"},
        {"PUT /models/m/parameters", "{'parameters': {'0.bias': [0, 0]}}"},
        {"POST /step", "{'model': 'm'}"},
        {"DELETE /models/m", NULL},
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        check_slug(ask(422, others[i].request, "k", others[i].body), "key-reused");
    expect(200, "PUT /models/m/parameters?partial=true", "k", "{'parameters': {'0.bias': [0, 0]}}");
    assert_int_equal(version(), 1);
}

static void not_a_key(void **state) {
    (void)state;
    char longest[130];
    make("m");
    memset(longest, 'k', sizeof longest);
    longest[129] = '\0';
    check_slug(ask(422, "POST /models/m/parameters", longest, "{'from': 'm', 'tau': 1}"), "invalid-value");
    check_slug(ask(422, "POST /models/m/parameters", "", "{'from': 'm', 'tau': 1}"), "invalid-value");
    check_slug(ask(422, "POST /models/m/parameters", "a b", "{'from': 'm', 'tau': 1}"), "invalid-value");
    check_slug(ask(422, "POST /models/m/parameters", "k\xc3\xa9y", "{'from': 'm', 'tau': 1}"),
               "invalid-value");
    longest[128] = '\0';
    expect(200, "POST /models/m/parameters", longest, "{'from': 'm', 'tau': 1}");
    expect(200, "POST /models/m/parameters", longest, "{'from': 'm', 'tau': 1}");
    assert_int_equal(version(), 1);
}

/* Reading has no effect, however it is called, and takes no key. */
static void reading(void **state) {
    (void)state;
    make("m");
    for (int i = 0; i < 2 * KEYS; i++) {
        char key[20];
        snprintf(key, sizeof key, "read-%d", i);
        expect(200, "GET /models/m", key, NULL);
        expect(200, "POST /backward", key, "{'model': 'm', 'apply': false, 'accumulate': false, " BATCH "}");
        expect(200, "POST /forward", key, "{'model': 'm', 'inputs': {'x': [[1, 2]]}}");
    }
}

/* An error changed nothing: the key is free again, whatever follows. */
static void errors_free(void **state) {
    (void)state;
    size_t before = api_memory_in_use(service.api);
    for (int i = 0; i < 3; i++) {
        check_slug(ask(404, "POST /backward", "k", "{'model': 'm', 'apply': true, " BATCH "}"), "not-found");
        check_slug(ask(422, "POST /models", "k", "{'name': 'm'}"), "invalid-value");
        check_slug(ask(404, "DELETE /models/m", "k", NULL), "not-found");
    }
    assert_int_equal(api_memory_in_use(service.api), before);
    make("m");
    check_slug(ask(409, "POST /step", "k", "{'model': 'm'}"), "nothing-accumulated");
    check_slug(ask(422, "POST /models/m/gradients", "k", "{'version': 0, 'gradients': {'0.bias': [1, 1]}}"),
               "invalid-value");
    struct test_request headers = {.idempotency_key = "k", .if_match = "\"x\""};
    check_slug(test_ask(&service, 412, "POST /models/m/parameters", &headers, "{'from': 'm', 'tau': 1}"),
               "stale");
    expect(200, "POST /models/m/parameters", "k", "{'from': 'm', 'tau': 1}");
    assert_int_equal(version(), 1);
}

/* --- in flight: a request that waits in a round ------------------------------------------------------------ */

static void submit(struct test_pending *pending, const char *key, const char *worker, const char *bias) {
    char body[300];
    snprintf(body, sizeof body,
             "{\"model\": \"m\", \"apply\": true, \"worker\": \"%s\", \"inputs\": {\"x\": [[1, 2]]},"
             " \"targets\": {\"y\": [[%s, 0]]}}",
             worker, bias);
    test_submit(&service, pending,
                &(struct test_request){.method = "POST",
                                       .path = "/backward",
                                       .idempotency_key = key,
                                       .body = body,
                                       .size = strlen(body)});
}

/* Its status; it has to be there. `json` NULL: of no interest. */
static int status_of(struct test_pending *pending, json_t **json, char retry[8]) {
    assert_true(atomic_load(&pending->done));
    struct test_answer answer = test_take(pending);
    const char *after = test_answer_header(&answer, "Retry-After");
    int status = answer.status;
    if (json) *json = json_loadb(answer.body, answer.size, 0, NULL);
    if (retry) snprintf(retry, 8, "%s", after ? after : "");
    test_answer_free(&answer);
    return status;
}

static void in_flight(void **state) {
    (void)state;
    struct test_pending first, again, other, last;
    char retry[8];
    json_t *json;
    make("m");
    expect(200, "PATCH /models/m", NULL, "{'aggregation': {'mode': 'sync', 'workers': 2}}");
    submit(&first, "a", "a", "1");
    submit(&again, "a", "a", "1");
    assert_int_equal(status_of(&again, &json, retry), 409);
    check_slug(json, "in-flight");
    assert_string_equal(retry, "1");
    submit(&other, "a", "a", "2");
    assert_int_equal(status_of(&other, &json, NULL), 422);
    check_slug(json, "key-reused");
    assert_false(atomic_load(&first.done));
    submit(&last, "b", "b", "1");
    assert_int_equal(status_of(&first, &json, NULL), 200);
    json_t *second;
    assert_int_equal(status_of(&last, &second, NULL), 200);

    /* Late as they are for their version: they have their answers. */
    submit(&again, "a", "a", "1");
    json_t *replayed;
    assert_int_equal(status_of(&again, &replayed, NULL), 200);
    check_replay(json, replayed);
    submit(&again, "b", "b", "1");
    assert_int_equal(status_of(&again, &replayed, NULL), 200);
    check_replay(second, replayed);
    json_decref(json);
    json_decref(second);
    assert_int_equal(version(), 1);
}

static void a_round_that_fails(void **state) {
    (void)state;
    struct test_pending pending[2];
    make("m");
    expect(200, "PATCH /models/m", NULL, "{'aggregation': {'mode': 'sync', 'workers': 2, 'timeout_ms': 10}}");
    submit(&pending[0], "a", "a", "1");
    atomic_fetch_add(&service.now_ms, 10);
    api_tick(service.api);
    assert_int_equal(status_of(&pending[0], NULL, NULL), 409);
    submit(&pending[0], "a", "a", "1"); /* free again */
    assert_false(atomic_load(&pending[0].done));
    submit(&pending[1], "b", "b", "1");
    for (int i = 0; i < 2; i++) assert_int_equal(status_of(&pending[i], NULL, NULL), 200);
    assert_int_equal(version(), 1);
}

/* --- bounds -------------------------------------------------------------------------------------------- */

static void blend(int status, const char *key) {
    expect(status, "POST /models/m/parameters", key, "{'from': 'm', 'tau': 1}");
}

static void full(void **state) {
    (void)state;
    char key[20];
    make("m");
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "key-%d", i);
        blend(200, key);
    }
    json_t *problem = ask(503, "POST /models/m/parameters", "one-more", "{'from': 'm', 'tau': 1}");
    check_slug(problem, "busy");
    for (int i = 0; i < KEYS; i++) { /* none was forgotten for it */
        snprintf(key, sizeof key, "key-%d", i);
        blend(200, key);
    }
    assert_int_equal(version(), KEYS);
    blend(200, NULL); /* without a key there is nothing to remember */
}

static void expiry(void **state) {
    (void)state;
    make("m");
    size_t without = api_memory_in_use(service.api);
    blend(200, "a");
    blend(200, NULL); /* so that all blocks are there */
    atomic_fetch_add(&service.now_ms, 500);
    blend(200, "b");
    atomic_fetch_add(&service.now_ms, 499);
    blend(200, "a");
    assert_int_equal(version(), 3);
    atomic_fetch_add(&service.now_ms, 1);
    blend(200, "a"); /* a new one */
    assert_int_equal(version(), 4);
    blend(200, "b");
    assert_int_equal(version(), 4);
    assert_true(api_memory_in_use(service.api) > without);
    atomic_fetch_add(&service.now_ms, 1000);
    api_tick(service.api); /* nobody has to come with another key */
    size_t after = api_memory_in_use(service.api);
    blend(200, "c");
    assert_true(api_memory_in_use(service.api) > after);
    atomic_fetch_add(&service.now_ms, 1000);
    api_tick(service.api);
    assert_int_equal(api_memory_in_use(service.api), after);
    expect(200, "DELETE /models/m", NULL, NULL);
    assert_int_equal(api_memory_in_use(service.api), 0);
}

/* --- the same keys from all sides ----------------------------------------------------------------------- */

enum { THREADS = 8, HAMMERED = 300 };
static atomic_int replays, unexpected;
static pthread_barrier_t barrier;

static void *hammer(void *arg) {
    int thread = *(int *)arg;
    char key[40], body[200];
    for (int i = 0; i < HAMMERED; i++) {
        snprintf(key, sizeof key, "hammered-%d", i);
        snprintf(body, sizeof body, "{\"parameters\": {\"0.bias\": [%d, 0]}}", i);
        if (i % 50 == 0) pthread_barrier_wait(&barrier);
        for (int status = 0; status != 200;) {
            struct test_answer answer =
                answer_of("PUT", "/models/m/parameters?partial=true", key, NULL, body);
            status = answer.status;
            if (status == 200 && strstr(answer.body, "\"replayed\":true")) atomic_fetch_add(&replays, 1);
            bool busy = status == 409 && strstr(answer.body, API_PROBLEM_TYPE "in-flight") &&
                        test_answer_header(&answer, "Retry-After");
            test_answer_free(&answer);
            if (status == 200 || busy) continue;
            atomic_fetch_add(&unexpected, 1);
            return NULL;
        }
        if (thread == 0 && i % 100 == 99) api_tick(service.api);
    }
    return NULL;
}

static void hammered(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    int numbers[THREADS];
    struct api_settings settings = {.limits = api_default_limits};
    test_service_start(&service, &settings, 4);
    make("m");
    assert_int_equal(pthread_barrier_init(&barrier, NULL, THREADS), 0);
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, &numbers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&barrier);
    assert_int_equal(atomic_load(&unexpected), 0);
    assert_int_equal(version(), HAMMERED);
    assert_int_equal(atomic_load(&replays), HAMMERED * (THREADS - 1));
    test_service_stop(&service);
}

int main(void) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_change),
        TEST(headers_too),
        TEST(another_payload),
        TEST(not_a_key),
        TEST(reading),
        TEST(errors_free),
        TEST(in_flight),
        TEST(a_round_that_fails),
        TEST(full),
        TEST(expiry),
        cmocka_unit_test(hammered),
    };
    nn_blas_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
