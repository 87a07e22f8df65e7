/* table.c - the operators, losses and optimizers, by index, by name, by type, and for this CPU. */
#include <assert.h>
#include <string.h>

#include "op.h"

/* Each row binds the compilations of one file, by set of instructions and type; the definition shown is that
 * of the first. */
#ifdef __x86_64__
enum { ISAS = NN_ISA_AVX2 + 1 };
#define DECLARE(type, name) extern const struct type name##_f32, name##_f64, name##_avx2_f32, name##_avx2_f64;
#define VARIANTS(name)                                                                                       \
    {                                                                                                        \
        [NN_ISA_BASE] = {[NN_F32] = &name##_f32, [NN_F64] = &name##_f64},                                    \
        [NN_ISA_AVX2] = {[NN_F32] = &name##_avx2_f32, [NN_F64] = &name##_avx2_f64},                          \
    }

enum nn_isa nn_isa_here(void) { return __builtin_cpu_supports("avx2") ? NN_ISA_AVX2 : NN_ISA_BASE; }
#else
enum { ISAS = NN_ISA_BASE + 1 };
#define DECLARE(type, name) extern const struct type name##_f32, name##_f64;
#define VARIANTS(name)                                                                                       \
    {                                                                                                        \
        [NN_ISA_BASE] = { [NN_F32] = &name##_f32, [NN_F64] = &name##_f64 }                                   \
    }

enum nn_isa nn_isa_here(void) { return NN_ISA_BASE; }
#endif

const char *nn_loops_name(void) { return nn_isa_here() == NN_ISA_BASE ? "base" : "avx2"; }

#define NN_ROW(name) DECLARE(nn_op, nn_op_##name)
#include "ops.def"
#undef NN_ROW

static const struct nn_op *const ops[][ISAS][2] = {
#define NN_ROW(name) VARIANTS(nn_op_##name),
#include "ops.def"
#undef NN_ROW
};

#define NN_ROW(name) DECLARE(nn_optimizer_op, nn_optimizer_##name)
#include "optimizers.def"
#undef NN_ROW

static const struct nn_optimizer_op *const optimizers[][ISAS][2] = {
#define NN_ROW(name) VARIANTS(nn_optimizer_##name),
#include "optimizers.def"
#undef NN_ROW
};

DECLARE(nn_kernels, nn_kernels)
static const struct nn_kernels *const kernels[ISAS][2] = VARIANTS(nn_kernels);

enum { OPS = sizeof ops / sizeof ops[0], OPTIMIZERS = sizeof optimizers / sizeof optimizers[0] };

static const struct nn_def *op_def(int i) { return &ops[i][NN_ISA_BASE][NN_F32]->def; }

static const struct nn_def *optimizer_def(int i) { return &optimizers[i][NN_ISA_BASE][NN_F32]->def; }

const struct nn_def *nn_op_def(int index) { return index >= 0 && index < OPS ? op_def(index) : NULL; }

const struct nn_def *nn_optimizer_def(int index) {
    return index >= 0 && index < OPTIMIZERS ? optimizer_def(index) : NULL;
}

const struct nn_def *nn_op_find(const char *name) {
    for (int i = 0; i < OPS; i++)
        if (strcmp(op_def(i)->name, name) == 0) return op_def(i);
    return NULL;
}

const struct nn_def *nn_optimizer_find(const char *name) {
    for (int i = 0; i < OPTIMIZERS; i++)
        if (strcmp(optimizer_def(i)->name, name) == 0) return optimizer_def(i);
    return NULL;
}

const struct nn_op *nn_op_in(enum nn_isa isa, const struct nn_def *def, enum nn_dtype dtype) {
    assert((int)isa < ISAS && (dtype == NN_F32 || dtype == NN_F64));
    for (int i = 0; i < OPS; i++)
        if (op_def(i) == def) return ops[i][isa][dtype];
    assert(false && "a definition from the table of operators");
    return NULL;
}

const struct nn_optimizer_op *nn_optimizer_in(enum nn_isa isa, const struct nn_def *def,
                                              enum nn_dtype dtype) {
    assert((int)isa < ISAS && (dtype == NN_F32 || dtype == NN_F64));
    for (int i = 0; i < OPTIMIZERS; i++)
        if (optimizer_def(i) == def) return optimizers[i][isa][dtype];
    assert(false && "a definition from the table of optimizers");
    return NULL;
}

const struct nn_kernels *nn_kernels_in(enum nn_isa isa, enum nn_dtype dtype) {
    assert((int)isa < ISAS && (dtype == NN_F32 || dtype == NN_F64));
    return kernels[isa][dtype];
}

const struct nn_op *nn_op_of(const struct nn_def *def, enum nn_dtype dtype) {
    return nn_op_in(nn_isa_here(), def, dtype);
}

const struct nn_optimizer_op *nn_optimizer_of(const struct nn_def *def, enum nn_dtype dtype) {
    return nn_optimizer_in(nn_isa_here(), def, dtype);
}

const struct nn_kernels *nn_kernels_of(enum nn_dtype dtype) { return nn_kernels_in(nn_isa_here(), dtype); }
