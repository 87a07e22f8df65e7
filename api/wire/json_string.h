/* json_string.h - reads JSON strings into an arena, and recognises UTF-8. */
#ifndef API_JSON_STRING_H
#define API_JSON_STRING_H

#include "../../core/nn.h"

/* The bytes of the character at p, or 0 if it is not well-formed UTF-8 (RFC 3629). p < end. */
size_t api_utf8_size(const char *p, const char *end);

/* Reads the string whose opening quote is at *p, and moves *p behind its closing quote. NULL: NN_E_MALFORMED (also for
 * U+0000, which a C string cannot hold), NN_E_NOMEM. */
char *api_json_string_read(const char **p, const char *end, struct nn_arena *arena, struct nn_error *err);

#endif
