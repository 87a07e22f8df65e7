/* json_read.h - reads JSON text (RFC 8259) into jansson's values.
 *
 * Jansson's own reader ignores failed allocations while it collects a token: when memory is short it may return a name
 * that lacks a byte, or look for a string's end beyond its buffer. This reader fails instead, and bounds the depth. */
#ifndef API_JSON_READ_H
#define API_JSON_READ_H

#include <jansson.h>

#include "../../core/nn.h"
#include "limits.h"

/* Reads any value; only white space may surround it. The arena holds scratch memory and counts the bytes of the values.
 * NULL: NN_E_MALFORMED (also for duplicate members, and U+0000 in strings), NN_E_VALUE (an integer beyond 64 bits),
 * NN_E_NOT_FINITE (a number beyond a double), NN_E_NOMEM, or the error with which the arena's bound refused. Values are
 * nested at most API_JSON_DEPTH deep. */
json_t *api_json_read(const char *text, size_t size, struct nn_arena *arena, struct nn_error *err);

/* An upper bound of the bytes that a value takes in memory, with everything in it. */
size_t api_json_bytes(const json_t *value);
/* The same for a member of an object whose value is a text. */
size_t api_json_member_bytes(const char *name, const char *text);

/* Takes arrays and texts out of a document while it is read. Names are in the arena. */
struct api_json_lifter {
    /* Called at each array of {"member": {"name": [...]}}, with the rest of the text. Sets *span (0 before) to the
     * bytes to be replaced by an empty array. False: an error, which the callee has recorded. NULL: no arrays are
     * taken. */
    bool (*lift)(void *self, const char *member, const char *name, const char *text, size_t size,
                 size_t *span);
    /* Called with each text of {"member": {...: {"name": text}}}. The text lies in the arena and may be changed. True
     * replaces it by an empty text. An error that the callee records ends the reading. */
    bool (*lift_text)(void *self, const char *member, const char *name, char *text);
    /* Called with the name of each member of the document, before its value is read. False: an error, which the callee
     * has recorded. NULL: all are allowed. */
    bool (*allow)(void *self, const char *member);
    void *self;
};
/* Like api_json_read, within the limits of requests: beyond them NN_E_TOO_LARGE. *values is the number of
 * values that the request has had so far; the values read here are added. `lifter` may be NULL. */
json_t *api_json_read_lifting(const char *text, size_t size, const struct api_json_lifter *lifter,
                              const struct api_limits *limits, int64_t *values, struct nn_arena *arena,
                              struct nn_error *err);

#endif
