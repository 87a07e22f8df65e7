/* shape.c - types, shapes, and the one place where the size of a tensor is checked. */
#include <stdio.h>

#include "nn.h"

static const struct {
    size_t size;
    const char *name;
} dtypes[] = {[NN_F32] = {4, "F32"}, [NN_F64] = {8, "F64"}, [NN_I64] = {8, "I64"}};

size_t nn_dtype_size(enum nn_dtype dtype) { return dtypes[dtype].size; }
const char *nn_dtype_name(enum nn_dtype dtype) { return dtypes[dtype].name; }

bool nn_shape_equal(const struct nn_shape *a, const struct nn_shape *b) {
    if (a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

int64_t nn_shape_elements(const struct nn_shape *shape) {
    int64_t n = 1;
    for (int i = 0; i < shape->rank; i++) n *= shape->dim[i];
    return n;
}

int nn_shape_check(const struct nn_shape *shape, struct nn_error *err) {
    int64_t n = 1;
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dim[i] < 1)
            return nn_fail(err, NN_E_VALUE, "dimension %d is %lld, and must be at least 1", i,
                           (long long)shape->dim[i]);
        if (__builtin_mul_overflow(n, shape->dim[i], &n) || n > NN_MAX_ELEMENTS)
            return nn_fail(err, NN_E_SIZE, "a tensor has at most %lld elements", (long long)NN_MAX_ELEMENTS);
    }
    return NN_OK;
}

struct nn_shape nn_shape_batch(int64_t rows, const struct nn_shape *sample) {
    struct nn_shape batch = {.rank = sample->rank + 1, .dim = {rows}};
    for (int i = 0; i < sample->rank; i++) batch.dim[i + 1] = sample->dim[i];
    return batch;
}

const char *nn_shape_text(const struct nn_shape *shape, char *text, size_t size) {
    size_t used = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < shape->rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%lld", i ? ", " : "", (long long)shape->dim[i]);
    if (used < size) snprintf(text + used, size - used, "]");
    return text;
}
