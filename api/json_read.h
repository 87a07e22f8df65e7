/* json_read.h - JSON text (RFC 8259) into jansson's values.
 *
 * Jansson's own reader ignores failed allocations while it collects a token: when memory is short it may
 * return a name that lacks a byte, or look for a string's end beyond its buffer. This one does not, and
 * bounds depth. */
#ifndef API_JSON_READ_H
#define API_JSON_READ_H

#include <jansson.h>

#include "api.h"

/* Any value, with nothing but white space around it. The arena is scratch. NULL with NN_E_MALFORMED
 * (duplicate members and U+0000 in strings included), NN_E_VALUE (an integer beyond 64 bits),
 * NN_E_NOT_FINITE (a number beyond a double) or NN_E_NOMEM. Nested API_JSON_DEPTH deep at most. */
json_t *api_json_read(const char *text, size_t size, struct nn_arena *arena, struct nn_error *err);

/* Takes arrays out of a document, {"member": {"name": [...]}}: is shown each where it begins, with the rest of the
 * text, and says in *span (0 before) how many bytes of it are to be taken for an empty array. False: an error, which
 * it has recorded. Names are in the arena. */
struct api_json_lifter {
    bool (*lift)(void *self, const char *member, const char *name, const char *text, size_t size,
                 size_t *span);
    void *self;
};
/* As api_json_read, within the limits of requests: NN_E_TOO_LARGE beyond them. `lifter` may be NULL. */
json_t *api_json_read_lifting(const char *text, size_t size, const struct api_json_lifter *lifter,
                              const struct api_limits *limits, struct nn_arena *arena, struct nn_error *err);

#endif
