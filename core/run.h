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

/* The parts of a pass over `node` that do not depend on its direction. `w` has NN_MAX_OP_PARAMS places and lives
 * as long as the pass, or is NULL for a node without parameters. */
struct nn_pass nn_pass_begin(const struct nn_run *run, const struct nn_node *node, const void **w);

/* The buffers of the outputs behind the first. */
struct nn_more {
    void *y[NN_MAX_MORE_OUTPUTS];
    const void *d_y[NN_MAX_MORE_OUTPUTS];
};

static inline bool nn_is_given_up(const struct nn_parallel *par) {
    return par && par->given_up && par->given_up(par->asked);
}

/* Calls a forward or backward function of the pass's operator, cut as `split` says. An operator that is
 * cut into ranges need not heed fresh_x: what that marks is zeroed first. */
void nn_pass_run(const struct nn_pass *pass, nn_pass_fn *fn, enum nn_split split);

/* Elementwise nodes, one behind the other, that are done range by range as the sequel of the node that they
 * follow: while the numbers are still in a cache, and without a turn of the threads each. */
struct nn_link {
    struct nn_pass pass;
    nn_pass_fn *fn;
    const void *x[NN_MAX_LINK_INPUTS];
    void *d_x[NN_MAX_LINK_INPUTS];
    bool fresh[NN_MAX_LINK_INPUTS];
};
struct nn_chain {
    int n;
    struct nn_link link[NN_MAX_LINKS];
};
/* What follows, for nn_pass.sequel; `arg` is the chain. */
void nn_chain_range(void *arg, int64_t begin, int64_t end);

#endif
