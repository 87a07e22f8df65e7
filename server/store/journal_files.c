/* journal_files.c - see journal.h: making, beginning and removing the journal's files.
 *
 * A file is begun before its first frame is written: its header, its size and its name are made durable, then the name
 * begun-N. So if the file that begun-N names is missing, has a bad header, or is shorter than it was made, it was
 * damaged; and a file with a higher number has no frames yet. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "segment.h"

#define DIGITS 20

void srv_segment_name(char name[SRV_NAME_SIZE], const struct srv_segment *segment) {
    snprintf(name, SRV_NAME_SIZE, SRV_JOURNAL_PREFIX "%0*" PRIu64, DIGITS, segment->first);
}

static void begun_name(char name[SRV_NAME_SIZE], uint64_t first) {
    snprintf(name, SRV_NAME_SIZE, SRV_BEGUN_PREFIX "%0*" PRIu64, DIGITS, first);
}

/* The number in a name made of this prefix and digits. 0: it is no such name. */
static uint64_t number_of(const char *name, const char *prefix) {
    size_t length = strlen(prefix);
    if (strncmp(name, prefix, length) != 0 || strlen(name) != length + DIGITS ||
        strspn(name + length, "0123456789") != DIGITS)
        return 0;
    return strtoull(name + length, NULL, 10);
}

/* --- those that are there ---------------------------------------------------------------------------------- */

struct listing {
    struct srv_journal *journal;
    bool failed;
};

static void list_segment(void *arg, const char *name) {
    struct listing *listing = arg;
    struct srv_journal *journal = listing->journal;
    uint64_t begun = number_of(name, SRV_BEGUN_PREFIX), first = number_of(name, SRV_JOURNAL_PREFIX);
    if (begun > journal->begun) journal->begun = begun;
    if (first == 0) return;
    struct srv_segment *segment = calloc(1, sizeof *segment);
    if (!segment) {
        listing->failed = true;
        return;
    }
    *segment = (struct srv_segment){.first = first, .file = -1};
    struct srv_segment **at = &journal->oldest;
    while (*at && (*at)->first < segment->first) at = &(*at)->next;
    segment->next = *at;
    *at = segment;
}

int srv_segments_find(struct srv_journal *journal, struct nn_error *err) {
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

uint64_t srv_journal_first(const struct srv_journal *journal) {
    return journal->oldest ? journal->oldest->first : 0;
}

/* --- those that nobody needs ------------------------------------------------------------------------------- */

static int remove_segment(const struct srv_journal *journal, const struct srv_segment *segment) {
    char name[SRV_NAME_SIZE];
    srv_segment_name(name, segment);
    return journal->io->remove(journal->io->self, name);
}

struct search {
    uint64_t keep, found;
};

static void note_begun(void *arg, const char *name) {
    struct search *search = arg;
    uint64_t begun = number_of(name, SRV_BEGUN_PREFIX);
    if (begun != 0 && begun != search->keep) search->found = begun;
}

/* Removes all names begun-N but the one with this number. */
static int drop_begun(struct srv_journal *journal, uint64_t keep) {
    const struct srv_io *io = journal->io;
    bool dropped = false;
    for (;;) {
        struct search search = {.keep = keep};
        char name[SRV_NAME_SIZE];
        int code = io->list(io->self, note_begun, &search);
        if (code) return code;
        if (search.found == 0) break;
        begun_name(name, search.found);
        if ((code = io->remove(io->self, name))) return code;
        dropped = true;
    }
    if (journal->begun != keep) journal->begun = 0;
    return dropped ? io->sync_directory(io->self) : 0;
}

int srv_journal_release(struct srv_journal *journal, struct nn_error *err) {
    int code = drop_begun(journal, 0);
    return code ? nn_fail(err, NN_E_STORE, "the journal cannot be closed: %s", strerror(-code)) : NN_OK;
}

int srv_journal_begin(struct srv_journal *journal, uint64_t last, bool read_only, struct nn_error *err) {
    journal->last = journal->durable = last;
    if (read_only) return NN_OK;
    struct srv_segment **at = &journal->oldest;
    while (*at && (*at)->first <= last) at = &(*at)->next;
    int code = drop_begun(journal, journal->begun <= last ? journal->begun : 0);
    while (*at && !code) {
        struct srv_segment *segment = *at;
        if ((code = remove_segment(journal, segment))) break;
        *at = segment->next;
        free(segment);
    }
    if (!code) code = journal->io->sync_directory(journal->io->self);
    return code ? nn_fail(err, NN_E_STORE, "the journal cannot be begun: %s", strerror(-code)) : NN_OK;
}

void srv_journal_forget(struct srv_journal *journal, uint64_t seq) {
    for (;;) {
        pthread_mutex_lock(&journal->mutex);
        struct srv_segment *segment = journal->oldest;
        if (!segment || !segment->next || segment->next->first > seq + 1 || segment->pending ||
            segment == journal->current || segment->first == journal->begun) {
            pthread_mutex_unlock(&journal->mutex);
            return;
        }
        journal->oldest = segment->next;
        pthread_mutex_unlock(&journal->mutex);
        /* If removing fails, the next start finds the file again. */
        (void)remove_segment(journal, segment);
        free(segment);
    }
}

/* --- new ones ---------------------------------------------------------------------------------------------- */

void srv_segment_close(const struct srv_journal *journal, struct srv_segment *segment) {
    if (segment->file >= 0) journal->io->close(journal->io->self, segment->file);
    segment->file = -1;
}

int srv_segment_add(struct srv_journal *journal, uint64_t room, struct nn_error *err) {
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
    if (segment->file == -EEXIST && io->remove(io->self, name) == 0) /* left by a failed attempt */
        segment->file = io->create(io->self, name);
    bool made = segment->file >= 0;
    int code = made ? io->reserve(io->self, segment->file, size) : segment->file;
    if (code) {
        srv_segment_close(journal, segment);
        if (made) io->remove(io->self, name);
        free(segment);
        return nn_fail(err, NN_E_STORE, "no room for changes in the journal: %s", strerror(-code));
    }
    struct srv_segment **end = journal->current ? &journal->current->next : &journal->oldest;
    while (*end) end = &(*end)->next;
    *end = segment;
    if (journal->current && journal->current->pending == 0) srv_segment_close(journal, journal->current);
    journal->current = segment;
    return NN_OK;
}

int srv_segment_fail(struct nn_error *err, const struct srv_segment *segment, const char *what, int code) {
    char name[SRV_NAME_SIZE];
    srv_segment_name(name, segment);
    return nn_fail(err, NN_E_STORE, "%s cannot be %s: %s", name, what, strerror(-code));
}

/* Renames begun-N to this file's number, in one step. */
static int name_begun(struct srv_journal *journal, const struct srv_segment *segment) {
    const struct srv_io *io = journal->io;
    char name[SRV_NAME_SIZE], before[SRV_NAME_SIZE];
    begun_name(name, segment->first);
    if (journal->begun) {
        begun_name(before, journal->begun);
        return io->rename(io->self, before, name);
    }
    int file = io->create(io->self, name);
    if (file < 0) return file == -EEXIST ? 0 : file;
    io->close(io->self, file);
    return 0;
}

int srv_segment_begin(struct srv_journal *journal, struct srv_segment *segment, bool *full,
                      struct nn_error *err) {
    const struct srv_io *io = journal->io;
    struct srv_journal_header header;
    if (segment->begun) return NN_OK;
    srv_journal_header_init(&header, segment->first, segment->salt, segment->size, journal->fingerprint);
    int code = io->write(io->self, segment->file, &(struct iovec){&header, sizeof header}, 1, 0);
    *full = srv_io_is_full(code);
    if (code) return srv_segment_fail(err, segment, "written", code);
    if ((code = io->sync(io->self, segment->file)) || (code = io->sync_directory(io->self)))
        return srv_segment_fail(err, segment, "synced", code);
    code = name_begun(journal, segment);
    *full = srv_io_is_full(code);
    if (code) return srv_segment_fail(err, segment, "begun", code);
    if ((code = io->sync_directory(io->self))) return srv_segment_fail(err, segment, "synced", code);
    pthread_mutex_lock(&journal->mutex);
    journal->begun = segment->first;
    pthread_mutex_unlock(&journal->mutex);
    segment->begun = true;
    return NN_OK;
}
