/* sgd - stochastic gradient descent with momentum, as torch.optim.SGD:
 *   g ← g + weight_decay w
 *   b ← momentum b + (1 - dampening) g, or b ← g at a parameter's first step;  g ← b, or g + momentum b (nesterov)
 *   w ← w - lr g */
#include "../op.h"
#include "../real.h"

enum { MOMENTUM = NN_OPTIMIZER_ATTRS, DAMPENING, WEIGHT_DECAY, NESTEROV };
static const struct nn_attr_def attrs[] = {
    NN_OPTIMIZER_ROWS(0.001),
    NN_MOMENTUM_ROW,
    {.name = "dampening",
     .type = NN_REAL,
     .min = -NN_UNBOUNDED,
     .max = NN_UNBOUNDED,
     .text = "how much of the gradient is kept out of the momentum"},
    NN_COUPLED_DECAY_ROW,
    {.name = "nesterov", .type = NN_BOOL, .text = "look ahead along the momentum"},
    {0},
};
enum { MOMENTUM_BUFFER };

static int check_attrs(const union nn_attr_value *a, struct nn_error *err) {
    if (a[NESTEROV].b && (a[MOMENTUM].r == 0 || a[DAMPENING].r != 0))
        return nn_fail_member(err, NN_E_VALUE, "nesterov",
                              "\"nesterov\" needs \"momentum\" above 0 and \"dampening\" 0");
    return NN_OK;
}

static bool uses(const union nn_attr_value *a, int slot) {
    (void)slot;
    return a[MOMENTUM].r != 0;
}

/* The constants of one update. */
struct sgd {
    real lr, scale, decay, momentum, keep;
    bool fresh, nesterov;
};

/* Separate functions: `restrict` on their parameters tells the compiler that no array overlaps another. */
static void plain(struct sgd k, const real *restrict w, const real *restrict gradient, real *restrict next,
                  int64_t n) {
    for (int64_t i = 0; i < n; i++) next[i] = w[i] - k.lr * (k.scale * gradient[i] + k.decay * w[i]);
}

static void with_momentum(struct sgd k, const real *restrict w, const real *restrict gradient,
                          real *restrict next, real *restrict b, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        real g = k.scale * gradient[i] + k.decay * w[i];
        b[i] = k.fresh ? g : k.momentum * b[i] + k.keep * g;
        next[i] = w[i] - k.lr * (k.nesterov ? g + k.momentum * b[i] : b[i]);
    }
}

static void update(const struct nn_update *u, int64_t begin, int64_t end) {
    const union nn_attr_value *a = u->attrs;
    const struct sgd k = {.lr = (real)a[NN_LR].r,
                          .scale = (real)u->scale,
                          .decay = (real)a[WEIGHT_DECAY].r,
                          .momentum = (real)a[MOMENTUM].r,
                          .keep = (real)(1 - a[DAMPENING].r),
                          .fresh = u->fresh[MOMENTUM_BUFFER],
                          .nesterov = a[NESTEROV].b};
    const real *w = u->w, *g = u->g;
    real *next = u->w_next, *b = u->slot[MOMENTUM_BUFFER];
    if (k.momentum == 0)
        plain(k, w + begin, g + begin, next + begin, end - begin);
    else
        with_momentum(k, w + begin, g + begin, next + begin, b + begin, end - begin);
}

static const struct nn_example examples[] = {
    {.attrs = ""},
    {.attrs = "\"lr\": 0.1, \"momentum\": 0.9"},
    {.attrs = "\"momentum\": 0.9, \"dampening\": 0.1, \"weight_decay\": 0.01"},
    {.attrs = "\"momentum\": 0.9, \"nesterov\": true"},
    {.attrs = "\"lr\": 0.1, \"clip_grad_norm\": 1"},
};

const struct nn_optimizer_op NN_OPTIMIZER(sgd) = {
    .def =
        {
            .name = "sgd",
            .summary = "Stochastic gradient descent, with momentum.",
            .forward = "g ← g + weight_decay w; b ← momentum b + (1 - dampening) g; w ← w - lr b",
            .source = "Sutskever et al., \"On the importance of initialization and momentum in deep "
                      "learning\", 2013, in PyTorch's form",
            .attrs = attrs,
            .examples = examples,
            .n_examples = sizeof examples / sizeof examples[0],
        },
    .takes = NN_REAL_MAX, /* it is kept as it is */
    .slots = {"momentum_buffer"},
    .heeds_fresh = {true},
    .work = 11,
    .check_attrs = check_attrs,
    .uses = uses,
    .update = update,
};
