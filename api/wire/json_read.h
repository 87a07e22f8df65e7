/* json_read.h - JSON text (RFC 8259) into jansson's values.
 *
 * Jansson's own reader ignores failed allocations while it collects a token: when memory is short it may
 * return a name that lacks a byte, or look for a string's end beyond its buffer. This one does not, and
 * bounds depth. */
#ifndef API_JSON_READ_H
#define API_JSON_READ_H

#include <jansson.h>

#include "../api.h"

/* Any value, with nothing but white space around it. The arena is scratch, and counts what the values take: where it is
 * bound, so are they, and `err` is what its refusal has left there. NULL with NN_E_MALFORMED
 * (duplicate members and U+0000 in strings included), NN_E_VALUE (an integer beyond 64 bits),
 * NN_E_NOT_FINITE (a number beyond a double) or NN_E_NOMEM. Nested API_JSON_DEPTH deep at most. */
json_t *api_json_read(const char *text, size_t size, struct nn_arena *arena, struct nn_error *err);

/* What a value and all in it take of memory, at most. */
size_t api_json_bytes(const json_t *value);
/* The same of an object's member whose value is a text. */
size_t api_json_member_bytes(const char *name, const char *text);

/* Takes arrays out of a document, {"member": {"name": [...]}}: is shown each where it begins, with the rest of the
 * text, and says in *span (0 before) how many bytes of it are to be taken for an empty array. False: an error, which
 * it has recorded. Names are in the arena. */
struct api_json_lifter {
    bool (*lift)(void *self, const char *member, const char *name, const char *text, size_t size,
                 size_t *span);
    /* Is shown each text {"member": {...: {"name": text}}}, which lies in the arena and may be changed; true takes it
     * out, for an empty one. An error that it records ends the reading. */
    bool (*lift_text)(void *self, const char *member, const char *name, char *text);
    void *self;
};
/* As api_json_read, within the limits of requests: NN_E_TOO_LARGE beyond them. `values` are those that the request has had
 * so far, and has then. `lifter` may be NULL. */
json_t *api_json_read_lifting(const char *text, size_t size, const struct api_json_lifter *lifter,
                              const struct api_limits *limits, int64_t *values, struct nn_arena *arena,
                              struct nn_error *err);

#endif
