/* gelu - y = x Φ(x), Φ the normal distribution function, φ its density;  dx = dy (Φ(x) + x φ(x)).
 * The tanh form approximates Φ(x) by ½ (1 + tanh u), u = √(2/π) (x + 0.044715 x³). It computes σ(2u), which is
 * equal and keeps its digits where tanh u is near -1:
 *   y = x σ(2u),  dx = dy σ(2u) (1 + x σ(-2u) 2u′) */
#include "elementwise.h"

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

static real gelu(real x) { return x * nn_phi(x, nn_exp((real)-0.5 * x * x)); }
static real gelu_back(real x, real d_y) {
    const real e = nn_exp((real)-0.5 * x * x);
    return d_y * (nn_phi(x, e) + x * e * ROOT_2_PI / 2);
}

static real by_tanh(real x) { return x * nn_logistic(2 * ROOT_2_PI * (x + CUBIC * x * x * x)); }
/* For |x| >= 32 the slope is 1 or 0 in both types. Without the clamp, 0 times an infinite u′ would give NaN. */
static real by_tanh_back(real x, real d_y) {
    x = nn_re(x) > 32 ? 32 : x;
    x = nn_re(x) < -32 ? -32 : x;
    const real u2 = 2 * ROOT_2_PI * (x + CUBIC * x * x * x), d_u2 = 2 * ROOT_2_PI * (1 + 3 * CUBIC * x * x);
    const struct nn_logistic_pair s = nn_logistic_pair(u2);
    return d_y * (s.of * (1 + x * s.of_minus * d_u2));
}

NN_UNARY_PASSES(exact_forward, exact_backward, X, 0, gelu, gelu_back)
NN_UNARY_PASSES(tanh_forward, tanh_backward, X, 0, by_tanh, by_tanh_back)

static bool is_tanh(const struct nn_pass *pass) { return pass->attrs[APPROXIMATE].i == TANH; }

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    (is_tanh(pass) ? tanh_forward : exact_forward)(pass, begin, end);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    (is_tanh(pass) ? tanh_backward : exact_backward)(pass, begin, end);
}

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {5}}}},
    {.attrs = "\"approximate\": \"tanh\"", .n_inputs = 1, .inputs = {{1, {5}}}},
    {.attrs = "", .n_inputs = 1, .inputs = {{2, {2, 3}}}},
};

NN_ELEMENTWISE_ROW(gelu, 1, NN_READS_X, nn_infer_same_shape, 2 * NN_WORK_EXP, .attrs = attrs,
                   .summary = "Gaussian error linear unit.",
                   .forward = "y = x Φ(x); tanh: y = ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))",
                   .backward = "dx = dy (Φ(x) + x φ(x))",
                   .source = "Hendrycks and Gimpel, \"Gaussian error linear units\", 2016, section 2");
