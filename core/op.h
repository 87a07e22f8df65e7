/* op.h - what an operator, a loss and an optimizer are inside core.
 *
 * An operator is one file in ops/ and one row in ops.def; an optimizer likewise. Each file is compiled
 * twice, with `real` as float and as double (real.h), and defines one constant:
 *
 *     const struct nn_op NN_OP(relu) = { .def = {...}, .infer = ..., .forward = ..., .backward = ... };
 *
 * Only infer and check may fail. forward and backward return nothing and allocate nothing; backward
 * adds to the gradients it is given, and a NULL gradient means that nobody wants it. (An operator that says
 * `fuses` also writes the gradients that hold nothing yet, and calls what follows it on parts of its result.) */
#ifndef NN_OP_H
#define NN_OP_H

#include "nn.h"
#include "rng.h"

#define NN_MAX_OP_PARAMS    5
#define NN_MAX_MORE_OUTPUTS 2  /* beside the first */
#define NN_MAX_SUFFIX       31 /* bytes of the name of a parameter or an output of an operator */

/* The row of an attribute that must be given and is the size of a dimension. */
#define NN_SIZE_ROW(which, what)                                                                             \
    { .name = (which), .type = NN_INT, .required = true, .min = 1, .max = NN_MAX_ELEMENTS, .text = (what) }

/* Ranges of attributes whose only limit is overflow. */
#define NN_AT_LEAST_0 .min = 0, .max = NN_UNBOUNDED
#define NN_ABOVE_0    .min_open = true, .min = 0, .max = NN_UNBOUNDED

/* How PyTorch fills a parameter at the start. */
struct nn_init {
    enum { NN_INIT_CONSTANT, NN_INIT_UNIFORM, NN_INIT_NORMAL } kind;
    double scale;  /* UNIFORM: in [center - scale, center + scale); NORMAL: the standard deviation */
    double center; /* CONSTANT: every element; NORMAL: the mean */
};

/* A parameter of an operator. */
struct nn_infer_param {
    const char *suffix; /* "weight"; "": the parameter bears the layer's name */
    struct nn_shape shape;
    struct nn_init init;
    bool buffer; /* see nn.h */
    bool counts; /* of a buffer: it is I64, has one element, and counts batches */
};

/* Bytes a row, and bytes once a pass, which begin behind those of all rows. */
struct nn_room {
    size_t row, once;
};

/* What infer is told, and what it answers. */
struct nn_infer {
    const union nn_attr_value *attrs; /* in the order of the attribute table */
    int n_inputs;
    const struct nn_shape *in; /* of a sample */
    const bool *shared;        /* by input, as in nn_pass */

    struct nn_shape out;                           /* of a sample; a loss: of its unreduced loss */
    struct nn_shape more_out[NN_MAX_MORE_OUTPUTS]; /* of the further outputs */
    /* Of a node that is NN_BY_ELEMENT otherwise: some input has not as many elements as the output, so that backward is
     * NN_WHOLE, and heeds fresh_x. */
    bool broadcasts;
    int n_params;
    struct nn_infer_param param[NN_MAX_OP_PARAMS];
    double momentum;        /* of the buffers; NaN: their average is cumulative */
    bool couples[2];        /* by mode: a row of the output depends on other rows of the batch */
    struct nn_room saved;   /* what forward keeps for backward */
    struct nn_room scratch; /* what forward or backward may use and forget */
    int n_forms;            /* of a loss's target; see nn_target_form */
    struct nn_target_form form[2];
};

/* What is to be done with the elements [begin, end) of a result as soon as they are final, by the thread that
 * made them so: the work of elementwise nodes behind this one. Each element is told once. */
struct nn_sequel {
    void (*fn)(void *arg, int64_t begin, int64_t end);
    void *arg;
};

/* One node in one pass. Pointers are to rows * elements reals, I64 inputs and targets aside. */
struct nn_pass {
    const union nn_attr_value *attrs;
    int64_t rows;
    int64_t first_row; /* the place of row 0 in the whole batch, for the generator */
    int64_t tile;      /* as in nn_run_options; of forward */
    enum nn_mode mode;
    enum nn_dtype dtype;   /* of all reals */
    struct nn_rng_key rng; /* of a layer's forward: keyed by seed and node */
    const struct nn_parallel *par;

    int n_inputs;
    const struct nn_shape *in;  /* of a sample */
    const struct nn_shape *out; /* of a sample */
    const bool *shared;         /* by input: one sample for all rows, without a batch dimension; NULL: none */
    const void *const *x;       /* the inputs; NULL in backward where reads does not name them */
    void *y;                    /* the output; likewise */
    void *const *more_y;        /* the further outputs; likewise */
    const void *const *w;       /* the parameters */
    void *saved, *scratch;

    const void *target; /* of a loss */
    bool target_ids;    /* whether it is I64 */

    const void
        *d_y; /* upstream gradient; of an operator with several outputs, NULL: nothing flows to this one */
    const void *const *more_d_y; /* of the further outputs; likewise */
    void *const *d_x;            /* added to; NULL entries are not wanted */
    void *const *d_w;            /* likewise */

    /* For operators that fuse. */
    const bool *fresh_x;            /* by input: d_x holds nothing, and is written rather than added to */
    const bool *fresh_w;            /* likewise of d_w, by parameter */
    const struct nn_sequel *sequel; /* of y, in backward of d_x[0]; NULL: none */
};

/* How the engine cuts a pass's work, by shape alone, into ranges [begin, end) of: */
enum nn_split {
    NN_BY_ELEMENT, /* elements of the output; every input has as many */
    NN_BY_ROW,     /* rows of the batch */
    NN_WHOLE,      /* nothing: called once, with [0, rows), and may use pass->par itself */
};

/* What a number that is drawn in a forward pass counts as, for nn_op.work. */
#define NN_WORK_DRAW 600

static inline double nn_work_outputs(const struct nn_infer *infer) {
    return (double)nn_shape_elements(&infer->out);
}

/* Of an operator that only moves numbers. */
static inline double nn_work_none(const struct nn_infer *infer) {
    (void)infer;
    return 0;
}

typedef void nn_pass_fn(const struct nn_pass *pass, int64_t begin, int64_t end);

struct nn_op {
    struct nn_def def;
    unsigned
        takes_ids; /* the inputs that are I64, input k as the bit 1 << k; all others are of the graph's type */
    unsigned
        takes_shared; /* the inputs of which it heeds `shared`, likewise; the others have as many rows as the output */
    enum nn_split forward_split, backward_split;
    bool fuses; /* NN_WHOLE, heeds fresh_x and fresh_w, and with one input sequel */
    /* What backward reads, beside the parameters and `saved`: a set of bits. X is all inputs, X_OF one of them. */
    unsigned reads;
#define NN_READS_NOTHING     0U
#define NN_READS_Y           1U
#define NN_READS_X_OF(input) (2U << (input))
#define NN_READS_X           (~NN_READS_Y)
    int (*infer)(struct nn_infer *infer, struct nn_error *err);
    /* What a row's forward takes at most, beside moving its numbers, of what infer has answered: counted as nn_work
     * is. Backward takes at most NN_WORK_BACKWARD times as much. */
    double (*work)(const struct nn_infer *infer);
    /* Checks of data, and of the number of rows: NULL if any will do. */
    int (*check)(const struct nn_pass *pass, struct nn_error *err);
    nn_pass_fn *forward, *backward;
    /* Of an operator with buffers: adds the statistics of this batch, in the order of the parameters, to those that
     * `statistic` has a place for. Out of `saved`, after a forward pass in train mode. */
    void (*observe)(const struct nn_pass *pass, void *const *statistic);
    /* A loss's own count for `mean`; NULL: the elements of the unreduced loss. */
    double (*normalizer)(const struct nn_pass *pass);
};

/* Whether backward reads an input. Those from the 31st on are read if any is that has no bit of its own. */
static inline bool nn_op_reads(const struct nn_op *op, int input) {
    return op->reads & NN_READS_X_OF(input < 30 ? input : 30);
}

static inline bool nn_op_takes_shared(const struct nn_op *op, int input) {
    return input < 32 && op->takes_shared >> input & 1;
}

static inline bool nn_op_takes_ids(const struct nn_op *op, int input) {
    return input < 32 && op->takes_ids >> input & 1;
}

/* The sets of instructions that the tables are compiled for: what every machine of the target has, and what
 * many have (x86-64 alone has more than one). Results are the same to the bit. */
enum nn_isa { NN_ISA_BASE, NN_ISA_AVX2 };

/* The best that this CPU has. */
enum nn_isa nn_isa_here(void);

/* The operator of this definition for NN_F32 or NN_F64: for this CPU, or in a set that it is known to have. */
const struct nn_op *nn_op_of(const struct nn_def *def, enum nn_dtype dtype);
const struct nn_op *nn_op_in(enum nn_isa isa, const struct nn_def *def, enum nn_dtype dtype);

/* --- optimizers --- */

#define NN_MAX_SLOTS 3

/* One step over a range of the trained block. */
struct nn_update {
    const union nn_attr_value *attrs; /* [NN_LR] is overridden already */
    uint64_t step;                    /* 1 for the parameters' first */
    double scale;                     /* of the gradient: contribution and clipping */
    const void *w;                    /* parameters before, */
    const void *g;                    /* their gradient, */
    void *w_next;                     /* and after */
    void *const *slot;                /* state, updated in place */
    bool fresh[NN_MAX_SLOTS]; /* whether this is the first step that writes the slot: see heeds_fresh */
};

struct nn_optimizer_op {
    struct nn_def def;
    /* The greatest |g| that a step takes, g as it is after `scale` and clipping: whatever came before it, no number
     * that is made of it alone and kept in a slot overflows. Follows from the formula and the type. */
    double takes;
    const char *slots[NN_MAX_SLOTS];
    /* Whether the first step of a parameter puts a number of its own into a slot, whatever the slot holds. */
    bool heeds_fresh[NN_MAX_SLOTS];
    double work; /* of an element's step at most, beside moving its numbers: counted as nn_work is */
    /* What no single attribute's range can say; NULL: nothing. NN_E_VALUE. */
    int (*check_attrs)(const union nn_attr_value *attrs, struct nn_error *err);
    /* Whether these hyper-parameters use a slot; NULL: all named ones are used. */
    bool (*uses)(const union nn_attr_value *attrs, int slot);
    /* What an element of a fresh slot holds; NULL: 0. */
    double (*start)(const union nn_attr_value *attrs, int slot);
    void (*update)(const struct nn_update *update, int64_t begin, int64_t end);
};

/* The `def` of an operator, out of the file's `examples`; further members follow. */
#define NN_DEF(op, least_inputs, most_inputs, ...)                                                           \
    .def = {.name = #op,                                                                                     \
            .min_inputs = least_inputs,                                                                      \
            .max_inputs = most_inputs,                                                                       \
            .examples = examples,                                                                            \
            .n_examples = sizeof examples / sizeof examples[0],                                              \
            __VA_ARGS__}

/* Every optimizer's table begins with these two rows. */
enum { NN_LR, NN_CLIP_GRAD_NORM, NN_OPTIMIZER_ATTRS };
#define NN_OPTIMIZER_ROWS(lr)                                                                                \
    {.name = "lr", .type = NN_REAL, NN_AT_LEAST_0, .by_default = (lr), .text = "learning rate"}, {           \
        .name = "clip_grad_norm", .type = NN_REAL, NN_AT_LEAST_0,                                            \
        .text = "the gradient's global norm is clipped to this first; 0: no clipping"                        \
    }
/* Rows that several optimizers have. */
#define NN_EPS_ROW(eps)                                                                                      \
    { .name = "eps", .type = NN_REAL, NN_AT_LEAST_0, .by_default = (eps), .text = "added to the denominator" }
#define NN_MOMENTUM_ROW                                                                                      \
    { .name = "momentum", .type = NN_REAL, NN_AT_LEAST_0, .text = "how much of the last step stays" }
#define NN_WEIGHT_DECAY_ROW(decay, what)                                                                     \
    { .name = "weight_decay", .type = NN_REAL, NN_AT_LEAST_0, .by_default = (decay), .text = (what) }
#define NN_COUPLED_DECAY_ROW NN_WEIGHT_DECAY_ROW(0, "factor of the weights that is added to the gradient")

const struct nn_optimizer_op *nn_optimizer_of(const struct nn_def *def, enum nn_dtype dtype);
const struct nn_optimizer_op *nn_optimizer_in(enum nn_isa isa, const struct nn_def *def, enum nn_dtype dtype);

/* --- kernels over plain arrays, for both types --- */

struct nn_kernels {
    void (*add)(void *y, const void *x, double scale, int64_t begin, int64_t end); /* y += scale x */
    void (*blend)(void *y, const void *x, double tau, int64_t begin,
                  int64_t end); /* y = tau x + (1 - tau) y */
    void (*scale)(void *y, double scale, int64_t begin, int64_t end);
    bool (*finite)(const void *x, int64_t begin, int64_t end);
    /* Whether no |factor x|, and no |y + factor x| as `add` would make it, is beyond the limit, infinite or NaN. */
    bool (*within)(const void *x, double factor, double limit, int64_t begin, int64_t end);
    bool (*sum_within)(const void *y, const void *x, double factor, double limit, int64_t begin, int64_t end);
    double (*sum_squares)(const void *x, int64_t begin, int64_t end);
    double (*sum_scaled_squares)(const void *x, double factor, int64_t begin,
                                 int64_t end); /* Σ (factor x)² */
    void (*init)(void *w, int64_t n, const struct nn_init *init, struct nn_rng_key key);
    /* Σ weight[row or element] * loss over [begin, end) of the unreduced loss; `weight` may be NULL,
     * and holds one number for every `per_weight` elements. */
    double (*reduce)(const void *loss, const void *weight, int64_t per_weight, int64_t begin, int64_t end);
    /* out[i] = scale * weight[i / per_weight]: the upstream gradient of the unreduced loss. */
    void (*spread)(void *out, const void *weight, int64_t per_weight, double scale, int64_t begin,
                   int64_t end);
    void (*fill)(void *y, double value, int64_t begin, int64_t end);
    /* sum[j] += Σ_i a[i, j] over all m rows of a[m, n], for the columns [begin, end): in double, rows in
     * their order, so that it does not matter how columns are cut. */
    void (*column_sums)(void *sum, const void *a, int64_t m, int64_t n, int64_t begin, int64_t end);
};
const struct nn_kernels *nn_kernels_of(enum nn_dtype dtype);
const struct nn_kernels *nn_kernels_in(enum nn_isa isa, enum nn_dtype dtype);

/* Calls fn(arg, begin, end) over [0, n) in ranges of at most `chunk`, spread by `par`. */
void nn_parallel_ranges(const struct nn_parallel *par, int64_t n, int64_t chunk,
                        void (*fn)(void *arg, int64_t begin, int64_t end), void *arg);

#endif
