/* ops_relative.c - every operator and loss in float against itself in double: each number relatively, over the whole
 * range of exponents. A small number that is computed as the difference of large ones is found here. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "../../core/graph.h"
#include "../support/attrs.h"
#include "../support/subject.h"

/* --- exceptions, each with its reason ----------------------------------------------------------------- */

/* Operators that are given positive numbers alone. */
static const struct {
    const char *op, *why;
} positive[] = {
    {"linear", "a sum of products of both signs cancels as its operands say, whatever the formula"},
    {"matmul", "as linear"},
    {"lstm", "as linear"},
    {"nll", "its mean is of numbers of both signs, and each may be infinite in float"},
};

static bool is_positive(const struct nn_def *def) {
    for (size_t i = 0; i < sizeof positive / sizeof *positive; i++)
        if (strcmp(positive[i].op, def->name) == 0) return true;
    return false;
}

/* What is right to within so much of it, */
#define RELATIVE 0x1p-19
/* or for inputs that are off by so much of them: near a root of a slope (gelu, silu), and in the tail of an
 * exponential, a rounding of the input moves the result by more than a rounding. */
#define MOVED 0x1p-21
/* or off by so little: below the normal numbers digits end, and the tails of gelu and silu are such a number times
 * one of the order of 100. */
#define SMALLEST (256 * 0x1p-149)
/* Results that are greater may be infinite in float, on their way to a sum or a mean at least. */
#define GREATEST ((double)FLT_MAX / 64)

/* want[0] is for the inputs as they are, the others for moved ones. */
enum { WANTED = 5 };

static bool is_right(double got, const double want[WANTED]) {
    double allowed = RELATIVE * fabs(want[0]) + SMALLEST;
    for (int k = 1; k < WANTED; k++) allowed += fabs(want[k] - want[0]);
    if (fabs(want[0]) > GREATEST && isinf(got)) return (got > 0) == (want[0] > 0);
    return fabs(got - want[0]) <= allowed;
}

/* --- cases ----------------------------------------------------------------------------------------------- */

enum {
    ROWS = 8,
    PATTERNS = 3,
    LEAST = -149,
    MOST = 127,
    COMMON_LEAST = -2,
    COMMON_MOST = 7,
    COMMON_TIMES = 8
};

/* One try of an example: inputs of the size 2^exponent. */
struct trial {
    struct subject *s;
    int example, exponent, pattern;
    uint32_t draws;
};

static uint32_t draw(struct trial *t) {
    t->draws = t->draws * 1664525U + 1013904223U;
    return t->draws >> 8;
}

/* A float of this size, of either sign unless the operator is an exception. */
static double number(struct trial *t, int exponent) {
    int e = exponent < LEAST ? LEAST : exponent > MOST ? MOST : exponent;
    double size = (double)(float)ldexp(1 + (double)draw(t) * 0x1p-24, e);
    return draw(t) % 2 && !is_positive(t->s->def) ? -size : size;
}

static double *room(struct trial *t, int64_t n) {
    double *array = nn_arena_alloc(t->s->arena, (size_t)n, sizeof *array);
    assert_non_null(array);
    return array;
}

static const double *numbers(struct trial *t, int64_t n, int exponent) {
    double *x = room(t, n);
    for (int64_t i = 0; i < n; i++) x[i] = number(t, exponent);
    return x;
}

static const double *ids(struct trial *t, int64_t n) {
    double *x = room(t, n);
    for (int64_t i = 0; i < n; i++) x[i] = draw(t) % (uint32_t)t->s->def->examples[t->example].classes;
    return x;
}

/* Between 0 and 1: 0 or 1; powers of 1/5; or one 1 in a row. (A gradient has a root where the input says what
 * the target is. These targets have none at 0, where there are floats as near to it as one likes.) */
static const double *shares(struct trial *t, int64_t n) {
    double *x = room(t, n);
    int64_t row = n / ROWS;
    for (int64_t i = 0; i < n; i++)
        x[i] = t->pattern == 0   ? (double)((i / 2 + i / row) % 2)
               : t->pattern == 1 ? pow(5, -(double)((i + i / row) % row))
                                 : i % row == (i / row) % row;
    return x;
}

/* Of each element where they do not mix, else of one in a row: a sum over the others of both signs would cancel. */
static const double *upstream(struct trial *t, const struct nn_graph *graph, int64_t n) {
    const struct nn_node *node = &graph->nodes[graph->n_nodes - 1];
    bool elementwise = node->op->backward_split == NN_BY_ELEMENT && !node->inferred.broadcasts;
    double *x = room(t, n);
    int64_t row = n / ROWS;
    for (int64_t i = 0; i < n; i++)
        x[i] = elementwise || i % row == (i / row) % row ? 1 + (double)(draw(t) % 1024) / 1024 : 0;
    return x;
}

/* The second input is of the same size, of the order of 1, or smaller. */
static int exponent_of(const struct trial *t, int input) {
    return input == 0 || t->pattern == 0 ? t->exponent : t->pattern == 1 ? 0 : t->exponent - 12;
}

static void fill(struct trial *t, struct pass *p) {
    for (int i = 0; i < nn_graph_input_count(p->graph); i++) {
        int64_t n = test_value_elements(p, i);
        bool is_id = nn_graph_value(p->graph, i).dtype == NN_I64;
        p->x[i] = is_id ? ids(t, n) : numbers(t, n, exponent_of(t, i));
    }
    for (int i = 0; i < nn_graph_param_count(p->graph); i++)
        p->w[i] = numbers(t, test_param_elements(p, i), t->pattern ? 0 : t->exponent);
    if (!test_is_loss(t->s->def)) {
        int op = test_op_value(p);
        p->upstream[op] = upstream(t, p->graph, test_value_elements(p, op));
        return;
    }
    struct nn_loss_info loss = nn_graph_loss(p->graph, 0);
    p->target_ids[0] = t->s->def->examples[t->example].ids;
    for (int i = 0; i < loss.n_forms; i++) {
        int64_t n = ROWS * nn_shape_elements(&loss.forms[i].shape);
        if (loss.forms[i].ids == p->target_ids[0]) p->target[0] = p->target_ids[0] ? ids(t, n) : shares(t, n);
    }
}

/* The same in another graph, with its inputs moved by these shares of them, in turns. */
static struct pass moved(struct trial *t, const struct pass *from, struct nn_graph *graph,
                         const double by[2]) {
    struct pass p = *from;
    p.graph = graph;
    for (int i = 0; i < nn_graph_input_count(graph); i++) {
        const double *given = from->x[i];
        if (!given || nn_graph_value(graph, i).dtype == NN_I64) continue;
        int64_t n = test_value_elements(from, i);
        double *x = room(t, n);
        for (int64_t k = 0; k < n; k++) x[k] = given[k] * (1 + by[(k / 2 + k) % 2]);
        p.x[i] = x;
    }
    return p;
}

/* --- one against the other ---------------------------------------------------------------------------------- */

static void compare(const struct trial *t, const char *what, int index, const double *got,
                    const double *const want[WANTED], int64_t n) {
    for (int64_t i = 0; got && i < n; i++) {
        double wanted[WANTED];
        for (int k = 0; k < WANTED; k++) wanted[k] = want[k][i];
        if (!is_right(got[i], wanted))
            fail_msg("%s, example %d, inputs of 2^%d, pattern %d: %s %d [%lld] is %.9g, and %.9g in double",
                     t->s->def->name, t->example, t->exponent, t->pattern, what, index, (long long)i, got[i],
                     wanted[0]);
    }
}

static void try(struct trial *t, struct nn_graph *narrow, struct nn_graph *wide) {
    static const double by[WANTED][2] = {
        {0, 0}, {MOVED, MOVED}, {-MOVED, -MOVED}, {MOVED, -MOVED}, {-MOVED, MOVED}};
    struct pass p = {.graph = narrow, .options = {.rows = ROWS, .mode = NN_TRAIN, .seed = 7}}, w[WANTED];
    const double *want[WANTED];
    fill(t, &p);
    for (int k = 0; k < WANTED; k++) w[k] = moved(t, &p, wide, by[k]), test_pass(t->s, &w[k], "double");
    test_pass(t->s, &p, "float");
    for (int i = 0; i < nn_graph_value_count(narrow); i++) {
        int64_t n = test_value_elements(&p, i);
        for (int k = 0; k < WANTED; k++) want[k] = w[k].y[i];
        if (!test_is_loss(t->s->def)) compare(t, "node", i, p.y[i], want, n);
        for (int k = 0; k < WANTED; k++) want[k] = w[k].d_x[i];
        compare(t, "gradient of node", i, p.d_x[i], want, n);
    }
    for (int i = 0; i < nn_graph_param_count(narrow); i++) {
        if (!p.d_w[i]) continue;
        for (int k = 0; k < WANTED; k++) want[k] = w[k].d_w[i];
        compare(t, "gradient of parameter", i, p.d_w[i], want, test_param_elements(&p, i));
    }
    for (int k = 0; k < WANTED; k++) want[k] = w[k].loss;
    compare(t, "loss", 0, p.loss, want, 1);
}

static void try_all(struct subject *s, int example, struct nn_graph *narrow, struct nn_graph *wide) {
    for (int exponent = LEAST; exponent <= MOST; exponent++)
        for (int pattern = 0; pattern < PATTERNS; pattern++) {
            bool common = exponent >= COMMON_LEAST && exponent <= COMMON_MOST;
            for (int time = 0; time < (common ? COMMON_TIMES : 1); time++) {
                struct trial t = {s, example, exponent, pattern,
                                  (uint32_t)(exponent * 1009 + pattern * 31 + time)};
                try(&t, narrow, wide);
                nn_arena_free(s->arena);
                s->arena = nn_arena_new();
            }
        }
}

static void float_as_double(struct subject *s) {
    for (int e = 0; e < s->def->n_examples; e++) {
        struct nn_error err = {0};
        struct nn_loss how = {0};
        struct nn_graph *narrow = test_graph_of(s->def, &s->def->examples[e], NN_F32, &how, &err);
        struct nn_graph *wide = test_graph_of(s->def, &s->def->examples[e], NN_F64, &how, &err);
        test_ok(0, &err, "%s, example %d", s->def->name, e);
        try_all(s, e, narrow, wide);
        nn_graph_unref(narrow);
        nn_graph_unref(wide);
    }
}

int main(void) {
    static const struct subject_test tests[] = {{"float as double", float_as_double}};
    nn_blas_init();
    return test_subjects("float against double, relatively", tests, sizeof tests / sizeof tests[0]);
}
