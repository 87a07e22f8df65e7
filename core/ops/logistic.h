/* logistic.h - σ(x) = 1 / (1 + e⁻ˣ) and σ(-x) = 1 - σ(x), both from e^-|x|, which never overflows. The difference
 * 1 - σ(x) would lose its digits where σ(x) is near 1. */
#ifndef NN_LOGISTIC_H
#define NN_LOGISTIC_H

#include "../vexp.h"

static inline real nn_logistic(real x) {
    real e = nn_exp(-nn_abs(x));
    return nn_div(nn_re(x) < 0 ? e : 1, 1 + e);
}

/* σ(x) and σ(-x) */
struct nn_logistic_pair {
    real of, of_minus;
};

static inline struct nn_logistic_pair nn_logistic_pair(real x) {
    real e = nn_exp(-nn_abs(x)), most = nn_div(1, 1 + e), least = nn_div(e, 1 + e);
    return (struct nn_logistic_pair){nn_re(x) < 0 ? least : most, nn_re(x) < 0 ? most : least};
}

/* log(1 + eˣ), the integral of σ; does not overflow. */
static inline real nn_softplus(real x) { return (nn_re(x) > 0 ? x : 0) + nn_log1p_exp(-nn_abs(x)); }

#endif
