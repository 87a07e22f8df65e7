/* GET /metrics of the real daemon: Prometheus's type, and what a few calls come to. */
#include <string.h>

#include "../support/check.h"
#include "../support/e2e.h"
#include "../support/prometheus.h"

#define FLAGS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* What Prometheus 2 sends. */
#define ACCEPT "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"

static struct test_metrics scrape(void) {
    char type[256];
    const struct http_answer *answer = service_call(
        200,
        &(struct http_request){.method = "GET", .path = "/metrics", .accept = ACCEPT, .token = "secret"});
    assert_string_equal(http_header(answer, "Content-Type", type),
                        "text/plain; version=0.0.4; charset=utf-8");
    return test_metrics_read((const char *)answer->body);
}

static void counts(void **state) {
    (void)state;
    static const char body[] =
        "{\"name\": \"m\", \"inputs\": {\"x\": {\"shape\": [2]}}, \"layers\": [{\"op\": "
        "\"linear\", \"out_features\": 3}]}";
    service_start(FLAGS("--compute-threads", "3", "--queue", "7", "--memory", "64M"),
                  FLAGS("GRADD_TOKEN=secret"));
    service_call(401, &(struct http_request){.method = "GET", .path = "/metrics"});
    service_call(201, &(struct http_request){.method = "POST",
                                             .path = "/models",
                                             .type = JSON_TYPE,
                                             .token = "secret",
                                             .body = body,
                                             .size = sizeof body - 1});
    struct test_metrics metrics = scrape();
    static const struct test_sample expected[] = {
        {"gradd_requests_total{method=\"POST\",route=\"/models\",class=\"2xx\"}", 1},
        {"gradd_requests_total{method=\"GET\",route=\"/metrics\",class=\"4xx\"}", 1},
        {"gradd_request_duration_seconds_count{method=\"POST\",route=\"/models\"}", 1},
        {"gradd_request_body_bytes_total", sizeof body - 1},
        {"gradd_queue_length", 0},
        {"gradd_queue_capacity", 7},
        {"gradd_jobs_total", 1},
        {"gradd_compute_threads", 3},
        {"gradd_memory_limit_bytes", 64 << 20},
        {"gradd_models", 1},
    };
    test_metrics_check(&metrics, expected, sizeof expected / sizeof expected[0]);
    assert_true(test_metric(&metrics, "gradd_memory_reserved_bytes") > 0);
    test_metrics_fini(&metrics);
    metrics = scrape();
    assert_true(
        test_metric(&metrics, "gradd_request_duration_seconds_sum{method=\"GET\",route=\"/metrics\"}") > 0);
    test_metrics_fini(&metrics);
    service_stop();
}

int main(void) {
    const struct CMUnitTest tests[] = {service_test(counts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
