/* graph.h - what a sealed graph is made of, for plan, run and params. */
#ifndef NN_GRAPH_H
#define NN_GRAPH_H

#include <stdatomic.h>

#include "op.h"

/* An input, a layer, or (within struct nn_loss_node) a loss. */
struct nn_node {
    const char *name;
    const struct nn_op *op; /* NULL for an input */
    enum nn_dtype dtype;
    struct nn_shape shape; /* of a sample */
    int n_inputs;
    const char **input_names; /* NULL until sealed where the default holds */
    int *inputs;              /* nodes, */
    struct nn_shape *in;      /* and their shapes */
    const union nn_attr_value *attrs;
    bool frozen;
    struct nn_infer inferred;
    int first_param;
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
    int n_inputs; /* the first of the nodes */
    struct nn_node *nodes;
    int n_nodes, room_nodes;
    int *order; /* all nodes, each after its inputs */
    struct nn_loss_node *losses;
    int n_losses, room_losses;
    const char **output_names;
    int *outputs;
    int n_outputs, room_outputs;
    struct nn_param *params;
    struct nn_init *inits;
    int n_params;
    size_t param_bytes, trainable_bytes;
    int max_inputs; /* of any node */
};

#endif
