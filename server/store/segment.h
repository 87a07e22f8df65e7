/* segment.h - the inside of a journal, for the two files that it is written in: journal.c appends,
 * journal_read.c reads. */
#ifndef SRV_SEGMENT_H
#define SRV_SEGMENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <xxhash.h>

#include "frame.h"
#include "journal.h"

#define SRV_JOURNAL_PREFIX "journal-"

/* One file. */
struct srv_segment {
    struct srv_segment *next; /* with higher numbers */
    uint64_t first;           /* the number of the first record */
    uint64_t size;
    /* Of a file that this process made: */
    uint64_t salt, used;
    size_t pending; /* records that were appended and are not durable */
    int file;       /* -1: closed */
    bool begun;     /* its header and its name are durable; the committer's */
};

struct srv_entry;

struct srv_journal {
    const struct srv_io *io;
    struct srv_journal_options options;
    char fingerprint[SRV_FINGERPRINT];
    pthread_mutex_t mutex; /* guards all below; no file is written while it is held, but new ones are made */
    pthread_cond_t appended, committed;
    struct srv_segment *oldest, *current; /* current: that is appended to; NULL: none yet */
    struct srv_entry *queue, **queue_end;
    uint64_t last, durable;
    struct nn_error failure; /* since when nothing can be appended */
    struct api_store_status counts;
    bool threaded, stopping;
    pthread_t thread;
    XXH3_state_t *sums; /* the committer's */
};

#define SRV_NAME_SIZE 128 /* of a file in a store's directory */
void srv_segment_name(char name[SRV_NAME_SIZE], const struct srv_segment *segment);

#endif
