/* graph.c - building a graph, sealing it, and reading it. */
#include "graph.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attr.h"

/* --- building ---------------------------------------------------------------------------------- */

bool nn_name_valid(const char *name) {
    static const char first[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";
    size_t length = strlen(name);
    if (length < 1 || length > NN_MAX_NAME || !strchr(first, name[0])) return false;
    for (size_t i = 1; i < length; i++)
        if (!strchr(first, name[i]) && name[i] != '.' && name[i] != '-') return false;
    return true;
}

struct nn_graph *nn_graph_new(enum nn_dtype dtype, struct nn_error *err) {
    assert(dtype == NN_F32 || dtype == NN_F64);
    struct nn_graph *graph = calloc(1, sizeof *graph);
    if (!graph || !(graph->arena = nn_arena_new())) {
        free(graph);
        nn_graph_no_memory(err);
        return NULL;
    }
    atomic_init(&graph->refs, 1);
    graph->dtype = dtype;
    return graph;
}

struct nn_graph *nn_graph_ref(struct nn_graph *graph) {
    atomic_fetch_add_explicit(&graph->refs, 1, memory_order_relaxed);
    return graph;
}

void nn_graph_unref(struct nn_graph *graph) {
    if (!graph || atomic_fetch_sub_explicit(&graph->refs, 1, memory_order_acq_rel) != 1) return;
    nn_arena_free(graph->arena);
    free(graph);
}

struct nn_arena *nn_graph_arena(struct nn_graph *graph) {
    return graph->arena;
}

/* Room for one more in an array that lives in the arena; NULL when memory is out. */
static void *grow(struct nn_graph *graph, void *array, int count, int *room, size_t size) {
    if (count < *room) return array;
    int larger = *room ? 2 * *room : 8;
    void *moved = nn_arena_alloc(graph->arena, (size_t)larger, size);
    if (!moved) return NULL;
    if (count) memcpy(moved, array, (size_t)count * size);
    *room = larger;
    return moved;
}

static int compare_names(const void *a, const void *b) {
    const struct nn_value *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* A request may hold some hundred thousand names. */
static int index_names(struct nn_graph *graph, struct nn_error *err) {
    const size_t n = (size_t)(graph->n_named = graph->n_values);
    const struct nn_value **by_name = nn_arena_alloc(graph->arena, n, sizeof *by_name);
    if (!by_name) return nn_graph_no_memory(err);
    for (size_t i = 0; i < n; i++) by_name[i] = &graph->values[i];
    qsort(by_name, n, sizeof *by_name, compare_names);
    graph->by_name = by_name;
    return NN_OK;
}

static int find_indexed(const struct nn_graph *graph, const char *name) {
    const struct nn_value key = {.name = name}, *wanted = &key, **found;
    found = bsearch(&wanted, graph->by_name, (size_t)graph->n_named, sizeof wanted, compare_names);
    return found ? (int)(*found - graph->values) : -1;
}

static int find(const struct nn_graph *graph, const char *name) {
    if (graph->by_name) return find_indexed(graph, name);
    for (int i = 0; i < graph->n_values; i++)
        if (strcmp(graph->values[i].name, name) == 0) return i;
    return -1;
}

/* One more value of the node that is being added. `name` NULL: that of an expansion. */
static int add_value(struct nn_graph *graph, const char *name, struct nn_error *err) {
    if (name && find(graph, name) >= 0)
        return nn_fail_member(err, NN_E_NAME, "name",
                              "\"%s\" is taken: inputs and layers share their names, indexes included", name);
    struct nn_value *values =
        grow(graph, graph->values, graph->n_values, &graph->room_values, sizeof *graph->values);
    if (values) graph->values = values;
    char *copy = name ? nn_arena_strdup(graph->arena, name) : NULL;
    if (!values || (name && !copy)) return nn_graph_no_memory(err);
    values[graph->n_values++] =
        (struct nn_value){.name = copy, .node = graph->n_nodes, .dtype = graph->dtype};
    return NN_OK;
}

struct nn_node *nn_graph_add_node(struct nn_graph *graph, const char *name, const struct nn_op *op,
                                  struct nn_error *err) {
    struct nn_node *nodes =
        grow(graph, graph->nodes, graph->n_nodes, &graph->room_nodes, sizeof *graph->nodes);
    const int first = graph->n_values;
    const char *const *more = op ? op->def.more_outputs : NULL;
    char output[NN_MAX_NAME + NN_MAX_SUFFIX + 2];
    if (!nodes) return nn_graph_no_memory(err), NULL;
    graph->nodes = nodes;
    if (add_value(graph, name, err)) return NULL;
    for (; more && *more; more++) {
        snprintf(output, sizeof output, "%s.%s", name, *more);
        if (add_value(graph, output, err)) return NULL;
    }
    nodes[graph->n_nodes] = (struct nn_node){.name = graph->values[first].name,
                                             .op = op,
                                             .rows = true,
                                             .first_value = first,
                                             .n_values = graph->n_values - first};
    return &nodes[graph->n_nodes++];
}

/* The same for a name that a person gave. */
static struct nn_node *add_named(struct nn_graph *graph, const char *name, const struct nn_op *op,
                                 struct nn_error *err) {
    assert(!graph->sealed);
    if (nn_name_valid(name)) return nn_graph_add_node(graph, name, op, err);
    nn_fail_member(err, NN_E_NAME, "name",
                   "a name is 1 to %d characters of A-Z a-z 0-9 _ . - and begins with none of . -",
                   NN_MAX_NAME);
    return NULL;
}

int nn_graph_check_sample(const struct nn_shape *shape, struct nn_error *err) {
    if (shape->rank < 0 || shape->rank > NN_MAX_RANK - 1)
        return nn_fail(err, NN_E_SIZE, "a sample has at most %d dimensions", NN_MAX_RANK - 1);
    return nn_shape_check(shape, err);
}

int nn_graph_add_input(struct nn_graph *graph, const char *name, enum nn_dtype dtype,
                       const struct nn_shape *sample, struct nn_error *err) {
    assert(graph->n_inputs == graph->n_nodes); /* inputs come before layers */
    assert(dtype == graph->dtype || dtype == NN_I64);
    if (nn_graph_check_sample(sample, err)) return nn_error_at(err, NN_SITE_INPUT, graph->n_inputs);
    const struct nn_node *node = add_named(graph, name, NULL, err);
    if (!node) return nn_error_at(err, NN_SITE_INPUT, graph->n_inputs);
    graph->values[node->first_value].dtype = dtype;
    graph->values[node->first_value].shape = *sample;
    graph->n_inputs++;
    return NN_OK;
}

int nn_graph_make_inputs(struct nn_graph *graph, struct nn_node *node, int n, struct nn_error *err) {
    node->n_inputs = n;
    node->inputs = nn_arena_alloc(graph->arena, (size_t)n, sizeof *node->inputs);
    node->in = nn_arena_alloc(graph->arena, (size_t)n, sizeof *node->in);
    if (n > graph->max_inputs) graph->max_inputs = n;
    return node->inputs && node->in ? NN_OK : nn_graph_no_memory(err);
}

/* The inputs that a layer has which names none. */
static int default_count(const struct nn_def *def) { return def->max_inputs == 0 ? 0 : 1; }

/* The part that layers and losses share: the attributes, and copies of its input names. */
static int fill_node(struct nn_graph *graph, struct nn_node *node, const struct nn_def *def,
                     const struct nn_attrs *attrs, const char *const *inputs, int n_inputs,
                     struct nn_error *err) {
    if (!attrs && !(attrs = nn_attrs_new(def, graph->arena))) return nn_graph_no_memory(err);
    if (nn_attrs_require(attrs, err)) return (int)err->code;
    node->attrs = nn_attrs_values(attrs);
    if (nn_graph_make_inputs(graph, node, inputs ? n_inputs : default_count(def), err)) return (int)err->code;
    if (!inputs) return NN_OK;
    node->input_names = nn_arena_alloc(graph->arena, (size_t)n_inputs, sizeof *node->input_names);
    if (!node->input_names) return nn_graph_no_memory(err);
    for (int i = 0; i < n_inputs; i++)
        if (!(node->input_names[i] = nn_arena_strdup(graph->arena, inputs[i])))
            return nn_graph_no_memory(err);
    return NN_OK;
}

static int check_arity(const struct nn_def *def, int n, struct nn_error *err) {
    if (n >= def->min_inputs && (def->max_inputs < 0 || n <= def->max_inputs)) return NN_OK;
    return nn_fail_member(err, NN_E_VALUE, "inputs", "%s takes %s%d input%s, not %d", def->name,
                          def->max_inputs == def->min_inputs ? "" : "at least ", def->min_inputs,
                          def->min_inputs == 1 ? "" : "s", n);
}

static int copy_ties(struct nn_graph *graph, struct nn_node *node, const struct nn_layer *layer,
                     struct nn_error *err) {
    struct nn_tie *ties = nn_arena_alloc(graph->arena, (size_t)layer->n_ties, sizeof *ties);
    if (!ties) return nn_graph_no_memory(err);
    for (int i = 0; i < layer->n_ties; i++) {
        ties[i].suffix = nn_arena_strdup(graph->arena, layer->ties[i].suffix);
        ties[i].owner = nn_arena_strdup(graph->arena, layer->ties[i].owner);
        if (!ties[i].suffix || !ties[i].owner) return nn_graph_no_memory(err);
    }
    node->ties = ties;
    node->n_ties = layer->n_ties;
    return NN_OK;
}

static int add_layer(struct nn_graph *graph, const struct nn_layer *layer, int index, struct nn_error *err) {
    char text[16];
    if (layer->op->flags & NN_IS_LOSS)
        return nn_fail_member(err, NN_E_VALUE, "op", "%s is a loss: it belongs in \"loss\"", layer->op->name);
    if (check_arity(layer->op, layer->inputs ? layer->n_inputs : default_count(layer->op), err))
        return (int)err->code;
    snprintf(text, sizeof text, "%d", index);
    struct nn_node *node =
        add_named(graph, layer->name ? layer->name : text, nn_op_of(layer->op, graph->dtype), err);
    if (!node) return (int)err->code;
    node->frozen = layer->frozen;
    if (copy_ties(graph, node, layer, err)) return (int)err->code;
    return fill_node(graph, node, layer->op, layer->attrs, layer->inputs, layer->n_inputs, err);
}

int nn_graph_add_layer(struct nn_graph *graph, const struct nn_layer *layer, struct nn_error *err) {
    int index = graph->n_nodes - graph->n_inputs;
    return add_layer(graph, layer, index, err) ? nn_error_at(err, NN_SITE_LAYER, index) : NN_OK;
}

static int add_loss(struct nn_graph *graph, const struct nn_loss *loss, struct nn_error *err) {
    assert(!graph->sealed);
    const char *target = loss->target ? loss->target : "y";
    if (!(loss->op->flags & NN_IS_LOSS))
        return nn_fail_member(err, NN_E_VALUE, "op", "%s is not a loss", loss->op->name);
    if (!nn_name_valid(target)) return nn_fail_member(err, NN_E_NAME, "target", "not a valid name");
    if (loss->sample_weight && !nn_name_valid(loss->sample_weight))
        return nn_fail_member(err, NN_E_NAME, "sample_weight", "not a valid name");
    if (loss->sample_weight && strcmp(loss->sample_weight, target) == 0)
        return nn_fail_member(err, NN_E_NAME, "sample_weight", "the target itself cannot weigh its samples");
    if (!isfinite(loss->scale)) return nn_fail_member(err, NN_E_NOT_FINITE, "scale", "must be finite");
    struct nn_loss_node *losses =
        grow(graph, graph->losses, graph->n_losses, &graph->room_losses, sizeof *graph->losses);
    if (!losses) return nn_graph_no_memory(err);
    graph->losses = losses;
    struct nn_loss_node *added = &losses[graph->n_losses];
    *added = (struct nn_loss_node){.scale = loss->scale, .sum = loss->sum};
    added->node.name = loss->op->name;
    added->node.op = nn_op_of(loss->op, graph->dtype);
    added->node.rows = true;
    added->target = nn_arena_strdup(graph->arena, target);
    if (loss->sample_weight) added->sample_weight = nn_arena_strdup(graph->arena, loss->sample_weight);
    if (!added->target || (loss->sample_weight && !added->sample_weight)) return nn_graph_no_memory(err);
    if (fill_node(graph, &added->node, loss->op, loss->attrs, loss->input ? &loss->input : NULL, 1, err))
        return (int)err->code;
    graph->n_losses++;
    return NN_OK;
}

int nn_graph_add_loss(struct nn_graph *graph, const struct nn_loss *loss, struct nn_error *err) {
    return add_loss(graph, loss, err) ? nn_error_at(err, NN_SITE_LOSS, graph->n_losses) : NN_OK;
}

int nn_graph_add_output(struct nn_graph *graph, const char *name, struct nn_error *err) {
    assert(!graph->sealed);
    const char **names = grow(graph, (void *)graph->output_names, graph->n_outputs, &graph->room_outputs,
                              sizeof *graph->output_names);
    if (!names) return nn_graph_no_memory(err);
    graph->output_names = names;
    for (int i = 0; i < graph->n_outputs; i++)
        if (strcmp(names[i], name) == 0)
            return nn_fail_member(err, NN_E_VALUE, "outputs", "\"%s\" is named twice", name);
    if (!(names[graph->n_outputs] = nn_arena_strdup(graph->arena, name))) return nn_graph_no_memory(err);
    graph->n_outputs++;
    return NN_OK;
}

/* --- sealing ----------------------------------------------------------------------------------- */

int nn_graph_seal(struct nn_graph *graph, struct nn_error *err) {
    assert(!graph->sealed);
    if (index_names(graph, err) || nn_graph_resolve(graph, err) || nn_graph_infer(graph, err) ||
        nn_graph_lay_out(graph, err))
        return (int)err->code;
    graph->sealed = true;
    return NN_OK;
}

/* --- reading ----------------------------------------------------------------------------------- */

enum nn_dtype nn_graph_dtype(const struct nn_graph *graph) { return graph->dtype; }
const char *nn_graph_couples_rows(const struct nn_graph *graph, enum nn_mode mode) {
    for (int i = graph->n_inputs; i < graph->n_nodes; i++)
        if (graph->nodes[i].inferred.couples[mode]) return graph->nodes[i].name;
    return NULL;
}
int nn_graph_input_count(const struct nn_graph *graph) { return graph->n_inputs; }
int nn_graph_value_count(const struct nn_graph *graph) { return graph->n_named; }
int nn_graph_output_count(const struct nn_graph *graph) { return graph->n_outputs; }
int nn_graph_output(const struct nn_graph *graph, int index) { return graph->outputs[index]; }
int nn_graph_find(const struct nn_graph *graph, const char *name) { return find(graph, name); }

struct nn_value_info nn_graph_value(const struct nn_graph *graph, int value) {
    const struct nn_value *v = &graph->values[value];
    const struct nn_node *node = &graph->nodes[v->node];
    return (struct nn_value_info){v->name, node->op ? &node->op->def : NULL, v->dtype, v->shape, node->rows};
}

struct nn_shape nn_value_shape(const struct nn_value_info *value, int64_t rows) {
    return value->rows ? nn_shape_batch(rows, &value->shape) : value->shape;
}

int nn_graph_loss_count(const struct nn_graph *graph) { return graph->n_losses; }
struct nn_loss_info nn_graph_loss(const struct nn_graph *graph, int index) {
    assert(index >= 0 && index < graph->n_losses);
    const struct nn_loss_node *loss = &graph->losses[index];
    const struct nn_infer *inferred = &loss->node.inferred;
    return (struct nn_loss_info){.op = &loss->node.op->def,
                                 .input = loss->node.inputs[0],
                                 .rows = loss->node.rows,
                                 .target = loss->target,
                                 .sample_weight = loss->sample_weight,
                                 .scale = loss->scale,
                                 .sum = loss->sum,
                                 .shape = inferred->out,
                                 .n_forms = inferred->n_forms,
                                 .forms = {inferred->form[0], inferred->form[1]}};
}
