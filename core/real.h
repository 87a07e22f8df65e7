/* real.h - the number type of operators, optimizers and BLAS wrappers: `real` is float in one compilation of
 * their files and double in another. <tgmath.h> makes exp() mean expf() where `real` is float.
 *
 * x86-64 promises only SSE2. There, a further compilation for AVX2 is made of every file but the BLAS wrappers,
 * and table.c chooses by CPU. No file uses intrinsics: the compiler vectorises the loops. Both compilations
 * give the same bits, because AVX2 is enabled without FMA and an element's result depends on no other element. */
#ifndef NN_REAL_H
#define NN_REAL_H

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <tgmath.h>

/* NN_REAL_MAX is the greatest number. NN_SQUARE_MAX is a fourth of its root: sixteen squares of that size have a
 * finite sum. */
#ifdef NN_REAL_IS_DOUBLE
typedef double real;
#define NN_REAL_MAX       DBL_MAX
#define NN_SQUARE_MAX     0x1p510
#define NN_SUFFIXED(name) name##_f64
#else
typedef float real;
#define NN_REAL_MAX       FLT_MAX
#define NN_SQUARE_MAX     0x1p62F
#define NN_SUFFIXED(name) name##_f32
#endif

/* The arithmetic that depends on `real` being an ordinary number. A file uses these names in place of the plain
 * operations, so that a number type with further components needs new definitions here and nowhere else. They
 * take `real` and `wide` alike. */
typedef double wide;         /* the type of sums */
#define nn_re(x)     (x)     /* the part that comparisons look at */
#define nn_abs(x)    fabs(x) /* |x|, as a number of the same type */
#define nn_div(a, b) ((a) / (b))

/* Sums over many numbers are split into this many partial sums, so that their loops vectorise. The split decides the
 * order of the additions, and so the bits of the results. */
enum { NN_LANES = 16 };

/* `yes` or `no`. Both are computed, so that a loop around the choice vectorises. */
static inline real nn_choose(bool condition, real yes, real no) { return condition ? yes : no; }

#ifdef NN_AVX2
#define NN_VARIANT(name) NN_SUFFIXED(name##_avx2)
#else
#define NN_VARIANT(name) NN_SUFFIXED(name)
#endif

#define NN_OP(name)        NN_VARIANT(nn_op_##name)
#define NN_OPTIMIZER(name) NN_VARIANT(nn_optimizer_##name)

#endif
