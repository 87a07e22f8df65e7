/* convert.h - what the halves of api_tensor_convert share. */
#ifndef API_CONVERT_H
#define API_CONVERT_H

#include "tensor.h"

/* The JSON half; `out` as for api_tensor_convert. */
int api_json_array_convert(const struct api_tensor *tensor, enum nn_dtype to, void *out,
                           struct nn_error *err);

/* "element [0, 3] <what>", where `index` counts in row-major order. */
int api_element_fail(struct nn_error *err, enum nn_code code, const struct nn_shape *shape, int64_t index,
                     const char *what);

#endif
