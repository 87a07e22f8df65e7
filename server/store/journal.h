/* journal.h - records in one order, each with a number from 1 on, appended to files and made durable in groups.
 *
 * The files are journal-N, where N is the number of the first record in it (in 20 digits); how they look inside is
 * in frame.h. A file is preallocated, written from its beginning to its end, and never written to by a later
 * process, which begins another. Where two files have a record of the same number, the newer file's counts: the
 * older one's was torn.
 *
 * What was found to be wrong when a journal is read is one of three: its end is torn (records that never became
 * durable, which nobody was told of): that is no error. A record that had been durable is damaged: NN_E_CORRUPT.
 * Or the file cannot be read now: NN_E_STORE. */
#ifndef SRV_JOURNAL_H
#define SRV_JOURNAL_H

#include "../../api/store.h"
#include "io.h"

struct srv_journal;

struct srv_journal_options {
    uint64_t segment_bytes;  /* that a file is preallocated with; a record that is larger gets its own */
    const char *fingerprint; /* borrowed until it is made */
    /* A write or a sync has failed: called once, from whoever commits; nothing can be appended any more. */
    void (*failed)(void *arg, const struct nn_error *err);
    void *arg;
};

/* `io` outlives it. NN_E_NOMEM, NN_E_INTERNAL. */
struct srv_journal *srv_journal_new(const struct srv_io *io, const struct srv_journal_options *options,
                                    struct nn_error *err);
/* What was appended and not committed gets done(false). */
void srv_journal_free(struct srv_journal *journal);

/* --- reading, before anything is appended ---------------------------------------------------------------- */

struct srv_record {
    uint64_t seq;
    const void *bytes;
    size_t size;
    const char *file; /* and where in it the record's frame begins */
    uint64_t offset;
    const char *fingerprint; /* under which it was written */
};

struct srv_journal_found {
    uint64_t last;     /* the number of the last record that is whole, or `after`, and those before it */
    uint64_t records;  /* how many came after `after` */
    bool torn;         /* something follows that never became durable */
    uint64_t given_up; /* the number that a damaged record would have; 0: there is none */
    uint64_t highest;  /* the highest number that was met */
};

/* Calls each() for the records behind number `after`, in order; a result other than 0 ends it, and is returned.
 * `durable`: a number up to which records are known to have been durable, beside what the journal itself tells.
 * NN_E_CORRUPT names file and offset, and `found` is what was good before. NN_E_STORE, NN_E_NOMEM. */
int srv_journal_read(struct srv_journal *journal, uint64_t after, uint64_t durable,
                     int (*each)(void *arg, const struct srv_record *record, struct nn_error *err), void *arg,
                     struct srv_journal_found *found, struct nn_error *err);
/* Before they are read: has the files that reach behind `after` show what the disk has. What another process wrote may be
 * in memory alone; it is brought home (unless `read_only`) or, where that has failed once, forgotten. `durable` as for
 * srv_journal_read. NN_E_STORE. */
int srv_journal_settle(struct srv_journal *journal, uint64_t after, uint64_t durable, bool read_only,
                       struct nn_error *err);
/* The number of the first record of the oldest file; 0: there are no files. */
uint64_t srv_journal_first(const struct srv_journal *journal);
/* The next record's number is last + 1. Files that would begin behind it, which hold nothing that counts, are
 * removed; unless `read_only`: then nothing may be appended. NN_E_STORE. */
int srv_journal_begin(struct srv_journal *journal, uint64_t last, bool read_only, struct nn_error *err);

/* --- appending; from any thread -------------------------------------------------------------------------- */

/* As api_store.append, which says what may be expected of it. */
int srv_journal_append(struct srv_journal *journal, const struct api_segment *segments, size_t n,
                       void (*done)(void *arg, bool durable), void *arg, uint64_t *seq, struct nn_error *err);
uint64_t srv_journal_last(struct srv_journal *journal);
/* Writes and syncs what was appended, and calls `done` of each; false: nothing was waiting. One at a time. */
bool srv_journal_commit(struct srv_journal *journal);
/* From now on a thread does that. NN_E_INTERNAL. */
int srv_journal_start(struct srv_journal *journal, struct nn_error *err);
/* Ends that thread: nobody is called by it any more. */
void srv_journal_stop(struct srv_journal *journal);
/* Until record `seq` is durable; commits itself where there is no thread. NN_E_STORE: it will never be. */
int srv_journal_wait(struct srv_journal *journal, uint64_t seq, struct nn_error *err);
/* Removes files of which all records are up to `seq`. */
void srv_journal_forget(struct srv_journal *journal, uint64_t seq);
/* Fills in what it knows: all but the checkpoints. */
void srv_journal_status(struct srv_journal *journal, struct api_store_status *status);

#endif
