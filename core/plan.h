/* plan.h - where the buffers of a pass lie in its block.
 *
 * A plan walks the steps that a pass will take, giving every buffer a place when it is first written and
 * taking it back after it is last read, so that what never lives together may share memory. */
#ifndef NN_PLAN_H
#define NN_PLAN_H

#include "graph.h"

#define NN_NOWHERE SIZE_MAX /* the offset of a buffer that the pass does not have */

/* The buffers of one loss in a backward pass. */
struct nn_loss_places {
    size_t target, weight, value, d_value, saved, scratch;
};

struct nn_plan {
    struct nn_arena *arena;
    const struct nn_graph *graph;
    struct nn_run_options run;
    size_t bytes; /* of the block: the peak */

    /* Forward: values and what is kept of them by value, the rest by node. */
    bool *computed; /* inputs: read */
    bool *kept;     /* whether the value stays where it is until the end */
    size_t *value, *saved, *scratch;

    /* Backward: gradients by value, d_scratch by node. `needed`: gradients pass through the value to something that is
     * wanted. */
    bool *needed, *upstream, *wanted;
    bool parameters;
    struct nn_loss_options *losses; /* NULL: none */
    size_t *d_value, *d_scratch;
    struct nn_loss_places *loss_places;
};

/* Whether the gradient of any of a node's outputs is needed. */
bool nn_plan_needs(const struct nn_plan *plan, int node);
/* Whether a loss is evaluated and counts: one on a value without rows counts in the first shard of a batch alone, so
 * that shards do not multiply it. */
bool nn_plan_counts(const struct nn_plan *plan, int loss);

/* An elementwise node has few inputs and no parameters. */
#define NN_MAX_LINKS       4
#define NN_MAX_LINK_INPUTS 2
/* How many nodes are done together with the k-th of the order, as its sequel: in forward those behind it, in
 * backward those before it. Their buffers live at the same time as its own. */
int nn_plan_links_forward(const struct nn_plan *plan, int k);
int nn_plan_links_backward(const struct nn_plan *plan, int k);

#endif
