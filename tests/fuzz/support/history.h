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
/* Some members are taken out, or get other values, or values of one another; within objects and lists too. */
void fuzz_spoil_json(struct fuzz_bytes *bytes, json_t *object);
/* Bytes are changed, and the end cut off. */
void fuzz_spoil_data(struct fuzz_bytes *bytes, char *data, size_t *size);

#endif
