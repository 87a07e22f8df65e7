/* store.c - see store.h: the life of a store, and what the service calls. */
#include "store.h"

#include <errno.h>
#include <gnu/libc-version.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store_inside.h"

/* --- what the service calls: api_store --------------------------------------------------------------------- */

static void wake(struct srv_store *store, bool *why) {
    pthread_mutex_lock(&store->mutex);
    *why = true;
    pthread_cond_signal(&store->wake);
    pthread_mutex_unlock(&store->mutex);
}

static int store_append(void *self, const struct api_segment *segments, size_t n,
                        void (*done)(void *arg, bool durable), void *arg, uint64_t *seq,
                        struct nn_error *err) {
    struct srv_store *store = self;
    uint64_t size = 0;
    for (size_t i = 0; i < n; i++) size += segments[i].size;
    int code = srv_journal_append(store->journal, segments, n, done, arg, seq, err);
    if (code) return code;
    uint64_t most = store->options.checkpoint_bytes, before = atomic_fetch_add(&store->bytes, size);
    if (before < most && before + size >= most) wake(store, &store->full);
    return NN_OK;
}

static uint64_t store_last(void *self) {
    const struct srv_store *store = self;
    return srv_journal_last(store->journal);
}

static void store_want_checkpoint(void *self) {
    struct srv_store *store = self;
    wake(store, &store->wanted);
}

static size_t store_list(void *self, const char *model, const char *birth, struct api_stored *stored,
                         size_t room) {
    struct srv_store *store = self;
    size_t n = 0;
    pthread_mutex_lock(&store->mutex);
    const struct srv_stored_model *found = srv_checkpoint_find(store->newest, model);
    for (int i = 0; found && i < found->n && n < room; i++)
        if (strcmp(found->snapshots[i].birth, birth) == 0) stored[n++] = found->snapshots[i].told;
    pthread_mutex_unlock(&store->mutex);
    return n;
}

/* Finds the i-th snapshot of a model; with `version` -1 of any version, else of that one. */
static bool find_stored(struct srv_store *store, const char *model, const char *birth, int64_t version, int i,
                        struct srv_stored *stored) {
    bool found = false;
    pthread_mutex_lock(&store->mutex);
    const struct srv_stored_model *models = srv_checkpoint_find(store->newest, model);
    for (int k = 0; models && k < models->n && !found; k++) {
        const struct srv_stored *at = &models->snapshots[k];
        if (version >= 0 && at->told.version != (uint64_t)version) continue;
        if (strcmp(at->birth, birth) != 0) continue;
        found = i-- == 0;
        if (found) *stored = *at;
    }
    pthread_mutex_unlock(&store->mutex);
    return found;
}

static int store_read(void *self, const char *model, const char *birth, int64_t version, api_source_fn *take,
                      void *arg, struct nn_error *err) {
    struct srv_store *store = self;
    struct srv_stored stored;
    struct nn_error why = {0};
    for (int i = 0; find_stored(store, model, birth, version, i, &stored); i++) {
        char name[SRV_FILE_NAME];
        struct nn_error bad = {0};
        srv_snapshot_name(name, model, stored.number);
        if (srv_file_show(store->io, name, &stored.sum, take, arg, &bad) == NN_OK) return NN_OK;
        if (bad.code != NN_E_CORRUPT) return nn_fail(err, bad.code, "%s", bad.text);
        srv_store_say(store, "%s", bad.text);
        nn_fail(&why, NN_E_STORE, "%s", bad.text);
    }
    if (why.code) return nn_fail(err, why.code, "%s", why.text);
    if (version < 0) return nn_fail(err, NN_E_NOT_FOUND, "there is no snapshot of \"%s\" yet", model);
    return nn_fail(err, NN_E_NOT_FOUND, "there is no snapshot of \"%s\" at version %lld", model,
                   (long long)version);
}

static void store_status(void *self, struct api_store_status *status) {
    struct srv_store *store = self;
    srv_journal_status(store->journal, status);
    pthread_mutex_lock(&store->mutex);
    status->checkpoints = store->checkpoints;
    status->checkpoint_ms = store->checkpoint_ms;
    pthread_mutex_unlock(&store->mutex);
}

const struct api_store *srv_store_api(const struct srv_store *store) { return &store->api_store; }

bool srv_store_damaged(const struct srv_store *store) { return store->damaged; }

/* --- its life ---------------------------------------------------------------------------------------------- */

static void journal_failed(void *arg, const struct nn_error *err) {
    struct srv_store *store = arg;
    srv_store_say(store, "the store has failed, and changes are refused until a restart: %s", err->text);
    api_store_failed(store->api, err);
}

static void cond_init(pthread_cond_t *cond) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attributes);
    pthread_condattr_destroy(&attributes);
}

void srv_store_fingerprint(char text[SRV_FINGERPRINT]) {
    char computing[384];
    api_fingerprint(computing, sizeof computing);
    snprintf(text, SRV_FINGERPRINT, "%s; libc %s", computing, gnu_get_libc_version());
}

struct srv_store *srv_store_new(const struct srv_io *io, const struct srv_store_options *options,
                                struct nn_error *err) {
    struct srv_store *store = calloc(1, sizeof *store);
    if (!store) {
        nn_fail(err, NN_E_NOMEM, "no memory for a store");
        return NULL;
    }
    store->io = io;
    store->options = *options;
    store->api_store = (struct api_store){store,      store_append, store_last,  store_want_checkpoint,
                                          store_list, store_read,   store_status};
    pthread_mutex_init(&store->taking, NULL);
    pthread_mutex_init(&store->mutex, NULL);
    cond_init(&store->wake);
    srv_store_fingerprint(store->fingerprint);
    struct srv_journal_options journal = {
        .segment_bytes = options->segment_bytes,
        .fingerprint = store->fingerprint,
        .failed = journal_failed,
        .arg = store,
    };
    store->journal = srv_journal_new(io, &journal, err);
    if (store->journal) return store;
    srv_store_free(store);
    return NULL;
}

bool srv_store_commit(struct srv_store *store) { return srv_journal_commit(store->journal); }

int srv_store_checkpoint(struct srv_store *store, struct nn_error *err) {
    return srv_store_take(store, true, err);
}

static struct timespec after_ms(int64_t ms) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    time.tv_sec += ms / 1000;
    time.tv_nsec += ms % 1000 * 1000000;
    time.tv_sec += time.tv_nsec / 1000000000;
    time.tv_nsec %= 1000000000;
    return time;
}

/* Takes checkpoints. A failed one is not tried again at once, because its cause will persist, but when the next is due,
 * or somebody waits for one. */
static void *keep_taking(void *arg) {
    struct srv_store *store = arg;
    pthread_mutex_lock(&store->mutex);
    while (!store->stopping) {
        struct timespec until = after_ms(store->options.checkpoint_ms);
        int woken = 0;
        while (!store->stopping && !store->wanted && !store->full && woken != ETIMEDOUT)
            woken = pthread_cond_timedwait(&store->wake, &store->mutex, &until);
        if (store->stopping) break;
        bool wanted = store->wanted;
        store->wanted = store->full = false;
        pthread_mutex_unlock(&store->mutex);
        struct nn_error err = {0};
        if (srv_store_take(store, wanted, &err)) {
            srv_store_say(store, "a checkpoint failed: %s", err.text);
            if (wanted) api_checkpoint_failed(store->api, &err);
        }
        pthread_mutex_lock(&store->mutex);
    }
    pthread_mutex_unlock(&store->mutex);
    return NULL;
}

int srv_store_start(struct srv_store *store, bool wanted, struct nn_error *err) {
    int code = srv_journal_start(store->journal, err);
    if (code) return code;
    store->wanted = wanted;
    code = pthread_create(&store->thread, NULL, keep_taking, store);
    if (code) return nn_fail(err, NN_E_INTERNAL, "no thread for checkpoints: %s", strerror(code));
    store->threaded = true;
    return NN_OK;
}

static void stop_taking(struct srv_store *store) {
    if (!store->threaded) return;
    wake(store, &store->stopping);
    pthread_join(store->thread, NULL);
    store->threaded = false;
}

/* Writes clean-N, which tells the next start that nothing has happened since the newest checkpoint. */
static int mark_clean(struct srv_store *store, struct nn_error *err) {
    char name[SRV_FILE_NAME];
    struct srv_file_sum sum;
    srv_clean_name(name, store->newest->number);
    int code = srv_file_write(store->io, name, NULL, 0, &sum, err);
    return code ? code : srv_file_sync_names(store->io, err);
}

int srv_store_finish(struct srv_store *store, struct nn_error *err) {
    stop_taking(store);
    int code = srv_journal_wait(store->journal, srv_journal_last(store->journal), err);
    /* Stored keys have aged since, or expired: a checkpoint with keys is taken anew. */
    if (!code) code = srv_store_take(store, store->newest && store->newest->keys_number, err);
    srv_journal_stop(store->journal); /* the requests that wait for its records are answered now */
    if (!code) code = srv_journal_release(store->journal, err);
    return code ? code : mark_clean(store, err);
}

void srv_store_free(struct srv_store *store) {
    if (!store) return;
    stop_taking(store);
    srv_journal_free(store->journal);
    srv_checkpoint_free(store->newest);
    srv_checkpoint_free(store->older);
    pthread_mutex_destroy(&store->taking);
    pthread_mutex_destroy(&store->mutex);
    pthread_cond_destroy(&store->wake);
    free(store);
}
