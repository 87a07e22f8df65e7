/* runs.c - passes through whole graphs: tapes and plans, versions, several losses at once, upstream gradients
 * anywhere, random numbers that a seed repeats. */
#include <math.h>
#include <string.h>

#include "../support/check.h"
#include "../support/golden.h"
#include "../support/model.h"
#include "../support/pass.h"
#include "../support/threads.h"

#define VECTOR(n) ((struct nn_shape){1, {n}})

static void run(struct pass *p, struct nn_arena *arena) {
    struct nn_error err = {0};
    test_ok(pass_run(p, arena, &err), &err, "pass");
}

/* --- one node read more than once ------------------------------------------------------------------------ */

static void used_twice(void **state) {
    (void)state;
    static const struct {
        const char *op;
        double factor, power; /* dx = factor x^power dy */
    } cases[] = {{"mul", 2, 1}, {"add", 2, 0}, {"sub", 0, 0}, {"concat", 2, 0}};
    const double x[] = {1.5, -2, 0.25}, d_y[] = {3, 5, 7, 3, 5, 7};
    for (int i = 0; i < 4; i++) {
        const struct row rows[] = {{.op = cases[i].op, .inputs = {"x", "x"}}, {0}};
        struct nn_arena *arena = nn_arena_new();
        struct pass p = {.graph = test_model(NN_F64, VECTOR(3), rows), .options = {.rows = 1}, .x = {x}};
        p.upstream[1] = d_y;
        run(&p, arena);
        for (int k = 0; k < 3; k++)
            assert_true(p.d_x[0][k] == cases[i].factor * pow(x[k], cases[i].power) * d_y[k]);
        nn_graph_unref(p.graph);
        nn_arena_free(arena);
    }
}

/* --- nodes that are done together -------------------------------------------------------------------------- */

/* Elementwise nodes behind a product, more of them than it takes along, one that reads its input twice, one that
 * reads further back; over tiles that cut rows. Every value, and every gradient, is that of its own formula. */
static void fused_nodes(void **state) {
    (void)state;
    enum { ROWS = 100, WIDTH = 70, N = ROWS * WIDTH, A = 1, B, C, D, E, F, G };
    static const struct row rows[] = {{.op = "linear", .name = "a", .attrs = "\"out_features\": 70"},
                                      {.op = "relu", .name = "b"},
                                      {.op = "mul", .name = "c", .inputs = {"b", "b"}},
                                      {.op = "add", .name = "d", .inputs = {"c", "x"}},
                                      {.op = "leaky_relu", .name = "e", .attrs = "\"negative_slope\": 0.25"},
                                      {.op = "sub", .name = "f", .inputs = {"e", "b"}},
                                      {.op = "linear", .name = "g", .attrs = "\"out_features\": 3"},
                                      {0}};
    static double x[N], w[WIDTH * WIDTH], upstream[ROWS * 3];
    const struct nn_parallel par = test_parallel(2);
    struct nn_arena *arena = nn_arena_new();
    for (int i = 0; i < N; i++) x[i] = sin(i);
    for (int i = 0; i < WIDTH * WIDTH; i++) w[i] = cos(3 * i) / 8;
    for (int i = 0; i < ROWS * 3; i++) upstream[i] = sin(7 * i);
    struct nn_error err = {0};
    struct pass p = {.options = {.rows = ROWS}, .par = &par};
    p.graph = test_inputs(NN_F64, VECTOR(WIDTH), NO_INPUT);
    test_ok(test_add(p.graph, rows, &err), &err, "layers");
    for (int i = 0; rows[i].op; i++)
        test_ok(nn_graph_add_output(p.graph, rows[i].name, &err), &err, "output");
    test_ok(nn_graph_seal(p.graph, &err), &err, "sealing");
    p.x[0] = x;
    p.w[0] = p.w[1] = p.w[2] = p.w[3] = w;
    p.upstream[G] = upstream;
    run(&p, arena);
    for (int i = 0; i < N; i++) {
        double b = p.y[B][i], d = p.y[D][i], d_f = p.d_x[F][i], d_d = p.d_x[D][i];
        assert_true(b == fmax(p.y[A][i], 0) && p.y[C][i] == b * b && d == p.y[C][i] + x[i]);
        assert_true(p.y[E][i] == d * (d > 0 ? 1 : 0.25) && p.y[F][i] == p.y[E][i] - b);
        assert_true(d_f != 0 && p.d_x[E][i] == d_f && d_d == d_f * (d > 0 ? 1 : 0.25));
        assert_true(p.d_x[C][i] == d_d && p.d_x[B][i] == -d_f + d_d * b + d_d * b);
        assert_true(p.d_x[A][i] == (b > 0 ? p.d_x[B][i] : 0));
    }
    nn_graph_unref(p.graph);
    nn_arena_free(arena);
}

/* --- losses and upstream gradients at once ------------------------------------------------------------------ */

static struct nn_graph *several_losses_graph(enum nn_dtype dtype) {
    static const struct row rows[] = {{.op = "linear", .name = "a", .attrs = "\"out_features\": 5"},
                                      {.op = "gelu", .name = "h"},
                                      {.op = "linear", .name = "b", .attrs = "\"out_features\": 5"},
                                      {.op = "add", .name = "z", .inputs = {"h", "b"}},
                                      {0}};
    struct nn_error err = {0};
    struct nn_graph *graph = test_inputs(dtype, VECTOR(6), NO_INPUT);
    struct nn_loss entropy = {.op = nn_op_find("cross_entropy"), .scale = 0.7};
    struct nn_loss squares = {.op = nn_op_find("mse"),
                              .input = "h",
                              .target = "t",
                              .sample_weight = "weight",
                              .scale = -0.3,
                              .sum = true};
    test_ok(test_add(graph, rows, &err), &err, "layers");
    test_ok(nn_graph_add_loss(graph, &entropy, &err), &err, "cross_entropy");
    test_ok(nn_graph_add_loss(graph, &squares, &err), &err, "mse");
    test_ok(nn_graph_seal(graph, &err), &err, "sealing");
    return graph;
}

static struct pass several_losses_pass(struct golden *g, enum nn_dtype dtype) {
    struct nn_shape rows = {1, {4}}, h = {2, {4, 5}}, x = {2, {4, 6}};
    struct pass p = {.graph = several_losses_graph(dtype), .options = {.rows = 4}};
    p.x[0] = golden_get(g, &x, "x");
    for (int i = 0; i < nn_graph_param_count(p.graph); i++) {
        const struct nn_param *param = nn_graph_param(p.graph, i);
        p.w[i] = golden_get(g, &param->shape, "w/%s", param->name);
    }
    p.target[0] = golden_get(g, &rows, "y");
    p.target_ids[0] = true;
    p.target[1] = golden_get(g, &h, "t");
    p.weight[1] = golden_get(g, &rows, "weight");
    p.upstream[nn_graph_find(p.graph, "h")] = golden_get(g, &h, "upstream/h");
    return p;
}

static void compare_several(struct golden *g, enum nn_dtype dtype, const char *reference, double tolerance) {
    static const char *const nodes[] = {"x", "h", "z"};
    struct nn_arena *arena = nn_arena_new();
    struct pass p = several_losses_pass(g, dtype);
    run(&p, arena);
    for (int i = 0; i < 3; i++) {
        int node = nn_graph_find(p.graph, nodes[i]);
        struct nn_value_info info = nn_graph_value(p.graph, node);
        struct nn_shape shape = nn_shape_batch(4, &info.shape);
        test_close(p.d_x[node], golden_get(g, &shape, "%s/d_%s", reference, nodes[i]),
                   nn_shape_elements(&shape), tolerance, 0, "%s: gradient of %s", reference, nodes[i]);
    }
    for (int i = 0; i < nn_graph_param_count(p.graph); i++) {
        const struct nn_param *param = nn_graph_param(p.graph, i);
        test_close(p.d_w[i], golden_get(g, &param->shape, "%s/d_w/%s", reference, param->name),
                   param->elements, tolerance, 0, "%s: gradient of %s", reference, param->name);
    }
    test_close(p.loss, golden_get(g, &VECTOR(2), "%s/losses", reference), 2, tolerance, 0, "%s: losses",
               reference);
    nn_graph_unref(p.graph);
    nn_arena_free(arena);
}

static void several_losses(void **state) {
    (void)state;
    struct golden *g = golden_open("several_losses", NULL);
    compare_several(g, NN_F64, "f64", 1e-10);
    compare_several(g, NN_F32, "f64", 1e-5);
    compare_several(g, NN_F32, "f32", 1e-5);
    golden_close(g);
}

/* Losses alone and upstream alone add up to both at once. */
static void parts_add_up(void **state) {
    (void)state;
    struct golden *g = golden_open("several_losses", NULL);
    struct nn_arena *arena = nn_arena_new();
    struct pass both = several_losses_pass(g, NN_F64), losses = both, upstream = both;
    memset(losses.upstream, 0, sizeof losses.upstream);
    memset(upstream.target, 0, sizeof upstream.target);
    run(&both, arena);
    run(&losses, arena);
    run(&upstream, arena);
    for (int i = 0; i < 24; i++) losses.d_x[0][i] += upstream.d_x[0][i];
    test_close(losses.d_x[0], both.d_x[0], 24, 1e-13, 0, "sum of the parts");
    assert_true(both.normalizer[0] == 4 && both.normalizer[1] == 1);
    double *zero = upstream.d_x[nn_graph_find(both.graph, "z")];
    for (int i = 0; i < 20; i++) assert_true(zero[i] == 0); /* nothing flows there */
    nn_graph_unref(both.graph);
    nn_arena_free(arena);
    golden_close(g);
}

static void nonfinite_gradients(void **state) {
    (void)state;
    struct golden *g = golden_open("several_losses", NULL);
    struct pass p = several_losses_pass(g, NN_F32);
    struct nn_error err = {0};
    struct nn_params *params = nn_params_new(p.graph, &err);
    struct nn_grads *grads = nn_grads_new(p.graph, &err);
    p.options.tape = true;
    struct nn_run *r = nn_run_new_take(params, nn_plan_forward(p.graph, &p.options, &err), &err);
    memset(nn_run_input(r, 0), 0, 24 * sizeof(float));
    nn_run_forward(r, NULL);
    bool upstream[PASS_MAX] = {false}, nodes[PASS_MAX] = {[0] = true};
    int h = nn_graph_find(p.graph, "h");
    upstream[h] = nodes[h] = true;
    struct nn_backward_options options = {.upstream = upstream, .nodes = nodes, .parameters = true};
    struct nn_backward *b =
        nn_backward_new_take(r, nn_plan_backward(p.graph, &p.options, &options, &err), &err);
    test_ok(0, &err, "backward");
    float *d_h = nn_backward_upstream(b, h);
    for (int i = 0; i < 20; i++) d_h[i] = i == 19 ? INFINITY : 1;
    nn_backward_run(b, grads, NULL);
    assert_false(nn_backward_gradient_finite(b, h));
    assert_false(nn_backward_gradient_finite(b, 0));
    assert_string_equal(nn_graph_param(p.graph, nn_grads_first_nonfinite(grads, NULL))->name, "a.weight");
    assert_null(nn_backward_gradient(b, nn_graph_find(p.graph, "z")));
    nn_backward_free(b);
    nn_run_free(r);
    nn_grads_free(grads);
    nn_params_unref(params);
    nn_graph_unref(p.graph);
    golden_close(g);
}

/* --- versions ------------------------------------------------------------------------------------------------ */

/* A run goes on with the parameters that its forward saw, whatever comes after them. */
static void old_versions(void **state) {
    (void)state;
    static const struct row rows[] = {{.op = "linear", .attrs = "\"out_features\": 1, \"bias\": false"}, {0}};
    struct nn_error err = {0};
    struct nn_graph *graph = test_model(NN_F64, VECTOR(2), rows);
    struct nn_params *old = nn_params_new(graph, &err), *new = nn_params_new(graph, &err);
    double *w = nn_params_data(old, 0), *w_new = nn_params_data(new, 0);
    w[0] = 2, w[1] = 3, w_new[0] = w_new[1] = 100;
    struct nn_run_options options = {.rows = 1, .tape = true};
    struct nn_run *r = nn_run_new_take(old, nn_plan_forward(graph, &options, &err), &err);
    nn_params_set_version(old, 7);
    nn_params_set_version(new, 8);
    nn_params_unref(old); /* the run holds it */
    double *x = nn_run_input(r, 0);
    x[0] = 5, x[1] = 11;
    nn_run_forward(r, NULL);
    struct nn_optimizer *sgd = nn_optimizer_new(
        graph, nn_optimizer_find("sgd"), nn_attrs_new(nn_optimizer_find("sgd"), nn_graph_arena(graph)), &err);
    struct nn_grads *grads = nn_grads_new(graph, &err);
    nn_optimizer_step(sgd, nn_run_params(r), grads, 1, 1, new, NULL);
    w_new[0] = w_new[1] = 100;
    bool upstream[] = {false, true}, nodes[] = {true, false};
    struct nn_backward_options ask = {.upstream = upstream, .nodes = nodes};
    struct nn_backward *b = nn_backward_new_take(r, nn_plan_backward(graph, &options, &ask, &err), &err);
    test_ok(0, &err, "backward");
    *(double *)nn_backward_upstream(b, 1) = 1;
    nn_backward_run(b, NULL, NULL);
    const double *d_x = nn_backward_gradient(b, 0);
    assert_true(*(const double *)nn_run_value(r, 1) == 43 && d_x[0] == 2 && d_x[1] == 3);
    assert_int_equal(nn_params_version(nn_run_params(r)), 7);
    assert_int_equal(nn_run_options(r)->rows, 1);
    nn_backward_free(b);
    nn_run_free(r);
    nn_optimizer_free(sgd);
    nn_grads_free(grads);
    nn_params_unref(new);
    nn_graph_unref(graph);
}

/* --- tapes and plans -------------------------------------------------------------------------------------------- */

#define DEEP 12

static struct nn_graph *deep_graph(void) {
    struct row rows[DEEP + 1] = {{0}};
    for (int i = 0; i < DEEP; i++) rows[i].op = "tanh";
    return test_model(NN_F32, VECTOR(16), rows);
}

static size_t forward_bytes(const struct nn_graph *graph, int64_t rows, bool tape) {
    struct nn_error err = {0};
    struct nn_run_options options = {.rows = rows, .tape = tape};
    struct nn_plan *plan = nn_plan_forward(graph, &options, &err);
    test_ok(0, &err, "plan");
    size_t bytes = nn_plan_bytes(plan);
    nn_plan_free(plan);
    return bytes;
}

/* Without a tape an elementwise chain of any length overwrites one value; a tape keeps all; rows count in full. */
static void planned_bytes(void **state) {
    (void)state;
    struct nn_graph *graph = deep_graph();
    size_t value = sizeof(float[1000][16]);
    assert_int_equal(forward_bytes(graph, 1000, false), value);
    assert_in_range(forward_bytes(graph, 1000, true), DEEP * value, (DEEP + 1) * value);
    assert_int_equal(forward_bytes(graph, 4000, true), 4 * forward_bytes(graph, 1000, true));
    nn_graph_unref(graph);
}

/* What is planned is what is there: every value lies in the bytes behind the first input, which the plan
 * places first, and no two kept values overlap. */
static void planned_places(void **state) {
    (void)state;
    struct nn_error err = {0};
    struct nn_graph *graph = deep_graph();
    struct nn_run_options options = {.rows = 100, .tape = true};
    struct nn_plan *plan = nn_plan_forward(graph, &options, &err);
    size_t bytes = nn_plan_bytes(plan), value = sizeof(float[100][16]);
    struct nn_params *params = nn_params_new(graph, &err);
    struct nn_run *r = nn_run_new_take(params, plan, &err);
    const char *start = nn_run_input(r, 0);
    for (int i = 1; i <= DEEP; i++) {
        const char *at = nn_run_value(r, i);
        assert_non_null(at); /* tanh reads its output */
        assert_true(at >= start && at + value <= start + bytes);
        for (int k = 1; k < i; k++) {
            const char *other = nn_run_value(r, k);
            assert_true(at + value <= other || other + value <= at);
        }
    }
    nn_run_free(r);
    nn_params_unref(params);
    nn_graph_unref(graph);
}

/* y = x + linear(x) is computed with the product, part by part, while other parts of the product still read x. */
static void a_sum_with_what_the_product_reads(void **state) {
    (void)state;
    enum { WIDE = 2304, FEW = 8 }; /* parts of a row */
    const struct row rows[] = {{"linear", .name = "l", .attrs = "\"out_features\": 2304"},
                               {"add", .name = "y", .inputs = {"x", "l"}},
                               {0}};
    struct nn_graph *graph = test_model(NN_F32, VECTOR(WIDE), rows);
    struct nn_error err = {0};
    struct nn_params *params = nn_params_new(graph, &err);
    const void *value[2];
    struct nn_run *run[2];
    nn_params_init(params, 1);
    for (int tape = 0; tape < 2; tape++) { /* with a tape x is kept */
        struct nn_run_options options = {.rows = FEW, .tape = tape};
        run[tape] = nn_run_new_take(params, nn_plan_forward(graph, &options, &err), &err);
        test_ok(0, &err, "run");
        float *x = nn_run_input(run[tape], 0);
        for (int i = 0; i < FEW * WIDE; i++) x[i] = (float)(i % 977) / 977;
        nn_run_forward(run[tape], NULL);
        value[tape] = nn_run_value(run[tape], nn_graph_find(graph, "y"));
    }
    assert_memory_equal(value[0], value[1], sizeof(float[FEW][WIDE]));
    for (int tape = 0; tape < 2; tape++) nn_run_free(run[tape]);
    nn_params_unref(params);
    nn_graph_unref(graph);
}

static void refused_batches(void **state) {
    (void)state;
    struct nn_graph *graph = deep_graph();
    static const struct {
        int64_t rows, first_row;
        enum nn_code code;
    } cases[] = {
        {0, 0, NN_E_VALUE},         {-1, 0, NN_E_VALUE},       {1, -1, NN_E_VALUE},
        {2, INT64_MAX, NN_E_VALUE}, {INT64_MAX, 0, NN_E_SIZE}, {(1 << 27), 0, NN_E_SIZE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nn_run_options options = {
            .rows = cases[i].rows, .first_row = cases[i].first_row, .tape = true};
        struct nn_backward_options back = {.parameters = true};
        struct nn_error err = {0};
        assert_null(nn_plan_forward(graph, &options, &err));
        test_refused((int)err.code, &err, cases[i].code, "forward, case %zu", i);
        bool upstream[DEEP + 1] = {[DEEP] = true}, nodes[DEEP + 1] = {[0] = true};
        back.upstream = upstream;
        back.nodes = nodes;
        err = (struct nn_error){0};
        assert_null(nn_plan_backward(graph, &options, &back, &err));
        test_refused((int)err.code, &err, cases[i].code, "backward, case %zu", i);
    }
    nn_graph_unref(graph);
}

/* What nobody asked for is neither read nor computed. */
static void unread_inputs(void **state) {
    (void)state;
    static const struct row rows[] = {
        {.op = "tanh", .name = "a", .inputs = {"x"}}, {.op = "tanh", .name = "b", .inputs = {"z"}}, {0}};
    struct nn_error err = {0};
    struct nn_graph *graph = test_inputs(NN_F32, VECTOR(2), VECTOR(2));
    test_ok(test_add(graph, rows, &err), &err, "layers");
    test_ok(nn_graph_seal(graph, &err), &err, "sealing");
    bool wanted[] = {false, false, true, false};
    struct nn_run_options options = {.rows = 1, .wanted = wanted};
    struct nn_params *params = nn_params_new(graph, &err);
    struct nn_run *r = nn_run_new_take(params, nn_plan_forward(graph, &options, &err), &err);
    assert_true(nn_run_reads(r, 0) && !nn_run_reads(r, 1));
    assert_null(nn_run_input(r, 1));
    float *x = nn_run_input(r, 0);
    x[0] = 0, x[1] = 100;
    nn_run_forward(r, NULL);
    const float *a = nn_run_value(r, 2);
    assert_true(a[0] == 0 && a[1] == 1);
    assert_true(!nn_run_value(r, 0) && !nn_run_value(r, 1) && !nn_run_value(r, 3));
    nn_run_free(r);
    nn_params_unref(params);
    nn_graph_unref(graph);
}

/* --- random numbers ----------------------------------------------------------------------------------------------- */

enum { ROWS = 400, WIDTH = 250, CELLS = ROWS * WIDTH, SKIPPED = 3 * WIDTH };

/* Masks of two dropout layers, on ones: 0 or 1 / (1 - p). */
static struct pass masks(uint64_t seed, int64_t first_row, struct nn_arena *arena) {
    static const struct row rows[] = {{.op = "dropout", .inputs = {"x"}, .attrs = "\"p\": 0.2"},
                                      {.op = "dropout", .inputs = {"x"}, .attrs = "\"p\": 0.2"},
                                      {0}};
    double *ones = nn_arena_alloc(arena, CELLS, sizeof *ones);
    for (int i = 0; i < CELLS; i++) ones[i] = 1;
    struct nn_error err = {0};
    struct nn_graph *graph = test_inputs(NN_F32, VECTOR(WIDTH), NO_INPUT);
    test_ok(test_add(graph, rows, &err), &err, "layers");
    test_ok(nn_graph_add_output(graph, "0", &err), &err, "output"); /* what is no output need not be kept */
    test_ok(nn_graph_add_output(graph, "1", &err), &err, "output");
    test_ok(nn_graph_seal(graph, &err), &err, "sealing");
    struct pass p = {.graph = graph,
                     .options = {.rows = ROWS, .first_row = first_row, .mode = NN_TRAIN, .seed = seed},
                     .x = {ones},
                     .upstream = {[1] = ones, [2] = ones}};
    run(&p, arena);
    nn_graph_unref(p.graph);
    return p;
}

/* The share of elements that are dropped in both. */
static double overlap(const double *a, const double *b) {
    int both = 0;
    for (int i = 0; i < CELLS; i++) both += a[i] == 0 && b[i] == 0;
    return both / (double)(CELLS);
}

static void masks_by_seed(void **state) {
    (void)state;
    struct nn_arena *arena = nn_arena_new();
    struct pass p = masks(5, 0, arena), again = masks(5, 0, arena), other = masks(6, 0, arena),
                high = masks(5 + (1ull << 40), 0, arena), later = masks(5, 3, arena);
    int64_t n = CELLS;
    for (int i = 1; i <= 2; i++) test_same(again.y[i], p.y[i], n, "the same seed");
    test_same(later.y[1], p.y[1] + SKIPPED, n - SKIPPED, "three rows on");
    assert_true(fabs(overlap(p.y[1], p.y[1]) - 0.2) < 0.006); /* five standard errors; independent: 0.04 */
    const double *pairs[][2] = {
        {p.y[1], p.y[2]}, {p.y[1], other.y[1]}, {p.y[1], high.y[1]}, {p.y[1], later.y[1]}};
    for (int i = 0; i < 4; i++) assert_true(fabs(overlap(pairs[i][0], pairs[i][1]) - 0.04) < 0.003);
    for (int64_t i = 0; i < n; i++) assert_true(p.y[1][i] == 0 || p.y[1][i] == (double)1.25f);
    for (int64_t i = 0; i < n; i++) assert_true(p.d_x[0][i] == p.y[1][i] + p.y[2][i]);
    nn_arena_free(arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(used_twice),
        cmocka_unit_test(several_losses),
        cmocka_unit_test(parts_add_up),
        cmocka_unit_test(nonfinite_gradients),
        cmocka_unit_test(old_versions),
        cmocka_unit_test(planned_bytes),
        cmocka_unit_test(planned_places),
        cmocka_unit_test(refused_batches),
        cmocka_unit_test(a_sum_with_what_the_product_reads),
        cmocka_unit_test(unread_inputs),
        cmocka_unit_test(masks_by_seed),
        cmocka_unit_test(fused_nodes),
    };
    nn_blas_init();
    return cmocka_run_group_tests_name("runs", tests, NULL, NULL);
}
