/* adam.h - the update of adam and adamw, which differ in where the weight decay goes. As torch.optim:
 *   m ← β₁ m + (1 - β₁) g,  v ← β₂ v + (1 - β₂) g²
 *   w ← w - lr / (1 - β₁ᵗ) · m / (√(v / (1 - β₂ᵗ)) + eps);  amsgrad: the greatest v so far for v
 * t counts the steps of a parameter, from 1. */
#ifndef NN_ADAM_H
#define NN_ADAM_H

#include "../op.h"
#include "average.h"

enum { NN_ADAM_BETAS = NN_OPTIMIZER_ATTRS, NN_ADAM_EPS, NN_ADAM_DECAY, NN_ADAM_AMSGRAD };

static const double nn_adam_betas[] = {0.9, 0.999};

#define NN_ADAM_ROWS(decay, decay_text)                                                                      \
    NN_OPTIMIZER_ROWS(0.001),                                                                                \
        {.name = "betas",                                                                                    \
         .type = NN_REALS,                                                                                   \
         .min = 0,                                                                                           \
         .max = 1,                                                                                           \
         .max_open = true,                                                                                   \
         .list_default = nn_adam_betas,                                                                      \
         .list_min = 2,                                                                                      \
         .list_max = 2,                                                                                      \
         .text = "decay rates of the two averages"},                                                         \
        NN_EPS_ROW(1e-8), NN_WEIGHT_DECAY_ROW(decay, decay_text), {                                          \
        .name = "amsgrad", .type = NN_BOOL, .text = "divide by the greatest second moment so far"            \
    }

enum { NN_ADAM_M, NN_ADAM_V, NN_ADAM_MAX_V };
#define NN_ADAM_SLOTS                                                                                        \
    { "exp_avg", "exp_avg_sq", "max_exp_avg_sq" }

static inline bool nn_adam_uses(const union nn_attr_value *a, int slot) {
    return slot != NN_ADAM_MAX_V || a[NN_ADAM_AMSGRAD].b;
}

/* The constants of one update. */
struct nn_adam {
    real scale, add, keep1, new1, keep2, new2, step, root, eps, keep_w;
};

static inline real nn_adam_gradient(struct nn_adam k, real g, real w) { return k.scale * g + k.add * w; }
static inline real nn_adam_m(struct nn_adam k, real m, real g) { return nn_average(m, g, k.keep1, k.new1); }
static inline real nn_adam_v(struct nn_adam k, real v, real g) { return k.keep2 * v + k.new2 * g * g; }
static inline real nn_adam_w(struct nn_adam k, real w, real m, real v) {
    return k.keep_w * w - nn_div(k.step * m, nn_div(sqrt(v), k.root) + k.eps);
}

/* Separate functions: `restrict` on their parameters tells the compiler that no array overlaps another. */
static inline void nn_adam_plain(struct nn_adam k, const real *restrict w, const real *restrict gradient,
                                 real *restrict next, real *restrict m, real *restrict v, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        real g = nn_adam_gradient(k, gradient[i], w[i]);
        m[i] = nn_adam_m(k, m[i], g);
        v[i] = nn_adam_v(k, v[i], g);
        next[i] = nn_adam_w(k, w[i], m[i], v[i]);
    }
}

static inline void nn_adam_amsgrad(struct nn_adam k, const real *restrict w, const real *restrict gradient,
                                   real *restrict next, real *restrict m, real *restrict v,
                                   real *restrict max_v, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        real g = nn_adam_gradient(k, gradient[i], w[i]);
        m[i] = nn_adam_m(k, m[i], g);
        v[i] = nn_adam_v(k, v[i], g);
        max_v[i] = nn_re(v[i]) > nn_re(max_v[i]) ? v[i] : max_v[i];
        next[i] = nn_adam_w(k, w[i], m[i], max_v[i]);
    }
}

/* 1 - βᵗ. Computed as it stands, it would lose its digits in the first steps, where β is near 1. */
static inline double nn_adam_correction(double beta, uint64_t t) { return -expm1((double)t * log(beta)); }

/* `coupled` adds coupled * w to the gradient; `decoupled` takes decoupled * w off the weights. */
static inline void nn_adam_update(const struct nn_update *u, double coupled, double decoupled, int64_t begin,
                                  int64_t end) {
    const union nn_attr_value *a = u->attrs;
    const double beta1 = a[NN_ADAM_BETAS].list.reals[0], beta2 = a[NN_ADAM_BETAS].list.reals[1];
    const double correction1 = nn_adam_correction(beta1, u->step),
                 correction2 = nn_adam_correction(beta2, u->step);
    const struct nn_adam k = {.scale = (real)u->scale,
                              .add = (real)coupled,
                              .keep1 = (real)beta1,
                              .new1 = (real)(1 - beta1),
                              .keep2 = (real)beta2,
                              .new2 = (real)(1 - beta2),
                              .step = (real)(a[NN_LR].r / correction1),
                              .root = (real)sqrt(correction2),
                              .eps = (real)a[NN_ADAM_EPS].r,
                              .keep_w = (real)(1 - decoupled)};
    const real *w = u->w, *g = u->g;
    real *next = u->w_next, *m = u->slot[NN_ADAM_M], *v = u->slot[NN_ADAM_V], *max_v = u->slot[NN_ADAM_MAX_V];
    if (a[NN_ADAM_AMSGRAD].b)
        nn_adam_amsgrad(k, w + begin, g + begin, next + begin, m + begin, v + begin, max_v + begin,
                        end - begin);
    else
        nn_adam_plain(k, w + begin, g + begin, next + begin, m + begin, v + begin, end - begin);
}

#endif
