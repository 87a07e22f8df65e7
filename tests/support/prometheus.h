/* prometheus.h - Prometheus's text format 0.0.4, read strictly.
 *
 * All of it fails the test rather than its caller. */
#ifndef TEST_PROMETHEUS_H
#define TEST_PROMETHEUS_H

#include <stddef.h>

struct test_sample {
    char series[320]; /* the name, and its labels as they stand: name{a="x",b="y"} */
    double value;
};
struct test_metrics {
    struct test_sample *samples;
    size_t n;
};

/* Checks that every metric has its HELP and TYPE before its lines, which stand together; that names, labels and
 * numbers are well-formed, and no series is there twice; that counters end in _total and are not negative; and that
 * the buckets of a histogram are cumulative, end with +Inf, and agree with its _count. */
struct test_metrics test_metrics_read(const char *text);
void test_metrics_fini(struct test_metrics *metrics);
/* Of the series with this very name and labels. */
double test_metric(const struct test_metrics *metrics, const char *series);
/* That each of these series is there with its value. */
void test_metrics_check(const struct test_metrics *metrics, const struct test_sample *expected, size_t n);

#endif
