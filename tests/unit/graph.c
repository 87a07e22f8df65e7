/* graph.c - what a model is made of: names, order, shapes, outputs, losses, and what is refused on the way. */
#include <string.h>

#include "../support/check.h"
#include "../support/model.h"

#define VECTOR(n) ((struct nn_shape){1, {n}})

/* --- defaults ---------------------------------------------------------------------------------------------- */

static void sequential(void **state) {
    (void)state;
    static const struct row rows[] = {{.op = "linear", .attrs = "\"out_features\": 3"},
                                      {.op = "relu"},
                                      {.op = "linear", .attrs = "\"out_features\": 2, \"bias\": false"},
                                      {0}};
    struct nn_graph *graph = test_model(NN_F32, VECTOR(4), rows);
    static const char *const nodes[] = {"x", "0", "1", "2"};
    static const int64_t widths[] = {4, 3, 3, 2};
    assert_int_equal(nn_graph_input_count(graph), 1);
    assert_int_equal(nn_graph_value_count(graph), 4);
    for (int i = 0; i < 4; i++) {
        struct nn_value_info info = nn_graph_value(graph, i);
        assert_string_equal(info.name, nodes[i]);
        assert_int_equal(nn_graph_find(graph, nodes[i]), i);
        assert_true(nn_shape_equal(&info.shape, &VECTOR(widths[i])));
        assert_int_equal(info.dtype, NN_F32);
        if (i)
            assert_string_equal(info.op->name, rows[i - 1].op);
        else
            assert_null(info.op);
    }
    assert_int_equal(nn_graph_find(graph, "3"), -1);
    assert_int_equal(nn_graph_output_count(graph), 1);
    assert_int_equal(nn_graph_output(graph, 0), 3);
    assert_int_equal(nn_graph_loss_count(graph), 0);
    nn_graph_unref(graph);
}

/* A layer without inputs reads the layer written before it, even if that one has a name. */
static void defaults_among_names(void **state) {
    (void)state;
    static const struct row rows[] = {{.op = "linear", .name = "a", .attrs = "\"out_features\": 3"},
                                      {.op = "relu", .name = "b", .inputs = {"x"}},
                                      {.op = "linear", .attrs = "\"out_features\": 2"},
                                      {0}};
    struct nn_graph *graph = test_model(NN_F64, VECTOR(4), rows);
    assert_int_equal(nn_graph_find(graph, "2"), 3); /* its index among the layers, named ones included */
    struct nn_shape weight = {2, {2, 4}};           /* it reads b, which is as wide as x */
    int param = nn_graph_param_find(graph, "2.weight");
    assert_true(param >= 0 && nn_shape_equal(&nn_graph_param(graph, param)->shape, &weight));
    nn_graph_unref(graph);
}

static void first_layer_must_choose(void **state) {
    (void)state;
    static const struct row rows[] = {{.op = "relu"}, {0}};
    struct nn_error err = test_model_refused(VECTOR(2), VECTOR(2), rows, NN_E_VALUE, 0);
    assert_string_equal(err.member, "inputs");
}

static void no_layers(void **state) {
    (void)state;
    struct nn_error err = {0};
    struct nn_graph *graph = test_inputs(NN_F32, VECTOR(2), NO_INPUT);
    test_refused(nn_graph_seal(graph, &err), &err, NN_E_VALUE, "no layers");
    nn_graph_unref(graph);
}

/* --- graphs that are no sequences --------------------------------------------------------------------------- */

static void forward_references(void **state) {
    (void)state;
    static const struct row rows[] = {
        {.op = "add", .name = "sum", .inputs = {"b", "a"}},
        {.op = "relu", .name = "b", .inputs = {"a"}},
        {.op = "linear", .name = "a", .inputs = {"x"}, .attrs = "\"out_features\": 3"},
        {0}};
    struct nn_graph *graph = test_model(NN_F32, VECTOR(2), rows);
    struct nn_value_info sum = nn_graph_value(graph, nn_graph_find(graph, "sum"));
    assert_true(nn_shape_equal(&sum.shape, &VECTOR(3)));
    assert_int_equal(nn_graph_output(graph, 0), nn_graph_find(graph, "a")); /* the last layer as written */
    nn_graph_unref(graph);
}

static void several_inputs_and_outputs(void **state) {
    (void)state;
    static const struct row rows[] = {{.op = "mul", .name = "m", .inputs = {"x", "z"}},
                                      {.op = "sub", .name = "s", .inputs = {"z", "m"}},
                                      {0}};
    struct nn_error err = {0};
    struct nn_graph *graph = test_inputs(NN_F32, VECTOR(3), VECTOR(3));
    test_ok(test_add(graph, rows, &err), &err, "layers");
    test_ok(nn_graph_add_output(graph, "m", &err), &err, "m");
    test_ok(nn_graph_add_output(graph, "x", &err), &err, "x");
    struct nn_error twice = {0};
    test_refused(nn_graph_add_output(graph, "m", &twice), &twice, NN_E_VALUE, "an output twice");
    test_ok(nn_graph_seal(graph, &err), &err, "sealing");
    assert_int_equal(nn_graph_input_count(graph), 2);
    assert_int_equal(nn_graph_output_count(graph), 2);
    assert_int_equal(nn_graph_output(graph, 0), nn_graph_find(graph, "m"));
    assert_int_equal(nn_graph_output(graph, 1), nn_graph_find(graph, "x"));
    nn_graph_unref(graph);
}

static void cycles(void **state) {
    (void)state;
    static const struct row itself[] = {{.op = "relu", .name = "a", .inputs = {"a"}}, {0}};
    static const struct row pair[] = {{.op = "relu"},
                                      {.op = "add", .name = "a", .inputs = {"x", "b"}},
                                      {.op = "relu", .name = "b", .inputs = {"a"}},
                                      {0}};
    static const struct row behind[] = {{.op = "relu", .name = "end", .inputs = {"c"}},
                                        {.op = "relu", .name = "c", .inputs = {"d"}},
                                        {.op = "add", .name = "d", .inputs = {"c", "x"}},
                                        {.op = "relu", .name = "f", .inputs = {"x"}},
                                        {0}};
    struct nn_error err = test_model_refused(VECTOR(2), NO_INPUT, itself, NN_E_CYCLE, 0);
    assert_non_null(strstr(err.text, "\"a\""));
    static const struct {
        const struct row *rows;
        int from, to; /* the layers on the cycle, one of which is to be named */
    } more[] = {{pair, 1, 2}, {behind, 1, 2}};
    for (int i = 0; i < 2; i++) {
        struct nn_error e = {0};
        struct nn_graph *graph = test_inputs(NN_F32, VECTOR(2), NO_INPUT);
        test_ok(test_add(graph, more[i].rows, &e), &e, "layers");
        test_refused(nn_graph_seal(graph, &e), &e, NN_E_CYCLE, "cycle %d", i);
        assert_int_equal(e.site, NN_SITE_LAYER);
        assert_in_range(e.index, more[i].from, more[i].to);
        nn_graph_unref(graph);
    }
}

/* --- names -------------------------------------------------------------------------------------------------- */

static void valid_names(void **state) {
    (void)state;
    char longest[NN_MAX_NAME + 2];
    memset(longest, 'a', sizeof longest);
    longest[NN_MAX_NAME + 1] = 0;
    assert_false(nn_name_valid(longest));
    longest[NN_MAX_NAME] = 0;
    assert_true(nn_name_valid(longest));
    static const char *const good[] = {"a", "0", "_", "Zz9_.-", "encoder.layers.0", "a-"};
    static const char *const bad[] = {"", ".a", "-a", "a b", "a/b", "\xc3\xa4", "a\n", "a\"", "~", "a~1"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) assert_true(nn_name_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(nn_name_valid(bad[i]));
}

static void refused_names(void **state) {
    (void)state;
    static const struct {
        struct row rows[4];
        enum nn_code code;
        int layer;
        const char *member;
    } cases[] = {
        {{{.op = "relu", .name = "x"}}, NN_E_NAME, 0, "name"},
        {{{.op = "relu", .name = "a"}, {.op = "relu", .name = "a"}}, NN_E_NAME, 1, "name"},
        {{{.op = "relu", .name = "1"}, {.op = "relu"}},
         NN_E_NAME,
         1,
         "name"}, /* the second is called by its index */
        {{{.op = "relu", .name = "a/b"}}, NN_E_NAME, 0, "name"},
        {{{.op = "relu", .name = ""}}, NN_E_NAME, 0, "name"},
        {{{.op = "relu", .name = "a", .inputs = {"q"}}}, NN_E_UNKNOWN_NAME, 0, "inputs"},
        {{{.op = "relu"}, {.op = "add", .name = "a", .inputs = {"x", "0 "}}}, NN_E_UNKNOWN_NAME, 1, "inputs"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nn_error err =
            test_model_refused(VECTOR(2), NO_INPUT, cases[i].rows, cases[i].code, cases[i].layer);
        assert_string_equal(err.member, cases[i].member);
    }
}

static void refused_inputs(void **state) {
    (void)state;
    static const struct {
        const char *name;
        struct nn_shape shape;
        enum nn_code code;
    } cases[] = {
        {"x", {1, {3}}, NN_E_NAME}, /* taken */
        {"a b", {1, {3}}, NN_E_NAME},
        {"a", {8, {1, 1, 1, 1, 1, 1, 1, 1}}, NN_E_SIZE},
        {"a", {2, {65536, 32768}}, NN_E_SIZE},
        {"a", {3, {INT64_MAX, INT64_MAX, INT64_MAX}}, NN_E_SIZE},
        {"a", {2, {3, 0}}, NN_E_VALUE},
        {"a", {1, {-1}}, NN_E_VALUE},
        {"a", {1, {INT64_MIN}}, NN_E_VALUE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nn_error err = {0};
        struct nn_graph *graph = test_inputs(NN_F32, VECTOR(2), NO_INPUT);
        test_refused(nn_graph_add_input(graph, cases[i].name, NN_F32, &cases[i].shape, &err), &err,
                     cases[i].code, "case %zu", i);
        assert_int_equal(err.site, NN_SITE_INPUT);
        assert_int_equal(err.index, 1);
        nn_graph_unref(graph);
    }
}

static void unknown_outputs(void **state) {
    (void)state;
    static const struct row rows[] = {{.op = "relu"}, {0}};
    struct nn_error err = {0};
    struct nn_graph *graph = test_inputs(NN_F32, VECTOR(2), NO_INPUT);
    test_ok(test_add(graph, rows, &err), &err, "layers");
    if (!nn_graph_add_output(graph, "1", &err)) nn_graph_seal(graph, &err);
    test_refused((int)err.code, &err, NN_E_UNKNOWN_NAME, "output");
    assert_string_equal(err.member, "outputs");
    nn_graph_unref(graph);
}

/* --- where shapes do not fit ---------------------------------------------------------------------------------- */

static void shape_sites(void **state) {
    (void)state;
    static const struct row rows[] = {{.op = "linear", .attrs = "\"out_features\": 3"},
                                      {.op = "linear", .attrs = "\"out_features\": 4"},
                                      {.op = "add", .inputs = {"0", "1"}},
                                      {.op = "relu"},
                                      {0}};
    struct nn_error err = test_model_refused(VECTOR(2), NO_INPUT, rows, NN_E_SHAPE, 2);
    assert_true(err.has_shapes);
    assert_true(nn_shape_equal(&err.expected, &VECTOR(3)));
    assert_true(nn_shape_equal(&err.actual, &VECTOR(4)));
}

/* A size that no input has, made by layers. */
static void sizes_that_overflow(void **state) {
    (void)state;
    static const struct row wide[] = {{.op = "linear", .attrs = "\"out_features\": 2147483647"},
                                      {.op = "linear", .attrs = "\"out_features\": 2147483647"},
                                      {0}};
    static const struct row doubled[] = {{.op = "concat", .inputs = {"x", "x", "x"}}, {0}};
    test_model_refused(VECTOR(1), NO_INPUT, wide, NN_E_SIZE, 1);
    test_model_refused(VECTOR(1 << 30), NO_INPUT, doubled, NN_E_SIZE, 0);
}

/* --- losses ---------------------------------------------------------------------------------------------------- */

static void losses_have_defaults(void **state) {
    (void)state;
    static const struct row rows[] = {
        {.op = "linear", .name = "a", .attrs = "\"out_features\": 3"}, {.op = "relu", .name = "b"}, {0}};
    struct nn_error err = {0};
    struct nn_graph *graph = test_inputs(NN_F32, VECTOR(2), NO_INPUT);
    test_ok(test_add_loss(graph, "cross_entropy", NULL, &err), &err, "a loss before any layer");
    test_ok(test_add(graph, rows, &err), &err, "layers");
    struct nn_loss weighted = {.op = nn_op_find("mse"),
                               .input = "a",
                               .target = "t",
                               .sample_weight = "w",
                               .scale = -0.5,
                               .sum = true};
    test_ok(nn_graph_add_loss(graph, &weighted, &err), &err, "mse");
    test_ok(nn_graph_seal(graph, &err), &err, "sealing");
    assert_int_equal(nn_graph_loss_count(graph), 2);
    struct nn_loss_info plain = nn_graph_loss(graph, 0), other = nn_graph_loss(graph, 1);
    assert_int_equal(plain.input, nn_graph_find(graph, "b"));
    assert_string_equal(plain.target, "y");
    assert_null(plain.sample_weight);
    assert_true(plain.scale == 1 && !plain.sum);
    assert_int_equal(plain.shape.rank, 0);
    assert_int_equal(plain.n_forms, 2); /* classes, or their probabilities */
    for (int i = 0; i < 2; i++) assert_int_equal(plain.forms[i].shape.rank, plain.forms[i].ids ? 0 : 1);
    assert_int_equal(other.input, nn_graph_find(graph, "a"));
    assert_string_equal(other.target, "t");
    assert_string_equal(other.sample_weight, "w");
    assert_true(other.scale == -0.5 && other.sum);
    assert_true(nn_shape_equal(&other.shape, &VECTOR(3)));
    assert_true(other.n_forms == 1 && !other.forms[0].ids);
    nn_graph_unref(graph);
}

static void refused_losses(void **state) {
    (void)state;
    static const struct {
        struct nn_loss loss;
        const char *op;
        enum nn_code code;
        const char *member;
    } cases[] = {
        {{.input = "q", .scale = 1}, "mse", NN_E_UNKNOWN_NAME, "input"},
        {{.target = "a b", .scale = 1}, "mse", NN_E_NAME, "target"},
        {{.sample_weight = "", .scale = 1}, "mse", NN_E_NAME, "sample_weight"},
        {{.sample_weight = "y", .scale = 1}, "mse", NN_E_NAME, "sample_weight"},
        {{.scale = (double)__builtin_inff()}, "mse", NN_E_NOT_FINITE, "scale"},
        {{.input = "scalar", .scale = 1}, "nll", NN_E_SHAPE, ""},
    };
    static const struct row rows[] = {{.op = "reshape", .name = "scalar", .attrs = "\"shape\": []"},
                                      {.op = "relu", .name = "last", .inputs = {"x"}},
                                      {0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nn_error err = {0};
        struct nn_graph *graph = test_inputs(NN_F32, VECTOR(1), NO_INPUT);
        struct nn_loss loss = cases[i].loss;
        loss.op = nn_op_find(cases[i].op);
        test_ok(test_add(graph, rows, &err), &err, "layers");
        test_ok(test_add_loss(graph, "l1", NULL, &err), &err, "another loss");
        if (!nn_graph_add_loss(graph, &loss, &err)) nn_graph_seal(graph, &err);
        test_refused((int)err.code, &err, cases[i].code, "case %zu", i);
        assert_int_equal(err.site, NN_SITE_LOSS);
        assert_int_equal(err.index, 1);
        assert_string_equal(err.member, cases[i].member);
        nn_graph_unref(graph);
    }
}

/* A name tells which loss is meant, a target may serve two losses. */
static void shared_targets(void **state) {
    (void)state;
    static const struct row rows[] = {{.op = "relu"}, {0}};
    struct nn_error err = {0};
    struct nn_graph *graph = test_inputs(NN_F32, VECTOR(2), NO_INPUT);
    test_ok(test_add(graph, rows, &err), &err, "layers");
    test_ok(test_add_loss(graph, "l1", "0", &err), &err, "l1");
    test_ok(test_add_loss(graph, "mse", "x", &err), &err, "mse");
    test_ok(nn_graph_seal(graph, &err), &err, "sealing");
    nn_graph_unref(graph);
}

/* Whatever their order, and though one begins as another does; read before they are there, too. */
static void names_in_any_order(void **state) {
    (void)state;
    static const char *const names[] = {"x", "b", "a", "ab", "a0", "B", "10", "9", "z.weight", "z", "_"};
    static const char *const missing[] = {"", "aa", "1", "z.", "zz", "A", "~"};
    const struct row rows[] = {{.op = "relu", .name = "b", .inputs = {"_"}},
                               {.op = "relu", .name = "a"},
                               {.op = "relu", .name = "ab", .inputs = {"x"}},
                               {.op = "relu", .name = "a0"},
                               {.op = "relu", .name = "B"},
                               {.op = "relu", .name = "10"},
                               {.op = "relu", .name = "9"},
                               {.op = "relu", .name = "z.weight"},
                               {.op = "relu", .name = "z"},
                               {.op = "relu", .name = "_", .inputs = {"z"}},
                               {0}};
    struct nn_graph *graph = test_model(NN_F32, VECTOR(2), rows);
    for (int i = 0; i < (int)(sizeof names / sizeof names[0]); i++)
        assert_int_equal(nn_graph_find(graph, names[i]), i);
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++)
        assert_int_equal(nn_graph_find(graph, missing[i]), -1);
    nn_graph_unref(graph);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequential),
        cmocka_unit_test(defaults_among_names),
        cmocka_unit_test(first_layer_must_choose),
        cmocka_unit_test(no_layers),
        cmocka_unit_test(forward_references),
        cmocka_unit_test(several_inputs_and_outputs),
        cmocka_unit_test(cycles),
        cmocka_unit_test(valid_names),
        cmocka_unit_test(refused_names),
        cmocka_unit_test(refused_inputs),
        cmocka_unit_test(unknown_outputs),
        cmocka_unit_test(shape_sites),
        cmocka_unit_test(sizes_that_overflow),
        cmocka_unit_test(losses_have_defaults),
        cmocka_unit_test(refused_losses),
        cmocka_unit_test(shared_targets),
        cmocka_unit_test(names_in_any_order),
    };
    return cmocka_run_group_tests_name("graphs", tests, NULL, NULL);
}
