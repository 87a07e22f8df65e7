/* real.h - the one type that operators, optimizers and BLAS wrappers are compiled for, twice.
 * <tgmath.h> makes exp() mean expf() where `real` is float.
 *
 * On x86-64, which promises no more than SSE2, all but the BLAS wrappers are compiled for AVX2 as well, and
 * table.c takes what the CPU has. There are no intrinsics: loops are written so that a compiler vectorises
 * them. AVX2 is given without FMA, and every number is computed by itself, so both give the same bits. */
#ifndef NN_REAL_H
#define NN_REAL_H

#include <math.h>
#include <tgmath.h>

#ifdef NN_REAL_IS_DOUBLE
typedef double real;
#define NN_SUFFIXED(name) name##_f64
#else
typedef float real;
#define NN_SUFFIXED(name) name##_f32
#endif

#ifdef NN_AVX2
#define NN_VARIANT(name) NN_SUFFIXED(name##_avx2)
#else
#define NN_VARIANT(name) NN_SUFFIXED(name)
#endif

#define NN_OP(name)        NN_VARIANT(nn_op_##name)
#define NN_OPTIMIZER(name) NN_VARIANT(nn_optimizer_##name)

#endif
