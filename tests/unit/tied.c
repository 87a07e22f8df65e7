/* tied.c - layers that share a parameter: its gradient is the sum of theirs, it has its owner's name and place, and the
 * others are as they are without it. */
#include <math.h>
#include <string.h>

#include "../support/check.h"
#include "../support/model.h"
#include "../support/pass.h"
#include "../support/threads.h"

#define VECTOR(n) ((struct nn_shape){1, {n}})
#define OUT(n)    "\"out_features\": " #n

static void run(struct pass *p, struct nn_arena *arena) {
    struct nn_error err = {0};
    test_ok(pass_run(p, arena, &err), &err, "pass");
}

static const double *waves(struct nn_arena *arena, int n, double step) {
    double *x = nn_arena_alloc(arena, (size_t)n, sizeof *x);
    assert_non_null(x);
    for (int i = 0; i < n; i++) x[i] = sin(step * (i + 1));
    return x;
}

/* --- gradients ------------------------------------------------------------------------------------------------ */

enum { WIDTH = 5, ROWS = 300, WEIGHTS = WIDTH * WIDTH, NUMBERS = ROWS * WIDTH };

/* Two layers with one weight, which the first, the second, or both may own; `tie` 0: each has its own. */
static struct nn_graph *two_layers(int tie, bool frozen_a, bool frozen_b) {
    struct row rows[] = {{.op = "linear", .name = "a", .attrs = OUT(5), .frozen = frozen_a},
                         {.op = "tanh"},
                         {.op = "linear", .name = "b", .attrs = OUT(5), .frozen = frozen_b},
                         {0}};
    if (tie) rows[tie == 1 ? 2 : 0].ties[0] = (struct nn_tie){"weight", tie == 1 ? "a.weight" : "b.weight"};
    return test_model(NN_F64, VECTOR(WIDTH), rows);
}

static struct pass given(struct nn_arena *arena, struct nn_graph *graph) {
    struct pass p = {.graph = graph, .options = {.rows = ROWS}, .x = {waves(arena, NUMBERS, 0.7)}};
    for (int i = 0; i < nn_graph_param_count(graph); i++) {
        const struct nn_param *param = nn_graph_param(graph, i);
        p.w[i] = waves(arena, (int)param->elements, param->shape.rank == 2 ? 1.3 : 0.2);
    }
    p.upstream[nn_graph_find(graph, "b")] = waves(arena, NUMBERS, 0.9);
    return p;
}

static void the_sum_of_both(void **state) {
    (void)state;
    struct nn_arena *arena = nn_arena_new();
    struct pass apart = given(arena, two_layers(0, false, false));
    run(&apart, arena);
    double sum[WEIGHTS];
    for (int i = 0; i < WEIGHTS; i++) sum[i] = apart.d_w[2][i] + apart.d_w[0][i];
    for (int tie = 1; tie <= 2; tie++) {
        struct pass p = given(arena, two_layers(tie, false, false));
        const int weight = nn_graph_param_find_any(p.graph, "a.weight");
        assert_int_equal(weight, nn_graph_param_find_any(p.graph, "b.weight"));
        assert_int_equal(nn_graph_param_count(p.graph), 3);
        run(&p, arena);
        test_close(p.d_w[weight], sum, WEIGHTS, 1e-14, 1e-3, "the tied weight, way %d", tie);
        test_same(p.d_w[nn_graph_param_find(p.graph, "a.bias")], apart.d_w[1], WIDTH, "a.bias");
        test_same(p.d_w[nn_graph_param_find(p.graph, "b.bias")], apart.d_w[3], WIDTH, "b.bias");
        struct pass twice = given(arena, p.graph);
        twice.backwards = 2;
        run(&twice, arena);
        for (int i = 0; i < WEIGHTS; i++) sum[i] *= 2;
        test_close(twice.d_w[weight], sum, WEIGHTS, 1e-14, 1e-3, "added once more, way %d", tie);
        for (int i = 0; i < WEIGHTS; i++) sum[i] /= 2;
        nn_graph_unref(p.graph);
    }
    nn_graph_unref(apart.graph);
    nn_arena_free(arena);
}

static void threads_make_no_difference(void **state) {
    (void)state;
    for (int tie = 1; tie <= 2; tie++)
        for (int threads = 2; threads <= 4; threads++) {
            struct nn_arena *arena = nn_arena_new();
            struct pass alone = given(arena, two_layers(tie, false, false)), p = alone;
            const struct nn_parallel par = test_parallel(threads);
            p.par = &par;
            run(&alone, arena);
            run(&p, arena);
            for (int i = 0; i < 3; i++)
                test_same(p.d_w[i], alone.d_w[i], nn_graph_param(p.graph, i)->elements, "parameter %d", i);
            nn_graph_unref(p.graph);
            nn_arena_free(arena);
        }
}

/* The owner decides; where it is frozen, neither layer has a gradient of the weight. */
static void the_owner_decides(void **state) {
    (void)state;
    struct nn_arena *arena = nn_arena_new();
    struct pass both = given(arena, two_layers(1, false, false));
    struct pass layer = given(arena, two_layers(1, false, true));
    struct pass owner = given(arena, two_layers(1, true, false));
    run(&both, arena);
    run(&layer, arena);
    run(&owner, arena);
    test_same(layer.d_w[0], both.d_w[0], WEIGHTS, "the weight, with the layer that ties it frozen");
    assert_null(layer.d_w[nn_graph_param_find(layer.graph, "b.bias")]);
    assert_null(owner.d_w[0]);
    assert_null(owner.d_w[nn_graph_param_find(owner.graph, "a.bias")]);
    test_same(owner.d_w[nn_graph_param_find(owner.graph, "b.bias")],
              both.d_w[nn_graph_param_find(both.graph, "b.bias")], WIDTH, "b.bias, with the owner frozen");
    nn_graph_unref(both.graph);
    nn_graph_unref(layer.graph);
    nn_graph_unref(owner.graph);
    nn_arena_free(arena);
}

/* --- names and initial values --------------------------------------------------------------------------------- */

static void names(void **state) {
    (void)state;
    static const struct row rows[] = {
        {.op = "linear", .name = "a", .attrs = OUT(4), .ties = {{"bias", "c.bias"}, {"weight", "c.weight"}}},
        {.op = "linear", .name = "b", .attrs = OUT(4), .ties = {{"weight", "c.weight"}}},
        {.op = "linear", .name = "c", .attrs = OUT(4)},
        {0}};
    static const struct {
        const char *name, *owner;
    } aliases[] = {{"a.weight", "c.weight"}, {"a.bias", "c.bias"}, {"b.weight", "c.weight"}};
    struct nn_graph *graph = test_model(NN_F32, VECTOR(4), rows);
    assert_int_equal(nn_graph_param_count(graph), 3);
    assert_string_equal(nn_graph_param(graph, 0)->name, "b.bias");
    assert_string_equal(nn_graph_param(graph, 1)->name, "c.weight");
    assert_string_equal(nn_graph_param(graph, 2)->name, "c.bias");
    assert_int_equal(nn_graph_alias_count(graph), 3);
    for (int i = 0; i < 3; i++) {
        struct nn_alias alias = nn_graph_alias(graph, i);
        assert_string_equal(alias.name, aliases[i].name);
        assert_string_equal(nn_graph_param(graph, alias.param)->name, aliases[i].owner);
        assert_int_equal(nn_graph_param_find(graph, alias.name), -1);
        assert_int_equal(nn_graph_param_find_any(graph, alias.name), alias.param);
    }
    assert_int_equal(nn_graph_trained_bytes(graph), 64 * 3);
    nn_graph_unref(graph);
}

/* Layers whose parameters are all tied or buffers come between: what is drawn behind them stays. */
static void others_are_drawn_as_without(void **state) {
    (void)state;
    static const struct row plain[] = {
        {.op = "linear", .name = "a", .attrs = OUT(4)}, {.op = "linear", .name = "z", .attrs = OUT(4)}, {0}};
    static const struct row more[] = {
        {.op = "linear", .name = "a", .attrs = OUT(4)},
        {.op = "linear", .name = "b", .attrs = OUT(4), .ties = {{"weight", "z.weight"}, {"bias", "a.bias"}}},
        {.op = "batch_norm", .attrs = "\"affine\": false"},
        {.op = "linear", .name = "z", .attrs = OUT(4)},
        {0}};
    for (int dtype = NN_F32; dtype <= NN_F64; dtype++) {
        struct nn_error err = {0};
        struct nn_params *params[2];
        for (int i = 0; i < 2; i++) {
            struct nn_graph *graph = test_model((enum nn_dtype)dtype, VECTOR(4), i ? more : plain);
            assert_non_null(params[i] = nn_params_new(graph, &err));
            nn_params_init(params[i], 7);
            nn_graph_unref(graph);
        }
        for (int i = 0; i < 4; i++) {
            const struct nn_param *param = nn_graph_param(nn_params_graph(params[0]), i);
            int other = nn_graph_param_find(nn_params_graph(params[1]), param->name);
            assert_true(other >= 0);
            assert_memory_equal(nn_params_view(params[0], i), nn_params_view(params[1], other), param->bytes);
        }
        nn_params_unref(params[0]);
        nn_params_unref(params[1]);
    }
}

/* --- what is refused ------------------------------------------------------------------------------------------- */

static void refusals(void **state) {
    (void)state;
    static const struct {
        struct row rows[4];
        enum nn_code code;
        int layer;
        const char *member;
    } cases[] = {
        {{{.op = "linear", .attrs = OUT(4)}, {.op = "relu", .ties = {{"weight", "0.weight"}}}},
         NN_E_UNKNOWN_MEMBER,
         1,
         "tied"},
        {{{.op = "linear", .attrs = OUT(4)}, {.op = "linear", .attrs = OUT(4), .ties = {{"w", "0.weight"}}}},
         NN_E_UNKNOWN_MEMBER,
         1,
         "tied"},
        {{{.op = "linear", .attrs = OUT(4), .ties = {{"weight", "1.weight"}}}}, NN_E_UNKNOWN_NAME, 0, "tied"},
        {{{.op = "linear", .attrs = OUT(4), .ties = {{"weight", "0.weight"}}}}, NN_E_UNKNOWN_NAME, 0, "tied"},
        {{{.op = "linear", .attrs = OUT(4)},
          {.op = "linear", .attrs = OUT(4), .ties = {{"weight", "0.weight"}}},
          {.op = "linear", .attrs = OUT(4), .ties = {{"weight", "1.weight"}}}},
         NN_E_VALUE,
         2,
         "tied"},
        {{{.op = "linear", .attrs = OUT(3)},
          {.op = "linear", .attrs = OUT(3), .ties = {{"weight", "0.weight"}}}},
         NN_E_SHAPE,
         1,
         "tied"},
        {{{.op = "batch_norm"}, {.op = "batch_norm", .ties = {{"running_var", "0.running_var"}}}},
         NN_E_UNKNOWN_MEMBER,
         1,
         "tied"},
        {{{.op = "batch_norm"}, {.op = "batch_norm", .ties = {{"weight", "0.running_var"}}}},
         NN_E_VALUE,
         1,
         "tied"},
        {{{.op = "parameter", .name = "b.weight", .attrs = "\"shape\": [4, 4]"},
          {.op = "linear", .name = "a", .inputs = {"x"}, .attrs = OUT(4)},
          {.op = "linear", .name = "b", .attrs = OUT(4), .ties = {{"weight", "a.weight"}}}},
         NN_E_NAME,
         2,
         "name"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nn_error err =
            test_model_refused(VECTOR(4), NO_INPUT, cases[i].rows, cases[i].code, cases[i].layer);
        assert_string_equal(err.member, cases[i].member);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sum_of_both),
        cmocka_unit_test(threads_make_no_difference),
        cmocka_unit_test(the_owner_decides),
        cmocka_unit_test(names),
        cmocka_unit_test(others_are_drawn_as_without),
        cmocka_unit_test(refusals),
    };
    nn_blas_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
