/* table.c - the operators, losses and optimizers, by index, by name and by type. */
#include <assert.h>
#include <string.h>

#include "op.h"

/* Each row binds the two compilations of one file; the definition shown is that of the first. */
#define NN_ROW(name) extern const struct nn_op nn_op_##name##_f32, nn_op_##name##_f64;
#include "ops.def"
#undef NN_ROW

static const struct nn_op *const ops[][2] = {
#define NN_ROW(name) {[NN_F32] = &nn_op_##name##_f32, [NN_F64] = &nn_op_##name##_f64},
#include "ops.def"
#undef NN_ROW
};

#define NN_ROW(name) extern const struct nn_optimizer_op nn_optimizer_##name##_f32, nn_optimizer_##name##_f64;
#include "optimizers.def"
#undef NN_ROW

static const struct nn_optimizer_op *const optimizers[][2] = {
#define NN_ROW(name) {[NN_F32] = &nn_optimizer_##name##_f32, [NN_F64] = &nn_optimizer_##name##_f64},
#include "optimizers.def"
#undef NN_ROW
};

extern const struct nn_kernels nn_kernels_f32, nn_kernels_f64;

enum { OPS = sizeof ops / sizeof ops[0], OPTIMIZERS = sizeof optimizers / sizeof optimizers[0] };

const struct nn_def *nn_op_def(int index) {
    return index >= 0 && index < OPS ? &ops[index][NN_F32]->def : NULL;
}

const struct nn_def *nn_optimizer_def(int index) {
    return index >= 0 && index < OPTIMIZERS ? &optimizers[index][NN_F32]->def : NULL;
}

const struct nn_def *nn_op_find(const char *name) {
    for (int i = 0; i < OPS; i++)
        if (strcmp(ops[i][NN_F32]->def.name, name) == 0) return &ops[i][NN_F32]->def;
    return NULL;
}

const struct nn_def *nn_optimizer_find(const char *name) {
    for (int i = 0; i < OPTIMIZERS; i++)
        if (strcmp(optimizers[i][NN_F32]->def.name, name) == 0) return &optimizers[i][NN_F32]->def;
    return NULL;
}

const struct nn_op *nn_op_of(const struct nn_def *def, enum nn_dtype dtype) {
    assert(dtype == NN_F32 || dtype == NN_F64);
    for (int i = 0; i < OPS; i++)
        if (&ops[i][NN_F32]->def == def) return ops[i][dtype];
    assert(false && "a definition from the table of operators");
    return NULL;
}

const struct nn_optimizer_op *nn_optimizer_of(const struct nn_def *def, enum nn_dtype dtype) {
    assert(dtype == NN_F32 || dtype == NN_F64);
    for (int i = 0; i < OPTIMIZERS; i++)
        if (&optimizers[i][NN_F32]->def == def) return optimizers[i][dtype];
    assert(false && "a definition from the table of optimizers");
    return NULL;
}

const struct nn_kernels *nn_kernels_of(enum nn_dtype dtype) {
    assert(dtype == NN_F32 || dtype == NN_F64);
    return dtype == NN_F32 ? &nn_kernels_f32 : &nn_kernels_f64;
}
