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

#define NN_MAX_OP_PARAMS 2

/* How PyTorch fills a parameter at the start. */
struct nn_init {
    enum { NN_INIT_ZERO, NN_INIT_UNIFORM, NN_INIT_NORMAL } kind;
    double scale; /* UNIFORM: in [-scale, scale); NORMAL: the standard deviation */
};

/* What infer is told, and what it answers. */
struct nn_infer {
    const union nn_attr_value *attrs; /* in the order of the attribute table */
    int n_inputs;
    const struct nn_shape *in; /* of a sample */
    const enum nn_dtype *in_dtype;

    struct nn_shape out; /* of a sample; a loss: of its unreduced loss */
    int n_params;
    struct {
        const char *suffix; /* "weight" */
        struct nn_shape shape;
        struct nn_init init;
    } param[NN_MAX_OP_PARAMS];
    int64_t saved;   /* elements a row that forward keeps for backward */
    int64_t scratch; /* elements a row that forward or backward may use and forget */
    int n_forms;     /* of a loss's target; see nn_target_form */
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
    const void *const *x;       /* the inputs; NULL in backward where reads does not name them */
    void *y;                    /* the output; likewise */
    const void *const *w;       /* the parameters */
    void *saved, *scratch;

    const void *target; /* of a loss */
    bool target_ids;    /* whether it is I64 */

    const void *d_y;  /* upstream gradient */
    void *const *d_x; /* added to; NULL entries are not wanted */
    void *const *d_w; /* likewise */

    /* For operators that fuse. */
    const bool *fresh_x;            /* by input: d_x holds nothing, and is written rather than added to */
    bool fresh_w;                   /* likewise all of d_w */
    const struct nn_sequel *sequel; /* of y, in backward of d_x[0]; NULL: none */
};

/* How the engine cuts a pass's work, by shape alone, into ranges [begin, end) of: */
enum nn_split {
    NN_BY_ELEMENT, /* elements of the output; every input has as many */
    NN_BY_ROW,     /* rows of the batch */
    NN_WHOLE,      /* nothing: called once, with [0, rows), and may use pass->par itself */
};

typedef void nn_pass_fn(const struct nn_pass *pass, int64_t begin, int64_t end);

struct nn_op {
    struct nn_def def;
    bool takes_ids; /* whether inputs are I64; those of all other operators are of the graph's type */
    enum nn_split forward_split, backward_split;
    bool fuses;                                    /* NN_WHOLE, and heeds fresh_x, fresh_w and sequel */
    enum { NN_READS_X = 1, NN_READS_Y = 2 } reads; /* what backward reads, parameters and saved aside */
    int (*infer)(struct nn_infer *infer, struct nn_error *err);
    /* Data checks: NULL if any data will do. */
    int (*check)(const struct nn_pass *pass, struct nn_error *err);
    nn_pass_fn *forward, *backward;
    /* A loss's own count for `mean`; NULL: the elements of the unreduced loss. */
    double (*normalizer)(const struct nn_pass *pass);
};

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

/* One step over a range of the trainable block. */
struct nn_update {
    const union nn_attr_value *attrs; /* [NN_LR] is overridden already */
    uint64_t step;                    /* 1 for the first */
    double scale;                     /* of the gradient: contribution and clipping */
    const void *w;                    /* parameters before, */
    const void *g;                    /* their gradient, */
    void *w_next;                     /* and after */
    void *const *slot;                /* state, updated in place */
    bool fresh[NN_MAX_SLOTS];         /* whether the slot has never been written */
};

struct nn_optimizer_op {
    struct nn_def def;
    const char *slots[NN_MAX_SLOTS];
    /* What no single attribute's range can say; NULL: nothing. NN_E_VALUE. */
    int (*check_attrs)(const union nn_attr_value *attrs, struct nn_error *err);
    /* Whether these hyper-parameters use a slot; NULL: all named ones are used. */
    bool (*uses)(const union nn_attr_value *attrs, int slot);
    /* What an element of a fresh slot holds; NULL: 0. */
    double (*start)(const union nn_attr_value *attrs, int slot);
    void (*update)(const struct nn_update *update, int64_t begin, int64_t end);
};

/* Every optimizer's table begins with these two rows. */
enum { NN_LR, NN_CLIP_GRAD_NORM, NN_OPTIMIZER_ATTRS };
#define NN_OPTIMIZER_ROWS(lr)                                                                                \
    {.name = "lr", .type = NN_REAL, .min = 0, .max = 1e30, .by_default = (lr), .text = "learning rate"}, {   \
        .name = "clip_grad_norm", .type = NN_REAL, .min = 0, .max = 1e30, .by_default = 0,                   \
        .text = "the gradient's global norm is clipped to this first; 0: no clipping"                        \
    }

const struct nn_optimizer_op *nn_optimizer_of(const struct nn_def *def, enum nn_dtype dtype);
const struct nn_optimizer_op *nn_optimizer_in(enum nn_isa isa, const struct nn_def *def, enum nn_dtype dtype);

/* --- kernels over plain arrays, for both types --- */

struct nn_kernels {
    void (*add)(void *y, const void *x, double scale, int64_t begin, int64_t end); /* y += scale x */
    void (*blend)(void *y, const void *x, double tau, int64_t begin,
                  int64_t end); /* y = tau x + (1 - tau) y */
    void (*scale)(void *y, double scale, int64_t begin, int64_t end);
    bool (*finite)(const void *x, int64_t begin, int64_t end);
    double (*sum_squares)(const void *x, int64_t begin, int64_t end);
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
