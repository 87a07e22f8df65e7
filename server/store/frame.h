/* frame.h - the layout of a journal file. Numbers are little-endian.
 *
 *   header   512 bytes: "gradd-j1", the number of the first record, a salt, the fingerprint (472 bytes of text with
 *            zeros behind it), the size to which the file was preallocated (0 in files of earlier releases), and
 *            XXH3-64 of all these
 *   frame    40 bytes: check, number, durable, size, sum; then the record, `size` bytes; then zeros up to a multiple
 *            of 8
 *   zeros    up to the preallocated end
 *
 * `sum` is XXH3-64 of the record, and `check` is XXH3-64 of the four numbers behind it. Both are seeded with the salt,
 * which is drawn for each file. So bytes that look like a frame are one, and not part of a record that a client made
 * up. `durable` is the number of the last record that was known to be durable when the frame was written. It
 * distinguishes a record that never became durable (a torn end) from one that did and was damaged later. */
#ifndef SRV_FRAME_H
#define SRV_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SRV_JOURNAL_HEADER 512
#define SRV_FINGERPRINT    472 /* with its NUL */
#define SRV_JOURNAL_FORMAT 1

struct srv_journal_header {
    char magic[8];
    uint64_t first, salt;
    char fingerprint[SRV_FINGERPRINT];
    uint64_t size, check;
};
_Static_assert(sizeof(struct srv_journal_header) == SRV_JOURNAL_HEADER, "a header is what lies on the disk");

void srv_journal_header_init(struct srv_journal_header *header, uint64_t first, uint64_t salt, uint64_t size,
                             const char *fingerprint);
/* The number behind "gradd-j" in a header whose checksum is right. 0: it is wrong. */
int srv_journal_header_format(const struct srv_journal_header *header);
/* True if the header is good, has SRV_JOURNAL_FORMAT, and belongs to the file whose name says `first`. */
bool srv_journal_header_good(const struct srv_journal_header *header, uint64_t first);

struct srv_frame {
    uint64_t check, seq, durable, size, sum;
};

/* Sets `check`. */
void srv_frame_seal(struct srv_frame *frame, uint64_t salt);
bool srv_frame_good(const struct srv_frame *frame, uint64_t salt);
/* The bytes of a record with its frame and the zeros behind it. UINT64_MAX: it does not fit 64 bits. */
uint64_t srv_frame_room(uint64_t size);

#endif
