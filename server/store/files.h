/* files.h - files of a store that are written once, and whole. */
#ifndef SRV_FILES_H
#define SRV_FILES_H

#include "../../api/store.h"
#include "io.h"

/* What a file has to be. */
struct srv_file_sum {
    uint64_t size, sum; /* XXH3-64 */
};

/* Written under `name`~, synced, renamed; its name is durable once the directory has been synced. What a failure
 * leaves is removed. NN_E_STORE. */
int srv_file_write(const struct srv_io *io, const char *name, const struct api_segment *segments, size_t n,
                   struct srv_file_sum *sum, struct nn_error *err);
/* malloc'ed. `sum` NULL: it may be anything. NN_E_CORRUPT: it is not there, or is not what it has to be;
 * NN_E_STORE: it cannot be read now; NN_E_NOMEM. */
int srv_file_read(const struct srv_io *io, const char *name, const struct srv_file_sum *sum, void **bytes,
                  size_t *size, struct nn_error *err);
int srv_file_sync_names(const struct srv_io *io, struct nn_error *err);

/* Shows it to `take` piece by piece, without the memory for it. A damaged file may lead anywhere before its checksum
 * is known: so where `take` fails it is read to its end, and told of as damaged if it is. NN_E_CORRUPT, NN_E_NOMEM, and
 * what else `take` fails with, behind the file's name. */
int srv_file_show(const struct srv_io *io, const char *name, const struct srv_file_sum *sum,
                  api_source_fn *take, void *arg, struct nn_error *err);

#endif
