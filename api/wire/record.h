/* record.h - a change as it stands in the journal.
 *
 * Bytes: the size of the head (8, little-endian), the head (JSON, padded to a multiple of 8), and behind it the
 * data. Members of the head:
 *
 *   kind      request      data are the body; it is carried out again, at the version that it had read
 *             gradient     data are the block of the trainable parameters' gradients
 *             parameters   data are the block of all parameters, as they become
 *             state        data are a snapshot, which the model becomes
 *   time      milliseconds since 1970
 *   model     whose change it is
 *   version   that the model has afterwards
 *   hash      of the parameters before it, at every API_HASH_VERSIONS-th version: XXH3, 64 bits
 *   keys      what its Idempotency-Keys stand for: see effect.h; of a state that is to be a basis, those of the
 *             changes in it that have no records, with the times of their own
 *
 *   request:  method, path, name, query, encoding; read, a version, and drawn, random numbers, where there are
 *   gradient: accumulate, seen, lr, scale, only (by parameter: 0 or 1) */
#ifndef API_RECORD_H
#define API_RECORD_H

#include <jansson.h>

#include "../../core/nn.h"

#define API_HASH_VERSIONS 64

struct api_record {
    json_t *head; /* owned */
    const void *data;
    size_t size;
};

/* Reads a record, whose data stay in `bytes`. NN_E_CORRUPT, NN_E_NOMEM; there is nothing to free then. */
int api_record_read(const void *bytes, size_t size, struct nn_arena *arena, struct api_record *record,
                    struct nn_error *err);
void api_record_fini(struct api_record *record);
/* What stands before the data; malloc'ed, NULL when memory is out. `head` is consumed, and may be NULL for that. */
void *api_record_head_take(json_t *head, size_t *size);

/* Members of a head, or of another document that the service wrote: absent or of another type, "", 0 or false. */
const char *api_record_text(const json_t *head, const char *name);
int64_t api_record_integer(const json_t *head, const char *name);
double api_record_real(const json_t *head, const char *name);
bool api_record_flag(const json_t *head, const char *name);
/* A number of 64 bits as 16 digits, and back. */
json_t *api_record_hex(uint64_t bits);
uint64_t api_record_bits(const json_t *hex);

#endif
