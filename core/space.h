/* space.h - places in a block that buffers share over time: a place is taken when a buffer is first written, and given
 * back when it was last read. */
#ifndef NN_SPACE_H
#define NN_SPACE_H

#include "base.h"

struct nn_range {
    size_t begin, end;
};

struct nn_space {
    struct nn_range *free; /* ascending, apart */
    int n_free, room;
    size_t top; /* the block's size so far */
};

/* `buffers` is how many may be live at once: each splits at most one range. NN_E_NOMEM. */
int nn_space_init(struct nn_space *space, struct nn_arena *arena, int buffers, struct nn_error *err);
/* The first place that fits. Sizes are multiples of a cache line. NN_E_SIZE. */
int nn_space_take(struct nn_space *space, size_t bytes, size_t *offset, struct nn_error *err);
void nn_space_give(struct nn_space *space, size_t offset, size_t bytes);

#endif
