/* matmul - y = x w (+ b) on the last dimension, w as mathematics writes it.
 *   x [..., D], w [D, M], b [M], y [..., M]
 *   dx = dy wᵀ,  dw = xᵀ dy,  db = Σ over all leading dimensions of dy */
#include "../blas.h"
#include "../op.h"

enum { OUT_FEATURES, BIAS };
static const struct nn_attr_def attrs[] = {
    {.name = "out_features",
     .type = NN_INT,
     .required = true,
     .min = 1,
     .max = NN_MAX_ELEMENTS,
     .text = "size of the output's last dimension, M"},
    {.name = "bias", .type = NN_BOOL, .by_default = false, .text = "whether b is added"},
    {0},
};
enum { WEIGHT, BIAS_PARAM };

static int infer(struct nn_infer *infer, struct nn_error *err) {
    const struct nn_shape *in = &infer->in[0];
    if (in->rank < 1) return nn_fail(err, NN_E_SHAPE, "matmul needs at least one dimension a sample");
    int64_t d = in->dim[in->rank - 1], m = infer->attrs[OUT_FEATURES].i;
    infer->out = *in;
    infer->out.dim[in->rank - 1] = m;
    double bound = 1 / sqrt((double)d);
    infer->n_params = infer->attrs[BIAS].b ? 2 : 1;
    infer->param[WEIGHT].suffix = "weight";
    infer->param[WEIGHT].shape = (struct nn_shape){2, {d, m}};
    infer->param[WEIGHT].init = (struct nn_init){NN_INIT_UNIFORM, bound};
    infer->param[BIAS_PARAM].suffix = "bias";
    infer->param[BIAS_PARAM].shape = (struct nn_shape){1, {m}};
    infer->param[BIAS_PARAM].init = (struct nn_init){NN_INIT_UNIFORM, bound};
    return NN_OK;
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    (void)begin, (void)end;
    int64_t d = pass->in[0].dim[pass->in[0].rank - 1], m = pass->out->dim[pass->out->rank - 1];
    int64_t n = pass->rows * nn_shape_elements(pass->out) / m; /* vectors */
    const real *bias = pass->attrs[BIAS].b ? pass->w[BIAS_PARAM] : NULL;
    nn_affine(pass->par, NN_PLAIN, n, m, d, pass->x[0], pass->w[WEIGHT], bias, pass->y);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    (void)begin, (void)end;
    int64_t d = pass->in[0].dim[pass->in[0].rank - 1], m = pass->out->dim[pass->out->rank - 1];
    int64_t n = pass->rows * nn_shape_elements(pass->out) / m;
    const real *x = pass->x[0], *d_y = pass->d_y;
    if (pass->d_x[0])
        nn_gemm(pass->par, NN_PLAIN, NN_TRANSPOSED, n, d, m, d_y, pass->w[WEIGHT], 1, pass->d_x[0]);
    if (pass->d_w[WEIGHT]) nn_gemm(pass->par, NN_TRANSPOSED, NN_PLAIN, d, m, n, x, d_y, 1, pass->d_w[WEIGHT]);
    if (pass->attrs[BIAS].b && pass->d_w[BIAS_PARAM])
        nn_column_sums(pass->par, n, m, d_y, pass->d_w[BIAS_PARAM]);
}

static const struct nn_example examples[] = {
    {.attrs = "\"out_features\": 3", .n_inputs = 1, .inputs = {{1, {4}}}},
    {.attrs = "\"out_features\": 3, \"bias\": true", .n_inputs = 1, .inputs = {{1, {4}}}},
    {.attrs = "\"out_features\": 2", .n_inputs = 1, .inputs = {{2, {3, 5}}}},
};

const struct nn_op NN_OP(matmul) = {
    .def =
        {
            .name = "matmul",
            .summary = "Product with a matrix [D, M] on the last dimension.",
            .forward = "y = x w + b",
            .backward = "dx = dy wᵀ, dw = xᵀ dy, db = Σ dy",
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
