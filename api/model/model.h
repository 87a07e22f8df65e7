/* model.h - the registry of models; their versions, and the queue of their changes.
 *
 * A model's current version is read under the registry's lock and then belongs to its reader. Changes wait
 * in a queue that one thread at a time drains: whoever adds to an idle queue drains it, and nobody blocks.
 * A change builds the next version in a block that no reader holds, and swaps it in. */
#ifndef API_MODEL_H
#define API_MODEL_H

#include <stdatomic.h>

#include "../change/commit.h"
#include "../request/request.h"
#include "spec.h"
#include "../store.h"

#define API_STALENESS_BUCKETS 8
#define API_MAX_VERSIONS      8 /* of one model's that live at once; beyond, a change gets 503 */

/* A specification as given, the seed included. Immutable, and shared by this count alone: jansson's is read
 * without atomics by whoever adds to it, so that no value of its own may go from thread to thread. */
struct api_model_spec {
    atomic_int refs;
    json_t *json;
};

/* Contributions that wait for the others: see round.h. */
struct api_round {
    struct api_request *first; /* in the order of their workers */
    int count;
    uint64_t version;
    int64_t since_ms; /* the first one's coming */
};

/* What work with a model depends on. */
struct api_model_size {
    int nodes, params;
    double row_work;    /* nn_graph_work */
    double row_numbers; /* of all nodes' values */
    double numbers;     /* of the parameters */
};

struct api_model {
    atomic_int refs;
    char name[API_MAX_MODEL_NAME + 1];
    char incarnation[17], birth[17]; /* birth: its first incarnation */
    struct nn_graph *graph;
    uint64_t seed;
    struct api_model_size size;

    /* Guarded by the registry's lock. */
    struct nn_params *params; /* the current version; one of `blocks` */
    struct api_model_spec *spec;
    uint64_t steps, contributions;
    struct api_request *first, *last; /* the queue */
    struct api_request *farewell; /* that took it out of the registry: answered when nothing else is left */
    bool draining;
    enum nn_code dead; /* not NN_OK: it is out of the registry, and this is what its changes are told */
    bool stopped;      /* a step led to numbers that are not finite, */
    int stopped_at;    /* in this parameter: it takes no gradients until parameters are set, or restored */
    int64_t durable_version;  /* that would survive a crash; -1: none */
    uint64_t lowerings;       /* how often its durability has become "none" */
    bool nudged;              /* whoever drains is to settle the round once more */
    bool raising;             /* it is being stored, by a policy that it does not have yet; under the lock */
    struct api_round round;   /* changed in a turn alone, */
    struct api_policy policy; /* and so is this: either the lock or the turn is enough to read them */
    struct api_batch *first_batch, *last_batch; /* of forwards that wait: see coalesce.c */
    bool batching;                              /* somebody is to compute the first, or at it */
    int64_t company;                           /* rows of the last batch, and those that waited for its end */
    uint64_t coalesced, batches;               /* requests answered by batches so far */
    uint64_t staleness[API_STALENESS_BUCKETS]; /* of applied gradients: see condition.c */

    /* Belongs to whoever has the turn. */
    struct nn_optimizer *optimizer; /* or NULL */
    struct nn_grads *sum;           /* the accumulation buffer; NULL before the first contribution */
    double sum_scale;
    uint64_t sum_count, sum_oldest; /* contributions, and the oldest version of them */
    struct nn_params *blocks[API_MAX_VERSIONS];
    int n_blocks;
    size_t reserved, optimizer_bytes; /* of the budget; the optimizer's part of it */
    uint64_t changes;                 /* that it has had, since its birth */
    uint64_t read_changes;            /* those of them that were in the snapshot that it was read from */
    uint64_t seq;                     /* of the last record of it */
    uint64_t oldest_readable;         /* a record may have read this version, or a later one */
    bool missed;                      /* the last checkpoint, for lack of memory */
    bool stays;                       /* while recovering: records that lead on from here are lost */
    struct nn_params *past[API_REPLAY_VERSIONS]; /* while recovering: the versions before the current one */
};

/* [A-Za-z0-9][A-Za-z0-9._-]{0,63} */
bool api_model_name_valid(const char *name);

/* Makes a model of a specification's parts (the graph gets a reference), held once. `json` is copied. Its
 * parameters are drawn from the seed; or, where `draw` is false, all its numbers are to be set. NULL: NN_E_VALUE, NN_E_BUSY,
 * NN_E_TOO_LARGE, NN_E_NOMEM. */
struct api_model *api_model_new(struct api_request *request, const char *name, const struct api_spec *spec,
                                const json_t *json, bool draw);
/* Registers request->model under its name, and queues the request as its first change: API_LATER, or NN_E_EXISTS,
 * NN_E_BUSY, NN_E_NOMEM. */
int api_model_register(struct api_request *request, int (*turn)(struct api_request *request));
/* Finds a model and its current version: request->model and ->params. NN_E_NOT_FOUND. */
int api_model_find(struct api_request *request, const char *name);
/* False: there is no such model. */
bool api_model_size(struct api *api, const char *name, struct api_model_size *size);
/* In a turn: takes request->model out of the registry; changes that still wait get `code`. */
void api_model_remove(struct api_request *request, enum nn_code code);
/* In a turn that has removed the model: whose answer comes when nobody waits for it any more, so that its memory is there
 * again for who has read the answer. Returns API_LATER. */
int api_model_farewell(struct api_request *request);
/* In a turn: puts `next` into its place. */
void api_model_replace(struct api_request *request, struct api_model *next);
/* Drawn anew, or while a request is carried out again, what was drawn then. */
int api_model_draw_incarnation(struct api_request *request, struct api_model *model);
/* Appends a description of each to `list`, in the order of names. */
int api_models_list(struct api_request *request, json_t *list);
/* A tree behind the service's lock, how many items it has, and the bytes that the description of one takes at most. */
struct api_registry {
    void *const *tree;
    const int *n;
    size_t described;
};
/* Appends what `describe` makes of each item to `list`, with the lock held: in the tree's order, and of those alone
 * whose model the request's token sees. */
int api_registry_list(struct api_request *request, const struct api_registry *registry,
                      const struct api_model *(*model_of)(const void *item),
                      json_t *(*describe)(struct api *api, const void *item), json_t *list);
void api_model_unref(struct api *api, struct api_model *model);
void api_models_clear(struct api *api);

/* Queues the request for its model; `turn` then runs once, alone among the model's changes, and its code
 * ends the request. Always returns API_LATER. */
int api_model_turn(struct api_request *request, int (*turn)(struct api_request *request));

/* With the lock held: puts the request behind those that wait for the model's turn. True: it is the first, and the
 * caller is to drain them, without the lock. A thread that has to be `brief` leaves those behind its own to another. */
bool api_model_enqueue(struct api_model *model, struct api_request *request);
void api_model_drain(struct api *api, struct api_model *model, bool brief);

/* Settles the rounds whose time is up. */
void api_models_tick(struct api *api);
/* Has the model's round settled in a turn. */
void api_model_nudge(struct api *api, struct api_model *model);

/* In a turn: a block to build the next version in, which "applied_version" already tells of. NN_E_BUSY when
 * too many versions are being read. */
int api_model_next(struct api_request *request, struct nn_params **next);
/* In a turn: makes `next` the current version, one higher. */
void api_model_publish(struct api_request *request, struct nn_params *next);
/* In a turn: a step led to numbers that are not finite in this parameter; no version is made of them, but the
 * optimizer has taken it. Returns NN_E_NOT_FINITE. */
int api_model_stop(struct api_request *request, int param);
/* NN_E_STOPPED, if the model is. */
int api_model_check_running(struct api_request *request);
/* In a turn: it is stopped no more. */
void api_model_run(struct api_request *request);
/* Whether the model of this birth, if it is *there, has a change: of this record; or, where that is 0, as its snapshot had
 * so many. */
bool api_model_has(struct api *api, const char *birth, uint64_t change, uint64_t seq, bool *there);
/* Lets go of the versions that are kept while recovering. */
void api_model_forget_past(struct api_model *model);
/* Versions that nobody reads any more are let go of, all but one, in which the next will be built. */
void api_model_trim(struct api *api, struct api_model *model);
/* In a turn: tells readers what the optimizer and the accumulation buffer have come to. */
void api_model_note(struct api_request *request);
/* In a turn: replaces the optimizer (owned from here on, with `more` bytes of the request's reservation) and the
 * specification that says so, owned too. It may be the same optimizer, configured anew; it takes `bytes` now. */
void api_model_set_optimizer_take(struct api_request *request, struct nn_optimizer *optimizer, size_t bytes,
                                  size_t more, struct api_model_spec *spec);

/* Held once; `json` is consumed, and NULL gives NULL, as memory that is out does. */
struct api_model_spec *api_model_spec_new_take(json_t *json);
void api_model_spec_unref(struct api_model_spec *spec);

/* A consistent copy of what GET shows, with a reference to the specification. */
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
