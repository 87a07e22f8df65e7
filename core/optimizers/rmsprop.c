/* rmsprop - the gradient over the root of its mean square, as torch.optim.RMSprop:
 *   g ← g + weight_decay w,  v ← alpha v + (1 - alpha) g²
 *   centered: a ← alpha a + (1 - alpha) g, and v - a² for v below
 *   s = g / (√v + eps);  with momentum: b ← momentum b + s, and b for s
 *   w ← w - lr s */
#include "../op.h"
#include "../real.h"
#include "average.h"

enum { ALPHA = NN_OPTIMIZER_ATTRS, EPS, WEIGHT_DECAY, MOMENTUM, CENTERED };
static const struct nn_attr_def attrs[] = {
    NN_OPTIMIZER_ROWS(0.01),
    {.name = "alpha",
     .type = NN_REAL,
     .min = 0,
     .max = 1,
     .by_default = 0.99,
     .text = "decay rate of the averages"},
    NN_EPS_ROW(1e-8),
    NN_COUPLED_DECAY_ROW,
    NN_MOMENTUM_ROW,
    {.name = "centered",
     .type = NN_BOOL,
     .text = "divide by the variance of the gradient, not its mean square"},
    {0},
};
enum { SQUARE_AVG, MOMENTUM_BUFFER, GRAD_AVG };

static bool uses(const union nn_attr_value *a, int slot) {
    return slot == SQUARE_AVG || (slot == MOMENTUM_BUFFER ? a[MOMENTUM].r > 0 : a[CENTERED].b);
}

/* The constants of one update. */
struct rmsprop {
    real lr, scale, decay, keep, new, eps, momentum;
};

/* A separate function: `restrict` on its parameters tells the compiler that no array overlaps another. An
 * unused array is NULL. */
static inline void steps(struct rmsprop k, const real *restrict w, const real *restrict gradient,
                         real *restrict next, real *restrict square, real *restrict buffer,
                         real *restrict mean, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        real g = k.scale * gradient[i] + k.decay * w[i];
        real v = square[i] = k.keep * square[i] + k.new *g *g;
        if (mean) {
            mean[i] = nn_average(mean[i], g, k.keep, k.new);
            v -= mean[i] * mean[i];
            v = nn_re(v) < 0 ? 0 : v; /* a steady gradient leaves only rounding errors, of either sign */
        }
        real step = nn_div(g, sqrt(v) + k.eps);
        if (buffer) step = buffer[i] = k.momentum * buffer[i] + step;
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
                              .momentum = (real)a[MOMENTUM].r};
    const real *w = (const real *)u->w + begin, *g = (const real *)u->g + begin;
    real *next = (real *)u->w_next + begin, *square = (real *)u->slot[SQUARE_AVG] + begin;
    real *buffer = a[MOMENTUM].r > 0 ? (real *)u->slot[MOMENTUM_BUFFER] + begin : NULL;
    real *mean = a[CENTERED].b ? (real *)u->slot[GRAD_AVG] + begin : NULL;
    if (!mean)
        steps(k, w, g, next, square, buffer, NULL, end - begin);
    else if (!buffer)
        steps(k, w, g, next, square, NULL, mean, end - begin);
    else
        steps(k, w, g, next, square, buffer, mean, end - begin);
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
    .takes = NN_SQUARE_MAX, /* its square is averaged */
    .slots = {"square_avg", "momentum_buffer", "grad_avg"},
    .work = 40,
    .uses = uses,
    .update = update,
};
