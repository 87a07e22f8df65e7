/* logistic.h - σ(x) = 1 / (1 + e⁻ˣ). Where e⁻ˣ overflows, the quotient is 0, as it should be. */
#ifndef NN_LOGISTIC_H
#define NN_LOGISTIC_H

#include "../vexp.h"

static inline real nn_logistic(real x) { return 1 / (1 + nn_exp(-x)); }

#endif
