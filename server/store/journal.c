/* journal.c - see journal.h: appending. An append takes a number and a place in a file. The thread that commits
 * computes the sums, writes all waiting records, and syncs once. */
#include "journal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "segment.h"

#define RETRY_NS 250000000 /* pause between tries to write to a full disk */

/* A record that waits to be written. */
struct srv_entry {
    struct srv_entry *next;
    struct srv_segment *segment;
    uint64_t offset;
    struct srv_frame frame;
    const struct api_segment *parts;
    size_t n;
    void (*done)(void *arg, bool durable);
    void *arg;
};

struct srv_journal *srv_journal_new(const struct srv_io *io, const struct srv_journal_options *options,
                                    struct nn_error *err) {
    struct srv_journal *journal = calloc(1, sizeof *journal);
    XXH3_state_t *sums = XXH3_createState();
    if (!journal || !sums) {
        nn_fail(err, NN_E_NOMEM, "no memory for a journal");
        free(journal);
        XXH3_freeState(sums);
        return NULL;
    }
    *journal = (struct srv_journal){.io = io, .options = *options, .sums = sums};
    journal->options.fingerprint = NULL;
    journal->queue_end = &journal->queue;
    snprintf(journal->fingerprint, sizeof journal->fingerprint, "%s", options->fingerprint);
    pthread_mutex_init(&journal->mutex, NULL);
    pthread_cond_init(&journal->appended, NULL);
    pthread_cond_init(&journal->committed, NULL);
    if (srv_segments_find(journal, err) == NN_OK) return journal;
    srv_journal_free(journal);
    return NULL;
}

/* --- appending ------------------------------------------------------------------------------------------- */

int srv_journal_append(struct srv_journal *journal, const struct api_segment *segments, size_t n,
                       void (*done)(void *arg, bool durable), void *arg, uint64_t *seq,
                       struct nn_error *err) {
    uint64_t size = 0;
    for (size_t i = 0; i < n; i++)
        size += segments[i].size; /* the segments are in memory, so the sum fits size_t */
    uint64_t room = srv_frame_room(size);
    struct srv_entry *entry = malloc(sizeof *entry);
    if (!entry) return nn_fail(err, NN_E_NOMEM, "no memory for a record");

    pthread_mutex_lock(&journal->mutex);
    int code = NN_OK;
    if (journal->failure.code)
        code = nn_fail(err, NN_E_STORE, "%s; a restart is needed", journal->failure.text);
    else if (journal->full.code)
        code = nn_fail(err, NN_E_STORE, "no room for changes in the journal: %s", journal->full.text);
    else if (!journal->current || journal->current->size - journal->current->used < room)
        code = srv_segment_add(journal, room, err);
    if (code) {
        pthread_mutex_unlock(&journal->mutex);
        free(entry);
        return code;
    }
    struct srv_segment *segment = journal->current;
    *entry = (struct srv_entry){
        .segment = segment,
        .offset = segment->used,
        .frame = {.seq = ++journal->last, .size = size},
        .parts = segments,
        .n = n,
        .done = done,
        .arg = arg,
    };
    *seq = journal->last;
    segment->used += room;
    segment->pending++;
    *journal->queue_end = entry;
    journal->queue_end = &entry->next;
    journal->counts.records++;
    journal->counts.bytes += size;
    journal->counts.waiting++;
    pthread_cond_signal(&journal->appended);
    pthread_mutex_unlock(&journal->mutex);
    return NN_OK;
}

uint64_t srv_journal_last(struct srv_journal *journal) {
    pthread_mutex_lock(&journal->mutex);
    uint64_t last = journal->last;
    pthread_mutex_unlock(&journal->mutex);
    return last;
}

void srv_journal_status(struct srv_journal *journal, struct api_store_status *status) {
    pthread_mutex_lock(&journal->mutex);
    uint64_t checkpoints = status->checkpoints, checkpoint_ms = status->checkpoint_ms;
    *status = journal->counts;
    status->checkpoints = checkpoints;
    status->checkpoint_ms = checkpoint_ms;
    status->failed = journal->failure.code != NN_OK;
    for (const struct srv_segment *segment = journal->oldest; segment; segment = segment->next)
        status->journal_bytes += segment->size;
    pthread_mutex_unlock(&journal->mutex);
}

/* --- committing ------------------------------------------------------------------------------------------ */

/* The parts of one write to one file. */
struct batch {
    struct srv_journal *journal;
    struct srv_segment *segment;
    struct iovec parts[256];
    int n;
    uint64_t offset, size;
    bool full; /* the failure was lack of room */
};

static int write_batch(struct batch *batch, struct nn_error *err) {
    const struct srv_io *io = batch->journal->io;
    if (batch->n == 0) return NN_OK;
    assert(batch->segment);
    int code = io->write(io->self, batch->segment->file, batch->parts, batch->n, batch->offset);
    batch->full = srv_io_is_full(code);
    if (code) return srv_segment_fail(err, batch->segment, "written", code);
    batch->offset += batch->size;
    batch->size = 0;
    batch->n = 0;
    return NN_OK;
}

static int add_part(struct batch *batch, const void *data, size_t size, struct nn_error *err) {
    if (size == 0) return NN_OK;
    int code = batch->n == sizeof batch->parts / sizeof batch->parts[0] ? write_batch(batch, err) : NN_OK;
    batch->parts[batch->n++] = (struct iovec){(void *)(uintptr_t)data, size};
    batch->size += size;
    return code;
}

static int write_entry(struct batch *batch, struct srv_entry *entry, uint64_t durable, struct nn_error *err) {
    static const char zeros[8];
    uint64_t salt = entry->segment->salt;
    XXH3_state_t *sums = batch->journal->sums;
    XXH3_64bits_reset_withSeed(sums, salt);
    for (size_t i = 0; i < entry->n; i++)
        XXH3_64bits_update(sums, entry->parts[i].data, entry->parts[i].size);
    entry->frame.sum = XXH3_64bits_digest(sums);
    entry->frame.durable = durable;
    srv_frame_seal(&entry->frame, salt);

    int code = add_part(batch, &entry->frame, sizeof entry->frame, err);
    for (size_t i = 0; i < entry->n && !code; i++)
        code = add_part(batch, entry->parts[i].data, entry->parts[i].size, err);
    if (!code) code = add_part(batch, zeros, -entry->frame.size & 7, err);
    return code;
}

/* Writes these records and syncs their files. Where *full, it may be called again with the same records. */
static int write_entries(struct srv_journal *journal, struct srv_entry *entries, uint64_t durable, bool *full,
                         struct nn_error *err) {
    struct batch batch = {.journal = journal};
    int code = NN_OK;
    for (struct srv_entry *entry = entries; entry && !code; entry = entry->next) {
        if (!batch.segment || entry->segment != batch.segment) {
            if ((code = write_batch(&batch, err)) ||
                (code = srv_segment_begin(journal, entry->segment, &batch.full, err)))
                break;
            batch.segment = entry->segment;
            batch.offset = entry->offset;
        }
        code = write_entry(&batch, entry, durable, err);
    }
    if (!code) code = write_batch(&batch, err);
    *full = batch.full;

    const struct srv_segment *synced = NULL;
    for (const struct srv_entry *entry = entries; entry && !code; entry = entry->next) {
        if (synced && entry->segment == synced) continue;
        synced = entry->segment;
        int failed = journal->io->sync(journal->io->self, synced->file);
        if (failed) code = srv_segment_fail(err, synced, "synced", failed);
    }
    return code;
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Publishes the result of a commit. True: it is the first failure. */
static bool publish(struct srv_journal *journal, struct srv_entry *entries, uint64_t took_ns,
                    const struct nn_error *err) {
    pthread_mutex_lock(&journal->mutex);
    bool failed_now = err->code && !journal->failure.code;
    if (failed_now) journal->failure = *err;
    journal->full = (struct nn_error){0};
    journal->tries++;
    journal->counts.syncs++;
    journal->counts.sync_ns += took_ns;
    for (struct srv_entry *entry = entries; entry; entry = entry->next) {
        struct srv_segment *segment = entry->segment;
        if (--segment->pending == 0 && segment != journal->current) srv_segment_close(journal, segment);
        if (!err->code) journal->durable = entry->frame.seq;
        journal->counts.waiting--;
    }
    pthread_cond_broadcast(&journal->committed);
    pthread_mutex_unlock(&journal->mutex);
    return failed_now;
}

/* Puts records back in front of those that were appended meanwhile. */
static void put_back(struct srv_journal *journal, struct srv_entry *entries, const struct nn_error *full) {
    struct srv_entry **end = &entries->next;
    while (*end) end = &(*end)->next;
    pthread_mutex_lock(&journal->mutex);
    *end = journal->queue;
    if (!journal->queue) journal->queue_end = end;
    journal->queue = entries;
    journal->full = *full;
    journal->tries++;
    pthread_cond_broadcast(&journal->committed);
    pthread_mutex_unlock(&journal->mutex);
}

bool srv_journal_commit(struct srv_journal *journal) {
    pthread_mutex_lock(&journal->mutex);
    struct srv_entry *entries = journal->queue;
    journal->queue = NULL;
    journal->queue_end = &journal->queue;
    uint64_t durable = journal->durable;
    struct nn_error err = journal->failure;
    pthread_mutex_unlock(&journal->mutex);
    if (!entries) return false;

    uint64_t begun = now_ns();
    bool full = false;
    if (!err.code) write_entries(journal, entries, durable, &full, &err);
    if (full) {
        put_back(journal, entries, &err);
        return false;
    }
    bool failed_now = publish(journal, entries, now_ns() - begun, &err);
    if (failed_now && journal->options.failed) journal->options.failed(journal->options.arg, &err);
    while (entries) {
        struct srv_entry *entry = entries;
        entries = entry->next;
        entry->done(entry->arg, err.code == NN_OK);
        free(entry);
    }
    return true;
}

/* Waits until there may be room again, or somebody asks for a try. */
static void wait_for_room(struct srv_journal *journal) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += RETRY_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_clockwait(&journal->appended, &journal->mutex, CLOCK_MONOTONIC, &until);
}

static void *commit_all(void *arg) {
    struct srv_journal *journal = arg;
    pthread_mutex_lock(&journal->mutex);
    for (;;) {
        while (!journal->queue && !journal->stopping) pthread_cond_wait(&journal->appended, &journal->mutex);
        if (journal->stopping) break;
        pthread_mutex_unlock(&journal->mutex);
        srv_journal_commit(journal);
        pthread_mutex_lock(&journal->mutex);
        if (journal->full.code && !journal->stopping) wait_for_room(journal);
    }
    pthread_mutex_unlock(&journal->mutex);
    return NULL;
}

int srv_journal_start(struct srv_journal *journal, struct nn_error *err) {
    int code = pthread_create(&journal->thread, NULL, commit_all, journal);
    if (code) return nn_fail(err, NN_E_INTERNAL, "no thread for the journal: %s", strerror(code));
    journal->threaded = true;
    return NN_OK;
}

int srv_journal_wait(struct srv_journal *journal, uint64_t seq, struct nn_error *err) {
    if (!journal->threaded)
        while (srv_journal_commit(journal)) continue;
    pthread_mutex_lock(&journal->mutex);
    uint64_t tries = journal->tries;
    bool tried = !journal->threaded;
    while (journal->durable < seq && !journal->failure.code && !(journal->full.code && tried)) {
        if (journal->full.code) pthread_cond_signal(&journal->appended);
        pthread_cond_wait(&journal->committed, &journal->mutex);
        tried = journal->tries != tries;
    }
    const struct nn_error *why = journal->failure.code ? &journal->failure : &journal->full;
    int code = journal->durable < seq ? nn_fail(err, NN_E_STORE, "%s", why->text) : NN_OK;
    pthread_mutex_unlock(&journal->mutex);
    return code;
}

void srv_journal_stop(struct srv_journal *journal) {
    if (!journal->threaded) return;
    pthread_mutex_lock(&journal->mutex);
    journal->stopping = true;
    pthread_cond_signal(&journal->appended);
    pthread_mutex_unlock(&journal->mutex);
    pthread_join(journal->thread, NULL);
    journal->threaded = false;
}

void srv_journal_free(struct srv_journal *journal) {
    if (!journal) return;
    srv_journal_stop(journal);
    for (struct srv_entry *entry = journal->queue, *next; entry; entry = next) {
        next = entry->next;
        entry->done(entry->arg, false);
        free(entry);
    }
    for (struct srv_segment *segment = journal->oldest, *next; segment; segment = next) {
        next = segment->next;
        srv_segment_close(journal, segment);
        free(segment);
    }
    pthread_mutex_destroy(&journal->mutex);
    pthread_cond_destroy(&journal->appended);
    pthread_cond_destroy(&journal->committed);
    XXH3_freeState(journal->sums);
    free(journal);
}
