/* files.h - files of a store that are written whole, and never again. */
#ifndef SRV_FILES_H
#define SRV_FILES_H

#include "../../api/store.h"
#include "io.h"

/* The size and checksum that a file must have. */
struct srv_file_sum {
    uint64_t size, sum; /* XXH3-64 */
};

/* Writes NAME~, syncs it, and renames it. The name is durable once the directory is synced. A failure leaves no file.
 * NN_E_STORE. */
int srv_file_write(const struct srv_io *io, const char *name, const struct api_segment *segments, size_t n,
                   struct srv_file_sum *sum, struct nn_error *err);
/* Reads a file, malloc'ed. `sum` NULL: any contents will do. NN_E_CORRUPT: the file is missing, or has another size or
 * sum. NN_E_STORE: it cannot be read now. NN_E_NOMEM. */
int srv_file_read(const struct srv_io *io, const char *name, const struct srv_file_sum *sum, void **bytes,
                  size_t *size, struct nn_error *err);
int srv_file_sync_names(const struct srv_io *io, struct nn_error *err);

/* Gives a file to `take` piece by piece, so that it is never in memory whole. Where `take` fails, the file is read to
 * its end: the failure may come of damage, and is then reported as damage. NN_E_CORRUPT, NN_E_NOMEM, or the error of
 * `take` behind the file's name. */
int srv_file_show(const struct srv_io *io, const char *name, const struct srv_file_sum *sum,
                  api_source_fn *take, void *arg, struct nn_error *err);

#endif
