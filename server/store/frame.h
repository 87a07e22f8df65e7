/* frame.h - how records lie in a journal file. Numbers are little-endian.
 *
 *   header   512 bytes: "gradd-j1", the first record's number, a salt, the fingerprint (480 bytes of text, zeros
 *            behind it), and XXH3-64 of all that
 *   frame    40 bytes: check, number, durable, size, sum; the record, `size` bytes; zeros up to a multiple of 8
 *   zeros    up to the end, which is where the file was preallocated to
 *
 * `sum` is XXH3-64 of the record, and `check` of the four numbers behind it, both seeded with the salt, which is
 * drawn for each file: so what looks like a frame is one, and not the inside of a record that a client made up.
 * `durable` is the number of the last record that was known to be durable when the frame was written. It is what
 * tells a record that never became durable (a torn end) from one that did, and went bad. */
#ifndef SRV_FRAME_H
#define SRV_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SRV_JOURNAL_HEADER 512
#define SRV_FINGERPRINT    480 /* with its zero */

struct srv_journal_header {
    char magic[8];
    uint64_t first, salt;
    char fingerprint[SRV_FINGERPRINT];
    uint64_t check;
};
_Static_assert(sizeof(struct srv_journal_header) == SRV_JOURNAL_HEADER, "a header is what lies on the disk");

void srv_journal_header_init(struct srv_journal_header *header, uint64_t first, uint64_t salt,
                             const char *fingerprint);
/* Whether it is whole, and of the file whose name says `first`. */
bool srv_journal_header_good(const struct srv_journal_header *header, uint64_t first);

struct srv_frame {
    uint64_t check, seq, durable, size, sum;
};

/* Fills in `check`. */
void srv_frame_seal(struct srv_frame *frame, uint64_t salt);
bool srv_frame_good(const struct srv_frame *frame, uint64_t salt);
/* With its head and the zeros behind it; UINT64_MAX where that is beyond all sizes. */
uint64_t srv_frame_room(uint64_t size);

#endif
