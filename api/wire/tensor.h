/* tensor.h - tensors on the wire: their types, and their conversion from and to core's types.
 *
 * A tensor of a request points into the body (or the arena) until it is converted, once, directly into core's memory.
 * An integer is converted exactly or refused; a number that is not finite is refused; a finite number that the
 * destination cannot hold (1e39 as F32) is refused. */
#ifndef API_TENSOR_H
#define API_TENSOR_H

#include "../../core/nn.h"

/* The types on the wire, with safetensors' names. */
enum api_dtype { API_F32, API_F64, API_F16, API_BF16, API_U8, API_I32, API_I64, API_BOOL, API_DTYPES };

size_t api_dtype_size(enum api_dtype dtype);
const char *api_dtype_name(enum api_dtype dtype);
/* The type of that name, or API_DTYPES. */
enum api_dtype api_dtype_find(const char *name);
enum api_dtype api_dtype_of(enum nn_dtype dtype);
bool api_dtype_is_float(enum api_dtype dtype);

/* One tensor of a request. Exactly one of json and data is set. */
struct api_tensor {
    const char *member;    /* "inputs": the map that holds the tensor; "" in a file of plain names */
    const char *name;      /* "x" */
    struct nn_shape shape; /* with the batch dimension */
    const char *json;      /* a nested array of numbers, scanned and not yet converted; */
    size_t json_size;
    const void *data;     /* or little-endian row-major elements, not necessarily aligned */
    enum api_dtype dtype; /* of data */
};

/* Scans the nested JSON array of numbers that begins at text[0], a '['. Finds its shape and its end, and checks JSON's
 * grammar of numbers. Booleans count as 0 and 1. An empty array has a dimension of 0. Returns the bytes of the array,
 * or 0 with the first error: NN_E_MALFORMED (not JSON, truncated), NN_E_SHAPE (ragged, too deep), NN_E_VALUE (an
 * element that is no number), NN_E_NOT_FINITE ("NaN", "Infinity", "-Infinity"), NN_E_SIZE. */
size_t api_json_array_scan(const char *text, size_t size, struct nn_shape *shape, struct nn_error *err);

/* Converts all elements into `out`, an array of type `to`. A decimal is rounded once, correctly. NN_E_NOT_FINITE or
 * NN_E_VALUE, with the element's index in the error's text. */
int api_tensor_convert(const struct api_tensor *tensor, enum nn_dtype to, void *out, struct nn_error *err);

/* Copies elements that already have the type `type`, at the speed of memory. False: an element is refused, and `out` is
 * written in part; api_tensor_convert then tells the error. */
bool api_elements_copy(const void *from, enum nn_dtype type, void *out, int64_t n,
                       const struct nn_parallel *par);

/* Converts n elements of core's to a wire type, rounding to nearest even. I64 converts to I64 only. */
void api_elements_convert(const void *from, enum nn_dtype from_type, void *to, enum api_dtype to_type,
                          int64_t n);

/* Widens n elements of a floating-point wire type of at most 32 bits to float. */
void api_elements_widen(const void *from, enum api_dtype from_type, float *to, int64_t n);

/* A text that grows as parts are appended. The functions fail only for lack of memory, and set `failed`. */
struct api_text {
    char *data;
    size_t size, room;
    bool failed;
};
void api_text_add(struct api_text *text, const char *bytes, size_t size);
void api_text_puts(struct api_text *text, const char *string);
/* Appends a JSON string with its quotes, escaped. Bytes that are not UTF-8 become U+FFFD. */
void api_text_quote(struct api_text *text, const char *string);
void api_text_free(struct api_text *text);
/* Appends a nested array. A number is the shortest decimal that reads back as the same value of its type. A real has a
 * point or an exponent (3.0), so that no reader takes it for an integer. "NaN", "Infinity" and "-Infinity" are strings.
 * Rank 0 gives a bare number. */
void api_text_array(struct api_text *text, const void *data, enum nn_dtype dtype,
                    const struct nn_shape *shape);
/* Upper bounds of the bytes that api_text_quote and api_text_array append. */
size_t api_text_quote_bound(const char *string);
size_t api_text_array_bound(enum nn_dtype dtype, const struct nn_shape *shape);

/* Base64 (RFC 4648, section 4, padded). Decodes into `out`, which holds `room` bytes and may be `text`. Returns the
 * number of bytes. -1: the text is not base64, or does not fit. */
int64_t api_base64_decode(const char *text, size_t size, void *out, size_t room);

#endif
