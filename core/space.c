/* space.c - first-fit places in a block. */
#include "space.h"

#include <assert.h>
#include <string.h>

int nn_space_init(struct nn_space *space, struct nn_arena *arena, int buffers, struct nn_error *err) {
    *space = (struct nn_space){.room = buffers + 1};
    space->free = nn_arena_alloc(arena, (size_t)space->room, sizeof *space->free);
    return space->free ? NN_OK : nn_fail(err, NN_E_NOMEM, "no memory for a plan");
}

static void drop_range(struct nn_space *space, int i) {
    memmove(&space->free[i], &space->free[i + 1], (size_t)(space->n_free - i - 1) * sizeof *space->free);
    space->n_free--;
}

int nn_space_take(struct nn_space *space, size_t bytes, size_t *offset, struct nn_error *err) {
    for (int i = 0; i < space->n_free; i++) {
        struct nn_range *r = &space->free[i];
        if (r->end - r->begin < bytes) continue;
        *offset = r->begin;
        r->begin += bytes;
        if (r->begin == r->end) drop_range(space, i);
        return NN_OK;
    }
    *offset = space->top;
    if (__builtin_add_overflow(space->top, bytes, &space->top))
        return nn_fail(err, NN_E_SIZE, "the memory of this pass overflows");
    return NN_OK;
}

void nn_space_give(struct nn_space *space, size_t offset, size_t bytes) {
    if (!bytes) return;
    int i = 0;
    while (i < space->n_free && space->free[i].end < offset) i++;
    struct nn_range *r = &space->free[i];
    if (i < space->n_free && r->end == offset) {
        r->end += bytes;
        if (i + 1 < space->n_free && space->free[i + 1].begin == r->end) {
            r->end = space->free[i + 1].end;
            drop_range(space, i + 1);
        }
    } else if (i < space->n_free && r->begin == offset + bytes) {
        r->begin = offset;
    } else {
        assert(space->n_free < space->room);
        memmove(r + 1, r, (size_t)(space->n_free - i) * sizeof *r);
        *r = (struct nn_range){offset, offset + bytes};
        space->n_free++;
    }
}
