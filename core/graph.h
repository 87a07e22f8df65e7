/* graph.h - what a sealed graph is made of, for plan, run and params. */
#ifndef NN_GRAPH_H
#define NN_GRAPH_H

#include <stdatomic.h>

#include "op.h"

/* An input, a layer, or (within struct nn_loss_node) a loss. */
struct nn_node {
    const char *name;       /* NULL of an expansion, which sealing inserts */
    const struct nn_op *op; /* NULL for an input */
    int n_inputs;
    const char **input_names; /* NULL until sealed where the default holds */
    int *inputs;              /* values, */
    struct nn_shape *in;      /* their shapes, */
    bool *shared;             /* and which have no rows; NULL: all have as many rows as the node */
    const union nn_attr_value *attrs;
    bool frozen; /* the parameters that it owns are not trained */
    const struct nn_tie *ties;
    int n_ties;
    bool rows; /* whether it is computed row by row; false: once a pass, as a batch of one row */
    struct nn_infer inferred;
    int params[NN_MAX_OP_PARAMS]; /* of the operator, by their index in the graph */
    int first_value, n_values;    /* its outputs, one behind the other */
};

/* What a node computes: one of its outputs. */
struct nn_value {
    const char *name; /* of the first output, the node's */
    int node;
    enum nn_dtype dtype;
    struct nn_shape shape; /* of a sample */
};

struct nn_loss_node {
    struct nn_node node;
    const char *target, *sample_weight;
    double scale;
    bool sum;
};

struct nn_graph {
    atomic_int refs;
    struct nn_arena *arena;
    enum nn_dtype dtype;
    bool sealed;
    int n_inputs; /* the first of the nodes, and of the values */
    struct nn_node *nodes;
    int n_nodes, room_nodes;
    struct nn_value *values;
    int n_values, room_values;
    int n_named; /* values before those of expansions */
    int *order;  /* all nodes, each after its inputs */
    const struct nn_value *
        *by_name; /* the named values in the order of their names; NULL until all are there */
    struct nn_loss_node *losses;
    int n_losses, room_losses;
    const char **output_names;
    int *outputs;
    int n_outputs, room_outputs;
    struct nn_param *params;
    struct nn_init *inits;
    int n_params;
    struct nn_alias *aliases;
    int n_aliases;
    size_t param_bytes, gradient_bytes, trained_bytes;
    int max_inputs; /* of any node */
};

/* For graph.c and resolve.c, while the graph is being built.
 * A new node and its values; its other members are zero. `name` NULL: an expansion. NULL: NN_E_NAME, NN_E_NOMEM. */
struct nn_node *nn_graph_add_node(struct nn_graph *graph, const char *name, const struct nn_op *op,
                                  struct nn_error *err);
/* Room for the inputs of a node. */
int nn_graph_make_inputs(struct nn_graph *graph, struct nn_node *node, int n, struct nn_error *err);
int nn_graph_check_sample(const struct nn_shape *shape, struct nn_error *err);
static inline int nn_graph_no_memory(struct nn_error *err) {
    return nn_fail(err, NN_E_NOMEM, "memory is out");
}
/* Names, the order, and which nodes have rows; expansions are inserted. */
int nn_graph_resolve(struct nn_graph *graph, struct nn_error *err);
/* The shapes of all values. */
int nn_graph_infer(struct nn_graph *graph, struct nn_error *err);
/* The parameters: their names, owners, and places in the block. */
int nn_graph_lay_out(struct nn_graph *graph, struct nn_error *err);

/* Whether a value has a batch dimension. */
static inline bool nn_value_has_rows(const struct nn_graph *graph, int value) {
    return graph->nodes[graph->values[value].node].rows;
}

/* Whether any parameter of a node is trained. */
static inline bool nn_node_is_trained(const struct nn_graph *graph, const struct nn_node *node) {
    for (int i = 0; i < node->inferred.n_params; i++)
        if (graph->params[node->params[i]].kind == NN_TRAINED) return true;
    return false;
}

/* Whether a node's range of results is handed to what follows it, and its gradient likewise. */
static inline bool nn_node_fuses(const struct nn_node *node) {
    return node->op && node->op->fuses && node->n_inputs == 1;
}

/* The number of rows that a node computes in a batch of `rows`. */
static inline int64_t nn_node_rows(const struct nn_node *node, int64_t rows) { return node->rows ? rows : 1; }

#endif
