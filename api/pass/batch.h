/* batch.h - rows of several requests in one run, in tiles of one height: see coalesce.h. */
#ifndef API_BATCH_H
#define API_BATCH_H

#include <stdatomic.h>

#include "../request/request.h"

struct api_model;

struct api_batch {
    struct api *api;
    struct api_model *model; /* a reference */
    atomic_int refs;         /* each member's; the list's, which whoever computes takes over; a timer's */
    struct nn_run *run;
    int64_t tile, room; /* rows that there is memory for, a multiple of tile */
    size_t reserved;

    /* Guarded by the registry's lock, until the batch is closed and filling is 0. */
    struct api_batch *next;
    int64_t rows; /* claimed */
    int filling;  /* requests that are writing their rows */
    bool closed, waiting;
    int n_members;
    struct api_request *members[]; /* whose rows are written; at most `room` */
};

/* The height of tiles for this graph's type; 0: there is none. */
int64_t api_batch_tile(const struct api *api, const struct nn_graph *graph);

/* For `options` and rows of its own, of the nodes that are `wanted`; with room for others where `company` is
 * expected and memory is not short. Held once, with no rows claimed, planned, reserved and allocated. NULL:
 * the request's error says why. */
struct api_batch *api_batch_new(struct api_request *request, const struct nn_run_options *given,
                                const bool *wanted, bool company);
void api_batch_unref(struct api_batch *batch);

/* Inputs of these rows to zeros: ids are valid then, and no number can overflow. */
void api_batch_clear(struct api_batch *batch, int64_t first, int64_t end);
/* Before its run: which version it is of (borrowed for a reference of its own); and what pads the last tile. */
void api_batch_aim(struct api_batch *batch, struct nn_params *params);

#endif
