/* files.c - see files.h. */
#include "files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define PARTS 64 /* that are written in one call */

static int write_segments(const struct srv_io *io, int file, const struct api_segment *segments, size_t n,
                          struct srv_file_sum *sum) {
    XXH3_state_t *sums = XXH3_createState();
    if (!sums) return -ENOMEM;
    XXH3_64bits_reset(sums);
    *sum = (struct srv_file_sum){0};
    int code = 0;
    for (size_t i = 0; i < n && !code;) {
        struct iovec parts[PARTS];
        uint64_t size = 0;
        int count = 0;
        for (; i < n && count < PARTS; i++) {
            XXH3_64bits_update(sums, segments[i].data, segments[i].size);
            parts[count++] = (struct iovec){(void *)(uintptr_t)segments[i].data, segments[i].size};
            size += segments[i].size;
        }
        code = io->write(io->self, file, parts, count, sum->size);
        sum->size += size;
    }
    sum->sum = XXH3_64bits_digest(sums);
    XXH3_freeState(sums);
    return code;
}

int srv_file_write(const struct srv_io *io, const char *name, const struct api_segment *segments, size_t n,
                   struct srv_file_sum *sum, struct nn_error *err) {
    char beside[160];
    snprintf(beside, sizeof beside, "%s~", name);
    int file = io->create(io->self, beside);
    if (file == -EEXIST && io->remove(io->self, beside) == 0) file = io->create(io->self, beside);
    int code = file < 0 ? file : write_segments(io, file, segments, n, sum);
    if (!code) code = io->sync(io->self, file);
    if (file >= 0) io->close(io->self, file);
    if (!code) code = io->rename(io->self, beside, name);
    if (!code) return NN_OK;
    if (file >= 0) (void)io->remove(io->self, beside);
    return nn_fail(err, NN_E_STORE, "%s cannot be written: %s", name, strerror(-code));
}

int srv_file_sync_names(const struct srv_io *io, struct nn_error *err) {
    int code = io->sync_directory(io->self);
    return code ? nn_fail(err, NN_E_STORE, "the directory cannot be synced: %s", strerror(-code)) : NN_OK;
}

int srv_file_read(const struct srv_io *io, const char *name, const struct srv_file_sum *sum, void **bytes,
                  size_t *size, struct nn_error *err) {
    int file = io->open(io->self, name);
    int64_t length = file < 0 ? file : io->size(io->self, file);
    char *all = NULL;
    if (length < 0)
        nn_fail(err, NN_E_CORRUPT, "%s cannot be read: %s", name, strerror((int)-length));
    else if (sum && sum->size != (uint64_t)length)
        nn_fail(err, NN_E_CORRUPT, "%s is damaged: it has %lld bytes, and had %llu", name, (long long)length,
                (unsigned long long)sum->size);
    else if (!(all = malloc((size_t)length + 1)))
        nn_fail(err, NN_E_NOMEM, "no memory for %s, of %lld bytes", name, (long long)length);
    int64_t got = all ? io->read(io->self, file, all, (size_t)length, 0) : 0;
    if (file >= 0) io->close(io->self, file);
    if (!all) return (int)err->code;
    if (got != length)
        nn_fail(err, NN_E_CORRUPT, "%s cannot be read: %s", name,
                got < 0 ? strerror((int)-got) : "it has become shorter");
    else if (sum && XXH3_64bits(all, (size_t)length) != sum->sum)
        nn_fail(err, NN_E_CORRUPT, "%s is damaged: its checksum is not what it was", name);
    if (err->code) {
        free(all);
        return (int)err->code;
    }
    all[length] = '\0'; /* for who reads it as text */
    *bytes = all;
    *size = (size_t)length;
    return NN_OK;
}
