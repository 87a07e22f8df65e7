/* params.c - the block of parameters: names and places, initial values, versions, and its gradients. */
#include <math.h>
#include <string.h>

#include "../support/check.h"
#include "../support/model.h"
#include "../support/pass.h"

#define VECTOR(n) ((struct nn_shape){1, {n}})

static const struct row two_layers[] = {
    {.op = "linear", .attrs = "\"out_features\": 5", .frozen = true},
    {.op = "tanh"},
    {.op = "linear", .name = "head", .attrs = "\"out_features\": 3"},
    {0},
};

/* --- layout ------------------------------------------------------------------------------------------------ */

/* Every parameter lies in its part of the block, apart from all others. */
static void check_layout(const struct nn_graph *graph) {
    const size_t ends[NN_KINDS + 1] = {0, nn_graph_trained_bytes(graph), nn_graph_gradient_bytes(graph),
                                       nn_graph_param_bytes(graph)};
    for (int kind = 0; kind < NN_KINDS; kind++) assert_true(ends[kind] <= ends[kind + 1]);
    for (int i = 0; i < nn_graph_param_count(graph); i++) {
        const struct nn_param *p = nn_graph_param(graph, i);
        assert_int_equal(p->bytes, (size_t)p->elements * nn_dtype_size(p->dtype));
        assert_int_equal(p->elements, nn_shape_elements(&p->shape));
        assert_int_equal(p->offset % 64, 0);
        assert_true(p->offset >= ends[p->kind] && p->offset + p->bytes <= ends[p->kind + 1]);
        assert_int_equal(nn_graph_param_find(graph, p->name), i);
        for (int k = 0; k < i; k++) {
            const struct nn_param *q = nn_graph_param(graph, k);
            assert_true(p->offset + p->bytes <= q->offset || q->offset + q->bytes <= p->offset);
        }
    }
}

static void layout(void **state) {
    (void)state;
    static const enum nn_dtype dtypes[] = {NN_F32, NN_F64};
    static const struct {
        const char *name;
        struct nn_shape shape;
        enum nn_kind kind;
    } expected[] = {
        {"0.weight", {2, {5, 4}}, NN_FROZEN},
        {"0.bias", {1, {5}}, NN_FROZEN},
        {"head.weight", {2, {3, 5}}, NN_TRAINED},
        {"head.bias", {1, {3}}, NN_TRAINED},
    };
    for (int d = 0; d < 2; d++) {
        struct nn_graph *graph = test_model(dtypes[d], VECTOR(4), two_layers);
        assert_int_equal(nn_graph_param_count(graph), 4);
        for (int i = 0; i < 4; i++) {
            int at = nn_graph_param_find(graph, expected[i].name);
            assert_true(at >= 0);
            const struct nn_param *p = nn_graph_param(graph, at);
            assert_true(nn_shape_equal(&p->shape, &expected[i].shape));
            assert_int_equal(p->kind, expected[i].kind);
        }
        assert_int_equal(nn_graph_param_find(graph, "weight"), -1);
        check_layout(graph);
        nn_graph_unref(graph);
    }
}

/* A frozen layer has no gradient of its own, and passes on that of its input. */
static void frozen_layers(void **state) {
    (void)state;
    static const struct row free_layers[] = {{.op = "linear", .attrs = "\"out_features\": 5"},
                                             {.op = "tanh"},
                                             {.op = "linear", .name = "head", .attrs = "\"out_features\": 3"},
                                             {0}};
    struct nn_arena *arena = nn_arena_new();
    double x[8], w[20], ones[6] = {1, 1, 1, 1, 1, 1};
    for (int i = 0; i < 20; i++) w[i] = sin(i);
    for (int i = 0; i < 8; i++) x[i] = cos(i);
    struct pass passes[2];
    for (int k = 0; k < 2; k++) {
        struct nn_error err = {0};
        struct pass *p = &passes[k];
        *p = (struct pass){.graph = test_model(NN_F64, VECTOR(4), k ? free_layers : two_layers),
                           .options = {.rows = 2},
                           .x = {x}};
        for (int i = 0; i < 4; i++) p->w[i] = w;
        p->upstream[3] = ones;
        test_ok(pass_run(p, arena, &err), &err, "pass");
        nn_graph_unref(p->graph);
    }
    assert_true(!passes[0].d_w[0] && !passes[0].d_w[1] && passes[1].d_w[0] && passes[1].d_w[1]);
    test_same(passes[0].d_x[0], passes[1].d_x[0], 8, "gradient of the input");
    test_same(passes[0].d_w[2], passes[1].d_w[2], 15, "gradient of head.weight");
    nn_arena_free(arena);
}

/* --- initial values ------------------------------------------------------------------------------------------ */

struct moments {
    double mean, deviation, least, most;
};

static struct moments moments_of(const struct nn_params *params, int param, struct nn_arena *arena) {
    const struct nn_graph *graph = nn_params_graph((struct nn_params *)params);
    int64_t n = nn_graph_param(graph, param)->elements;
    double *w = nn_arena_alloc(arena, (size_t)n, sizeof *w);
    test_widen(nn_params_view(params, param), nn_graph_dtype(graph), w, n);
    struct moments m = {.least = w[0], .most = w[0]};
    for (int64_t i = 0; i < n; i++) {
        m.mean += w[i] / (double)n;
        m.least = fmin(m.least, w[i]);
        m.most = fmax(m.most, w[i]);
    }
    for (int64_t i = 0; i < n; i++) m.deviation += (w[i] - m.mean) * (w[i] - m.mean) / (double)n;
    m.deviation = sqrt(m.deviation);
    return m;
}

/* As PyTorch: a linear layer's weight and bias are uniform within 1/√in. Five standard errors allowed. */
static void uniform_initial_values(void **state) {
    (void)state;
    static const struct row rows[] = {{.op = "linear", .attrs = "\"out_features\": 1000"}, {0}};
    struct nn_graph *graph = test_model(NN_F32, VECTOR(400), rows);
    struct nn_error err = {0};
    struct nn_arena *arena = nn_arena_new();
    struct nn_params *params = nn_params_new(graph, &err);
    nn_params_init(params, 1);
    for (int i = 0; i < 2; i++) {
        double n = (double)nn_graph_param(graph, i)->elements, bound = 1 / sqrt(400);
        struct moments m = moments_of(params, i, arena);
        assert_true(m.least >= -bound && m.most <= bound);
        assert_true(m.least < -0.98 * bound && m.most > 0.98 * bound);
        assert_true(fabs(m.mean) < 5 * bound / sqrt(3 * n));
        assert_true(fabs(m.deviation - bound / sqrt(3)) < 5 * bound / sqrt(3 * n));
    }
    nn_params_unref(params);
    nn_arena_free(arena);
    nn_graph_unref(graph);
}

/* An embedding is drawn from the standard normal distribution. */
static void normal_initial_values(void **state) {
    (void)state;
    struct nn_error err = {0};
    struct nn_shape scalar = {0};
    struct nn_graph *graph = nn_graph_new(NN_F64, &err);
    static const struct row rows[] = {
        {.op = "embedding", .attrs = "\"num_embeddings\": 1000, \"embedding_dim\": 101"}, {0}};
    test_ok(nn_graph_add_input(graph, "id", NN_I64, &scalar, &err), &err, "id");
    test_ok(test_add(graph, rows, &err), &err, "layers");
    test_ok(nn_graph_seal(graph, &err), &err, "sealing");
    struct nn_arena *arena = nn_arena_new();
    struct nn_params *params = nn_params_new(graph, &err);
    nn_params_init(params, 1);
    struct moments m = moments_of(params, 0, arena);
    assert_true(fabs(m.mean) < 5 / sqrt(101000) && fabs(m.deviation - 1) < 5 / sqrt(2 * 101000));
    assert_true(m.least < -3.5 && m.most > 3.5 && m.least > -7 && m.most < 7);
    nn_params_unref(params);
    nn_arena_free(arena);
    nn_graph_unref(graph);
}

/* The seed decides, and two parameters of one shape differ. */
static void repeatable_initial_values(void **state) {
    (void)state;
    static const struct row rows[] = {{.op = "linear", .attrs = "\"out_features\": 8"},
                                      {.op = "linear", .attrs = "\"out_features\": 8"},
                                      {0}};
    struct nn_error err = {0};
    struct nn_graph *graph = test_model(NN_F32, VECTOR(8), rows), *same = test_model(NN_F32, VECTOR(8), rows),
                    *wide = test_model(NN_F64, VECTOR(8), rows);
    struct nn_params *a = nn_params_new(graph, &err), *b = nn_params_new(same, &err),
                     *other = nn_params_new(graph, &err), *doubles = nn_params_new(wide, &err);
    nn_params_init(a, 42);
    nn_params_init(b, 42);
    nn_params_init(other, 42 + (1ull << 40));
    nn_params_init(doubles, 42);
    assert_memory_equal(nn_params_view(a, 0), nn_params_view(b, 0), 64 * sizeof(float));
    assert_memory_equal(nn_params_view(a, 2), nn_params_view(b, 2), 64 * sizeof(float));
    assert_memory_not_equal(nn_params_view(a, 0), nn_params_view(a, 2), 64 * sizeof(float));
    assert_memory_not_equal(nn_params_view(a, 0), nn_params_view(other, 0), 64 * sizeof(float));
    double narrow[64];
    test_widen(nn_params_view(a, 0), NN_F32, narrow, 64);
    test_close(narrow, nn_params_view(doubles, 0), 64, 1e-6, 0, "float64 model");
    nn_params_unref(a);
    nn_params_unref(b);
    nn_params_unref(other);
    nn_params_unref(doubles);
    nn_graph_unref(graph);
    nn_graph_unref(same);
    nn_graph_unref(wide);
}

/* --- versions ------------------------------------------------------------------------------------------------- */

static void versions(void **state) {
    (void)state;
    struct nn_error err = {0};
    struct nn_graph *graph = test_model(NN_F32, VECTOR(4), two_layers);
    struct nn_params *a = nn_params_new(graph, &err), *b = nn_params_new(graph, &err);
    const float *zeros = nn_params_view(a, 0);
    for (int i = 0; i < 20; i++) assert_true(zeros[i] == 0);
    assert_int_equal(nn_params_version(a), 0);
    nn_params_set_version(a, UINT64_MAX);
    assert_true(nn_params_version(a) == UINT64_MAX);
    assert_true(nn_params_unshared(a));
    assert_ptr_equal(nn_params_ref(a), a);
    assert_false(nn_params_unshared(a));
    nn_params_unref(a);
    assert_true(nn_params_unshared(a));
    assert_ptr_equal(nn_params_graph(a), graph);
    nn_params_init(a, 3);
    nn_params_copy(b, a);
    for (int i = 0; i < 4; i++)
        assert_memory_equal(nn_params_view(a, i), nn_params_view(b, i),
                            (size_t)nn_graph_param(graph, i)->elements * sizeof(float));
    nn_graph_unref(graph); /* the parameters keep it */
    assert_int_equal(nn_graph_param_count(nn_params_graph(b)), 4);
    nn_params_unref(a);
    nn_params_unref(b);
    nn_params_unref(NULL);
}

static void nonfinite_parameters(void **state) {
    (void)state;
    struct nn_error err = {0};
    struct nn_graph *graph = test_model(NN_F32, VECTOR(4), two_layers);
    struct nn_params *params = nn_params_new(graph, &err);
    assert_int_equal(nn_params_first_nonfinite(params, NULL), -1);
    for (int i = 3; i >= 0; i--) {
        float *w = nn_params_data(params, i);
        w[nn_graph_param(graph, i)->elements - 1] = i % 2 ? NAN : -INFINITY;
        assert_int_equal(nn_params_first_nonfinite(params, NULL), i);
    }
    nn_params_unref(params);
    nn_graph_unref(graph);
}

/* --- gradients ------------------------------------------------------------------------------------------------- */

static void sums_of_gradients(void **state) {
    (void)state;
    struct nn_error err = {0};
    struct nn_graph *graph = test_model(NN_F64, VECTOR(4), two_layers);
    struct nn_grads *a = nn_grads_new(graph, &err), *b = nn_grads_new(graph, &err);
    int weight = nn_graph_param_find(graph, "head.weight"), bias = nn_graph_param_find(graph, "head.bias");
    double *aw = nn_grads_data(a, weight), *bw = nn_grads_data(b, weight), *ab = nn_grads_data(a, bias);
    for (int i = 0; i < 15; i++) {
        assert_true(aw[i] == 0);
        aw[i] = i;
        bw[i] = 2;
    }
    nn_grads_add(a, b, -0.5, NULL);
    for (int i = 0; i < 15; i++) assert_true(aw[i] == i - 1 && bw[i] == 2);
    nn_grads_scale(a, 4, NULL);
    for (int i = 0; i < 15; i++) assert_true(aw[i] == 4 * (i - 1));
    assert_true(ab[0] == 0 && ab[2] == 0);
    assert_int_equal(nn_grads_first_nonfinite(a, NULL), -1);
    ab[2] = (double)NAN;
    assert_int_equal(nn_grads_first_nonfinite(a, NULL), bias);
    aw[0] = (double)INFINITY;
    assert_int_equal(nn_grads_first_nonfinite(a, NULL), weight);
    nn_grads_clear(a);
    assert_int_equal(nn_grads_first_nonfinite(a, NULL), -1);
    for (int i = 0; i < 15; i++) assert_true(aw[i] == 0);
    nn_grads_free(a);
    nn_grads_free(b);
    nn_grads_free(NULL);
    nn_graph_unref(graph);
}

/* Between parameters there are always zeros, so that nothing grows there unseen; the rest is the caller's. */
static void padding_of_gradients(void **state) {
    (void)state;
    struct nn_error err = {0};
    struct nn_graph *graph = test_model(NN_F32, VECTOR(4), two_layers);
    int weight = nn_graph_param_find(graph, "head.weight"), bias = nn_graph_param_find(graph, "head.bias");
    size_t bytes = nn_graph_trained_bytes(graph);
    for (int i = 0; i < 10; i++) { /* some of the blocks were somebody's before, and are not zeros */
        unsigned char *dirty = nn_block_new(bytes);
        memset(dirty, 0xff, bytes);
        nn_block_free(dirty);
        struct nn_grads *grads = nn_grads_new_unset(graph, &err), *copy = nn_grads_new(graph, &err);
        unsigned char *first = nn_grads_data(grads, weight);
        memset(nn_grads_data(grads, weight), 0, 15 * sizeof(float));
        memset(nn_grads_data(grads, bias), 0, 3 * sizeof(float));
        for (size_t k = 0; k < bytes; k++) assert_int_equal(first[k], 0);
        assert_memory_equal(first, nn_grads_data(copy, weight), bytes);
        nn_grads_free(grads);
        nn_grads_free(copy);
    }
    nn_graph_unref(graph);
}

static void padding_of_parameters(void **state) {
    (void)state;
    struct nn_error err = {0};
    struct nn_graph *graph = test_model(NN_F32, VECTOR(4), two_layers);
    for (int i = 0; i < 10; i++) {
        size_t bytes = nn_graph_param_bytes(graph);
        unsigned char *dirty = nn_block_new(bytes);
        memset(dirty, 0xff, bytes);
        nn_block_free(dirty);
        struct nn_params *unset = nn_params_new_unset(graph, &err), *zeroed = nn_params_new(graph, &err);
        nn_params_init(unset, 1);
        nn_params_init(zeroed, 1);
        assert_memory_equal(nn_params_block(unset), nn_params_block(zeroed), bytes);
        nn_params_unref(unset);
        nn_params_unref(zeroed);
    }
    nn_graph_unref(graph);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout),
        cmocka_unit_test(frozen_layers),
        cmocka_unit_test(uniform_initial_values),
        cmocka_unit_test(normal_initial_values),
        cmocka_unit_test(repeatable_initial_values),
        cmocka_unit_test(versions),
        cmocka_unit_test(nonfinite_parameters),
        cmocka_unit_test(sums_of_gradients),
        cmocka_unit_test(padding_of_gradients),
        cmocka_unit_test(padding_of_parameters),
    };
    nn_blas_init();
    return cmocka_run_group_tests_name("parameters", tests, NULL, NULL);
}
