/* params.h - inside of a parameter version and of a gradient, for run, backward and optimizer. */
#ifndef NN_PARAMS_H
#define NN_PARAMS_H

#include "graph.h"

struct nn_params {
    atomic_int refs;
    struct nn_graph *graph;
    uint64_t version;
    unsigned char *data; /* nn_graph_param_bytes, laid out as nn_param.offset says */
};

struct nn_grads {
    struct nn_graph *graph;
    bool blank;          /* all zero, whatever `data` holds: nothing was added yet */
    bool averaged;       /* where buffers are, it has means of them: see nn_grads_average_buffers */
    unsigned char *data; /* nn_graph_gradient_bytes: the first part of that layout */
};

/* Makes room for the statistics of one batch more that a node has seen: `statistic` is where they are to be added, in
 * the order of the node's parameters. False: the node has no buffers. */
bool nn_buffers_begin(struct nn_grads *grads, const struct nn_node *node, void **statistic);
/* Sets the buffers of `to` to what those of `from` are after the batches that the gradient has seen. False: a number
 * of them is not finite. */
bool nn_buffers_step(const struct nn_params *from, const struct nn_grads *grads, struct nn_params *to);
/* The index of the first buffer whose statistics are not finite, or -1. */
int nn_buffers_first_nonfinite(const struct nn_grads *grads);

/* Zeroes the first `size` bytes of a block of that layout but for the parameters that `written` marks;
 * NULL: all. Passes over the whole block add, scale and step what lies between the parameters too, so that
 * has to be zero. */
void nn_zero_between(const struct nn_graph *graph, unsigned char *block, size_t size, const bool *written);

/* Of a block with the layout of the trained parameters: the index of the first with a number that is not finite,
 * or -1. */
int nn_trained_first_nonfinite(const struct nn_graph *graph, const unsigned char *block,
                               const struct nn_parallel *par);

/* The numbers, zeroed if they are blank. */
const unsigned char *nn_grads_numbers(const struct nn_grads *grads);
/* Ends a gradient's being blank; the caller writes the trained parameters that `written` marks, and the
 * rest is zero. False: it was not blank, and is to be added to. */
bool nn_grads_begin(struct nn_grads *grads, const bool *written);

/* Elements of the trained part, the padding between parameters (always zero) included. */
static inline int64_t nn_trained_elements(const struct nn_graph *graph) {
    return (int64_t)(graph->trained_bytes / nn_dtype_size(graph->dtype));
}

/* Elements that one task of a pass takes: over activations, */
#define NN_CHUNK 16384
/* and over the blocks of this file and of an optimizer, which takes a nanosecond for a dozen of them: fewer
 * would be done before another thread has come to help. */
#define NN_BLOCK_CHUNK 131072

#endif
