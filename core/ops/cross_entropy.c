/* cross_entropy - of logits against classes, or against probabilities of classes.
 *   x [C, d...], target ids [d...] or probabilities [C, d...], loss [d...]
 * With t the target (for ids: 1 at the class, else 0), s the label smoothing, v the class weights or 1:
 *   p = softmax(x) over C,  q_c = v_c ((1 - s) t_c + s / C)
 *   loss = -Σ_c q_c log p_c,  dx_c = dloss (p_c Σ_k q_k - q_c)
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
    infer->saved = nn_shape_elements(&infer->in[0]); /* p */
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

/* Whether q is the class's weight at the class, and 0 elsewhere. */
static bool is_one_class(const struct nn_pass *pass) {
    return pass->target_ids && pass->attrs[LABEL_SMOOTHING].r == 0;
}

static int64_t class_of(const struct nn_pass *pass, int64_t v) { return ((const int64_t *)pass->target)[v]; }

static inline double softmax(const real *x, real max, real *p, int64_t n, int64_t stride) {
    double sum = nn_axis_exp(x, max, p, n, stride);
    real factor = (real)(1 / sum);
    for (int64_t c = 0; c < n; c++) p[c * stride] *= factor;
    return log(sum);
}

static double loss_of(const struct nn_pass *pass, const struct nn_axis *classes, int64_t v) {
    const int64_t first = nn_axis_vector(classes, v), n = classes->length, stride = classes->inner;
    const real *x = (const real *)pass->x[0] + first;
    real *p = (real *)pass->saved + first;
    real max = nn_axis_max(x, n, stride);
    double log_sum = stride == 1 ? softmax(x, max, p, n, 1) : softmax(x, max, p, n, stride), loss = 0;
    int64_t begin = is_one_class(pass) ? class_of(pass, v) : 0, end = is_one_class(pass) ? begin + 1 : n;
    for (int64_t c = begin; c < end; c++) {
        double q = wanted(pass, classes, v, c);
        if (q != 0) loss += q * ((double)max - (double)x[c * stride] + log_sum); /* 0 log 0 is 0 */
    }
    return loss;
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const struct nn_axis classes = nn_classes_of(pass);
    real *loss = pass->y;
    for (int64_t v = begin * classes.inner; v < end * classes.inner; v++)
        loss[v] = (real)loss_of(pass, &classes, v);
}

/* Of a vector with one class: as below, without a look at every q. */
static inline void backward_of_class(const real *p, double q, int64_t class, real d_loss, real *d_x,
                                     int64_t n, int64_t stride) {
    real before = d_x[class * stride];
    for (int64_t i = 0; i < n * stride; i += stride) d_x[i] += d_loss * (real)((double)p[i] * q);
    d_x[class * stride] = before + d_loss * (real)((double)p[class * stride] * q - q);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const struct nn_axis classes = nn_classes_of(pass);
    const real *p = pass->saved, *d_loss = pass->d_y;
    real *d_x = pass->d_x[0];
    if (!d_x) return;
    for (int64_t v = begin * classes.inner; v < end * classes.inner; v++) {
        const int64_t first = nn_axis_vector(&classes, v);
        double total = 0;
        if (is_one_class(pass)) {
            const int64_t class = class_of(pass, v), n = classes.length;
            const double q = nn_class_weight(pass, class);
            if (classes.inner == 1)
                backward_of_class(p + first, q, class, d_loss[v], d_x + first, n, 1);
            else
                backward_of_class(p + first, q, class, d_loss[v], d_x + first, n, classes.inner);
            continue;
        }
        for (int64_t c = 0; c < classes.length; c++) total += wanted(pass, &classes, v, c);
        for (int64_t c = 0; c < classes.length; c++) {
            int64_t i = first + c * classes.inner;
            d_x[i] += d_loss[v] * (real)((double)p[i] * total - wanted(pass, &classes, v, c));
        }
    }
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
    .def =
        {
            .name = "cross_entropy",
            .summary = "Cross entropy of logits against classes or their probabilities.",
            .forward = "loss = -Σ_c q_c log softmax(x)_c, q_c = weight_c ((1 - s) t_c + s / C)",
            .backward = "dx_c = dloss (softmax(x)_c Σ_k q_k - q_c)",
            .source = "Szegedy et al., \"Rethinking the Inception architecture\", 2015, section 7 (label "
                      "smoothing)",
            .min_inputs = 1,
            .max_inputs = 1,
            .flags = NN_IS_LOSS,
            .attrs = attrs,
            .examples = examples,
            .n_examples = sizeof examples / sizeof examples[0],
        },
    .forward_split = NN_BY_ROW,
    .backward_split = NN_BY_ROW,
    .infer = infer,
    .check = nn_classes_check,
    .forward = forward,
    .backward = backward,
    .normalizer = nn_classes_normalizer,
};
