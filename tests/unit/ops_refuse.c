/* ops_refuse.c - what operators and losses refuse: shapes, counts and types of inputs, attributes that do not
 * fit them, labels and ids out of range. Always before arithmetic, with a code, a place and a sentence. */
#include <string.h>

#include "../support/attrs.h"
#include "../support/cases.h"
#include "../support/subject.h"

static bool takes_ids(const struct nn_def *def) { return !test_is_loss(def) && def->examples[0].ids; }

static void check_site(const struct nn_def *def, const struct nn_error *err) {
    assert_int_equal(err->site, test_is_loss(def) ? NN_SITE_LOSS : NN_SITE_LAYER);
    assert_int_equal(err->index, 0);
}

/* --- shapes -------------------------------------------------------------------------------------------- */

/* Zeros through a graph, both ways: what infer allows has to be computed. */
static void compute_zeros(struct subject *s, struct nn_graph *graph) {
    struct pass p = {.graph = graph, .options = {.rows = 2, .mode = NN_TRAIN, .seed = 1}};
    double *zeros = nn_arena_alloc(s->arena, 1 << 16, sizeof *zeros);
    assert_non_null(zeros);
    for (int i = 0; i < nn_graph_value_count(graph); i++) p.x[i] = zeros;
    for (int i = 0; i < nn_graph_param_count(graph); i++) assert_true(test_param_elements(&p, i) <= 1 << 16);
    p.target[0] = nn_graph_loss_count(graph) ? zeros : NULL;
    p.target_ids[0] = s->def->examples[0].ids;
    p.upstream[test_op_value(&p)] = test_is_loss(s->def) ? NULL : zeros;
    test_pass(s, &p, "zeros");
}

static void other_ranks(struct subject *s) {
    for (int e = 0; e < s->def->n_examples; e++)
        for (int input = 0; input < s->def->examples[e].n_inputs; input++)
            for (int rank = 0; rank < NN_MAX_RANK; rank++) {
                struct nn_example example = s->def->examples[e];
                struct nn_error err = {0};
                example.inputs[input] = (struct nn_shape){rank, {2, 2, 2, 2, 2, 2, 2}};
                struct nn_graph *graph = test_graph_of(s->def, &example, NN_F64, NULL, &err);
                if (graph) {
                    compute_zeros(s, graph);
                } else {
                    assert_true(err.code == NN_E_SHAPE || err.code == NN_E_VALUE);
                    assert_true(err.text[0] && (err.has_shapes || err.code == NN_E_VALUE || err.member[0] ||
                                                example.n_inputs == 1));
                    check_site(s->def, &err);
                }
                nn_graph_unref(graph);
            }
}

/* What single operators refuse. A missing second input is none. */
static void refused_shapes(void **state) {
    (void)state;
    static const struct {
        const char *op, *attrs;
        struct nn_shape inputs[2];
        int n_inputs;
        enum nn_code code;
        const char *member;
    } rows[] = {
        {"linear", "\"out_features\": 2", {{0, {0}}}, 1, NN_E_SHAPE, ""},
        {"linear", "\"out_features\": 65536", {{1, {65536}}}, 1, NN_E_SIZE, ""},
        {"matmul", "\"out_features\": 2", {{0, {0}}}, 1, NN_E_SHAPE, ""},
        {"matmul", "\"out_features\": 2147483647", {{2, {2, 1}}}, 1, NN_E_SIZE, ""},
        {"embedding", "\"num_embeddings\": 65536, \"embedding_dim\": 65536", {{0, {0}}}, 1, NN_E_SIZE, ""},
        {"embedding",
         "\"num_embeddings\": 2, \"embedding_dim\": 2",
         {{7, {1, 1, 1, 1, 1, 1, 1}}},
         1,
         NN_E_SHAPE,
         ""},
        {"add", "", {{2, {2, 3}}, {2, {3, 2}}}, 2, NN_E_SHAPE, ""},
        {"sub", "", {{1, {3}}, {1, {2}}}, 2, NN_E_SHAPE, ""},
        {"mul", "", {{2, {3, 2}}, {1, {3}}}, 2, NN_E_SHAPE, ""},
        {"div", "", {{2, {65536, 1}}, {1, {65536}}}, 2, NN_E_SIZE, ""},
        {"div", "", {{3, {2, 1, 3}}, {2, {2, 2}}}, 2, NN_E_SHAPE, ""},
        {"concat", "\"dim\": 0", {{1, {3}}, {1, {3}}}, 2, NN_E_VALUE, "dim"},
        {"concat", "\"dim\": 2", {{1, {3}}, {1, {3}}}, 2, NN_E_VALUE, "dim"},
        {"concat", "\"dim\": 2", {{2, {2, 3}}, {2, {3, 3}}}, 2, NN_E_SHAPE, ""},
        {"concat", "", {{1, {2}}, {2, {2, 2}}}, 2, NN_E_SHAPE, ""},
        {"concat", "", {{1, {2147483647}}, {1, {2147483647}}}, 2, NN_E_SIZE, ""},
        {"flatten", "\"start_dim\": 0", {{2, {2, 3}}}, 1, NN_E_VALUE, "start_dim"},
        {"flatten", "\"start_dim\": 2, \"end_dim\": 1", {{2, {2, 3}}}, 1, NN_E_VALUE, "end_dim"},
        {"reshape", "\"shape\": [5]", {{2, {2, 3}}}, 1, NN_E_SHAPE, "shape"},
        {"reshape", "\"shape\": [4, -1]", {{2, {2, 3}}}, 1, NN_E_SHAPE, "shape"},
        {"matmul", "", {{1, {4}}}, 1, NN_E_VALUE, "out_features"},
        {"matmul", "\"out_features\": 3", {{2, {2, 3}}, {2, {3, 2}}}, 2, NN_E_VALUE, "out_features"},
        {"matmul", "\"bias\": true", {{2, {2, 3}}, {2, {3, 2}}}, 2, NN_E_VALUE, "bias"},
        {"matmul", "", {{2, {2, 3}}, {2, {2, 3}}}, 2, NN_E_SHAPE, ""},
        {"matmul", "", {{2, {2, 3}}, {3, {2, 3, 2}}}, 2, NN_E_SHAPE, ""},
        {"matmul", "", {{3, {2, 2, 3}}, {3, {4, 3, 2}}}, 2, NN_E_SHAPE, ""},
        {"matmul", "", {{1, {3}}, {2, {3, 2}}}, 2, NN_E_SHAPE, "inputs"},
        {"permute", "\"dims\": [0, 1]", {{2, {2, 3}}}, 1, NN_E_VALUE, "dims"},
        {"permute", "\"dims\": [0, 1, 2, 3]", {{2, {2, 3}}}, 1, NN_E_VALUE, "dims"},
        {"permute", "\"dims\": [1, 0, 2]", {{2, {2, 3}}}, 1, NN_E_VALUE, "dims"},
        {"permute", "\"dims\": [0, 1, 1]", {{2, {2, 3}}}, 1, NN_E_VALUE, "dims"},
        {"permute", "\"dims\": [0, 2, -1]", {{2, {2, 3}}}, 1, NN_E_VALUE, "dims"},
        {"permute", "\"dims\": [0, 1, 0]", {{2, {2, 3}}}, 1, NN_E_VALUE, "dims"},
        {"permute", "\"dims\": [0, 1, 3]", {{2, {2, 3}}}, 1, NN_E_VALUE, "dims"},
        {"permute", "\"dims\": [0, 1, -4]", {{2, {2, 3}}}, 1, NN_E_VALUE, "dims"},
        {"slice", "\"dim\": 0", {{1, {3}}}, 1, NN_E_VALUE, "dim"},
        {"slice", "\"dim\": -2", {{1, {3}}}, 1, NN_E_VALUE, "dim"},
        {"slice", "\"start\": 3", {{1, {3}}}, 1, NN_E_VALUE, "start"},
        {"slice", "\"start\": 2, \"end\": 2", {{1, {3}}}, 1, NN_E_VALUE, "end"},
        {"slice", "\"end\": -3", {{1, {3}}}, 1, NN_E_VALUE, "end"},
        {"slice", "\"start\": -1, \"end\": -2", {{1, {3}}}, 1, NN_E_VALUE, "end"},
        {"layer_norm", "\"normalized_shape\": [2]", {{1, {3}}}, 1, NN_E_SHAPE, "normalized_shape"},
        {"layer_norm", "\"normalized_shape\": [2]", {{2, {2, 3}}}, 1, NN_E_SHAPE, "normalized_shape"},
        {"layer_norm", "\"normalized_shape\": [2, 3]", {{1, {3}}}, 1, NN_E_SHAPE, "normalized_shape"},
        {"layer_norm", "\"normalized_shape\": [1]", {{0, {0}}}, 1, NN_E_SHAPE, "normalized_shape"},
        {"parameter", "\"shape\": [2147483647, 2]", .code = NN_E_SIZE, .member = ""},
        {"parameter", "\"shape\": [2], \"a\": 1, \"b\": 0.5", .code = NN_E_VALUE, .member = "b"},
        {"constant", "\"shape\": [2, 2], \"value\": [1, 2, 3]", .code = NN_E_SHAPE, .member = "value"},
        {"reshape", "\"shape\": [-1, -1]", {{2, {2, 3}}}, 1, NN_E_VALUE, "shape"},
        {"reshape", "\"shape\": [0, -1]", {{2, {2, 3}}}, 1, NN_E_VALUE, "shape"},
        {"reshape", "\"shape\": [2147483647, 2147483647, 2147483647]", {{1, {6}}}, 1, NN_E_SHAPE, "shape"},
        {"softmax", "\"dim\": 0", {{1, {3}}}, 1, NN_E_VALUE, "dim"},
        {"softmax", "\"dim\": -3", {{1, {3}}}, 1, NN_E_VALUE, "dim"},
        {"log_softmax", "\"dim\": 2", {{1, {3}}}, 1, NN_E_VALUE, "dim"},
        {"softmax", "", {{0, {0}}}, 1, NN_E_VALUE, "dim"},
        {"cross_entropy", "", {{0, {0}}}, 1, NN_E_SHAPE, ""},
        {"cross_entropy", "\"weight\": [1, 2]", {{1, {3}}}, 1, NN_E_VALUE, "weight"},
        {"nll", "\"weight\": [1, 2, 3, 4]", {{2, {3, 4}}}, 1, NN_E_VALUE, "weight"},
        {"bce_with_logits", "\"pos_weight\": [1, 2]", {{1, {3}}}, 1, NN_E_VALUE, "pos_weight"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct nn_def *def = nn_op_find(rows[i].op);
        assert_non_null(def);
        struct nn_example example = {.attrs = rows[i].attrs,
                                     .inputs = {rows[i].inputs[0], rows[i].inputs[1]},
                                     .n_inputs = rows[i].n_inputs,
                                     .ids = takes_ids(def)};
        struct nn_error err = {0};
        assert_null(test_graph_of(def, &example, NN_F32, NULL, &err));
        test_refused((int)err.code, &err, rows[i].code, "%s with %s", rows[i].op, rows[i].attrs);
        assert_string_equal(err.member, rows[i].member);
        if (err.code != NN_E_SIZE || !test_is_loss(def)) check_site(def, &err);
    }
}

/* --- counts and types of inputs, attributes ------------------------------------------------------------ */

/* A layer of this many inputs "x", of this type. */
static int seal_layer(const struct nn_def *def, int n_inputs, enum nn_dtype input, const char *attrs,
                      struct nn_error *err) {
    enum { MOST = 8 };
    const char *names[MOST] = {"x", "x", "x", "x", "x", "x", "x", "x"};
    assert_true(n_inputs <= MOST);
    struct nn_graph *graph = nn_graph_new(NN_F32, err);
    assert_non_null(graph);
    struct nn_layer layer = {.op = def, .inputs = names, .n_inputs = n_inputs};
    if (attrs) layer.attrs = test_attrs(def, attrs, nn_graph_arena(graph), err);
    if (!nn_graph_add_input(graph, "x", input, &def->examples[0].inputs[0], err) &&
        !nn_graph_add_layer(graph, &layer, err))
        nn_graph_seal(graph, err);
    nn_graph_unref(graph);
    return (int)err->code;
}

static void counts_of_inputs(struct subject *s) {
    if (test_is_loss(s->def)) return;
    struct nn_error few = {0}, many = {0};
    enum nn_dtype dtype = takes_ids(s->def) ? NN_I64 : NN_F32;
    const char *attrs = s->def->examples[0].attrs;
    test_refused(seal_layer(s->def, s->def->min_inputs - 1, dtype, attrs, &few), &few, NN_E_VALUE,
                 "%s with too few inputs", s->def->name);
    assert_string_equal(few.member, "inputs");
    check_site(s->def, &few);
    if (s->def->max_inputs < 0) return;
    test_refused(seal_layer(s->def, s->def->max_inputs + 1, dtype, attrs, &many), &many, NN_E_VALUE,
                 "%s with too many inputs", s->def->name);
    assert_string_equal(many.member, "inputs");
    check_site(s->def, &many);
}

static void other_types(struct subject *s) {
    if (test_is_loss(s->def) || s->def->max_inputs == 0) return;
    struct nn_error err = {0};
    test_refused(seal_layer(s->def, s->def->examples[0].n_inputs, takes_ids(s->def) ? NN_F32 : NN_I64,
                            s->def->examples[0].attrs, &err),
                 &err, NN_E_DTYPE, "%s of the other type", s->def->name);
    check_site(s->def, &err);
}

static void required_attributes(struct subject *s) {
    for (const struct nn_attr_def *a = s->def->attrs; a && a->name; a++) {
        if (!a->required) continue;
        struct nn_example example = s->def->examples[0];
        struct nn_error err = {0};
        example.attrs = "";
        assert_null(test_graph_of(s->def, &example, NN_F64, NULL, &err));
        test_refused((int)err.code, &err, NN_E_VALUE, "%s without attributes", s->def->name);
        assert_true(err.member[0]);
        check_site(s->def, &err);
    }
}

/* A loss is no layer, and a layer is no loss. */
static void place_in_graph(struct subject *s) {
    struct nn_error err = {0};
    struct nn_graph *graph = nn_graph_new(NN_F32, &err);
    struct nn_loss loss = {.op = s->def, .scale = 1};
    struct nn_layer layer = {.op = s->def};
    assert_non_null(graph);
    int code = test_is_loss(s->def) ? nn_graph_add_layer(graph, &layer, &err)
                                    : nn_graph_add_loss(graph, &loss, &err);
    test_refused(code, &err, NN_E_VALUE, "%s in the wrong place", s->def->name);
    assert_string_equal(err.member, "op");
    nn_graph_unref(graph);
}

/* --- data ---------------------------------------------------------------------------------------------- */

static void ids_out_of_range(struct subject *s) {
    for (int e = 0; e < s->def->n_examples; e++) {
        const struct nn_example *example = &s->def->examples[e];
        if (!example->ids) continue;
        const double bad[] = {(double)example->classes, -1, 0x1p53, -0x1p53};
        for (int i = 0; i < 4; i++) {
            struct pass p = test_given(s, e, "ordinary", NN_F32);
            struct nn_error err = {0};
            double ids[64] = {0};
            const double **at = test_is_loss(s->def) ? &p.target[0] : &p.x[0];
            ids[CASE_ROWS - 1] = bad[i];
            *at = ids;
            test_refused(pass_run(&p, s->arena, &err), &err, NN_E_VALUE, "%s of %g", s->def->name, bad[i]);
            assert_int_equal(err.site, test_is_loss(s->def) ? NN_SITE_TARGET : NN_SITE_INPUT);
            assert_int_equal(err.index, 0);
            nn_graph_unref(p.graph);
        }
    }
}

int main(void) {
    static const struct subject_test tests[] = {
        {"other ranks are refused or computed", other_ranks},
        {"other counts of inputs are refused", counts_of_inputs},
        {"inputs of other types are refused", other_types},
        {"required attributes are missed", required_attributes},
        {"losses are no layers, nor layers losses", place_in_graph},
        {"ids out of range are refused", ids_out_of_range},
    };
    const struct CMUnitTest shapes[] = {cmocka_unit_test(refused_shapes)};
    nn_blas_init();
    int failed = test_group("shapes that operators refuse", shapes, 1);
    return failed + test_subjects("what operators and losses refuse", tests, sizeof tests / sizeof tests[0]);
}
