/* adamw - adam with decoupled weight decay, as torch.optim.AdamW: w ← w - lr weight_decay w first, then as in
 * adam.h. */
#include "adam.h"

static const struct nn_attr_def attrs[] = {
    NN_ADAM_ROWS(0.01, "share of the weights, times lr, that each step takes off"),
    {0},
};

static void update(const struct nn_update *u, int64_t begin, int64_t end) {
    const union nn_attr_value *a = u->attrs;
    nn_adam_update(u, 0, a[NN_LR].r * a[NN_ADAM_DECAY].r, begin, end);
}

static const struct nn_example examples[] = {
    {.attrs = ""},
    {.attrs = "\"lr\": 0.01, \"weight_decay\": 0.1"},
    {.attrs = "\"amsgrad\": true, \"betas\": [0.8, 0.9]"},
};

const struct nn_optimizer_op NN_OPTIMIZER(adamw) = {
    .def =
        {
            .name = "adamw",
            .summary = "Adaptive moments; weight decay apart from the gradient.",
            .forward = "w ← (1 - lr weight_decay) w; m ← β₁ m + (1 - β₁) g; v ← β₂ v + (1 - β₂) g²; w ← w - "
                       "lr m̂ / (√v̂ + eps)",
            .source = "Loshchilov and Hutter, \"Decoupled weight decay regularization\", 2019, algorithm 2",
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
