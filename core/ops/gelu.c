/* gelu - y = x Φ(x), Φ the normal distribution function, φ its density;  dx = dy (Φ(x) + x φ(x)).
 * The tanh form takes ½ (1 + tanh u) for Φ(x), u = √(2/π) (x + 0.044715 x³):
 *   dx = dy ½ (1 + tanh u + x (1 - tanh² u) u′) */
#include "../op.h"
#include "../vexp.h"
#include "same_shape.h"

enum { APPROXIMATE };
enum { NONE, TANH };
static const char *const approximations[] = {[NONE] = "none", [TANH] = "tanh", NULL};
static const struct nn_attr_def attrs[] = {
    {.name = "approximate",
     .type = NN_CHOICE,
     .by_default = NONE,
     .choices = approximations,
     .text = "whether Φ is exact or by tanh"},
    {0},
};

#define ROOT_2_PI ((real)0.79788456080286535588) /* √(2/π), which is also 2/√(2π) */
#define CUBIC     ((real)0.044715)

static real gelu_exact(real x) { return x * nn_phi(x, nn_exp((real)-0.5 * x * x)); }

static real gelu_tanh(real x) {
    real u = ROOT_2_PI * (x + CUBIC * x * x * x);
    return (real)0.5 * x * (1 + nn_tanh(u));
}

static real slope_exact(real x) {
    real e = nn_exp((real)-0.5 * x * x);
    return nn_phi(x, e) + x * e * ROOT_2_PI / 2;
}

static real slope_tanh(real x) {
    real u = ROOT_2_PI * (x + CUBIC * x * x * x), d_u = ROOT_2_PI * (1 + 3 * CUBIC * x * x), t = nn_tanh(u);
    return (real)0.5 * (1 + t + x * (1 - t * t) * d_u);
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const bool approximate = pass->attrs[APPROXIMATE].i == TANH;
    const real *x = pass->x[0];
    real *y = pass->y;
    if (approximate)
        for (int64_t i = begin; i < end; i++) y[i] = gelu_tanh(x[i]);
    else
        for (int64_t i = begin; i < end; i++) y[i] = gelu_exact(x[i]);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const bool approximate = pass->attrs[APPROXIMATE].i == TANH;
    const real *x = pass->x[0], *d_y = pass->d_y;
    real *d_x = pass->d_x[0];
    if (!d_x) return;
    if (approximate)
        for (int64_t i = begin; i < end; i++) d_x[i] += d_y[i] * slope_tanh(x[i]);
    else
        for (int64_t i = begin; i < end; i++) d_x[i] += d_y[i] * slope_exact(x[i]);
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {5}}}},
    {.attrs = "\"approximate\": \"tanh\"", .n_inputs = 1, .inputs = {{1, {5}}}},
    {.attrs = "", .n_inputs = 1, .inputs = {{2, {2, 3}}}},
};

const struct nn_op NN_OP(gelu) = {
    .def =
        {
            .name = "gelu",
            .summary = "Gaussian error linear unit.",
            .forward = "y = x Φ(x); tanh: y = ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))",
            .backward = "dx = dy (Φ(x) + x φ(x))",
            .source = "Hendrycks and Gimpel, \"Gaussian error linear units\", 2016, section 2",
            .min_inputs = 1,
            .max_inputs = 1,
            .attrs = attrs,
            .examples = examples,
            .n_examples = sizeof examples / sizeof examples[0],
        },
    .forward_split = NN_BY_ELEMENT,
    .backward_split = NN_BY_ELEMENT,
    .reads = NN_READS_X,
    .infer = nn_infer_same_shape,
    .forward = forward,
    .backward = backward,
};
