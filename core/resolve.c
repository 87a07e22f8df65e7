/* resolve.c - what sealing finds out about the nodes: names become values, nodes are sorted, values without rows are
 * told apart, shapes are inferred. */
#include <string.h>

#include "expand.h"
#include "graph.h"

/* --- names --------------------------------------------------------------------------------------- */

/* What a layer reads when it does not say: the layer before it, or the model's only input. */
static int default_input(const struct nn_graph *graph, int node, struct nn_error *err) {
    if (node > graph->n_inputs) return graph->nodes[node - 1].first_value;
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
        } else if ((node->inputs[i] = nn_graph_find(graph, node->input_names[i])) < 0) {
            return nn_fail_member(err, NN_E_UNKNOWN_NAME, "inputs", "no input or layer is named \"%s\"",
                                  node->input_names[i]);
        }
    }
    return NN_OK;
}

static int resolve_loss(struct nn_graph *graph, struct nn_node *node, struct nn_error *err) {
    node->inputs[0] = graph->nodes[graph->n_nodes - 1].first_value;
    if (node->input_names && (node->inputs[0] = nn_graph_find(graph, node->input_names[0])) < 0)
        return nn_fail_member(err, NN_E_UNKNOWN_NAME, "input", "no input or layer is named \"%s\"",
                              node->input_names[0]);
    return NN_OK;
}

static int resolve_outputs(struct nn_graph *graph, struct nn_error *err) {
    if (!graph->n_outputs && nn_graph_add_output(graph, graph->nodes[graph->n_nodes - 1].name, err))
        return (int)err->code;
    graph->outputs = nn_arena_alloc(graph->arena, (size_t)graph->n_outputs, sizeof *graph->outputs);
    if (!graph->outputs) return nn_graph_no_memory(err);
    for (int i = 0; i < graph->n_outputs; i++)
        if ((graph->outputs[i] = nn_graph_find(graph, graph->output_names[i])) < 0)
            return nn_fail_member(err, NN_E_UNKNOWN_NAME, "outputs", "no input or layer is named \"%s\"",
                                  graph->output_names[i]);
    return NN_OK;
}

static int resolve_names(struct nn_graph *graph, struct nn_error *err) {
    if (graph->n_nodes == graph->n_inputs)
        return nn_fail_member(err, NN_E_VALUE, "layers", "a model has at least one layer");
    for (int i = graph->n_inputs; i < graph->n_nodes; i++)
        if (resolve_layer(graph, i, err)) return nn_error_at(err, NN_SITE_LAYER, i - graph->n_inputs);
    for (int i = 0; i < graph->n_losses; i++)
        if (resolve_loss(graph, &graph->losses[i].node, err)) return nn_error_at(err, NN_SITE_LOSS, i);
    return resolve_outputs(graph, err);
}

static bool inputs_placed(const struct nn_graph *graph, const struct nn_node *node, const bool *placed) {
    for (int i = 0; i < node->n_inputs; i++)
        if (!placed[graph->values[node->inputs[i]].node]) return false;
    return true;
}

/* A node on a cycle: from one that could not be placed, always on to an input that could not. */
static int fail_cycle(const struct nn_graph *graph, const bool *placed, int node, struct nn_error *err) {
    for (int step = 0; step < graph->n_nodes; step++) {
        const struct nn_node *n = &graph->nodes[node];
        for (int i = 0; i < n->n_inputs; i++)
            if (!placed[graph->values[n->inputs[i]].node]) {
                node = graph->values[n->inputs[i]].node;
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
    if (!placed || !graph->order) return nn_graph_no_memory(err);
    for (int count = 0; count < graph->n_nodes;) {
        int before = count, missing = -1;
        for (int i = 0; i < graph->n_nodes; i++) {
            if (placed[i]) continue;
            if (inputs_placed(graph, &graph->nodes[i], placed)) {
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

/* --- rows ---------------------------------------------------------------------------------------- */

static bool any_has_rows(const struct nn_graph *graph, const struct nn_node *node) {
    for (int i = 0; i < node->n_inputs; i++)
        if (nn_value_has_rows(graph, node->inputs[i])) return true;
    return false;
}

static bool all_have_rows(const struct nn_graph *graph, const struct nn_node *node) {
    for (int i = 0; i < node->n_inputs; i++)
        if (!nn_value_has_rows(graph, node->inputs[i])) return false;
    return true;
}

/* A function of values without rows has none either. */
static int find_rows(struct nn_graph *graph, struct nn_error *err) {
    for (int k = 0; k < graph->n_nodes; k++) {
        struct nn_node *node = &graph->nodes[graph->order[k]];
        if (node->op) node->rows = any_has_rows(graph, node);
    }
    for (int i = 0; i < graph->n_losses; i++) {
        struct nn_loss_node *loss = &graph->losses[i];
        loss->node.rows = any_has_rows(graph, &loss->node);
        if (loss->node.rows || !loss->sample_weight) continue;
        nn_fail_member(err, NN_E_VALUE, "sample_weight",
                       "the input of this loss has no rows that could be weighed");
        return nn_error_at(err, NN_SITE_LOSS, i);
    }
    return NN_OK;
}

/* The expansion of a value without rows, made when it is first needed; -1: memory is out. */
static int expansion_of(struct nn_graph *graph, int value, int *expanded, struct nn_error *err) {
    if (expanded[value]) return expanded[value];
    struct nn_node *node = nn_graph_add_node(graph, NULL, &nn_expand, err);
    if (!node || nn_graph_make_inputs(graph, node, 1, err)) return -1;
    node->inputs[0] = value;
    return expanded[value] = node->first_value;
}

/* An operator that takes values with rows alone reads the others through their expansions. */
static int expand(struct nn_graph *graph, struct nn_error *err) {
    const int n = graph->n_nodes;
    int *expanded = nn_arena_alloc(graph->arena, (size_t)graph->n_values, sizeof *expanded);
    if (!expanded) return nn_graph_no_memory(err);
    for (int i = graph->n_inputs; i < n; i++) {
        if (!graph->nodes[i].rows) continue;
        for (int j = 0; j < graph->nodes[i].n_inputs; j++) {
            int input = graph->nodes[i].inputs[j];
            if (nn_value_has_rows(graph, input) || nn_op_takes_shared(graph->nodes[i].op, j)) continue;
            if ((input = expansion_of(graph, input, expanded, err)) < 0) return (int)err->code;
            graph->nodes[i].inputs[j] = input; /* the nodes may have moved */
        }
    }
    return graph->n_nodes > n ? sort(graph, err) : NN_OK;
}

int nn_graph_resolve(struct nn_graph *graph, struct nn_error *err) {
    if (resolve_names(graph, err) || sort(graph, err) || find_rows(graph, err)) return (int)err->code;
    return expand(graph, err);
}

/* --- shapes -------------------------------------------------------------------------------------- */

static int check_kinds(const struct nn_graph *graph, const struct nn_node *node, struct nn_error *err) {
    for (int i = 0; i < node->n_inputs; i++) {
        const struct nn_value *input = &graph->values[node->inputs[i]];
        const bool ids = nn_op_takes_ids(node->op, i);
        if ((input->dtype == NN_I64) != ids)
            return nn_fail_member(err, NN_E_DTYPE, "inputs", "%s reads %s, and \"%s\" is %s",
                                  node->op->def.name, ids ? "ids (I64)" : "real numbers", input->name,
                                  nn_dtype_name(input->dtype));
    }
    return NN_OK;
}

static int list_inputs(struct nn_graph *graph, struct nn_node *node, struct nn_error *err) {
    for (int i = 0; i < node->n_inputs; i++) node->in[i] = graph->values[node->inputs[i]].shape;
    if (!node->rows || all_have_rows(graph, node)) return NN_OK;
    node->shared = nn_arena_alloc(graph->arena, (size_t)node->n_inputs, sizeof *node->shared);
    if (!node->shared) return nn_graph_no_memory(err);
    for (int i = 0; i < node->n_inputs; i++) node->shared[i] = !nn_value_has_rows(graph, node->inputs[i]);
    return NN_OK;
}

static int infer_node(struct nn_graph *graph, struct nn_node *node, struct nn_error *err) {
    if (check_kinds(graph, node, err) || list_inputs(graph, node, err)) return (int)err->code;
    node->inferred = (struct nn_infer){
        .attrs = node->attrs, .n_inputs = node->n_inputs, .in = node->in, .shared = node->shared};
    return node->op->infer(&node->inferred, err);
}

static int infer_values(struct nn_graph *graph, struct nn_node *node, struct nn_error *err) {
    if (infer_node(graph, node, err)) return (int)err->code;
    for (int i = 0; i < node->n_values; i++) {
        struct nn_shape *shape = &graph->values[node->first_value + i].shape;
        *shape = i ? node->inferred.more_out[i - 1] : node->inferred.out;
        if (nn_graph_check_sample(shape, err)) return (int)err->code;
    }
    return NN_OK;
}

int nn_graph_infer(struct nn_graph *graph, struct nn_error *err) {
    for (int k = 0; k < graph->n_nodes; k++) {
        int node = graph->order[k];
        if (node >= graph->n_inputs && infer_values(graph, &graph->nodes[node], err))
            return nn_error_at(err, NN_SITE_LAYER, node - graph->n_inputs);
    }
    for (int i = 0; i < graph->n_losses; i++) {
        struct nn_node *node = &graph->losses[i].node;
        if (infer_node(graph, node, err) || nn_graph_check_sample(&node->inferred.out, err))
            return nn_error_at(err, NN_SITE_LOSS, i);
    }
    return NN_OK;
}
