/* linear - y = x Wᵀ + b on the last dimension.
 *   x [..., in], W [out, in], b [out], y [..., out]
 *   dx = dy W,  dW = dyᵀ x,  db = Σ over all leading dimensions of dy */
#include "../blas.h"
#include "../op.h"

enum { OUT_FEATURES, BIAS };
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
enum { WEIGHT, BIAS_PARAM };

static int infer(struct nn_infer *infer, struct nn_error *err) {
    const struct nn_shape *in = &infer->in[0];
    if (in->rank < 1) return nn_fail(err, NN_E_SHAPE, "linear needs at least one dimension a sample");
    int64_t in_features = in->dim[in->rank - 1], out_features = infer->attrs[OUT_FEATURES].i;
    infer->out = *in;
    infer->out.dim[in->rank - 1] = out_features;
    double bound = 1 / sqrt((double)in_features); /* kaiming_uniform_(a = √5) comes to this */
    infer->n_params = infer->attrs[BIAS].b ? 2 : 1;
    infer->param[WEIGHT].suffix = "weight";
    infer->param[WEIGHT].shape = (struct nn_shape){2, {out_features, in_features}};
    infer->param[WEIGHT].init = (struct nn_init){NN_INIT_UNIFORM, bound};
    infer->param[BIAS_PARAM].suffix = "bias";
    infer->param[BIAS_PARAM].shape = (struct nn_shape){1, {out_features}};
    infer->param[BIAS_PARAM].init = (struct nn_init){NN_INIT_UNIFORM, bound};
    return NN_OK;
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    (void)begin, (void)end;
    int64_t in = pass->in[0].dim[pass->in[0].rank - 1], out = pass->out->dim[pass->out->rank - 1];
    int64_t n = pass->rows * nn_shape_elements(pass->out) / out; /* vectors */
    const real *bias = pass->attrs[BIAS].b ? pass->w[BIAS_PARAM] : NULL;
    nn_affine(pass->par, NN_TRANSPOSED, n, out, in, pass->x[0], pass->w[WEIGHT], bias, pass->y);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    (void)begin, (void)end;
    int64_t in = pass->in[0].dim[pass->in[0].rank - 1], out = pass->out->dim[pass->out->rank - 1];
    int64_t n = pass->rows * nn_shape_elements(pass->out) / out;
    const real *x = pass->x[0], *d_y = pass->d_y;
    if (pass->d_x[0])
        nn_gemm(pass->par, NN_PLAIN, NN_PLAIN, n, in, out, d_y, pass->w[WEIGHT], 1, pass->d_x[0]);
    if (pass->d_w[WEIGHT])
        nn_gemm(pass->par, NN_TRANSPOSED, NN_PLAIN, out, in, n, d_y, x, 1, pass->d_w[WEIGHT]);
    if (pass->attrs[BIAS].b && pass->d_w[BIAS_PARAM])
        nn_column_sums(pass->par, n, out, d_y, pass->d_w[BIAS_PARAM]);
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
    .reads = NN_READS_X,
    .infer = infer,
    .forward = forward,
    .backward = backward,
};
