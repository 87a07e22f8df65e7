/* pass.c - one pass forward and backward through a graph, with every number a double. */
#include "pass.h"

#include <math.h>

#include "../../core/params.h"
#include "attrs.h"
#include "check.h"

void test_narrow(const double *from, enum nn_dtype dtype, void *to, int64_t n) {
    float *f32 = to;
    double *f64 = to;
    int64_t *i64 = to;
    for (int64_t i = 0; i < n; i++)
        if (dtype == NN_F32)
            f32[i] = (float)from[i];
        else if (dtype == NN_F64)
            f64[i] = from[i];
        else
            i64[i] = (int64_t)from[i];
}

void test_widen(const void *from, enum nn_dtype dtype, double *to, int64_t n) {
    const float *f32 = from;
    const double *f64 = from;
    const int64_t *i64 = from;
    for (int64_t i = 0; i < n; i++)
        to[i] = dtype == NN_F32 ? (double)f32[i] : dtype == NN_F64 ? f64[i] : (double)i64[i];
}

static double *widened(struct nn_arena *arena, const void *from, enum nn_dtype dtype, int64_t n) {
    double *to = nn_arena_alloc(arena, (size_t)n, sizeof *to);
    assert_non_null(to);
    assert_non_null(from);
    test_widen(from, dtype, to, n);
    return to;
}

static int64_t elements(const struct pass *p, int value) {
    struct nn_value_info info = nn_graph_value(p->graph, value);
    return (info.rows ? p->options.rows : 1) * nn_shape_elements(&info.shape);
}

static struct nn_params *fill_params(const struct pass *p, struct nn_error *err) {
    if (p->params) return nn_params_ref(p->params);
    struct nn_params *params = nn_params_new(p->graph, err);
    if (!params) return NULL;
    for (int i = 0; i < nn_graph_param_count(p->graph); i++)
        if (p->w[i])
            test_narrow(p->w[i], nn_graph_param(p->graph, i)->dtype, nn_params_data(params, i),
                        nn_graph_param(p->graph, i)->elements);
    return params;
}

static struct nn_run *forward(struct pass *p, struct nn_arena *arena, struct nn_error *err) {
    p->options.tape = true;
    struct nn_params *params = fill_params(p, err);
    if (!params) return NULL;
    struct nn_plan *plan = nn_plan_forward(p->graph, &p->options, err);
    struct nn_run *run = plan ? nn_run_new_take(params, plan, err) : NULL;
    nn_params_unref(params);
    if (!run) return NULL;
    for (int i = 0; i < nn_graph_input_count(p->graph); i++)
        if (nn_run_reads(run, i))
            test_narrow(p->x[i], nn_graph_value(p->graph, i).dtype, nn_run_input(run, i), elements(p, i));
    if (nn_run_check(run, err)) {
        nn_run_free(run);
        return NULL;
    }
    nn_run_forward(run, p->par);
    for (int i = 0; i < nn_graph_value_count(p->graph); i++)
        if (nn_run_value(run, i))
            p->y[i] = widened(arena, nn_run_value(run, i), nn_graph_value(p->graph, i).dtype, elements(p, i));
    return run;
}

static void fill_loss(const struct pass *p, struct nn_backward *backward, int loss) {
    struct nn_loss_info info = nn_graph_loss(p->graph, loss);
    enum nn_dtype dtype = nn_graph_dtype(p->graph);
    const int64_t rows = info.rows ? p->options.rows : 1;
    for (int i = 0; i < info.n_forms; i++)
        if (info.forms[i].ids == p->target_ids[loss])
            test_narrow(p->target[loss], p->target_ids[loss] ? NN_I64 : dtype,
                        nn_backward_target(backward, loss), rows * nn_shape_elements(&info.forms[i].shape));
    if (p->weight[loss])
        test_narrow(p->weight[loss], dtype, nn_backward_sample_weight(backward, loss),
                    rows * (p->weight_full[loss] ? nn_shape_elements(&info.shape) : 1));
}

static int backward(struct pass *p, const struct nn_run *run, struct nn_grads *grads, struct nn_arena *arena,
                    struct nn_error *err) {
    bool upstream[PASS_MAX], nodes[PASS_MAX];
    struct nn_loss_options losses[PASS_MAX];
    int n_values = nn_graph_value_count(p->graph), n_losses = nn_graph_loss_count(p->graph);
    enum nn_dtype dtype = nn_graph_dtype(p->graph);
    for (int i = 0; i < n_values; i++) {
        upstream[i] = p->upstream[i] != NULL;
        nodes[i] = nn_graph_value(p->graph, i).dtype != NN_I64 && !p->unwanted[i];
    }
    for (int i = 0; i < n_losses; i++)
        losses[i] = (struct nn_loss_options){.target_ids = p->target_ids[i],
                                             .weight_full = p->weight_full[i],
                                             .normalizer = p->divisor[i] != 0 ? p->divisor[i] : (double)NAN};
    struct nn_backward_options options = {.losses = p->target[0] ? losses : NULL,
                                          .upstream = upstream,
                                          .nodes = nodes,
                                          .parameters = !p->no_parameters};
    struct nn_plan *plan = nn_plan_backward(p->graph, &p->options, &options, err);
    struct nn_backward *b = plan ? nn_backward_new_take(run, plan, err) : NULL;
    if (!b) return (int)err->code;
    for (int i = 0; i < n_values; i++)
        if (upstream[i]) test_narrow(p->upstream[i], dtype, nn_backward_upstream(b, i), elements(p, i));
    for (int i = 0; i < n_losses && options.losses; i++) fill_loss(p, b, i);
    if (nn_backward_check(b, err)) goto out;
    nn_backward_run(b, p->no_parameters ? NULL : grads, p->par);
    for (int i = 0; i < n_values; i++)
        if (nodes[i]) p->d_x[i] = widened(arena, nn_backward_gradient(b, i), dtype, elements(p, i));
    for (int i = 0; i < n_losses && options.losses; i++) {
        p->loss[i] = nn_backward_loss(b, i);
        p->normalizer[i] = nn_backward_normalizer(b, i);
    }
out:
    nn_backward_free(b);
    return (int)err->code;
}

static int widen_parameters(struct pass *p, const struct nn_params *params, struct nn_grads *grads,
                            struct nn_arena *arena, struct nn_error *err) {
    struct nn_params *after = nn_params_new(p->graph, err);
    if (!after) return (int)err->code;
    nn_params_copy(after, params);
    nn_buffers_step(params, grads, after);
    for (int i = 0; i < nn_graph_param_count(p->graph); i++) {
        const struct nn_param *param = nn_graph_param(p->graph, i);
        if (param->kind == NN_TRAINED)
            p->d_w[i] = widened(arena, nn_grads_data(grads, i), param->dtype, param->elements);
        if (param->kind != NN_BUFFER) continue;
        p->seen[i] = widened(arena, nn_grads_statistic(grads, i), param->dtype, param->elements);
        p->after[i] = widened(arena, nn_params_view(after, i), param->dtype, param->elements);
    }
    nn_params_unref(after);
    return NN_OK;
}

int pass_run(struct pass *p, struct nn_arena *arena, struct nn_error *err) {
    assert_true(nn_graph_value_count(p->graph) <= PASS_MAX && nn_graph_param_count(p->graph) <= PASS_MAX);
    struct nn_run *run = forward(p, arena, err);
    struct nn_grads *grads = run ? nn_grads_new(p->graph, err) : NULL;
    if (!run || !grads || p->forward_only) goto out;
    for (int i = 0; i < (p->backwards ? p->backwards : 1); i++)
        if (backward(p, run, grads, arena, err)) goto out;
    if (widen_parameters(p, nn_run_params(run), grads, arena, err)) goto out;
out:
    nn_grads_free(grads);
    nn_run_free(run);
    return (int)err->code;
}

static int add_all(struct nn_graph *graph, const struct nn_def *def, const struct nn_example *example,
                   enum nn_dtype dtype, const struct nn_loss *how, struct nn_error *err) {
    static const char *const names[] = {"x0", "x1", "x2"};
    bool is_loss = def->flags & NN_IS_LOSS;
    const struct nn_attrs *attrs = test_attrs(def, example->attrs, nn_graph_arena(graph), err);
    if (!attrs) return (int)err->code;
    for (int i = 0; i < example->n_inputs && i < 3; i++)
        if (nn_graph_add_input(graph, names[i], example->ids && !is_loss ? NN_I64 : dtype,
                               &example->inputs[i], err))
            return (int)err->code;
    if (!is_loss) {
        struct nn_layer layer = {
            .op = def, .name = "op", .inputs = names, .n_inputs = example->n_inputs, .attrs = attrs};
        return nn_graph_add_layer(graph, &layer, err);
    }
    struct nn_layer unread = {.op = nn_op_find("relu"), .name = "unread", .inputs = names, .n_inputs = 1};
    if (nn_graph_add_layer(graph, &unread, err)) return (int)err->code; /* a model has at least one layer */
    struct nn_loss loss = how ? *how : (struct nn_loss){0};
    loss.op = def;
    loss.attrs = attrs;
    loss.input = "x0";
    loss.scale = 1;
    return nn_graph_add_loss(graph, &loss, err);
}

struct nn_graph *test_graph_of(const struct nn_def *def, const struct nn_example *example,
                               enum nn_dtype dtype, const struct nn_loss *how, struct nn_error *err) {
    struct nn_graph *graph = nn_graph_new(dtype, err);
    if (!graph) return NULL;
    if (!add_all(graph, def, example, dtype, how, err) && !nn_graph_seal(graph, err)) return graph;
    nn_graph_unref(graph);
    return NULL;
}
