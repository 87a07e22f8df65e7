/* journal.c - a store in memory. */
#include "journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int append(void *self, const struct api_segment *segments, size_t n,
                  void (*done)(void *arg, bool durable), void *arg, uint64_t *seq, struct nn_error *err) {
    struct test_journal *journal = self;
    if (journal->refuse) return nn_fail(err, NN_E_STORE, "the disk is full");
    struct test_record record = {.done = done, .arg = arg};
    for (size_t i = 0; i < n; i++) record.size += segments[i].size;
    record.bytes = malloc(record.size + 1);
    assert_non_null(record.bytes);
    for (size_t i = 0, at = 0; i < n; at += segments[i++].size)
        memcpy(record.bytes + at, segments[i].data, segments[i].size);
    pthread_mutex_lock(&journal->lock);
    assert_true(journal->n < TEST_MAX_RECORDS);
    journal->records[journal->n++] = record;
    *seq = journal->n;
    pthread_mutex_unlock(&journal->lock);
    if (!journal->hold) test_journal_sync(journal);
    return NN_OK;
}

void test_journal_sync(struct test_journal *journal) {
    for (;;) {
        pthread_mutex_lock(&journal->lock);
        struct test_record *record =
            journal->durable < journal->n ? &journal->records[journal->durable++] : NULL;
        pthread_mutex_unlock(&journal->lock);
        if (!record) return;
        void (*done)(void *arg, bool durable) = record->done;
        record->done = NULL;
        done(record->arg, !journal->fail);
    }
}

static uint64_t last(void *self) {
    struct test_journal *journal = self;
    pthread_mutex_lock(&journal->lock);
    uint64_t n = journal->n;
    pthread_mutex_unlock(&journal->lock);
    return n;
}

static void want_checkpoint(void *self) { ((struct test_journal *)self)->wanted++; }

static bool is_of(const struct test_saved *saved, const char *model, const char *birth) {
    return strcmp(saved->model, model) == 0 && strcmp(saved->birth, birth) == 0;
}

static size_t list(void *self, const char *model, const char *birth, struct api_stored *stored, size_t room) {
    struct test_journal *journal = self;
    size_t n = 0;
    pthread_mutex_lock(&journal->lock);
    for (size_t i = journal->n_saved; i-- > 0 && n < room;)
        if (is_of(&journal->saved[i], model, birth))
            stored[n++] = (struct api_stored){journal->saved[i].version, 0};
    pthread_mutex_unlock(&journal->lock);
    return n;
}

static int read_snapshot(void *self, const char *model, const char *birth, int64_t version,
                         api_source_fn *take, void *arg, struct nn_error *err) {
    struct test_journal *journal = self;
    const struct test_saved *found = NULL;
    pthread_mutex_lock(&journal->lock);
    for (size_t i = journal->n_saved; i-- > 0 && !found;) {
        const struct test_saved *saved = &journal->saved[i];
        if (is_of(saved, model, birth) && (version < 0 || saved->version == (uint64_t)version)) found = saved;
    }
    pthread_mutex_unlock(&journal->lock);
    if (!found) return nn_fail(err, NN_E_NOT_FOUND, "there is no such snapshot");
    struct api_source source = api_source_of(found->bytes, found->size);
    return take(arg, &source, err);
}

static void status(void *self, struct api_store_status *status) {
    struct test_journal *journal = self;
    *status = (struct api_store_status){.records = journal->n};
}

void test_journal_init(struct test_journal *journal) {
    memset(journal, 0, sizeof *journal);
    journal->store = (struct api_store){journal, append, last, want_checkpoint, list, read_snapshot, status};
    assert_int_equal(pthread_mutex_init(&journal->lock, NULL), 0);
}

void test_journal_fini(struct test_journal *journal) {
    for (size_t i = 0; i < journal->n; i++) free(journal->records[i].bytes);
    for (size_t i = 0; i < journal->n_saved; i++) free(journal->saved[i].bytes);
    free(journal->keys);
    pthread_mutex_destroy(&journal->lock);
}

/* --- checkpoints -------------------------------------------------------------------------------------- */

struct checkpoint {
    struct test_journal *journal;
    struct api *api;
};

static void save(void *arg, const char *name) {
    const struct checkpoint *checkpoint = arg;
    struct test_journal *journal = checkpoint->journal;
    struct nn_error err = {0};
    struct test_saved *newest = NULL;
    for (size_t i = 0; i < journal->n_saved; i++)
        if (strcmp(journal->saved[i].model, name) == 0) newest = &journal->saved[i];
    struct api_snapshot *snapshot = api_snapshot_take(checkpoint->api, name, newest ? newest->birth : NULL,
                                                      newest ? newest->changes : 0, &err);
    assert_non_null(snapshot);
    if (newest && snapshot->unchanged) {
        newest->seq = snapshot->seq;
    } else {
        struct test_saved *saved = &journal->saved[journal->n_saved];
        memcpy(saved->model, snapshot->model, sizeof saved->model);
        memcpy(saved->birth, snapshot->birth, sizeof saved->birth);
        saved->seq = snapshot->seq;
        saved->changes = snapshot->changes;
        saved->version = snapshot->version;
        saved->size = snapshot->size;
        assert_non_null(saved->bytes = malloc(snapshot->size));
        size_t at = 0;
        for (size_t i = 0; i < snapshot->n_segments; at += snapshot->segments[i++].size)
            memcpy(saved->bytes + at, snapshot->segments[i].data, snapshot->segments[i].size);
        assert_int_equal(at, snapshot->size);
        pthread_mutex_lock(&journal->lock);
        journal->n_saved++;
        pthread_mutex_unlock(&journal->lock);
    }
    api_snapshot_durable(checkpoint->api, snapshot);
    api_snapshot_free(snapshot);
}

void test_journal_checkpoint(struct test_journal *journal, struct api *api) {
    struct checkpoint checkpoint = {journal, api};
    struct nn_error err = {0};
    assert_int_equal(api_models_stored(api, save, &checkpoint, &err), NN_OK);
    free(journal->keys);
    assert_int_equal(api_keys_save(api, &journal->keys, &journal->keys_size, &err), NN_OK);
}

int test_journal_recover(struct test_journal *journal, struct api *api, bool snapshots, size_t n,
                         struct nn_error *err) {
    api_recover_begin(api);
    for (size_t i = 0; i < journal->n_saved && snapshots; i++) {
        const struct test_saved *saved = &journal->saved[i];
        bool newest = true;
        for (size_t k = i + 1; k < journal->n_saved; k++)
            newest &= strcmp(journal->saved[k].model, saved->model) != 0;
        struct api_source source = api_source_of(saved->bytes, saved->size);
        if (newest && api_recover_model(api, &source, saved->seq, err)) return (int)err->code;
    }
    uint64_t covered = UINT64_MAX; /* by all snapshots */
    for (size_t i = 0; i < journal->n_saved && snapshots; i++)
        if (journal->saved[i].seq < covered) covered = journal->saved[i].seq;
    for (size_t i = covered == UINT64_MAX ? 0 : (size_t)covered; i < n; i++)
        if (api_recover_record(api, i + 1, journal->records[i].bytes, journal->records[i].size, 0, err))
            return (int)err->code;
    if (snapshots && journal->keys_size && api_recover_keys(api, journal->keys, journal->keys_size, n, err))
        return (int)err->code;
    return api_recover_end(api, false, err);
}

void test_recovered_start(struct test_recovered *recovered, struct test_journal *journal,
                          struct test_service *before, bool snapshots, size_t n) {
    struct nn_error err = {0};
    test_journal_init(&recovered->journal);
    test_service_start_stored(&recovered->service, NULL, 0, &recovered->journal.store);
    atomic_store(&recovered->service.now_ms, atomic_load(&before->now_ms));
    if (test_journal_recover(journal, recovered->service.api, snapshots, n, &err)) fail_msg("%s", err.text);
}

void test_recovered_stop(struct test_recovered *recovered) {
    test_service_stop(&recovered->service);
    test_journal_fini(&recovered->journal);
}
