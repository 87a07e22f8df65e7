/* broadcast.c - operators on two inputs of different shapes, against a plain computation that repeats both: random
 * shapes, with and without rows, large enough that work is split. */
#include <stdio.h>
#include <string.h>

#include "../support/attrs.h"
#include "../support/check.h"
#include "../support/pass.h"
#include "../support/threads.h"

#include "../../core/graph.h"

enum { ROWS = 5 };

static uint32_t seed;

static uint32_t draw(uint32_t below) {
    seed = seed * 1664525U + 1013904223U;
    return (seed >> 8) % below;
}

/* Two inputs: their samples, and whether each is one sample for all rows. */
struct trial {
    const char *op;
    struct nn_shape in[2], out;
    bool shared[2];
    int64_t rows;
    struct nn_arena *arena;
};

/* A shape of up to four dimensions, and one that is repeated to it or with it. */
static void draw_shapes(struct trial *t) {
    const int rank = (int)draw(5);
    t->in[0] = t->in[1] = (struct nn_shape){.rank = rank};
    for (int i = 0; i < rank; i++) {
        const int64_t dim = 1 + draw(draw(3) ? 5 : 40);
        const uint32_t repeat = draw(4); /* 0: of the first input; 1: of the second */
        for (uint32_t k = 0; k < 2; k++) t->in[k].dim[i] = repeat == k ? 1 : dim;
    }
    struct nn_shape *shorter = &t->in[draw(2)]; /* without its leading ones */
    while (shorter->rank && shorter->dim[0] == 1)
        memmove(shorter->dim, shorter->dim + 1, (size_t)--shorter->rank * sizeof *shorter->dim);
    const uint32_t which = draw(3);
    t->shared[0] = which == 0;
    t->shared[1] = which == 1;
}

static void find_output(struct trial *t) {
    t->out.rank = t->in[0].rank > t->in[1].rank ? t->in[0].rank : t->in[1].rank;
    for (int i = 1; i <= t->out.rank; i++) {
        int64_t *dim = &t->out.dim[t->out.rank - i];
        *dim = 1;
        for (int k = 0; k < 2; k++)
            if (i <= t->in[k].rank && t->in[k].dim[t->in[k].rank - i] > 1)
                *dim = t->in[k].dim[t->in[k].rank - i];
    }
}

/* The element of an input that meets element `i` of a batch of the output. */
static int64_t element_of(const struct trial *t, int input, int64_t i) {
    const struct nn_shape *in = &t->in[input];
    int64_t at = 0, step = 1;
    for (int d = 1; d <= t->out.rank; d++) {
        const int64_t dim = t->out.dim[t->out.rank - d], place = i % dim;
        i /= dim;
        if (d > in->rank) continue;
        if (in->dim[in->rank - d] > 1) at += place * step;
        step *= in->dim[in->rank - d];
    }
    return t->shared[input] ? at : at + i * step;
}

static struct nn_graph *graph_of(const struct trial *t, enum nn_dtype dtype) {
    static const char *const names[] = {"a", "b"};
    struct nn_error err = {0};
    struct nn_graph *graph = nn_graph_new(dtype, &err);
    assert_non_null(graph);
    for (int k = 0; k < 2; k++)
        if (!t->shared[k])
            test_ok(nn_graph_add_input(graph, names[k], dtype, &t->in[k], &err), &err, "input");
    for (int k = 0; k < 2; k++) {
        char shape[160], attrs[192];
        if (!t->shared[k]) continue;
        snprintf(attrs, sizeof attrs, "\"shape\": %s", nn_shape_text(&t->in[k], shape, sizeof shape));
        struct nn_layer p = {.op = nn_op_find("parameter"), .name = names[k]};
        p.attrs = test_attrs(p.op, attrs, nn_graph_arena(graph), &err);
        test_ok(nn_graph_add_layer(graph, &p, &err), &err, "parameter");
    }
    const struct nn_layer op = {.op = nn_op_find(t->op), .name = "op", .inputs = names, .n_inputs = 2};
    test_ok(nn_graph_add_layer(graph, &op, &err), &err, "layer");
    test_ok(nn_graph_seal(graph, &err), &err, "%s", t->op);
    return graph;
}

static int64_t elements_of(const struct trial *t, int input) {
    return nn_shape_elements(&t->in[input]) * (t->shared[input] ? 1 : t->rows);
}

/* Floats between 1/2 and 3/2, of either sign. */
static double *numbers(const struct trial *t, int64_t n) {
    double *x = nn_arena_alloc(t->arena, (size_t)n, sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) x[i] = (draw(2) ? 1 : -1) * (0.5 + draw(4096) / 4096.0);
    return x;
}

static double value_of(const char *op, double a, double b) {
    return op[0] == 'a' ? a + b : op[0] == 's' ? a - b : op[0] == 'm' ? a * b : a / b;
}

static double slope_of(const char *op, int input, double a, double b) {
    const double slope[4][2] = {{1, 1}, {1, -1}, {b, a}, {1 / b, -a / b / b}};
    return slope[op[0] == 'a' ? 0 : op[0] == 's' ? 1 : op[0] == 'm' ? 2 : 3][input];
}

/* What the pass has answered, against loops over all elements. */
static void compare(const struct trial *t, const struct pass *p, const double *const x[2],
                    const double *const d_x[2], double near) {
    const int op = nn_graph_find(p->graph, "op");
    const int64_t n = t->rows * nn_shape_elements(&t->out);
    double *y = numbers(t, n), *want[2];
    for (int k = 0; k < 2; k++) {
        want[k] = numbers(t, elements_of(t, k));
        memset(want[k], 0, (size_t)elements_of(t, k) * sizeof **want);
    }
    for (int64_t i = 0; i < n; i++) {
        const int64_t at[2] = {element_of(t, 0, i), element_of(t, 1, i)};
        y[i] = value_of(t->op, x[0][at[0]], x[1][at[1]]);
        for (int k = 0; k < 2; k++)
            want[k][at[k]] += p->upstream[op][i] * slope_of(t->op, k, x[0][at[0]], x[1][at[1]]);
    }
    test_close(p->y[op], y, n, near, near, "%s: y", t->op);
    for (int k = 0; k < 2; k++)
        test_close(d_x[k], want[k], elements_of(t, k), near, near, "%s: gradient of input %d", t->op, k);
}

static void check(struct trial *t, enum nn_dtype dtype) {
    struct pass p = {.options = {.rows = t->rows, .mode = NN_TRAIN}};
    const struct nn_parallel par = test_parallel(3);
    const double *x[2], *d_x[2];
    find_output(t);
    p.graph = graph_of(t, dtype);
    const int op = nn_graph_find(p.graph, "op");
    assert_true(nn_shape_equal(&p.graph->values[op].shape, &t->out));
    for (int k = 0; k < 2; k++) {
        x[k] = numbers(t, elements_of(t, k));
        if (t->shared[k])
            p.w[0] = x[k];
        else
            p.x[nn_graph_find(p.graph, k ? "b" : "a")] = x[k];
    }
    p.upstream[op] = numbers(t, t->rows * nn_shape_elements(&t->out));
    struct pass threads = p;
    threads.par = &par;
    struct nn_error err = {0};
    test_ok(pass_run(&p, t->arena, &err), &err, "%s", t->op);
    test_ok(pass_run(&threads, t->arena, &err), &err, "%s", t->op);
    for (int k = 0; k < 2; k++) {
        const int value = nn_graph_find(p.graph, k ? "b" : "a");
        d_x[k] = t->shared[k] ? p.d_w[0] : p.d_x[value];
        test_same(t->shared[k] ? threads.d_w[0] : threads.d_x[value], d_x[k], elements_of(t, k),
                  "%s: threads: gradient of input %d", t->op, k);
    }
    test_same(threads.y[op], p.y[op], t->rows * nn_shape_elements(&t->out), "%s: threads: y", t->op);
    compare(t, &p, x, d_x, dtype == NN_F64 ? 1e-12 : 1e-5);
    nn_graph_unref(p.graph);
}

static const char *const ops[] = {"add", "sub", "mul", "div"};

static void random_shapes(void **state) {
    (void)state;
    for (int i = 0; i < 240; i++) {
        struct trial t = {.op = ops[i % 4], .rows = i % 3 ? ROWS : 5 * ROWS + 2, .arena = nn_arena_new()};
        seed = (uint32_t)i;
        draw_shapes(&t);
        check(&t, i / 4 % 2 ? NN_F32 : NN_F64);
        nn_arena_free(t.arena);
    }
}

/* Each way to be repeated, with more elements than one task has. */
static void large_shapes(void **state) {
    (void)state;
    static const struct trial trials[] = {
        {.in = {{1, {300}}, {1, {300}}}, .shared = {false, true}},        /* a bias without rows */
        {.in = {{2, {40, 300}}, {1, {300}}}},                             /* one with rows */
        {.in = {{2, {40, 300}}, {2, {40, 1}}}},                           /* a factor of each vector */
        {.in = {{3, {30, 4, 50}}, {2, {4, 1}}}, .shared = {true, false}}, /* of each channel */
        {.in = {{2, {70, 1}}, {1, {80}}}},                                /* both are repeated */
        {.in = {{0, {0}}, {1, {5000}}}, .shared = {true, false}},         /* one number for all */
        {.in = {{1, {1}}, {2, {500, 2}}}, .shared = {false, true}},
    };
    for (size_t i = 0; i < 2 * sizeof trials / sizeof *trials; i++)
        for (int op = 0; op < 4; op++) {
            struct trial t = trials[i / 2];
            t.op = ops[op];
            t.rows = i % 2 ? 40 : 1;
            t.arena = nn_arena_new();
            seed = (uint32_t)i;
            check(&t, NN_F32);
            nn_arena_free(t.arena);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_shapes), cmocka_unit_test(large_shapes)};
    nn_blas_init();
    return test_group("two inputs of different shapes", tests, 2);
}
