/* store.h - a store in memory: records and snapshots as bytes, durable when the fuzzer says so, and a service made of
 * them again. Memory that is out ends the program. */
#ifndef FUZZ_STORE_H
#define FUZZ_STORE_H

#include "../../../api/store.h"

struct fuzz_record {
    char *bytes;
    size_t size;
    void (*done)(void *arg, bool durable); /* NULL: it was called */
    void *arg;
};

struct fuzz_saved {
    char model[API_MAX_MODEL_NAME + 1], birth[17];
    uint64_t seq, changes, version;
    char *bytes;
    size_t size;
};

struct fuzz_store {
    struct api_store store;
    struct fuzz_record *records;
    size_t n, room, durable;  /* records, and how many of them are durable */
    bool hold;                /* they become durable by fuzz_store_sync alone */
    bool full;                /* there is no room for more */
    bool failed;              /* what is not durable never becomes so, and nothing is appended */
    struct fuzz_saved *saved; /* in the order of checkpoints */
    size_t n_saved;
    void *keys;
    size_t keys_size;
};

void fuzz_store_init(struct fuzz_store *store);
void fuzz_store_fini(struct fuzz_store *store);
/* All that was appended becomes durable, unless the store has failed. */
void fuzz_store_sync(struct fuzz_store *store);
/* What does not fit the memory budget now keeps the snapshot that it has. */
void fuzz_store_checkpoint(struct fuzz_store *store, struct api *api);
/* A start, as after a clean stop, from the newest snapshots, or from records alone. */
int fuzz_store_recover(const struct fuzz_store *store, struct api *api, bool snapshots, struct nn_error *err);

/* A snapshot's bytes, malloc'ed; NULL, with `code`: NN_E_NOT_FOUND, or one for no memory in the budget. No change of
 * the model may wait for a thread. */
char *fuzz_snapshot(struct api *api, const char *model, size_t *size, enum nn_code *code);
/* Bytes in a block of just their size, for the sanitizer's sake. */
void *fuzz_copy(const void *bytes, size_t size);

#endif
