/* ops_golden.c - every operator and loss against PyTorch: outputs, losses, and the gradients of every input
 * and parameter; in double, and in float against PyTorch's double and float alike. */
#include <stdio.h>

#include "../support/subject.h"

static const struct comparison {
    enum nn_dtype dtype;
    const char *reference;
    double tolerance;
} comparisons[] = {{NN_F64, "f64", 1e-10}, {NN_F32, "f32", 1e-5}, {NN_F32, "f64", 1e-5}};
#define N_COMPARISONS (sizeof comparisons / sizeof comparisons[0])

/* A reference below the floor is compared absolutely. Large inputs saturate, and leave of a gradient what
 * cancellation leaves. */
static double floor_of(const char *variant) { return variant[0] == 'l' ? 1 : 1e-3; }

static void compare(struct subject *s, const double *got, const struct nn_shape *shape, int e,
                    const char *variant, const struct comparison *how, const char *name) {
    const double *want = test_golden(s, shape, e, variant, "%s/%s", how->reference, name);
    test_close(got, want, nn_shape_elements(shape), how->tolerance, floor_of(variant),
               "%s, example %d, %s inputs, %s against %s: %s", s->def->name, e, variant,
               nn_dtype_name(how->dtype), how->reference, name);
}

static void compare_operator(struct subject *s, int e, const char *variant, const struct comparison *how) {
    struct pass p = test_given(s, e, variant, how->dtype);
    test_pass(s, &p, variant);
    char name[160];
    int op = test_op_value(&p);
    for (int i = 0; i < nn_graph_value_count(p.graph); i++) {
        struct nn_value_info info = nn_graph_value(p.graph, i);
        struct nn_shape shape = nn_value_shape(&info, p.options.rows);
        snprintf(name, sizeof name, "d_x%d", i);
        if (i >= op)
            compare(s, p.y[i], &shape, e, variant, how, test_output(&info));
        else if (info.dtype != NN_I64)
            compare(s, p.d_x[i], &shape, e, variant, how, name);
    }
    for (int i = 0; i < nn_graph_param_count(p.graph); i++) {
        const struct nn_param *param = nn_graph_param(p.graph, i);
        const bool buffer = param->kind == NN_BUFFER;
        snprintf(name, sizeof name, "%s/%s", buffer ? "after" : "d_w", test_suffix(param));
        compare(s, buffer ? p.after[i] : p.d_w[i], &param->shape, e, variant, how, name);
    }
    nn_graph_unref(p.graph);
}

static void compare_loss(struct subject *s, int e, const char *variant, const struct comparison *how) {
    static const char *const weights[] = {"", "rows", "full"};
    for (int k = 0; k < 6; k++) {
        const char *weight = weights[k / 2];
        bool sum = k % 2;
        struct pass p = test_given_loss(s, e, variant, how->dtype, sum, weight);
        test_pass(s, &p, variant);
        char name[64], reduction[32];
        snprintf(reduction, sizeof reduction, "%s%s%s", sum ? "sum" : "mean", *weight ? "_" : "", weight);
        struct nn_shape scalar = {0}, shape = nn_shape_batch(p.options.rows, &s->def->examples[e].inputs[0]);
        snprintf(name, sizeof name, "%s/loss", reduction);
        compare(s, &p.loss[0], &scalar, e, variant, how, name);
        snprintf(name, sizeof name, "%s/d_x0", reduction);
        compare(s, p.d_x[0], &shape, e, variant, how, name);
        nn_graph_unref(p.graph);
    }
}

/* Ids are neither large nor small. */
static bool has_variant(const struct nn_def *def, const struct nn_example *example, const char *variant) {
    return variant[0] != 'l' || test_is_loss(def) || !example->ids;
}

static void compare_variant(struct subject *s, const char *variant) {
    for (int e = 0; e < s->def->n_examples; e++)
        for (size_t i = 0; i < N_COMPARISONS && has_variant(s->def, &s->def->examples[e], variant); i++)
            (test_is_loss(s->def) ? compare_loss : compare_operator)(s, e, variant, &comparisons[i]);
}

static void ordinary(struct subject *s) { compare_variant(s, "ordinary"); }

/* Nothing overflows on the way to a result that does not. */
static void large(struct subject *s) { compare_variant(s, "large"); }

/* The same subgradient as PyTorch's. */
static void kinks(struct subject *s) {
    if (s->def->flags & NN_HAS_KINKS) compare_variant(s, "kinks");
}

/* What is random in training, or of the batch, is not in evaluation. */
static void evaluation(struct subject *s) {
    if (s->def->flags & (NN_USES_RNG | NN_COUPLES_ROWS)) compare_variant(s, "eval");
}

int main(void) {
    static const struct subject_test tests[] = {
        {"golden values", ordinary},
        {"golden values, large inputs", large},
        {"golden values, at kinks", kinks},
        {"golden values, evaluation mode", evaluation},
    };
    nn_blas_init();
    return test_subjects("operators and losses against PyTorch", tests, sizeof tests / sizeof tests[0]);
}
