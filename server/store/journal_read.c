/* journal_read.c - see journal.h: reading the records of an earlier process.
 *
 * Records are read from file to file while their numbers follow one another. Where they end, everything behind is
 * searched for frames which say that the missing record had been durable; and the files are compared with what is known
 * of them: that they were begun, and how large they were made. If nothing contradicts it, the end is torn: a crash came
 * before the sync, and nobody was told that the record was durable. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "segment.h"

#define CHUNK ((size_t)1 << 20) /* bytes that are searched at a time; a multiple of 8 */

struct reader {
    struct srv_journal *journal;
    const struct srv_segment *segment; /* the open file */
    char name[SRV_NAME_SIZE];
    int file;
    uint64_t size, data_end, offset; /* zeros follow behind data_end */
    struct srv_journal_header header;
    bool lost; /* the disk has lost the bytes where the next frame should be */
    unsigned char *buffer;
    size_t room;
    struct nn_error *err;
};

static int room_for(struct reader *reader, size_t size) {
    if (size <= reader->room) return NN_OK;
    unsigned char *buffer = realloc(reader->buffer, size);
    if (!buffer) return nn_fail(reader->err, NN_E_NOMEM, "no memory for a record of %zu bytes", size);
    reader->buffer = buffer;
    reader->room = size;
    return NN_OK;
}

#define LOST (-1)

/* Reads all of `size` bytes. NN_E_STORE; or LOST, without an error: the bytes are gone. */
static int read_at(struct reader *reader, void *to, size_t size, uint64_t offset) {
    const struct srv_io *io = reader->journal->io;
    int64_t got = io->read(io->self, reader->file, to, size, offset);
    if (got == (int64_t)size) return NN_OK;
    if (srv_io_is_lost(got)) return LOST;
    return nn_fail(reader->err, NN_E_STORE, "%s cannot be read: %s", reader->name,
                   got < 0 ? strerror((int)-got) : "it has become shorter");
}

static void close_file(struct reader *reader) {
    const struct srv_io *io = reader->journal->io;
    if (reader->file >= 0) io->close(io->self, reader->file);
    reader->file = -1;
}

/* *whole: the file has a good header. */
static int open_file(struct reader *reader, const struct srv_segment *segment, bool *whole) {
    const struct srv_io *io = reader->journal->io;
    close_file(reader);
    srv_segment_name(reader->name, segment);
    reader->segment = segment;
    reader->lost = false;
    reader->offset = 0;
    reader->file = io->open(io->self, reader->name);
    int64_t size = reader->file < 0 ? reader->file : io->size(io->self, reader->file);
    int64_t end = size < 0 ? size : io->end_of_data(io->self, reader->file);
    if (end < 0)
        return nn_fail(reader->err, NN_E_STORE, "%s cannot be read: %s", reader->name, strerror((int)-end));
    reader->size = (uint64_t)size;
    reader->data_end = (uint64_t)end;
    *whole = false;
    if (reader->size < sizeof reader->header) return NN_OK;
    int code = read_at(reader, &reader->header, sizeof reader->header, 0);
    if (code) return code == LOST ? NN_OK : code;
    int format = srv_journal_header_format(&reader->header);
    if (format > SRV_JOURNAL_FORMAT)
        return nn_fail(reader->err, NN_E_STORE,
                       "%s is of format %d: a later release wrote it, and this one knows %d", reader->name,
                       format, SRV_JOURNAL_FORMAT);
    *whole = srv_journal_header_good(&reader->header, segment->first);
    if (*whole) reader->offset = SRV_JOURNAL_HEADER;
    return NN_OK;
}

/* --- what lies behind the last good record ----------------------------------------------------------------- */

/* The result of a search for frames. */
struct trace {
    uint64_t durable, highest; /* of all frames: the greatest `durable`, and the greatest number */
    bool bytes;                /* there are bytes other than zeros */
    uint64_t wanted;           /* stop at a frame with a number up to this one; its place is `offset` */
    bool stopped;
    uint64_t offset;
};

static bool is_zeros(const unsigned char *bytes, size_t size) {
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* Searches these bytes, which lie at `offset`, for the beginnings of frames. */
static void search_bytes(const struct reader *reader, const unsigned char *bytes, size_t size,
                         uint64_t offset, struct trace *trace) {
    for (size_t at = 0; at + sizeof(struct srv_frame) <= size; at += 8) {
        struct srv_frame frame;
        memcpy(&frame, bytes + at, sizeof frame);
        if (frame.seq <= frame.durable || frame.size > reader->size ||
            !srv_frame_good(&frame, reader->header.salt))
            continue;
        if (frame.seq <= trace->wanted) {
            trace->stopped = true;
            trace->offset = offset + at;
            return;
        }
        if (frame.durable > trace->durable) trace->durable = frame.durable;
        if (frame.seq > trace->highest) trace->highest = frame.seq;
    }
}

#define SECTOR ((size_t)512)

/* Reads into the buffer. A sector that the disk has lost reads as zeros, and sets *lost. */
static int read_what_there_is(struct reader *reader, size_t size, uint64_t offset, bool *lost) {
    int code = read_at(reader, reader->buffer, size, offset);
    if (code != LOST) return code;
    for (size_t at = 0, piece; at < size; at += piece) {
        piece = size - at < SECTOR ? size - at : SECTOR;
        code = read_at(reader, reader->buffer + at, piece, offset + at);
        if (code == LOST) {
            memset(reader->buffer + at, 0, piece);
            *lost = true;
        } else if (code) {
            return code;
        }
    }
    return NN_OK;
}

/* Searches the open file from `offset` to its end. Frames count only in a file with a header. */
static int search_file(struct reader *reader, uint64_t offset, bool whole, struct trace *trace) {
    const size_t overlap = sizeof(struct srv_frame) - 8;
    int code = room_for(reader, CHUNK + overlap);
    while (!code && offset < reader->data_end && !trace->stopped) {
        uint64_t left = reader->size - offset;
        size_t size = left < CHUNK + overlap ? (size_t)left : CHUNK + overlap;
        if ((code = read_what_there_is(reader, size, offset, &trace->bytes))) break;
        if (!is_zeros(reader->buffer, size)) {
            trace->bytes = true;
            if (whole) search_bytes(reader, reader->buffer, size, offset, trace);
        }
        offset += CHUNK;
    }
    return code;
}

/* --- the records ------------------------------------------------------------------------------------------- */

/* Reads the frame at the reader's place. *good: it is that of record `seq`. The record is read too if its bytes are
 * wanted. */
static int read_frame(struct reader *reader, uint64_t seq, bool with_bytes, struct srv_frame *frame,
                      bool *good) {
    *good = reader->lost = false;
    if (reader->size - reader->offset < sizeof *frame) return NN_OK;
    int code = read_at(reader, frame, sizeof *frame, reader->offset);
    reader->lost = code == LOST;
    if (reader->lost) return NN_OK;
    if (code || frame->seq != seq || !srv_frame_good(frame, reader->header.salt) ||
        srv_frame_room(frame->size) > reader->size - reader->offset)
        return code;
    if (with_bytes) {
        size_t size = (size_t)frame->size;
        if ((code = room_for(reader, size)) ||
            (code = read_at(reader, reader->buffer, size, reader->offset + sizeof *frame))) {
            reader->lost = code == LOST;
            return reader->lost ? NN_OK : code;
        }
        if (XXH3_64bits_withSeed(reader->buffer, size, reader->header.salt) != frame->sum) return NN_OK;
    }
    *good = true;
    return NN_OK;
}

struct reading {
    uint64_t after;
    int (*each)(void *arg, const struct srv_record *record, struct nn_error *err);
    void *arg;
    struct srv_journal_found *found;
};

static int take_frame(struct reader *reader, const struct reading *reading, const struct srv_frame *frame) {
    struct srv_record record = {
        .seq = frame->seq,
        .bytes = reader->buffer,
        .size = (size_t)frame->size,
        .file = reader->name,
        .offset = reader->offset,
        .fingerprint = reader->header.fingerprint,
    };
    int code = reading->each(reading->arg, &record, reader->err);
    if (code) return code;
    reading->found->records++;
    reading->found->last = frame->seq;
    return NN_OK;
}

/* Reads the records of the open file from number *seq on, until they end, or the next file has them. Records in front
 * of the wanted ones may be damaged. */
static int read_segment(struct reader *reader, const struct reading *reading, uint64_t *seq) {
    const struct srv_segment *next = reader->segment->next;
    while (!next || next->first > *seq) {
        struct srv_frame frame;
        bool good, wanted = *seq > reading->after;
        int code = read_frame(reader, *seq, wanted, &frame, &good);
        if (!code && good && wanted) code = take_frame(reader, reading, &frame);
        if (code) return code;
        if (good) {
            reader->offset += srv_frame_room(frame.size);
            ++*seq;
            continue;
        }
        if (wanted) break;
        struct trace trace = {.wanted = reading->after + 1};
        code = search_file(reader, reader->offset + 8, true, &trace);
        if (code || !trace.stopped) return code;
        reader->offset = trace.offset;
        if ((code = read_at(reader, &frame, sizeof frame, trace.offset))) return code == LOST ? NN_OK : code;
        *seq = frame.seq;
    }
    return NN_OK;
}

/* Judges a file by itself: *damaged if its header or its size is not what it was. `bytes`: it has other bytes than
 * zeros. */
static int judge_file(struct reader *reader, bool whole, bool bytes, bool *damaged) {
    *damaged = !whole && reader->segment->first <= reader->journal->begun;
    if (*damaged || whole || !bytes || reader->size <= SRV_JOURNAL_HEADER) return NN_OK;
    /* A header is durable before anything follows it: frames behind a bad header mean damage. */
    struct trace behind = {0};
    int code = search_file(reader, SRV_JOURNAL_HEADER, false, &behind);
    *damaged = behind.bytes;
    return code;
}

/* The number of bytes that were cut off the file. */
static uint64_t missing_bytes(const struct reader *reader, bool whole) {
    bool begun = reader->segment->first <= reader->journal->begun;
    return whole && begun && reader->size < reader->header.size ? reader->header.size - reader->size : 0;
}

/* The file with the record behind `after`: the last file that begins up to there. */
static const struct srv_segment *first_segment(const struct srv_journal *journal, uint64_t after) {
    const struct srv_segment *segment = journal->oldest;
    while (segment && segment->next && segment->next->first <= after + 1) segment = segment->next;
    return segment;
}

/* True if the newest file with records is missing, and it did not end before the wanted ones. */
static bool is_gone(const struct srv_journal *journal, uint64_t after) {
    const struct srv_segment *segment = journal->oldest, *first = first_segment(journal, after);
    while (segment && segment->first != journal->begun) segment = segment->next;
    bool ended = first && first->first > journal->begun && first->first <= after + 1;
    return journal->begun != 0 && !segment && !ended;
}

static int tell_gone(const struct srv_journal *journal, uint64_t seq, struct srv_journal_found *found,
                     struct nn_error *err) {
    char name[SRV_NAME_SIZE];
    srv_segment_name(name, &(struct srv_segment){.first = journal->begun});
    if (found->highest < journal->begun) found->highest = journal->begun;
    found->given_up = seq;
    return nn_fail(err, NN_E_CORRUPT, "%s is missing: records from %" PRIu64 " on were written to it", name,
                   seq);
}

/* Decides about record `seq`, which is not at the reader's place: damage, if it was durable once. */
static int judge_end(struct reader *reader, const struct reading *reading, uint64_t seq, uint64_t durable,
                     bool whole) {
    struct srv_journal_found *found = reading->found;
    char name[SRV_NAME_SIZE];
    uint64_t offset = reader->offset;
    struct trace trace = {.durable = durable};
    memcpy(name, reader->name, sizeof name);
    /* An unreadable frame may have been acknowledged though no later frame says so: treat it as damage. */
    bool lost = reader->lost, damaged = false;
    uint64_t cut = missing_bytes(reader, whole);
    int code = search_file(reader, whole ? offset : 0, whole, &trace);
    if (!code) code = judge_file(reader, whole, trace.bytes, &damaged);
    for (const struct srv_segment *segment = reader->segment->next; segment && !code;
         segment = segment->next) {
        bool has_header = false;
        if (!(code = open_file(reader, segment, &has_header)))
            code = search_file(reader, reader->offset, has_header, &trace);
    }
    if (code) return code;
    found->torn = trace.bytes;
    if (trace.highest > found->highest) found->highest = trace.highest;
    if (is_gone(reader->journal, reading->after)) return tell_gone(reader->journal, seq, found, reader->err);
    if (!damaged && !lost && !cut && trace.durable < seq) return NN_OK;
    found->given_up = seq;
    if (cut && trace.durable < seq)
        return nn_fail(reader->err, NN_E_CORRUPT,
                       "%s is damaged: %" PRIu64 " bytes were cut off, and records from %" PRIu64
                       " on may have been there",
                       name, cut, seq);
    return nn_fail(reader->err, NN_E_CORRUPT,
                   "%s is damaged at byte %" PRIu64 ": record %" PRIu64 " is not what was written", name,
                   offset, seq);
}

static int read_all(struct reader *reader, const struct reading *reading, uint64_t durable) {
    const struct srv_segment *segment = first_segment(reader->journal, reading->after);
    if (!segment) {
        if (is_gone(reader->journal, reading->after))
            return tell_gone(reader->journal, reading->after + 1, reading->found, reader->err);
        if (durable <= reading->after) return NN_OK;
        reading->found->given_up = reading->after + 1;
        return nn_fail(reader->err, NN_E_CORRUPT, "the journal is missing: records from %" PRIu64 " on",
                       reading->after + 1);
    }
    uint64_t seq = segment->first;
    bool whole = true;
    int code = open_file(reader, segment, &whole);
    if (!code && segment->first > reading->after + 1) { /* an older file is missing */
        seq = reading->after + 1;
        return judge_end(reader, reading, seq, durable, whole);
    }
    while (!code && whole) {
        code = read_segment(reader, reading, &seq);
        const struct srv_segment *next = reader->segment->next;
        if (code || !next || next->first != seq) break;
        code = open_file(reader, next, &whole);
    }
    if (code) return code;
    /* Damage in front of the wanted records, in a file without wanted ones, is no loss. */
    if (seq <= reading->after) seq = reading->after + 1;
    return judge_end(reader, reading, seq, durable, whole);
}

int srv_journal_read(struct srv_journal *journal, uint64_t after, uint64_t durable,
                     int (*each)(void *arg, const struct srv_record *record, struct nn_error *err), void *arg,
                     struct srv_journal_found *found, struct nn_error *err) {
    struct reader reader = {.journal = journal, .file = -1, .err = err};
    struct reading reading = {.after = after, .each = each, .arg = arg, .found = found};
    *found = (struct srv_journal_found){.last = after};
    int code = read_all(&reader, &reading, durable);
    if (found->highest < found->last) found->highest = found->last;
    close_file(&reader);
    free(reader.buffer);
    return code;
}

static int sync_file(struct srv_journal *journal, const struct srv_segment *segment, struct nn_error *err) {
    const struct srv_io *io = journal->io;
    char name[SRV_NAME_SIZE];
    srv_segment_name(name, segment);
    int file = io->open(io->self, name), code = file < 0 ? file : io->sync(io->self, file);
    if (file >= 0) io->close(io->self, file);
    return code ? nn_fail(err, NN_E_STORE, "%s cannot be synced: %s", name, strerror(-code)) : NN_OK;
}

/* Raises *durable to what the file's frames say. Then memory forgets the file, if it has a frame beyond that. */
static int forget_file(struct reader *reader, const struct srv_segment *segment, uint64_t *durable) {
    const struct srv_io *io = reader->journal->io;
    uint64_t seq = segment->first;
    bool good = false;
    int code = open_file(reader, segment, &good);
    for (; good && !code; seq++) {
        struct srv_frame frame;
        code = read_frame(reader, seq, false, &frame, &good);
        if (code || !good) break;
        if (frame.durable > *durable) *durable = frame.durable;
        reader->offset += srv_frame_room(frame.size);
    }
    if (!code && seq > *durable + 1) io->forget(io->self, reader->file);
    return code;
}

/* The file before `end`; NULL: the last file. */
static const struct srv_segment *file_before(const struct srv_segment *first, const struct srv_segment *end) {
    while (first->next != end) first = first->next;
    return first;
}

/* Forgets files from the newest back to the one with the first record that is not known to be durable. */
static int forget_doubtful(struct srv_journal *journal, const struct srv_segment *first, uint64_t durable,
                           struct nn_error *err) {
    struct reader reader = {.journal = journal, .file = -1, .err = err};
    const struct srv_segment *segment = first ? file_before(first, NULL) : NULL;
    int code = NN_OK;
    while (segment) {
        code = forget_file(&reader, segment, &durable);
        if (code || segment == first || segment->first <= durable + 1) break;
        segment = file_before(first, segment);
    }
    close_file(&reader);
    return code;
}

int srv_journal_settle(struct srv_journal *journal, uint64_t after, uint64_t durable, bool read_only,
                       struct nn_error *err) {
    const struct srv_io *io = journal->io;
    const struct srv_segment *first = first_segment(journal, after);
    int code = NN_OK;
    for (const struct srv_segment *segment = first; segment && !code && !read_only; segment = segment->next)
        code = sync_file(journal, segment, err);
    if (!code && !read_only && (code = io->sync_directory(io->self)))
        code = nn_fail(err, NN_E_STORE, "the directory cannot be synced: %s", strerror(-code));
    return code ? code : forget_doubtful(journal, first, durable, err);
}
