/* service.h - what struct api is: settings, the budget, and the registry behind one lock. */
#ifndef API_SERVICE_H
#define API_SERVICE_H

#include <pthread.h>
#include <stdatomic.h>

#include "../api.h"

struct api {
    struct api_settings settings;
    struct api_limits own_limits; /* while recovering, which those of the settings are widened for */
    char *version;                /* a copy that settings points to */
    struct api_env env;
    uint64_t *failed; /* while recovering: records of changes that failed, as they had before */
    size_t n_failed;
    char (*gone)[17]; /* while recovering: births of models of which nothing is left */
    size_t n_gone;
    struct nn_error store_error; /* with `store_failed` */
    atomic_bool store_failed;
    struct api_metrics *metrics;
    atomic_size_t memory; /* reserved bytes */
    atomic_int in_flight;
    atomic_bool starting, draining, recovering;

    /* Guards `tokens`, the two trees, and of each model: params, the queue of changes, and `dead`. Held for a few
     * instructions only, and never with another lock. */
    pthread_mutex_t lock;
    struct api_tokens *tokens; /* of whom requests bear one; NULL: none is asked for */
    void *models, *contexts;   /* trees of tsearch(3), by name and by id */
    void *effects; /* likewise, by Idempotency-Key; those that are done form a queue, in which they expire */
    struct api_effect *first_effect, *last_effect;
    struct api_request *waiting; /* for a checkpoint */
    void *clients;               /* those with requests in flight, by address */
    int n_models, n_contexts, n_effects;
};

#endif
