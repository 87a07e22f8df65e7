/* backward.c - one backward pass over one run: losses first, then gradients in reverse order.
 *
 * The upstream gradient of a node is complete when its own step comes, since all that read the node stand
 * behind it in the order. Each operator multiplies it by its local derivative and adds the products to
 * the gradients of its inputs and parameters. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

struct loss_result {
    double loss, normalizer;
};

struct nn_backward {
    struct nn_plan *plan;
    const struct nn_run *run;
    unsigned char *block;
    bool *begun;    /* by node: whether its gradient holds something yet */
    const void **x; /* inputs of the node at work, */
    void **d_x;     /* and their gradients */
    struct loss_result *results;
};

struct nn_backward *nn_backward_new_take(const struct nn_run *run, struct nn_plan *plan,
                                         struct nn_error *err) {
    const struct nn_graph *graph = plan->graph;
    assert(run->plan->run.tape && run->plan->graph == graph && run->plan->run.rows == plan->run.rows);
    struct nn_backward *b = calloc(1, sizeof *b);
    if (!b) goto no_memory;
    b->plan = plan;
    b->run = run;
    b->block = nn_block_new(plan->bytes);
    b->begun = nn_arena_alloc(plan->arena, (size_t)graph->n_nodes, sizeof *b->begun);
    b->x = nn_arena_alloc(plan->arena, (size_t)graph->max_inputs, sizeof *b->x);
    b->d_x = nn_arena_alloc(plan->arena, (size_t)graph->max_inputs, sizeof *b->d_x);
    b->results = nn_arena_alloc(plan->arena, (size_t)graph->n_losses + 1, sizeof *b->results);
    if (!b->block || !b->begun || !b->x || !b->d_x || !b->results) goto no_memory;
    return b;
no_memory:
    nn_fail(err, NN_E_NOMEM, "no memory for %zu bytes of gradients", plan->bytes);
    if (b)
        nn_backward_free(b);
    else
        nn_plan_free(plan);
    return NULL;
}

void nn_backward_free(struct nn_backward *b) {
    if (!b) return;
    nn_block_free(b->block);
    nn_plan_free(b->plan);
    free(b);
}

void *nn_backward_upstream(struct nn_backward *b, int node) {
    return b->plan->upstream[node] ? nn_at(b->block, b->plan->d_value[node]) : NULL;
}

void *nn_backward_target(struct nn_backward *b, int loss) {
    return b->plan->losses ? nn_at(b->block, b->plan->loss_places[loss].target) : NULL;
}

void *nn_backward_sample_weight(struct nn_backward *b, int loss) {
    return b->plan->losses ? nn_at(b->block, b->plan->loss_places[loss].weight) : NULL;
}

/* --- losses ------------------------------------------------------------------------------------ */

static struct nn_pass loss_pass(const struct nn_backward *b, int index) {
    const struct nn_loss_node *loss = &b->plan->graph->losses[index];
    const struct nn_loss_places *at = &b->plan->loss_places[index];
    struct nn_pass pass = nn_pass_begin(b->run, &loss->node, NULL);
    b->x[0] = nn_run_value(b->run, loss->node.inputs[0]);
    pass.x = b->x;
    pass.y = nn_at(b->block, at->value);
    pass.saved = nn_at(b->block, at->saved);
    pass.scratch = nn_at(b->block, at->scratch);
    pass.target = nn_at(b->block, at->target);
    pass.target_ids = b->plan->losses[index].target_ids;
    return pass;
}

int nn_backward_check(const struct nn_backward *b, struct nn_error *err) {
    const struct nn_graph *graph = b->plan->graph;
    for (int i = 0; b->plan->losses && i < graph->n_losses; i++) {
        if (b->plan->losses[i].skip) continue;
        struct nn_pass pass = loss_pass(b, i);
        const struct nn_op *op = graph->losses[i].node.op;
        if (op->check && op->check(&pass, err)) return nn_error_at(err, NN_SITE_TARGET, i);
    }
    return NN_OK;
}

/* What the reduction divides by: 1 for a sum; for a mean the told normaliser, or the batch's own. */
static double normalizer_of(const struct nn_backward *b, int index, const struct nn_pass *pass) {
    const struct nn_loss_node *loss = &b->plan->graph->losses[index];
    double told = b->plan->losses[index].normalizer;
    if (loss->sum) return 1;
    if (!isnan(told)) return told;
    if (loss->node.op->normalizer) return loss->node.op->normalizer(pass);
    return (double)(pass->rows * nn_shape_elements(pass->out));
}

static void *gradient_zeros(struct nn_backward *b, int node) {
    const struct nn_plan *plan = b->plan;
    int64_t n = plan->run.rows * nn_shape_elements(&plan->graph->nodes[node].shape);
    return memset(nn_at(b->block, plan->d_value[node]), 0, (size_t)n * nn_dtype_size(plan->graph->dtype));
}

/* The gradient of a node, zeroed before the first contribution to it. NULL if it is not needed. */
static void *gradient_of(struct nn_backward *b, int node) {
    const struct nn_plan *plan = b->plan;
    if (!plan->needed[node]) return NULL;
    if (b->begun[node]) return nn_at(b->block, plan->d_value[node]);
    b->begun[node] = true;
    return gradient_zeros(b, node);
}

/* loss = scale / normalizer * Σ weight * value; the factor of each value is its upstream gradient. */
static void run_loss(struct nn_backward *b, int index, const struct nn_parallel *par) {
    const struct nn_loss_node *loss = &b->plan->graph->losses[index];
    const struct nn_loss_places *at = &b->plan->loss_places[index];
    const struct nn_op *op = loss->node.op;
    const struct nn_kernels *kernels = nn_kernels_of(b->plan->graph->dtype);
    struct nn_pass pass = loss_pass(b, index);
    pass.par = par;
    nn_pass_run(&pass, op->forward, op->forward_split);

    int64_t a_row = nn_shape_elements(pass.out), n = pass.rows * a_row;
    int64_t per_weight = b->plan->losses[index].weight_full ? 1 : a_row;
    const void *weight = nn_at(b->block, at->weight);
    double normalizer = normalizer_of(b, index, &pass), factor = loss->scale / normalizer;
    b->results[index] =
        (struct loss_result){factor * kernels->reduce(pass.y, weight, per_weight, 0, n), normalizer};

    b->d_x[0] = gradient_of(b, loss->node.inputs[0]);
    if (!b->d_x[0]) return;
    void *d_value = nn_at(b->block, at->d_value);
    kernels->spread(d_value, weight, per_weight, factor, 0, n);
    pass.d_y = d_value;
    pass.d_x = b->d_x;
    nn_pass_run(&pass, op->backward, op->backward_split);
}

double nn_backward_loss(const struct nn_backward *b, int loss) { return b->results[loss].loss; }
double nn_backward_normalizer(const struct nn_backward *b, int loss) { return b->results[loss].normalizer; }

/* --- gradients --------------------------------------------------------------------------------- */

static void run_node(struct nn_backward *b, int index, struct nn_grads *grads,
                     const struct nn_parallel *par) {
    const struct nn_plan *plan = b->plan;
    const struct nn_node *node = &plan->graph->nodes[index];
    const void *w[NN_MAX_OP_PARAMS];
    void *d_w[NN_MAX_OP_PARAMS] = {0};
    bool any = false;
    struct nn_pass pass = nn_pass_begin(b->run, node, w);
    for (int i = 0; i < node->n_inputs; i++) {
        b->x[i] = nn_run_value(b->run, node->inputs[i]);
        b->d_x[i] = gradient_of(b, node->inputs[i]);
        any |= b->d_x[i] != NULL;
    }
    for (int i = 0; i < node->inferred.n_params && grads && !node->frozen; i++) {
        d_w[i] = nn_grads_data(grads, node->first_param + i);
        any = true;
    }
    if (!any) return;
    pass.par = par;
    pass.x = b->x;
    pass.y = (void *)nn_run_value(b->run, index); /* read only, as backward promises */
    pass.saved = nn_at(b->run->block, b->run->plan->saved[index]);
    pass.scratch = nn_at(b->block, plan->d_scratch[index]);
    pass.d_y = nn_at(b->block, plan->d_value[index]);
    pass.d_x = b->d_x;
    pass.d_w = d_w;
    nn_pass_run(&pass, node->op->backward, node->op->backward_split);
}

void nn_backward_run(struct nn_backward *b, struct nn_grads *grads, const struct nn_parallel *par) {
    const struct nn_plan *plan = b->plan;
    const struct nn_graph *graph = plan->graph;
    assert(!grads || (plan->parameters && grads->graph == graph));
    for (int i = 0; i < graph->n_nodes; i++) {
        b->begun[i] = plan->upstream[i];
        if (plan->wanted[i] && !plan->needed[i] && !plan->upstream[i]) gradient_zeros(b, i);
    }
    for (int i = 0; plan->losses && i < graph->n_losses; i++)
        if (!plan->losses[i].skip) run_loss(b, i, par);
    for (int k = graph->n_nodes - 1; k >= 0; k--) {
        int i = graph->order[k];
        if (graph->nodes[i].op && plan->needed[i]) run_node(b, i, grads, par);
    }
}

const void *nn_backward_gradient(const struct nn_backward *b, int node) {
    return b->plan->wanted[node] ? nn_at(b->block, b->plan->d_value[node]) : NULL;
}

bool nn_backward_gradient_finite(const struct nn_backward *b, int node) {
    const struct nn_plan *plan = b->plan;
    const struct nn_kernels *kernels = nn_kernels_of(plan->graph->dtype);
    int64_t n = plan->run.rows * nn_shape_elements(&plan->graph->nodes[node].shape);
    return kernels->finite(nn_backward_gradient(b, node), 0, n);
}
