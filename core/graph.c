/* graph.c - building a graph, and sealing it: names, order, shapes, parameters. */
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

static int no_memory(struct nn_error *err) { return nn_fail(err, NN_E_NOMEM, "memory is out"); }

struct nn_graph *nn_graph_new(enum nn_dtype dtype, struct nn_error *err) {
    assert(dtype == NN_F32 || dtype == NN_F64);
    struct nn_graph *graph = calloc(1, sizeof *graph);
    if (!graph || !(graph->arena = nn_arena_new())) {
        free(graph);
        no_memory(err);
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

static int find(const struct nn_graph *graph, const char *name) {
    for (int i = 0; i < graph->n_nodes; i++)
        if (strcmp(graph->nodes[i].name, name) == 0) return i;
    return -1;
}

/* A new node of a name that is valid and not taken; its other members are zero. */
static struct nn_node *add_node(struct nn_graph *graph, const char *name, struct nn_error *err) {
    assert(!graph->sealed);
    if (!nn_name_valid(name)) {
        nn_fail_member(err, NN_E_NAME, "name",
                       "a name is 1 to %d characters of A-Z a-z 0-9 _ . - and begins with none of . -",
                       NN_MAX_NAME);
        return NULL;
    }
    if (find(graph, name) >= 0) {
        nn_fail_member(err, NN_E_NAME, "name",
                       "\"%s\" is taken: inputs and layers share their names, indexes included", name);
        return NULL;
    }
    struct nn_node *nodes =
        grow(graph, graph->nodes, graph->n_nodes, &graph->room_nodes, sizeof *graph->nodes);
    if (nodes) graph->nodes = nodes;
    char *copy = nn_arena_strdup(graph->arena, name);
    if (!nodes || !copy) {
        no_memory(err);
        return NULL;
    }
    nodes[graph->n_nodes] = (struct nn_node){.name = copy};
    return &nodes[graph->n_nodes++];
}

static int check_sample_shape(const struct nn_shape *shape, struct nn_error *err) {
    if (shape->rank < 0 || shape->rank > NN_MAX_RANK - 1)
        return nn_fail(err, NN_E_SIZE, "a sample has at most %d dimensions", NN_MAX_RANK - 1);
    return nn_shape_check(shape, err);
}

int nn_graph_add_input(struct nn_graph *graph, const char *name, enum nn_dtype dtype,
                       const struct nn_shape *sample, struct nn_error *err) {
    assert(graph->n_inputs == graph->n_nodes); /* inputs come before layers */
    assert(dtype == graph->dtype || dtype == NN_I64);
    if (check_sample_shape(sample, err)) return nn_error_at(err, NN_SITE_INPUT, graph->n_inputs);
    struct nn_node *node = add_node(graph, name, err);
    if (!node) return nn_error_at(err, NN_SITE_INPUT, graph->n_inputs);
    node->dtype = dtype;
    node->shape = *sample;
    graph->n_inputs++;
    return NN_OK;
}

/* The part that layers and losses share: the operator, its attributes, and copies of its input names. */
static int fill_node(struct nn_graph *graph, struct nn_node *node, const struct nn_def *def,
                     const struct nn_attrs *attrs, const char *const *inputs, int n_inputs,
                     struct nn_error *err) {
    node->op = nn_op_of(def, graph->dtype);
    node->dtype = graph->dtype;
    if (!attrs && !(attrs = nn_attrs_new(def, graph->arena))) return no_memory(err);
    if (nn_attrs_require(attrs, err)) return (int)err->code;
    node->attrs = nn_attrs_values(attrs);
    node->n_inputs = inputs ? n_inputs : 1;
    node->inputs = nn_arena_alloc(graph->arena, (size_t)node->n_inputs, sizeof *node->inputs);
    node->in = nn_arena_alloc(graph->arena, (size_t)node->n_inputs, sizeof *node->in);
    if (!node->inputs || !node->in) return no_memory(err);
    if (node->n_inputs > graph->max_inputs) graph->max_inputs = node->n_inputs;
    if (!inputs) return NN_OK;
    node->input_names = nn_arena_alloc(graph->arena, (size_t)n_inputs, sizeof *node->input_names);
    if (!node->input_names) return no_memory(err);
    for (int i = 0; i < n_inputs; i++)
        if (!(node->input_names[i] = nn_arena_strdup(graph->arena, inputs[i]))) return no_memory(err);
    return NN_OK;
}

static int check_arity(const struct nn_def *def, int n, struct nn_error *err) {
    if (n >= def->min_inputs && (def->max_inputs < 0 || n <= def->max_inputs)) return NN_OK;
    return nn_fail_member(err, NN_E_VALUE, "inputs", "%s takes %s%d input%s, not %d", def->name,
                          def->max_inputs == def->min_inputs ? "" : "at least ", def->min_inputs,
                          def->min_inputs == 1 ? "" : "s", n);
}

static int add_layer(struct nn_graph *graph, const struct nn_layer *layer, int index, struct nn_error *err) {
    char text[16];
    if (layer->op->flags & NN_IS_LOSS)
        return nn_fail_member(err, NN_E_VALUE, "op", "%s is a loss: it belongs in \"loss\"", layer->op->name);
    if (check_arity(layer->op, layer->inputs ? layer->n_inputs : 1, err)) return (int)err->code;
    snprintf(text, sizeof text, "%d", index);
    struct nn_node *node = add_node(graph, layer->name ? layer->name : text, err);
    if (!node) return (int)err->code;
    node->frozen = layer->frozen;
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
    if (!losses) return no_memory(err);
    graph->losses = losses;
    struct nn_loss_node *added = &losses[graph->n_losses];
    *added = (struct nn_loss_node){.scale = loss->scale, .sum = loss->sum};
    added->node.name = loss->op->name;
    added->target = nn_arena_strdup(graph->arena, target);
    if (loss->sample_weight) added->sample_weight = nn_arena_strdup(graph->arena, loss->sample_weight);
    if (!added->target || (loss->sample_weight && !added->sample_weight)) return no_memory(err);
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
    if (!names) return no_memory(err);
    graph->output_names = names;
    for (int i = 0; i < graph->n_outputs; i++)
        if (strcmp(names[i], name) == 0)
            return nn_fail_member(err, NN_E_VALUE, "outputs", "\"%s\" is named twice", name);
    if (!(names[graph->n_outputs] = nn_arena_strdup(graph->arena, name))) return no_memory(err);
    graph->n_outputs++;
    return NN_OK;
}

/* --- sealing ----------------------------------------------------------------------------------- */

/* What a layer reads when it does not say: the layer before it, or the model's only input. */
static int default_input(const struct nn_graph *graph, int node, struct nn_error *err) {
    if (node > graph->n_inputs) return node - 1;
    if (graph->n_inputs == 1) return 0;
    nn_fail_member(err, NN_E_VALUE, "inputs", "the first layer must name its inputs: the model has %d",
                   graph->n_inputs);
    return -1;
}

static int resolve_layer(struct nn_graph *graph, int index, struct nn_error *err) {
    struct nn_node *node = &graph->nodes[index];
    for (int i = 0; i < node->n_inputs; i++) {
        if (!node->input_names) {
            if ((node->inputs[i] = default_input(graph, index, err)) < 0) return (int)err->code;
        } else if ((node->inputs[i] = find(graph, node->input_names[i])) < 0) {
            return nn_fail_member(err, NN_E_UNKNOWN_NAME, "inputs", "no input or layer is named \"%s\"",
                                  node->input_names[i]);
        }
    }
    return NN_OK;
}

static int resolve_loss(struct nn_graph *graph, struct nn_node *node, struct nn_error *err) {
    node->inputs[0] = graph->n_nodes - 1;
    if (node->input_names && (node->inputs[0] = find(graph, node->input_names[0])) < 0)
        return nn_fail_member(err, NN_E_UNKNOWN_NAME, "input", "no input or layer is named \"%s\"",
                              node->input_names[0]);
    return NN_OK;
}

static int resolve_outputs(struct nn_graph *graph, struct nn_error *err) {
    if (!graph->n_outputs && nn_graph_add_output(graph, graph->nodes[graph->n_nodes - 1].name, err))
        return (int)err->code;
    graph->outputs = nn_arena_alloc(graph->arena, (size_t)graph->n_outputs, sizeof *graph->outputs);
    if (!graph->outputs) return no_memory(err);
    for (int i = 0; i < graph->n_outputs; i++)
        if ((graph->outputs[i] = find(graph, graph->output_names[i])) < 0)
            return nn_fail_member(err, NN_E_UNKNOWN_NAME, "outputs", "no input or layer is named \"%s\"",
                                  graph->output_names[i]);
    return NN_OK;
}

static int resolve(struct nn_graph *graph, struct nn_error *err) {
    if (graph->n_nodes == graph->n_inputs)
        return nn_fail_member(err, NN_E_VALUE, "layers", "a model has at least one layer");
    for (int i = graph->n_inputs; i < graph->n_nodes; i++)
        if (resolve_layer(graph, i, err)) return nn_error_at(err, NN_SITE_LAYER, i - graph->n_inputs);
    for (int i = 0; i < graph->n_losses; i++)
        if (resolve_loss(graph, &graph->losses[i].node, err)) return nn_error_at(err, NN_SITE_LOSS, i);
    return resolve_outputs(graph, err);
}

static bool inputs_placed(const struct nn_node *node, const bool *placed) {
    for (int i = 0; i < node->n_inputs; i++)
        if (!placed[node->inputs[i]]) return false;
    return true;
}

/* A node on a cycle: from one that could not be placed, always on to an input that could not. */
static int fail_cycle(const struct nn_graph *graph, const bool *placed, int node, struct nn_error *err) {
    for (int step = 0; step < graph->n_nodes; step++) {
        const struct nn_node *n = &graph->nodes[node];
        for (int i = 0; i < n->n_inputs; i++)
            if (!placed[n->inputs[i]]) {
                node = n->inputs[i];
                break;
            }
    }
    nn_fail_member(err, NN_E_CYCLE, "inputs", "\"%s\" reads its own output, directly or through others",
                   graph->nodes[node].name);
    return nn_error_at(err, NN_SITE_LAYER, node - graph->n_inputs);
}

/* Passes over the nodes until all are placed: one pass for a graph that is written in order. */
static int sort(struct nn_graph *graph, struct nn_error *err) {
    bool *placed = nn_arena_alloc(graph->arena, (size_t)graph->n_nodes, sizeof *placed);
    graph->order = nn_arena_alloc(graph->arena, (size_t)graph->n_nodes, sizeof *graph->order);
    if (!placed || !graph->order) return no_memory(err);
    for (int count = 0; count < graph->n_nodes;) {
        int before = count, missing = -1;
        for (int i = 0; i < graph->n_nodes; i++) {
            if (placed[i]) continue;
            if (inputs_placed(&graph->nodes[i], placed)) {
                placed[i] = true;
                graph->order[count++] = i;
            } else if (missing < 0) {
                missing = i;
            }
        }
        if (count == before) return fail_cycle(graph, placed, missing, err);
    }
    return NN_OK;
}

static int infer_node(struct nn_graph *graph, struct nn_node *node, struct nn_error *err) {
    enum nn_dtype dtypes[16];
    enum nn_dtype *in_dtype = dtypes;
    if (node->n_inputs > (int)(sizeof dtypes / sizeof dtypes[0]) &&
        !(in_dtype = nn_arena_alloc(graph->arena, (size_t)node->n_inputs, sizeof *in_dtype)))
        return no_memory(err);
    for (int i = 0; i < node->n_inputs; i++) {
        const struct nn_node *input = &graph->nodes[node->inputs[i]];
        node->in[i] = input->shape;
        in_dtype[i] = input->dtype;
        if ((input->dtype == NN_I64) != node->op->takes_ids)
            return nn_fail_member(err, NN_E_DTYPE, "inputs", "%s reads %s, and \"%s\" is %s",
                                  node->op->def.name, node->op->takes_ids ? "ids (I64)" : "real numbers",
                                  input->name, nn_dtype_name(input->dtype));
    }
    node->inferred = (struct nn_infer){
        .attrs = node->attrs, .n_inputs = node->n_inputs, .in = node->in, .in_dtype = in_dtype};
    if (node->op->infer(&node->inferred, err)) return (int)err->code;
    node->inferred.in_dtype = NULL;
    node->shape = node->inferred.out;
    return check_sample_shape(&node->shape, err);
}

static int infer(struct nn_graph *graph, struct nn_error *err) {
    for (int i = 0; i < graph->n_nodes; i++) {
        int node = graph->order[i];
        if (node >= graph->n_inputs && infer_node(graph, &graph->nodes[node], err))
            return nn_error_at(err, NN_SITE_LAYER, node - graph->n_inputs);
    }
    for (int i = 0; i < graph->n_losses; i++)
        if (infer_node(graph, &graph->losses[i].node, err)) return nn_error_at(err, NN_SITE_LOSS, i);
    return NN_OK;
}

/* Names and shapes, in the order of the layers. */
static int list_params(struct nn_graph *graph, struct nn_error *err) {
    size_t count = 0;
    for (int i = 0; i < graph->n_nodes; i++) count += (size_t)graph->nodes[i].inferred.n_params;
    graph->params = nn_arena_alloc(graph->arena, count, sizeof *graph->params);
    graph->inits = nn_arena_alloc(graph->arena, count, sizeof *graph->inits);
    if (!graph->params || !graph->inits) return no_memory(err);
    for (int i = 0; i < graph->n_nodes; i++) {
        struct nn_node *node = &graph->nodes[i];
        node->first_param = graph->n_params;
        for (int k = 0; k < node->inferred.n_params; k++) {
            struct nn_param *param = &graph->params[graph->n_params];
            char name[NN_MAX_NAME + 32];
            snprintf(name, sizeof name, "%s.%s", node->name, node->inferred.param[k].suffix);
            *param = (struct nn_param){.name = nn_arena_strdup(graph->arena, name),
                                       .shape = node->inferred.param[k].shape,
                                       .node = i,
                                       .trainable = !node->frozen};
            if (!param->name) return no_memory(err);
            if (nn_graph_param_find(graph, name) >= 0)
                return nn_fail_member(err, NN_E_NAME, "name", "two parameters would be named \"%s\"", name),
                       nn_error_at(err, NN_SITE_LAYER, i - graph->n_inputs);
            if (nn_shape_check(&param->shape, err))
                return nn_error_at(err, NN_SITE_LAYER, i - graph->n_inputs);
            param->elements = nn_shape_elements(&param->shape);
            graph->inits[graph->n_params++] = node->inferred.param[k].init;
        }
    }
    return NN_OK;
}

/* Places in the block: the trainable ones, then the frozen ones, each at a multiple of a cache line. */
static int place_params(struct nn_graph *graph, struct nn_error *err) {
    size_t bytes = 0;
    for (int trainable = 1; trainable >= 0; trainable--) {
        for (int i = 0; i < graph->n_params; i++) {
            struct nn_param *param = &graph->params[i];
            if (param->trainable != (bool)trainable) continue;
            size_t size = ((size_t)param->elements * nn_dtype_size(graph->dtype) + 63) & ~(size_t)63;
            param->offset = bytes;
            if (__builtin_add_overflow(bytes, size, &bytes))
                return nn_fail(err, NN_E_SIZE, "the parameters' size overflows");
        }
        if (trainable) graph->trainable_bytes = bytes;
    }
    graph->param_bytes = bytes;
    return NN_OK;
}

int nn_graph_seal(struct nn_graph *graph, struct nn_error *err) {
    assert(!graph->sealed);
    if (resolve(graph, err) || sort(graph, err) || infer(graph, err) || list_params(graph, err) ||
        place_params(graph, err))
        return (int)err->code;
    graph->sealed = true;
    return NN_OK;
}

/* --- reading ----------------------------------------------------------------------------------- */

enum nn_dtype nn_graph_dtype(const struct nn_graph *graph) { return graph->dtype; }
int nn_graph_input_count(const struct nn_graph *graph) { return graph->n_inputs; }
int nn_graph_node_count(const struct nn_graph *graph) { return graph->n_nodes; }
int nn_graph_output_count(const struct nn_graph *graph) { return graph->n_outputs; }
int nn_graph_output(const struct nn_graph *graph, int index) { return graph->outputs[index]; }
int nn_graph_find(const struct nn_graph *graph, const char *name) { return find(graph, name); }

struct nn_node_info nn_graph_node(const struct nn_graph *graph, int node) {
    const struct nn_node *n = &graph->nodes[node];
    return (struct nn_node_info){n->name, n->op ? &n->op->def : NULL, n->dtype, n->shape};
}

double nn_graph_work(const struct nn_graph *graph) {
    double work = 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        const struct nn_node *node = &graph->nodes[i];
        double in = 0;
        for (int k = 0; k < node->n_inputs; k++) in += (double)nn_shape_elements(&node->in[k]);
        work += 2 * in * (double)nn_shape_elements(&node->shape);
    }
    return work;
}

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
size_t nn_graph_trainable_bytes(const struct nn_graph *graph) { return graph->trainable_bytes; }

int nn_graph_loss_count(const struct nn_graph *graph) { return graph->n_losses; }
struct nn_loss_info nn_graph_loss(const struct nn_graph *graph, int index) {
    assert(index >= 0 && index < graph->n_losses);
    const struct nn_loss_node *loss = &graph->losses[index];
    const struct nn_infer *inferred = &loss->node.inferred;
    return (struct nn_loss_info){.op = &loss->node.op->def,
                                 .input = loss->node.inputs[0],
                                 .target = loss->target,
                                 .sample_weight = loss->sample_weight,
                                 .scale = loss->scale,
                                 .sum = loss->sum,
                                 .shape = inferred->out,
                                 .n_forms = inferred->n_forms,
                                 .forms = {inferred->form[0], inferred->form[1]}};
}
