/* batch.h - the rows of several requests in one run, in tiles of a fixed height: see coalesce.h. */
#ifndef API_BATCH_H
#define API_BATCH_H

#include <stdatomic.h>

#include "../request/request.h"

struct api_model;

struct api_batch {
    struct api *api;
    struct api_model *model; /* a reference */
    /* One reference for each member, one for the model's list (the computing thread takes it over), one for a timer. */
    atomic_int refs;
    struct nn_run *run;
    int64_t tile, room; /* rows of memory: a multiple of tile */
    size_t reserved;
    bool given_up; /* it was not computed, because no member was wanted any more (api_is_wanted) */

    /* Guarded by the registry's lock, until the batch is closed and filling is 0. */
    struct api_batch *next;
    int64_t rows;         /* rows that requests have claimed */
    int filling;          /* requests that are writing their rows */
    bool closed, waiting; /* closed: it takes no more rows; waiting: its window is open; see coalesce.c */
    int n_members;
    struct api_request *members[]; /* requests whose rows are written; at most `room` */
};

/* The height of tiles for the graph's type. 0: forwards cannot be coalesced. */
int64_t api_batch_tile(const struct api *api, const struct nn_graph *graph);

/* A batch for request->model, of the nodes that are `wanted`, planned, reserved and allocated, with one reference and
 * no claimed rows. It has room for the request's rows; with `company`, and enough memory, for more. NULL: an error,
 * which is recorded. */
struct api_batch *api_batch_new(struct api_request *request, const struct nn_run_options *given,
                                const bool *wanted, bool company);
void api_batch_unref(struct api_batch *batch);

/* Sets the inputs of the rows from `first` up to `end` to zeros, which are valid ids and cannot overflow. */
void api_batch_clear(struct api_batch *batch, int64_t first, int64_t end);
/* Before the run: sets the version that it reads (borrowed; the run takes a reference) and its rows, padded with rows
 * of zeros to whole tiles. */
void api_batch_aim(struct api_batch *batch, struct nn_params *params);

#endif
