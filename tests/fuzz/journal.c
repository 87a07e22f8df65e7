/* A journal's files, as bytes: what is read of them are records one after another, each where the file says, whole
 * by its checksum; what is found is told the same way twice, also where zeros are not read; and a file that was begun is
 * missed. The first byte says how many files there are, and each file is made of headers, frames, zeros and plain bytes,
 * mostly as the journal writes them. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "../../server/store/frame.h"
#include "../../server/store/journal.h"
#include "support/grammar.h"
#include "support/history.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FILES  4
#define PARTS  24 /* of a file */
#define NUMBER 20 /* digits of one in a file's name */

struct file {
    char name[32];
    struct api_text bytes;
};

struct disk {
    struct file files[FILES];
    int n;
    uint64_t begun; /* a file of this number was; 0: none is known to have been */
};

/* --- files in memory ----------------------------------------------------------------------------------- */

static struct file *find(struct disk *disk, const char *name) {
    for (int i = 0; i < disk->n; i++)
        if (strcmp(disk->files[i].name, name) == 0) return &disk->files[i];
    return NULL;
}

static int disk_open(void *self, const char *name) {
    struct disk *disk = self;
    const struct file *file = find(disk, name);
    return file ? (int)(file - disk->files) : -ENOENT;
}

static void disk_close(void *self, int file) {
    const struct disk *disk = self;
    if (file < 0 || file >= disk->n) abort();
}

static int64_t disk_size(void *self, int file) {
    const struct disk *disk = self;
    return (int64_t)disk->files[file].bytes.size;
}

static int64_t disk_read(void *self, int file, void *buffer, size_t size, uint64_t offset) {
    const struct api_text *bytes = &((const struct disk *)self)->files[file].bytes;
    size_t left = offset < bytes->size ? bytes->size - (size_t)offset : 0;
    if (size > left) size = left;
    if (size) memcpy(buffer, bytes->data + offset, size);
    return (int64_t)size;
}

static int64_t end_of_data(void *self, int file) {
    const struct api_text *bytes = &((const struct disk *)self)->files[file].bytes;
    size_t end = bytes->size;
    while (end > 0 && bytes->data[end - 1] == 0) end--;
    return (int64_t)end;
}

static int disk_list(void *self, void (*each)(void *arg, const char *name), void *arg) {
    const struct disk *disk = self;
    char begun[32];
    for (int i = 0; i < disk->n; i++) each(arg, disk->files[i].name);
    snprintf(begun, sizeof begun, "begun-%0*" PRIu64, NUMBER, disk->begun);
    if (disk->begun) each(arg, begun);
    return 0;
}

/* --- what is in them ----------------------------------------------------------------------------------- */

struct maker {
    struct fuzz_bytes *bytes;
    struct file *file;
    uint64_t first, seq, salt;
};

static void add_header(struct maker *maker) {
    struct srv_journal_header header;
    srv_journal_header_init(&header, maker->first, maker->salt, 0, "fuzz");
    api_text_add(&maker->file->bytes, (const char *)&header, sizeof header);
}

/* A number near the one that belongs here, or a huge one. */
static uint64_t odd_number(struct maker *maker, uint64_t right) {
    unsigned i = fuzz_byte(maker->bytes, 16);
    if (i == 15) return UINT64_MAX - fuzz_byte(maker->bytes, 64);
    if (i == 14) return UINT64_C(1) << fuzz_byte(maker->bytes, 64);
    return i < 10 ? right : right + i - 12;
}

static void add_frame(struct maker *maker) {
    static const char zeros[8] = {0};
    struct fuzz_bytes record = fuzz_part(maker->bytes);
    size_t size = (size_t)(record.end - record.p);
    if (size > 200) size = 200;
    uint64_t seq = odd_number(maker, maker->seq);
    struct srv_frame frame = {.seq = seq,
                              .durable = odd_number(maker, seq ? seq - 1 : 0),
                              .size = odd_number(maker, size),
                              .sum = XXH3_64bits_withSeed(record.p, size, maker->salt)};
    if (fuzz_byte(maker->bytes, 16) != 15) srv_frame_seal(&frame, maker->salt);
    if (fuzz_byte(maker->bytes, 16) == 15) frame.sum++;
    api_text_add(&maker->file->bytes, (const char *)&frame, sizeof frame);
    api_text_add(&maker->file->bytes, (const char *)record.p, size);
    api_text_add(&maker->file->bytes, zeros, -size & 7);
    maker->seq = seq + 1;
}

static void add_part(struct maker *maker) {
    static const char zeros[256] = {0};
    unsigned kind = fuzz_byte(maker->bytes, 16);
    if (kind == 15)
        add_header(maker);
    else if (kind == 14)
        maker->salt = fuzz_byte(maker->bytes, 2); /* of a file that was there before */
    else if (kind == 13)
        api_text_add(&maker->file->bytes, zeros, fuzz_byte(maker->bytes, 256));
    else if (kind == 12) {
        struct fuzz_bytes part = fuzz_part(maker->bytes);
        api_text_add(&maker->file->bytes, (const char *)part.p, (size_t)(part.end - part.p));
    } else
        add_frame(maker);
}

/* Returns the number that the next file begins with, if it follows. */
static uint64_t make_file(struct fuzz_bytes *bytes, struct disk *disk, uint64_t first) {
    char name[sizeof disk->files[0].name];
    struct maker maker = {.bytes = bytes, .first = first, .seq = first, .salt = 7};
    maker.first = maker.seq = odd_number(&maker, first);
    snprintf(name, sizeof name, "journal-%0*" PRIu64, NUMBER, maker.first);
    if (find(disk, name)) return first;
    maker.file = &disk->files[disk->n++];
    memcpy(maker.file->name, name, sizeof name);
    if (fuzz_byte(bytes, 16) != 15) add_header(&maker);
    unsigned n = fuzz_byte(bytes, PARTS);
    for (unsigned i = 0; i < n && bytes->p < bytes->end; i++) add_part(&maker);
    if (fuzz_byte(bytes, 8) == 7) fuzz_spoil_data(bytes, maker.file->bytes.data, &maker.file->bytes.size);
    if (maker.file->bytes.failed) abort();
    return maker.seq;
}

/* As large as it was made, or less. */
static void set_size(struct fuzz_bytes *bytes, struct file *file) {
    struct srv_journal_header header;
    unsigned more = fuzz_byte(bytes, 16);
    if (more == 0 || file->bytes.size < sizeof header) return;
    memcpy(&header, file->bytes.data, sizeof header);
    if (!srv_journal_header_good(&header, header.first)) return;
    char fingerprint[SRV_FINGERPRINT];
    memcpy(fingerprint, header.fingerprint, sizeof fingerprint);
    uint64_t size = file->bytes.size + (more < 12 ? 0 : more - 11);
    srv_journal_header_init(&header, header.first, header.salt, size, fingerprint);
    memcpy(file->bytes.data, &header, sizeof header);
}

/* Whether the file that begun-N names is gone, and may have held a record behind `after`: it did not where a later file
 * begins up to there. */
static bool is_missing(const struct disk *disk, uint64_t after) {
    for (int i = 0; i < disk->n; i++) {
        uint64_t first = strtoull(disk->files[i].name + sizeof "journal-" - 1, NULL, 10);
        if (first == disk->begun || (first > disk->begun && first <= after + 1)) return false;
    }
    return disk->begun != 0;
}

/* --- what is read --------------------------------------------------------------------------------------- */

struct reading {
    struct disk *disk;
    uint64_t last, n;
    XXH64_hash_t sum; /* of all that came */
};

static int each(void *arg, const struct srv_record *record, struct nn_error *err) {
    struct reading *reading = arg;
    const struct file *file = find(reading->disk, record->file);
    struct srv_journal_header header;
    struct srv_frame frame;
    (void)err;
    if (!file || record->seq != reading->last + 1) abort();
    if (record->offset % 8 || file->bytes.size < sizeof header ||
        record->offset + sizeof frame + record->size > file->bytes.size)
        abort();
    memcpy(&header, file->bytes.data, sizeof header);
    memcpy(&frame, file->bytes.data + record->offset, sizeof frame);
    if (!srv_frame_good(&frame, header.salt) || frame.seq != record->seq || frame.size != record->size)
        abort();
    if (record->size &&
        memcmp(record->bytes, file->bytes.data + record->offset + sizeof frame, record->size) != 0)
        abort();
    if (XXH3_64bits_withSeed(record->bytes, record->size, header.salt) != frame.sum) abort();
    if (strlen(record->fingerprint) >= SRV_FINGERPRINT) abort();
    reading->last = record->seq;
    reading->n++;
    reading->sum = XXH3_64bits_withSeed(record->bytes, record->size, reading->sum);
    return NN_OK;
}

static int read_once(const struct srv_io *io, uint64_t after, uint64_t durable, struct reading *reading,
                     struct srv_journal_found *found) {
    const struct srv_journal_options options = {.segment_bytes = 4096, .fingerprint = "fuzz"};
    struct nn_error err = {0};
    struct srv_journal *journal = srv_journal_new(io, &options, &err);
    if (!journal) abort();
    *reading = (struct reading){.disk = io->self, .last = after};
    int code = srv_journal_read(journal, after, durable, each, reading, found, &err);
    if (code != (int)err.code || (code && code != NN_E_CORRUPT)) abort();
    if (found->last != reading->last || found->records != reading->n || found->highest < found->last) abort();
    if (!code && is_missing(reading->disk, after)) abort();
    if (code ? found->given_up <= found->last : durable > found->last) abort();
    srv_journal_free(journal);
    return code;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_bytes bytes = {data, data + size};
    struct disk disk = {0};
    struct reading first, second;
    struct srv_journal_found found[2];
    struct srv_io io = {.self = &disk,
                        .open = disk_open,
                        .close = disk_close,
                        .size = disk_size,
                        .read = disk_read,
                        .end_of_data = disk_size,
                        .list = disk_list};
    unsigned n = 1 + fuzz_byte(&bytes, FILES);
    uint64_t after = fuzz_byte(&bytes, 8), durable = fuzz_byte(&bytes, 32), next = 1;
    for (unsigned i = 0; i < n; i++) next = make_file(&bytes, &disk, next);
    for (int i = 0; i < disk.n; i++) set_size(&bytes, &disk.files[i]);
    disk.begun = fuzz_byte(&bytes, 16);
    int code = read_once(&io, after, durable, &first, &found[0]);
    io.end_of_data = end_of_data;
    if (read_once(&io, after, durable, &second, &found[1]) != code || first.sum != second.sum) abort();
    for (int i = 0; i < disk.n; i++) api_text_free(&disk.files[i].bytes);
    return 0;
}
