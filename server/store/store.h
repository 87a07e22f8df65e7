/* store.h - the directory that keeps models across processes: a journal, snapshots, checkpoints.
 *
 *   journal-SEQ             records from number SEQ on; preallocated; one file is written at a time (frame.h)
 *   begun-SEQ               empty: journal-SEQ is the newest file to which records were written
 *   snapshot-MODEL-N        a safetensors file: one model, taken for checkpoint N
 *   keys-N                  Idempotency-Keys
 *   checkpoint-N            text: the files that make up the whole state, with their checksums (checkpoint.h)
 *   clean-N                 empty: nothing has happened since checkpoint N
 *
 * Checkpoints have numbers of their own, because two of them may be of the same record: models whose changes are not in
 * the journal still differ. Every file but a journal is written under a name that ends in ~, synced and renamed; then
 * the directory is synced. It is never written again, so a checkpoint that exists is whole. The two newest checkpoints
 * are kept, and the journal from the older one's record on. So a damaged file has a substitute, except for the snapshot
 * of a model that did not change between the two. clean-N exists from a clean stop to the next start. */
#ifndef SRV_STORE_H
#define SRV_STORE_H

#include "../../api/store.h"
#include "frame.h"
#include "io.h"

struct srv_store;

struct srv_store_options {
    uint64_t segment_bytes;        /* bytes to which a journal file is preallocated */
    uint64_t checkpoint_bytes;     /* bytes of records after which a checkpoint is taken */
    int64_t checkpoint_ms;         /* time after which a checkpoint is taken, if anything has changed */
    int snapshots;                 /* snapshots of a model that are kept */
    bool other_numbers;            /* replay a journal that was written under another fingerprint */
    bool accept_loss;              /* go on without what is lost */
    bool threads;                  /* false: the owner calls srv_store_commit and srv_store_checkpoint */
    int64_t (*now_ms)(void);       /* milliseconds since 1970 */
    void (*log)(const char *line); /* gets lines about the start and about failures; NULL: none */
};

/* The fingerprint of this process: everything that the bits of results depend on. Not the release's number, but how it
 * was built. */
void srv_store_fingerprint(char text[SRV_FINGERPRINT]);

/* `io` must outlive the store. NN_E_NOMEM, NN_E_INTERNAL. */
struct srv_store *srv_store_new(const struct srv_io *io, const struct srv_store_options *options,
                                struct nn_error *err);
/* For api_env.store. Lives as long as the store. */
const struct api_store *srv_store_api(const struct srv_store *store);
/* Restores the service. NN_E_CORRUPT: something is lost; `err` names it. `read_only`: the disk is not changed, and
 * nothing may be appended afterwards (gradd verify). */
int srv_store_recover(struct srv_store *store, struct api *api, bool read_only, struct nn_error *err);
/* True if recovery has found damage. A torn end is no damage: a crash leaves it. */
bool srv_store_damaged(const struct srv_store *store);
/* For a store without threads: writes and syncs the records that wait. False: none waited, or the disk is full. */
bool srv_store_commit(struct srv_store *store);
/* Takes a checkpoint now. */
int srv_store_checkpoint(struct srv_store *store, struct nn_error *err);
/* After the last request: makes all records durable, and takes a last, clean checkpoint. */
int srv_store_finish(struct srv_store *store, struct nn_error *err);
/* Ends the threads. Without srv_store_finish, the disk is as after a crash. */
void srv_store_free(struct srv_store *store);

#endif
