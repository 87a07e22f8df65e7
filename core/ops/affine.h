/* affine.h - what linear and matmul share: y = x op(w) + b on the last dimension.
 *   x [..., in], op(w) [in, out], b [out], y [..., out]
 *   dx = dy op(w)ᵀ,  d op(w) = xᵀ dy,  db = Σ over all leading dimensions of dy */
#ifndef NN_AFFINE_H
#define NN_AFFINE_H

#include <string.h>

#include "../blas.h"

enum { NN_AFFINE_OUT_FEATURES, NN_AFFINE_BIAS }; /* attributes */
enum { NN_AFFINE_WEIGHT, NN_AFFINE_BIAS_PARAM }; /* parameters */

/* The initial values are those of PyTorch's linear: kaiming_uniform_(a = √5) comes to this bound. */
static inline int nn_infer_affine(struct nn_infer *infer, enum nn_trans trans, struct nn_error *err) {
    const struct nn_shape *in = &infer->in[0];
    if (in->rank < 1) return nn_fail(err, NN_E_SHAPE, "this needs at least one dimension a sample");
    int64_t n_in = in->dim[in->rank - 1], n_out = infer->attrs[NN_AFFINE_OUT_FEATURES].i;
    const struct nn_init uniform = {.kind = NN_INIT_UNIFORM, .scale = 1 / sqrt((double)n_in)};
    infer->out = *in;
    infer->out.dim[in->rank - 1] = n_out;
    infer->n_params = infer->attrs[NN_AFFINE_BIAS].b ? 2 : 1;
    infer->param[NN_AFFINE_WEIGHT].suffix = "weight";
    infer->param[NN_AFFINE_WEIGHT].shape =
        trans == NN_TRANSPOSED ? (struct nn_shape){2, {n_out, n_in}} : (struct nn_shape){2, {n_in, n_out}};
    infer->param[NN_AFFINE_WEIGHT].init = uniform;
    infer->param[NN_AFFINE_BIAS_PARAM].suffix = "bias";
    infer->param[NN_AFFINE_BIAS_PARAM].shape = (struct nn_shape){1, {n_out}};
    infer->param[NN_AFFINE_BIAS_PARAM].init = uniform;
    return NN_OK;
}

/* Two for each weight that meets a vector, and one for each bias. */
static inline double nn_affine_work(const struct nn_infer *infer) {
    const struct nn_shape *in = &infer->in[0];
    return (2 * (double)in->dim[in->rank - 1] + infer->attrs[NN_AFFINE_BIAS].b) * nn_work_outputs(infer);
}

struct nn_affine_sizes {
    int64_t vectors, in, out;
};

static inline struct nn_affine_sizes nn_affine_sizes(const struct nn_pass *pass) {
    int64_t in = pass->in[0].dim[pass->in[0].rank - 1], out = pass->out->dim[pass->out->rank - 1];
    return (struct nn_affine_sizes){pass->rows * nn_shape_elements(pass->out) / out, in, out};
}

static inline void nn_affine_forward(const struct nn_pass *pass, enum nn_trans trans) {
    struct nn_affine_sizes s = nn_affine_sizes(pass);
    struct nn_product y = {.tb = trans, .m = s.vectors, .n = s.out, .k = s.in, .tile = pass->tile};
    y.a = pass->x[0];
    y.b = pass->w[NN_AFFINE_WEIGHT];
    y.bias = pass->attrs[NN_AFFINE_BIAS].b ? pass->w[NN_AFFINE_BIAS_PARAM] : NULL;
    y.c = pass->y;
    y.sequel = pass->sequel;
    nn_multiply(pass->par, &y);
}

static inline void nn_affine_weight_gradient(const struct nn_pass *pass, enum nn_trans trans,
                                             const struct nn_affine_sizes *s) {
    const bool swap = trans == NN_TRANSPOSED; /* dWᵀ = dyᵀ x */
    struct nn_product d_w = {.ta = NN_TRANSPOSED, .k = s->vectors, .add = !pass->fresh_w[NN_AFFINE_WEIGHT]};
    d_w.m = swap ? s->out : s->in;
    d_w.n = swap ? s->in : s->out;
    d_w.a = swap ? pass->d_y : pass->x[0];
    d_w.b = swap ? pass->x[0] : pass->d_y;
    d_w.c = pass->d_w[NN_AFFINE_WEIGHT];
    nn_multiply(pass->par, &d_w);
}

static inline void nn_affine_bias_gradient(const struct nn_pass *pass, const struct nn_affine_sizes *s) {
    real *d_b = pass->d_w[NN_AFFINE_BIAS_PARAM];
    if (pass->fresh_w[NN_AFFINE_BIAS_PARAM]) memset(d_b, 0, (size_t)s->out * sizeof *d_b);
    nn_column_sums(pass->par, s->vectors, s->out, pass->d_y, d_b);
}

/* dx comes last: behind it goes the sequel. */
static inline void nn_affine_backward(const struct nn_pass *pass, enum nn_trans trans) {
    struct nn_affine_sizes s = nn_affine_sizes(pass);
    if (pass->d_w[NN_AFFINE_WEIGHT]) nn_affine_weight_gradient(pass, trans, &s);
    if (pass->attrs[NN_AFFINE_BIAS].b && pass->d_w[NN_AFFINE_BIAS_PARAM]) nn_affine_bias_gradient(pass, &s);
    if (!pass->d_x[0]) return;
    struct nn_product d_x = {.m = s.vectors, .n = s.in, .k = s.out, .add = !pass->fresh_x[0]};
    d_x.tb = trans == NN_TRANSPOSED ? NN_PLAIN : NN_TRANSPOSED;
    d_x.a = pass->d_y;
    d_x.b = pass->w[NN_AFFINE_WEIGHT];
    d_x.c = pass->d_x[0];
    d_x.sequel = pass->sequel;
    nn_multiply(pass->par, &d_x);
}

/* The examples, the passes and the row of an operator that multiplies by its weight, or by the weight's transpose.
 * `other` is the JSON of a bias that is not the default. */
#define NN_AFFINE(op, trans, other, ...)                                                                     \
    static int infer(struct nn_infer *infer, struct nn_error *err) {                                         \
        return nn_infer_affine(infer, trans, err);                                                           \
    }                                                                                                        \
    static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {                            \
        (void)begin, (void)end;                                                                              \
        nn_affine_forward(pass, trans);                                                                      \
    }                                                                                                        \
    static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {                           \
        (void)begin, (void)end;                                                                              \
        nn_affine_backward(pass, trans);                                                                     \
    }                                                                                                        \
    static const struct nn_example examples[] = {                                                            \
        {.attrs = "\"out_features\": 3", .n_inputs = 1, .inputs = {{1, {4}}}},                               \
        {.attrs = "\"out_features\": 3, \"bias\": " other, .n_inputs = 1, .inputs = {{1, {4}}}},             \
        {.attrs = "\"out_features\": 2", .n_inputs = 1, .inputs = {{2, {3, 5}}}},                            \
    };                                                                                                       \
    const struct nn_op NN_OP(op) = {                                                                         \
        NN_DEF(op, 1, 1, .attrs = attrs, __VA_ARGS__),                                                       \
        .forward_split = NN_WHOLE,                                                                           \
        .backward_split = NN_WHOLE,                                                                          \
        .fuses = true,                                                                                       \
        .reads = NN_READS_X,                                                                                 \
        .infer = infer,                                                                                      \
        .work = nn_affine_work,                                                                              \
        .forward = forward,                                                                                  \
        .backward = backward,                                                                                \
    }

#endif
