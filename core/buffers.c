/* buffers.c - statistics that train passes see, and what buffers are after them. The formulas stand in nn.h. There are
 * few numbers: a layer has some for each of its features. */
#include "params.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* The buffers of one node, by their index in the graph. */
struct group {
    int statistic[NN_MAX_OP_PARAMS];
    int n;
    int count; /* the one that is I64; -1: the node has no buffers */
    double momentum;
};

static struct group group_of(const struct nn_graph *graph, const struct nn_node *node) {
    struct group group = {.count = -1, .momentum = node->inferred.momentum};
    for (int k = 0; k < node->inferred.n_params; k++) {
        const struct nn_param *param = &graph->params[node->params[k]];
        if (param->kind != NN_BUFFER) continue;
        if (param->dtype == NN_I64)
            group.count = node->params[k];
        else
            group.statistic[group.n++] = node->params[k];
    }
    return group;
}

/* The group of the next node from *at on that has buffers. False: there is none. */
static bool next_group(const struct nn_graph *graph, int *at, struct group *group) {
    for (; *at < graph->n_nodes; ++*at) {
        *group = group_of(graph, &graph->nodes[*at]);
        if (group->count < 0) continue;
        ++*at;
        return true;
    }
    return false;
}

static double get(const void *data, enum nn_dtype dtype, int64_t i) {
    return dtype == NN_F32 ? (double)((const float *)data)[i] : ((const double *)data)[i];
}

static void put(void *data, enum nn_dtype dtype, int64_t i, double value) {
    if (dtype == NN_F32)
        ((float *)data)[i] = (float)value;
    else
        ((double *)data)[i] = value;
}

static int64_t *count_in(const struct nn_graph *graph, unsigned char *data, const struct group *group) {
    return (int64_t *)(void *)(data + graph->params[group->count].offset);
}

static int64_t sum_counts(int64_t a, int64_t b) {
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

/* What is left of a statistic after n batches more. */
static double decay(const struct group *group, int64_t n) {
    return isnan(group->momentum) ? 1 : pow(1 - group->momentum, (double)n);
}

/* --- what a gradient has seen -------------------------------------------------------------------- */

int64_t nn_grads_seen(const struct nn_grads *grads, int buffer) {
    const struct nn_graph *graph = grads->graph;
    struct group group;
    assert(graph->params[buffer].kind == NN_BUFFER);
    for (int at = 0; !grads->blank && next_group(graph, &at, &group);) {
        bool has = group.count == buffer;
        for (int i = 0; i < group.n; i++) has |= group.statistic[i] == buffer;
        if (has) return *count_in(graph, grads->data, &group);
    }
    return 0;
}

void *nn_grads_statistic(struct nn_grads *grads, int buffer) {
    assert(grads->graph->params[buffer].kind == NN_BUFFER);
    return (unsigned char *)nn_grads_block(grads) + grads->graph->params[buffer].offset;
}

void nn_grads_forget(struct nn_grads *grads) {
    const struct nn_graph *graph = grads->graph;
    memset(grads->data + graph->trained_bytes, 0, graph->gradient_bytes - graph->trained_bytes);
    grads->averaged = false;
}

bool nn_grads_is_averaged(const struct nn_grads *grads) { return grads->averaged; }
void nn_grads_set_averaged(struct nn_grads *grads, bool averaged) { grads->averaged = averaged; }

int nn_buffers_first_nonfinite(const struct nn_grads *grads) {
    const struct nn_graph *graph = grads->graph;
    for (int i = 0; i < graph->n_params && !grads->blank; i++) {
        const struct nn_param *param = &graph->params[i];
        if (param->kind != NN_BUFFER || param->dtype == NN_I64) continue;
        for (int64_t k = 0; k < param->elements; k++)
            if (!isfinite(get(grads->data + param->offset, param->dtype, k))) return i;
    }
    return -1;
}

bool nn_buffers_begin(struct nn_grads *grads, const struct nn_node *node, void **statistic) {
    const struct nn_graph *graph = grads->graph;
    const struct group group = group_of(graph, node);
    if (group.count < 0) return false;
    assert(!grads->averaged && !grads->blank);
    for (int k = 0; k < node->inferred.n_params; k++) {
        const struct nn_param *param = &graph->params[node->params[k]];
        const bool has = param->kind == NN_BUFFER && param->dtype != NN_I64;
        statistic[k] = has ? grads->data + param->offset : NULL;
        for (int64_t i = 0; has && i < param->elements; i++)
            put(statistic[k], param->dtype, i, decay(&group, 1) * get(statistic[k], param->dtype, i));
    }
    int64_t *count = count_in(graph, grads->data, &group);
    *count = sum_counts(*count, 1);
    return true;
}

void nn_grads_follow(struct nn_grads *grads, const struct nn_grads *from) {
    const struct nn_graph *graph = grads->graph;
    const unsigned char *more = nn_grads_numbers(from);
    unsigned char *data = nn_grads_block(grads);
    struct group group;
    assert(graph == from->graph && !grads->averaged && !from->averaged);
    for (int at = 0; next_group(graph, &at, &group);) {
        const int64_t n = *count_in(graph, from->data, &group);
        for (int i = 0; i < group.n; i++) {
            const struct nn_param *param = &graph->params[group.statistic[i]];
            for (int64_t k = 0; k < param->elements; k++)
                put(data + param->offset, param->dtype, k,
                    decay(&group, n) * get(data + param->offset, param->dtype, k) +
                        get(more + param->offset, param->dtype, k));
        }
        int64_t *count = count_in(graph, data, &group);
        *count = sum_counts(*count, n);
    }
}

/* --- what buffers are afterwards ----------------------------------------------------------------- */

/* A number of a buffer, which is `r` after `k` batches, after `n` more with the statistic `s`. */
static double after(const struct group *group, double r, int64_t k, double s, int64_t n) {
    if (n == 0) return r;
    if (isnan(group->momentum)) return ((double)k * r + s) / ((double)k + (double)n);
    return decay(group, n) * r + group->momentum * s;
}

bool nn_buffers_step(const struct nn_params *from, const struct nn_grads *grads, struct nn_params *to) {
    const struct nn_graph *graph = from->graph;
    bool finite = true;
    struct group group;
    for (int at = 0; !grads->blank && next_group(graph, &at, &group);) {
        const int64_t n = *count_in(graph, grads->data, &group), k = *count_in(graph, from->data, &group);
        for (int i = 0; i < group.n && n; i++) {
            const struct nn_param *param = &graph->params[group.statistic[i]];
            for (int64_t j = 0; j < param->elements; j++) {
                const double s = get(grads->data + param->offset, param->dtype, j);
                const double r = get(from->data + param->offset, param->dtype, j);
                put(to->data + param->offset, param->dtype, j,
                    grads->averaged ? s : after(&group, r, k, s, n));
                finite &= (bool)isfinite(get(to->data + param->offset, param->dtype, j));
            }
        }
        *count_in(graph, to->data, &group) = sum_counts(k, n);
    }
    return finite;
}

/* The mean of one number over all gradients. */
static double average(const struct nn_grads *const *each, const double *weights, size_t n,
                      const struct group *group, const struct nn_param *param, int64_t j,
                      const struct nn_params *at) {
    const double r = get(at->data + param->offset, param->dtype, j);
    const int64_t k = *count_in(at->graph, at->data, group);
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const unsigned char *data = nn_grads_numbers(each[i]);
        const double s = get(data + param->offset, param->dtype, j);
        sum += weights[i] * after(group, r, k, s, *count_in(at->graph, each[i]->data, group));
    }
    return sum;
}

/* The mean of the counts, rounded; at least 1 if any has seen a batch. */
static int64_t average_count(const struct nn_grads *const *each, const double *weights, size_t n,
                             const struct group *group) {
    double sum = 0;
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        const int64_t seen = *count_in(each[i]->graph, each[i]->data, group);
        sum += weights[i] * (double)seen;
        any |= seen > 0;
    }
    return any && sum < 1 ? 1 : llround(sum);
}

void nn_grads_average_buffers(struct nn_grads *mean, const struct nn_grads *const *each,
                              const double *weights, size_t n, const struct nn_params *at) {
    const struct nn_graph *graph = mean->graph;
    unsigned char *data = nn_grads_block(mean);
    struct group group;
    for (int node = 0; next_group(graph, &node, &group);) {
        for (int i = 0; i < group.n; i++) {
            const struct nn_param *param = &graph->params[group.statistic[i]];
            for (int64_t j = 0; j < param->elements; j++)
                put(data + param->offset, param->dtype, j, average(each, weights, n, &group, param, j, at));
        }
        *count_in(graph, data, &group) = average_count(each, weights, n, &group);
    }
    mean->averaged = true;
}
