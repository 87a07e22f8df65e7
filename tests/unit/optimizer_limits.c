/* optimizer_limits.c - the greatest gradient that each optimizer takes, and what its steps do beyond it. */
#include <math.h>
#include <string.h>

#include "../support/attrs.h"
#include "../support/check.h"
#include "../support/pass.h"

/* One weight, of a layer "a"; parameters swap between two blocks. */
struct training {
    struct nn_graph *graph;
    struct nn_params *now, *next;
    struct nn_grads *grads;
    struct nn_optimizer *optimizer;
};

static struct training training_new(const struct nn_def *def, const char *attrs, enum nn_dtype dtype) {
    struct training t;
    struct nn_error err = {0};
    struct nn_shape sample = {1, {1}};
    t.graph = nn_graph_new(dtype, &err);
    struct nn_layer layer = {.op = nn_op_find("matmul"), .name = "a"};
    layer.attrs = test_attrs(layer.op, "\"out_features\": 1", nn_graph_arena(t.graph), &err);
    test_ok(nn_graph_add_input(t.graph, "x", dtype, &sample, &err), &err, "x");
    test_ok(nn_graph_add_layer(t.graph, &layer, &err), &err, "a");
    test_ok(nn_graph_seal(t.graph, &err), &err, "graph");
    t.now = nn_params_new(t.graph, &err);
    t.next = nn_params_new(t.graph, &err);
    t.grads = nn_grads_new(t.graph, &err);
    t.optimizer = nn_optimizer_new(t.graph, def, test_attrs(def, attrs, nn_graph_arena(t.graph), &err), &err);
    test_ok(0, &err, "%s: %s", def->name, attrs);
    return t;
}

static void training_free(struct training *t) {
    nn_optimizer_free(t->optimizer);
    nn_grads_free(t->grads);
    nn_params_unref(t->now);
    nn_params_unref(t->next);
    nn_graph_unref(t->graph);
}

static bool step(struct training *t, double g, double scale) {
    test_narrow(&g, nn_graph_dtype(t->graph), nn_grads_data(t->grads, 0), 1);
    bool finite = nn_optimizer_step(t->optimizer, t->now, t->grads, scale, (double)NAN, t->next, NULL);
    struct nn_params *made = t->next;
    t->next = t->now;
    t->now = made;
    return finite;
}

/* Calls check for every example of every optimizer, in both types. */
static void every_example(void (*check)(const struct nn_def *def, const char *attrs, enum nn_dtype dtype)) {
    const struct nn_def *def;
    for (int i = 0; (def = nn_optimizer_def(i)); i++)
        for (int e = 0; e < def->n_examples; e++) {
            check(def, def->examples[e].attrs, NN_F32);
            check(def, def->examples[e].attrs, NN_F64);
        }
}

/* Ten steps by the greatest gradient, of one sign and of both, leave all finite. */
static void check_takes(const struct nn_def *def, const char *attrs, enum nn_dtype dtype) {
    for (int sign = -1; sign <= 1; sign += 2) {
        struct training t = training_new(def, attrs, dtype);
        /* Where any number is taken, it is the weights that overflow, as lr says. */
        double g = fmin(nn_optimizer_takes(def, dtype), dtype == NN_F32 ? 1e37 : 1e307);
        for (int at = 0; at < 10; at++)
            if (!step(&t, at % 2 ? g * sign : g, 1) ||
                nn_optimizer_first_nonfinite(t.optimizer, t.now, NULL) >= 0)
                fail_msg("%s, %s: step %d in %s", def->name, attrs, at, nn_dtype_name(dtype));
        training_free(&t);
    }
}
static void the_greatest_is_taken(void **state) { (void)state, every_example(check_takes); }

/* The limit is near the truth: 64 times as much makes a state infinite, of which a step tells, though the weight is
 * finite still. */
static void check_beyond(const struct nn_def *def, const char *attrs, enum nn_dtype dtype) {
    double g = 64 * nn_optimizer_takes(def, dtype);
    if (strstr(attrs, "clip") || g > (dtype == NN_F32 ? 1e38 : 1e300)) return;
    struct training t = training_new(def, attrs, dtype);
    bool finite = true;
    for (int at = 0; at < 10 && finite; at++) finite = step(&t, g, 1);
    if (finite) fail_msg("%s, %s: beyond in %s", def->name, attrs, nn_dtype_name(dtype));
    assert_int_equal(nn_optimizer_first_nonfinite(t.optimizer, t.now, NULL), 0);
    training_free(&t);
}
static void beyond_it_a_step_tells(void **state) { (void)state, every_example(check_beyond); }

/* A sum of squares that are each taken grows until it is infinite: the step says so, and does not go on without it. */
static void a_sum_that_overflows(void **state) {
    (void)state;
    const struct nn_def *adagrad = nn_optimizer_find("adagrad");
    struct training t = training_new(adagrad, "", NN_F32);
    int taken = 0;
    while (taken < 100 && step(&t, nn_optimizer_takes(adagrad, NN_F32), 1)) taken++;
    assert_in_range(taken, 10, 20);
    training_free(&t);
}

static void limits_with_clipping(void **state) {
    (void)state;
    static const struct {
        const char *op, *attrs;
        bool any;
    } cases[] = {{"adam", "", false},
                 {"adam", "\"clip_grad_norm\": 1", true},
                 {"adam", "\"clip_grad_norm\": 1e30", false},
                 {"rmsprop", "\"clip_grad_norm\": 1e18", true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct nn_def *def = nn_optimizer_find(cases[i].op);
        struct training t = training_new(def, cases[i].attrs, NN_F32);
        double takes = nn_optimizer_takes(def, NN_F32), limit = nn_optimizer_limit(t.optimizer);
        assert_true(cases[i].any ? isinf(limit) : limit == takes);
        training_free(&t);
    }
}

/* The squares of a double may be infinite where it is not: it is clipped all the same, whatever its scale. */
static void great_numbers_are_clipped(void **state) {
    (void)state;
    static const double gradients[][2] = {{2, 1},          {1e200, 1},     {-1e200, -1},   {1e300, 1e-300},
                                          {1e-300, 1e300}, {1e150, 1e150}, {1e200, 1e100}, {1e308, 1}};
    for (size_t i = 0; i < sizeof gradients / sizeof gradients[0]; i++) {
        struct training t =
            training_new(nn_optimizer_find("sgd"), "\"lr\": 1, \"clip_grad_norm\": 0.5", NN_F64);
        double w, want = -0.5;
        assert_true(step(&t, gradients[i][0], gradients[i][1]));
        test_widen(nn_params_view(t.now, 0), NN_F64, &w, 1);
        test_close(&w, &want, 1, 2e-6, 0, "%g times %g", gradients[i][0], gradients[i][1]);
        training_free(&t);
    }
}

/* Products and sums with a scale are held against the limit as they would be computed. */
static void beyond_is_found(void **state) {
    (void)state;
    struct training t = training_new(nn_optimizer_find("sgd"), "", NN_F32);
    struct nn_error err = {0};
    struct nn_grads *sum = nn_grads_new(t.graph, &err);
    static const struct {
        double sum, g, scale, limit;
        int first;
    } cases[] = {{0, 1, 1, INFINITY, -1},
                 {0, INFINITY, 1, INFINITY, 0},
                 {0, NAN, 1, INFINITY, 0},
                 {0, 3e38, 2, INFINITY, 0},
                 {0, 1, 1e308, INFINITY, 0},
                 {0, 0, 1e308, INFINITY, 0},
                 {0, 2, -2, 4, -1},
                 {0, 2, -2, 3.99, 0},
                 {3e38, 3e38, 1, INFINITY, 0},
                 {3e38, 3e38, -1, 0, -1},
                 {1, 1, 1, 2, -1},
                 {1, 1, 1, 1.99, 0},
                 {-3, 1, 1, 2, -1},
                 {3e38, 3e38, 0.1, 1e38, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        test_narrow(&cases[i].g, NN_F32, nn_grads_data(t.grads, 0), 1);
        test_narrow(&cases[i].sum, NN_F32, nn_grads_data(sum, 0), 1);
        int first = nn_grads_first_beyond(t.grads, cases[i].scale, sum, cases[i].limit, NULL);
        if (first != cases[i].first) fail_msg("case %zu: %d", i, first);
        if (cases[i].sum == 0)
            assert_int_equal(nn_grads_first_beyond(t.grads, cases[i].scale, NULL, cases[i].limit, NULL),
                             first);
    }
    nn_grads_free(sum);
    training_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_greatest_is_taken),     cmocka_unit_test(beyond_it_a_step_tells),
        cmocka_unit_test(a_sum_that_overflows),      cmocka_unit_test(limits_with_clipping),
        cmocka_unit_test(great_numbers_are_clipped), cmocka_unit_test(beyond_is_found),
    };
    return cmocka_run_group_tests_name("limits of optimizers", tests, NULL, NULL);
}
