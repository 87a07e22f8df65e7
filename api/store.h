/* store.h - durability: what the service asks of a store, and what the store asks of the service.
 *
 * A store keeps a journal and snapshots. The journal is a list of records of changes, each with a sequence number from
 * 1. A snapshot is one model as it is after some record. The service gives the contents of both; to the store they are
 * bytes.
 * The store decides when snapshots are taken (a checkpoint), and which files are deleted.
 *
 *   change      append; then the change is made; it is answered when both are done
 *   checkpoint  api_models_stored, api_snapshot_take of each, api_keys_save; then api_snapshot_durable
 *   start       api_recover_begin; of each model the newest good snapshot (api_recover_model); the keys;
 *               all records from the oldest snapshot's on (api_recover_record); api_recover_end */
#ifndef API_STORE_H
#define API_STORE_H

#include "api.h"

#define API_MAX_MODEL_NAME 64 /* [A-Za-z0-9][A-Za-z0-9._-]*: safe within a file's name */

/* --- what the service asks of a store: api_env.store ------------------------------------------------ */

/* A snapshot that could be restored. */
struct api_stored {
    uint64_t version;
    int64_t time_ms; /* when it was taken, in milliseconds since 1970 */
};

/* A snapshot that is read from its first byte to its last, so that memory never holds both it and the model made of
 * it. */
struct api_source {
    void *self;
    uint64_t size; /* bytes that are left */
    /* Reads exactly the next `size` bytes. NN_E_CORRUPT: fewer are left; or these are the last, and the snapshot's
     * checksum is wrong. */
    int (*read)(struct api_source *source, void *to, size_t size, struct nn_error *err);
};
typedef int api_source_fn(void *arg, struct api_source *source, struct nn_error *err);
/* A source of bytes in memory, which stay the caller's. */
struct api_source api_source_of(const void *bytes, size_t size);

/* For /metrics. */
struct api_store_status {
    bool failed;                         /* a write or a sync failed: changes are refused until a restart */
    uint64_t records, bytes;             /* appended since the start */
    uint64_t syncs, sync_ns;             /* syncs of the journal, and the time that they took */
    uint64_t journal_bytes;              /* on disk */
    uint64_t waiting;                    /* records that are not durable yet */
    uint64_t checkpoints, checkpoint_ms; /* taken since the start; when the last one ended, since 1970 */
};

/* From any thread. */
struct api_store {
    void *self;
    /* Appends a record behind all others, and sets *seq to its number. The segments and their bytes stay until `done`
     * is called: once, perhaps before this returns, with whether the record is durable. Calls come in the order of the
     * records. Room on the disk is taken before this returns: NN_E_STORE (the disk is full, the store has failed) means
     * that nothing was written and `done` is not called. On a disk that does not keep the room that was taken, a record
     * waits until there is room, and later ones get NN_E_STORE. */
    int (*append)(void *self, const struct api_segment *segments, size_t n,
                  void (*done)(void *arg, bool durable), void *arg, uint64_t *seq, struct nn_error *err);
    /* The number of the last record; 0: there is none yet. */
    uint64_t (*last)(void *self);
    /* Asks for a checkpoint soon, because a request waits for it. */
    void (*want_checkpoint)(void *self);
    /* Lists the snapshots of a model, newest first, at most `room`; returns how many. Snapshots of another birth, which
     * had the name before, are left out. */
    size_t (*list)(void *self, const char *model, const char *birth, struct api_stored *stored, size_t room);
    /* Gives a snapshot to `take`: of this version; with version -1 the newest, and if `take` fails with NN_E_CORRUPT
     * the next older one. NN_E_NOT_FOUND, NN_E_STORE (no snapshot is good), or another error of `take`. */
    int (*read)(void *self, const char *model, const char *birth, int64_t version, api_source_fn *take,
                void *arg, struct nn_error *err);
    void (*status)(void *self, struct api_store_status *status);
};

/* --- what a store asks of the service for a checkpoint ------------------------------------------------ */

/* Calls each(arg, name) for every model that must be stored. NN_E_NOMEM. */
int api_models_stored(struct api *api, void (*each)(void *arg, const char *name), void *arg,
                      struct nn_error *err);

/* A model as it was between two changes. */
struct api_snapshot {
    char model[API_MAX_MODEL_NAME + 1];
    char birth[17]; /* distinguishes it from other models that have had the name */
    char incarnation[17];
    uint64_t seq;     /* the snapshot contains all the model's records up to this one, and no later one */
    uint64_t changes; /* the number of changes that the model has had since its birth */
    uint64_t version;
    int64_t time_ms;                    /* since 1970 */
    bool unchanged;                     /* the model is as in its last snapshot: there are no bytes */
    const struct api_segment *segments; /* of a safetensors file */
    size_t n_segments, size;
};
/* Takes a snapshot in the model's turn, and waits for it. `birth` and `changes` are those of the model's last snapshot,
 * or NULL and 0. NULL: NN_E_NOT_FOUND (the model is gone, or not stored any more), NN_E_BUSY (the memory budget has no
 * room now), NN_E_NOMEM. */
struct api_snapshot *api_snapshot_take(struct api *api, const char *name, const char *birth, uint64_t changes,
                                       struct nn_error *err);
void api_snapshot_free(struct api_snapshot *snapshot);
/* The remembered Idempotency-Keys, malloc'ed. They must be saved after the snapshots were taken, and become durable
 * together with them. NN_E_NOMEM. */
int api_keys_save(struct api *api, void **bytes, size_t *size, struct nn_error *err);
/* True if a stored model has a later version than a crash would leave. *durable: that version; -1: none. */
bool api_model_lags(struct api *api, const char *name, uint64_t *version, int64_t *durable);
/* The checkpoint with this snapshot is durable: answers the requests that wait for it. The snapshot may be a copy
 * without bytes. */
void api_snapshot_durable(struct api *api, const struct api_snapshot *snapshot);
/* A checkpoint has failed: the requests that wait for one get `err`. */
void api_checkpoint_failed(struct api *api, const struct nn_error *err);
/* The store has failed for good: the requests that wait for a checkpoint get `err`, and so does every later change that
 * the store would have to record. */
void api_store_failed(struct api *api, const struct nn_error *err);

/* --- what a store asks of the service at a start, before any request is submitted --------------------- */

/* Begins recovery. Until api_recover_end, limits on requests do not apply to records. Requests must be kept away until
 * the store can take their changes: see api_set_starting. */
void api_recover_begin(struct api *api);
/* Reads a model out of a snapshot, to its end. `seq` is the number that the checkpoint gives it, perhaps later than
 * when the snapshot was taken. NN_E_CORRUPT, NN_E_NOMEM, or the source's error. */
int api_recover_model(struct api *api, struct api_source *source, uint64_t seq, struct nn_error *err);
/* Records that follow the model's present state are lost. The model stays as it is; of its later records only those are
 * carried out that do not build on the lost ones: a deletion, a creation, a whole state. A model with a record that was
 * NN_E_CORRUPT is treated likewise. */
int api_recover_stay(struct api *api, const char *name, struct nn_error *err);
/* The model of this birth is lost: nothing of it is stored any more. */
int api_recover_gone(struct api *api, const char *birth, struct nn_error *err);
/* Remembers the keys of a file that api_keys_save wrote, if their changes were recovered. It is called after all
 * records; `last` is the number of the last record. NN_E_CORRUPT, NN_E_STORE, NN_E_NOMEM. */
int api_recover_keys(struct api *api, const void *bytes, size_t size, uint64_t last, struct nn_error *err);
/* What the store knows about a record. API_MAY_BE_GONE: all snapshots are later than the record, so a model without a
 * snapshot was deleted since, and the record is skipped. API_FOREIGN: another build wrote it, and it may lead to other
 * numbers. */
enum { API_MAY_BE_GONE = 1, API_FOREIGN = 2 };
/* Carries out a record, unless its model's snapshot contains it. Records come in the order of their numbers.
 * NN_E_CORRUPT: the service does not write such a record, or it leads to other numbers than it once did. */
int api_recover_record(struct api *api, uint64_t seq, const void *bytes, size_t size, unsigned known,
                       struct nn_error *err);
/* *wanted: true if api_recover_record would carry the record out. NN_E_CORRUPT, NN_E_NOMEM. */
int api_recover_wants(struct api *api, uint64_t seq, const void *bytes, size_t size, unsigned known,
                      bool *wanted, struct nn_error *err);
/* Ends recovery. `clean`: everything that a client may have seen was recovered. If not, every model gets a new
 * incarnation. */
int api_recover_end(struct api *api, bool clean, struct nn_error *err);
/* A record's kind and model in one line, for people, malloc'ed. NULL: memory is out. */
char *api_record_describe(const void *bytes, size_t size);

/* Names everything besides a request that the bits of its result depend on: BLAS and its kernel, the CPU's variant of
 * the loops and of libm, the compiler, and a hash of the sources and flags of core/ and api/. One line; the caller adds
 * the C library's version. A journal that was written under another fingerprint is replayed only if the operator asks
 * for it. */
void api_fingerprint(char *text, size_t size);

#endif
