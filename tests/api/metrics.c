/* GET /metrics: the page is well-formed, and each counter counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/prometheus.h"
#include "../support/service.h"

static struct test_service service;

#define LAYERS                                                                                               \
    "'seed': 3, 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear', 'out_features': 2}],"           \
    " 'loss': {'op': 'mse'}, 'optimizer': {'op': 'sgd', 'lr': 0.1}"
#define BATCH "'inputs': {'x': [[1, 2], [3, 4]]}, 'targets': {'y': [[0, 1], [1, 0]]}"

static int start(int workers, const char *version, const char *token) {
    struct api_settings settings = {.limits = api_default_limits, .version = version, .token = token};
    test_service_start(&service, &settings, workers);
    return 0;
}

static int setup(void **state) {
    (void)state;
    return start(0, "1", NULL);
}

static int teardown(void **state) {
    (void)state;
    test_service_stop(&service);
    return 0;
}

static void ask(int status, const char *request, const char *body) {
    json_decref(test_ask(&service, status, request, NULL, body ? "%s" : NULL, body));
}

static struct test_metrics scrape(void) {
    struct test_request request = {.method = "GET", .path = "/metrics", .accept = "text/plain"};
    struct test_answer answer = test_request(&service, &request);
    assert_int_equal(answer.status, 200);
    assert_string_equal(test_answer_header(&answer, "Content-Type"),
                        "text/plain; version=0.0.4; charset=utf-8");
    assert_int_equal(strlen(answer.body), answer.size);
    struct test_metrics metrics = test_metrics_read(answer.body);
    test_answer_free(&answer);
    return metrics;
}

/* A page that is read for one series. */
static double told(const char *series) {
    struct test_metrics metrics = scrape();
    double value = test_metric(&metrics, series);
    test_metrics_fini(&metrics);
    return value;
}

static void requests_by_route_and_class(void **state) {
    (void)state;
    ask(201, "POST /models", "{'name': 'm', " LAYERS "}");
    ask(409, "POST /models", "{'name': 'm', " LAYERS "}");
    ask(422, "POST /models", "{'nam': 'm'}");
    ask(200, "GET /models/m", NULL);
    ask(404, "GET /models/{}", NULL);
    ask(404, "GET /nowhere\"\\", NULL);
    ask(405, "BREW /models", NULL);
    ask(413, "GET /models", "{}");
    struct test_metrics metrics = scrape();
    static const struct test_sample expected[] = {
        {"gradd_requests_total{method=\"POST\",route=\"/models\",class=\"2xx\"}", 1},
        {"gradd_requests_total{method=\"POST\",route=\"/models\",class=\"4xx\"}", 2},
        {"gradd_requests_total{method=\"GET\",route=\"/models/{}\",class=\"2xx\"}", 1},
        {"gradd_requests_total{method=\"GET\",route=\"/models/{}\",class=\"4xx\"}", 1},
        {"gradd_requests_total{method=\"GET\",route=\"/models\",class=\"4xx\"}", 1},
        {"gradd_requests_total{method=\"other\",route=\"other\",class=\"4xx\"}", 2},
        {"gradd_requests_total{method=\"GET\",route=\"/metrics\",class=\"2xx\"}", 0},
        {"gradd_refusals_total{problem=\"name-taken\"}", 1},
        {"gradd_refusals_total{problem=\"unknown-member\"}", 1},
        {"gradd_refusals_total{problem=\"not-found\"}", 2},
        {"gradd_refusals_total{problem=\"method-not-allowed\"}", 1},
        {"gradd_refusals_total{problem=\"too-large\"}", 1},
        {"gradd_refusals_total{problem=\"busy\"}", 0},
        {"gradd_request_duration_seconds_count{method=\"POST\",route=\"/models\"}", 3},
        {"gradd_request_duration_seconds_count{method=\"other\",route=\"other\"}", 2},
    };
    test_metrics_check(&metrics, expected, sizeof expected / sizeof expected[0]);
    test_metrics_fini(&metrics);
    assert_int_equal(told("gradd_requests_total{method=\"GET\",route=\"/metrics\",class=\"2xx\"}"), 1);
}

static void not_modified_is_3xx(void **state) {
    (void)state;
    ask(201, "POST /models", "{'name': 'm', " LAYERS "}");
    struct test_request request = {
        .method = "GET", .path = "/models/m/parameters", .if_none_match = "*", .accept = "application/json"};
    struct test_answer answer = test_request(&service, &request);
    assert_int_equal(answer.status, 304);
    test_answer_free(&answer);
    assert_int_equal(
        told("gradd_requests_total{method=\"GET\",route=\"/models/{}/parameters\",class=\"3xx\"}"), 1);
}

static void bytes(void **state) {
    (void)state;
    static const char body[] = "{\"name\": \"m\", \"inputs\": {\"x\": {\"shape\": [2]}},"
                               " \"layers\": [{\"op\": \"relu\"}]}";
    struct test_request request = {
        .method = "POST", .path = "/models", .body = body, .size = sizeof body - 1};
    struct test_answer answer = test_request(&service, &request);
    assert_int_equal(answer.status, 201);
    struct test_metrics metrics = scrape();
    assert_true(test_metric(&metrics, "gradd_request_body_bytes_total") == (double)request.size);
    assert_true(test_metric(&metrics, "gradd_response_body_bytes_total") == (double)answer.size);
    test_metrics_fini(&metrics);
    test_answer_free(&answer);
}

static void what_is_held(void **state) {
    (void)state;
    assert_int_equal(told("gradd_memory_reserved_bytes"), 0);
    assert_true(told("gradd_memory_limit_bytes") == (double)api_default_limits.memory);
    ask(201, "POST /models", "{'name': 'm', " LAYERS "}");
    ask(201, "POST /models", "{'name': 'n', " LAYERS "}");
    ask(200, "DELETE /models/n", NULL);
    ask(200, "POST /forward", "{'model': 'm', 'inputs': {'x': [[1, 2]]}, 'retain': true}");
    struct test_request key = {.idempotency_key = "k"};
    json_decref(
        test_ask(&service, 200, "POST /backward", &key, "%s", "{'model': 'm', 'apply': true, " BATCH "}"));
    struct test_metrics metrics = scrape();
    assert_int_equal(test_metric(&metrics, "gradd_models"), 1);
    assert_int_equal(test_metric(&metrics, "gradd_contexts"), 1);
    assert_int_equal(test_metric(&metrics, "gradd_idempotency_keys"), 1);
    assert_int_equal(test_metric(&metrics, "gradd_requests_in_flight"), 1);
    assert_true(test_metric(&metrics, "gradd_memory_reserved_bytes") ==
                (double)api_memory_in_use(service.api));
    test_metrics_fini(&metrics);
}

static void versions_and_staleness(void **state) {
    (void)state;
    ask(201, "POST /models", "{'name': 'm', " LAYERS "}");
    for (int i = 0; i < 3; i++) ask(200, "POST /backward", "{'model': 'm', 'apply': true, " BATCH "}");
    ask(200, "POST /backward", "{'model': 'm', 'accumulate': true, " BATCH "}"); /* of version 3 */
    ask(200, "PUT /models/m/parameters?partial=true", "{'parameters': {'0.bias': [0, 0]}}");
    ask(200, "POST /models/m/parameters", "{'from': 'm', 'tau': 0.5}");
    ask(200, "POST /backward", "{'model': 'm', 'apply': true, " BATCH "}");
    ask(200, "POST /step", "{'model': 'm'}"); /* at version 6: 3 behind */
    ask(409, "POST /step", "{'model': 'm'}");
    ask(200, "DELETE /models/m", NULL); /* a counter does not go back */
    struct test_metrics metrics = scrape();
    assert_int_equal(test_metric(&metrics, "gradd_versions_total"), 7);
    assert_int_equal(test_metric(&metrics, "gradd_gradient_staleness_versions_bucket{le=\"0\"}"), 4);
    assert_int_equal(test_metric(&metrics, "gradd_gradient_staleness_versions_bucket{le=\"2\"}"), 4);
    assert_int_equal(test_metric(&metrics, "gradd_gradient_staleness_versions_bucket{le=\"4\"}"), 5);
    assert_int_equal(test_metric(&metrics, "gradd_gradient_staleness_versions_sum"), 3);
    assert_int_equal(test_metric(&metrics, "gradd_gradient_staleness_versions_count"), 5);
    test_metrics_fini(&metrics);
}

/* The clock is the test's: the round waits 30 ms for its second contribution. */
static void rounds_and_durations(void **state) {
    (void)state;
#define STEP "POST /backward"
#define PART                                                                                                 \
    "{\"model\": \"m\", \"apply\": true, \"worker\": \"a\", \"inputs\": {\"x\": [[1, 2]]}, \"targets\": "    \
    "{\"y\": [[1, 0]]}}"
    struct test_request request = {.method = "POST", .path = "/backward", .body = PART, .size = strlen(PART)};
    ask(201, "POST /models",
        "{'name': 'm', 'aggregation': {'mode': 'sync', 'workers': 2, 'timeout_ms': 1000}, " LAYERS "}");
    for (int i = 0; i < 3; i++) {
        struct test_pending pending = {0};
        test_submit(&service, &pending, &request);
        atomic_fetch_add(&service.now_ms, 30);
        if (i == 0)
            ask(200, STEP, "{'model': 'm', 'apply': true, 'worker': 'b', " BATCH "}");
        else if (i == 1)
            ask(200, "PUT /models/m/parameters?partial=true", "{'parameters': {'0.bias': [0, 0]}}");
        else
            ask(200, "DELETE /models/m", NULL);
        struct test_answer answer = test_take(&pending);
        assert_int_equal(answer.status, ((const int[]){200, 412, 404})[i]);
        test_answer_free(&answer);
    }
    ask(201, "POST /models",
        "{'name': 'm', 'aggregation': {'mode': 'sync', 'workers': 2, 'timeout_ms': 1000}, " LAYERS "}");
    struct test_pending pending = {0};
    test_submit(&service, &pending, &request);
    atomic_fetch_add(&service.now_ms, 1000);
    api_tick(service.api);
    struct test_answer answer = test_take(&pending);
    assert_int_equal(answer.status, 409);
    test_answer_free(&answer);

    struct test_metrics metrics = scrape();
    assert_int_equal(test_metric(&metrics, "gradd_rounds_total{outcome=\"applied\"}"), 1);
    assert_int_equal(test_metric(&metrics, "gradd_rounds_total{outcome=\"overtaken\"}"), 1);
    assert_int_equal(test_metric(&metrics, "gradd_rounds_total{outcome=\"deleted\"}"), 1);
    assert_int_equal(test_metric(&metrics, "gradd_rounds_total{outcome=\"no-quorum\"}"), 1);
    assert_int_equal(test_metric(&metrics, "gradd_rounds_total{outcome=\"failed\"}"), 0);
#define DURATION(what, more)                                                                                 \
    test_metric(&metrics,                                                                                    \
                "gradd_request_duration_seconds_" what "{method=\"POST\",route=\"/backward\"" more "}")
    assert_int_equal(DURATION("bucket", ",le=\"0.0001\""), 1);
    assert_int_equal(DURATION("bucket", ",le=\"0.025\""), 1);
    assert_int_equal(DURATION("bucket", ",le=\"0.05\""), 4);
    assert_int_equal(DURATION("bucket", ",le=\"0.5\""), 4);
    assert_int_equal(DURATION("bucket", ",le=\"1\""), 5);
    assert_int_equal(DURATION("count", ""), 5);
    assert_true(DURATION("sum", "") > 1.0899 && DURATION("sum", "") < 1.0901);
    test_metrics_fini(&metrics);
}

/* A label's value may hold anything. */
static void labels_are_escaped(void **state) {
    (void)state;
    start(0, "a\"b\\c\nd", NULL);
    struct test_metrics metrics = scrape();
    static const char begin[] = "gradd_build_info{version=\"a\\\"b\\\\c\\nd\",blas=\"";
    assert_memory_equal(metrics.samples[0].series, begin, sizeof begin - 1);
    test_metrics_fini(&metrics);
    test_service_stop(&service);
}

static void asks_for_the_token(void **state) {
    (void)state;
    start(0, "1", "secret");
    ask(401, "GET /metrics", NULL);
    struct test_request request = {.method = "GET", .path = "/metrics", .authorization = "Bearer secret"};
    struct test_answer answer = test_request(&service, &request);
    assert_int_equal(answer.status, 200);
    struct test_metrics metrics = test_metrics_read(answer.body);
    assert_int_equal(test_metric(&metrics, "gradd_refusals_total{problem=\"unauthorized\"}"), 1);
    test_metrics_fini(&metrics);
    test_answer_free(&answer);
    test_service_stop(&service);
}

static void a_query_is_refused(void **state) {
    (void)state;
    ask(422, "GET /metrics?name=x", NULL);
}

/* --- a service that is busy ------------------------------------------------------------------------------ */

static bool no_room(void *self, void (*job)(void *arg), void *arg, uint64_t cost) {
    (void)self, (void)job, (void)arg, (void)cost;
    return false;
}
static int64_t no_time(void *self) {
    (void)self;
    return 0;
}
static void full(void *self, struct api_load *load) {
    (void)self;
    *load = (struct api_load){
        .queued = 16, .room = 16, .begun = 1000, .threads = 4, .busy = 3, .lines_dropped = 5};
}

static struct api_response *respond(struct api *api, const char *path) {
    struct api_head head = {.method = "GET", .path = path, .client = "::1"};
    struct api_response *response = api_handle(api, &head, NULL, 0);
    assert_non_null(response);
    return response;
}

/* Where every other request gets 503 or 429, the probes and the metrics answer; and /readyz says yes, for a full
 * queue is load, which other instances could not take over: they do not have the models. */
static void told_however_full_the_queue_is(void **state) {
    (void)state;
    struct api_settings settings = {.limits = api_default_limits, .version = "1"};
    struct api_env env = {.now_ms = no_time, .execute = no_room, .load = full};
    struct nn_error err = {0};
    settings.limits.client_requests = 1;
    struct api *api = api_new(&settings, &env, &err);
    assert_non_null(api);
    struct api_head head = {.method = "GET", .path = "/models", .client = "::1"};
    struct api_admission first = api_admit(api, &head); /* all that this client may have in flight */
    assert_non_null(first.request);
    static const struct {
        const char *path;
        int status;
    } cases[] = {{"/models", 429}, {"/healthz", 200}, {"/readyz", 200}, {"/metrics", 200}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct api_response *response = respond(api, cases[i].path);
        assert_int_equal(response->status, cases[i].status);
        api_response_free(response);
    }
    struct api_response *response = respond(api, "/metrics");
    struct test_answer answer = test_copy_answer(response);
    api_response_free(response);
    struct test_metrics metrics = test_metrics_read(answer.body);
    assert_int_equal(test_metric(&metrics, "gradd_queue_length"), 16);
    assert_int_equal(test_metric(&metrics, "gradd_queue_capacity"), 16);
    assert_int_equal(test_metric(&metrics, "gradd_jobs_total"), 1000);
    assert_int_equal(test_metric(&metrics, "gradd_compute_threads"), 4);
    assert_int_equal(test_metric(&metrics, "gradd_compute_threads_busy"), 3);
    assert_int_equal(test_metric(&metrics, "gradd_log_lines_dropped_total"), 5);
    test_metrics_fini(&metrics);
    test_answer_free(&answer);
    api_request_free(first.request);
    struct api_response *refusal = respond(api, "/models");
    assert_int_equal(refusal->status, 503);
    api_response_free(refusal);
    api_free(api);
}

/* --- many threads ---------------------------------------------------------------------------------------- */

enum { THREADS = 4, EACH = 200 };

static void *call(void *arg) {
    for (int i = 0; i < EACH; i++) {
        static const char *const paths[] = {"/models/none", "/metrics"};
        struct test_request request = {.method = "GET", .path = paths[i % 20 == 0]};
        struct test_answer answer = test_request(&service, &request);
        *(int *)arg += answer.status == 404;
        test_answer_free(&answer);
    }
    return NULL;
}

static void nothing_is_lost_among_threads(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    int refused[THREADS] = {0}, sum = 0;
    start(3, "1", NULL);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, call, &refused[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        sum += refused[i];
    }
    assert_int_equal(sum, THREADS * EACH * 19 / 20);
    assert_int_equal(told("gradd_refusals_total{problem=\"not-found\"}"), sum);
    test_service_stop(&service);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(requests_by_route_and_class, setup, teardown),
        cmocka_unit_test_setup_teardown(not_modified_is_3xx, setup, teardown),
        cmocka_unit_test_setup_teardown(bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_held, setup, teardown),
        cmocka_unit_test_setup_teardown(versions_and_staleness, setup, teardown),
        cmocka_unit_test_setup_teardown(rounds_and_durations, setup, teardown),
        cmocka_unit_test_setup_teardown(a_query_is_refused, setup, teardown),
        cmocka_unit_test(labels_are_escaped),
        cmocka_unit_test(asks_for_the_token),
        cmocka_unit_test(told_however_full_the_queue_is),
        cmocka_unit_test(nothing_is_lost_among_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
