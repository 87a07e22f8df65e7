/* service.h - struct api: the settings, the memory budget, and the registries behind one lock. */
#ifndef API_SERVICE_H
#define API_SERVICE_H

#include <pthread.h>
#include <stdatomic.h>

#include "../api.h"

struct api {
    struct api_settings settings;
    struct api_limits
        own_limits; /* while recovering: the limits of the settings, which are widened until the end */
    char *version;  /* a copy that settings points to */
    struct api_env env;
    uint64_t
        *failed; /* while recovering: the records of changes that fail, as they failed when they were new */
    size_t n_failed;
    char (*gone)[17]; /* while recovering: births of models of which nothing is stored any more */
    size_t n_gone;
    uint64_t recovered_life; /* while recovering: see api_effects_pass */
    int64_t recovered_ms, recovered_alive_ms;
    atomic_uint_fast64_t life;   /* 0: no record was written yet */
    int64_t began_ms;            /* when the process began to serve, by its monotonic clock */
    struct nn_error store_error; /* the error, if `store_failed` */
    atomic_bool store_failed;
    struct api_metrics *metrics;
    bool (*make_room)(struct api *api); /* frees expired contexts; true: there were some */
    atomic_size_t memory;               /* reserved bytes */
    atomic_int in_flight;
    atomic_bool starting, draining, ending, recovering;

    /* Guards `tokens` and the trees below, and of each model its version, its queue of changes and `dead`. It is held
     * for a few instructions only. No other lock is taken under it. */
    pthread_mutex_t lock;
    struct api_tokens *tokens; /* the tokens that requests must bear; NULL: none is asked for */
    void *models, *contexts;   /* trees of tsearch(3): models by name, contexts by id */
    void *
        effects; /* a tree by Idempotency-Key; finished ones are also in a list, in the order in which they expire */
    struct api_effect *first_effect, *last_effect;
    struct api_request *waiting; /* requests that wait for a checkpoint */
    void *clients;               /* a tree by address: the clients with requests in flight */
    int n_models, n_contexts, n_effects;
};

#endif
