/* check.h - cmocka with the headers it wants, and assertions about arrays of numbers and errors. */
#ifndef TEST_CHECK_H
#define TEST_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../../core/nn.h"

/* printf into memory of its own, for the caller to free. */
char *test_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* |got - want| <= tolerance * max(|want|, floor) in the 2-norm; the message says what differs, and where
 * most. Anything that is not finite fails. */
void test_close(const double *got, const double *want, int64_t n, double tolerance, double floor,
                const char *what, ...) __attribute__((format(printf, 6, 7)));
/* The same bits. */
void test_same(const double *got, const double *want, int64_t n, const char *what, ...)
    __attribute__((format(printf, 4, 5)));
/* No error; otherwise its text is shown. */
void test_ok(int code, const struct nn_error *err, const char *what, ...)
    __attribute__((format(printf, 3, 4)));
/* This code, recorded with a sentence; `what` goes with a failure. */
void test_refused(int code, const struct nn_error *err, enum nn_code expected, const char *what, ...)
    __attribute__((format(printf, 4, 5)));

/* Runs tests[0..n), made at run time, as one group. */
int test_group(const char *name, const struct CMUnitTest *tests, size_t n);

#endif
