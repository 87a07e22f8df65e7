/* layout.c - the parameters of a graph: names, owners, and places in the block. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "graph.h"

enum { NAME_BYTES = NN_MAX_NAME + NN_MAX_SUFFIX + 2 };

/* "<layer>.<suffix>", or the layer's name alone. */
static void write_name(const struct nn_node *node, int k, char name[NAME_BYTES]) {
    const char *suffix = node->inferred.param[k].suffix;
    snprintf(name, NAME_BYTES, "%s%s%s", node->name, *suffix ? "." : "", suffix);
}

/* The tie of a node's k-th parameter; NULL: the node owns it. */
static const struct nn_tie *tie_of(const struct nn_node *node, int k) {
    for (int i = 0; i < node->n_ties; i++)
        if (strcmp(node->ties[i].suffix, node->inferred.param[k].suffix) == 0) return &node->ties[i];
    return NULL;
}

static int fail_twice(const char *name, struct nn_error *err) {
    return nn_fail_member(err, NN_E_NAME, "name", "two parameters would be named \"%s\"", name);
}

/* --- parameters that a node owns ----------------------------------------------------------------- */

static int add_param(struct nn_graph *graph, struct nn_node *node, int k, struct nn_error *err) {
    struct nn_param *param = &graph->params[graph->n_params];
    const struct nn_infer_param *made = &node->inferred.param[k];
    char name[NAME_BYTES];
    write_name(node, k, name);
    *param = (struct nn_param){.name = nn_arena_strdup(graph->arena, name),
                               .shape = made->shape,
                               .kind = made->buffer   ? NN_BUFFER
                                       : node->frozen ? NN_FROZEN
                                                      : NN_TRAINED,
                               .dtype = made->counts ? NN_I64 : graph->dtype};
    if (!param->name) return nn_graph_no_memory(err);
    if (nn_graph_param_find(graph, name) >= 0) return fail_twice(name, err);
    if (nn_shape_check(&param->shape, err)) return (int)err->code;
    param->elements = nn_shape_elements(&param->shape);
    param->bytes = (size_t)param->elements * nn_dtype_size(param->dtype);
    graph->inits[graph->n_params] = made->init;
    node->params[k] = graph->n_params++;
    return NN_OK;
}

/* --- parameters that a node shares --------------------------------------------------------------- */

static int check_suffixes(const struct nn_node *node, struct nn_error *err) {
    for (int i = 0; i < node->n_ties; i++) {
        bool found = false;
        for (int k = 0; k < node->inferred.n_params; k++)
            found |= !node->inferred.param[k].buffer &&
                     strcmp(node->ties[i].suffix, node->inferred.param[k].suffix) == 0;
        if (!found)
            return nn_fail_member(err, NN_E_UNKNOWN_MEMBER, "tied", "this layer has no parameter \"%.100s\"",
                                  node->ties[i].suffix);
    }
    return NN_OK;
}

static int find_owner(const struct nn_graph *graph, const struct nn_tie *tie, int *owner,
                      struct nn_error *err) {
    *owner = nn_graph_param_find(graph, tie->owner);
    if (*owner >= 0 && graph->params[*owner].kind != NN_BUFFER) return NN_OK;
    if (*owner >= 0)
        return nn_fail_member(err, NN_E_VALUE, "tied", "\"%s\" is a buffer, and only its own layer's",
                              tie->owner);
    int other = nn_graph_param_find_any(graph, tie->owner);
    if (other >= 0)
        return nn_fail_member(err, NN_E_VALUE, "tied", "\"%s\" is tied itself: name its owner, \"%s\"",
                              tie->owner, graph->params[other].name);
    return nn_fail_member(err, NN_E_UNKNOWN_NAME, "tied", "no layer has a parameter \"%.150s\" of its own",
                          tie->owner);
}

static int add_alias(struct nn_graph *graph, struct nn_node *node, int k, struct nn_error *err) {
    char name[NAME_BYTES];
    const struct nn_shape *shape = &node->inferred.param[k].shape;
    int owner;
    write_name(node, k, name);
    if (nn_graph_param_find_any(graph, name) >= 0) return fail_twice(name, err);
    if (find_owner(graph, tie_of(node, k), &owner, err)) return (int)err->code;
    if (!nn_shape_equal(shape, &graph->params[owner].shape)) {
        nn_fail_shape(err, shape, &graph->params[owner].shape, "\"%s\" has not the shape of \"%s\"",
                      graph->params[owner].name, name);
        snprintf(err->member, sizeof err->member, "tied");
        return (int)err->code;
    }
    struct nn_alias *alias = &graph->aliases[graph->n_aliases];
    *alias = (struct nn_alias){nn_arena_strdup(graph->arena, name), owner};
    if (!alias->name) return nn_graph_no_memory(err);
    node->params[k] = owner;
    graph->n_aliases++;
    return NN_OK;
}

/* --- all of them --------------------------------------------------------------------------------- */

/* Those that are owned, or those that are tied, in the order of the layers. */
static int list_params(struct nn_graph *graph, bool tied, struct nn_error *err) {
    for (int i = graph->n_inputs; i < graph->n_nodes; i++) {
        struct nn_node *node = &graph->nodes[i];
        if (tied && check_suffixes(node, err)) return nn_error_at(err, NN_SITE_LAYER, i - graph->n_inputs);
        for (int k = 0; k < node->inferred.n_params; k++) {
            if ((tie_of(node, k) != NULL) != tied) continue;
            if (tied ? add_alias(graph, node, k, err) : add_param(graph, node, k, err))
                return nn_error_at(err, NN_SITE_LAYER, i - graph->n_inputs);
        }
    }
    return NN_OK;
}

static int make_lists(struct nn_graph *graph, struct nn_error *err) {
    size_t count = 0, ties = 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        count += (size_t)graph->nodes[i].inferred.n_params;
        ties += (size_t)graph->nodes[i].n_ties;
    }
    graph->params = nn_arena_alloc(graph->arena, count, sizeof *graph->params);
    graph->inits = nn_arena_alloc(graph->arena, count, sizeof *graph->inits);
    graph->aliases = nn_arena_alloc(graph->arena, ties, sizeof *graph->aliases);
    return graph->params && graph->inits && graph->aliases ? NN_OK : nn_graph_no_memory(err);
}

/* Places in the block: kind by kind, each at a multiple of a cache line. */
static int place_params(struct nn_graph *graph, struct nn_error *err) {
    size_t bytes = 0, end[NN_KINDS];
    for (int kind = 0; kind < NN_KINDS; kind++) {
        for (int i = 0; i < graph->n_params; i++) {
            struct nn_param *param = &graph->params[i];
            if ((int)param->kind != kind) continue;
            param->offset = bytes;
            if (__builtin_add_overflow(bytes, (param->bytes + 63) & ~(size_t)63, &bytes))
                return nn_fail(err, NN_E_SIZE, "the parameters' size overflows");
        }
        end[kind] = bytes;
    }
    graph->trained_bytes = end[NN_TRAINED];
    graph->gradient_bytes = end[NN_BUFFER];
    graph->param_bytes = end[NN_FROZEN];
    return NN_OK;
}

int nn_graph_lay_out(struct nn_graph *graph, struct nn_error *err) {
    if (make_lists(graph, err) || list_params(graph, false, err) || list_params(graph, true, err))
        return (int)err->code;
    return place_params(graph, err);
}

/* --- reading ------------------------------------------------------------------------------------- */

int nn_graph_param_count(const struct nn_graph *graph) { return graph->n_params; }
const struct nn_param *nn_graph_param(const struct nn_graph *graph, int index) {
    assert(index >= 0 && index < graph->n_params);
    return &graph->params[index];
}

int nn_graph_param_find(const struct nn_graph *graph, const char *name) {
    for (int i = 0; i < graph->n_params; i++)
        if (strcmp(graph->params[i].name, name) == 0) return i;
    return -1;
}

size_t nn_graph_param_bytes(const struct nn_graph *graph) { return graph->param_bytes; }
size_t nn_graph_trained_bytes(const struct nn_graph *graph) { return graph->trained_bytes; }
size_t nn_graph_gradient_bytes(const struct nn_graph *graph) { return graph->gradient_bytes; }

int nn_graph_alias_count(const struct nn_graph *graph) { return graph->n_aliases; }
struct nn_alias nn_graph_alias(const struct nn_graph *graph, int index) {
    return graph->aliases[index];
}

int nn_graph_param_find_any(const struct nn_graph *graph, const char *name) {
    for (int i = 0; i < graph->n_aliases; i++)
        if (strcmp(graph->aliases[i].name, name) == 0) return graph->aliases[i].param;
    return nn_graph_param_find(graph, name);
}
