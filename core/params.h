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
    unsigned char *data; /* nn_graph_trainable_bytes: the first part of that layout */
};

/* Zeroes the first `size` bytes of a block of that layout but for the parameters that `written` marks;
 * NULL: all. Passes over the whole block add, scale and step what lies between the parameters too, so that
 * has to be zero. */
void nn_zero_between(const struct nn_graph *graph, unsigned char *block, size_t size, const bool *written);

/* Of a block with the layout of the trainable parameters: the index of the first with a number that is not finite,
 * or -1. */
int nn_trainable_first_nonfinite(const struct nn_graph *graph, const unsigned char *block,
                                 const struct nn_parallel *par);

/* The numbers, zeroed if they are blank. */
const unsigned char *nn_grads_numbers(const struct nn_grads *grads);
/* Ends a gradient's being blank; the caller writes the parameters that `written` marks, and the
 * rest is zero. False: it was not blank, and is to be added to. */
bool nn_grads_begin(struct nn_grads *grads, const bool *written);

/* Elements of the trainable part, the padding between parameters (always zero) included. */
static inline int64_t nn_trainable_elements(const struct nn_graph *graph) {
    return (int64_t)(graph->trainable_bytes / nn_dtype_size(graph->dtype));
}

/* Elements that one task of a pass takes: over activations, */
#define NN_CHUNK 16384
/* and over the blocks of this file and of an optimizer, which takes a nanosecond for a dozen of them: fewer
 * would be done before another thread has come to help. */
#define NN_BLOCK_CHUNK 131072

#endif
