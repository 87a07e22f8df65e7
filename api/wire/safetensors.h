/* safetensors.h - reads and writes the safetensors format, strictly.
 *
 * Layout: 8 bytes little-endian header size N, N bytes of JSON, then the data. The header maps each tensor's name to
 * {"dtype", "shape", "data_offsets": [begin, end)}, and "__metadata__" to strings. Offsets are relative to the data and
 * cover all of it without gaps or overlaps, in any order. */
#ifndef API_SAFETENSORS_H
#define API_SAFETENSORS_H

#include <jansson.h>

#include "../../core/nn.h"
#include "limits.h"
#include "tensor.h"

struct api_safetensors {
    json_t *metadata;           /* an object of strings, perhaps empty; owned */
    struct api_tensor *tensors; /* names in the arena, data in the body; `member` is "" */
    size_t n_tensors;
};

/* Reads a whole file. The data stay in `body`; tensors are in the header's order. Dimensions of 0 are allowed.
 * NN_E_MALFORMED (truncated, overlapping, gaps, not JSON, duplicate names, unknown members), NN_E_DTYPE (a type that
 * gradd does not know), NN_E_SHAPE (rank above NN_MAX_RANK), NN_E_SIZE, NN_E_NOMEM. On failure there is nothing to
 * free. */
int api_safetensors_read(const void *body, size_t size, struct nn_arena *arena, struct api_safetensors *out,
                         struct nn_error *err);
/* The same, within the limits of requests (NULL: none): beyond them NN_E_TOO_LARGE. */
int api_safetensors_read_within(const void *body, size_t size, const struct api_limits *limits,
                                struct nn_arena *arena, struct api_safetensors *out, struct nn_error *err);
void api_safetensors_fini(struct api_safetensors *file);

/* For a file that is read part by part: the size of the header, out of the first API_SAFETENSORS_PREFIX bytes of a file
 * of `size` bytes. NN_E_MALFORMED, NN_E_SIZE. */
#define API_SAFETENSORS_PREFIX 8
int api_safetensors_header_size(const void *prefix, uint64_t size, size_t *header, struct nn_error *err);
/* Reads the header that stands behind the prefix, in front of `data_size` bytes of data. The tensors are in the order
 * of their data, and their `data` is not set. Errors as of api_safetensors_read. */
int api_safetensors_read_header(const void *header, size_t size, uint64_t data_size, struct nn_arena *arena,
                                struct api_safetensors *out, struct nn_error *err);

/* The first part of a file, up to the data: sizes and header, padded with spaces so that the data begin at a multiple
 * of 8. `metadata` is an object of strings, or NULL. The tensors are written in the given order. Malloc'ed; NULL:
 * memory is out. */
struct api_tensor_out {
    const char *member, *name; /* the name is member/name; where member is "", the name alone */
    struct nn_shape shape;
    enum api_dtype dtype;
};
void *api_safetensors_header(const json_t *metadata, const struct api_tensor_out *tensors, size_t n,
                             size_t *size);

#endif
