/* history.h - what a service wrote down in its life, records and snapshots, and what becomes of them when somebody
 * meddles with them. */
#ifndef FUZZ_HISTORY_H
#define FUZZ_HISTORY_H

#include <jansson.h>

#include "grammar.h"
#include "store.h"

/* Of models "m" and "f64", which learn, and "n", which has no optimizer and of which there are snapshots alone. The
 * same at every call. */
const struct fuzz_store *fuzz_history(void);

/* A step of "m". */
#define FUZZ_STEP                                                                                            \
    "{\"model\": \"m\", \"apply\": true, \"inputs\": {\"x\": [[1, 2, 3], [3, 4, -1]]}, \"targets\": "        \
    "{\"y\": "                                                                                               \
    "[[0, 1], [1, 0]]}}"

/* The bytes up to the next 0x1e, or all that are left. */
struct fuzz_bytes fuzz_part(struct fuzz_bytes *bytes);

/* What a record and a snapshot are alike: the length of a head in 8 bytes, the head in JSON, and data. */
struct fuzz_headed {
    char *bytes; /* malloc'ed */
    size_t size;
};
struct fuzz_headed fuzz_compose(const void *head, size_t head_size, const void *data, size_t size);
/* A good one, of whose parts `spoil` has made others. */
struct fuzz_headed fuzz_spoilt(struct fuzz_bytes *bytes, const char *good, size_t good_size,
                               void (*spoil)(struct fuzz_bytes *bytes, json_t *head, char *data,
                                             size_t *size));

/* Some members are taken out, or get other values, or values of one another; within objects and lists too. */
void fuzz_spoil_json(struct fuzz_bytes *bytes, json_t *object);
/* Bytes are changed, and the end cut off. */
void fuzz_spoil_data(struct fuzz_bytes *bytes, char *data, size_t *size);

#endif
