/* model.h - a model: its graph and its versions.
 *
 * A reader takes the current version under the registry's lock; from then on the version is the reader's, and
 * immutable. A change builds the next version in a block that no reader holds, and then swaps it in. Changes wait in a
 * queue that one thread at a time drains: see ../change/turns.h. */
#ifndef API_MODEL_H
#define API_MODEL_H

#include <stdatomic.h>

#include "../request/metrics.h"
#include "../request/request.h"
#include "../store.h"
#include "spec.h"

#define API_MAX_VERSIONS 8 /* versions of a model in memory; a change that needs one more gets 503 */

/* A specification as it was given, and the seed. Immutable. It has a reference count of its own, because jansson's
 * count is not atomic: a json_t may not be shared between threads. */
struct api_model_spec {
    atomic_int refs;
    json_t *json;
};

/* The contributions to a round: see ../change/round.h. */
struct api_round {
    struct api_request *first; /* in the order of their workers' names */
    int count;
    uint64_t version;
    int64_t since_ms; /* when the first one came */
};

/* The sizes that determine how much work the model is. */
struct api_model_size {
    int values, params;
    struct nn_work work;
    double step;                      /* nn_optimizer_work; 0: no optimizer */
    struct nn_cost numbers_of_values; /* numbers of all values */
    double numbers;                   /* numbers in all parameters */
};

struct api_model {
    atomic_int refs;
    char name[API_MAX_MODEL_NAME + 1];
    char incarnation[17], birth[17]; /* birth: the first incarnation */
    struct nn_graph *graph;
    uint64_t seed;

    /* Guarded by the registry's lock. */
    struct api_model_size size; /* after registration, only `step` changes */
    struct nn_params *params;   /* the current version; one of `blocks` */
    struct api_model_spec *spec;
    uint64_t steps; /* the greatest number of steps that a parameter has taken */
    uint64_t contributions;
    struct api_request *first, *last; /* the queue of changes */
    struct api_request *farewell;     /* the request that removed the model; it is answered last */
    bool draining;
    enum nn_code dead; /* not NN_OK: the model left the registry, and its changes get this error */
    bool stopped;      /* a step made numbers that are not finite */
    int stopped_at; /* in this parameter. It takes no gradients until parameters are set or a snapshot restored */
    int64_t durable_version;  /* the version that would survive a crash; -1: none */
    uint64_t lowerings;       /* how often the durability was lowered to "none" */
    bool nudged;              /* the thread that drains must look at the round once more */
    bool raising;             /* it is being stored, under a durability that it does not have yet */
    struct api_round round;   /* changed only in a turn; */
    struct api_policy policy; /* likewise: the lock or the turn is enough to read them */
    struct api_batch *first_batch, *last_batch; /* batches of forwards that wait: see ../pass/coalesce.c */
    bool batching;                              /* a thread is computing the first batch, or is about to */
    int64_t company;             /* rows of the last batch, and of those that waited for its end */
    uint64_t coalesced, batches; /* requests that batches answered, and batches */
    uint64_t staleness[API_STALENESS_BUCKETS]; /* applied gradients, by bucket of metrics.h */

    /* Belongs to the thread that has the turn. */
    struct nn_optimizer *optimizer; /* or NULL */
    struct nn_grads *sum;           /* the accumulation buffer; NULL until a gradient is accumulated, */
    bool *sum_named;                /* likewise: by parameter, whether a contribution named it */
    double sum_scale;
    uint64_t sum_count, sum_oldest; /* contributions in the buffer, and their oldest version */
    struct nn_params *blocks[API_MAX_VERSIONS];
    int n_blocks;
    size_t reserved, optimizer_bytes; /* bytes of the budget, and the part of them that the optimizer takes */
    uint64_t changes;                 /* changes since its birth */
    uint64_t read_changes;            /* the changes that were in the snapshot that it was read from */
    uint64_t seq;                     /* the number of its last record */
    uint64_t oldest_readable;         /* a record in the journal may have read this version or a later one */
    bool missed;                      /* the last checkpoint left it out for lack of memory */
    bool stays;                       /* while recovering: records behind this state are lost */
    struct nn_params *past[API_REPLAY_VERSIONS]; /* while recovering: the versions before the current one */
};

/* Makes a model of a specification, with one reference. The graph gets a reference; `json` is copied. With `draw`,
 * parameters are drawn from the seed; without, the caller sets all numbers. NULL: NN_E_VALUE, NN_E_BUSY,
 * NN_E_TOO_LARGE, NN_E_NOMEM. */
struct api_model *api_model_new(struct api_request *request, const char *name, const struct api_spec *spec,
                                const json_t *json, bool draw);
/* Draws an incarnation. A request that is carried out again gets the one that it drew the first time. */
int api_model_draw_incarnation(struct api_request *request, struct api_model *model);
void api_model_unref(struct api *api, struct api_model *model);
/* In a turn: a block for the next version. Adds "applied_version" to the answer. NN_E_BUSY: too many versions are being
 * read. */
int api_model_next(struct api_request *request, struct nn_params **next);
/* In a turn: makes `next`, which is one version higher, the current version. */
void api_model_publish(struct api_request *request, struct nn_params *next);
/* In a turn: stops the model, because a step made numbers that are not finite in this parameter. No version is made,
 * but the optimizer's state has taken the step. Returns NN_E_NOT_FINITE. */
int api_model_stop(struct api_request *request, int param);
/* NN_E_STOPPED: the model is stopped. */
int api_model_check_running(struct api_request *request);
/* In a turn: ends the stop. */
void api_model_run(struct api_request *request);
/* Frees the versions that recovery keeps. */
void api_model_forget_past(struct api_model *model);
/* Frees the versions that nobody reads, all but one: the next version will be built in it. */
void api_model_trim(struct api *api, struct api_model *model);
/* In a turn: publishes to readers the optimizer's steps and the number of accumulated contributions. */
void api_model_note(struct api_request *request);
/* In a turn: sets the optimizer and the specification that describes it; both become the model's. `more` bytes of the
 * request's reservation become the model's, and the optimizer takes `bytes` from now on. It may be the same optimizer
 * with other attributes. */
void api_model_set_optimizer_take(struct api_request *request, struct nn_optimizer *optimizer, size_t bytes,
                                  size_t more, struct api_model_spec *spec);

/* Makes the model's accumulation buffer, empty, if there is none. NN_E_BUSY, NN_E_NOMEM. */
int api_make_sum(struct api_request *request, struct api_model *model);
/* In a turn: frees a buffer that was made for a change that failed. */
void api_drop_sum(struct api_request *request);

/* A specification with one reference. `json` is consumed; NULL, as json_pack returns it, gives NULL. */
struct api_model_spec *api_model_spec_new_take(json_t *json);
void api_model_spec_unref(struct api_model_spec *spec);

/* A consistent copy of what GET /models/{m} shows, with a reference to the specification. */
struct api_model_state {
    struct api_model_spec *spec;
    uint64_t version, steps, contributions;
    int64_t durable_version;
    enum api_durability durability;
    bool stopped;
    int stopped_at;
};
struct api_model_state api_model_state(struct api_request *request);

#endif
