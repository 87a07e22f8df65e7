/* adagrad - the gradient over the root of the sum of its squares, as torch.optim.Adagrad:
 *   g ← g + weight_decay w,  s ← s + g²
 *   w ← w - lr / (1 + (t - 1) lr_decay) · g / (√s + eps), t counting the steps of a parameter, from 1 */
#include "../op.h"
#include "../real.h"

enum { LR_DECAY = NN_OPTIMIZER_ATTRS, WEIGHT_DECAY, INITIAL_ACCUMULATOR_VALUE, EPS };
static const struct nn_attr_def attrs[] = {
    NN_OPTIMIZER_ROWS(0.01),
    {.name = "lr_decay",
     .type = NN_REAL,
     NN_AT_LEAST_0,
     .text = "how fast the learning rate falls with the steps"},
    NN_COUPLED_DECAY_ROW,
    {.name = "initial_accumulator_value", .type = NN_REAL, NN_AT_LEAST_0, .text = "what the sums start at"},
    NN_EPS_ROW(1e-10),
    {0},
};
enum { SUM };

static double start(const union nn_attr_value *a, int slot) {
    (void)slot;
    return a[INITIAL_ACCUMULATOR_VALUE].r;
}

/* The constants of one update. */
struct adagrad {
    real lr, scale, decay, eps;
};

/* A separate function: `restrict` on its parameters tells the compiler that no array overlaps another. */
static void steps(struct adagrad k, const real *restrict w, const real *restrict gradient,
                  real *restrict next, real *restrict sum, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        real g = k.scale * gradient[i] + k.decay * w[i];
        sum[i] += g * g;
        next[i] = w[i] - nn_div(k.lr * g, sqrt(sum[i]) + k.eps);
    }
}

static void update(const struct nn_update *u, int64_t begin, int64_t end) {
    const union nn_attr_value *a = u->attrs;
    const struct adagrad k = {.lr = (real)(a[NN_LR].r / (1 + (double)(u->step - 1) * a[LR_DECAY].r)),
                              .scale = (real)u->scale,
                              .decay = (real)a[WEIGHT_DECAY].r,
                              .eps = (real)a[EPS].r};
    const real *w = u->w, *g = u->g;
    real *next = u->w_next, *sum = u->slot[SUM];
    steps(k, w + begin, g + begin, next + begin, sum + begin, end - begin);
}

static const struct nn_example examples[] = {
    {.attrs = ""},
    {.attrs = "\"lr\": 0.1, \"lr_decay\": 0.01, \"weight_decay\": 0.01"},
    {.attrs = "\"initial_accumulator_value\": 0.1, \"clip_grad_norm\": 1"},
};

const struct nn_optimizer_op NN_OPTIMIZER(adagrad) = {
    .def =
        {
            .name = "adagrad",
            .summary = "The gradient over the root of the sum of its squares.",
            .forward = "s ← s + g²; w ← w - lr g / (√s + eps)",
            .source = "Duchi et al., \"Adaptive subgradient methods\", 2011",
            .attrs = attrs,
            .examples = examples,
            .n_examples = sizeof examples / sizeof examples[0],
        },
    .takes = NN_SQUARE_MAX, /* its square is summed */
    .slots = {"sum"},
    .work = 30,
    .start = start,
    .update = update,
};
