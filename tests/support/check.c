/* check.c - assertions about arrays of numbers and errors. */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static char *vformat(const char *format, va_list args) __attribute__((format(printf, 1, 0)));
static char *vformat(const char *format, va_list args) {
    char *text;
    if (vasprintf(&text, format, args) < 0) abort();
    return text;
}

char *test_format(const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = vformat(format, args);
    va_end(args);
    return text;
}

void test_close(const double *got, const double *want, int64_t n, double tolerance, double floor,
                const char *what, ...) {
    double error = 0, size = 0, worst = -1;
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        double e = fabs(got[i] - want[i]);
        if (isnan(e)) e = INFINITY;
        error += e * e;
        size += want[i] * want[i];
        if (e > worst) worst = e, at = i;
    }
    double allowed = tolerance * fmax(sqrt(size), floor);
    if (sqrt(error) <= allowed) return;
    va_list args;
    va_start(args, what);
    char *text = vformat(what, args);
    va_end(args);
    print_error("%s: off by %.3g, allowed %.3g; worst at [%lld]: %.17g, wanted %.17g\n", text, sqrt(error),
                allowed, (long long)at, n ? got[at] : 0, n ? want[at] : 0);
    free(text);
    fail();
}

void test_same(const double *got, const double *want, int64_t n, const char *what, ...) {
    if (!memcmp(got, want, (size_t)n * sizeof *got)) return;
    int64_t at = 0;
    while (!memcmp(&got[at], &want[at], sizeof *got)) at++;
    va_list args;
    va_start(args, what);
    char *text = vformat(what, args);
    va_end(args);
    print_error("%s: [%lld] is %.17g, wanted %.17g\n", text, (long long)at, got[at], want[at]);
    free(text);
    fail();
}

void test_ok(int code, const struct nn_error *err, const char *what, ...) {
    if (code == NN_OK && err->code == NN_OK) return;
    va_list args;
    va_start(args, what);
    char *text = vformat(what, args);
    va_end(args);
    print_error("%s: %s: %s\n", text, nn_code_info(err->code)->slug, err->text);
    free(text);
    fail();
}

void test_refused(int code, const struct nn_error *err, enum nn_code expected, const char *what, ...) {
    if (code == (int)expected && err->code == expected && err->text[0]) return;
    va_list args;
    va_start(args, what);
    char *text = vformat(what, args);
    va_end(args);
    print_error("%s: returned %d, recorded %s (%s), wanted %s\n", text, code, nn_code_info(err->code)->slug,
                err->text, nn_code_info(expected)->slug);
    free(text);
    fail();
}

int test_group(const char *name, const struct CMUnitTest *tests, size_t n) {
    return _cmocka_run_group_tests(name, tests, n, NULL, NULL);
}
