/* adam - adaptive moments, as torch.optim.Adam: g ← g + weight_decay w first, then as in adam.h. */
#include "adam.h"

static const struct nn_attr_def attrs[] = {
    NN_ADAM_ROWS(0, "factor of the weights that is added to the gradient"),
    {0},
};

static void update(const struct nn_update *u, int64_t begin, int64_t end) {
    nn_adam_update(u, u->attrs[NN_ADAM_DECAY].r, 0, begin, end);
}

static const struct nn_example examples[] = {
    {.attrs = ""},
    {.attrs = "\"lr\": 0.01, \"betas\": [0.8, 0.9], \"eps\": 1e-6"},
    {.attrs = "\"weight_decay\": 0.01"},
    {.attrs = "\"amsgrad\": true, \"clip_grad_norm\": 1"},
};

const struct nn_optimizer_op NN_OPTIMIZER(adam) = {
    .def =
        {
            .name = "adam",
            .summary = "Adaptive moments; weight decay goes through the gradient.",
            .forward = "m ← β₁ m + (1 - β₁) g; v ← β₂ v + (1 - β₂) g²; w ← w - lr m̂ / (√v̂ + eps)",
            .source = "Kingma and Ba, \"Adam: a method for stochastic optimization\", 2015, algorithm 1",
            .attrs = attrs,
            .examples = examples,
            .n_examples = sizeof examples / sizeof examples[0],
        },
    .takes = NN_SQUARE_MAX, /* its square is averaged */
    .slots = NN_ADAM_SLOTS,
    .work = 40,
    .uses = nn_adam_uses,
    .update = update,
};
