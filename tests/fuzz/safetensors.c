/* Any header over data of up to 255 bytes; what the reader accepts must lie within the body. */
#include <stdlib.h>
#include <string.h>

#include "../../api/wire/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct api_safetensors *file, const unsigned char *body, size_t size) {
    for (size_t i = 0; i < file->n_tensors; i++) {
        const struct api_tensor *tensor = &file->tensors[i];
        const unsigned char *begin = tensor->data;
        size_t bytes = (size_t)nn_shape_elements(&tensor->shape) * api_dtype_size(tensor->dtype);
        if (begin < body || begin > body + size || bytes > (size_t)(body + size - begin)) abort();
    }
}

/* The first byte is the size of the data, the rest the header: random sizes would seldom fit. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    uint64_t header = size - 1;
    size_t whole = 8 + (size_t)header + data[0];
    unsigned char *body = calloc(1, whole);
    struct nn_arena *arena = nn_arena_new();
    if (body && arena) {
        memcpy(body, &header, 8);
        if (header) memcpy(body + 8, data + 1, (size_t)header);
        struct nn_error err = {0};
        struct api_safetensors file;
        if (!api_safetensors_read(body, whole, arena, &file, &err)) {
            check(&file, body, whole);
            api_safetensors_fini(&file);
        }
    }
    nn_arena_free(arena);
    free(body);
    return 0;
}
