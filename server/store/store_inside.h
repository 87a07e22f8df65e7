/* store_inside.h - the inside of a store: store.c is its life, take.c takes checkpoints, recover.c reads them. */
#ifndef SRV_STORE_INSIDE_H
#define SRV_STORE_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>

#include "checkpoint.h"
#include "frame.h"
#include "journal.h"
#include "store.h"

struct srv_store {
    const struct srv_io *io;
    struct srv_store_options options;
    struct api_store api_store;
    struct api *api; /* set by srv_store_recover */
    struct srv_journal *journal;
    char fingerprint[SRV_FINGERPRINT];
    bool damaged;

    pthread_mutex_t taking; /* held by the thread that takes a checkpoint */
    uint64_t number;        /* the highest number of a checkpoint, taken or tried */
    /* True if the newest snapshots have the present incarnations: then they serve again for models that have not
     * changed. */
    bool known;

    pthread_mutex_t mutex; /* guards the members below */
    /* The two newest durable checkpoints, or NULL. Changing them needs `taking` too. */
    struct srv_checkpoint *newest, *older;
    uint64_t checkpoints, checkpoint_ms; /* checkpoints since the start; when the last one ended */

    pthread_cond_t wake; /* wakes the thread that takes checkpoints */
    bool wanted, full, stopping, threaded;
    pthread_t thread;
    _Atomic uint64_t bytes; /* bytes of records since the last checkpoint began */
};

void srv_store_say(const struct srv_store *store, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Takes a checkpoint. Without news it takes one only if it is `wanted`. */
int srv_store_take(struct srv_store *store, bool wanted, struct nn_error *err);
/* Removes files that neither checkpoint names. With `taking` held, or before there are threads. */
int srv_store_tidy(struct srv_store *store, struct nn_error *err);
/* Starts the threads. NN_E_INTERNAL. */
int srv_store_start(struct srv_store *store, bool wanted, struct nn_error *err);

#endif
