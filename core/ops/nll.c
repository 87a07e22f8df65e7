/* nll - negative log likelihood, of log-probabilities against classes.
 *   x [C, d...], target ids [d...], loss [d...];  v the class weights or 1
 *   loss = -v[t] x[t],  dx[t] = -dloss v[t];  the mean divides by Σ v[t] */
#include "../op.h"
#include "../real.h"
#include "classes.h"

static const struct nn_attr_def attrs[] = {
    NN_CLASS_WEIGHT_ROW,
    {0},
};

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const struct nn_axis classes = nn_classes_of(pass);
    const real *x = pass->x[0];
    const int64_t *target = pass->target;
    real *loss = pass->y;
    for (int64_t v = begin * classes.inner; v < end * classes.inner; v++)
        loss[v] = -(real)nn_class_weight(pass, target[v]) *
                  x[nn_axis_vector(&classes, v) + target[v] * classes.inner];
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const struct nn_axis classes = nn_classes_of(pass);
    const int64_t *target = pass->target;
    const real *d_loss = pass->d_y;
    real *d_x = pass->d_x[0];
    if (!d_x) return;
    for (int64_t v = begin * classes.inner; v < end * classes.inner; v++)
        d_x[nn_axis_vector(&classes, v) + target[v] * classes.inner] -=
            (real)nn_class_weight(pass, target[v]) * d_loss[v];
}

static double work(const struct nn_infer *infer) { return nn_work_outputs(infer); }

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {4}}}, .ids = true, .classes = 4},
    {.attrs = "\"weight\": [0.5, 1, 2]", .n_inputs = 1, .inputs = {{2, {3, 2}}}, .ids = true, .classes = 3},
};

const struct nn_op NN_OP(nll) = {
    NN_DEF(nll, 1, 1,
           .summary = "Negative log likelihood of log-probabilities against classes, which are dimension 1.",
           .forward = "loss = -weight[t] x[t]", .backward = "dx[t] = -dloss weight[t]", .flags = NN_IS_LOSS,
           .attrs = attrs),
    .forward_split = NN_BY_ROW,
    .backward_split = NN_BY_ROW,
    .infer = nn_classes_infer,
    .work = work,
    .check = nn_classes_check,
    .forward = forward,
    .backward = backward,
    .normalizer = nn_classes_normalizer,
};
