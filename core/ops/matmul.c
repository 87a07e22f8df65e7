/* matmul - the product of the last two dimensions, as mathematics writes it.
 *
 * Of one input, with a matrix that is trained, on the last dimension:
 *   x [..., D], w [D, M], b [M], y [..., M] = x w (+ b)
 *   dx = dy wᵀ,  dw = xᵀ dy,  db = Σ over all leading dimensions of dy
 *
 * Of two inputs, for each sample and each of the leading dimensions, which are the same in both; or b has none:
 *   a [..., m, k], b [..., k, n], y [..., m, n] = a b
 *   da = dy bᵀ,  db = aᵀ dy
 * A b without leading dimensions meets all rows of a in one product: of a sample, or of the batch if b has no rows. */
#include "affine.h"

static const struct nn_attr_def attrs[] = {
    {.name = "out_features",
     .type = NN_INT,
     .max = NN_MAX_ELEMENTS,
     .text = "of one input: size of the output's last dimension, M, which must be given"},
    {.name = "bias", .type = NN_BOOL, .by_default = false, .text = "of one input: whether b is added"},
    {0},
};
enum { A, B };

/* --- two inputs ---------------------------------------------------------------------------------- */

static int fail_pair(const struct nn_infer *infer, struct nn_error *err) {
    const struct nn_shape *a = &infer->in[A];
    struct nn_shape expected = *a;
    expected.dim[a->rank - 2] = a->dim[a->rank - 1];
    expected.dim[a->rank - 1] = -1;
    return nn_fail_shape(err, &expected, &infer->in[B],
                         "the second input has no leading dimensions, or those of the first");
}

static int infer_pair(struct nn_infer *infer, struct nn_error *err) {
    const struct nn_shape *a = &infer->in[A], *b = &infer->in[B];
    if (infer->attrs[NN_AFFINE_OUT_FEATURES].i)
        return nn_fail_member(err, NN_E_VALUE, "out_features", "of two inputs, the second is the matrix");
    if (infer->attrs[NN_AFFINE_BIAS].b)
        return nn_fail_member(err, NN_E_VALUE, "bias", "a product of two inputs has no parameters");
    if (a->rank < 2)
        return nn_fail_member(err, NN_E_SHAPE, "inputs",
                              "a product of two inputs needs two dimensions a sample");
    if (b->rank < 2 || a->dim[a->rank - 1] != b->dim[b->rank - 2] || (b->rank > 2 && b->rank != a->rank))
        return fail_pair(infer, err);
    for (int i = 0; i < b->rank - 2; i++)
        if (a->dim[i] != b->dim[i]) return fail_pair(infer, err);
    infer->out = *a;
    infer->out.dim[a->rank - 1] = b->dim[b->rank - 1];
    return NN_OK;
}

/* The products of a pass: `count` of a[m, k] and b[k, n], of which `of_sample` are of one sample. */
struct pair {
    int64_t count, of_sample, m, k, n;
    bool shared; /* b has no rows */
};

static struct pair pair_of(const struct nn_pass *pass) {
    const struct nn_shape *a = &pass->in[A], *b = &pass->in[B];
    struct pair p = {
        .k = b->dim[b->rank - 2], .n = b->dim[b->rank - 1], .shared = pass->shared && pass->shared[B]};
    const int64_t vectors = nn_shape_elements(a) / p.k; /* rows of a in a sample */
    p.of_sample = nn_shape_elements(b) / (p.k * p.n);
    p.m = vectors / p.of_sample;
    p.count = pass->rows * p.of_sample;
    if (p.shared && p.of_sample == 1) { /* all samples are rows of one matrix */
        p.m *= pass->rows;
        p.count = 1;
    }
    return p;
}

/* The matrices of b that belong to the products. */
static struct nn_operand_batch batch_of_b(const struct pair *p) {
    return (struct nn_operand_batch){.stride = p->k * p->n, .period = p->shared ? p->of_sample : 0};
}

static void forward_pair(const struct nn_pass *pass) {
    const struct pair p = pair_of(pass);
    struct nn_product y = {.m = p.m, .n = p.n, .k = p.k, .count = p.count};
    y.tile = p.shared && p.of_sample == 1 ? pass->tile : 0; /* all else is cut by the shape of a sample */
    y.a = pass->x[A];
    y.b = pass->x[B];
    y.c = pass->y;
    y.a_batch.stride = p.m * p.k;
    y.b_batch = batch_of_b(&p);
    y.c_batch.stride = p.m * p.n;
    nn_multiply(pass->par, &y);
}

static void gradient_of_a(const struct nn_pass *pass, const struct pair *p) {
    struct nn_product d_a = {.tb = NN_TRANSPOSED, .m = p->m, .n = p->k, .k = p->n, .count = p->count};
    d_a.add = !pass->fresh_x[A];
    d_a.a = pass->d_y;
    d_a.b = pass->x[B];
    d_a.c = pass->d_x[A];
    d_a.a_batch.stride = p->m * p->n;
    d_a.b_batch = batch_of_b(p);
    d_a.c_batch.stride = p->m * p->k;
    nn_multiply(pass->par, &d_a);
}

/* The samples of a batch add to the same matrices if b has no rows: one after the other, in their order. */
static void gradient_of_b(const struct nn_pass *pass, const struct pair *p) {
    const int64_t times = p->shared ? p->count / p->of_sample : 1;
    struct nn_product d_b = {.ta = NN_TRANSPOSED, .m = p->k, .n = p->n, .k = p->m, .count = p->count / times};
    d_b.c = pass->d_x[B];
    d_b.a_batch.stride = p->m * p->k;
    d_b.b_batch.stride = p->m * p->n;
    d_b.c_batch.stride = p->k * p->n;
    for (int64_t i = 0; i < times; i++) {
        d_b.a = (const real *)pass->x[A] + i * d_b.count * p->m * p->k;
        d_b.b = (const real *)pass->d_y + i * d_b.count * p->m * p->n;
        d_b.add = i > 0 || !pass->fresh_x[B];
        nn_multiply(pass->par, &d_b);
    }
}

/* Both inputs may be one value. Then d_a and d_b are one array, fresh for the first alone, which gets both sums. */
static void backward_pair(const struct nn_pass *pass) {
    const struct pair p = pair_of(pass);
    if (pass->d_x[A]) gradient_of_a(pass, &p);
    if (pass->d_x[B]) gradient_of_b(pass, &p);
}

/* --- one, or two --------------------------------------------------------------------------------- */

static int infer(struct nn_infer *infer, struct nn_error *err) {
    if (infer->n_inputs == 2) return infer_pair(infer, err);
    if (!infer->attrs[NN_AFFINE_OUT_FEATURES].i)
        return nn_fail_member(err, NN_E_VALUE, "out_features", "matmul of one input needs \"out_features\"");
    return nn_infer_affine(infer, NN_PLAIN, err);
}

static double work(const struct nn_infer *infer) {
    const struct nn_shape *a = &infer->in[A];
    if (infer->n_inputs == 1) return nn_affine_work(infer);
    return 2 * (double)a->dim[a->rank - 1] * nn_work_outputs(infer);
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    (void)begin, (void)end;
    if (pass->n_inputs == 1)
        nn_affine_forward(pass, NN_PLAIN);
    else
        forward_pair(pass);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    (void)begin, (void)end;
    if (pass->n_inputs == 1)
        nn_affine_backward(pass, NN_PLAIN);
    else
        backward_pair(pass);
}

static const struct nn_example examples[] = {
    {.attrs = "\"out_features\": 3", .n_inputs = 1, .inputs = {{1, {4}}}},
    {.attrs = "\"out_features\": 3, \"bias\": true", .n_inputs = 1, .inputs = {{1, {4}}}},
    {.attrs = "\"out_features\": 2", .n_inputs = 1, .inputs = {{2, {3, 5}}}},
    {.attrs = "", .n_inputs = 2, .inputs = {{2, {3, 4}}, {2, {4, 2}}}},
    {.attrs = "", .n_inputs = 2, .inputs = {{3, {2, 3, 4}}, {3, {2, 4, 5}}}},
    {.attrs = "", .n_inputs = 2, .inputs = {{3, {2, 3, 4}}, {2, {4, 2}}}},
};

const struct nn_op NN_OP(matmul) = {
    NN_DEF(matmul, 1, 2, .attrs = attrs,
           .summary =
               "Product with a matrix that is trained, [D, M], on the last dimension; or of two inputs, "
               "[..., m, k] and [..., k, n] or [k, n].",
           .forward = "y = x w + b; of two inputs, y = a b",
           .backward = "dx = dy wᵀ, dw = xᵀ dy, db = Σ dy; of two inputs, da = dy bᵀ, db = aᵀ dy"),
    .takes_shared = 1U << B,
    .forward_split = NN_WHOLE,
    .backward_split = NN_WHOLE,
    .fuses = true,
    .reads = NN_READS_X,
    .infer = infer,
    .work = work,
    .forward = forward,
    .backward = backward,
};
