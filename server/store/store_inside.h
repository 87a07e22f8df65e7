/* store_inside.h - the inside of a store, for the files that it is written in: store.c is its life, take.c takes
 * checkpoints, recover.c reads them. */
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
    struct api *api; /* from its recovery on */
    struct srv_journal *journal;
    char fingerprint[SRV_FINGERPRINT];
    bool damaged;

    pthread_mutex_t taking; /* held by who takes a checkpoint */
    uint64_t number;        /* the highest of a checkpoint that was tried */
    /* Whether the newest snapshots show models of their incarnation now, and so may do if nothing has changed. */
    bool known;

    pthread_mutex_t mutex; /* guards all below */
    /* The two newest that are durable; either may be NULL. They are changed by who holds `taking` too. */
    struct srv_checkpoint *newest, *older;
    uint64_t checkpoints, checkpoint_ms; /* that were taken; when the last one ended */

    pthread_cond_t wake; /* of the thread that takes checkpoints */
    bool wanted, full, stopping, threaded;
    pthread_t thread;
    _Atomic uint64_t bytes; /* of records since the last checkpoint began */
};

void srv_store_say(const struct srv_store *store, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Takes a checkpoint, even where nothing is new if somebody `wants` it. */
int srv_store_take(struct srv_store *store, bool wanted, struct nn_error *err);
/* Removes the files that neither of the two checkpoints names. `taking` is held, or nobody else is there yet. */
int srv_store_tidy(struct srv_store *store, struct nn_error *err);
/* Begins the threads. NN_E_INTERNAL. */
int srv_store_start(struct srv_store *store, bool wanted, struct nn_error *err);

#endif
