/* store.h - the directory in which models outlive the process: a journal, snapshots, checkpoints.
 *
 *   journal-SEQ             records from number SEQ on; preallocated, one being written at a time (frame.h)
 *   snapshot-MODEL-N        a safetensors file: one model, taken for checkpoint N
 *   keys-N                  Idempotency-Keys
 *   checkpoint-N            text: which of these make up the whole, with their checksums (checkpoint.h)
 *   clean-N                 empty: nothing has happened since checkpoint N
 *
 * Checkpoints are counted, for two of them may be as of the same record: models that do not journal their changes
 * differ all the same. Every file but a journal is written beside (under a name that ends with ~), synced, renamed,
 * and then the directory is synced; none is ever written again. A checkpoint that is there is whole. The two newest
 * are kept, and the journal from the older one's record on; so a file that went bad has one in its place, but for the
 * snapshot of a model that did not change between the two. clean-N is there from a clean stop to the next start. */
#ifndef SRV_STORE_H
#define SRV_STORE_H

#include "../../api/store.h"
#include "io.h"

struct srv_store;

struct srv_store_options {
    uint64_t segment_bytes;    /* that a journal file is preallocated with */
    uint64_t checkpoint_bytes; /* of records, after which a checkpoint is taken */
    int64_t checkpoint_ms;     /* after which one is taken if anything has changed */
    int snapshots;             /* that are kept of a model */
    bool other_numbers;        /* replay a journal that was written under another fingerprint */
    bool accept_loss;          /* go on without what is damaged */
    bool threads;              /* false: srv_store_commit and srv_store_checkpoint are called by the owner */
    int64_t (*now_ms)(void);   /* since 1970 */
    void (*log)(const char *line); /* what was found and done at the start, and what fails; NULL: nowhere */
};

/* `io` outlives it. NN_E_NOMEM, NN_E_INTERNAL. */
struct srv_store *srv_store_new(const struct srv_io *io, const struct srv_store_options *options,
                                struct nn_error *err);
/* What api_env.store is to be; lives as long as the store. */
const struct api_store *srv_store_api(const struct srv_store *store);
/* Brings the service to where it was. What is damaged is named in `err`: NN_E_CORRUPT. `read_only`: nothing on the
 * disk is changed, and nothing may be appended after it (gradd verify). */
int srv_store_recover(struct srv_store *store, struct api *api, bool read_only, struct nn_error *err);
/* Whether recovery has found anything that is not what was written; a torn end is what a crash leaves. */
bool srv_store_damaged(const struct srv_store *store);
/* Writes what was appended and syncs it, once; false: nothing was waiting. For a store without threads. */
bool srv_store_commit(struct srv_store *store);
/* A checkpoint, here and now. */
int srv_store_checkpoint(struct srv_store *store, struct nn_error *err);
/* After the last request: everything appended is made durable, and a last, clean checkpoint taken. */
int srv_store_finish(struct srv_store *store, struct nn_error *err);
/* Ends the threads. Without srv_store_finish before, what is on the disk is as after a crash. */
void srv_store_free(struct srv_store *store);

#endif
