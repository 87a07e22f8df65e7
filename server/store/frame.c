/* frame.c - see frame.h. */
#include "frame.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

static const char magic[7] = {'g', 'r', 'a', 'd', 'd', '-', 'j'}; /* and a digit */

static uint64_t header_check(const struct srv_journal_header *header) {
    return XXH3_64bits(header, offsetof(struct srv_journal_header, check));
}

void srv_journal_header_init(struct srv_journal_header *header, uint64_t first, uint64_t salt, uint64_t size,
                             const char *fingerprint) {
    *header = (struct srv_journal_header){.first = first, .salt = salt, .size = size};
    memcpy(header->magic, magic, sizeof magic);
    header->magic[sizeof magic] = '0' + SRV_JOURNAL_FORMAT;
    snprintf(header->fingerprint, sizeof header->fingerprint, "%s", fingerprint);
    header->check = header_check(header);
}

int srv_journal_header_format(const struct srv_journal_header *header) {
    char digit = header->magic[sizeof magic];
    bool whole = memcmp(header->magic, magic, sizeof magic) == 0 && header->check == header_check(header);
    return whole && digit > '0' && digit <= '9' ? digit - '0' : 0;
}

bool srv_journal_header_good(const struct srv_journal_header *header, uint64_t first) {
    return srv_journal_header_format(header) == SRV_JOURNAL_FORMAT && header->first == first &&
           header->fingerprint[SRV_FINGERPRINT - 1] == '\0';
}

static uint64_t frame_check(const struct srv_frame *frame, uint64_t salt) {
    return XXH3_64bits_withSeed(&frame->seq, sizeof *frame - offsetof(struct srv_frame, seq), salt);
}

void srv_frame_seal(struct srv_frame *frame, uint64_t salt) { frame->check = frame_check(frame, salt); }

bool srv_frame_good(const struct srv_frame *frame, uint64_t salt) {
    return frame->check == frame_check(frame, salt) && frame->durable < frame->seq;
}

uint64_t srv_frame_room(uint64_t size) {
    if (size > UINT64_MAX / 2) return UINT64_MAX;
    return sizeof(struct srv_frame) + ((size + 7) & ~UINT64_C(7));
}
