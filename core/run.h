/* run.h - inside of a forward pass, for backward; and what both passes do alike. */
#ifndef NN_RUN_H
#define NN_RUN_H

#include "params.h"
#include "plan.h"

struct nn_run {
    struct nn_plan *plan;
    struct nn_params *params;
    unsigned char *block;
    const void **x; /* inputs of the node at work */
};

/* The buffer at a place; NULL for NN_NOWHERE. */
static inline void *nn_at(unsigned char *block, size_t offset) {
    return offset == NN_NOWHERE ? NULL : block + offset;
}

/* The parts of a pass over `node` that do not depend on its direction. `w` has NN_MAX_OP_PARAMS places and
 * lives as long as the pass. */
struct nn_pass nn_pass_begin(const struct nn_run *run, const struct nn_node *node, const void **w);

/* Calls a forward or backward function of the pass's operator, cut as `split` says. */
void nn_pass_run(const struct nn_pass *pass, nn_pass_fn *fn, enum nn_split split);

#endif
