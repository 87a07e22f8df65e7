/* json_string.h - strings of JSON: reading one into an arena, and what is UTF-8. */
#ifndef API_JSON_STRING_H
#define API_JSON_STRING_H

#include "../../core/nn.h"

/* Bytes of the one character at p, or 0 if it is not well-formed UTF-8 (RFC 3629). p < end. */
size_t api_utf8_size(const char *p, const char *end);

/* Reads the string whose opening quote is at *p, strictly, and moves *p behind its closing quote. NULL with
 * NN_E_MALFORMED (also for U+0000, which a C string does not hold) or NN_E_NOMEM. */
char *api_json_string_read(const char **p, const char *end, struct nn_arena *arena, struct nn_error *err);

#endif
