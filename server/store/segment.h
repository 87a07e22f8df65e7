/* segment.h - the inside of a journal: journal.c appends, journal_files.c makes and removes files, journal_read.c reads
 * them. */
#ifndef SRV_SEGMENT_H
#define SRV_SEGMENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <xxhash.h>

#include "frame.h"
#include "journal.h"

#define SRV_JOURNAL_PREFIX "journal-"
#define SRV_BEGUN_PREFIX   "begun-" /* an empty file: the newest journal file with records has this number */

/* A file of the journal. */
struct srv_segment {
    struct srv_segment *next; /* the file with the next higher number */
    uint64_t first;           /* the number of the first record */
    uint64_t size;
    /* Only of a file that this process made: */
    uint64_t salt, used;
    size_t pending; /* records that were appended and are not durable yet */
    int file;       /* -1: closed */
    bool begun;     /* header, size and names are durable; belongs to the committer */
};

struct srv_entry;

struct srv_journal {
    const struct srv_io *io;
    struct srv_journal_options options;
    char fingerprint[SRV_FINGERPRINT];
    pthread_mutex_t mutex; /* guards the members below. New files are made under it, but none is written */
    pthread_cond_t appended, committed;
    struct srv_segment *oldest, *current; /* current: the file that is appended to; NULL: none yet */
    struct srv_entry *queue, **queue_end;
    uint64_t last, durable;
    uint64_t begun;          /* the number of the name begun-N; 0: none. Only the committer changes it */
    struct nn_error failure; /* from when on nothing can be appended */
    struct nn_error
        full;       /* the disk is full: nothing can be appended until the waiting records are written */
    uint64_t tries; /* commits that have ended */
    struct api_store_status counts;
    bool threaded, stopping;
    pthread_t thread;
    XXH3_state_t *sums; /* belongs to the committer */
};

#define SRV_NAME_SIZE 128 /* of the name of a file in the directory */
void srv_segment_name(char name[SRV_NAME_SIZE], const struct srv_segment *segment);
/* Lists the directory: sets journal->oldest and the files behind it, and journal->begun. NN_E_STORE, NN_E_NOMEM. */
int srv_segments_find(struct srv_journal *journal, struct nn_error *err);
/* Makes a file for the next record, which needs `room` bytes. With the mutex held. NN_E_STORE, NN_E_NOMEM,
 * NN_E_SIZE. */
int srv_segment_add(struct srv_journal *journal, uint64_t room, struct nn_error *err);
/* Begins a file, so that records may be written to it. By the committer. NN_E_STORE; if *full, it may be tried
 * again. */
int srv_segment_begin(struct srv_journal *journal, struct srv_segment *segment, bool *full,
                      struct nn_error *err);
void srv_segment_close(const struct srv_journal *journal, struct srv_segment *segment);
/* NN_E_STORE: `what`, with this negative errno, failed for the file. */
int srv_segment_fail(struct nn_error *err, const struct srv_segment *segment, const char *what, int code);

#endif
