/* model.c - small graphs, written down as rows. */
#include "model.h"

#include "attrs.h"
#include "check.h"

struct nn_graph *test_inputs(enum nn_dtype dtype, struct nn_shape x, struct nn_shape z) {
    struct nn_error err = {0};
    struct nn_graph *graph = nn_graph_new(dtype, &err);
    assert_non_null(graph);
    test_ok(nn_graph_add_input(graph, "x", dtype, &x, &err), &err, "x");
    if (z.rank >= 0) test_ok(nn_graph_add_input(graph, "z", dtype, &z, &err), &err, "z");
    return graph;
}

int test_add(struct nn_graph *graph, const struct row *rows, struct nn_error *err) {
    for (; rows->op; rows++) {
        struct nn_layer layer = {.op = nn_op_find(rows->op), .name = rows->name, .frozen = rows->frozen};
        assert_non_null(layer.op);
        while (rows->inputs[layer.n_inputs]) layer.n_inputs++;
        if (layer.n_inputs) layer.inputs = rows->inputs;
        while (rows->ties[layer.n_ties].suffix) layer.n_ties++;
        layer.ties = rows->ties;
        if (rows->attrs) layer.attrs = test_attrs(layer.op, rows->attrs, nn_graph_arena(graph), err);
        if (err->code || nn_graph_add_layer(graph, &layer, err)) break;
    }
    return (int)err->code;
}

int test_add_loss(struct nn_graph *graph, const char *op, const char *input, struct nn_error *err) {
    struct nn_loss loss = {.op = nn_op_find(op), .input = input, .scale = 1};
    return nn_graph_add_loss(graph, &loss, err);
}

struct nn_graph *test_model(enum nn_dtype dtype, struct nn_shape x, const struct row *rows) {
    struct nn_error err = {0};
    struct nn_graph *graph = test_inputs(dtype, x, NO_INPUT);
    test_ok(test_add(graph, rows, &err), &err, "layers");
    test_ok(nn_graph_seal(graph, &err), &err, "sealing");
    return graph;
}

struct nn_error test_model_refused(struct nn_shape x, struct nn_shape z, const struct row *rows,
                                   enum nn_code code, int layer) {
    struct nn_error err = {0};
    struct nn_graph *graph = test_inputs(NN_F32, x, z);
    int got = test_add(graph, rows, &err);
    if (!got) got = nn_graph_seal(graph, &err);
    test_refused(got, &err, code, "layer %d", layer);
    assert_int_equal(err.site, NN_SITE_LAYER);
    assert_int_equal(err.index, layer);
    nn_graph_unref(graph);
    return err;
}
