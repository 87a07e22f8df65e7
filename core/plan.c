/* plan.c - liveness of the buffers of a pass, and first-fit places for them.
 *
 * Forward, step k computes the k-th node of the order. Without a tape a value is given back after the
 * last step that reads it; with one, whatever backward reads stays. Backward first goes through the
 * losses, then through the nodes in reverse; the gradient of a node lives from the first contribution to
 * it until its own step, or to the end if it is wanted. */
#include "plan.h"

#include <assert.h>
#include <string.h>

/* --- places in a block ------------------------------------------------------------------------- */

struct range {
    size_t begin, end;
};

struct space {
    struct range *free; /* ascending, apart */
    int n_free, room;
    size_t top; /* the block's size so far */
};

/* Buffers that may be live at once: each splits at most one range. */
static int space_init(struct space *space, struct nn_arena *arena, int buffers, struct nn_error *err) {
    *space = (struct space){.room = buffers + 1};
    space->free = nn_arena_alloc(arena, (size_t)space->room, sizeof *space->free);
    return space->free ? NN_OK : nn_fail(err, NN_E_NOMEM, "no memory for a plan");
}

static void drop_range(struct space *space, int i) {
    memmove(&space->free[i], &space->free[i + 1], (size_t)(space->n_free - i - 1) * sizeof *space->free);
    space->n_free--;
}

/* The first place that fits. Sizes are multiples of a cache line. */
static int space_take(struct space *space, size_t bytes, size_t *offset, struct nn_error *err) {
    for (int i = 0; i < space->n_free; i++) {
        struct range *r = &space->free[i];
        if (r->end - r->begin < bytes) continue;
        *offset = r->begin;
        r->begin += bytes;
        if (r->begin == r->end) drop_range(space, i);
        return NN_OK;
    }
    *offset = space->top;
    if (__builtin_add_overflow(space->top, bytes, &space->top))
        return nn_fail(err, NN_E_SIZE, "the memory of this pass overflows");
    return NN_OK;
}

static void space_give(struct space *space, size_t offset, size_t bytes) {
    if (!bytes) return;
    int i = 0;
    while (i < space->n_free && space->free[i].end < offset) i++;
    struct range *r = &space->free[i];
    if (i < space->n_free && r->end == offset) {
        r->end += bytes;
        if (i + 1 < space->n_free && space->free[i + 1].begin == r->end) {
            r->end = space->free[i + 1].end;
            drop_range(space, i + 1);
        }
    } else if (i < space->n_free && r->begin == offset + bytes) {
        r->begin = offset;
    } else {
        assert(space->n_free < space->room);
        memmove(r + 1, r, (size_t)(space->n_free - i) * sizeof *r);
        *r = (struct range){offset, offset + bytes};
        space->n_free++;
    }
}

/* --- sizes ------------------------------------------------------------------------------------- */

/* Bytes of rows * elements numbers, rounded up to cache lines. The one place where they are computed. */
static int buffer_bytes(int64_t rows, int64_t elements, enum nn_dtype dtype, size_t *bytes,
                        struct nn_error *err) {
    int64_t n;
    if (__builtin_mul_overflow(rows, elements, &n) || n > NN_MAX_ELEMENTS)
        return nn_fail(err, NN_E_SIZE, "%lld rows of %lld numbers are more than a tensor can hold",
                       (long long)rows, (long long)elements);
    *bytes = ((size_t)n * nn_dtype_size(dtype) + 63) & ~(size_t)63;
    return NN_OK;
}

struct planner {
    struct nn_plan *plan;
    struct space space;
    struct nn_error *err;
};

/* A place for rows * elements numbers, or NN_NOWHERE for none at all. Returns false on error. */
static bool take(struct planner *p, int64_t elements, enum nn_dtype dtype, size_t *offset) {
    size_t bytes = 0;
    *offset = NN_NOWHERE;
    if (!elements) return true;
    return !buffer_bytes(p->plan->run.rows, elements, dtype, &bytes, p->err) &&
           !space_take(&p->space, bytes, offset, p->err);
}

static void give(struct planner *p, int64_t elements, enum nn_dtype dtype, size_t offset) {
    size_t bytes = 0;
    struct nn_error ignored = {0};
    if (offset != NN_NOWHERE && !buffer_bytes(p->plan->run.rows, elements, dtype, &bytes, &ignored))
        space_give(&p->space, offset, bytes);
}

static int64_t elements_of(const struct nn_node *node) { return nn_shape_elements(&node->shape); }

/* --- what both passes begin with ---------------------------------------------------------------- */

static bool *flags(struct nn_arena *arena, int n, const bool *from) {
    bool *copy = nn_arena_alloc(arena, (size_t)n + 1, sizeof *copy);
    if (copy && from) memcpy(copy, from, (size_t)n * sizeof *copy);
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

/* Nodes whose values the pass is made for. */
static void mark_kept(const struct nn_graph *graph, const struct nn_run_options *options, bool *kept) {
    if (options->tape || !options->wanted)
        for (int i = 0; i < graph->n_outputs; i++) kept[graph->outputs[i]] = true;
    if (!options->tape) return;
    for (int i = 0; i < graph->n_losses; i++) kept[graph->losses[i].node.inputs[0]] = true;
    for (int i = 0; i < graph->n_nodes; i++) {
        const struct nn_node *node = &graph->nodes[i];
        if (!node->op) continue;
        if (node->op->reads & NN_READS_Y) kept[i] = true;
        for (int k = 0; k < node->n_inputs && (node->op->reads & NN_READS_X); k++)
            kept[node->inputs[k]] = true;
    }
}

/* A tape computes all; otherwise only what the kept values depend on. */
static void mark_computed(const struct nn_graph *graph, bool all, const bool *kept, bool *computed) {
    for (int k = graph->n_nodes - 1; k >= 0; k--) {
        int i = graph->order[k];
        const struct nn_node *node = &graph->nodes[i];
        if (all || kept[i]) computed[i] = true;
        for (int j = 0; j < node->n_inputs && computed[i]; j++) computed[node->inputs[j]] = true;
    }
}

/* By node: the last step of the order that reads its value; its own if none does. */
static void find_last_reads(const struct nn_graph *graph, const bool *computed, int *last) {
    for (int k = 0; k < graph->n_nodes; k++) {
        int i = graph->order[k];
        last[i] = k;
        for (int j = 0; j < graph->nodes[i].n_inputs && computed[i]; j++) last[graph->nodes[i].inputs[j]] = k;
    }
}

static bool is_elementwise(const struct nn_node *node, enum nn_split split) {
    return node->op && split == NN_BY_ELEMENT && node->n_inputs <= NN_MAX_LINK_INPUTS &&
           !node->inferred.n_params;
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
    if (!head->op || !head->op->fuses || !plan->computed[graph->order[k]]) return 0;
    for (; links < NN_MAX_LINKS && k + 1 < graph->n_nodes; k++, links++) {
        int next = graph->order[k + 1];
        const struct nn_node *node = &graph->nodes[next];
        if (!plan->computed[next] || !node->op || !is_elementwise(node, node->op->forward_split) ||
            !has_input(node, graph->order[k]))
            break;
    }
    return links;
}

static bool take_forward(struct planner *p, int i) {
    struct nn_plan *plan = p->plan;
    const struct nn_node *node = &plan->graph->nodes[i];
    if (!plan->computed[i] || !node->op) return true;
    return take(p, elements_of(node), node->dtype, &plan->value[i]) &&
           take(p, node->inferred.saved, node->dtype, &plan->saved[i]) &&
           take(p, node->inferred.scratch, node->dtype, &plan->scratch[i]);
}

/* What nobody reads after the k-th step. */
static void give_forward(struct planner *p, int k, const bool *kept, const int *last) {
    const struct nn_plan *plan = p->plan;
    const struct nn_graph *graph = plan->graph;
    int i = graph->order[k];
    const struct nn_node *node = &graph->nodes[i];
    if (!plan->computed[i]) return;
    give(p, node->inferred.scratch, node->dtype, plan->scratch[i]);
    if (!plan->run.tape) give(p, node->inferred.saved, node->dtype, plan->saved[i]);
    for (int j = 0; j < node->n_inputs; j++) {
        int input = node->inputs[j];
        bool again = false; /* x + x is read twice and given back once */
        for (int m = 0; m < j; m++) again |= node->inputs[m] == input;
        if (last[input] == k && !kept[input] && !again)
            give(p, elements_of(&graph->nodes[input]), graph->nodes[input].dtype, plan->value[input]);
    }
    if (last[i] == k && !kept[i]) give(p, elements_of(node), node->dtype, plan->value[i]);
}

static bool place_forward(struct planner *p, const bool *kept, const int *last) {
    struct nn_plan *plan = p->plan;
    const struct nn_graph *graph = plan->graph;
    for (int i = 0; i < graph->n_inputs; i++) /* the caller writes them before the first step */
        if (plan->computed[i] &&
            !take(p, elements_of(&graph->nodes[i]), graph->nodes[i].dtype, &plan->value[i]))
            return false;
    for (int k = 0, end; k < graph->n_nodes; k = end) {
        end = k + 1 + nn_plan_links_forward(plan, k);
        for (int j = k; j < end; j++)
            if (!take_forward(p, graph->order[j])) return false;
        for (int j = k; j < end; j++) give_forward(p, j, kept, last);
    }
    return true;
}

struct nn_plan *nn_plan_forward(const struct nn_graph *graph, const struct nn_run_options *options,
                                struct nn_error *err) {
    assert(graph->sealed);
    int n = graph->n_nodes;
    if (!rows_valid(options, err)) return NULL;
    struct nn_plan *plan = plan_new(graph, options, err);
    if (!plan) return NULL;
    struct planner planner = {.plan = plan, .err = err};
    bool *kept = flags(plan->arena, n, options->tape ? NULL : options->wanted);
    int *last = nn_arena_alloc(plan->arena, (size_t)n, sizeof *last);
    plan->computed = flags(plan->arena, n, NULL);
    plan->value = places(plan->arena, n);
    plan->saved = places(plan->arena, n);
    plan->scratch = places(plan->arena, n);
    if (!kept || !last || !plan->computed || !plan->value || !plan->saved || !plan->scratch) {
        nn_fail(err, NN_E_NOMEM, "no memory for a plan");
        goto fail;
    }
    mark_kept(graph, options, kept);
    for (int i = 0; options->tape && options->wanted && i < n; i++) kept[i] |= options->wanted[i];
    mark_computed(graph, options->tape, kept, plan->computed);
    find_last_reads(graph, plan->computed, last);
    if (space_init(&planner.space, plan->arena, 3 * n, err)) goto fail;
    if (!place_forward(&planner, kept, last)) goto fail;
    plan->kept = kept;
    plan->bytes = planner.space.top;
    return plan;
fail:
    nn_plan_free(plan);
    return NULL;
}

/* --- backward ---------------------------------------------------------------------------------- */

/* Whether the gradient of a node, or of anything before it, is wanted. */
static void mark_needed(struct nn_plan *plan) {
    const struct nn_graph *graph = plan->graph;
    for (int k = 0; k < graph->n_nodes; k++) {
        int i = graph->order[k];
        const struct nn_node *node = &graph->nodes[i];
        plan->needed[i] = plan->wanted[i];
        if (plan->parameters && node->inferred.n_params && !node->frozen) plan->needed[i] = true;
        for (int j = 0; j < node->n_inputs; j++) plan->needed[i] |= plan->needed[node->inputs[j]];
    }
}

/* Whether a loss or an upstream gradient reaches a node: the rest is not needed after all. */
static void mark_reached(struct nn_plan *plan, bool *reached) {
    const struct nn_graph *graph = plan->graph;
    for (int i = 0; plan->losses && i < graph->n_losses; i++)
        if (!plan->losses[i].skip) reached[graph->losses[i].node.inputs[0]] = true;
    for (int k = graph->n_nodes - 1; k >= 0; k--) {
        int i = graph->order[k];
        if (plan->upstream[i]) reached[i] = true;
        for (int j = 0; j < graph->nodes[i].n_inputs && reached[i]; j++)
            reached[graph->nodes[i].inputs[j]] = true;
    }
    for (int i = 0; i < graph->n_nodes; i++) plan->needed[i] &= reached[i];
}

static bool place_loss(struct planner *p, int index) {
    struct nn_plan *plan = p->plan;
    const struct nn_loss_node *loss = &plan->graph->losses[index];
    const struct nn_infer *inferred = &loss->node.inferred;
    struct nn_loss_places *at = &plan->loss_places[index];
    enum nn_dtype dtype = plan->graph->dtype;
    int input = loss->node.inputs[0];
    int64_t elements = nn_shape_elements(&inferred->out);
    if (!take(p, elements, dtype, &at->value) || !take(p, inferred->saved, dtype, &at->saved) ||
        !take(p, inferred->scratch, dtype, &at->scratch) || !take(p, elements, dtype, &at->d_value))
        return false;
    if (plan->needed[input] && plan->d_value[input] == NN_NOWHERE &&
        !take(p, elements_of(&plan->graph->nodes[input]), dtype, &plan->d_value[input]))
        return false;
    give(p, elements, dtype, at->value);
    give(p, inferred->saved, dtype, at->saved);
    give(p, inferred->scratch, dtype, at->scratch);
    give(p, elements, dtype, at->d_value);
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
        if (!take(p, target, options->target_ids ? NN_I64 : graph->dtype, &at->target) ||
            !take(p, graph->losses[i].sample_weight ? weight : 0, graph->dtype, &at->weight))
            return false;
    }
    for (int i = 0; i < graph->n_nodes; i++)
        if ((plan->upstream[i] || (plan->wanted[i] && !plan->needed[i])) &&
            !take(p, elements_of(&graph->nodes[i]), graph->dtype, &plan->d_value[i]))
            return false;
    return true;
}

int nn_plan_links_backward(const struct nn_plan *plan, int k) {
    const struct nn_graph *graph = plan->graph;
    const struct nn_node *last = &graph->nodes[graph->order[k]];
    int links = 0;
    if (!last->op || !last->op->fuses || !plan->needed[graph->order[k]]) return 0;
    for (; links < NN_MAX_LINKS && k > 0; k--, links++) {
        int next = graph->order[k - 1];
        const struct nn_node *node = &graph->nodes[next];
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
    const struct nn_graph *graph = plan->graph;
    const struct nn_node *node = &graph->nodes[i];
    if (!plan->needed[i] || !node->op) return true;
    for (int j = 0; j < node->n_inputs; j++) {
        int input = node->inputs[j];
        if (plan->needed[input] && plan->d_value[input] == NN_NOWHERE &&
            !take(p, elements_of(&graph->nodes[input]), graph->dtype, &plan->d_value[input]))
            return false;
    }
    return take(p, node->inferred.scratch, graph->dtype, &plan->d_scratch[i]);
}

static void give_backward(struct planner *p, int i) {
    const struct nn_plan *plan = p->plan;
    const struct nn_node *node = &plan->graph->nodes[i];
    if (!plan->needed[i] || !node->op) return;
    give(p, node->inferred.scratch, plan->graph->dtype, plan->d_scratch[i]);
    if (!plan->wanted[i]) give(p, elements_of(node), plan->graph->dtype, plan->d_value[i]);
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
    int n = graph->n_nodes;
    plan->parameters = options->parameters;
    plan->needed = flags(plan->arena, n, NULL);
    plan->upstream = flags(plan->arena, n, options->upstream);
    plan->wanted = flags(plan->arena, n, options->nodes);
    plan->d_value = places(plan->arena, n);
    plan->d_scratch = places(plan->arena, n);
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
    bool *reached = flags(plan->arena, graph->n_nodes, NULL);
    if (!reached || !copy_options(plan, options)) {
        nn_fail(err, NN_E_NOMEM, "no memory for a plan");
        goto fail;
    }
    mark_needed(plan);
    mark_reached(plan, reached);
    if (space_init(&planner.space, plan->arena, 2 * graph->n_nodes + 6 * graph->n_losses, err)) goto fail;
    if (!place_backward(&planner)) goto fail;
    plan->bytes = planner.space.top;
    return plan;
fail:
    nn_plan_free(plan);
    return NULL;
}
