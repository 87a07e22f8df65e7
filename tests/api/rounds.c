/* Rounds: synchronous aggregation at a service without sockets, under a clock that the test moves. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/file.h"
#include "../support/service.h"

static struct test_service service;

#define LAYERS                                                                                               \
    "'seed': 3, 'inputs': {'x': {'shape': [3]}}, 'layers': [{'op': 'linear', 'out_features': 4},"            \
    " {'op': 'tanh'}, {'op': 'linear', 'out_features': 2}], 'loss': {'op': 'cross_entropy'}"
#define SGD "'optimizer': {'op': 'sgd', 'lr': 0.1, 'momentum': 0.9}"

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

static json_int_t integer(const json_t *json, const char *name) {
    return json_integer_value(json_object_get(json, name));
}

/* Requests without an answer that matters; and one member of an answer. */
static void ask(int status, const char *request, const char *body) {
    json_decref(test_ask(&service, status, request, NULL, body ? "%s" : NULL, body));
}

static json_int_t version_of(const char *model) {
    char request[80];
    snprintf(request, sizeof request, "GET /models/%s", model);
    json_t *json = test_ask(&service, 200, request, NULL, NULL);
    json_int_t version = integer(json, "version");
    json_decref(json);
    return version;
}

static void make(const char *name, const char *aggregation) {
    json_decref(test_ask(&service, 201, "POST /models", NULL, "{'name': '%s', " LAYERS ", " SGD "%s%s}", name,
                         aggregation ? ", 'aggregation': " : "", aggregation ? aggregation : ""));
}

static struct test_answer pull(const char *model) {
    char path[100];
    snprintf(path, sizeof path, "/models/%s/parameters", model);
    struct test_answer answer = test_request(
        &service, &(struct test_request){.method = "GET", .path = path, .accept = "application/safetensors"});
    assert_int_equal(answer.status, 200);
    return answer;
}

/* --- contributions ------------------------------------------------------------------------------------ */

/* A row of data, the same for the same number. */
static double element(int row, int column) { return sin(1.7 * row + 0.9 * column); }

static size_t write_rows(char *text, size_t room, int first, int rows) {
    size_t n = (size_t)snprintf(text, room, "\"inputs\": {\"x\": [");
    for (int i = 0; i < rows; i++)
        n += (size_t)snprintf(text + n, room - n, "%s[%.9g, %.9g, %.9g]", i ? "," : "", element(first + i, 0),
                              element(first + i, 1), element(first + i, 2));
    n += (size_t)snprintf(text + n, room - n, "]}, \"targets\": {\"y\": [");
    for (int i = 0; i < rows; i++)
        n += (size_t)snprintf(text + n, room - n, "%s%d", i ? "," : "", (first + i) % 2);
    return n + (size_t)snprintf(text + n, room - n, "]}");
}

/* A worker's request: rows first.. of the data, applied. `more`: members besides, each behind a comma. */
static void contribute(struct test_pending *pending, const char *model, const char *worker, int first,
                       int rows, const char *more) {
    char body[8192];
    size_t n =
        (size_t)snprintf(body, sizeof body, "{\"model\": \"%s\", \"apply\": true, \"worker\": \"%s\"%s, ",
                         model, worker, more ? more : "");
    n += write_rows(body + n, sizeof body - n, first, rows);
    snprintf(body + n, sizeof body - n, "}");
    test_submit(
        &service, pending,
        &(struct test_request){.method = "POST", .path = "/backward", .body = body, .size = strlen(body)});
}

static bool is_done(struct test_pending *pending) { return atomic_load(&pending->done); }

/* The document of an answer that has to be there; the caller's. */
static json_t *answer_of(struct test_pending *pending, int status) {
    assert_true(is_done(pending) || service.n_workers > 0);
    struct test_answer answer = test_take(pending);
    if (answer.status != status) fail_msg("%d instead of %d: %s", answer.status, status, answer.body);
    json_t *json = json_loadb(answer.body, answer.size, 0, NULL);
    assert_non_null(json);
    test_answer_free(&answer);
    return json;
}

static void check_problem(struct test_pending *pending, int status, const char *slug) {
    char type[80];
    json_t *json = answer_of(pending, status);
    snprintf(type, sizeof type, API_PROBLEM_TYPE "%s", slug);
    assert_string_equal(json_string_value(json_object_get(json, "type")), type);
    json_decref(json);
}

static void check_applied(struct test_pending *pending, json_int_t version, int contributions, int samples) {
    json_t *json = answer_of(pending, 200), *round = json_object_get(json, "round");
    assert_int_equal(integer(json, "applied_version"), version);
    assert_int_equal(integer(json, "version"), version - 1);
    assert_int_equal(integer(round, "contributions"), contributions);
    assert_int_equal(integer(round, "samples"), samples);
    json_decref(json);
}

static void forget(struct test_pending *pending) {
    struct test_answer answer = test_take(pending);
    test_answer_free(&answer);
}

/* --- what a round comes to ------------------------------------------------------------------------------ */

static const char *const names[] = {"a", "b", "c", "d"};

/* Four workers' round after round, in an order of their own each time; the parameters in the end. */
static struct test_answer train(const char *model, int rounds, unsigned order) {
    struct test_pending pending[4];
    make(model, "{'mode': 'sync', 'workers': 4}");
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < 4; i++) {
            int worker = (int)((unsigned)i * (order % 2 ? 3 : 1) + order / 2 * (unsigned)(round + 1)) % 4;
            contribute(&pending[worker], model, names[worker], 10 * round + 2 * worker, worker == 3 ? 4 : 2,
                       NULL);
        }
        for (int i = 0; i < 4; i++) check_applied(&pending[i], round + 1, 4, 10);
    }
    return pull(model);
}

/* Behind the header, which tells of an incarnation. */
static size_t data_of(const struct test_answer *file, const char **data) {
    uint64_t header;
    assert_true(file->size > sizeof header);
    memcpy(&header, file->body, sizeof header);
    *data = file->body + sizeof header + header;
    return file->size - sizeof header - header;
}

static void any_order(void **state) {
    (void)state;
    const char *data, *other;
    struct test_answer first = train("m", 20, 0);
    size_t size = data_of(&first, &data);
    assert_int_equal(size, 26 * sizeof(float));
    ask(200, "DELETE /models/m", NULL);
    for (unsigned order = 1; order < 8; order++) {
        struct test_answer again = train("m", 20, order);
        ask(200, "DELETE /models/m", NULL);
        assert_int_equal(data_of(&again, &other), size);
        assert_memory_equal(other, data, size);
        test_answer_free(&again);
    }
    test_answer_free(&first);
}

static size_t numbers_of(const json_t *json, double *out) {
    size_t n = 0;
    const char *name;
    json_t *value;
    if (json_is_number(json)) out[n++] = json_number_value(json);
    for (size_t i = 0; i < json_array_size(json); i++) n += numbers_of(json_array_get(json, i), out + n);
    json_object_foreach((json_t *)(uintptr_t)json, name, value) n += numbers_of(value, out + n);
    return n;
}

static size_t parameters(const char *model, double *out) {
    char request[100];
    snprintf(request, sizeof request, "GET /models/%s/parameters", model);
    json_t *json = test_ask(&service, 200, request, NULL, NULL);
    size_t n = numbers_of(json_object_get(json, "parameters"), out);
    json_decref(json);
    return n;
}

static void four_are_one(void **state) {
    (void)state;
    struct test_answer four = train("four", 200, 5);
    double a[64], b[64];
    test_answer_free(&four);
    make("one", NULL);
    for (int round = 0; round < 200; round++) {
        struct test_pending pending;
        contribute(&pending, "one", "a", 10 * round, 10, NULL);
        json_decref(answer_of(&pending, 200));
    }
    size_t n = parameters("four", a);
    assert_int_equal(parameters("one", b), n);
    assert_int_equal(n, 26);
    for (size_t i = 0; i < n; i++) assert_true(fabs(a[i] - b[i]) <= 1e-5);
    assert_int_equal(version_of("four"), 200);
}

/* Sums are the mean times the samples: with a rate so much smaller the same step. */
static void sums(void **state) {
    (void)state;
    struct test_pending pending[2];
    double a[64], b[64];
    make("sum", "{'mode': 'sync', 'workers': 2, 'reduce': 'sum'}");
    make("mean", "{'mode': 'sync', 'workers': 2}");
    ask(200, "PATCH /models/sum", "{'optimizer': {'lr': 0.05}}");
    for (int i = 0; i < 2; i++) contribute(&pending[i], "sum", names[i], 2 * i, 2, NULL);
    for (int i = 0; i < 2; i++) check_applied(&pending[i], 1, 2, 4);
    for (int i = 0; i < 2; i++) contribute(&pending[i], "mean", names[i], 2 * i, 2, NULL);
    for (int i = 0; i < 2; i++) check_applied(&pending[i], 1, 2, 4);
    size_t n = parameters("sum", a);
    parameters("mean", b);
    for (size_t i = 0; i < n; i++) assert_true(fabs(a[i] - b[i]) <= 1e-7);
}

/* Whoever asks for gradients gets its own, in whichever place its name is, and the round is the same. */
static void own_gradients(void **state) {
    (void)state;
    static const char wish[] = ", \"return\": [\"parameters\"]";
    struct test_pending alone[2], pending[2];
    make("m", "{'mode': 'sync', 'workers': 2}");
    make("plain", "{'mode': 'sync', 'workers': 2}");
    make("free", NULL);
    for (int i = 0; i < 2; i++) {
        char body[4096];
        size_t n = (size_t)snprintf(body, sizeof body, "{\"model\": \"free\", ");
        n += write_rows(body + n, sizeof body - n, 4 * i, 3);
        snprintf(body + n, sizeof body - n, "}");
        test_submit(&service, &alone[i],
                    &(struct test_request){
                        .method = "POST", .path = "/backward", .body = body, .size = strlen(body)});
    }
    for (int i = 0; i < 2; i++) contribute(&pending[i], "m", names[i], 4 * i, 3, wish);
    for (int i = 0; i < 2; i++) {
        json_t *expected = answer_of(&alone[i], 200), *got = answer_of(&pending[i], 200);
        assert_true(json_equal(json_object_get(expected, "gradients"), json_object_get(got, "gradients")));
        json_decref(expected);
        json_decref(got);
    }
    for (int i = 0; i < 2; i++) contribute(&pending[i], "plain", names[i], 4 * i, 3, NULL);
    for (int i = 0; i < 2; i++) check_applied(&pending[i], 1, 2, 6);
    double a[64], b[64];
    size_t n = parameters("m", a);
    parameters("plain", b);
    assert_memory_equal(a, b, n * sizeof *a);
}

/* --- pushed gradients ---------------------------------------------------------------------------------- */

/* A gradient of one parameter; samples 1. */
static void push(struct test_pending *pending, const char *model, const char *worker, json_int_t version,
                 const char *gradients, const char *more) {
    char body[1024], path[100], described[100];
    snprintf(described, sizeof described, "GET /models/%s", model);
    json_t *json = test_ask(&service, 200, described, NULL, NULL);
    snprintf(path, sizeof path, "/models/%s/gradients", model);
    snprintf(body, sizeof body, "{\"incarnation\": \"%s\", \"version\": %lld%s%s%s, \"gradients\": {%s}%s}",
             json_string_value(json_object_get(json, "incarnation")), (long long)version,
             worker ? ", \"worker\": \"" : "", worker ? worker : "", worker ? "\"" : "", gradients,
             more ? more : "");
    json_decref(json);
    test_submit(&service, pending,
                &(struct test_request){.method = "POST", .path = path, .body = body, .size = strlen(body)});
}

static double bias(const char *model) {
    double all[64];
    json_t *json = NULL;
    char request[100];
    snprintf(request, sizeof request, "GET /models/%s/parameters?names=2.bias", model);
    json = test_ask(&service, 200, request, NULL, NULL);
    assert_int_equal(numbers_of(json_object_get(json, "parameters"), all), 2);
    json_decref(json);
    return all[0];
}

static void pushes_weighed(void **state) {
    (void)state;
    struct test_pending pending[2];
    make("m", "{'mode': 'sync', 'workers': 2}");
    ask(200, "PATCH /models/m", "{'optimizer': {'op': 'sgd', 'lr': 1, 'momentum': null}}");
    double before = bias("m"), all[64], after[64];
    size_t n = parameters("m", all);
    push(&pending[0], "m", "w2", 0, "\"2.bias\": [4, 0]", ", \"samples\": 3");
    push(&pending[1], "m", "w1", 0, "\"2.bias\": [8, 0]", NULL);
    check_applied(&pending[0], 1, 2, 4);
    check_applied(&pending[1], 1, 2, 4);
    assert_true(fabs(bias("m") - (before - 5)) < 1e-6); /* (3 * 4 + 8) / 4 */
    parameters("m", after);
    for (size_t i = 0, moved = 0; i < n; i++) {
        moved += all[i] != after[i];
        assert_true(moved <= 1); /* what nobody named stays */
    }
}

/* As files; the requests wait without them. */
static void pushes_in_files(void **state) {
    (void)state;
    struct test_pending pending[2];
    make("m", "{'mode': 'sync', 'workers': 2}");
    ask(200, "PATCH /models/m", "{'optimizer': {'op': 'sgd', 'lr': 1, 'momentum': null}}");
    json_t *json = test_ask(&service, 200, "GET /models/m", NULL, NULL);
    double before = bias("m");
    size_t held = api_memory_in_use(service.api);
    for (int i = 0; i < 2; i++) {
        struct test_writer writer = {0};
        size_t size;
        test_write_text(&writer, "incarnation", json_string_value(json_object_get(json, "incarnation")));
        test_write_text(&writer, "version", "0");
        test_write_text(&writer, "samples", i ? "3" : "1");
        test_write_text(&writer, "worker", names[i]);
        test_write_f32(&writer, "gradients/2.bias", SHAPE(2), (const float[]){i ? 4 : 8, 0});
        unsigned char *file = test_write_end(&writer, &size);
        test_submit(&service, &pending[i],
                    &(struct test_request){.method = "POST",
                                           .path = "/models/m/gradients",
                                           .content_type = "application/safetensors",
                                           .accept = "application/json",
                                           .body = file,
                                           .size = size});
        free(file);
        if (i == 0) assert_true(api_memory_in_use(service.api) <= held + 1024);
    }
    json_decref(json);
    for (int i = 0; i < 2; i++) check_applied(&pending[i], 1, 2, 4);
    assert_true(fabs(bias("m") - (before - 5)) < 1e-6);
}

/* So many samples that their sum is beyond 64 bits are too many. */
static void endless_samples(void **state) {
    (void)state;
    struct test_pending pending;
    make("m", "{'mode': 'sync', 'workers': 2}");
    push(&pending, "m", "a", 0, "\"2.bias\": [1, 1]", ", \"samples\": 9007199254740991");
    check_problem(&pending, 422, "invalid-value");
}

/* --- refusals ------------------------------------------------------------------------------------------ */

static void refusals(void **state) {
    (void)state;
    struct test_pending waits, pending;
    make("m", "{'mode': 'sync', 'workers': 2}");
    contribute(&waits, "m", "a", 0, 2, NULL);
    assert_false(is_done(&waits));

    contribute(&pending, "m", "a", 2, 2, NULL);
    check_problem(&pending, 409, "round-twice");
    push(&pending, "m", "a", 0, "\"2.bias\": [1, 1]", NULL);
    check_problem(&pending, 409, "round-twice");
    push(&pending, "m", NULL, 0, "\"2.bias\": [1, 1]", NULL);
    check_problem(&pending, 422, "invalid-value");
    push(&pending, "m", "b", 1, "\"2.bias\": [1, 1]", NULL);
    check_problem(&pending, 422, "invalid-value");
    push(&pending, "m", "b", 0, "\"2.bias\": [1, 1]", ", \"apply\": {\"lr\": 0.5}");
    check_problem(&pending, 409, "not-in-a-round");
    ask(409, "POST /step", "{'model': 'm'}");
    push(&pending, "m", "no name/this", 0, "\"2.bias\": [1, 1]", NULL);
    check_problem(&pending, 422, "invalid-name");

    /* Accumulation goes on beside, and is no part of the round. */
    push(&pending, "m", NULL, 0, "\"2.bias\": [1, 1]", ", \"accumulate\": true");
    json_decref(answer_of(&pending, 200));
    assert_false(is_done(&waits));
    ask(409, "POST /step", "{'model': 'm'}");

    contribute(&pending, "m", "b", 2, 2, NULL);
    check_applied(&waits, 1, 2, 4);
    check_applied(&pending, 1, 2, 4);
    push(&pending, "m", "c", 0, "\"2.bias\": [1, 1]", NULL);
    check_problem(&pending, 412, "stale");
    json_t *json = test_ask(&service, 200, "GET /models/m/gradients", NULL, NULL);
    assert_int_equal(integer(json, "contributions"), 1);
    json_decref(json);
}

/* A worker that cannot take part is told before its batch is computed, which would come to nothing. */
static void refused_before_arithmetic(void **state) {
    (void)state;
    static const struct {
        const char *model, *member, *value;
    } cases[] = {{"free", "type", API_PROBLEM_TYPE "not-finite"}, {"m", "pointer", "/worker"}};
    make("m", "{'mode': 'sync', 'workers': 2}");
    make("free", NULL);
    for (int i = 0; i < 2; i++) {
        json_t *json = test_ask(&service, 422, "POST /backward", NULL,
                                "{'model': '%s', 'apply': true, 'inputs': {'x': [[1, 2, 3], [1, 2, 3]]},"
                                " 'upstream': {'2': [[3e38, 0], [3e38, 0]]}}",
                                cases[i].model);
        assert_string_equal(json_string_value(json_object_get(json, cases[i].member)), cases[i].value);
        json_decref(json);
    }
}

static void settings(void **state) {
    (void)state;
    static const char *const bad[] = {
        "1",
        "{}",
        "{'mode': 'sync'}",
        "{'mode': 'often'}",
        "{'mode': 'sync', 'workers': 0}",
        "{'mode': 'sync', 'workers': 2.5}",
        "{'mode': 'sync', 'workers': 2, 'quorum': 3}",
        "{'mode': 'sync', 'workers': 2, 'quorum': 0}",
        "{'mode': 'sync', 'workers': 2, 'timeout_ms': 0}",
        "{'mode': 'sync', 'workers': 2, 'reduce': 'max'}",
        "{'mode': 'sync', 'workers': 2, 'color': 'red'}",
    };
    make("m", NULL);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        json_decref(test_ask(&service, 422, "POST /models", NULL,
                             "{'name': 'n', " LAYERS ", " SGD ", 'aggregation': %s}", bad[i]));
        json_decref(test_ask(&service, 422, "PATCH /models/m", NULL, "{'aggregation': %s}", bad[i]));
    }
    ask(200, "PATCH /models/m", "{'aggregation': {'mode': 'sync', 'workers': 4}}");
    ask(422, "PATCH /models/m", "{'aggregation': {'quorum': 5}}");
    ask(200, "PATCH /models/m", "{'aggregation': {'quorum': 1, 'timeout_ms': 5}}");
    json_t *json = test_ask(&service, 200, "GET /models/m", NULL, NULL);
    assert_int_equal(integer(json_object_get(json, "round"), "missing"), 4);
    json_decref(json);
    ask(200, "PATCH /models/m", "{'aggregation': null}");
    json = test_ask(&service, 200, "GET /models/m", NULL, NULL);
    assert_true(json_is_null(json_object_get(json, "round")));
    json_decref(json);
}

/* --- time ---------------------------------------------------------------------------------------------- */

static void pass(int64_t ms) {
    atomic_fetch_add(&service.now_ms, ms);
    api_tick(service.api);
}

static void quorum(void **state) {
    (void)state;
    struct test_pending pending[3], late;
    make("m", "{'mode': 'sync', 'workers': 4, 'quorum': 3, 'timeout_ms': 1000}");
    for (int i = 0; i < 3; i++) {
        contribute(&pending[i], "m", names[i], 2 * i, 2, NULL);
        pass(100);
    }
    pass(699); /* since the first came */
    for (int i = 0; i < 3; i++) assert_false(is_done(&pending[i]));
    json_t *json = test_ask(&service, 200, "GET /models/m", NULL, NULL),
           *round = json_object_get(json, "round");
    assert_int_equal(integer(round, "version"), 0);
    assert_int_equal(integer(round, "missing"), 1);
    assert_int_equal(integer(round, "since_ms"), 999);
    assert_int_equal(json_array_size(json_object_get(round, "workers")), 3);
    assert_string_equal(json_string_value(json_array_get(json_object_get(round, "workers"), 2)), "c");
    json_decref(json);
    pass(1);
    for (int i = 0; i < 3; i++) check_applied(&pending[i], 1, 3, 6);
    push(&late, "m", "d", 0, "\"2.bias\": [1, 1]", NULL);
    check_problem(&late, 412, "stale");
    json = test_ask(&service, 200, "GET /models/m", NULL, NULL);
    assert_int_equal(integer(json_object_get(json, "round"), "missing"), 4);
    assert_int_equal(integer(json_object_get(json, "round"), "since_ms"), 0);
    json_decref(json);
}

static void time_out(void **state) {
    (void)state;
    struct test_pending pending[2];
    make("m", "{'mode': 'sync', 'workers': 4, 'quorum': 3, 'timeout_ms': 1000}");
    for (int again = 0; again < 3; again++) {
        contribute(&pending[0], "m", "a", 0, 2, NULL);
        pass(999);
        contribute(&pending[1], "m", "b", 2, 2, NULL);
        assert_false(is_done(&pending[0]));
        pass(1);
        for (int i = 0; i < 2; i++) check_problem(&pending[i], 409, "round-failed");
        assert_int_equal(version_of("m"), 0);
    }
    assert_int_equal(api_in_flight(service.api), 0);
}

/* The last worker of a quorum comes before the tick that would have ended the round without it. */
static void late_but_before_the_tick(void **state) {
    (void)state;
    struct test_pending pending[2];
    make("m", "{'mode': 'sync', 'workers': 3, 'quorum': 2, 'timeout_ms': 10}");
    contribute(&pending[0], "m", "a", 0, 2, NULL);
    atomic_fetch_add(&service.now_ms, 20);
    contribute(&pending[1], "m", "b", 2, 2, NULL);
    for (int i = 0; i < 2; i++) check_applied(&pending[i], 1, 2, 4);
}

/* --- what happens to the model meanwhile ----------------------------------------------------------------- */

static void meanwhile(void **state) {
    (void)state;
    static const struct {
        const char *request, *body;
        int status;
        const char *slug;
    } events[] = {
        {"PUT /models/m/parameters?partial=true", "{'parameters': {'2.bias': [0, 0]}}", 412, "stale"},
        {"POST /models/m/parameters", "{'from': 'other', 'tau': 0.5}", 412, "stale"},
        {"PATCH /models/m", "{'aggregation': {'mode': 'async'}}", 409, "round-failed"},
        {"PATCH /models/m", "{'aggregation': {'workers': 2}}", 409, "round-failed"},
        {"DELETE /models/m", NULL, 404, "not-found"},
    };
    make("other", NULL);
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
        struct test_pending pending[2];
        make("m", "{'mode': 'sync', 'workers': 3}");
        for (int k = 0; k < 2; k++) contribute(&pending[k], "m", names[k], 2 * k, 2, NULL);
        ask(200, events[i].request, events[i].body);
        for (int k = 0; k < 2; k++) check_problem(&pending[k], events[i].status, events[i].slug);
        ask(0, "DELETE /models/m", NULL);
    }
}

/* What leaves the round alone: other settings, reading, and a change that fails. */
static void nothing_to_it(void **state) {
    (void)state;
    struct test_pending pending[2];
    make("m", "{'mode': 'sync', 'workers': 2}");
    contribute(&pending[0], "m", "a", 0, 2, NULL);
    ask(200, "PATCH /models/m", "{'max_staleness': 3}");
    ask(200, "PATCH /models/m", "{'optimizer': {'lr': 0.2}}");
    ask(422, "PATCH /models/m", "{'aggregation': {'mode': 'sync', 'workers': 1, 'quorum': 2}}");
    ask(422, "PUT /models/m/parameters?partial=true", "{'parameters': {'2.bias': [0]}}");
    ask(200, "GET /models/m/optimizer", NULL);
    assert_false(is_done(&pending[0]));
    contribute(&pending[1], "m", "b", 0, 2, NULL);
    for (int i = 0; i < 2; i++) check_applied(&pending[i], 1, 2, 4);
}

static void without_optimizer(void **state) {
    (void)state;
    struct test_pending pending[2];
    make("m", "{'mode': 'sync', 'workers': 2}");
    contribute(&pending[0], "m", "a", 0, 2, NULL);
    ask(200, "PATCH /models/m", "{'optimizer': null}");
    assert_false(is_done(&pending[0]));
    contribute(&pending[1], "m", "b", 0, 2, NULL);
    check_problem(&pending[1], 409, "no-optimizer");
    pass(30000);
    check_problem(&pending[0], 409, "round-failed");
}

/* A contribution so great that a full round of such would overflow is refused by itself: the round goes on. */
static void overflow(void **state) {
    (void)state;
    struct test_pending great, pending[2];
    make("m", "{'mode': 'sync', 'workers': 2, 'reduce': 'sum'}");
    push(&pending[0], "m", names[0], 0, "\"2.bias\": [1, 0]", NULL);
    push(&great, "m", names[1], 0, "\"2.bias\": [3e38, 0]", NULL);
    check_problem(&great, 422, "not-finite");
    assert_int_equal(version_of("m"), 0);
    push(&pending[1], "m", names[1], 0, "\"2.bias\": [1, 0]", NULL);
    for (int i = 0; i < 2; i++) check_applied(&pending[i], 1, 2, 2);
}

static void stopping(void **state) {
    (void)state;
    struct test_pending enough[2], few, new;
    make("enough", "{'mode': 'sync', 'workers': 3, 'quorum': 2}");
    make("few", "{'mode': 'sync', 'workers': 3, 'quorum': 2}");
    for (int i = 0; i < 2; i++) contribute(&enough[i], "enough", names[i], 0, 2, NULL);
    contribute(&few, "few", "a", 0, 2, NULL);
    api_set_draining(service.api, true);
    contribute(&new, "few", "b", 0, 2, NULL);
    check_problem(&new, 503, "busy");
    api_tick(service.api);
    for (int i = 0; i < 2; i++) check_applied(&enough[i], 1, 2, 4);
    check_problem(&few, 409, "round-failed");
    assert_int_equal(api_in_flight(service.api), 0);
}

/* A context that a round uses up: not before the round has ended well. */
static void contexts(void **state) {
    (void)state;
    struct test_pending pending[2];
    char body[300];
    make("m", "{'mode': 'sync', 'workers': 2, 'timeout_ms': 100}");
    json_t *json = test_ask(&service, 200, "POST /forward", NULL,
                            "{'model': 'm', 'retain': true, 'inputs': {'x': [[1, 2, 3]]}}");
    snprintf(body, sizeof body,
             "{\"context\": \"%s\", \"targets\": {\"y\": [1]}, \"apply\": true, \"worker\": \"a\"}",
             json_string_value(json_object_get(json, "context")));
    json_decref(json);
    struct test_request request = {.method = "POST", .path = "/backward", .body = body, .size = strlen(body)};
    test_submit(&service, &pending[0], &request);
    pass(100);
    check_problem(&pending[0], 409, "round-failed");
    test_submit(&service, &pending[0], &request);
    contribute(&pending[1], "m", "b", 0, 3, NULL);
    for (int i = 0; i < 2; i++) check_applied(&pending[i], 1, 2, 4);
    test_submit(&service, &pending[0], &request);
    check_problem(&pending[0], 404, "not-found");
}

/* --- many ------------------------------------------------------------------------------------------------ */

static void two_models_and_thousands(void **state) {
    (void)state;
    enum { ROUNDS = 2000 };
    struct test_pending a[2], b[2];
    make("a", "{'mode': 'sync', 'workers': 2, 'quorum': 1, 'timeout_ms': 10}");
    make("b", "{'mode': 'sync', 'workers': 2}");
    size_t before = 0;
    for (int round = 0; round < ROUNDS; round++) {
        contribute(&a[0], "a", "x", round, 1, NULL);
        contribute(&b[1], "b", "y", round, 1, NULL);
        contribute(&b[0], "b", "x", round + 1, 1, NULL);
        for (int i = 0; i < 2; i++) check_applied(&b[i], round + 1, 2, 2);
        if (round % 2) {
            contribute(&a[1], "a", "y", round, 1, NULL);
            check_applied(&a[1], round + 1, 2, 2);
            check_applied(&a[0], round + 1, 2, 2);
        } else {
            pass(10);
            check_applied(&a[0], round + 1, 1, 1);
        }
        if (round == 10) before = api_memory_in_use(service.api);
    }
    assert_int_equal(api_memory_in_use(service.api), before);
    ask(200, "DELETE /models/a", NULL);
    ask(200, "DELETE /models/b", NULL);
    assert_int_equal(api_memory_in_use(service.api), 0);
}

/* More models' rounds are due at once than one tick ends. */
static void many_models(void **state) {
    (void)state;
    enum { MODELS = 50 };
    static struct test_pending pending[MODELS];
    char name[16];
    for (int i = 0; i < MODELS; i++) {
        snprintf(name, sizeof name, "m%d", i);
        make(name, "{'mode': 'sync', 'workers': 2, 'timeout_ms': 10}");
        contribute(&pending[i], name, "a", 0, 1, NULL);
    }
    pass(10);
    for (int i = 0; i < MODELS; i++) api_tick(service.api);
    for (int i = 0; i < MODELS; i++) check_problem(&pending[i], 409, "round-failed");
}

/* Many more workers wait than there are threads, and others are served meanwhile. */
static void no_thread_waits(void **state) {
    (void)state;
    enum { WORKERS = 64 };
    static struct test_pending pending[WORKERS];
    char name[16];
    test_service_stop(&service);
    test_service_start(&service, NULL, 2);
    make("m", "{'mode': 'sync', 'workers': 64}");
    make("other", NULL);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < WORKERS - 1; i++) {
            snprintf(name, sizeof name, "w%d", i);
            contribute(&pending[i], "m", name, i, 1, NULL);
            ask(200, "GET /models/m", NULL);
        }
        struct test_pending other;
        contribute(&other, "other", "a", 0, 2, NULL);
        json_decref(answer_of(&other, 200));
        for (int i = 0; i < WORKERS - 1; i++) assert_false(is_done(&pending[i]));
        contribute(&pending[WORKERS - 1], "m", "last", 0, 1, NULL);
        for (int i = 0; i < WORKERS; i++) check_applied(&pending[i], round + 1, WORKERS, WORKERS);
    }
}

/* The tick leaves a round that is due to the service's threads. */
static void due_on_threads(void **state) {
    (void)state;
    struct test_pending pending[2];
    test_service_stop(&service);
    test_service_start(&service, NULL, 2);
    make("m", "{'mode': 'sync', 'workers': 3, 'quorum': 1, 'timeout_ms': 10}");
    for (int round = 0; round < 100; round++) {
        json_int_t at = version_of("m");
        for (int i = 0; i < 2; i++) contribute(&pending[i], "m", names[i], i, 1, NULL);
        do pass(10);
        while (!is_done(&pending[0]) || !is_done(&pending[1]));
        for (int i = 0; i < 2; i++) forget(&pending[i]);
        json_int_t made = version_of("m") - at; /* one round, or two, or one came late for the other's */
        assert_true(made == 1 || made == 2);
    }
}

int main(void) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(any_order),
        TEST(four_are_one),
        TEST(sums),
        TEST(own_gradients),
        TEST(pushes_weighed),
        TEST(pushes_in_files),
        TEST(endless_samples),
        TEST(refusals),
        TEST(refused_before_arithmetic),
        TEST(settings),
        TEST(quorum),
        TEST(time_out),
        TEST(late_but_before_the_tick),
        TEST(meanwhile),
        TEST(nothing_to_it),
        TEST(without_optimizer),
        TEST(overflow),
        TEST(stopping),
        TEST(contexts),
        TEST(two_models_and_thousands),
        TEST(many_models),
        TEST(no_thread_waits),
        TEST(due_on_threads),
    };
    nn_blas_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
