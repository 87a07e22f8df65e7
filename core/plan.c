/* plan.c - liveness of the buffers of a pass, and places for them.
 *
 * Forward, step k computes the k-th node of the order. Without a tape a value is given back after the
 * last step that reads it; with one, whatever backward reads stays. Backward first goes through the
 * losses, then through the nodes in reverse; the gradient of a node lives from the first contribution to
 * it until its own step, or to the end if it is wanted. */
#include "plan.h"

#include <assert.h>
#include <string.h>

#include "space.h"

/* --- sizes ------------------------------------------------------------------------------------- */

struct planner {
    struct nn_plan *plan;
    struct nn_space space;
    bool *handed; /* by value, of forward: its place went over to the value that overwrites it */
    struct nn_error *err;
};

/* Bytes of a node's buffer, rounded up to cache lines. The one place where they are computed. False: they overflow. */
static bool buffer_bytes(const struct planner *p, const struct nn_node *node, const struct nn_room *room,
                         size_t *bytes) {
    const size_t rows = (size_t)nn_node_rows(node, p->plan->run.rows);
    if (__builtin_mul_overflow(rows, room->row, bytes) || __builtin_add_overflow(*bytes, room->once, bytes) ||
        __builtin_add_overflow(*bytes, 63, bytes))
        return false;
    *bytes &= ~(size_t)63;
    return true;
}

/* A place for so many bytes, or NN_NOWHERE for none at all. Returns false on error. */
static bool take_room(struct planner *p, const struct nn_node *node, const struct nn_room *room,
                      size_t *offset) {
    size_t bytes = 0;
    *offset = NN_NOWHERE;
    if (!room->row && !room->once) return true;
    if (!buffer_bytes(p, node, room, &bytes))
        return nn_fail(p->err, NN_E_SIZE, "the memory of this pass overflows"), false;
    return !nn_space_take(&p->space, bytes, offset, p->err);
}

static void give_room(struct planner *p, const struct nn_node *node, const struct nn_room *room,
                      size_t offset) {
    size_t bytes = 0;
    if (offset != NN_NOWHERE && buffer_bytes(p, node, room, &bytes)) nn_space_give(&p->space, offset, bytes);
}

/* The same for a tensor, of so many numbers a row. */
static bool take(struct planner *p, const struct nn_node *node, int64_t elements, enum nn_dtype dtype,
                 size_t *offset) {
    const int64_t rows = nn_node_rows(node, p->plan->run.rows);
    int64_t n;
    if (__builtin_mul_overflow(rows, elements, &n) || n > NN_MAX_ELEMENTS)
        return nn_fail(p->err, NN_E_SIZE, "%lld rows of %lld numbers are more than a tensor can hold",
                       (long long)rows, (long long)elements),
               false;
    const struct nn_room room = {.row = (size_t)elements * nn_dtype_size(dtype)};
    return take_room(p, node, &room, offset);
}

static void give(struct planner *p, const struct nn_node *node, int64_t elements, enum nn_dtype dtype,
                 size_t offset) {
    const struct nn_room room = {.row = (size_t)elements * nn_dtype_size(dtype)};
    give_room(p, node, &room, offset);
}

/* The same for all numbers of a value, or of its gradient. */
static bool take_value(struct planner *p, int value, size_t *places) {
    const struct nn_graph *graph = p->plan->graph;
    const struct nn_value *v = &graph->values[value];
    return take(p, &graph->nodes[v->node], nn_shape_elements(&v->shape), v->dtype, &places[value]);
}

static void give_value(struct planner *p, int value, const size_t *places) {
    const struct nn_graph *graph = p->plan->graph;
    const struct nn_value *v = &graph->values[value];
    give(p, &graph->nodes[v->node], nn_shape_elements(&v->shape), v->dtype, places[value]);
}

/* --- what both passes begin with ---------------------------------------------------------------- */

/* By value; those of `from` are the named ones. */
static bool *flags(struct nn_arena *arena, const struct nn_graph *graph, const bool *from) {
    bool *copy = nn_arena_alloc(arena, (size_t)graph->n_values + 1, sizeof *copy);
    if (copy && from) memcpy(copy, from, (size_t)graph->n_named * sizeof *copy);
    return copy;
}

static size_t *places(struct nn_arena *arena, int n) {
    size_t *p = nn_arena_alloc(arena, (size_t)n + 1, sizeof *p);
    for (int i = 0; p && i < n; i++) p[i] = NN_NOWHERE;
    return p;
}

static struct nn_plan *plan_new(const struct nn_graph *graph, const struct nn_run_options *options,
                                struct nn_error *err) {
    struct nn_arena *arena = nn_arena_new();
    struct nn_plan *plan = arena ? nn_arena_alloc(arena, 1, sizeof *plan) : NULL;
    if (!plan) {
        nn_arena_free(arena);
        nn_fail(err, NN_E_NOMEM, "no memory for a plan");
        return NULL;
    }
    *plan = (struct nn_plan){.arena = arena, .graph = graph, .run = *options};
    plan->run.wanted = NULL;
    return plan;
}

void nn_plan_free(struct nn_plan *plan) {
    if (plan) nn_arena_free(plan->arena);
}

size_t nn_plan_bytes(const struct nn_plan *plan) { return plan->bytes; }

static bool rows_valid(const struct nn_run_options *options, struct nn_error *err) {
    int64_t end;
    if (options->rows < 1) return nn_fail(err, NN_E_VALUE, "a batch has at least one row"), false;
    if (options->first_row < 0 || __builtin_add_overflow(options->first_row, options->rows, &end))
        return nn_fail(err, NN_E_VALUE, "the first row of a shard is 0 or more"), false;
    assert(!options->tile || options->rows % options->tile == 0);
    return true;
}

/* --- forward ----------------------------------------------------------------------------------- */

/* Values that the pass is made for. */
static void mark_kept(const struct nn_graph *graph, const struct nn_run_options *options, bool *kept) {
    if (options->tape || !options->wanted)
        for (int i = 0; i < graph->n_outputs; i++) kept[graph->outputs[i]] = true;
    if (!options->tape) return;
    for (int i = 0; i < graph->n_losses; i++) kept[graph->losses[i].node.inputs[0]] = true;
    for (int i = graph->n_inputs; i < graph->n_nodes; i++) {
        const struct nn_node *node = &graph->nodes[i];
        for (int k = 0; k < node->n_values && (node->op->reads & NN_READS_Y); k++)
            kept[node->first_value + k] = true;
        for (int k = 0; k < node->n_inputs; k++) kept[node->inputs[k]] |= nn_op_reads(node->op, k);
    }
}

/* By node. A tape computes all; otherwise only what the kept values depend on. */
static void mark_computed(const struct nn_graph *graph, bool all, const bool *kept, bool *computed) {
    for (int k = graph->n_nodes - 1; k >= 0; k--) {
        int i = graph->order[k];
        const struct nn_node *node = &graph->nodes[i];
        if (all) computed[i] = true;
        for (int j = 0; j < node->n_values; j++) computed[i] |= kept[node->first_value + j];
        for (int j = 0; j < node->n_inputs && computed[i]; j++)
            computed[graph->values[node->inputs[j]].node] = true;
    }
}

/* By value: the last step of the order that reads it; its node's own if none does. */
static void find_last_reads(const struct nn_graph *graph, const bool *computed, int *last) {
    for (int k = 0; k < graph->n_nodes; k++) {
        const int i = graph->order[k];
        const struct nn_node *node = &graph->nodes[i];
        for (int j = 0; j < node->n_values; j++) last[node->first_value + j] = k;
        for (int j = 0; j < node->n_inputs && computed[i]; j++) last[node->inputs[j]] = k;
    }
}

static bool is_elementwise(const struct nn_node *node, enum nn_split split) {
    return node->op && split == NN_BY_ELEMENT && node->n_inputs <= NN_MAX_LINK_INPUTS &&
           !node->inferred.broadcasts && !node->inferred.n_params;
}

static bool has_input(const struct nn_node *node, int input) {
    for (int j = 0; j < node->n_inputs; j++)
        if (node->inputs[j] == input) return true;
    return false;
}

int nn_plan_links_forward(const struct nn_plan *plan, int k) {
    const struct nn_graph *graph = plan->graph;
    const struct nn_node *head = &graph->nodes[graph->order[k]];
    int links = 0;
    if (!nn_node_fuses(head) || !plan->computed[graph->order[k]]) return 0;
    for (; links < NN_MAX_LINKS && k + 1 < graph->n_nodes; k++, links++) {
        int next = graph->order[k + 1];
        const struct nn_node *node = &graph->nodes[next];
        if (!plan->computed[next] || !node->op || !is_elementwise(node, node->op->forward_split) ||
            !has_input(node, graph->nodes[graph->order[k]].first_value))
            break;
    }
    return links;
}

/* Whether a value is an output of the nodes from `begin` to `end` - 1 of the order. */
static bool has_output_between(const struct nn_graph *graph, int begin, int end, int value) {
    for (int k = begin; k < end; k++)
        if (graph->order[k] == graph->values[value].node) return true;
    return false;
}

static bool take_forward(struct planner *p, int i) {
    struct nn_plan *plan = p->plan;
    const struct nn_node *node = &plan->graph->nodes[i];
    if (!plan->computed[i] || !node->op) return true;
    for (int j = node->first_value; j < node->first_value + node->n_values; j++)
        if (plan->value[j] == NN_NOWHERE && !take_value(p, j, plan->value)) return false;
    return take_room(p, node, &node->inferred.saved, &plan->saved[i]) &&
           take_room(p, node, &node->inferred.scratch, &plan->scratch[i]);
}

/* What nobody reads after the k-th step. */
static void give_forward(struct planner *p, int k, const bool *kept, const int *last) {
    const struct nn_plan *plan = p->plan;
    const struct nn_graph *graph = plan->graph;
    const int i = graph->order[k];
    const struct nn_node *node = &graph->nodes[i];
    if (!plan->computed[i]) return;
    give_room(p, node, &node->inferred.scratch, plan->scratch[i]);
    if (!plan->run.tape) give_room(p, node, &node->inferred.saved, plan->saved[i]);
    for (int j = 0; j < node->n_inputs; j++) {
        int input = node->inputs[j];
        bool again = false; /* x + x is read twice and given back once */
        for (int m = 0; m < j; m++) again |= node->inputs[m] == input;
        if (last[input] == k && !kept[input] && !again && !p->handed[input])
            give_value(p, input, plan->value);
    }
    for (int j = node->first_value; j < node->first_value + node->n_values; j++)
        if (last[j] == k && !kept[j]) give_value(p, j, plan->value);
}

/* An elementwise node, the k-th of the order, writes its output over an input that nobody reads later. In a chain that
 * begins with the node `head` this holds for what the chain itself made: the head may still read anything else. */
static void hand_over(struct planner *p, int k, int head, const bool *kept, const int *last) {
    struct nn_plan *plan = p->plan;
    const struct nn_graph *graph = plan->graph;
    const struct nn_node *node = &graph->nodes[graph->order[k]];
    if (!plan->computed[graph->order[k]] ||
        !is_elementwise(node, node->op ? node->op->forward_split : NN_WHOLE))
        return;
    for (int j = 0; j < node->n_inputs; j++) {
        const int input = node->inputs[j];
        const bool made = k == head || has_output_between(graph, head, k, input);
        if (last[input] != k || kept[input] || p->handed[input] || !made) continue;
        plan->value[node->first_value] = plan->value[input];
        p->handed[input] = true;
        return;
    }
}

static bool place_forward(struct planner *p, const bool *kept, const int *last) {
    struct nn_plan *plan = p->plan;
    const struct nn_graph *graph = plan->graph;
    for (int i = 0; i < graph->n_inputs; i++) /* the caller writes them before the first step */
        if (plan->computed[i] && !take_value(p, i, plan->value)) return false;
    for (int k = 0, end; k < graph->n_nodes; k = end) {
        end = k + 1 + nn_plan_links_forward(plan, k);
        for (int j = k; j < end; j++) {
            hand_over(p, j, k, kept, last);
            if (!take_forward(p, graph->order[j])) return false;
        }
        for (int j = k; j < end; j++) give_forward(p, j, kept, last);
    }
    return true;
}

struct nn_plan *nn_plan_forward(const struct nn_graph *graph, const struct nn_run_options *options,
                                struct nn_error *err) {
    assert(graph->sealed);
    const int n = graph->n_values;
    if (!rows_valid(options, err)) return NULL;
    struct nn_plan *plan = plan_new(graph, options, err);
    if (!plan) return NULL;
    struct planner planner = {.plan = plan, .err = err};
    bool *kept = flags(plan->arena, graph, options->tape ? NULL : options->wanted);
    int *last = nn_arena_alloc(plan->arena, (size_t)n, sizeof *last);
    plan->computed = nn_arena_alloc(plan->arena, (size_t)graph->n_nodes, sizeof *plan->computed);
    plan->value = places(plan->arena, n);
    plan->saved = places(plan->arena, graph->n_nodes);
    plan->scratch = places(plan->arena, graph->n_nodes);
    planner.handed = flags(plan->arena, graph, NULL);
    if (!kept || !last || !planner.handed || !plan->computed || !plan->value || !plan->saved ||
        !plan->scratch) {
        nn_fail(err, NN_E_NOMEM, "no memory for a plan");
        goto fail;
    }
    mark_kept(graph, options, kept);
    for (int i = 0; options->tape && options->wanted && i < graph->n_named; i++)
        kept[i] |= options->wanted[i];
    mark_computed(graph, options->tape, kept, plan->computed);
    find_last_reads(graph, plan->computed, last);
    if (nn_space_init(&planner.space, plan->arena, n + 2 * graph->n_nodes, err)) goto fail;
    if (!place_forward(&planner, kept, last)) goto fail;
    plan->kept = kept;
    plan->bytes = planner.space.top;
    return plan;
fail:
    nn_plan_free(plan);
    return NULL;
}

/* --- backward ---------------------------------------------------------------------------------- */

bool nn_plan_needs(const struct nn_plan *plan, int node) {
    const struct nn_node *n = &plan->graph->nodes[node];
    for (int i = 0; i < n->n_values; i++)
        if (plan->needed[n->first_value + i]) return true;
    return false;
}

/* Whether the gradient of a value, or of anything before it, is wanted. */
static void mark_needed(struct nn_plan *plan) {
    const struct nn_graph *graph = plan->graph;
    for (int k = 0; k < graph->n_nodes; k++) {
        const struct nn_node *node = &graph->nodes[graph->order[k]];
        bool through = plan->parameters && nn_node_is_trained(graph, node);
        for (int j = 0; j < node->n_inputs; j++) through |= plan->needed[node->inputs[j]];
        for (int j = node->first_value; j < node->first_value + node->n_values; j++)
            plan->needed[j] = through || plan->wanted[j];
    }
}

bool nn_plan_counts(const struct nn_plan *plan, int loss) {
    return plan->losses && !plan->losses[loss].skip &&
           (plan->graph->losses[loss].node.rows || plan->run.first_row == 0);
}

/* Whether a loss or an upstream gradient reaches a value: the rest is not needed after all. */
static void mark_reached(struct nn_plan *plan, bool *reached) {
    const struct nn_graph *graph = plan->graph;
    for (int i = 0; i < graph->n_losses; i++)
        if (nn_plan_counts(plan, i)) reached[graph->losses[i].node.inputs[0]] = true;
    for (int k = graph->n_nodes - 1; k >= 0; k--) {
        const struct nn_node *node = &graph->nodes[graph->order[k]];
        bool any = false;
        for (int j = node->first_value; j < node->first_value + node->n_values; j++)
            any |= reached[j] |= plan->upstream[j];
        for (int j = 0; j < node->n_inputs && any; j++) reached[node->inputs[j]] = true;
    }
    for (int i = 0; i < graph->n_values; i++) plan->needed[i] &= reached[i];
}

/* The gradient of a value, if it is needed and has no place yet. */
static bool take_gradient(struct planner *p, int value) {
    const struct nn_plan *plan = p->plan;
    if (!plan->needed[value] || plan->d_value[value] != NN_NOWHERE) return true;
    return take_value(p, value, plan->d_value);
}

static bool place_loss(struct planner *p, int index) {
    struct nn_plan *plan = p->plan;
    const struct nn_node *node = &plan->graph->losses[index].node;
    const struct nn_infer *inferred = &node->inferred;
    struct nn_loss_places *at = &plan->loss_places[index];
    const enum nn_dtype dtype = plan->graph->dtype;
    const int64_t elements = nn_shape_elements(&inferred->out);
    if (!take(p, node, elements, dtype, &at->value) || !take_room(p, node, &inferred->saved, &at->saved) ||
        !take_room(p, node, &inferred->scratch, &at->scratch) ||
        !take(p, node, elements, dtype, &at->d_value) || !take_gradient(p, node->inputs[0]))
        return false;
    give(p, node, elements, dtype, at->value);
    give_room(p, node, &inferred->saved, at->saved);
    give_room(p, node, &inferred->scratch, at->scratch);
    give(p, node, elements, dtype, at->d_value);
    return true;
}

/* What the caller writes before the first step: targets, weights, upstream gradients; and the gradients
 * that are wanted though nothing flows to them. */
static bool place_given(struct planner *p) {
    struct nn_plan *plan = p->plan;
    const struct nn_graph *graph = plan->graph;
    for (int i = 0; plan->losses && i < graph->n_losses; i++) {
        const struct nn_infer *inferred = &graph->losses[i].node.inferred;
        const struct nn_loss_options *options = &plan->losses[i];
        struct nn_loss_places *at = &plan->loss_places[i];
        *at = (struct nn_loss_places){.target = NN_NOWHERE, .weight = NN_NOWHERE};
        if (options->skip) continue;
        int64_t target = 0, weight = options->weight_full ? nn_shape_elements(&inferred->out) : 1;
        for (int k = 0; k < inferred->n_forms; k++)
            if (inferred->form[k].ids == options->target_ids)
                target = nn_shape_elements(&inferred->form[k].shape);
        assert(target > 0);
        const struct nn_node *node = &graph->losses[i].node;
        if (!take(p, node, target, options->target_ids ? NN_I64 : graph->dtype, &at->target) ||
            !take(p, node, graph->losses[i].sample_weight ? weight : 0, graph->dtype, &at->weight))
            return false;
    }
    for (int i = 0; i < graph->n_values; i++)
        if ((plan->upstream[i] || (plan->wanted[i] && !plan->needed[i])) && !take_value(p, i, plan->d_value))
            return false;
    return true;
}

int nn_plan_links_backward(const struct nn_plan *plan, int k) {
    const struct nn_graph *graph = plan->graph;
    const struct nn_node *last = &graph->nodes[graph->order[k]];
    int links = 0;
    if (!nn_node_fuses(last) || !nn_plan_needs(plan, graph->order[k])) return 0;
    for (; links < NN_MAX_LINKS && k > 0; k--, links++) {
        const struct nn_node *node = &graph->nodes[graph->order[k - 1]];
        const int next = node->first_value;
        bool any = false; /* of its inputs' gradients is needed */
        for (int j = 0; j < node->n_inputs; j++) any |= plan->needed[node->inputs[j]];
        if (!plan->needed[next] || !any || !node->op || !is_elementwise(node, node->op->backward_split) ||
            !has_input(last, next))
            break;
        last = node;
    }
    return links;
}

static bool take_backward(struct planner *p, int i) {
    struct nn_plan *plan = p->plan;
    const struct nn_node *node = &plan->graph->nodes[i];
    if (!node->op || !nn_plan_needs(plan, i)) return true;
    for (int j = 0; j < node->n_inputs; j++)
        if (!take_gradient(p, node->inputs[j])) return false;
    return take_room(p, node, &node->inferred.scratch, &plan->d_scratch[i]);
}

static void give_backward(struct planner *p, int i) {
    const struct nn_plan *plan = p->plan;
    const struct nn_node *node = &plan->graph->nodes[i];
    if (!node->op || !nn_plan_needs(plan, i)) return;
    give_room(p, node, &node->inferred.scratch, plan->d_scratch[i]);
    for (int j = node->first_value; j < node->first_value + node->n_values; j++)
        if (!plan->wanted[j]) give_value(p, j, plan->d_value);
}

static bool place_backward(struct planner *p) {
    struct nn_plan *plan = p->plan;
    const struct nn_graph *graph = plan->graph;
    if (!place_given(p)) return false;
    for (int i = 0; plan->losses && i < graph->n_losses; i++)
        if (!plan->losses[i].skip && !place_loss(p, i)) return false;
    for (int k = graph->n_nodes - 1, end; k >= 0; k = end) {
        end = k - 1 - nn_plan_links_backward(plan, k);
        for (int j = k; j > end; j--)
            if (!take_backward(p, graph->order[j])) return false;
        for (int j = k; j > end; j--) give_backward(p, graph->order[j]);
    }
    return true;
}

static bool copy_options(struct nn_plan *plan, const struct nn_backward_options *options) {
    const struct nn_graph *graph = plan->graph;
    plan->parameters = options->parameters;
    plan->needed = flags(plan->arena, graph, NULL);
    plan->upstream = flags(plan->arena, graph, options->upstream);
    plan->wanted = flags(plan->arena, graph, options->nodes);
    plan->d_value = places(plan->arena, graph->n_values);
    plan->d_scratch = places(plan->arena, graph->n_nodes);
    plan->loss_places = nn_arena_alloc(plan->arena, (size_t)graph->n_losses + 1, sizeof *plan->loss_places);
    if (options->losses) {
        plan->losses = nn_arena_alloc(plan->arena, (size_t)graph->n_losses + 1, sizeof *plan->losses);
        if (!plan->losses) return false;
        memcpy(plan->losses, options->losses, (size_t)graph->n_losses * sizeof *plan->losses);
    }
    return plan->needed && plan->upstream && plan->wanted && plan->d_value && plan->d_scratch &&
           plan->loss_places;
}

struct nn_plan *nn_plan_backward(const struct nn_graph *graph, const struct nn_run_options *run,
                                 const struct nn_backward_options *options, struct nn_error *err) {
    assert(graph->sealed);
    if (!rows_valid(run, err)) return NULL;
    struct nn_plan *plan = plan_new(graph, run, err);
    if (!plan) return NULL;
    struct planner planner = {.plan = plan, .err = err};
    bool *reached = flags(plan->arena, graph, NULL);
    if (!reached || !copy_options(plan, options)) {
        nn_fail(err, NN_E_NOMEM, "no memory for a plan");
        goto fail;
    }
    mark_needed(plan);
    mark_reached(plan, reached);
    if (nn_space_init(&planner.space, plan->arena, graph->n_values + graph->n_nodes + 6 * graph->n_losses,
                      err))
        goto fail;
    if (!place_backward(&planner)) goto fail;
    plan->bytes = planner.space.top;
    return plan;
fail:
    nn_plan_free(plan);
    return NULL;
}
