/* dropout - in train mode y = x mask, each element of the mask 0 with probability p, else 1 / (1 - p), so
 * that the mean of y is x; in eval mode y = x.  dx = dy mask.
 * An element's draw depends on the seed, the node, the row of the whole batch and the column. */
#include <string.h>

#include "../op.h"
#include "../real.h"

enum { P };
static const struct nn_attr_def attrs[] = {
    {.name = "p", .type = NN_REAL, .min = 0, .max = 1, .by_default = 0.5, .text = "probability of a 0"},
    {0},
};

typedef uint8_t mask; /* 1: the element stays */

static int infer(struct nn_infer *infer, struct nn_error *err) {
    (void)err;
    infer->out = infer->in[0];
    infer->saved.row = (size_t)nn_shape_elements(&infer->out) * sizeof(mask); /* one for each element */
    return NN_OK;
}

/* What an element that stays is multiplied by. */
static real kept(const struct nn_pass *pass) {
    const double p = pass->attrs[P].r;
    return (real)(p < 1 ? 1 / (1 - p) : 0);
}

static void draw_mask(const struct nn_pass *pass, int64_t row, int64_t columns, mask *to) {
    enum { AT_ONCE = 4 * NN_RNG_BLOCKS };
    const double p = pass->attrs[P].r;
    uint32_t word[AT_ONCE];
    mask drawn[AT_ONCE];
    for (int64_t j = 0; j < columns; j += AT_ONCE) {
        int64_t n = columns - j < AT_ONCE ? columns - j : AT_ONCE;
        uint32_t blocks = (uint32_t)(n + 31) / 32 * 8; /* whole vectors of them */
        nn_rng_draw_blocks(pass->rng, (uint64_t)(pass->first_row + row), (uint32_t)(j / 4), blocks, word);
        for (uint32_t b = 0; b < blocks; b++) /* of which column 4 b + i has word i */
            for (uint32_t i = 0; i < 4; i++) drawn[4 * b + i] = nn_rng_unit(word[i * blocks + b]) >= p;
        memcpy(to + j, drawn, (size_t)n * sizeof *to);
    }
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const int64_t columns = nn_shape_elements(pass->out);
    const real *x = pass->x[0], factor = kept(pass);
    real *y = pass->y;
    mask *stays = pass->saved;
    if (pass->mode == NN_EVAL) {
        memcpy(y + begin * columns, x + begin * columns, (size_t)((end - begin) * columns) * sizeof *y);
        return;
    }
    for (int64_t row = begin; row < end; row++) draw_mask(pass, row, columns, stays + row * columns);
    for (int64_t i = begin * columns; i < end * columns; i++) y[i] = x[i] * (stays[i] ? factor : 0);
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const int64_t columns = nn_shape_elements(pass->out);
    const real *d_y = pass->d_y, factor = kept(pass);
    const mask *stays = pass->saved;
    real *d_x = pass->d_x[0];
    if (!d_x) return;
    if (pass->mode == NN_EVAL) {
        for (int64_t i = begin * columns; i < end * columns; i++) d_x[i] += d_y[i];
        return;
    }
    for (int64_t i = begin * columns; i < end * columns; i++) d_x[i] += d_y[i] * (stays[i] ? factor : 0);
}

static double work(const struct nn_infer *infer) { return (NN_WORK_DRAW + 2) * nn_work_outputs(infer); }

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {6}}}},
    {.attrs = "\"p\": 0.2", .n_inputs = 1, .inputs = {{2, {2, 3}}}},
    {.attrs = "\"p\": 0", .n_inputs = 1, .inputs = {{1, {3}}}},
    {.attrs = "\"p\": 1", .n_inputs = 1, .inputs = {{1, {3}}}},
};

const struct nn_op NN_OP(dropout) = {
    NN_DEF(dropout, 1, 1, .summary = "Elements dropped at random while training.",
           .forward = "train: y = x mask, mask 0 or 1 / (1 - p); eval: y = x", .backward = "dx = dy mask",
           .source = "Srivastava et al., \"Dropout\", 2014, section 10 (inverted: scaled while training)",
           .flags = NN_USES_RNG, .attrs = attrs),
    .forward_split = NN_BY_ROW,
    .backward_split = NN_BY_ROW,
    .infer = infer,
    .work = work,
    .forward = forward,
    .backward = backward,
};
