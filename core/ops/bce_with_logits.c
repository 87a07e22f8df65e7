/* bce_with_logits - binary cross entropy of logits, elementwise, with v the pos_weight or 1:
 *   loss = -v t log σ(x) - (1 - t) log(1 - σ(x)) = (1 - t) x + (1 + (v - 1) t) softplus(-x)
 *   dx = dloss (1 - t - (1 + (v - 1) t) σ(-x)) */
#include "../op.h"
#include "../real.h"
#include "logistic.h"
#include "same_shape.h"

enum { POS_WEIGHT };
static const struct nn_attr_def attrs[] = {
    {.name = "pos_weight",
     .type = NN_REALS,
     .min = 0,
     .max = 1e30,
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

/* 1 + (v - 1) t for element i */
static real weight(const struct nn_pass *pass, int64_t i, real t) {
    const union nn_attr_value *v = &pass->attrs[POS_WEIGHT];
    return v->list.n ? 1 + ((real)v->list.reals[i % v->list.n] - 1) * t : 1;
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0], *t = pass->target;
    real *loss = pass->y;
    for (int64_t i = begin; i < end; i++) {
        real softplus = (x[i] < 0 ? -x[i] : 0) + nn_log1p_exp(-fabs(x[i])); /* of -x, without overflow */
        loss[i] = (1 - t[i]) * x[i] + weight(pass, i, t[i]) * softplus;
    }
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const real *x = pass->x[0], *t = pass->target, *d_loss = pass->d_y;
    real *d_x = pass->d_x[0];
    if (!d_x) return;
    for (int64_t i = begin; i < end; i++)
        d_x[i] += d_loss[i] * (1 - t[i] - weight(pass, i, t[i]) * nn_logistic(-x[i]));
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {3}}}},
    {.attrs = "\"pos_weight\": [0.5, 1, 3]", .n_inputs = 1, .inputs = {{2, {2, 3}}}},
    {.attrs = "\"pos_weight\": [2]", .n_inputs = 1, .inputs = {{0, {0}}}},
};

const struct nn_op NN_OP(bce_with_logits) = {
    .def =
        {
            .name = "bce_with_logits",
            .summary = "Binary cross entropy of logits.",
            .forward = "loss = (1 - t) x + (1 + (pos_weight - 1) t) log(1 + e⁻ˣ)",
            .backward = "dx = dloss (1 - t - (1 + (pos_weight - 1) t) σ(-x))",
            .min_inputs = 1,
            .max_inputs = 1,
            .flags = NN_IS_LOSS,
            .attrs = attrs,
            .examples = examples,
            .n_examples = sizeof examples / sizeof examples[0],
        },
    .forward_split = NN_BY_ELEMENT,
    .backward_split = NN_BY_ELEMENT,
    .reads = NN_READS_X,
    .infer = infer,
    .forward = forward,
    .backward = backward,
};
