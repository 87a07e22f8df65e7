/* store.c - see store.h. */
#include "store.h"

#include <stdlib.h>
#include <string.h>

void *fuzz_copy(const void *bytes, size_t size) {
    void *copy = malloc(size ? size : 1);
    if (!copy) abort();
    if (size) memcpy(copy, bytes, size);
    return copy;
}

static char *join(const struct api_segment *segments, size_t n, size_t *size) {
    *size = 0;
    for (size_t i = 0; i < n; i++) *size += segments[i].size;
    char *bytes = malloc(*size + 1);
    if (!bytes) abort();
    for (size_t i = 0, at = 0; i < n; at += segments[i++].size)
        if (segments[i].size) memcpy(bytes + at, segments[i].data, segments[i].size);
    return bytes;
}

static int append(void *self, const struct api_segment *segments, size_t n,
                  void (*done)(void *arg, bool durable), void *arg, uint64_t *seq, struct nn_error *err) {
    struct fuzz_store *store = self;
    if (store->full || store->failed) return nn_fail(err, NN_E_STORE, "the disk is full, or fails");
    if (store->n == store->room) {
        store->room = store->room ? 2 * store->room : 16;
        store->records = realloc(store->records, store->room * sizeof *store->records);
        if (!store->records) abort();
    }
    struct fuzz_record *record = &store->records[store->n++];
    *record = (struct fuzz_record){.done = done, .arg = arg};
    record->bytes = join(segments, n, &record->size);
    *seq = store->n;
    if (!store->hold) fuzz_store_sync(store);
    return NN_OK;
}

void fuzz_store_sync(struct fuzz_store *store) {
    while (store->durable < store->n) {
        struct fuzz_record record = store->records[store->durable];
        store->records[store->durable++].done = NULL;
        record.done(record.arg, !store->failed);
    }
}

static uint64_t last(void *self) { return ((struct fuzz_store *)self)->n; }

static void want_checkpoint(void *self) { (void)self; /* one comes in any case */ }

/* The newest of a name, whichever model had it. */
static struct fuzz_saved *find(const struct fuzz_store *store, const char *model) {
    for (size_t i = store->n_saved; i-- > 0;)
        if (strcmp(store->saved[i].model, model) == 0) return &store->saved[i];
    return NULL;
}

static bool is_of(const struct fuzz_saved *saved, const char *model, const char *birth) {
    return strcmp(saved->model, model) == 0 && strcmp(saved->birth, birth) == 0;
}

static size_t list(void *self, const char *model, const char *birth, struct api_stored *stored, size_t room) {
    const struct fuzz_store *store = self;
    size_t n = 0;
    for (size_t i = store->n_saved; i-- > 0 && n < room;)
        if (is_of(&store->saved[i], model, birth))
            stored[n++] = (struct api_stored){store->saved[i].version, 0};
    return n;
}

static int read_snapshot(void *self, const char *model, const char *birth, int64_t version,
                         api_source_fn *take, void *arg, struct nn_error *err) {
    const struct fuzz_store *store = self;
    const struct fuzz_saved *saved = NULL;
    for (size_t i = store->n_saved; i-- > 0 && !saved;) {
        bool good = version < 0 || store->saved[i].version == (uint64_t)version;
        if (good && is_of(&store->saved[i], model, birth)) saved = &store->saved[i];
    }
    if (!saved) return nn_fail(err, NN_E_NOT_FOUND, "there is no such snapshot");
    struct api_source source = api_source_of(saved->bytes, saved->size);
    return take(arg, &source, err);
}

static void status(void *self, struct api_store_status *status) {
    const struct fuzz_store *store = self;
    *status = (struct api_store_status){.records = store->n, .waiting = store->n - store->durable};
}

void fuzz_store_init(struct fuzz_store *store) {
    *store =
        (struct fuzz_store){.store = {store, append, last, want_checkpoint, list, read_snapshot, status}};
}

void fuzz_store_fini(struct fuzz_store *store) {
    for (size_t i = 0; i < store->n; i++) free(store->records[i].bytes);
    for (size_t i = 0; i < store->n_saved; i++) free(store->saved[i].bytes);
    free(store->records);
    free(store->saved);
    free(store->keys);
}

/* --- checkpoints -------------------------------------------------------------------------------------- */

char *fuzz_snapshot(struct api *api, const char *model, size_t *size, enum nn_code *code) {
    struct nn_error err = {0};
    struct api_snapshot *snapshot = api_snapshot_take(api, model, NULL, 0, &err);
    *code = err.code;
    if (!snapshot && err.code != NN_E_BUSY && err.code != NN_E_NOT_FOUND && err.code != NN_E_TOO_LARGE)
        abort();
    if (!snapshot) return NULL;
    char *bytes = join(snapshot->segments, snapshot->n_segments, size);
    if (*size != snapshot->size) abort();
    api_snapshot_free(snapshot);
    return bytes;
}

struct checkpoint {
    struct fuzz_store *store;
    struct api *api;
};

static void save(void *arg, const char *name) {
    const struct checkpoint *checkpoint = arg;
    struct fuzz_store *store = checkpoint->store;
    struct fuzz_saved *newest = find(store, name);
    struct nn_error err = {0};
    struct api_snapshot *snapshot = api_snapshot_take(checkpoint->api, name, newest ? newest->birth : NULL,
                                                      newest ? newest->changes : 0, &err);
    if (!snapshot) return;
    if (newest && snapshot->unchanged) {
        newest->seq = snapshot->seq;
    } else {
        store->saved = realloc(store->saved, (store->n_saved + 1) * sizeof *store->saved);
        if (!store->saved) abort();
        struct fuzz_saved *saved = &store->saved[store->n_saved++];
        *saved = (struct fuzz_saved){
            .seq = snapshot->seq, .changes = snapshot->changes, .version = snapshot->version};
        memcpy(saved->model, snapshot->model, sizeof saved->model);
        memcpy(saved->birth, snapshot->birth, sizeof saved->birth);
        saved->bytes = join(snapshot->segments, snapshot->n_segments, &saved->size);
    }
    api_snapshot_durable(checkpoint->api, snapshot);
    api_snapshot_free(snapshot);
}

void fuzz_store_checkpoint(struct fuzz_store *store, struct api *api) {
    struct checkpoint checkpoint = {store, api};
    struct nn_error err = {0};
    if (api_models_stored(api, save, &checkpoint, &err)) abort();
    free(store->keys);
    if (api_keys_save(api, &store->keys, &store->keys_size, &err)) abort();
}

int fuzz_store_recover(const struct fuzz_store *store, struct api *api, bool snapshots,
                       struct nn_error *err) {
    int code = NN_OK;
    api_recover_begin(api);
    for (size_t i = 0; i < store->n_saved && snapshots && !code; i++) {
        const struct fuzz_saved *saved = &store->saved[i];
        struct api_source source = api_source_of(saved->bytes, saved->size);
        if (find(store, saved->model) == saved) code = api_recover_model(api, &source, saved->seq, err);
    }
    for (size_t i = 0; i < store->n && !code; i++)
        code = api_recover_record(api, i + 1, store->records[i].bytes, store->records[i].size, 0, err);
    if (snapshots && !code && store->keys_size)
        code = api_recover_keys(api, store->keys, store->keys_size, store->n, err);
    return code ? code : api_recover_end(api, true, err);
}
