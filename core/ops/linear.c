/* linear - y = x Wᵀ + b on the last dimension.
 *   x [..., in], W [out, in], b [out], y [..., out]
 *   dx = dy W,  dW = dyᵀ x,  db = Σ over all leading dimensions of dy */
#include "affine.h"

static const struct nn_attr_def attrs[] = {
    {.name = "out_features",
     .type = NN_INT,
     .required = true,
     .min = 1,
     .max = NN_MAX_ELEMENTS,
     .text = "size of the output's last dimension"},
    {.name = "bias", .type = NN_BOOL, .by_default = true, .text = "whether b is added"},
    {0},
};
static int infer(struct nn_infer *infer, struct nn_error *err) {
    return nn_infer_affine(infer, NN_TRANSPOSED, err);
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    (void)begin, (void)end;
    nn_affine_forward(pass, NN_TRANSPOSED);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    (void)begin, (void)end;
    nn_affine_backward(pass, NN_TRANSPOSED);
}

static const struct nn_example examples[] = {
    {.attrs = "\"out_features\": 3", .n_inputs = 1, .inputs = {{1, {4}}}},
    {.attrs = "\"out_features\": 3, \"bias\": false", .n_inputs = 1, .inputs = {{1, {4}}}},
    {.attrs = "\"out_features\": 2", .n_inputs = 1, .inputs = {{2, {3, 5}}}},
};

const struct nn_op NN_OP(linear) = {
    .def =
        {
            .name = "linear",
            .summary = "Affine map of the last dimension, with PyTorch's weight layout.",
            .forward = "y = x Wᵀ + b",
            .backward = "dx = dy W, dW = dyᵀ x, db = Σ dy",
            .source = "initial values: He et al., \"Delving deep into rectifiers\", 2015, section 2.2",
            .min_inputs = 1,
            .max_inputs = 1,
            .attrs = attrs,
            .examples = examples,
            .n_examples = sizeof examples / sizeof examples[0],
        },
    .forward_split = NN_WHOLE,
    .backward_split = NN_WHOLE,
    .fuses = true,
    .reads = NN_READS_X,
    .infer = infer,
    .forward = forward,
    .backward = backward,
};
