/* cross_entropy - of logits against classes, or against probabilities of classes.
 *   x [C, d...], target ids [d...] or probabilities [C, d...], loss [d...]
 * With t the target (for ids: 1 at the class, else 0), s the label smoothing, v the class weights or 1:
 *   p = softmax(x) over C,  q_c = v_c ((1 - s) t_c + s / C)
 *   loss = -Σ_c q_c log p_c,  dx_c = dloss (p_c Σ_k q_k - q_c) = dloss (p_c Σ_{k≠c} q_k - q_c Σ_{k≠c} p_k)
 * The last form is the one computed: the other would cancel where p_c is near 1 and q_c near the sum.
 * The mean divides by Σ v[class] for ids, and by the count for probabilities, as in PyTorch. */
#include "../op.h"
#include "../real.h"
#include "classes.h"

enum { LABEL_SMOOTHING = NN_CLASS_WEIGHT + 1 };
static const struct nn_attr_def attrs[] = {
    NN_CLASS_WEIGHT_ROW,
    {.name = "label_smoothing",
     .type = NN_REAL,
     .min = 0,
     .max = 1,
     .text = "share of the target that is spread over all classes"},
    {0},
};

static int infer(struct nn_infer *infer, struct nn_error *err) {
    if (nn_classes_infer(infer, err)) return (int)err->code;
    infer->n_forms = 2;
    infer->form[1] = (struct nn_target_form){.ids = false, .shape = infer->in[0]};
    infer->saved.row = (size_t)nn_shape_elements(&infer->in[0]) * sizeof(real); /* p */
    return NN_OK;
}

/* q_c for vector v */
static double wanted(const struct nn_pass *pass, const struct nn_axis *classes, int64_t v, int64_t c) {
    const double smoothing = pass->attrs[LABEL_SMOOTHING].r;
    double t;
    if (pass->target_ids)
        t = ((const int64_t *)pass->target)[v] == c;
    else
        t = (double)((const real *)pass->target)[nn_axis_vector(classes, v) + c * classes->inner];
    return nn_class_weight(pass, c) * ((1 - smoothing) * t + smoothing / (double)classes->length);
}

/* Whether q is the class's weight at the target class and 0 at all others. */
static bool is_one_class(const struct nn_pass *pass) {
    return pass->target_ids && pass->attrs[LABEL_SMOOTHING].r == 0;
}

static int64_t class_of(const struct nn_pass *pass, int64_t v) { return ((const int64_t *)pass->target)[v]; }

static inline wide softmax(const real *x, real max, real *p, int64_t n, int64_t stride) {
    wide others = nn_axis_exp(x, max, p, n, stride);
    real factor = (real)nn_div(1, 1 + others);
    for (int64_t c = 0; c < n; c++) p[c * stride] *= factor;
    return nn_log1p(others);
}

static wide loss_of(const struct nn_pass *pass, const struct nn_axis *classes, int64_t v) {
    const int64_t first = nn_axis_vector(classes, v), n = classes->length, stride = classes->inner;
    const real *x = (const real *)pass->x[0] + first;
    real *p = (real *)pass->saved + first;
    real max = nn_axis_max(x, n, stride);
    wide log_sum = stride == 1 ? softmax(x, max, p, n, 1) : softmax(x, max, p, n, stride), loss = 0;
    int64_t begin = is_one_class(pass) ? class_of(pass, v) : 0, end = is_one_class(pass) ? begin + 1 : n;
    for (int64_t c = begin; c < end; c++) {
        double q = wanted(pass, classes, v, c);
        if (q != 0) loss += q * ((wide)max - (wide)x[c * stride] + log_sum); /* 0 log 0 is 0 */
    }
    return loss;
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const struct nn_axis classes = nn_classes_of(pass);
    real *loss = pass->y;
    for (int64_t v = begin * classes.inner; v < end * classes.inner; v++)
        loss[v] = (real)loss_of(pass, &classes, v);
}

/* 1 - p_c */
static inline wide others_of(const real *p, int64_t c, int64_t n, int64_t stride) {
    return nn_re(p[c * stride]) > nn_re((real)0.5) ? nn_axis_others(p, c, n, stride)
                                                   : 1 - (wide)p[c * stride];
}

/* For a vector with one class: as backward_of_shares, without computing every q. */
static inline void backward_of_class(const real *p, double q, int64_t class, real d_loss, real *d_x,
                                     int64_t n, int64_t stride) {
    real before = d_x[class * stride];
    for (int64_t i = 0; i < n * stride; i += stride) d_x[i] += d_loss * (real)((wide)p[i] * q);
    d_x[class * stride] = before + d_loss * (real)(-q * others_of(p, class, n, stride));
}

static double wanted_of_others(const struct nn_pass *pass, const struct nn_axis *classes, int64_t v,
                               int64_t c) {
    double sum = 0;
    for (int64_t k = 0; k < classes->length; k++)
        if (k != c) sum += wanted(pass, classes, v, k);
    return sum;
}

/* If no q is negative, only the greatest can be near the sum. For that one alone, the sum of the others is computed
 * term by term rather than as a difference. */
static void backward_of_shares(const struct nn_pass *pass, const struct nn_axis *classes, int64_t v,
                               const real *p, real d_loss, real *d_x) {
    const int64_t n = classes->length, stride = classes->inner;
    double total = 0, most = -INFINITY;
    int64_t at = 0;
    for (int64_t c = 0; c < n; c++) {
        double q = wanted(pass, classes, v, c);
        total += q;
        if (q > most) most = q, at = c;
    }
    const double others = wanted_of_others(pass, classes, v, at);
    for (int64_t c = 0; c < n; c++) {
        const double q = wanted(pass, classes, v, c);
        const wide share = (wide)p[c * stride];
        d_x[c * stride] +=
            d_loss * (real)(share * (c == at ? others : total - q) - q * others_of(p, c, n, stride));
    }
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const struct nn_axis classes = nn_classes_of(pass);
    const int64_t n = classes.length;
    const real *p = pass->saved, *d_loss = pass->d_y;
    real *d_x = pass->d_x[0];
    if (!d_x) return;
    for (int64_t v = begin * classes.inner; v < end * classes.inner; v++) {
        const int64_t first = nn_axis_vector(&classes, v),
                      class = is_one_class(pass) ? class_of(pass, v) : -1;
        const double q = class < 0 ? 0 : nn_class_weight(pass, class);
        if (class < 0)
            backward_of_shares(pass, &classes, v, p + first, d_loss[v], d_x + first);
        else if (classes.inner == 1)
            backward_of_class(p + first, q, class, d_loss[v], d_x + first, n, 1);
        else
            backward_of_class(p + first, q, class, d_loss[v], d_x + first, n, classes.inner);
    }
}

/* A target of probabilities costs a division for each class. */
static double work(const struct nn_infer *infer) {
    return (NN_WORK_EXP + 100) * (double)nn_shape_elements(&infer->in[0]);
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {4}}}, .ids = true, .classes = 4},
    {.attrs = "\"weight\": [0.5, 1, 2]", .n_inputs = 1, .inputs = {{1, {3}}}, .ids = true, .classes = 3},
    {.attrs = "\"weight\": [0.5, 1, 2], \"label_smoothing\": 0.2",
     .n_inputs = 1,
     .inputs = {{2, {3, 2}}},
     .ids = true,
     .classes = 3},
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {4}}}},
    {.attrs = "\"weight\": [0.5, 1, 2], \"label_smoothing\": 0.1", .n_inputs = 1, .inputs = {{2, {3, 2}}}},
};

const struct nn_op NN_OP(cross_entropy) = {
    NN_DEF(cross_entropy, 1, 1,
           .summary = "Cross entropy of logits against classes or their probabilities; the classes are "
                      "dimension 1.",
           .forward = "loss = -Σ_c q_c log softmax(x)_c, q_c = weight_c ((1 - s) t_c + s / C)",
           .backward = "dx_c = dloss (softmax(x)_c Σ_k q_k - q_c)",
           .source = "Szegedy et al., \"Rethinking the Inception architecture\", 2015, section 7 (label "
                     "smoothing)",
           .flags = NN_IS_LOSS, .attrs = attrs),
    .forward_split = NN_BY_ROW,
    .backward_split = NN_BY_ROW,
    .infer = infer,
    .work = work,
    .check = nn_classes_check,
    .forward = forward,
    .backward = backward,
    .normalizer = nn_classes_normalizer,
};
