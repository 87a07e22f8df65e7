/* store.h - what makes changes outlive the process: what the service asks of a store, and the store of it.
 *
 * A store keeps a journal, records of changes in one order, each with a sequence number from 1; and
 * snapshots, each of one model as it is after some record. What is in them is the service's to know: here
 * they are bytes. It is the store that decides when snapshots are taken (a checkpoint), and what is thrown
 * away.
 *
 *     change      append, then the change is made, and it is answered once both are over
 *     checkpoint  api_models_stored, api_snapshot_take of each, api_keys_save; then api_snapshot_durable
 *     start       api_recover_begin; of each model the newest good snapshot (api_recover_model); the keys;
 *                 all records from the oldest snapshot's on (api_recover_record); api_recover_end */
#ifndef API_STORE_H
#define API_STORE_H

#include "api.h"

#define API_MAX_MODEL_NAME 64 /* [A-Za-z0-9][A-Za-z0-9._-]*: safe within a file's name */

/* --- what the service asks of a store: api_env.store ------------------------------------------------ */

/* A snapshot that could be restored. */
struct api_stored {
    uint64_t version;
    int64_t time_ms; /* when it was taken, since 1970 */
};

/* A snapshot that is read from its first byte to its last, so that it is never in memory beside its model. */
struct api_source {
    void *self;
    uint64_t size; /* that are still to come */
    /* The next `size` bytes, all of them. NN_E_CORRUPT: they are not there, or, with the last one, all that were
     * read are not what was once written. */
    int (*read)(struct api_source *source, void *to, size_t size, struct nn_error *err);
};
typedef int api_source_fn(void *arg, struct api_source *source, struct nn_error *err);
/* Bytes in memory, which stay the caller's. */
struct api_source api_source_of(const void *bytes, size_t size);

/* For /metrics. */
struct api_store_status {
    bool failed;             /* a write or a sync failed: changes are refused until the next start */
    uint64_t records, bytes; /* appended, since the start */
    uint64_t syncs, sync_ns; /* of the journal, and how long they took together */
    uint64_t journal_bytes;  /* on disk */
    uint64_t waiting;        /* records that are not durable yet */
    uint64_t checkpoints, checkpoint_ms; /* since the start; when the last one ended, since 1970 */
};

/* All may be called from any thread. */
struct api_store {
    void *self;
    /* Appends a record, of which *seq is the number, and which lies behind all that were appended before. The
     * bytes stay as they are, and the segments too, until `done` is called: once, perhaps before this returns,
     * with whether the record is durable now. It is called in the order of the records. Room on the disk is
     * taken before this returns, so that NN_E_STORE, which says what is wrong (a disk that is full, a store that
     * has failed), means that nothing was written, and `done` is not called. */
    int (*append)(void *self, const struct api_segment *segments, size_t n,
                  void (*done)(void *arg, bool durable), void *arg, uint64_t *seq, struct nn_error *err);
    /* The number of the last record appended; 0 before the first. */
    uint64_t (*last)(void *self);
    /* Somebody waits for a checkpoint: it is to come soon. */
    void (*want_checkpoint)(void *self);
    /* The snapshots of a model, newest first: at most `room` of them; how many. Those of a model of another `birth`,
     * which had the name before, are not there. */
    size_t (*list)(void *self, const char *model, const char *birth, struct api_stored *stored, size_t room);
    /* Hands one to `take`; where `version` is -1 the newest, and the next older one where `take` fails with
     * NN_E_CORRUPT. NN_E_NOT_FOUND, NN_E_STORE (none is good), or what else `take` fails with. */
    int (*read)(void *self, const char *model, const char *birth, int64_t version, api_source_fn *take,
                void *arg, struct nn_error *err);
    void (*status)(void *self, struct api_store_status *status);
};

/* --- a checkpoint: what a store asks of the service -------------------------------------------------- */

/* Calls each(arg, name) for all models that are to be stored. NN_E_NOMEM. */
int api_models_stored(struct api *api, void (*each)(void *arg, const char *name), void *arg,
                      struct nn_error *err);

/* One model as it was at an instant at which it was nobody's turn to change it. */
struct api_snapshot {
    char model[API_MAX_MODEL_NAME + 1];
    char birth[17]; /* tells it from others that have the name before or after it */
    char incarnation[17];
    uint64_t seq;     /* all records up to this one that concern the model are in it, and none behind */
    uint64_t changes; /* that the model has had */
    uint64_t version;
    int64_t time_ms;                    /* since 1970 */
    bool unchanged;                     /* since `changes`: there are no bytes */
    const struct api_segment *segments; /* a safetensors file */
    size_t n_segments, size;
};
/* Waits for the model's turn. `birth` and `changes` are those of the last snapshot that was taken of it, or NULL
 * and 0. NULL: NN_E_NOT_FOUND (it is gone, or stored no more), NN_E_BUSY (no room in the memory budget now),
 * NN_E_NOMEM. */
struct api_snapshot *api_snapshot_take(struct api *api, const char *name, const char *birth, uint64_t changes,
                                       struct nn_error *err);
void api_snapshot_free(struct api_snapshot *snapshot);
/* The Idempotency-Keys that are remembered, malloc'ed; to be saved after the snapshots were taken, and before they
 * are durable together. NN_E_NOMEM. */
int api_keys_save(struct api *api, void **bytes, size_t *size, struct nn_error *err);
/* The checkpoint that this snapshot is of is durable; who waited for that is answered. It may be a copy, without the
 * bytes. */
void api_snapshot_durable(struct api *api, const struct api_snapshot *snapshot);
/* A checkpoint that somebody wanted has failed: those who wait for one get `err`. */
void api_checkpoint_failed(struct api *api, const struct nn_error *err);
/* The store has, once and for good: they too, and all changes that it would have had to keep. */
void api_store_failed(struct api *api, const struct nn_error *err);

/* --- a start: before any request is submitted -------------------------------------------------------- */

/* Until api_recover_end, what was allowed when it came is carried out again, whatever the limits are. Requests are to be
 * kept away longer than that, until the store can take their changes: see api_set_starting. */
void api_recover_begin(struct api *api);
/* `seq` as the checkpoint has it, which may be later than when the snapshot was taken. It is read to its end, or
 * NN_E_CORRUPT, NN_E_NOMEM, or what the source fails with. */
int api_recover_model(struct api *api, struct api_source *source, uint64_t seq, struct nn_error *err);
/* Records that lead on from where this model is are lost: it stays as it is, and of those to come only such are carried
 * out as begin anew, a deletion, a creation or a whole state. So it is with one of which a record was NN_E_CORRUPT. */
int api_recover_stay(struct api *api, const char *name, struct nn_error *err);
/* Nothing is left of the model of this birth. */
int api_recover_gone(struct api *api, const char *birth, struct nn_error *err);
/* Of those keys, the ones whose change was recovered are kept: so it comes last, with the number of the last record that
 * was there. */
int api_recover_keys(struct api *api, const void *bytes, size_t size, uint64_t last, struct nn_error *err);
/* Applies a record, unless its model's snapshot has it already: in the order of their numbers. NN_E_CORRUPT: it is
 * not what the service writes, or does not lead to the numbers that it once led to. `may_be_gone`: it was there before
 * all snapshots were, so that a model which has none is one that was deleted since, and nothing is to be done. */
int api_recover_record(struct api *api, uint64_t seq, const void *bytes, size_t size, bool may_be_gone,
                       struct nn_error *err);
/* *wanted: whether api_recover_record would do anything with it now. NN_E_CORRUPT, NN_E_NOMEM. */
int api_recover_wants(struct api *api, uint64_t seq, const void *bytes, size_t size, bool may_be_gone,
                      bool *wanted, struct nn_error *err);
/* `clean`: nothing was ever seen that is not there now. Otherwise every model gets another incarnation. */
int api_recover_end(struct api *api, bool clean, struct nn_error *err);
/* A record's kind and model in one line, for people; malloc'ed, NULL when memory is out. */
char *api_record_describe(const void *bytes, size_t size);

/* What decides about the bits of a result beside the request: build, BLAS and its kernel, C library, the CPU's
 * variant of the loops. One line without spaces at its ends; journals that were written under another are not
 * replayed unasked. */
void api_fingerprint(char *text, size_t size);

#endif
