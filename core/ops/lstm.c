/* lstm - long short-term memory, one layer and one direction, over the second dimension of the batch.
 *   x [T, I], h_0 and c_0 [1, H] (of a sample; left out: zeros), W_ih [4H, I], W_hh [4H, H], b_ih and b_hh [4H]
 *   y [T, H], h_n and c_n [1, H]
 *
 *   z_t = x_t W_ihᵀ + b_ih + h_(t-1) W_hhᵀ + b_hh, in four parts of H: i, f, g, o
 *   c_t = σ(f) c_(t-1) + σ(i) tanh(g),  h_t = σ(o) tanh(c_t),  y_t = h_t
 *
 *   dh_t = dy_t + dz_(t+1) W_hh,  dc_t = dh_t σ(o) tanh'(c_t) + dc_(t+1) σ(f_(t+1))
 *   dz_t: of o, dh_t tanh(c_t) σ'(o); of i, dc_t tanh(g) σ'(i); of f, dc_t c_(t-1) σ'(f); of g, dc_t σ(i) tanh'(g)
 *   dx = dz W_ih,  dW_ih = dzᵀ x,  dW_hh = Σ_t dz_tᵀ h_(t-1),  db_ih = db_hh = Σ dz
 *
 * Forward keeps z, not σ(z): slopes of σ and tanh that are made of their values lose their digits. */
#include "../blas.h"
#include "../op.h"
#include "logistic.h"
#include <assert.h>

enum { HIDDEN_SIZE, BIAS };                  /* attributes */
enum { X, H_0, C_0 };                        /* inputs */
enum { H_N, C_N };                           /* outputs behind the first */
enum { W_IH, W_HH, B_IH, B_HH, PARAMETERS }; /* parameters */
enum { IN, FORGET, CELL, OUT, GATES };       /* parts of z */

static const struct nn_attr_def attrs[] = {
    NN_SIZE_ROW("hidden_size", "size H of the hidden state"),
    {.name = "bias", .type = NN_BOOL, .by_default = true, .text = "whether b_ih and b_hh are added"},
    {0},
};
static const char *const more_outputs[] = {"h_n", "c_n", NULL};

/* --- shapes -------------------------------------------------------------------------------------- */

static int check_states(const struct nn_infer *infer, const struct nn_shape *state, struct nn_error *err) {
    if (infer->n_inputs == 2)
        return nn_fail_member(err, NN_E_VALUE, "inputs", "lstm takes x, or x, h_0 and c_0");
    for (int i = H_0; i < infer->n_inputs; i++)
        if (!nn_shape_equal(&infer->in[i], state))
            return nn_fail_shape(err, state, &infer->in[i], "h_0 and c_0 have the shape of h_n");
    return NN_OK;
}

/* A parameter and its initial value: as PyTorch's, uniform to 1 / √H. */
static void add_parameter(struct nn_infer *infer, int which, const char *suffix, struct nn_shape shape) {
    infer->param[which].suffix = suffix;
    infer->param[which].shape = shape;
    infer->param[which].init =
        (struct nn_init){.kind = NN_INIT_UNIFORM, .scale = 1 / sqrt((double)infer->attrs[HIDDEN_SIZE].i)};
}

static int infer(struct nn_infer *infer, struct nn_error *err) {
    const struct nn_shape *x = &infer->in[X];
    const int64_t h = infer->attrs[HIDDEN_SIZE].i, gates = GATES * h;
    const struct nn_shape state = {2, {1, h}};
    if (x->rank != 2)
        return nn_fail_shape(err, &(struct nn_shape){2, {-1, -1}}, x, "a sample is a sequence of vectors");
    if (gates > NN_MAX_ELEMENTS)
        return nn_fail_member(err, NN_E_SIZE, "hidden_size", "the gates are too many");
    if (check_states(infer, &state, err)) return (int)err->code;
    infer->out = (struct nn_shape){2, {x->dim[0], h}};
    infer->more_out[H_N] = infer->more_out[C_N] = state;
    infer->n_params = infer->attrs[BIAS].b ? PARAMETERS : B_IH;
    add_parameter(infer, W_IH, "weight_ih_l0", (struct nn_shape){2, {gates, x->dim[1]}});
    add_parameter(infer, W_HH, "weight_hh_l0", (struct nn_shape){2, {gates, h}});
    add_parameter(infer, B_IH, "bias_ih_l0", (struct nn_shape){1, {gates}});
    add_parameter(infer, B_HH, "bias_hh_l0", (struct nn_shape){1, {gates}});
    infer->saved.row = (size_t)(x->dim[0] * (gates + h)) * sizeof(real);     /* z and c */
    infer->scratch.row = (size_t)(x->dim[0] * gates + 2 * h) * sizeof(real); /* dz, dh and dc */
    return NN_OK;
}

/* Two for each weight that meets a vector; six exponentials for each element of a state. */
static double work(const struct nn_infer *infer) {
    const struct nn_shape *x = &infer->in[X];
    const double inputs = (double)x->dim[x->rank - 1], h = (double)infer->attrs[HIDDEN_SIZE].i;
    return (2 * GATES * (inputs + h + 1) + 6 * NN_WORK_EXP) * nn_work_outputs(infer);
}

/* --- a pass -------------------------------------------------------------------------------------- */

struct lstm {
    const struct nn_pass *pass;
    int64_t rows, t, steps, inputs, h, gates;
    real *z, *c;         /* [rows, T, 4H], [rows, T, H]: saved */
    real *y;             /* [rows, T, H] */
    real *dz, *d_h, *dc; /* [rows, T, 4H], [rows, H], [rows, H]: scratch of backward */
};

static struct lstm lstm_of(const struct nn_pass *pass) {
    struct lstm l = {.pass = pass,
                     .rows = pass->rows,
                     .steps = pass->in[X].dim[0],
                     .inputs = pass->in[X].dim[1],
                     .h = pass->attrs[HIDDEN_SIZE].i};
    l.gates = GATES * l.h;
    l.z = pass->saved;
    l.c = l.z + l.rows * l.steps * l.gates;
    l.y = pass->y;
    l.dz = pass->scratch;
    l.d_h = l.dz + l.rows * l.steps * l.gates;
    l.dc = l.d_h + l.rows * l.h;
    return l;
}

/* The state before step t: of a row, `stride` behind that of the row before. NULL: zeros. */
struct state {
    const real *at;
    int64_t stride;
};

static struct state before(const struct lstm *l, const real *states, int first) {
    if (l->t > 0) return (struct state){states + (l->t - 1) * l->h, l->steps * l->h};
    return (struct state){l->pass->n_inputs > first ? l->pass->x[first] : NULL, l->h};
}

static real element(struct state state, int64_t row, int64_t j) {
    return state.at ? state.at[row * state.stride + j] : 0;
}

/* Calls fn for the rows of a step, in ranges. */
static void over_rows(const struct lstm *l, void (*fn)(void *arg, int64_t begin, int64_t end)) {
    enum { CHUNK = 1024 }; /* elements of a state */
    struct lstm copy = *l; /* tasks take a plain pointer */
    nn_parallel_ranges(l->pass->par, l->rows, l->h < CHUNK ? CHUNK / l->h : 1, fn, &copy);
}

/* --- forward ------------------------------------------------------------------------------------- */

static void step_rows(void *arg, int64_t begin, int64_t end) {
    const struct lstm *l = arg;
    const real *bias = l->pass->attrs[BIAS].b ? l->pass->w[B_HH] : NULL;
    const struct state c_before = before(l, l->c, C_0);
    for (int64_t row = begin; row < end; row++) {
        const int64_t at = row * l->steps + l->t;
        real *z = l->z + at * l->gates, *c = l->c + at * l->h, *y = l->y + at * l->h;
        for (int64_t j = 0; j < l->gates && bias; j++) z[j] += bias[j];
        for (int64_t j = 0; j < l->h; j++) {
            const real *of = z + j;
            c[j] = nn_logistic(of[FORGET * l->h]) * element(c_before, row, j) +
                   nn_logistic(of[IN * l->h]) * nn_tanh(of[CELL * l->h]);
            y[j] = nn_logistic(of[OUT * l->h]) * nn_tanh(c[j]);
        }
    }
}

static void copy_last(const struct lstm *l, const real *states, real *to) {
    assert(states);
    for (int64_t row = 0; row < l->rows; row++)
        memcpy(to + row * l->h, states + ((row + 1) * l->steps - 1) * l->h, (size_t)l->h * sizeof *to);
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    struct lstm l = lstm_of(pass);
    struct nn_product z = {.tb = NN_TRANSPOSED, .m = l.rows * l.steps, .n = l.gates, .k = l.inputs};
    struct nn_product next = {.tb = NN_TRANSPOSED, .m = l.rows, .n = l.gates, .k = l.h, .add = true};
    (void)begin, (void)end;
    z.a = pass->x[X];
    z.b = pass->w[W_IH];
    z.bias = pass->attrs[BIAS].b ? pass->w[B_IH] : NULL;
    z.c = l.z;
    z.tile = next.tile = pass->tile;
    nn_multiply(pass->par, &z);
    next.b = pass->w[W_HH];
    next.ldc = l.steps * l.gates;
    for (; l.t < l.steps; l.t++) {
        const struct state h = before(&l, l.y, H_0);
        next.a = h.at;
        next.lda = h.stride;
        next.c = l.z + l.t * l.gates;
        if (h.at) nn_multiply(pass->par, &next);
        over_rows(&l, step_rows);
    }
    copy_last(&l, l.y, pass->more_y[H_N]);
    copy_last(&l, l.c, pass->more_y[C_N]);
}

/* --- backward ------------------------------------------------------------------------------------ */

static real logistic_slope(real x) {
    const struct nn_logistic_pair sigma = nn_logistic_pair(x);
    return sigma.of * sigma.of_minus;
}

static real tanh_slope(real x) {
    const real e = nn_exp(-2 * nn_abs(x));
    return nn_div(4 * e, (1 + e) * (1 + e));
}

/* dz of a step, and dc of the one before it; d_h and dc hold what the later steps gave. */
static void step_back_rows(void *arg, int64_t begin, int64_t end) {
    const struct lstm *l = arg;
    const real *d_y = l->pass->d_y;
    const struct state c_before = before(l, l->c, C_0);
    for (int64_t row = begin; row < end; row++) {
        const int64_t at = row * l->steps + l->t;
        const real *z = l->z + at * l->gates, *c = l->c + at * l->h;
        real *dz = l->dz + at * l->gates;
        for (int64_t j = 0; j < l->h; j++) {
            const real i = z[IN * l->h + j], f = z[FORGET * l->h + j], g = z[CELL * l->h + j],
                       o = z[OUT * l->h + j];
            const real d_h = l->d_h[row * l->h + j] + (d_y ? d_y[at * l->h + j] : 0);
            const real dc = l->dc[row * l->h + j] + d_h * nn_logistic(o) * tanh_slope(c[j]);
            dz[OUT * l->h + j] = d_h * nn_tanh(c[j]) * logistic_slope(o);
            dz[IN * l->h + j] = dc * nn_tanh(g) * logistic_slope(i);
            dz[FORGET * l->h + j] = dc * element(c_before, row, j) * logistic_slope(f);
            dz[CELL * l->h + j] = dc * nn_logistic(i) * tanh_slope(g);
            l->dc[row * l->h + j] = dc * nn_logistic(f);
        }
    }
}

static void begin_with(const struct lstm *l, real *state, const real *gradient) {
    const size_t bytes = (size_t)(l->rows * l->h) * sizeof *state;
    if (gradient)
        memcpy(state, gradient, bytes);
    else
        memset(state, 0, bytes);
}

/* Every step's dz. In the end d_h and dc are the gradients of h_0 and c_0. */
static void steps_back(struct lstm *l) {
    const struct nn_pass *pass = l->pass;
    struct nn_product d_h = {.m = l->rows, .n = l->h, .k = l->gates, .lda = l->steps * l->gates};
    begin_with(l, l->d_h, pass->more_d_y[H_N]);
    begin_with(l, l->dc, pass->more_d_y[C_N]);
    d_h.b = pass->w[W_HH];
    d_h.c = l->d_h;
    for (l->t = l->steps - 1; l->t >= 0; l->t--) {
        over_rows(l, step_back_rows);
        d_h.a = l->dz + l->t * l->gates;
        nn_multiply(pass->par, &d_h);
    }
}

static void add_state(const struct lstm *l, int input, const real *gradient) {
    const struct nn_pass *pass = l->pass;
    if (pass->n_inputs <= input || !pass->d_x[input]) return;
    real *d_x = pass->d_x[input];
    for (int64_t i = 0; i < l->rows * l->h; i++) d_x[i] = (pass->fresh_x[input] ? 0 : d_x[i]) + gradient[i];
}

static void gradients_of_weights(struct lstm *l) {
    const struct nn_pass *pass = l->pass;
    struct nn_product d_ih = {.ta = NN_TRANSPOSED, .m = l->gates, .n = l->inputs, .k = l->rows * l->steps};
    struct nn_product d_hh = {.ta = NN_TRANSPOSED, .m = l->gates, .n = l->h, .k = l->rows};
    d_ih.add = d_hh.add = true;
    d_ih.a = l->dz;
    d_ih.b = pass->x[X];
    d_ih.c = pass->d_w[W_IH];
    if (d_ih.c) nn_multiply(pass->par, &d_ih);
    d_hh.lda = l->steps * l->gates;
    d_hh.c = pass->d_w[W_HH];
    for (l->t = 0; l->t < l->steps && d_hh.c; l->t++) {
        const struct state h = before(l, l->y, H_0);
        d_hh.a = l->dz + l->t * l->gates;
        d_hh.b = h.at;
        d_hh.ldb = h.stride;
        if (h.at) nn_multiply(pass->par, &d_hh);
    }
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    struct lstm l = lstm_of(pass);
    (void)begin, (void)end;
    steps_back(&l);
    gradients_of_weights(&l);
    for (int i = B_IH; i <= B_HH && pass->attrs[BIAS].b; i++)
        if (pass->d_w[i]) nn_column_sums(pass->par, l.rows * l.steps, l.gates, l.dz, pass->d_w[i]);
    add_state(&l, H_0, l.d_h);
    add_state(&l, C_0, l.dc);
    if (!pass->d_x[X]) return;
    struct nn_product d_x = {.m = l.rows * l.steps, .n = l.inputs, .k = l.gates, .add = !pass->fresh_x[X]};
    d_x.a = l.dz;
    d_x.b = pass->w[W_IH];
    d_x.c = pass->d_x[X];
    nn_multiply(pass->par, &d_x);
}

static const struct nn_example examples[] = {
    {.attrs = "\"hidden_size\": 3", .n_inputs = 1, .inputs = {{2, {4, 2}}}},
    {.attrs = "\"hidden_size\": 2, \"bias\": false", .n_inputs = 1, .inputs = {{2, {1, 3}}}},
    {.attrs = "\"hidden_size\": 3", .n_inputs = 3, .inputs = {{2, {3, 2}}, {2, {1, 3}}, {2, {1, 3}}}},
};

const struct nn_op NN_OP(lstm) = {
    NN_DEF(lstm, 1, 3, .attrs = attrs, .more_outputs = more_outputs,
           .summary = "Long short-term memory: one layer, one direction; h_0 and c_0 may follow x.",
           .forward = "z = x W_ihᵀ + b_ih + h W_hhᵀ + b_hh, in parts i, f, g, o; c' = σ(f) c + σ(i) tanh(g), "
                      "h' = σ(o) tanh(c')",
           .backward = "through all steps, from the last",
           .source = "Hochreiter and Schmidhuber, \"Long short-term memory\", 1997; gates as in Gers et al., "
                     "\"Learning to forget\", 2000"),
    .forward_split = NN_WHOLE,
    .backward_split = NN_WHOLE,
    .reads = NN_READS_X | NN_READS_Y,
    .infer = infer,
    .work = work,
    .forward = forward,
    .backward = backward,
};
