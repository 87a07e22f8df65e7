/* convert.h - the half of api_tensor_convert that reads JSON text (json_array.c). */
#ifndef API_CONVERT_H
#define API_CONVERT_H

#include "tensor.h"

/* Converts a tensor of JSON text. Parameters and errors as of api_tensor_convert. */
int api_json_array_convert(const struct api_tensor *tensor, enum nn_dtype to, void *out,
                           struct nn_error *err);

/* Records the error "element [0, 3] <what>" and returns its code. `index` counts elements in row-major order. */
int api_element_fail(struct nn_error *err, enum nn_code code, const struct nn_shape *shape, int64_t index,
                     const char *what);

#endif
