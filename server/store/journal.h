/* journal.h - a journal: numbered records, from 1 on, appended to files and made durable in groups.
 *
 * The files are named journal-N, where N (20 digits) is the number of the file's first record; frame.h has their
 * layout. A file is preallocated, and written once from beginning to end; a later process begins a new file. If two
 * files have a record of the same number, the newer file's record counts: the older one's was torn. An empty file,
 * begun-N, says that journal-N is the newest file to which records were written.
 *
 * Reading distinguishes three faults. A torn end: records that never became durable, and that nobody was told of; this
 * is no error. A damaged record, which was durable once: NN_E_CORRUPT. A file that cannot be read now: NN_E_STORE. */
#ifndef SRV_JOURNAL_H
#define SRV_JOURNAL_H

#include "../../api/store.h"
#include "io.h"

struct srv_journal;

struct srv_journal_options {
    uint64_t segment_bytes;  /* bytes to which a file is preallocated; a larger record gets a larger file */
    const char *fingerprint; /* borrowed until srv_journal_new returns */
    /* Called once when a write or a sync fails for another reason than lack of room, by the thread that commits.
     * Nothing can be appended any more. */
    void (*failed)(void *arg, const struct nn_error *err);
    void *arg;
};

/* `io` must outlive the journal. NN_E_NOMEM, NN_E_INTERNAL. */
struct srv_journal *srv_journal_new(const struct srv_io *io, const struct srv_journal_options *options,
                                    struct nn_error *err);
/* Records that were appended and not committed get done(false). */
void srv_journal_free(struct srv_journal *journal);

/* --- reading, before anything is appended ---------------------------------------------------------------- */

struct srv_record {
    uint64_t seq;
    const void *bytes;
    size_t size;
    const char *file; /* the file, and where in it the record's frame begins */
    uint64_t offset;
    const char *fingerprint; /* the fingerprint of the process that wrote it */
};

struct srv_journal_found {
    uint64_t last;     /* the number of the last good record, or `after` */
    uint64_t records;  /* the number of records behind `after` */
    bool torn;         /* bytes follow that never became durable */
    uint64_t given_up; /* the number of the first damaged record; 0: none */
    uint64_t highest;  /* the highest number that was found */
};

/* Calls each() for the records behind number `after`, in order, until one returns nonzero, which is then returned.
 * Records up to `durable` are known to have been durable, whatever the journal itself tells. NN_E_CORRUPT: the text
 * names file and offset, and `found` tells what was good before. NN_E_STORE, NN_E_NOMEM. */
int srv_journal_read(struct srv_journal *journal, uint64_t after, uint64_t durable,
                     int (*each)(void *arg, const struct srv_record *record, struct nn_error *err), void *arg,
                     struct srv_journal_found *found, struct nn_error *err);
/* Before reading: makes the files that reach behind `after` show what the disk has. Bytes that another process wrote
 * may be in memory only: they are synced (unless `read_only`), or forgotten if that has failed once. `durable` as for
 * srv_journal_read. NN_E_STORE. */
int srv_journal_settle(struct srv_journal *journal, uint64_t after, uint64_t durable, bool read_only,
                       struct nn_error *err);
/* The number of the oldest file's first record. 0: there are no files. */
uint64_t srv_journal_first(const struct srv_journal *journal);
/* Declares all files unneeded: a missing or changed newest file is no damage from now on. To be called while nobody
 * appends. NN_E_STORE. */
int srv_journal_release(struct srv_journal *journal, struct nn_error *err);
/* Sets the next record's number to last + 1. Files that begin behind it have no records that count, and are removed.
 * With `read_only` they stay, and nothing may be appended. NN_E_STORE. */
int srv_journal_begin(struct srv_journal *journal, uint64_t last, bool read_only, struct nn_error *err);

/* --- appending; from any thread -------------------------------------------------------------------------- */

/* As api_store.append. */
int srv_journal_append(struct srv_journal *journal, const struct api_segment *segments, size_t n,
                       void (*done)(void *arg, bool durable), void *arg, uint64_t *seq, struct nn_error *err);
uint64_t srv_journal_last(struct srv_journal *journal);
/* Writes and syncs the records that wait, and calls their `done`. False: none waited; or the disk is full, and they
 * wait on while nothing can be appended. One call at a time. */
bool srv_journal_commit(struct srv_journal *journal);
/* Starts a thread that commits. NN_E_INTERNAL. */
int srv_journal_start(struct srv_journal *journal, struct nn_error *err);
/* Ends that thread. It calls nobody any more. */
void srv_journal_stop(struct srv_journal *journal);
/* Waits until record `seq` is durable. Without a thread it commits itself. NN_E_STORE: the record will never be
 * durable, or the disk is full now. */
int srv_journal_wait(struct srv_journal *journal, uint64_t seq, struct nn_error *err);
/* Removes the files whose records are all up to `seq`. */
void srv_journal_forget(struct srv_journal *journal, uint64_t seq);
/* Fills in all members but those of checkpoints. */
void srv_journal_status(struct srv_journal *journal, struct api_store_status *status);

#endif
