/* real.h - the one type that operators, optimizers and BLAS wrappers are compiled for, twice.
 * <tgmath.h> makes exp() mean expf() where `real` is float. */
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

#define NN_OP(name)        NN_SUFFIXED(nn_op_##name)
#define NN_OPTIMIZER(name) NN_SUFFIXED(nn_optimizer_##name)

#endif
