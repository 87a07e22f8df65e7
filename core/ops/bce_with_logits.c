/* bce_with_logits - binary cross entropy of logits, elementwise, with v the pos_weight or 1:
 *   loss = -v t log σ(x) - (1 - t) log(1 - σ(x)) = (1 - t) softplus(x) + v t softplus(-x)
 *   dx = dloss ((1 - t) σ(x) - v t σ(-x))
 * softplus(x) = log(1 + eˣ). The forms on the right keep small numbers, which 1 - σ(x) would lose. */
#include "elementwise.h"

enum { POS_WEIGHT };
static const struct nn_attr_def attrs[] = {
    {.name = "pos_weight",
     .type = NN_REALS,
     NN_AT_LEAST_0,
     .list_min = 1,
     .list_max = NN_MAX_ELEMENTS,
     .text = "factor of the positive part: one number, or one for each place of the last dimension"},
    {0},
};

static int infer(struct nn_infer *infer, struct nn_error *err) {
    const struct nn_shape *in = &infer->in[0];
    const int64_t last = in->rank ? in->dim[in->rank - 1] : 1, n = infer->attrs[POS_WEIGHT].list.n;
    if (n > 1 && n != last)
        return nn_fail_member(err, NN_E_VALUE, "pos_weight",
                              "\"pos_weight\" has %lld numbers, and the input's last dimension is %lld",
                              (long long)n, (long long)last);
    return nn_infer_like_target(infer, err);
}

/* v of element i */
static real weight(const struct nn_pass *pass, int64_t i) {
    const union nn_attr_value *v = &pass->attrs[POS_WEIGHT];
    return v->list.n ? (real)v->list.reals[i % v->list.n] : 1;
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0], *t = pass->target;
    real *loss = pass->y;
    for (int64_t i = begin; i < end; i++) {
        real bent = nn_log1p_exp(-nn_abs(x[i])); /* softplus(x) = max(x, 0) + bent */
        real of = (nn_re(x[i]) > 0 ? x[i] : 0) + bent, of_minus = (nn_re(x[i]) < 0 ? -x[i] : 0) + bent;
        loss[i] = (1 - t[i]) * of + weight(pass, i) * t[i] * of_minus;
    }
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0], *t = pass->target, *d_loss = pass->d_y;
    real *d_x = pass->d_x[0];
    if (!d_x) return;
    for (int64_t i = begin; i < end; i++) {
        struct nn_logistic_pair s = nn_logistic_pair(x[i]);
        d_x[i] += d_loss[i] * ((1 - t[i]) * s.of - weight(pass, i) * t[i] * s.of_minus);
    }
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {3}}}},
    {.attrs = "\"pos_weight\": [0.5, 1, 3]", .n_inputs = 1, .inputs = {{2, {2, 3}}}},
    {.attrs = "\"pos_weight\": [2]", .n_inputs = 1, .inputs = {{0, {0}}}},
};

NN_ELEMENTWISE_ROW(bce_with_logits, 1, NN_READS_X, infer, 2 * NN_WORK_EXP, .attrs = attrs,
                   .summary = "Binary cross entropy of logits.",
                   .forward = "loss = (1 - t) log(1 + eˣ) + pos_weight t log(1 + e⁻ˣ)",
                   .backward = "dx = dloss ((1 - t) σ(x) - pos_weight t σ(-x))", .flags = NN_IS_LOSS);
