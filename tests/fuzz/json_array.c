/* Any text that begins an array: scanned, and what the scan accepts converted to each type. */
#include <stdlib.h>
#include <string.h>

#include "../../api/wire/tensor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1); /* of just this size, for the sanitizer's sake */
    if (!text) return 0;
    text[0] = '[';
    if (size) memcpy(text + 1, data, size);
    struct nn_error err = {0};
    struct api_tensor tensor = {.json = text};
    tensor.json_size = api_json_array_scan(text, size + 1, &tensor.shape, &err);
    if ((tensor.json_size == 0) != (err.code != NN_OK)) abort();
    void *out = tensor.json_size ? malloc((size_t)nn_shape_elements(&tensor.shape) * 8 + 1) : NULL;
    for (enum nn_dtype to = NN_F32; out && to <= NN_I64; to++) {
        err.code = NN_OK;
        if (api_tensor_convert(&tensor, to, out, &err) != (int)err.code) abort();
    }
    free(out);
    free(text);
    return 0;
}
