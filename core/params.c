/* params.c - one version of the weights, and gradients of its trained part. */
#include "params.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* --- parameters -------------------------------------------------------------------------------- */

void nn_zero_between(const struct nn_graph *graph, unsigned char *block, size_t size, const bool *written) {
    size_t done = 0; /* bytes that are zero or not to be zeroed */
    for (int kind = 0; kind < NN_KINDS; kind++)
        for (int i = 0; i < graph->n_params; i++) {
            const struct nn_param *param = &graph->params[i];
            if ((int)param->kind != kind || param->offset >= size || (written && !written[i])) continue;
            memset(block + done, 0, param->offset - done);
            done = param->offset + param->bytes;
        }
    memset(block + done, 0, size - done);
}

struct nn_params *nn_params_new(struct nn_graph *graph, struct nn_error *err) {
    struct nn_params *params = nn_params_new_unset(graph, err);
    if (params) memset(params->data, 0, graph->param_bytes);
    return params;
}

struct nn_params *nn_params_new_unset(struct nn_graph *graph, struct nn_error *err) {
    assert(graph->sealed);
    struct nn_params *params = calloc(1, sizeof *params);
    if (!params || !(params->data = nn_block_new(graph->param_bytes))) {
        free(params);
        nn_fail(err, NN_E_NOMEM, "no memory for %zu bytes of parameters", graph->param_bytes);
        return NULL;
    }
    nn_zero_between(graph, params->data, graph->param_bytes, NULL);
    atomic_init(&params->refs, 1);
    params->graph = nn_graph_ref(graph);
    return params;
}

struct nn_params *nn_params_ref(struct nn_params *params) {
    atomic_fetch_add_explicit(&params->refs, 1, memory_order_relaxed);
    return params;
}

void nn_params_unref(struct nn_params *params) {
    if (!params || atomic_fetch_sub_explicit(&params->refs, 1, memory_order_acq_rel) != 1) return;
    nn_block_free(params->data);
    nn_graph_unref(params->graph);
    free(params);
}

bool nn_params_unshared(const struct nn_params *params) {
    return atomic_load_explicit(&params->refs, memory_order_acquire) == 1;
}

/* Buffers draw nothing, and have no stream: those of the parameters behind them are as without them. */
void nn_params_init(struct nn_params *params, uint64_t seed) {
    const struct nn_graph *graph = params->graph;
    const struct nn_kernels *kernels = nn_kernels_of(graph->dtype);
    uint32_t stream = 0;
    for (int i = 0; i < graph->n_params; i++) {
        struct nn_rng_key key = {seed, NN_RNG_PARAMS | stream};
        stream += graph->params[i].kind != NN_BUFFER;
        if (graph->params[i].dtype == NN_I64)
            memset(nn_params_data(params, i), 0, graph->params[i].bytes);
        else
            kernels->init(nn_params_data(params, i), graph->params[i].elements, &graph->inits[i], key);
    }
}

void nn_params_copy(struct nn_params *params, const struct nn_params *from) {
    assert(params->graph == from->graph);
    memcpy(params->data, from->data, params->graph->param_bytes);
}

struct nn_graph *nn_params_graph(const struct nn_params *params) {
    return params->graph;
}

void *nn_params_data(struct nn_params *params, int param) {
    return params->data + nn_graph_param(params->graph, param)->offset;
}

const void *nn_params_view(const struct nn_params *params, int param) {
    return params->data + nn_graph_param(params->graph, param)->offset;
}

void *nn_params_block(struct nn_params *params) { return params->data; }

uint64_t nn_params_version(const struct nn_params *params) { return params->version; }
void nn_params_set_version(struct nn_params *params, uint64_t version) { params->version = version; }

/* --- passes over plain arrays ------------------------------------------------------------------ */

struct array {
    const struct nn_kernels *kernels;
    void *y;
    const void *x;
    double scale, limit;
    atomic_bool bad;
};

static void finite_range(void *arg, int64_t begin, int64_t end) {
    struct array *a = arg;
    if (!a->kernels->finite(a->x, begin, end)) atomic_store_explicit(&a->bad, true, memory_order_relaxed);
}

static void add_range(void *arg, int64_t begin, int64_t end) {
    struct array *a = arg;
    a->kernels->add(a->y, a->x, a->scale, begin, end);
}

static void blend_range(void *arg, int64_t begin, int64_t end) {
    struct array *a = arg;
    a->kernels->blend(a->y, a->x, a->scale, begin, end);
}

static void scale_range(void *arg, int64_t begin, int64_t end) {
    struct array *a = arg;
    a->kernels->scale(a->y, a->scale, begin, end);
}

static bool finite(const struct nn_graph *graph, const unsigned char *x, int64_t elements,
                   const struct nn_parallel *par) {
    struct array a = {.kernels = nn_kernels_of(graph->dtype), .x = x};
    nn_parallel_ranges(par, elements, NN_BLOCK_CHUNK, finite_range, &a);
    return !atomic_load(&a.bad);
}

static int first_nonfinite(const struct nn_graph *graph, const unsigned char *data, bool trained_only,
                           const struct nn_parallel *par) {
    for (int i = 0; i < graph->n_params; i++) {
        const struct nn_param *param = &graph->params[i];
        if ((trained_only && param->kind != NN_TRAINED) || param->dtype == NN_I64) continue;
        if (!finite(graph, data + param->offset, param->elements, par)) return i;
    }
    return -1;
}

int nn_params_first_nonfinite(const struct nn_params *params, const struct nn_parallel *par) {
    return first_nonfinite(params->graph, params->data, false, par);
}

void nn_params_blend(struct nn_params *params, const struct nn_params *from, double tau,
                     const struct nn_parallel *par) {
    const struct nn_graph *graph = params->graph;
    for (int i = 0; i < graph->n_params; i++) {
        const struct nn_param *param = &graph->params[i];
        struct array a = {.kernels = nn_kernels_of(graph->dtype),
                          .y = params->data + param->offset,
                          .x = from->data + from->graph->params[i].offset,
                          .scale = tau};
        /* With tau = 1 whatever there was: 0 times infinity would be left of it. A count is no average. */
        if (tau == 1 || param->dtype == NN_I64)
            memcpy(a.y, a.x, param->bytes);
        else
            nn_parallel_ranges(par, param->elements, NN_BLOCK_CHUNK, blend_range, &a);
    }
}

int nn_params_alike(const struct nn_graph *graph, const struct nn_graph *other, struct nn_error *err) {
    if (graph->dtype != other->dtype || graph->n_params != other->n_params)
        return nn_fail(err, NN_E_SHAPE, "one has %d parameters of %s, the other %d of %s", graph->n_params,
                       nn_dtype_name(graph->dtype), other->n_params, nn_dtype_name(other->dtype));
    for (int i = 0; i < graph->n_params; i++) {
        const struct nn_param *a = &graph->params[i], *b = &other->params[i];
        if (strcmp(a->name, b->name) != 0)
            return nn_fail(err, NN_E_SHAPE, "\"%s\" stands where the other has \"%s\"", a->name, b->name);
        if (!nn_shape_equal(&a->shape, &b->shape))
            return nn_fail_shape(err, &a->shape, &b->shape, "\"%s\" has another shape", a->name);
        if (a->dtype != b->dtype || (a->kind == NN_BUFFER) != (b->kind == NN_BUFFER))
            return nn_fail(err, NN_E_SHAPE, "\"%s\" is a buffer in one only", a->name);
    }
    return NN_OK;
}

/* --- gradients --------------------------------------------------------------------------------- */

static void zero_rest(struct nn_grads *grads, const bool *written) {
    const struct nn_graph *graph = grads->graph;
    nn_zero_between(graph, grads->data, graph->trained_bytes, written);
    memset(grads->data + graph->trained_bytes, 0, graph->gradient_bytes - graph->trained_bytes);
    grads->blank = false;
}

struct nn_grads *nn_grads_new(struct nn_graph *graph, struct nn_error *err) {
    assert(graph->sealed);
    struct nn_grads *grads = calloc(1, sizeof *grads);
    if (!grads || !(grads->data = nn_block_new(graph->gradient_bytes))) {
        free(grads);
        nn_fail(err, NN_E_NOMEM, "no memory for %zu bytes of gradients", graph->gradient_bytes);
        return NULL;
    }
    grads->graph = nn_graph_ref(graph);
    grads->blank = true;
    return grads;
}

struct nn_grads *nn_grads_new_unset(struct nn_graph *graph, struct nn_error *err) {
    struct nn_grads *grads = nn_grads_new(graph, err);
    if (grads) zero_rest(grads, NULL);
    return grads;
}

void nn_grads_free(struct nn_grads *grads) {
    if (!grads) return;
    nn_block_free(grads->data);
    nn_graph_unref(grads->graph);
    free(grads);
}

void nn_grads_clear(struct nn_grads *grads) {
    grads->blank = true;
    grads->averaged = false;
}

const unsigned char *nn_grads_numbers(const struct nn_grads *grads) {
    if (grads->blank) memset(grads->data, 0, grads->graph->gradient_bytes);
    return grads->data;
}

static void settle(struct nn_grads *grads) {
    nn_grads_numbers(grads);
    grads->blank = false;
}

bool nn_grads_begin(struct nn_grads *grads, const bool *written) {
    if (!grads->blank) return false;
    zero_rest(grads, written);
    return true;
}

void nn_grads_copy(struct nn_grads *grads, const struct nn_grads *from) {
    assert(grads->graph == from->graph);
    memcpy(grads->data, nn_grads_numbers(from), grads->graph->gradient_bytes);
    grads->blank = false;
    grads->averaged = from->averaged;
}

void *nn_grads_data(struct nn_grads *grads, int param) {
    assert(nn_graph_param(grads->graph, param)->kind == NN_TRAINED);
    settle(grads);
    return grads->data + grads->graph->params[param].offset;
}

void *nn_grads_block(struct nn_grads *grads) {
    settle(grads);
    return grads->data;
}

void nn_grads_add(struct nn_grads *grads, const struct nn_grads *from, double scale,
                  const struct nn_parallel *par) {
    assert(grads->graph == from->graph);
    settle(grads);
    struct array a = {.kernels = nn_kernels_of(grads->graph->dtype),
                      .y = grads->data,
                      .x = nn_grads_numbers(from),
                      .scale = scale};
    nn_parallel_ranges(par, nn_trained_elements(grads->graph), NN_BLOCK_CHUNK, add_range, &a);
}

void nn_grads_scale(struct nn_grads *grads, double scale, const struct nn_parallel *par) {
    settle(grads);
    struct array a = {.kernels = nn_kernels_of(grads->graph->dtype), .y = grads->data, .scale = scale};
    nn_parallel_ranges(par, nn_trained_elements(grads->graph), NN_BLOCK_CHUNK, scale_range, &a);
}

int nn_trained_first_nonfinite(const struct nn_graph *graph, const unsigned char *block,
                               const struct nn_parallel *par) {
    /* Nearly always all is well, which one loop tells: each more would take a turn of the threads. */
    if (finite(graph, block, nn_trained_elements(graph), par)) return -1;
    return first_nonfinite(graph, block, true, par);
}

int nn_grads_first_nonfinite(const struct nn_grads *grads, const struct nn_parallel *par) {
    int trained = nn_trained_first_nonfinite(grads->graph, nn_grads_numbers(grads), par);
    return trained < 0 ? nn_buffers_first_nonfinite(grads) : trained;
}

static void within_range(void *arg, int64_t begin, int64_t end) {
    struct array *a = arg;
    bool within = a->y ? a->kernels->sum_within(a->y, a->x, a->scale, a->limit, begin, end)
                       : a->kernels->within(a->x, a->scale, a->limit, begin, end);
    if (!within) atomic_store_explicit(&a->bad, true, memory_order_relaxed);
}

int nn_grads_first_beyond(const struct nn_grads *grads, double scale, const struct nn_grads *sum,
                          double limit, const struct nn_parallel *par) {
    const struct nn_graph *graph = grads->graph;
    assert(!sum || sum->graph == graph);
    struct array a = {.kernels = nn_kernels_of(graph->dtype),
                      .y = sum ? (void *)nn_grads_numbers(sum) : NULL,
                      .x = nn_grads_numbers(grads),
                      .scale = scale,
                      .limit = limit};
    nn_parallel_ranges(par, nn_trained_elements(graph), NN_BLOCK_CHUNK, within_range, &a);
    for (int i = 0; i < graph->n_params && atomic_load(&a.bad); i++) {
        const struct nn_param *param = &graph->params[i];
        int64_t first = (int64_t)(param->offset / nn_dtype_size(graph->dtype));
        struct array one = {.kernels = a.kernels, .y = a.y, .x = a.x, .scale = scale, .limit = limit};
        if (param->kind == NN_TRAINED) within_range(&one, first, first + param->elements);
        if (atomic_load(&one.bad)) return i;
    }
    return nn_buffers_first_nonfinite(grads);
}
