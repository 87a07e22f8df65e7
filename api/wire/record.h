/* record.h - the record of one change of a model in the journal.
 *
 * A record is 8 bytes with the head's size (little-endian), the head (JSON, padded to a multiple of 8 bytes), and the
 * data. Members of the head:
 *
 *   format    API_FORMAT
 *   kind      request      the data are the request's body; recovery carries the request out again
 *             gradient     the data are the gradients of the trained parameters, and the statistics of the buffers, as
 *                          one block
 *             parameters   the data are all parameters after the change, as one block
 *             state        the data are a snapshot of the model after the change
 *   time      when the change was made, in milliseconds since 1970, for people only
 *   lived     an object: "life" identifies the process that wrote the record, and "alive" is how many milliseconds it
 *             had served by then. Idempotency-Keys age by it: see ../change/effect_stored.c
 *   model     the model's name
 *   version   the model's version after the change
 *   hash      XXH3 (64 bits) of the parameters before the change, at every API_HASH_VERSIONS-th version
 *   keys      the Idempotency-Keys of the change, with the answers that repetitions get. A state record with which
 *             the records of a model begin also has the keys of earlier changes, with their ages
 *
 * A request record also has method, path, name, query and encoding; "drawn", the random numbers that the request drew;
 * and for a pass from inputs "read", the version that it read. A gradient record also has accumulate, seen, lr, scale,
 * "only", a digit 0 or 1 for each parameter: whether the gradient names it; and "averaged": a round's buffers are there
 * in place of statistics. */
#ifndef API_RECORD_H
#define API_RECORD_H

#include <jansson.h>

#include "../../core/nn.h"

#define API_HASH_VERSIONS 64

/* The number of the format that this release writes. Heads of records, snapshots and key files have it as "format".
 * Where the member is absent, the format is 0: the first releases wrote no number. */
#define API_FORMAT 1
/* Reads the format of a stored document; `what` names it in errors, as in "a record". NN_E_CORRUPT: it is no format.
 * NN_E_STORE: a later release wrote it. The document is not damaged, and must
 * not be replaced. */
int api_format_read(const json_t *head, const char *what, int *format, struct nn_error *err);

struct api_record {
    json_t *head; /* owned */
    int format;
    const void *data;
    size_t size;
};

/* Reads a record; its data stay in `bytes`. NN_E_CORRUPT, NN_E_STORE (a later format), NN_E_NOMEM: then there is
 * nothing to free. */
int api_record_read(const void *bytes, size_t size, struct nn_arena *arena, struct api_record *record,
                    struct nn_error *err);
void api_record_fini(struct api_record *record);
/* The bytes of a record before its data, malloc'ed. `head` is consumed. NULL: memory is out, perhaps already when
 * json_pack made `head`, which is then NULL. */
void *api_record_head_take(json_t *head, size_t *size);

/* Members of a head, or of another document that the service wrote. A member that is absent or of another type reads as
 * "", 0 or false. */
const char *api_record_text(const json_t *head, const char *name);
int64_t api_record_integer(const json_t *head, const char *name);
double api_record_real(const json_t *head, const char *name);
bool api_record_flag(const json_t *head, const char *name);
/* 64 bits as 16 hexadecimal digits, and back. */
json_t *api_record_hex(uint64_t bits);
uint64_t api_record_bits(const json_t *hex);

#endif
