/* optimizer.c - the state of an optimizer, and a step from one version to the next.
 *
 * Clipping is torch.nn.utils.clip_grad_norm_: the gradient is multiplied by c / (norm + 1e-6) where that
 * is below 1 (Pascanu et al., "On the difficulty of training recurrent neural networks", 2013, section
 * 3.2). */
#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "attr.h"
#include "params.h"

#define MAX_ATTRS 16

/* How far one parameter has come. All that a step asks of every parameter is here, close together. */
struct progress {
    uint64_t steps;
    bool trained;
    unsigned fresh; /* a bit for each slot that heeds it, and awaits the first step */
};

struct nn_optimizer {
    struct nn_graph *graph;
    const struct nn_def *def; /* the table's, whatever the type */
    const struct nn_optimizer_op *op;
    struct nn_arena *arena; /* of the values */
    const union nn_attr_value *attrs;
    unsigned char *slot[NN_MAX_SLOTS]; /* NULL where the hyper-parameters do not use it */
    struct progress *progress;         /* by parameter */
    bool unset;                        /* it is being made, and slots are somebody else's to fill */
    double *partial_norms;             /* one for each chunk of the trained block */
};

static bool uses_slot(const struct nn_optimizer_op *op, const union nn_attr_value *attrs, int slot) {
    return op->slots[slot] && (!op->uses || op->uses(attrs, slot));
}

static int64_t chunks(const struct nn_graph *graph) {
    return (nn_trained_elements(graph) + NN_BLOCK_CHUNK - 1) / NN_BLOCK_CHUNK;
}

size_t nn_optimizer_bytes(const struct nn_graph *graph, const struct nn_def *def,
                          const struct nn_attrs *attrs) {
    const struct nn_optimizer_op *op = nn_optimizer_of(def, graph->dtype);
    size_t bytes = (size_t)chunks(graph) * sizeof(double) + (size_t)graph->n_params * sizeof(struct progress);
    for (int i = 0; i < NN_MAX_SLOTS; i++)
        if (uses_slot(op, nn_attrs_values(attrs), i)) bytes += graph->trained_bytes;
    return bytes;
}

static struct nn_optimizer *make(struct nn_graph *graph, const struct nn_def *def,
                                 const struct nn_attrs *attrs, bool unset, struct nn_error *err) {
    struct nn_optimizer *optimizer = calloc(1, sizeof *optimizer);
    if (!optimizer) goto no_memory;
    optimizer->unset = unset;
    optimizer->graph = nn_graph_ref(graph);
    optimizer->def = def;
    optimizer->op = nn_optimizer_of(def, graph->dtype);
    optimizer->partial_norms = calloc((size_t)chunks(graph) + 1, sizeof *optimizer->partial_norms);
    optimizer->progress = calloc((size_t)graph->n_params + 1, sizeof *optimizer->progress);
    if (!optimizer->partial_norms || !optimizer->progress) goto no_memory;
    for (int i = 0; i < graph->n_params; i++)
        optimizer->progress[i].trained = graph->params[i].kind == NN_TRAINED;
    if (nn_optimizer_configure(optimizer, attrs, err)) goto fail;
    optimizer->unset = false;
    return optimizer;
no_memory:
    nn_fail(err, NN_E_NOMEM, "no memory for an optimizer");
fail:
    nn_optimizer_free(optimizer);
    return NULL;
}

struct nn_optimizer *nn_optimizer_new(struct nn_graph *graph, const struct nn_def *def,
                                      const struct nn_attrs *attrs, struct nn_error *err) {
    return make(graph, def, attrs, false, err);
}

struct nn_optimizer *nn_optimizer_new_unset(struct nn_graph *graph, const struct nn_def *def,
                                            const struct nn_attrs *attrs, struct nn_error *err) {
    return make(graph, def, attrs, true, err);
}

void nn_optimizer_free(struct nn_optimizer *optimizer) {
    if (!optimizer) return;
    for (int i = 0; i < NN_MAX_SLOTS; i++) nn_block_free(optimizer->slot[i]);
    free(optimizer->partial_norms);
    free(optimizer->progress);
    nn_arena_free(optimizer->arena);
    nn_graph_unref(optimizer->graph);
    free(optimizer);
}

/* The weight, its gradient and what it becomes; and what is kept of it, read and written. */
double nn_optimizer_work(const struct nn_optimizer *optimizer) {
    int slots = nn_optimizer_slot_count(optimizer);
    return (double)nn_trained_elements(optimizer->graph) *
           (optimizer->op->work + (3 + 2 * slots) * NN_WORK_NUMBER);
}

/* --- hyper-parameters -------------------------------------------------------------------------- */

struct nn_optimizer_change {
    struct nn_arena *arena;
    const union nn_attr_value *attrs;
    unsigned char *added[NN_MAX_SLOTS]; /* that they use, and those before did not */
};

static unsigned char *new_slot(const struct nn_optimizer *optimizer) {
    size_t bytes = optimizer->graph->trained_bytes;
    if (!optimizer->unset) return nn_block_zeros(bytes);
    unsigned char *slot = nn_block_new(bytes);
    if (slot) nn_zero_between(optimizer->graph, slot, bytes, NULL);
    return slot;
}

size_t nn_optimizer_change_bytes(const struct nn_optimizer *optimizer, const struct nn_attrs *attrs) {
    size_t bytes = 0;
    for (int i = 0; i < NN_MAX_SLOTS; i++)
        if (uses_slot(optimizer->op, nn_attrs_values(attrs), i) && !optimizer->slot[i])
            bytes += optimizer->graph->trained_bytes;
    return bytes;
}

struct nn_optimizer_change *nn_optimizer_change_new(const struct nn_optimizer *optimizer,
                                                    const struct nn_attrs *attrs, struct nn_error *err) {
    const struct nn_optimizer_op *op = optimizer->op;
    if (nn_attrs_require(attrs, err)) return NULL;
    if (op->check_attrs && op->check_attrs(nn_attrs_values(attrs), err)) return NULL;
    struct nn_optimizer_change *change = calloc(1, sizeof *change);
    if (!change || !(change->arena = nn_arena_new()) ||
        !(change->attrs = nn_attrs_copy(attrs, change->arena)))
        goto no_memory;
    for (int i = 0; i < NN_MAX_SLOTS; i++) {
        if (!uses_slot(op, change->attrs, i) || optimizer->slot[i]) continue;
        if (!(change->added[i] = new_slot(optimizer))) goto no_memory;
    }
    return change;
no_memory:
    nn_optimizer_change_free(change);
    nn_fail(err, NN_E_NOMEM, "no memory for the optimizer's state");
    return NULL;
}

void nn_optimizer_change_free(struct nn_optimizer_change *change) {
    if (!change) return;
    for (int i = 0; i < NN_MAX_SLOTS; i++) nn_block_free(change->added[i]);
    nn_arena_free(change->arena);
    free(change);
}

static void set_fresh(struct nn_optimizer *optimizer, int slot, int param, bool fresh) {
    unsigned bit = 1U << slot, *bits = &optimizer->progress[param].fresh;
    *bits = fresh && optimizer->op->heeds_fresh[slot] ? *bits | bit : *bits & ~bit;
}

static void fill_slot(struct nn_optimizer *optimizer, int slot) {
    const struct nn_optimizer_op *op = optimizer->op;
    double value = op->start ? op->start(optimizer->attrs, slot) : 0;
    if (value != 0 && !optimizer->unset)
        nn_kernels_of(optimizer->graph->dtype)
            ->fill(optimizer->slot[slot], value, 0, nn_trained_elements(optimizer->graph));
    for (int i = 0; i < optimizer->graph->n_params; i++) set_fresh(optimizer, slot, i, true);
}

void nn_optimizer_configure_take(struct nn_optimizer *optimizer, struct nn_optimizer_change *change) {
    nn_arena_free(optimizer->arena);
    optimizer->arena = change->arena;
    optimizer->attrs = change->attrs;
    for (int i = 0; i < NN_MAX_SLOTS; i++) {
        if (!uses_slot(optimizer->op, optimizer->attrs, i)) {
            nn_block_free(optimizer->slot[i]);
            optimizer->slot[i] = NULL;
        }
        if (!change->added[i]) continue;
        optimizer->slot[i] = change->added[i];
        fill_slot(optimizer, i);
    }
    free(change);
}

int nn_optimizer_configure(struct nn_optimizer *optimizer, const struct nn_attrs *attrs,
                           struct nn_error *err) {
    struct nn_optimizer_change *change = nn_optimizer_change_new(optimizer, attrs, err);
    if (!change) return (int)err->code;
    nn_optimizer_configure_take(optimizer, change);
    return NN_OK;
}

const struct nn_def *nn_optimizer_definition(const struct nn_optimizer *optimizer) { return optimizer->def; }

/* --- a step ------------------------------------------------------------------------------------ */

struct norm_task {
    const struct nn_kernels *kernels;
    const void *data;
    double factor;
    double *partial;
};

static void norm_range(void *arg, int64_t begin, int64_t end) {
    struct norm_task *task = arg;
    task->partial[begin / NN_BLOCK_CHUNK] =
        task->factor == 1 ? task->kernels->sum_squares(task->data, begin, end)
                          : task->kernels->sum_scaled_squares(task->data, task->factor, begin, end);
}

/* Of factor * grads. */
static double grad_norm(struct nn_optimizer *optimizer, const struct nn_grads *grads, double factor,
                        const struct nn_parallel *par) {
    const struct nn_graph *graph = optimizer->graph;
    struct norm_task task = {nn_kernels_of(graph->dtype), nn_grads_numbers(grads), factor,
                             optimizer->partial_norms};
    double sum = 0;
    nn_parallel_ranges(par, nn_trained_elements(graph), NN_BLOCK_CHUNK, norm_range, &task);
    for (int64_t i = 0; i < chunks(graph); i++) sum += optimizer->partial_norms[i];
    return sqrt(sum);
}

/* What clipping leaves of a gradient that counts `scale` times. Squares of doubles may be infinite, or 0, where the
 * norm is not: there it is that of a gradient that much smaller, or greater. */
static double clip_factor(struct nn_optimizer *optimizer, const struct nn_grads *grads, double scale,
                          double most, const struct nn_parallel *par) {
    double norm = fabs(scale) * grad_norm(optimizer, grads, 1, par);
    if (isfinite(norm) && norm > 0) return most / (norm + 1e-6);
    const double by = norm > 0 ? 0x1p-600 : 0x1p600;
    return most / (fabs(scale) * grad_norm(optimizer, grads, by, par)) * by;
}

struct step_task {
    const struct nn_optimizer_op *op;
    const struct nn_kernels *kernels;
    struct nn_update update;
    int64_t first;       /* element of the block that range 0 begins at */
    atomic_bool *finite; /* whether all that was written is */
};

#define PART 2048 /* elements that are looked at while they are in the nearest cache */

static void step_range(void *arg, int64_t begin, int64_t end) {
    const struct step_task *task = arg;
    bool finite = true;
    for (int64_t at = task->first + begin, last = task->first + end; at < last; at += PART) {
        int64_t to = last - at < PART ? last : at + PART;
        task->op->update(&task->update, at, to);
        finite &= task->kernels->finite(task->update.w_next, at, to);
        for (int i = 0; i < NN_MAX_SLOTS; i++)
            if (task->update.slot[i]) finite &= task->kernels->finite(task->update.slot[i], at, to);
    }
    if (!finite) atomic_store_explicit(task->finite, false, memory_order_relaxed);
}

static bool are_all_stepped(const struct nn_graph *graph, const bool *only) {
    for (int i = 0; only && i < graph->n_params; i++)
        if (graph->params[i].kind == NN_TRAINED && !only[i]) return false;
    return true;
}

/* What lies side by side from one parameter to another, all of which have come equally far. */
static void step_run(const struct nn_optimizer *optimizer, struct step_task *task, int first, int last,
                     const struct nn_parallel *par) {
    const struct nn_param *params = optimizer->graph->params;
    size_t size = nn_dtype_size(optimizer->graph->dtype);
    int64_t end = (int64_t)(params[last].offset / size) + params[last].elements;
    task->first = (int64_t)(params[first].offset / size);
    task->update.step = optimizer->progress[first].steps + 1;
    for (int i = 0; i < NN_MAX_SLOTS; i++) task->update.fresh[i] = optimizer->progress[first].fresh >> i & 1;
    nn_parallel_ranges(par, end - task->first, NN_BLOCK_CHUNK, step_range, task);
}

/* One pass over the whole block where all parameters are stepped and have come equally far. */
static void step_block(const struct nn_optimizer *optimizer, struct step_task *task, const bool *only,
                       struct nn_params *to, const struct nn_parallel *par) {
    const struct nn_graph *graph = optimizer->graph;
    const struct progress *progress = optimizer->progress;
    int first = -1, last = -1; /* of a run; -1: there is none */
    if (!are_all_stepped(graph, only)) memcpy(to->data, task->update.w, graph->trained_bytes);
    for (int i = 0; i < graph->n_params; i++) {
        if (!progress[i].trained) continue; /* it lies behind all that are */
        bool stepped = !only || only[i];
        bool goes_on = stepped && first >= 0 && progress[i].steps == progress[first].steps &&
                       progress[i].fresh == progress[first].fresh;
        if (first >= 0 && !goes_on) step_run(optimizer, task, first, last, par);
        if (!goes_on) first = stepped ? i : -1;
        last = i;
    }
    if (first >= 0) step_run(optimizer, task, first, last, par);
}

static void count_step(struct nn_optimizer *optimizer, const bool *only) {
    for (int i = 0; i < optimizer->graph->n_params; i++) {
        struct progress *progress = &optimizer->progress[i];
        if (!progress->trained || (only && !only[i])) continue;
        progress->steps++;
        progress->fresh = 0;
    }
}

bool nn_optimizer_step_some(struct nn_optimizer *optimizer, const bool *only, const struct nn_params *from,
                            const struct nn_grads *grads, double scale, double lr, struct nn_params *to,
                            const struct nn_parallel *par) {
    const struct nn_graph *graph = optimizer->graph;
    assert(from->graph == graph && grads->graph == graph && to->graph == graph && from != to);
    union nn_attr_value attrs[MAX_ATTRS];
    int n_attrs = nn_attrs_count(&optimizer->op->def);
    assert(n_attrs <= MAX_ATTRS);
    memcpy(attrs, optimizer->attrs, (size_t)n_attrs * sizeof *attrs);
    if (!isnan(lr)) attrs[NN_LR].r = lr;
    if (attrs[NN_CLIP_GRAD_NORM].r > 0) {
        double factor = clip_factor(optimizer, grads, scale, attrs[NN_CLIP_GRAD_NORM].r, par);
        if (factor < 1) scale *= factor;
    }
    void *slots[NN_MAX_SLOTS];
    atomic_bool finite = true;
    struct step_task task = {optimizer->op,
                             nn_kernels_of(graph->dtype),
                             {.attrs = attrs,
                              .scale = scale,
                              .w = from->data,
                              .g = nn_grads_numbers(grads),
                              .w_next = to->data,
                              .slot = slots},
                             0,
                             &finite};
    for (int i = 0; i < NN_MAX_SLOTS; i++) slots[i] = optimizer->slot[i];
    step_block(optimizer, &task, only, to, par);
    count_step(optimizer, only);
    memcpy(to->data + graph->trained_bytes, from->data + graph->trained_bytes,
           graph->param_bytes - graph->trained_bytes);
    if (nn_buffers_step(from, grads, to) && atomic_load(&finite)) return true;
    /* With an eps of zero it is 0 / 0 between the parameters, and that is nobody's number. */
    nn_zero_between(graph, to->data, graph->trained_bytes, NULL);
    for (int i = 0; i < NN_MAX_SLOTS; i++)
        if (optimizer->slot[i]) nn_zero_between(graph, optimizer->slot[i], graph->trained_bytes, NULL);
    return nn_optimizer_first_nonfinite(optimizer, to, par) < 0;
}

bool nn_optimizer_step(struct nn_optimizer *optimizer, const struct nn_params *from,
                       const struct nn_grads *grads, double scale, double lr, struct nn_params *to,
                       const struct nn_parallel *par) {
    return nn_optimizer_step_some(optimizer, NULL, from, grads, scale, lr, to, par);
}

/* --- state ------------------------------------------------------------------------------------- */

/* The n-th slot in use. */
static int used_slot(const struct nn_optimizer *optimizer, int n) {
    for (int i = 0; i < NN_MAX_SLOTS; i++)
        if (optimizer->slot[i] && n-- == 0) return i;
    return -1;
}

int nn_optimizer_slot_count(const struct nn_optimizer *optimizer) {
    int n = 0;
    while (used_slot(optimizer, n) >= 0) n++;
    return n;
}

const char *nn_optimizer_slot_name(const struct nn_optimizer *optimizer, int slot) {
    return optimizer->op->slots[used_slot(optimizer, slot)];
}

void *nn_optimizer_slot(struct nn_optimizer *optimizer, int slot, int param) {
    assert(nn_graph_param(optimizer->graph, param)->kind == NN_TRAINED);
    return optimizer->slot[used_slot(optimizer, slot)] + optimizer->graph->params[param].offset;
}

uint64_t nn_optimizer_steps(const struct nn_optimizer *optimizer, int param) {
    return optimizer->progress[param].steps;
}

void nn_optimizer_set_steps(struct nn_optimizer *optimizer, int param, uint64_t steps) {
    assert(nn_graph_param(optimizer->graph, param)->kind == NN_TRAINED);
    optimizer->progress[param].steps = steps;
}

uint64_t nn_optimizer_most_steps(const struct nn_optimizer *optimizer) {
    uint64_t most = 0;
    for (int i = 0; i < optimizer->graph->n_params; i++)
        if (optimizer->progress[i].steps > most) most = optimizer->progress[i].steps;
    return most;
}

bool nn_optimizer_slot_heeds_fresh(const struct nn_optimizer *optimizer, int slot) {
    return optimizer->op->heeds_fresh[used_slot(optimizer, slot)];
}

bool nn_optimizer_slot_fresh(const struct nn_optimizer *optimizer, int slot, int param) {
    int used = used_slot(optimizer, slot);
    assert(used >= 0);
    return optimizer->progress[param].fresh >> used & 1;
}

void nn_optimizer_set_slot_fresh(struct nn_optimizer *optimizer, int slot, int param, bool fresh) {
    int used = used_slot(optimizer, slot);
    assert(used >= 0);
    set_fresh(optimizer, used, param, fresh);
}

/* --- what is finite ---------------------------------------------------------------------------- */

int nn_optimizer_first_nonfinite(const struct nn_optimizer *optimizer, const struct nn_params *params,
                                 const struct nn_parallel *par) {
    int first = nn_params_first_nonfinite(params, par);
    for (int i = 0; i < NN_MAX_SLOTS && first < 0; i++)
        if (optimizer->slot[i]) first = nn_trained_first_nonfinite(optimizer->graph, optimizer->slot[i], par);
    return first;
}

double nn_optimizer_takes(const struct nn_def *def, enum nn_dtype dtype) {
    return nn_optimizer_of(def, dtype)->takes;
}

double nn_optimizer_limit(const struct nn_optimizer *optimizer) {
    const double clipped = optimizer->attrs[NN_CLIP_GRAD_NORM].r, takes = optimizer->op->takes;
    return clipped > 0 && clipped <= takes ? (double)INFINITY : takes;
}
