/* subject.h - an operator or loss under test: its definition and its golden values. */
#ifndef TEST_SUBJECT_H
#define TEST_SUBJECT_H

#include "cases.h"
#include "check.h"
#include "golden.h"
#include "pass.h"

struct subject {
    const struct nn_def *def;
    struct golden *golden;
    struct nn_arena *arena; /* of one test */
};

/* Runs every test on every operator and loss, so that a new row of the table is tested as it is. A test is
 * named "relu: halves add up"; an operator without examples or golden values fails. */
struct subject_test {
    const char *name;
    void (*run)(struct subject *subject);
};
int test_subjects(const char *name, const struct subject_test *tests, size_t n);

/* The pass that an example's golden values are given for, in a graph of its own (to be unreferenced).
 * Operators have an upstream gradient, losses a target. */
struct pass test_given(struct subject *subject, int example, const char *variant, enum nn_dtype dtype);
/* The same of a loss, reduced by a sum or a mean, with sample weights "rows", "full" or none: "". */
struct pass test_given_loss(struct subject *subject, int example, const char *variant, enum nn_dtype dtype,
                            bool sum, const char *weight);
/* The value whose gradient is compared for an operator's or loss's input i is i itself; this is the first output of
 * the operator. */
int test_op_value(const struct pass *pass);

/* "y" for the value "op", "y.h_n" for "op.h_n": until the next call. */
const char *test_output(const struct nn_value_info *value);

/* A golden tensor of the example. */
const double *test_golden(struct subject *subject, const struct nn_shape *shape, int example,
                          const char *variant, const char *name, ...) __attribute__((format(printf, 5, 6)));

/* The number of elements of a value in the whole batch, or of a parameter. */
int64_t test_value_elements(const struct pass *pass, int value);
int64_t test_param_elements(const struct pass *pass, int param);

/* The pass, which has to succeed. */
void test_pass(struct subject *subject, struct pass *pass, const char *what);

static inline bool test_is_loss(const struct nn_def *def) { return def->flags & NN_IS_LOSS; }

#endif
