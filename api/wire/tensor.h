/* tensor.h - tensors on the wire: types, conversion at the edge, and the two encodings' raw forms.
 *
 * A tensor that came in is a view into the request's body (or its arena) until it is converted, once,
 * straight to where core wants it. Integers are converted exactly or not at all; a number that is not
 * finite is never accepted; a finite number that the destination cannot hold (1e39 as F32) is refused. */
#ifndef API_TENSOR_H
#define API_TENSOR_H

#include "../../core/nn.h"

/* Types on the wire, with the names that safetensors gives them. */
enum api_dtype { API_F32, API_F64, API_F16, API_BF16, API_U8, API_I32, API_I64, API_BOOL, API_DTYPES };

size_t api_dtype_size(enum api_dtype dtype);
const char *api_dtype_name(enum api_dtype dtype);
/* By name; API_DTYPES if there is none. */
enum api_dtype api_dtype_find(const char *name);
enum api_dtype api_dtype_of(enum nn_dtype dtype);
bool api_dtype_is_float(enum api_dtype dtype);

/* One tensor of a request. Exactly one of json and data is set. */
struct api_tensor {
    const char *member;    /* "inputs": the top-level member it stood in; "" in a plain state_dict file */
    const char *name;      /* "x" */
    struct nn_shape shape; /* of the whole tensor, the batch dimension included */
    const char *json;      /* a nested array of numbers, scanned but not yet converted, */
    size_t json_size;
    const void *data;     /* or little-endian row-major elements, not necessarily aligned */
    enum api_dtype dtype; /* of data */
};

/* Walks one nested JSON array of numbers at text[0], which is '['. Finds its shape and its end, checking
 * JSON's grammar of numbers strictly. Returns the bytes it spans, or 0 with `err` set: NN_E_MALFORMED
 * (not JSON, truncated), NN_E_SHAPE (ragged, too deep), NN_E_VALUE (something else than a number in it),
 * NN_E_NOT_FINITE ("NaN", "Infinity", "-Infinity"), NN_E_SIZE; the first fault is the one reported. Booleans stand for 0 and 1. An empty array has a dimension of 0. */
size_t api_json_array_scan(const char *text, size_t size, struct nn_shape *shape, struct nn_error *err);

/* Converts all elements into `out`: reals of F32 or F64, or I64. NN_E_NOT_FINITE, NN_E_VALUE with the
 * index of the element at fault in the text. JSON decimals are rounded correctly, once, to `to`. */
int api_tensor_convert(const struct api_tensor *tensor, enum nn_dtype to, void *out, struct nn_error *err);

/* The same for elements of the type that they are to have, at the speed of memory. False, with `out` half
 * written: it is for api_tensor_convert to say what is wrong. */
bool api_elements_copy(const void *from, enum nn_dtype type, void *out, int64_t n,
                       const struct nn_parallel *par);

/* Converts n elements of core's to a wire type; I64 only to I64. Rounds to nearest even. */
void api_elements_convert(const void *from, enum nn_dtype from_type, void *to, enum api_dtype to_type,
                          int64_t n);

/* Widens n elements of a floating-point wire type of at most 32 bits. */
void api_elements_widen(const void *from, enum api_dtype from_type, float *to, int64_t n);

/* Appends to a growing text buffer. All fail with NN_E_NOMEM only, kept in `failed`. */
struct api_text {
    char *data;
    size_t size, room;
    bool failed;
};
void api_text_add(struct api_text *text, const char *bytes, size_t size);
void api_text_puts(struct api_text *text, const char *string);
/* A JSON string with its quotes, escaped; bytes that are not UTF-8 become U+FFFD. */
void api_text_quote(struct api_text *text, const char *string);
void api_text_free(struct api_text *text);
/* A nested array; numbers are the shortest decimals that read back as the same value of that type, reals
 * always with a point or an exponent (3.0), so that readers do not take them for integers; "NaN", "Infinity" and "-Infinity" are strings. Rank 0 gives a bare number. */
void api_text_array(struct api_text *text, const void *data, enum nn_dtype dtype,
                    const struct nn_shape *shape);
/* What they add at most. */
size_t api_text_quote_bound(const char *string);
size_t api_text_array_bound(enum nn_dtype dtype, const struct nn_shape *shape);

/* Base64 (RFC 4648, section 4, padded). Decodes into `out`, which has room for `room` bytes and may be `text`; returns the
 * bytes, or -1 if the text is not base64 or does not fit. */
int64_t api_base64_decode(const char *text, size_t size, void *out, size_t room);

#endif
