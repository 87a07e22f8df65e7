/* journal.c - see journal.h: appending. To append is to take a number and a place in a file; the bytes are summed
 * and written by whoever commits, all that wait at once, and synced once for all.
 *
 * A new file's header and name are made durable before a frame is written to it. So a file whose header is bad and
 * which holds anything else was damaged, and one that holds nothing was never used. */
#include "journal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "segment.h"

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

void srv_segment_name(char name[SRV_NAME_SIZE], const struct srv_segment *segment) {
    snprintf(name, SRV_NAME_SIZE, SRV_JOURNAL_PREFIX "%020" PRIu64, segment->first);
}

/* --- the files ------------------------------------------------------------------------------------------- */

struct listing {
    struct srv_journal *journal;
    bool failed;
};

static void list_segment(void *arg, const char *name) {
    struct listing *listing = arg;
    const size_t prefix = sizeof SRV_JOURNAL_PREFIX - 1;
    if (strncmp(name, SRV_JOURNAL_PREFIX, prefix) != 0 || strlen(name) != prefix + 20 ||
        strspn(name + prefix, "0123456789") != 20)
        return;
    struct srv_segment *segment = calloc(1, sizeof *segment);
    if (!segment) {
        listing->failed = true;
        return;
    }
    *segment = (struct srv_segment){.first = strtoull(name + prefix, NULL, 10), .file = -1};
    struct srv_segment **at = &listing->journal->oldest;
    while (*at && (*at)->first < segment->first) at = &(*at)->next;
    segment->next = *at;
    *at = segment;
}

static int find_segments(struct srv_journal *journal, struct nn_error *err) {
    struct listing listing = {.journal = journal};
    const struct srv_io *io = journal->io;
    int code = io->list(io->self, list_segment, &listing);
    if (code) return nn_fail(err, NN_E_STORE, "the directory cannot be listed: %s", strerror(-code));
    if (listing.failed) return nn_fail(err, NN_E_NOMEM, "no memory for a journal");
    for (struct srv_segment *segment = journal->oldest; segment; segment = segment->next) {
        char name[SRV_NAME_SIZE];
        srv_segment_name(name, segment);
        int file = io->open(io->self, name);
        int64_t size = file < 0 ? file : io->size(io->self, file);
        if (file >= 0) io->close(io->self, file);
        if (size < 0) return nn_fail(err, NN_E_STORE, "%s: %s", name, strerror((int)-size));
        segment->size = (uint64_t)size;
    }
    return NN_OK;
}

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
    if (find_segments(journal, err) == NN_OK) return journal;
    srv_journal_free(journal);
    return NULL;
}

static int remove_segment(const struct srv_journal *journal, const struct srv_segment *segment) {
    char name[SRV_NAME_SIZE];
    srv_segment_name(name, segment);
    return journal->io->remove(journal->io->self, name);
}

static void close_segment(struct srv_journal *journal, struct srv_segment *segment) {
    if (segment->file >= 0) journal->io->close(journal->io->self, segment->file);
    segment->file = -1;
}

uint64_t srv_journal_first(const struct srv_journal *journal) {
    return journal->oldest ? journal->oldest->first : 0;
}

int srv_journal_begin(struct srv_journal *journal, uint64_t last, bool read_only, struct nn_error *err) {
    journal->last = journal->durable = last;
    if (read_only) return NN_OK;
    struct srv_segment **at = &journal->oldest;
    while (*at && (*at)->first <= last) at = &(*at)->next;
    int code = 0;
    while (*at && !code) {
        struct srv_segment *segment = *at;
        if ((code = remove_segment(journal, segment))) break;
        *at = segment->next;
        free(segment);
    }
    if (!code) code = journal->io->sync_directory(journal->io->self);
    return code ? nn_fail(err, NN_E_STORE, "the journal cannot be begun: %s", strerror(-code)) : NN_OK;
}

/* Makes the file that the next record goes to, with room for it. The mutex is held. */
static int add_segment(struct srv_journal *journal, uint64_t room, struct nn_error *err) {
    const struct srv_io *io = journal->io;
    char name[SRV_NAME_SIZE];
    uint64_t size = journal->options.segment_bytes;
    if (room > UINT64_MAX / 2) return nn_fail(err, NN_E_SIZE, "a record of this size cannot be stored");
    if (size < SRV_JOURNAL_HEADER + room) size = SRV_JOURNAL_HEADER + room;
    struct srv_segment *segment = calloc(1, sizeof *segment);
    if (!segment) return nn_fail(err, NN_E_NOMEM, "no memory for a journal's file");
    *segment = (struct srv_segment){.first = journal->last + 1, .size = size, .used = SRV_JOURNAL_HEADER};
    if (getrandom(&segment->salt, sizeof segment->salt, 0) != sizeof segment->salt)
        segment->salt = (uint64_t)time(NULL) ^ segment->first << 32;
    srv_segment_name(name, segment);
    segment->file = io->create(io->self, name);
    if (segment->file == -EEXIST && io->remove(io->self, name) == 0) /* left by an attempt that failed */
        segment->file = io->create(io->self, name);
    bool made = segment->file >= 0;
    int code = made ? io->reserve(io->self, segment->file, size) : segment->file;
    if (code) {
        close_segment(journal, segment);
        if (made) io->remove(io->self, name);
        free(segment);
        return nn_fail(err, NN_E_STORE, "no room for changes in the journal: %s", strerror(-code));
    }
    struct srv_segment **end = journal->current ? &journal->current->next : &journal->oldest;
    while (*end) end = &(*end)->next;
    *end = segment;
    if (journal->current && journal->current->pending == 0) close_segment(journal, journal->current);
    journal->current = segment;
    return NN_OK;
}

void srv_journal_forget(struct srv_journal *journal, uint64_t seq) {
    for (;;) {
        pthread_mutex_lock(&journal->mutex);
        struct srv_segment *segment = journal->oldest;
        if (!segment || !segment->next || segment->next->first > seq + 1 || segment->pending ||
            segment == journal->current) {
            pthread_mutex_unlock(&journal->mutex);
            return;
        }
        journal->oldest = segment->next;
        pthread_mutex_unlock(&journal->mutex);
        /* If it stays, the next start finds it again. */
        (void)remove_segment(journal, segment);
        free(segment);
    }
}

/* --- appending ------------------------------------------------------------------------------------------- */

int srv_journal_append(struct srv_journal *journal, const struct api_segment *segments, size_t n,
                       void (*done)(void *arg, bool durable), void *arg, uint64_t *seq,
                       struct nn_error *err) {
    uint64_t size = 0;
    for (size_t i = 0; i < n; i++) size += segments[i].size; /* they are in memory, so their sum is a size */
    uint64_t room = srv_frame_room(size);
    struct srv_entry *entry = malloc(sizeof *entry);
    if (!entry) return nn_fail(err, NN_E_NOMEM, "no memory for a record");

    pthread_mutex_lock(&journal->mutex);
    int code = NN_OK;
    if (journal->failure.code)
        code = nn_fail(err, NN_E_STORE, "%s; a restart is needed", journal->failure.text);
    else if (!journal->current || journal->current->size - journal->current->used < room)
        code = add_segment(journal, room, err);
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

/* What is to be written to one file in one call. */
struct batch {
    struct srv_journal *journal;
    struct srv_segment *segment;
    struct iovec parts[256];
    int n;
    uint64_t offset, size;
};

static int fail_write(struct nn_error *err, const struct srv_segment *segment, const char *what, int code) {
    char name[SRV_NAME_SIZE];
    srv_segment_name(name, segment);
    return nn_fail(err, NN_E_STORE, "%s cannot be %s: %s", name, what, strerror(-code));
}

static int write_batch(struct batch *batch, struct nn_error *err) {
    const struct srv_io *io = batch->journal->io;
    if (batch->n == 0) return NN_OK;
    assert(batch->segment);
    int code = io->write(io->self, batch->segment->file, batch->parts, batch->n, batch->offset);
    if (code) return fail_write(err, batch->segment, "written", code);
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

/* Makes a new file one that records may be written to. */
static int begin_segment(struct srv_journal *journal, struct srv_segment *segment, struct nn_error *err) {
    const struct srv_io *io = journal->io;
    struct srv_journal_header header;
    if (segment->begun) return NN_OK;
    srv_journal_header_init(&header, segment->first, segment->salt, journal->fingerprint);
    int code = io->write(io->self, segment->file, &(struct iovec){&header, sizeof header}, 1, 0);
    if (code) return fail_write(err, segment, "written", code);
    if ((code = io->sync(io->self, segment->file)) || (code = io->sync_directory(io->self)))
        return fail_write(err, segment, "synced", code);
    segment->begun = true;
    return NN_OK;
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

/* Writes these records, and syncs the files that they are in. */
static int write_entries(struct srv_journal *journal, struct srv_entry *entries, uint64_t durable,
                         struct nn_error *err) {
    struct batch batch = {.journal = journal};
    int code = NN_OK;
    for (struct srv_entry *entry = entries; entry && !code; entry = entry->next) {
        if (!batch.segment || entry->segment != batch.segment) {
            if ((code = write_batch(&batch, err)) || (code = begin_segment(journal, entry->segment, err)))
                break;
            batch.segment = entry->segment;
            batch.offset = entry->offset;
        }
        code = write_entry(&batch, entry, durable, err);
    }
    if (!code) code = write_batch(&batch, err);

    const struct srv_segment *synced = NULL;
    for (const struct srv_entry *entry = entries; entry && !code; entry = entry->next) {
        if (synced && entry->segment == synced) continue;
        synced = entry->segment;
        int failed = journal->io->sync(journal->io->self, synced->file);
        if (failed) code = fail_write(err, synced, "synced", failed);
    }
    return code;
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Publishes how a commit went; whether it is the first that failed. */
static bool publish(struct srv_journal *journal, struct srv_entry *entries, uint64_t took_ns,
                    const struct nn_error *err) {
    pthread_mutex_lock(&journal->mutex);
    bool failed_now = err->code && !journal->failure.code;
    if (failed_now) journal->failure = *err;
    journal->counts.syncs++;
    journal->counts.sync_ns += took_ns;
    for (struct srv_entry *entry = entries; entry; entry = entry->next) {
        struct srv_segment *segment = entry->segment;
        if (--segment->pending == 0 && segment != journal->current) close_segment(journal, segment);
        if (!err->code) journal->durable = entry->frame.seq;
        journal->counts.waiting--;
    }
    pthread_cond_broadcast(&journal->committed);
    pthread_mutex_unlock(&journal->mutex);
    return failed_now;
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
    if (!err.code) write_entries(journal, entries, durable, &err);
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

static void *commit_all(void *arg) {
    struct srv_journal *journal = arg;
    pthread_mutex_lock(&journal->mutex);
    for (;;) {
        while (!journal->queue && !journal->stopping) pthread_cond_wait(&journal->appended, &journal->mutex);
        if (journal->stopping) break;
        pthread_mutex_unlock(&journal->mutex);
        srv_journal_commit(journal);
        pthread_mutex_lock(&journal->mutex);
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
    while (journal->durable < seq && !journal->failure.code)
        pthread_cond_wait(&journal->committed, &journal->mutex);
    int code = journal->durable < seq ? nn_fail(err, NN_E_STORE, "%s", journal->failure.text) : NN_OK;
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
        close_segment(journal, segment);
        free(segment);
    }
    pthread_mutex_destroy(&journal->mutex);
    pthread_cond_destroy(&journal->appended);
    pthread_cond_destroy(&journal->committed);
    XXH3_freeState(journal->sums);
    free(journal);
}
