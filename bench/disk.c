/* disk.c - what the disk under a store takes at the least for what a journal does. `disk DIR` writes its file there;
 * see support/job.h. A step's bytes are the samples that a body has: of float32 inputs, and of labels.
 *
 *     write       writes a step's bytes behind the last ones, into a file of 64 MB that has its room, and syncs
 *     write-8     syncs with every eighth step alone
 *
 * A full file gives way to a new one, as in a journal. */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/job.h"

#define FILE_BYTES ((size_t)64 << 20)

static const char *directory;

struct writing {
    size_t size; /* of a step */
    char *bytes;
    int file;
    size_t used;
    int together, unsynced;
};

static void must(bool done) { (void)bench_need(done ? &directory : NULL); }

static void begin_file(struct writing *w) {
    if (w->file >= 0) close(w->file);
    w->file = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    must(w->file >= 0 && fallocate(w->file, 0, 0, (off_t)FILE_BYTES) == 0 && fsync(w->file) == 0);
    w->used = 0;
}

static struct writing *begin(const struct bench_job *job, int together) {
    struct writing *w = bench_need(calloc(1, sizeof *w));
    size_t rows = (size_t)job->rows;
    *w = (struct writing){.size = rows * ((size_t)job->width[0] * sizeof(float) + sizeof(int64_t)),
                          .file = -1,
                          .together = together};
    must(w->size <= FILE_BYTES);
    w->bytes = bench_need(malloc(w->size));
    memset(w->bytes, 1, w->size);
    begin_file(w);
    return w;
}

static void *begin_one(const struct bench_job *job) { return begin(job, 1); }
static void *begin_eight(const struct bench_job *job) { return begin(job, 8); }

static void step(void *state) {
    struct writing *w = state;
    if (FILE_BYTES - w->used < w->size) begin_file(w);
    must(pwrite(w->file, w->bytes, w->size, (off_t)w->used) == (ssize_t)w->size);
    w->used += w->size;
    if (++w->unsynced < w->together) return;
    must(fdatasync(w->file) == 0);
    w->unsynced = 0;
}

static void end(void *state) {
    struct writing *w = state;
    close(w->file);
    free(w->bytes);
    free(w);
}

int main(int argc, char **argv) {
    static const struct bench_task tasks[] = {
        {"write", begin_one, step, end},
        {"write-8", begin_eight, step, end},
    };
    if (argc != 2) {
        fputs("usage: disk DIR\n", stderr);
        return EXIT_FAILURE;
    }
    directory = argv[1];
    return bench_serve(tasks, sizeof tasks / sizeof *tasks);
}
