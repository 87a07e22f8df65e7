/* rmsprop - the gradient over the root of its mean square, as torch.optim.RMSprop:
 *   g ← g + weight_decay w,  v ← alpha v + (1 - alpha) g²
 *   centered: a ← a + (1 - alpha) (g - a), and v - a² for v below
 *   s = g / (√v + eps);  with momentum: b ← momentum b + s, and b for s
 *   w ← w - lr s */
#include "../op.h"
#include "../real.h"

enum { ALPHA = NN_OPTIMIZER_ATTRS, EPS, WEIGHT_DECAY, MOMENTUM, CENTERED };
static const struct nn_attr_def attrs[] = {
    NN_OPTIMIZER_ROWS(0.01),
    {.name = "alpha",
     .type = NN_REAL,
     .min = 0,
     .max = 1,
     .by_default = 0.99,
     .text = "decay rate of the averages"},
    {.name = "eps",
     .type = NN_REAL,
     .min = 0,
     .max = 1e30,
     .by_default = 1e-8,
     .text = "added to the denominator"},
    {.name = "weight_decay",
     .type = NN_REAL,
     .min = 0,
     .max = 1e30,
     .text = "factor of the weights that is added to the gradient"},
    {.name = "momentum", .type = NN_REAL, .min = 0, .max = 1e30, .text = "how much of the last step stays"},
    {.name = "centered",
     .type = NN_BOOL,
     .text = "divide by the variance of the gradient, not its mean square"},
    {0},
};
enum { SQUARE_AVG, MOMENTUM_BUFFER, GRAD_AVG };

static bool uses(const union nn_attr_value *a, int slot) {
    return slot == SQUARE_AVG || (slot == MOMENTUM_BUFFER ? a[MOMENTUM].r > 0 : a[CENTERED].b);
}

/* What is the same for all elements. */
struct rmsprop {
    real lr, scale, decay, keep, new, eps, momentum;
    bool centered, has_momentum;
};

/* A function of its own, so that `restrict` tells the compiler that no array overlaps another. Arrays that
 * are not used are NULL. */
static void steps(struct rmsprop k, const real *restrict w, const real *restrict gradient,
                  real *restrict next, real *restrict square, real *restrict buffer, real *restrict mean,
                  int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        real g = k.scale * gradient[i] + k.decay * w[i];
        real v = square[i] = k.keep * square[i] + k.new *g *g;
        if (k.centered) {
            mean[i] += k.new *(g - mean[i]);
            v -= mean[i] * mean[i];
            v = v < 0 ? 0 : v; /* a steady gradient leaves nothing but the rounding, of either sign */
        }
        real step = g / (sqrt(v) + k.eps);
        if (k.has_momentum) step = buffer[i] = k.momentum * buffer[i] + step;
        next[i] = w[i] - k.lr * step;
    }
}

static void update(const struct nn_update *u, int64_t begin, int64_t end) {
    const union nn_attr_value *a = u->attrs;
    const struct rmsprop k = {.lr = (real)a[NN_LR].r,
                              .scale = (real)u->scale,
                              .decay = (real)a[WEIGHT_DECAY].r,
                              .keep = (real)a[ALPHA].r,
                              .new = (real)(1 - a[ALPHA].r),
                              .eps = (real)a[EPS].r,
                              .momentum = (real)a[MOMENTUM].r,
                              .centered = a[CENTERED].b,
                              .has_momentum = a[MOMENTUM].r > 0};
    const real *w = u->w, *g = u->g;
    real *next = u->w_next, *square = u->slot[SQUARE_AVG];
    real *buffer = k.has_momentum ? (real *)u->slot[MOMENTUM_BUFFER] + begin : NULL;
    real *mean = k.centered ? (real *)u->slot[GRAD_AVG] + begin : NULL;
    steps(k, w + begin, g + begin, next + begin, square + begin, buffer, mean, end - begin);
}

static const struct nn_example examples[] = {
    {.attrs = ""},
    {.attrs = "\"alpha\": 0.9, \"weight_decay\": 0.01"},
    {.attrs = "\"momentum\": 0.9"},
    {.attrs = "\"momentum\": 0.9, \"centered\": true, \"clip_grad_norm\": 1"},
};

const struct nn_optimizer_op NN_OPTIMIZER(rmsprop) = {
    .def =
        {
            .name = "rmsprop",
            .summary = "The gradient over the root of its mean square.",
            .forward = "v ← alpha v + (1 - alpha) g²; w ← w - lr g / (√v + eps)",
            .source =
                "Tieleman and Hinton, lecture 6.5 of \"Neural networks for machine learning\", 2012; "
                "centered: Graves, \"Generating sequences with recurrent neural networks\", 2013, eq. 38",
            .attrs = attrs,
            .examples = examples,
            .n_examples = sizeof examples / sizeof examples[0],
        },
    .slots = {"square_avg", "momentum_buffer", "grad_avg"},
    .uses = uses,
    .update = update,
};
