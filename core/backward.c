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
    bool *begun;     /* by value: whether its gradient holds something yet */
    bool *reached;   /* by parameter: whether a gradient comes to a node that has it */
    bool *unwritten; /* by parameter: whether its gradient holds nothing yet */
    const void **x;  /* inputs of the node at work, */
    void **d_x;      /* their gradients, */
    bool *fresh;     /* and whether those hold nothing yet */
    struct loss_result *results;
};

static void find_reached(struct nn_backward *b) {
    const struct nn_graph *graph = b->plan->graph;
    for (int i = graph->n_inputs; i < graph->n_nodes; i++)
        for (int k = 0; k < graph->nodes[i].inferred.n_params && nn_plan_needs(b->plan, i); k++)
            b->reached[graph->nodes[i].params[k]] = true;
}

struct nn_backward *nn_backward_new_take(const struct nn_run *run, struct nn_plan *plan,
                                         struct nn_error *err) {
    const struct nn_graph *graph = plan->graph;
    assert(run->plan->run.tape && run->plan->graph == graph && run->plan->run.rows == plan->run.rows);
    struct nn_backward *b = calloc(1, sizeof *b);
    if (!b) goto no_memory;
    b->plan = plan;
    b->run = run;
    b->block = nn_block_new(plan->bytes);
    b->begun = nn_arena_alloc(plan->arena, (size_t)graph->n_values, sizeof *b->begun);
    b->reached = nn_arena_alloc(plan->arena, (size_t)graph->n_params + 1, sizeof *b->reached);
    b->unwritten = nn_arena_alloc(plan->arena, (size_t)graph->n_params + 1, sizeof *b->unwritten);
    b->x = nn_arena_alloc(plan->arena, (size_t)graph->max_inputs + 1, sizeof *b->x);
    b->d_x = nn_arena_alloc(plan->arena, (size_t)graph->max_inputs, sizeof *b->d_x);
    b->fresh = nn_arena_alloc(plan->arena, (size_t)graph->max_inputs, sizeof *b->fresh);
    b->results = nn_arena_alloc(plan->arena, (size_t)graph->n_losses + 1, sizeof *b->results);
    if (b->reached) find_reached(b);
    if (!b->block || !b->begun || !b->reached || !b->unwritten || !b->x || !b->d_x || !b->fresh ||
        !b->results)
        goto no_memory;
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

void *nn_backward_upstream(struct nn_backward *b, int value) {
    return b->plan->upstream[value] ? nn_at(b->block, b->plan->d_value[value]) : NULL;
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

/* The gradient of a value, NULL if it is not needed; and whether it holds nothing yet, as it will soon. */
static void *gradient_of(struct nn_backward *b, int value, bool *fresh) {
    const struct nn_plan *plan = b->plan;
    *fresh = plan->needed[value] && !b->begun[value];
    b->begun[value] |= plan->needed[value];
    return plan->needed[value] ? nn_at(b->block, plan->d_value[value]) : NULL;
}

/* The numbers of a value, or of its gradient. */
static int64_t count_numbers(const struct nn_plan *plan, int value) {
    const struct nn_value *v = &plan->graph->values[value];
    return nn_node_rows(&plan->graph->nodes[v->node], plan->run.rows) * nn_shape_elements(&v->shape);
}

static void zero_gradient(const struct nn_backward *b, int value) {
    const size_t size = nn_dtype_size(b->plan->graph->dtype);
    memset(nn_at(b->block, b->plan->d_value[value]), 0, (size_t)count_numbers(b->plan, value) * size);
}

/* loss = scale / normalizer * Σ weight * value; the factor of each value is its upstream gradient. */
static void run_loss(struct nn_backward *b, int index, const struct nn_parallel *par) {
    const struct nn_loss_node *loss = &b->plan->graph->losses[index];
    const struct nn_loss_places *at = &b->plan->loss_places[index];
    const struct nn_op *op = loss->node.op;
    const struct nn_kernels *kernels = nn_kernels_of(b->plan->graph->dtype);
    struct nn_pass pass = loss_pass(b, index);
    pass.par = par;
    if (!nn_plan_counts(b->plan, index)) {
        b->results[index].normalizer = normalizer_of(b, index, &pass);
        return;
    }
    nn_pass_run(&pass, op->forward, op->forward_split);

    int64_t a_row = nn_shape_elements(pass.out), n = pass.rows * a_row;
    int64_t per_weight = b->plan->losses[index].weight_full ? 1 : a_row;
    const void *weight = nn_at(b->block, at->weight);
    double normalizer = normalizer_of(b, index, &pass), factor = loss->scale / normalizer;
    b->results[index] =
        (struct loss_result){factor * kernels->reduce(pass.y, weight, per_weight, 0, n), normalizer};

    b->d_x[0] = gradient_of(b, loss->node.inputs[0], &b->fresh[0]);
    if (!b->d_x[0]) return;
    void *d_value = nn_at(b->block, at->d_value);
    kernels->spread(d_value, weight, per_weight, factor, 0, n);
    pass.d_y = d_value;
    pass.d_x = b->d_x;
    pass.fresh_x = b->fresh;
    nn_pass_run(&pass, op->backward, op->backward_split);
}

double nn_backward_loss(const struct nn_backward *b, int loss) { return b->results[loss].loss; }
double nn_backward_normalizer(const struct nn_backward *b, int loss) { return b->results[loss].normalizer; }

/* --- gradients --------------------------------------------------------------------------------- */

static void find_more(const struct nn_backward *b, const struct nn_node *node, struct nn_more *more) {
    for (int i = 1; i < node->n_values; i++) {
        const int value = node->first_value + i;
        more->y[i - 1] = (void *)nn_run_value(b->run, value);
        more->d_y[i - 1] = b->plan->needed[value] ? nn_at(b->block, b->plan->d_value[value]) : NULL;
    }
}

/* All but the gradients of parameters. The arrays have as many places as the node has inputs; `more` is NULL for a node
 * with one output. */
static struct nn_pass backward_pass(struct nn_backward *b, int index, const void **x, void **d_x, bool *fresh,
                                    const void **w, struct nn_more *more) {
    const struct nn_plan *plan = b->plan;
    const struct nn_node *node = &plan->graph->nodes[index];
    struct nn_pass pass = nn_pass_begin(b->run, node, w);
    for (int i = 0; i < node->n_inputs; i++) {
        x[i] = nn_run_value(b->run, node->inputs[i]);
        d_x[i] = gradient_of(b, node->inputs[i], &fresh[i]);
    }
    pass.x = x;
    pass.y = (void *)nn_run_value(b->run, node->first_value); /* read only, as backward promises */
    pass.saved = nn_at(b->run->block, b->run->plan->saved[index]);
    pass.scratch = nn_at(b->block, plan->d_scratch[index]);
    if (plan->needed[node->first_value]) pass.d_y = nn_at(b->block, plan->d_value[node->first_value]);
    if (more) {
        find_more(b, node, more);
        pass.more_y = more->y;
        pass.more_d_y = more->d_y;
    }
    pass.d_x = d_x;
    pass.fresh_x = fresh;
    return pass;
}

/* The gradients of a node's parameters, in d_w; and whether they hold nothing yet, in `fresh`. False: nobody wants any.
 * An operator that does not fuse finds a gradient to add to. */
static bool add_parameters(struct nn_backward *b, const struct nn_node *node, struct nn_grads *grads,
                           void **d_w, bool *fresh) {
    const struct nn_graph *graph = b->plan->graph;
    if (!grads || !nn_node_is_trained(graph, node)) return false;
    for (int i = 0; i < node->inferred.n_params; i++) {
        const int index = node->params[i];
        const struct nn_param *param = &graph->params[index];
        if (param->kind != NN_TRAINED) continue;
        d_w[i] = grads->data + param->offset;
        fresh[i] = b->unwritten[index];
        b->unwritten[index] = false;
        if (fresh[i] && !node->op->fuses)
            memset(d_w[i], 0, (size_t)param->elements * nn_dtype_size(graph->dtype));
    }
    return true;
}

/* The k-th node of the order, and those that are done together with it. Returns how many these are. */
static int run_nodes(struct nn_backward *b, int k, struct nn_grads *grads, const struct nn_parallel *par) {
    const struct nn_graph *graph = b->plan->graph;
    const int index = graph->order[k];
    const struct nn_node *node = &graph->nodes[index];
    const void *w[NN_MAX_OP_PARAMS];
    void *d_w[NN_MAX_OP_PARAMS] = {0};
    bool fresh_w[NN_MAX_OP_PARAMS] = {0};
    struct nn_more more;
    struct nn_chain chain = {.n = nn_plan_links_backward(b->plan, k)};
    struct nn_sequel sequel = {nn_chain_range, &chain};
    struct nn_pass pass = backward_pass(b, index, b->x, b->d_x, b->fresh, w, &more);
    bool any = add_parameters(b, node, grads, d_w, fresh_w);
    for (int i = 0; i < node->n_inputs; i++) any |= b->d_x[i] != NULL;
    if (!any) return 0;
    for (int i = 0; i < chain.n; i++) {
        struct nn_link *link = &chain.link[i];
        int next = graph->order[k - 1 - i];
        link->pass = backward_pass(b, next, link->x, link->d_x, link->fresh, NULL, NULL);
        link->fn = graph->nodes[next].op->backward;
    }
    pass.par = par;
    pass.d_w = d_w;
    pass.fresh_w = fresh_w;
    pass.sequel = chain.n ? &sequel : NULL;
    nn_pass_run(&pass, node->op->backward, node->inferred.broadcasts ? NN_WHOLE : node->op->backward_split);
    return chain.n;
}

/* Adds the statistics of the run's batch to what the gradient has seen. */
static void observe(const struct nn_backward *b, struct nn_grads *grads) {
    const struct nn_graph *graph = b->plan->graph;
    const struct nn_plan *forward = b->run->plan;
    for (int i = graph->n_inputs; i < graph->n_nodes; i++) {
        const struct nn_node *node = &graph->nodes[i];
        void *statistic[NN_MAX_OP_PARAMS];
        if (!node->op->observe || !nn_buffers_begin(grads, node, statistic)) continue;
        struct nn_pass pass = nn_pass_begin(b->run, node, NULL);
        pass.saved = nn_at(b->run->block, forward->saved[i]);
        node->op->observe(&pass, statistic);
    }
}

bool nn_backward_run(struct nn_backward *b, struct nn_grads *grads, const struct nn_parallel *par) {
    const struct nn_plan *plan = b->plan;
    const struct nn_graph *graph = plan->graph;
    assert(!grads || (plan->parameters && grads->graph == graph));
    const bool blank = grads && nn_grads_begin(grads, b->reached);
    for (int i = 0; i < graph->n_params; i++) b->unwritten[i] = blank;
    for (int i = 0; i < graph->n_values; i++) {
        b->begun[i] = plan->upstream[i];
        if (plan->wanted[i] && !plan->needed[i] && !plan->upstream[i]) zero_gradient(b, i);
    }
    for (int i = 0; plan->losses && i < graph->n_losses; i++) {
        if (plan->losses[i].skip) continue;
        if (nn_is_given_up(par)) return false;
        run_loss(b, i, par);
    }
    for (int k = graph->n_nodes - 1; k >= 0; k--) {
        int i = graph->order[k];
        if (!graph->nodes[i].op || !nn_plan_needs(plan, i)) continue;
        if (nn_is_given_up(par)) return false;
        k -= run_nodes(b, k, grads, par);
    }
    if (grads && b->run->plan->run.mode == NN_TRAIN) observe(b, grads);
    return true;
}

bool nn_backward_reaches(const struct nn_backward *b, int param) {
    return b->plan->parameters && b->reached[param];
}

const void *nn_backward_gradient(const struct nn_backward *b, int value) {
    return b->plan->wanted[value] ? nn_at(b->block, b->plan->d_value[value]) : NULL;
}

bool nn_backward_gradient_finite(const struct nn_backward *b, int value) {
    const struct nn_kernels *kernels = nn_kernels_of(b->plan->graph->dtype);
    return kernels->finite(nn_backward_gradient(b, value), 0, count_numbers(b->plan, value));
}
