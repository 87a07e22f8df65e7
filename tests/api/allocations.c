/* Memory that runs out, one allocation at a time: every step of a scenario is repeated with its first, its
 * second, its third ... allocation failing, and then with all from that one on. Each time the answer is the
 * right one, or a 503, or none at all; what failed has changed nothing, not even the number of allocations
 * that live, so that the next attempt can be held against the answer of an undisturbed run, byte by byte. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/malloc.h"
#include "../support/service.h"

/* --- the service ----------------------------------------------------------------------------------- */

#define LONG_NAME "a-layer-whose-name-is-longer-than-sixteen-bytes"
#define INPUTS    "\"inputs\": {\"x\": [[1, -2, 3], [0.5, 0, -1.25]], \"id\": [3, 0]}"
#define TARGETS   "\"targets\": {\"y\": [2, 0], \"w\": [1, 0.5], \"t\": [[1, 2], [3, 4]]}"
#define JSON      "application/json"
#define TENSORS   "application/safetensors"

static const char specification[] =
    "{\"name\": \"m\", \"seed\": 7,"
    " \"inputs\": {\"x\": {\"shape\": [3]}, \"id\": {\"shape\": [], \"dtype\": \"I64\"}},"
    " \"layers\": [{\"op\": \"embedding\", \"num_embeddings\": 4, \"embedding_dim\": 2, \"name\": \"e\","
    "               \"inputs\": [\"id\"]},"
    "              {\"op\": \"concat\", \"inputs\": [\"x\", \"e\"]},"
    "              {\"op\": \"linear\", \"out_features\": 4}, {\"op\": \"relu\"},"
    "              {\"op\": \"dropout\", \"p\": 0.5},"
    "              {\"op\": \"linear\", \"out_features\": 3, \"name\": \"" LONG_NAME "\"},"
    "              {\"op\": \"batch_norm\", \"name\": \"bn\"},"
    "              {\"op\": \"linear\", \"out_features\": 3, \"inputs\": [\"4\"], \"name\": \"tie\","
    "               \"tied\": {\"weight\": \"" LONG_NAME ".weight\"}},"
    "              {\"op\": \"linear\", \"out_features\": 2, \"inputs\": [\"4\"], \"name\": \"head\","
    "               \"trainable\": false}],"
    " \"outputs\": [\"" LONG_NAME "\", \"head\"],"
    " \"loss\": [{\"op\": \"cross_entropy\", \"input\": \"" LONG_NAME "\", \"label_smoothing\": 0.1,"
    "            \"weight\": [1, 2, 3], \"sample_weight\": \"w\"},"
    "           {\"op\": \"mse\", \"target\": \"t\", \"scale\": 0.5, \"reduction\": \"sum\"}],"
    " \"optimizer\": {\"op\": \"adam\", \"lr\": 0.01, \"betas\": [0.9, 0.99], \"clip_grad_norm\": 1}}";

#define APPLY "{\"model\": \"m\", " INPUTS ", " TARGETS ", \"apply\": true, \"seed\": 3}"

/* A body of NULL with a method that needs one: the last step's answer, sent back. "$" in a path or body: the
 * last context. A third word of the request is its Idempotency-Key. */
static const struct step {
    const char *request, *accept, *body;
    int status;
} steps[] = {
    {"GET /healthz", JSON, NULL, 200},
    {"GET /readyz", JSON, NULL, 200},
    {"GET /metrics", JSON, NULL, 200},
    {"POST /models", JSON, specification, 201},
    {"POST /models", JSON, specification, 409},
    {"GET /models", JSON, NULL, 200},
    {"GET /models", TENSORS, NULL, 200},
    {"GET /models/m", JSON, NULL, 200},
    {"GET /models/nobody", JSON, NULL, 404},
    {"POST /forward", JSON, "{\"model\": \"m\", " INPUTS "}", 200},
    {"POST /forward", JSON, "{\"model\": \"m\", \"\\u0069nputs\": {\"x\": [[1, 2, 3]], \"id\": [1]}}", 200},
    {"POST /forward", JSON, "{\"model\": \"m\", \"inputs\": {\"x\": [[1, 2, 3]], \"id\": [1, 2]}}", 422},
    {"POST /forward", TENSORS,
     "{\"model\": \"m\", " INPUTS ", \"dtype\": \"F16\", \"outputs\": [\"3\", \"id\"]}", 200},
    {"POST /forward", JSON,
     "{\"model\": \"m\", \"inputs\": {\"x\": {\"dtype\": \"U8\", \"shape\": [1, 3], \"base64\": \"AQID\"},"
     " \"id\": [1]}, \"mode\": \"train\", \"dtype\": \"BF16\"}",
     200},
    {"POST /forward", JSON, "{\"model\": \"m\", " INPUTS ", \"retain\": true}", 200},
    {"GET /contexts", JSON, NULL, 200},
    {"GET /contexts/$", JSON, NULL, 200},
    {"POST /backward", JSON,
     "{\"context\": \"$\", " TARGETS ", \"retain\": true,"
     " \"return\": [\"parameters\", \"inputs\", \"nodes\", \"outputs\"]}",
     200},
    {"POST /backward", TENSORS,
     "{\"context\": \"$\", " TARGETS
     ", \"upstream\": {\"3\": [[1, 2, 3, 4], [5, 6, 7, 8]]}, \"dtype\": \"F64\","
     " \"retain\": true, \"return\": [\"parameters\", \"inputs\", \"nodes\", \"outputs\"]}",
     200},
    {"POST /backward", JSON, "{\"context\": \"$\", " TARGETS ", \"apply\": true}", 200},
    {"POST /backward", JSON, "{\"context\": \"$\", " TARGETS ", \"apply\": true}", 404},
    {"POST /forward", JSON, "{\"model\": \"m\", " INPUTS ", \"retain\": true}", 200},
    {"DELETE /contexts/$", JSON, NULL, 200},
    {"POST /backward", JSON, "{\"model\": \"m\", " INPUTS ", " TARGETS ", \"apply\": {\"lr\": 0.1}}", 200},
    {"POST /backward", TENSORS,
     "{\"model\": \"m\", " INPUTS ", " TARGETS ", \"apply\": true, \"return\": [\"parameters\"]}", 200},
    {"POST /step", JSON, "{\"model\": \"m\"}", 409},
    {"POST /backward", JSON, "{\"model\": \"m\", " INPUTS ", " TARGETS ", \"accumulate\": true}", 200},
    {"POST /backward", JSON,
     "{\"model\": \"m\", " INPUTS ", " TARGETS ", \"accumulate\": {\"scale\": 2},"
     " \"return\": [\"inputs\"], \"normalizer\": [2, 3], \"seed\": 3}",
     200},
    {"POST /step", JSON, "{\"model\": \"m\", \"mean\": true}", 200},
    {"GET /models/m/parameters", JSON, NULL, 200},
    {"PUT /models/m/parameters", JSON, NULL, 200},
    {"GET /models/m/parameters?dtype=F64", TENSORS, NULL, 200},
    {"PUT /models/m/parameters", TENSORS, NULL, 200},
    {"PUT /models/m/parameters?partial=true", JSON, "{\"parameters\": {\"" LONG_NAME ".bias\": [1, 2, 3]}}",
     200},
    {"PUT /models/m/parameters", JSON, "{\"parameters\": {\"" LONG_NAME ".bias\": [1, 2, 3]}}", 422},
    {"GET /models/m/optimizer", JSON, NULL, 200},
    {"PUT /models/m/optimizer", JSON, NULL, 200},
    {"GET /models/m/optimizer?dtype=F64", TENSORS, NULL, 200},
    {"PUT /models/m/optimizer", TENSORS, NULL, 200},
    /* keys */
    {"POST /backward k1", JSON, APPLY, 200},
    {"POST /backward k1", JSON, APPLY, 200},
    {"POST /step k1", JSON, "{\"model\": \"m\"}", 422},
    {"POST /models/m/parameters k2", JSON, "{\"from\": \"m\", \"tau\": 0.5}", 200},
    {"POST /models k3", JSON,
     "{\"name\": \"n\", \"inputs\": {\"x\": {\"shape\": [1]}}, \"layers\": [{\"op\": \"relu\"}]}", 201},
    {"POST /models k3", TENSORS,
     "{\"name\": \"n\", \"inputs\": {\"x\": {\"shape\": [1]}}, \"layers\": [{\"op\": \"relu\"}]}", 201},
    {"DELETE /models/n k4", JSON, NULL, 200},
    {"DELETE /models/n k4", JSON, NULL, 200},
    /* gradients from elsewhere, and the buffer */
    {"GET /models/m/parameters", JSON, NULL, 304},
    {"POST /backward", JSON, "{\"model\": \"m\", " INPUTS ", " TARGETS "}", 200},
    {"POST /models/m/gradients", JSON, NULL, 200},
    {"POST /backward", TENSORS, "{\"model\": \"m\", " INPUTS ", " TARGETS "}", 200},
    {"POST /models/m/gradients k5", TENSORS, NULL, 200},
    {"GET /models/m/gradients", JSON, NULL, 409},
    {"POST /backward k6", JSON, "{\"model\": \"m\", " INPUTS ", " TARGETS ", \"accumulate\": true}", 200},
    {"GET /models/m/gradients", JSON, NULL, 200},
    {"GET /models/m/gradients?dtype=F16", TENSORS, NULL, 200},
    {"DELETE /models/m/gradients k7", JSON, NULL, 200},
    /* rounds of one */
    {"PATCH /models/m", JSON, "{\"aggregation\": {\"mode\": \"sync\", \"workers\": 1}, \"max_staleness\": 4}",
     200},
    {"GET /models/m", JSON, NULL, 200},
    {"POST /backward", JSON, APPLY, 422},
    {"POST /backward k8", JSON,
     "{\"model\": \"m\", " INPUTS ", " TARGETS ", \"apply\": true, \"worker\": \"a\", \"seed\": 3,"
     " \"return\": [\"parameters\"]}",
     200},
    {"PATCH /models/m", JSON, "{\"aggregation\": null}", 200},
    {"PATCH /models/m", JSON, "{\"optimizer\": {\"lr\": 0.5, \"betas\": null}}", 200},
    {"PATCH /models/m", JSON, "{\"optimizer\": {\"lr\": -1}}", 422},
    {"PATCH /models/m", JSON, "{\"optimizer\": {\"op\": \"sgd\", \"betas\": null, \"clip_grad_norm\": null}}",
     200},
    {"PUT /models/m/optimizer", JSON,
     "{\"steps\": {\"e.weight\": 1, \"2.weight\": 2, \"2.bias\": 3, \"" LONG_NAME ".weight\": 4, \"" LONG_NAME
     ".bias\": 5, \"bn.weight\": 0, \"bn.bias\": 0, \"tie.bias\": 0}, \"state\": {}}",
     200},
    {"PATCH /models/m", JSON, "{\"optimizer\": {\"momentum\": 0.9}}", 200},
    {"GET /models/m/optimizer", JSON, NULL, 200},
    {"PUT /models/m/optimizer", JSON, NULL, 200},
    {"GET /models/m/optimizer", TENSORS, NULL, 200},
    {"PUT /models/m/optimizer", TENSORS, NULL, 200},
    {"PATCH /models/m", JSON, "{\"optimizer\": null}", 200},
    {"POST /backward", JSON, "{\"model\": \"m\", " INPUTS ", " TARGETS ", \"apply\": true}", 409},
    {"GET /ops", JSON, NULL, 200},
    {"GET /ops", TENSORS, NULL, 200},
    {"GET /openapi.json", JSON, NULL, 200},
    {"POST /backward", JSON,
     "{\"model\": {\"inputs\": {\"x\": {\"shape\": [2]}},"
     "             \"layers\": [{\"op\": \"linear\", \"out_features\": 2}]},"
     " \"parameters\": {\"0.weight\": [[1, 2], [3, 4]], \"0.bias\": [1, 1]}, \"inputs\": {\"x\": [[5, 6]]},"
     " \"upstream\": {\"0\": [[1, 2]]}, \"return\": [\"parameters\", \"inputs\"]}",
     200},
    {"POST /forward", JSON, "{\"model\": \"m\", " INPUTS ", \"retain\": true}", 200},
    {"PATCH /models/m", JSON, "{\"coalesce\": true}", 200},
    {"POST /forward", JSON, "{\"model\": \"m\", " INPUTS ", \"seed\": 3}", 200},
    {"POST /forward", TENSORS, "{\"model\": \"m\", " INPUTS ", \"dtype\": \"F16\"}", 200},
    {"POST /forward", TENSORS, "{\"model\": \"m\", " INPUTS ", \"outputs\": [\"3\"]}", 200},
    {"POST /forward", JSON, "{\"model\": \"m\", \"inputs\": {\"x\": [[1, 2, 3]], \"id\": [4]}}", 422},
    {"DELETE /models/m", JSON, NULL, 200}, /* and the context with it */
    {"GET /contexts/$", JSON, NULL, 404},
};
enum { STEPS = sizeof steps / sizeof steps[0] };

static long step_n;
static bool step_all, step_failed;

static void watch(bool on) {
    if (step_n < 0) return;
    if (on)
        test_malloc_fail(step_n, step_all);
    else
        step_failed = test_malloc_work();
}

/* Answers of the undisturbed run. */
static struct test_answer expected[STEPS];
static char context[40];

static char *with_context(const char *text) {
    const char *dollar = strchr(text, '$');
    size_t size = strlen(text) + sizeof context;
    char *out = malloc(size);
    assert_non_null(out);
    snprintf(out, size, "%.*s%s%s", dollar ? (int)(dollar - text) : (int)strlen(text), text,
             dollar ? context : "", dollar ? dollar + 1 : "");
    return out;
}

/* One step, with its n-th allocation failing; -1: none. `done` is how many steps went before. */
static struct test_answer run_step(struct test_service *service, int index, long n, bool all) {
    const struct step *step = &steps[index];
    char method[8], *path = with_context(strchr(step->request, ' ') + 1), *key = strchr(path, ' ');
    if (key) *key++ = '\0';
    snprintf(method, sizeof method, "%.*s", (int)strcspn(step->request, " "), step->request);
    bool sends_back = !step->body && method[0] == 'P';
    char *body = step->body ? with_context(step->body) : NULL;
    struct test_request request = {.method = method,
                                   .path = path,
                                   .accept = step->accept,
                                   .if_none_match = step->status == 304 ? "*" : NULL,
                                   .idempotency_key = key};
    if (body || sends_back) {
        request.content_type = sends_back ? step->accept : JSON;
        request.body = sends_back ? expected[index - 1].body : body;
        request.size = sends_back ? expected[index - 1].size : strlen(body);
    }
    atomic_store(&service->drawn, 1000 * (unsigned long long)index); /* the same numbers for every attempt */
    step_n = n;
    step_all = all;
    step_failed = false;
    struct test_answer answer = test_request(service, &request);
    step_n = -1;
    free(path);
    free(body);
    return answer;
}

static void take_context(int index) {
    json_t *json = json_loadb(expected[index].body, expected[index].size, 0, NULL);
    const char *id = json_string_value(json_object_get(json, "context"));
    if (id && strcmp(steps[index].request, "POST /forward") == 0) snprintf(context, sizeof context, "%s", id);
    json_decref(json);
}

/* A page of metrics counts the attempts too. */
static bool same(const struct test_answer *a, const struct test_answer *b) {
    static const char metrics[] = "# HELP ";
    if (a->status == 200 && b->status == 200 && a->size > sizeof metrics && b->size > sizeof metrics &&
        memcmp(a->body, metrics, sizeof metrics - 1) == 0)
        return memcmp(b->body, metrics, sizeof metrics - 1) == 0;
    return a->status == b->status && a->size == b->size && memcmp(a->body, b->body, a->size) == 0;
}

/* No answer, or a 503 that is JSON. */
static void check_refusal(int index, long n, const struct test_answer *answer) {
    if (answer->status == 0) return;
    json_t *json = json_loadb(answer->body, answer->size, 0, NULL);
    const char *type = json_string_value(json_object_get(json, "type"));
    if (answer->status != 503 || !type || strcmp(type, "urn:gradd:problem:out-of-memory") != 0)
        fail_msg("%s, allocation %ld: %d: %s\ninstead of %d: %s", steps[index].request, n, answer->status,
                 answer->body, expected[index].status, expected[index].body);
    json_decref(json);
}

static void start(struct test_service *service) {
    step_n = -1;
    test_service_start(service, NULL, 0);
    service->watch = watch;
}

/* The state before a step, made anew. */
static void replay(struct test_service *service, int until_step) {
    start(service);
    for (int i = 0; i < until_step; i++) {
        struct test_answer answer = run_step(service, i, -1, false);
        assert_true(same(&answer, &expected[i]));
        test_answer_free(&answer);
        take_context(i);
    }
}

/* All of one step's allocations. Afterwards the step has been taken. */
static void fail_step(struct test_service *service, int index, bool all) {
    for (long n = 0;; n++) {
        long before = atomic_load(&test_live);
        size_t reserved = api_memory_in_use(service->api);
        struct test_answer answer = run_step(service, index, n, all);
        bool right = same(&answer, &expected[index]);
        if (!right) {
            check_refusal(index, n, &answer);
            if (!step_failed) fail_msg("%s: another answer than before", steps[index].request);
        }
        test_answer_free(&answer);
        if (!right && atomic_load(&test_live) != before)
            fail_msg("%s, allocation %ld: %ld more are left", steps[index].request, n,
                     atomic_load(&test_live) - before);
        if (!right && api_memory_in_use(service->api) != reserved)
            fail_msg("%s, allocation %ld: %zu bytes reserved, and %zu before", steps[index].request, n,
                     api_memory_in_use(service->api), reserved);
        assert_int_equal(api_in_flight(service->api), 0);
        if (!step_failed) return;
        if (right) { /* it got by without: once more, from the state before */
            test_service_stop(service);
            replay(service, index);
        }
    }
}

static void forget_keys(struct test_service *service) {
    atomic_fetch_add(&service->now_ms, api_default_limits.key_ttl_ms);
    api_tick(service->api);
}

static void fail_steps(bool all) {
    struct test_service service;
    start(&service);
    long before = atomic_load(&test_live);
    size_t reserved = api_memory_in_use(service.api);
    for (int i = 0; i < STEPS; i++) {
        fail_step(&service, i, all);
        take_context(i);
    }
    forget_keys(&service);
    assert_int_equal(api_memory_in_use(service.api), reserved);
    assert_int_equal(atomic_load(&test_live), before);
    test_service_stop(&service);
}

static void one_at_a_time(void **state) {
    (void)state;
    fail_steps(false);
}

static void all_from_one_on(void **state) {
    (void)state;
    fail_steps(true);
}

/* The undisturbed run; twice, for what libraries allocate once. */
static int record(void **state) {
    (void)state;
    for (int round = 0; round < 2; round++) {
        struct test_service service;
        start(&service);
        for (int i = 0; i < STEPS; i++) {
            test_answer_free(&expected[i]);
            expected[i] = run_step(&service, i, -1, false);
            if (expected[i].status != steps[i].status) {
                print_error("%s: %d: %s\n", steps[i].request, expected[i].status, expected[i].body);
                return -1;
            }
            take_context(i);
        }
        test_service_stop(&service);
    }
    return 0;
}

static int forget(void **state) {
    (void)state;
    for (int i = 0; i < STEPS; i++) test_answer_free(&expected[i]);
    return 0;
}

/* --- rounds of two ------------------------------------------------------------------------------------ */

/* One of the two, with its n-th allocation failing. */
static void contribute(struct test_service *service, struct test_pending *pending, const char *worker, long n,
                       bool all) {
    char body[500];
    int size = snprintf(body, sizeof body,
                        "{\"model\": \"m\", " INPUTS ", " TARGETS ", \"apply\": true, \"seed\": 3,"
                        " \"worker\": \"%s\", \"return\": [\"parameters\"]}",
                        worker);
    step_n = n;
    step_all = all;
    step_failed = false;
    test_submit(service, pending,
                &(struct test_request){.method = "POST",
                                       .path = "/backward",
                                       .idempotency_key = worker,
                                       .body = body,
                                       .size = (size_t)size});
    step_n = -1;
}

static int status_of(struct test_pending *pending) {
    struct test_answer answer = test_take(pending);
    int status = answer.status;
    assert_true(status == 200 || status == 503 || status == 0);
    test_answer_free(&answer);
    return status;
}

static json_int_t version_of_m(struct test_service *service) {
    json_t *json = test_call(service, 200, "GET /models/m", NULL);
    json_int_t version = json_integer_value(json_object_get(json, "version"));
    json_decref(json);
    return version;
}

/* The last to come ends the round, and finds no memory for the n-th of what that takes. Either both are told
 * of the new version, or there is none; and whoever was refused may come again with its key. */
static bool end_round(struct test_service *service, long n, bool all) {
    struct test_pending pending[2];
    json_int_t before = version_of_m(service);
    const char *workers[] = {before % 2 ? "a" : "b", before % 2 ? "b" : "a"}; /* either comes first */
    contribute(service, &pending[0], workers[0], -1, false);
    assert_false(atomic_load(&pending[0].done));
    contribute(service, &pending[1], workers[1], n, all);
    bool had_failure = step_failed, waits = !atomic_load(&pending[0].done);
    int last = status_of(&pending[1]), first = waits ? 0 : status_of(&pending[0]);
    assert_true(waits ? last != 200 : (first == 200) == (last == 200));
    assert_int_equal(version_of_m(service), before + (last == 200));
    if (last != 200) {
        if (!waits) contribute(service, &pending[0], workers[0], -1, false);
        contribute(service, &pending[1], workers[1], -1, false);
        for (int i = 0; i < 2; i++) assert_int_equal(status_of(&pending[i]), 200);
        assert_int_equal(version_of_m(service), before + 1);
    }
    forget_keys(service);
    return had_failure;
}

static void rounds(void **state) {
    (void)state;
    for (int all = 0; all < 2; all++) {
        struct test_service service;
        start(&service);
        long before = atomic_load(&test_live);
        test_do(&service, 201, "POST /models", specification);
        test_do(&service, 200, "PATCH /models/m", "{\"aggregation\": {\"mode\": \"sync\", \"workers\": 2}}");
        for (long n = 0; end_round(&service, n, all); n++) continue;
        test_do(&service, 200, "DELETE /models/m", NULL);
        assert_int_equal(api_memory_in_use(service.api), 0);
        assert_int_equal(atomic_load(&test_live), before);
        test_service_stop(&service);
    }
}

/* --- what is called without a request ---------------------------------------------------------------- */

/* Calls fn with its n-th allocation failing until it needs no more; it says whether it succeeded. */
static void fail_calls(bool (*fn)(void)) {
    for (int all = 0; all < 2; all++)
        for (long n = 0;; n++) {
            long before = atomic_load(&test_live);
            test_malloc_fail(n, all);
            bool succeeded = fn();
            bool had_failure = test_malloc_work();
            assert_int_equal(atomic_load(&test_live), before);
            assert_true(succeeded || had_failure);
            if (!had_failure) break;
        }
}

static int64_t no_clock(void *self) {
    (void)self;
    return 0;
}

static bool make_service(void) {
    struct nn_error err = {0};
    const struct api_settings settings = {
        .limits = api_default_limits, .token = "token", .version = "version"};
    const struct api_env env = {.now_ms = no_clock};
    struct api *api = api_new(&settings, &env, &err);
    assert_true(api || err.code == NN_E_NOMEM);
    api_free(api);
    return api != NULL;
}

static char *page;
static bool make_page(void) {
    char *again = api_ops_markdown();
    bool good = again && strcmp(again, page) == 0;
    assert_true(good || !again);
    free(again);
    return good;
}

static void a_service(void **state) {
    (void)state;
    fail_calls(make_service);
}

static void the_page_of_operators(void **state) {
    (void)state;
    page = api_ops_markdown();
    assert_non_null(page);
    fail_calls(make_page);
    free(page);
}

/* --- core ------------------------------------------------------------------------------------------ */

static const char *const xs[] = {"x"}, *const both[] = {"x", "hidden"};
static const double weights[] = {1, 2, 3};

static int add_layer(struct nn_graph *graph, const char *op, const char *name, const char *const *inputs,
                     int n_inputs, const char *attr, double value, struct nn_error *err) {
    struct nn_attrs *attrs = nn_attrs_new(nn_op_find(op), nn_graph_arena(graph));
    struct nn_given given = {.kind = NN_GIVEN_INT, .i = (int64_t)value, .r = value};
    if (!attrs) return nn_fail(err, NN_E_NOMEM, "attributes");
    if (attr && nn_attrs_set(attrs, attr, &given, err)) return (int)err->code;
    struct nn_layer layer = {
        .op = nn_op_find(op), .name = name, .inputs = inputs, .n_inputs = n_inputs, .attrs = attrs};
    return nn_graph_add_layer(graph, &layer, err);
}

static int add_loss(struct nn_graph *graph, struct nn_error *err) {
    struct nn_attrs *attrs = nn_attrs_new(nn_op_find("cross_entropy"), nn_graph_arena(graph));
    struct nn_given given = {.kind = NN_GIVEN_LIST, .list = weights, .n = 3};
    if (!attrs) return nn_fail(err, NN_E_NOMEM, "attributes");
    if (nn_attrs_set(attrs, "weight", &given, err)) return (int)err->code;
    struct nn_loss loss = {
        .op = nn_op_find("cross_entropy"), .sample_weight = "w", .scale = 1, .attrs = attrs};
    return nn_graph_add_loss(graph, &loss, err);
}

static struct nn_graph *make_graph(struct nn_error *err) {
    struct nn_graph *graph = nn_graph_new(NN_F32, err);
    if (!graph) return NULL;
    if (nn_graph_add_input(graph, "x", NN_F32, &(struct nn_shape){1, {4}}, err) ||
        add_layer(graph, "linear", "hidden", xs, 1, "out_features", 5, err) ||
        add_layer(graph, "concat", NULL, both, 2, NULL, 0, err) ||
        add_layer(graph, "dropout", NULL, NULL, 0, NULL, 0, err) ||
        add_layer(graph, "linear", "out", NULL, 0, "out_features", 3, err) || add_loss(graph, err) ||
        nn_graph_add_output(graph, "hidden", err) || nn_graph_add_output(graph, "out", err) ||
        nn_graph_seal(graph, err)) {
        nn_graph_unref(graph);
        return NULL;
    }
    return graph;
}

static struct nn_run *make_run(struct nn_params *params, struct nn_error *err) {
    struct nn_run_options options = {.rows = 2, .mode = NN_TRAIN, .seed = 1, .tape = true};
    struct nn_plan *plan = nn_plan_forward(nn_params_graph(params), &options, err);
    struct nn_run *run = plan ? nn_run_new_take(params, plan, err) : NULL;
    if (!run) return NULL;
    float *x = nn_run_input(run, 0);
    for (int i = 0; i < 8; i++) x[i] = (float)i;
    nn_run_forward(run, NULL);
    return run;
}

static struct nn_backward *make_backward(const struct nn_run *run, struct nn_grads *grads,
                                         struct nn_error *err) {
    struct nn_loss_options loss = {.target_ids = true, .normalizer = (double)NAN};
    bool nodes[5] = {true};
    struct nn_backward_options options = {.losses = &loss, .nodes = nodes, .parameters = true};
    struct nn_plan *plan =
        nn_plan_backward(nn_params_graph(nn_run_params(run)), nn_run_options(run), &options, err);
    struct nn_backward *backward = plan ? nn_backward_new_take(run, plan, err) : NULL;
    if (!backward) return NULL;
    memcpy(nn_backward_target(backward, 0), (int64_t[]){0, 2}, 2 * sizeof(int64_t));
    memcpy(nn_backward_sample_weight(backward, 0), (float[]){1, 2}, 2 * sizeof(float));
    nn_backward_run(backward, grads, NULL);
    return backward;
}

static struct nn_attrs *make_attrs(const char *name, const char *attr, double value, struct nn_arena *arena,
                                   struct nn_error *err) {
    struct nn_given given = {.kind = NN_GIVEN_REAL, .r = value};
    struct nn_attrs *attrs = nn_attrs_new(nn_optimizer_find(name), arena);
    if (!attrs) nn_fail(err, NN_E_NOMEM, "attributes");
    return attrs && nn_attrs_set(attrs, attr, &given, err) == NN_OK ? attrs : NULL;
}

static int optimize(struct nn_params *params, const struct nn_grads *grads, struct nn_error *err) {
    struct nn_arena *arena = nn_arena_new();
    struct nn_params *next = NULL;
    struct nn_optimizer *optimizer = NULL;
    const struct nn_attrs *attrs = NULL;
    if (!arena) return nn_fail(err, NN_E_NOMEM, "an arena");
    if ((attrs = make_attrs("sgd", "lr", 0.1, arena, err)) &&
        (optimizer = nn_optimizer_new(nn_params_graph(params), nn_optimizer_find("sgd"), attrs, err)) &&
        (attrs = make_attrs("sgd", "momentum", 0.9, arena, err)) &&
        nn_optimizer_configure(optimizer, attrs, err) == NN_OK &&
        (next = nn_params_new(nn_params_graph(params), err)))
        nn_optimizer_step(optimizer, params, grads, 1, (double)NAN, next, NULL);
    nn_params_unref(next);
    nn_optimizer_free(optimizer);
    nn_arena_free(arena);
    return (int)err->code;
}

static bool use_core(void) {
    struct nn_error err = {0};
    struct nn_params *params = NULL;
    struct nn_run *run = NULL;
    struct nn_grads *grads = NULL;
    struct nn_backward *backward = NULL;
    bool done = false;
    struct nn_graph *graph = make_graph(&err);
    if (!graph || !(params = nn_params_new(graph, &err))) goto out;
    nn_params_init(params, 1);
    if (!(run = make_run(params, &err)) || !(grads = nn_grads_new(graph, &err))) goto out;
    if (!(backward = make_backward(run, grads, &err))) goto out;
    done = optimize(params, grads, &err) == NN_OK;
out:
    assert_true(done || err.code == NN_E_NOMEM);
    nn_backward_free(backward);
    nn_grads_free(grads);
    nn_run_free(run);
    nn_params_unref(params);
    nn_graph_unref(graph);
    return done;
}

static void core_alone(void **state) {
    (void)state;
    assert_true(use_core());
    fail_calls(use_core);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(core_alone),
        cmocka_unit_test(a_service),
        cmocka_unit_test(the_page_of_operators),
        cmocka_unit_test(one_at_a_time),
        cmocka_unit_test(all_from_one_on),
        cmocka_unit_test(rounds),
    };
    nn_blas_init();
    return cmocka_run_group_tests(tests, record, forget);
}
