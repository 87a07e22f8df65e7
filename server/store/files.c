/* files.c - see files.h. */
#include "files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "repeat.h"

/* --- writing ---------------------------------------------------------------------------------------------- */

#define PARTS 64 /* parts of one write */

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

/* --- reading ---------------------------------------------------------------------------------------------- */

#define PIECE ((size_t)1 << 18) /* bytes that are read at a time, and summed while they are in the cache */

struct file {
    struct api_source source;
    const struct srv_io *io;
    int file;
    uint64_t offset, sum;
    XXH3_state_t *sums;  /* NULL: any contents will do */
    struct nn_error err; /* the first error */
    char name[160];
};

/* Lost bytes are damage. A file that only cannot be read now may be good, and must not be replaced. */
static enum nn_code blame(int64_t code) { return srv_io_is_lost(code) ? NN_E_CORRUPT : NN_E_STORE; }

static int read_piece(struct file *file, char *to, size_t size) {
    int64_t got = file->io->read(file->io->self, file->file, to, size, file->offset);
    if (got != (int64_t)size)
        return nn_fail(&file->err, got < 0 ? blame(got) : NN_E_CORRUPT, "%s cannot be read: %s", file->name,
                       got < 0 ? strerror((int)-got) : "it has become shorter");
    file->offset += size;
    file->source.size -= size;
    if (!file->sums) return NN_OK;
    XXH3_64bits_update(file->sums, to, size);
    if (file->source.size > 0 || XXH3_64bits_digest(file->sums) == file->sum) return NN_OK;
    return nn_fail(&file->err, NN_E_CORRUPT, "%s is damaged: its checksum is not what it was", file->name);
}

/* Memory that a read will fill, from its first whole page to its last. */
struct touching {
    uintptr_t at, end;
};

#define LITTLE ((size_t)1 << 20)    /* bytes that are not worth a thread */
#define LARGE  ((uintptr_t)2 << 20) /* bytes per request to the kernel: a large page */

static struct touching touching_of(void *memory, size_t size) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)memory;
    return (struct touching){(begin + page - 1) & ~(page - 1), (begin + size) & ~(page - 1)};
}

/* Touches pages ahead of the read. The first touch of a page takes as long as reading its bytes from a fast disk, and
 * many times as long where a virtual machine's host has to find the memory. The contents stay. Linux before 5.14
 * refuses the request. */
static bool touch(void *arg) {
    struct touching *touching = arg;
    if (touching->at >= touching->end) return false;
    uintptr_t at = touching->at, next = (at + LARGE) & ~(LARGE - 1);
    touching->at = next < touching->end ? next : touching->end;
#ifdef MADV_POPULATE_WRITE
    return madvise((void *)at, touching->at - at, MADV_POPULATE_WRITE) == 0;
#else
    return false;
#endif
}

static int read_next(struct api_source *source, void *to, size_t size, struct nn_error *err) {
    struct file *file = source->self;
    if (size > source->size) nn_fail(&file->err, NN_E_CORRUPT, "%s ends too early", file->name);
    struct srv_repeat ahead = {0};
    struct touching touching = touching_of(to, size);
    if (size >= LITTLE && !file->err.code) srv_repeat_begin(&ahead, touch, &touching);
    for (size_t done = 0; done < size && !file->err.code;) {
        size_t piece = size - done < PIECE ? size - done : PIECE;
        read_piece(file, (char *)to + done, piece);
        done += piece;
    }
    srv_repeat_end(&ahead);
    return file->err.code ? nn_fail(err, file->err.code, "%s", file->err.text) : NN_OK;
}

static void close_file(struct file *file) {
    if (file->file >= 0) file->io->close(file->io->self, file->file);
    XXH3_freeState(file->sums);
    free(file);
}

/* Checks that the file is there and has its size. */
static int look(struct file *file, const struct srv_file_sum *sum, struct nn_error *err) {
    int64_t size = file->file < 0 ? file->file : file->io->size(file->io->self, file->file);
    if (size < 0) return nn_fail(err, blame(size), "%s cannot be read: %s", file->name, strerror((int)-size));
    if (sum && sum->size != (uint64_t)size)
        return nn_fail(err, NN_E_CORRUPT, "%s is damaged: it has %lld bytes, and had %llu", file->name,
                       (long long)size, (unsigned long long)sum->size);
    file->source = (struct api_source){file, (uint64_t)size, read_next};
    return NN_OK;
}

static struct file *open_file(const struct srv_io *io, const char *name, const struct srv_file_sum *sum,
                              struct nn_error *err) {
    struct file *file = calloc(1, sizeof *file);
    if (!file || (sum && !(file->sums = XXH3_createState()))) {
        free(file);
        nn_fail(err, NN_E_NOMEM, "no memory to read %s", name);
        return NULL;
    }
    if (sum) {
        XXH3_64bits_reset(file->sums);
        file->sum = sum->sum;
    }
    file->io = io;
    snprintf(file->name, sizeof file->name, "%s", name);
    file->file = io->open(io->self, name);
    if (look(file, sum, err) == NN_OK) return file;
    close_file(file);
    return NULL;
}

/* Reads the rest of the file, to compare its checksum. */
static int check(struct file *file, struct nn_error *err) {
    char *scratch = malloc(PIECE);
    if (!scratch) return nn_fail(err, NN_E_NOMEM, "no memory to read %s", file->name);
    while (file->source.size > 0 && !file->err.code)
        read_piece(file, scratch, file->source.size < PIECE ? (size_t)file->source.size : PIECE);
    free(scratch);
    return file->err.code ? nn_fail(err, file->err.code, "%s", file->err.text) : NN_OK;
}

int srv_file_show(const struct srv_io *io, const char *name, const struct srv_file_sum *sum,
                  api_source_fn *take, void *arg, struct nn_error *err) {
    struct nn_error why = {0};
    struct file *file = open_file(io, name, sum, err);
    if (!file) return (int)err->code;
    if (take(arg, &file->source, &why) && check(file, err) == NN_OK)
        nn_fail(err, why.code, "%s: %s", name, why.text);
    close_file(file);
    return (int)err->code;
}

int srv_file_read(const struct srv_io *io, const char *name, const struct srv_file_sum *sum, void **bytes,
                  size_t *size, struct nn_error *err) {
    struct file *file = open_file(io, name, sum, err);
    if (!file) return (int)err->code;
    size_t length = (size_t)file->source.size;
    char *all = malloc(length + 1);
    if (!all)
        nn_fail(err, NN_E_NOMEM, "no memory for %s, of %zu bytes", name, length);
    else if (read_next(&file->source, all, length, err) == NN_OK)
        all[length] = '\0'; /* for callers that read it as text */
    close_file(file);
    if (err->code) {
        free(all);
        return (int)err->code;
    }
    *bytes = all;
    *size = length;
    return NN_OK;
}
