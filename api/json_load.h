/* json_load.h - jansson's reader, made exact when memory is out.
 *
 * Jansson 2.14 ignores failed allocations while it collects a token, so a document could come out with a
 * byte missing. It is given an allocator that remembers a failure, and such a document is refused. */
#ifndef API_JSON_LOAD_H
#define API_JSON_LOAD_H

#include <jansson.h>

/* As json_loadb with JSON_REJECT_DUPLICATES and `flags`; memory that is out is always an error, whose code is
 * json_error_out_of_memory. */
json_t *api_json_load(const char *text, size_t size, size_t flags, json_error_t *error);

#endif
