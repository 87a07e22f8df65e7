/* run.c - one forward pass over one version of the parameters. */
#include "run.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct nn_run *nn_run_new_take(struct nn_params *params, struct nn_plan *plan, struct nn_error *err) {
    assert(plan->graph == params->graph && plan->value);
    struct nn_run *run = calloc(1, sizeof *run);
    if (!run) goto no_memory;
    run->params = nn_params_ref(params);
    run->plan = plan;
    run->block = nn_block_new(plan->bytes);
    run->x = calloc((size_t)plan->graph->max_inputs + 1, sizeof *run->x);
    if (!run->block || !run->x) goto no_memory;
    return run;
no_memory:
    nn_fail(err, NN_E_NOMEM, "no memory for %zu bytes of activations", plan->bytes);
    if (run)
        nn_run_free(run);
    else
        nn_plan_free(plan);
    return NULL;
}

void nn_run_free(struct nn_run *run) {
    if (!run) return;
    nn_block_free(run->block);
    nn_plan_free(run->plan);
    nn_params_unref(run->params);
    free((void *)run->x);
    free(run);
}

bool nn_run_reads(const struct nn_run *run, int input) { return run->plan->computed[input]; }

void *nn_run_input(struct nn_run *run, int input) {
    assert(input >= 0 && input < run->plan->graph->n_inputs);
    return nn_at(run->block, run->plan->value[input]);
}

const void *nn_run_value(const struct nn_run *run, int value) {
    return run->plan->kept[value] ? nn_at(run->block, run->plan->value[value]) : NULL;
}

struct nn_params *nn_run_params(const struct nn_run *run) {
    return run->params;
}
const struct nn_run_options *nn_run_options(const struct nn_run *run) { return &run->plan->run; }

/* --- one node ---------------------------------------------------------------------------------- */

struct nn_pass nn_pass_begin(const struct nn_run *run, const struct nn_node *node, const void **w) {
    const struct nn_run_options *options = &run->plan->run;
    for (int i = 0; w && i < node->inferred.n_params; i++)
        w[i] = nn_params_view(run->params, node->params[i]);
    return (struct nn_pass){.attrs = node->attrs,
                            .rows = nn_node_rows(node, options->rows),
                            .first_row = node->rows ? options->first_row : 0,
                            .tile = node->rows ? options->tile : 0,
                            .mode = options->mode,
                            .dtype = run->plan->graph->dtype,
                            .n_inputs = node->n_inputs,
                            .in = node->in,
                            .shared = node->shared,
                            .out = &node->inferred.out,
                            .w = w};
}

struct split_task {
    const struct nn_pass *pass;
    nn_pass_fn *fn;
    bool by_row;
};

/* What is to be added to begins with 0, range by range: a cache holds it until it is. */
static void zero_fresh(const struct nn_pass *pass, int64_t begin, int64_t end, bool by_row) {
    for (int i = 0; i < pass->n_inputs; i++) {
        if (!pass->fresh_x[i] || !pass->d_x[i]) continue;
        size_t unit = (size_t)(by_row ? nn_shape_elements(&pass->in[i]) : 1) * nn_dtype_size(pass->dtype);
        memset((unsigned char *)pass->d_x[i] + (size_t)begin * unit, 0, (size_t)(end - begin) * unit);
    }
}

static void split_range(void *arg, int64_t begin, int64_t end) {
    const struct split_task *task = arg;
    if (task->pass->fresh_x) zero_fresh(task->pass, begin, end, task->by_row);
    task->fn(task->pass, begin, end);
}

void nn_pass_run(const struct nn_pass *pass, nn_pass_fn *fn, enum nn_split split) {
    int64_t row = nn_shape_elements(pass->out);
    for (int i = 0; i < pass->n_inputs; i++) {
        int64_t n = nn_shape_elements(&pass->in[i]);
        if (n > row) row = n;
    }
    struct split_task task = {pass, fn, split == NN_BY_ROW};
    int64_t rows_at_once = NN_CHUNK / row > 1 ? NN_CHUNK / row : 1;
    switch (split) {
    case NN_BY_ELEMENT:
        nn_parallel_ranges(pass->par, pass->rows * nn_shape_elements(pass->out), NN_CHUNK, split_range,
                           &task);
        break;
    case NN_BY_ROW:
        nn_parallel_ranges(pass->par, pass->rows, rows_at_once, split_range, &task);
        break;
    case NN_WHOLE:
        fn(pass, 0, pass->rows);
        break;
    }
}

void nn_chain_range(void *arg, int64_t begin, int64_t end) {
    const struct nn_chain *chain = arg;
    for (int i = 0; i < chain->n; i++) {
        const struct nn_pass *pass = &chain->link[i].pass;
        if (pass->fresh_x) zero_fresh(pass, begin, end, false);
        chain->link[i].fn(pass, begin, end);
    }
}

/* `more` is NULL for a node with one output. */
static struct nn_pass forward_pass(const struct nn_run *run, int index, const void **x, const void **w,
                                   struct nn_more *more) {
    const struct nn_plan *plan = run->plan;
    const struct nn_node *node = &plan->graph->nodes[index];
    struct nn_pass pass = nn_pass_begin(run, node, w);
    for (int i = 0; i < node->n_inputs; i++) x[i] = nn_at(run->block, plan->value[node->inputs[i]]);
    pass.rng = (struct nn_rng_key){plan->run.seed, (uint32_t)index};
    pass.x = x;
    pass.y = nn_at(run->block, plan->value[node->first_value]);
    for (int i = 1; more && i < node->n_values; i++)
        more->y[i - 1] = nn_at(run->block, plan->value[node->first_value + i]);
    if (more) pass.more_y = more->y;
    pass.saved = nn_at(run->block, plan->saved[index]);
    pass.scratch = nn_at(run->block, plan->scratch[index]);
    return pass;
}

/* --- all of them -------------------------------------------------------------------------------- */

/* The inputs of an operator whose data are checked. Data can be checked before forward only if they are the caller's
 * own, which holds for ids: they come from inputs, and no operator makes any. The others are not told. */
enum { CHECKED = 4 };

static void find_ids(const struct nn_run *run, const struct nn_node *node, int64_t first, const void **x) {
    const struct nn_plan *plan = run->plan;
    assert(node->n_inputs <= CHECKED);
    for (int i = 0; i < node->n_inputs; i++) {
        const size_t row = (size_t)nn_shape_elements(&node->in[i]) * nn_dtype_size(NN_I64);
        const unsigned char *ids = nn_at(run->block, plan->value[node->inputs[i]]);
        x[i] = nn_op_takes_ids(node->op, i) ? ids + (size_t)first * row : NULL;
    }
}

/* The error is an input's that has ids, or the layer's. */
static int fail_check(const struct nn_graph *graph, int index, struct nn_error *err) {
    const struct nn_node *node = &graph->nodes[index];
    for (int i = 0; i < node->n_inputs; i++)
        if (nn_op_takes_ids(node->op, i)) return nn_error_at(err, NN_SITE_INPUT, node->inputs[i]);
    char why[sizeof err->text];
    memcpy(why, err->text, sizeof why);
    snprintf(err->text, sizeof err->text, "\"%.60s\": %.180s", node->name, why);
    return nn_error_at(err, NN_SITE_LAYER, index - graph->n_inputs);
}

int nn_run_check_rows(const struct nn_run *run, int64_t first, int64_t rows, struct nn_error *err) {
    const struct nn_plan *plan = run->plan;
    const void *x[CHECKED];
    for (int i = plan->graph->n_inputs; i < plan->graph->n_nodes; i++) {
        const struct nn_node *node = &plan->graph->nodes[i];
        if (!plan->computed[i] || !node->op->check) continue;
        struct nn_pass pass = nn_pass_begin(run, node, NULL);
        find_ids(run, node, first, x);
        pass.x = x;
        if (node->rows) pass.rows = rows;
        if (node->op->check(&pass, err)) return fail_check(run->plan->graph, i, err);
    }
    return NN_OK;
}

int nn_run_check(const struct nn_run *run, struct nn_error *err) {
    return nn_run_check_rows(run, 0, run->plan->run.rows, err);
}

void nn_run_aim(struct nn_run *run, struct nn_params *params, int64_t rows) {
    assert(params->graph == run->params->graph && rows <= run->plan->run.rows);
    nn_params_ref(params);
    nn_params_unref(run->params);
    run->params = params;
    run->plan->run.rows = rows;
}

bool nn_run_forward(struct nn_run *run, const struct nn_parallel *par) {
    const struct nn_graph *graph = run->plan->graph;
    const void *w[NN_MAX_OP_PARAMS];
    struct nn_more more;
    for (int k = 0; k < graph->n_nodes; k++) {
        const struct nn_op *op = graph->nodes[graph->order[k]].op;
        if (!op || !run->plan->computed[graph->order[k]]) continue;
        if (nn_is_given_up(par)) return false;
        struct nn_chain chain = {.n = nn_plan_links_forward(run->plan, k)};
        struct nn_sequel sequel = {nn_chain_range, &chain};
        struct nn_pass pass = forward_pass(run, graph->order[k], run->x, w, &more);
        for (int i = 0; i < chain.n; i++) {
            struct nn_link *link = &chain.link[i];
            int node = graph->order[++k];
            link->pass = forward_pass(run, node, link->x, NULL, NULL);
            link->fn = graph->nodes[node].op->forward;
        }
        pass.par = par;
        pass.sequel = chain.n ? &sequel : NULL;
        nn_pass_run(&pass, op->forward, op->forward_split);
    }
    return true;
}
