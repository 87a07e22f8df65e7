/* nn.h - the engine: graphs of operators, their parameters, and passes over them.
 *
 * The one header of core/ that other folders include; errors, types, shapes and memory are in base.h, which comes with
 * it. A model is four kinds of object:
 *
 *   nn_graph      structure: nodes, shapes, losses. Built, sealed, then immutable and shared.
 *   nn_params     one version of the weights. Immutable once published; reference-counted.
 *   nn_run        one forward pass over one version: the values, and what backward needs (the tape).
 *   nn_backward   one backward pass over one run: losses, and gradients of nodes.
 *
 * beside nn_grads (a gradient of the parameters) and nn_optimizer (its state).
 *
 * Conventions
 *   Shapes   are those of one sample: the batch dimension ("rows") is left out and always first.
 *            All data is row-major and contiguous.
 *   Types    a graph computes in NN_F32 or NN_F64; `void *` data has that type unless said otherwise.
 *   Errors   a fallible function returns 0 or an nn_code, and fills the caller's nn_error; the first
 *            error wins. A constructor returns NULL instead of a code.
 *   Names    _new/_free own, _ref/_unref share, _take consumes even on failure, all else borrows.
 *            free(NULL) is legal.
 *   Threads  core has none, and no locks. Sealed graphs, published parameters and finished runs may
 *            be read from any thread; everything else belongs to one thread at a time.
 */
#ifndef NN_H
#define NN_H

#include "base.h"

/* --- what the tables say ------------------------------------------------------------------------ */

enum nn_attr_type { NN_INT, NN_REAL, NN_BOOL, NN_CHOICE, NN_INTS, NN_REALS };

/* One attribute of an operator, loss or optimizer. Names and defaults are PyTorch's. */
struct nn_attr_def {
    const char *name;
    enum nn_attr_type type;
    bool required;
    bool min_open, max_open;    /* whether the bound itself is excluded */
    double min, max;            /* of a number, or of each number of a list; both 0: unbounded */
    double by_default;          /* of INT, REAL, BOOL and CHOICE (an index) */
    const double *list_default; /* of REALS and INTS, `list_min` long; NULL: empty */
    int list_min, list_max;     /* how long a list is when given */
    const char *const *choices; /* of CHOICE, NULL-terminated */
    const char *text;           /* one line */
};

/* The value of one attribute, by its type. Lists live in the graph's or optimizer's arena. */
union nn_attr_value {
    int64_t i; /* INT; CHOICE: the index into `choices` */
    double r;
    bool b;
    struct {
        int64_t n;
        const double *reals; /* REALS */
        const int64_t *ints; /* INTS */
    } list;
};

enum nn_flags {
    NN_COUPLES_ROWS = 1, /* a row of the output depends on other rows of the batch */
    NN_HAS_KINKS = 2,    /* not differentiable everywhere: keep gradient checks away from kinks */
    NN_USES_RNG = 4,     /* draws from the counter-based generator in train mode */
    NN_IS_LOSS = 8,      /* takes a target; its output is the unreduced loss */
};

/* One use of an operator or optimizer, for documents and tests: its attributes as JSON, and sample shapes
 * (an optimizer has none). */
struct nn_example {
    const char *attrs;         /* members of a JSON object, without the braces; "" for none */
    struct nn_shape inputs[3]; /* as many as the example has; the rest have rank -1 or are zero */
    int n_inputs;
    bool ids;        /* inputs (a loss: the target) are I64 class indices or ids */
    int64_t classes; /* ids lie in 0..classes-1 */
};

/* What a row of ops.def or optimizers.def says to the world. */
struct nn_def {
    const char *name;
    const char *summary;        /* one line */
    const char *forward;        /* the formula; optimizers: the update rule */
    const char *backward;       /* the gradients */
    const char *source;         /* where the formula is from: paper and section, or NULL */
    int min_inputs, max_inputs; /* max -1: any number */
    unsigned flags;
    const struct nn_attr_def *attrs; /* ends with a NULL name; NULL: none */
    const struct nn_example *examples;
    int n_examples;
};

/* The tables, in their order; NULL past the end. Layers and losses share one table. */
const struct nn_def *nn_op_def(int index);
const struct nn_def *nn_optimizer_def(int index);
/* By name; NULL if there is none. */
const struct nn_def *nn_op_find(const char *name);
const struct nn_def *nn_optimizer_find(const char *name);

/* --- attributes as they are given ---------------------------------------------------------------- */

/* An attribute's value as a request writes it, not yet held against the table. */
struct nn_given {
    enum { NN_GIVEN_INT, NN_GIVEN_REAL, NN_GIVEN_BOOL, NN_GIVEN_TEXT, NN_GIVEN_LIST } kind;
    int64_t i;
    double r; /* set for INT too */
    bool b;
    const char *text;
    const double *list;
    int64_t n;
};

struct nn_attrs; /* values for every attribute of one definition */
/* All at their defaults. Lives in `arena`, as all it is given later. NULL when memory is out. */
struct nn_attrs *nn_attrs_new(const struct nn_def *def, struct nn_arena *arena);
/* Sets one. NN_E_UNKNOWN_MEMBER, NN_E_VALUE, NN_E_NOMEM; err->member is the name. */
int nn_attrs_set(struct nn_attrs *attrs, const char *name, const struct nn_given *value,
                 struct nn_error *err);

/* --- graphs -------------------------------------------------------------------------------------- */

#define NN_MAX_NAME 128 /* bytes of a node's name, without the end */

/* [A-Za-z0-9_][A-Za-z0-9_.-]{0,127} */
bool nn_name_valid(const char *name);

struct nn_graph;

/* An empty graph, held once. `dtype` is NN_F32 or NN_F64. */
struct nn_graph *nn_graph_new(enum nn_dtype dtype, struct nn_error *err);
struct nn_graph *nn_graph_ref(struct nn_graph *graph);
void nn_graph_unref(struct nn_graph *graph);

/* Where a graph keeps what it is made of; attributes for nn_graph_add_* are to live here. */
struct nn_arena *nn_graph_arena(struct nn_graph *graph);

/* An input of the model; `dtype` is the graph's or NN_I64. NN_E_NAME, NN_E_SIZE, NN_E_VALUE. */
int nn_graph_add_input(struct nn_graph *graph, const char *name, enum nn_dtype dtype,
                       const struct nn_shape *sample, struct nn_error *err);

struct nn_layer {
    const struct nn_def *op;
    const char *name;          /* NULL: its index among the layers, as in PyTorch's nn.Sequential */
    const char *const *inputs; /* NULL: the layer before it, or the model's only input */
    int n_inputs;
    const struct nn_attrs *attrs; /* NULL: defaults */
    bool frozen;                  /* its parameters are not trained */
};
/* Inputs may be named before they are added: names are looked up when the graph is sealed. */
int nn_graph_add_layer(struct nn_graph *graph, const struct nn_layer *layer, struct nn_error *err);

struct nn_loss {
    const struct nn_def *op;
    const char *input;         /* NULL: the last layer */
    const char *target;        /* NULL: "y" */
    const char *sample_weight; /* a name among the targets; NULL: none */
    double scale;              /* factor of this loss in the sum of all */
    bool sum;                  /* reduction: sum rather than mean */
    const struct nn_attrs *attrs;
};
int nn_graph_add_loss(struct nn_graph *graph, const struct nn_loss *loss, struct nn_error *err);
/* An output of the model. Without any, the last layer is the output. */
int nn_graph_add_output(struct nn_graph *graph, const char *name, struct nn_error *err);

/* Resolves names, sorts topologically, infers shapes, lays out the parameters. The graph is immutable
 * from here on. NN_E_UNKNOWN_NAME, NN_E_CYCLE, NN_E_SHAPE, NN_E_VALUE, NN_E_SIZE, NN_E_NOMEM; the
 * error's site says which input, layer or loss. */
int nn_graph_seal(struct nn_graph *graph, struct nn_error *err);

/* Of a sealed graph. Nodes are the inputs, then the layers, each in the order of their adding. */
enum nn_dtype nn_graph_dtype(const struct nn_graph *graph);
int nn_graph_input_count(const struct nn_graph *graph);
int nn_graph_node_count(const struct nn_graph *graph);
int nn_graph_output_count(const struct nn_graph *graph);
int nn_graph_output(const struct nn_graph *graph, int index);      /* a node */
int nn_graph_find(const struct nn_graph *graph, const char *name); /* a node, or -1 */

struct nn_node_info {
    const char *name;
    const struct nn_def *op; /* NULL for an input */
    enum nn_dtype dtype;
    struct nn_shape shape; /* of a sample */
};
struct nn_node_info nn_graph_node(const struct nn_graph *graph, int node);
/* Floating-point operations of a row's forward, were every output a sum of products over its operator's inputs:
 * no operator takes more, and a linear one no less. */
double nn_graph_work(const struct nn_graph *graph);

/* One parameter: a view into the block. Trainable ones come first, so a gradient is a shorter block. */
struct nn_param {
    const char *name; /* "<layer>.<suffix>", as in a PyTorch state_dict */
    struct nn_shape shape;
    int node;
    bool trainable;
    int64_t elements;
    size_t offset; /* bytes from the start of the block; a multiple of 64 */
};
int nn_graph_param_count(const struct nn_graph *graph);
const struct nn_param *nn_graph_param(const struct nn_graph *graph, int index);
int nn_graph_param_find(const struct nn_graph *graph, const char *name); /* or -1 */
size_t nn_graph_param_bytes(const struct nn_graph *graph);               /* of the whole block */
size_t nn_graph_trainable_bytes(const struct nn_graph *graph); /* of its first part: a gradient's block */

/* What a target may be: indices, or numbers of the graph's type. */
struct nn_target_form {
    bool ids;              /* I64 */
    struct nn_shape shape; /* of a sample */
};
struct nn_loss_info {
    const struct nn_def *op;
    int input; /* a node */
    const char *target;
    const char *sample_weight; /* or NULL */
    double scale;
    bool sum;
    struct nn_shape shape; /* of the unreduced loss of a sample */
    int n_forms;
    struct nn_target_form forms[2];
};
int nn_graph_loss_count(const struct nn_graph *graph);
struct nn_loss_info nn_graph_loss(const struct nn_graph *graph, int index);

/* --- splitting work -------------------------------------------------------------------------------- */

/* How core spreads work: `run` calls task(arg, i) for every i < n, in any order and on any thread, and
 * returns when all are done. Core cuts work by shape alone, so results do not depend on who does it. A
 * NULL nn_parallel means: here, one after the other. */
struct nn_parallel {
    void (*run)(void *pool, size_t n, void (*task)(void *arg, size_t i), void *arg);
    void *pool;
};

/* --- parameters ------------------------------------------------------------------------------------ */

struct nn_params;

/* A block of its own for `graph`, zeroed, version 0, held once. Write to it before it is shared. */
struct nn_params *nn_params_new(struct nn_graph *graph, struct nn_error *err);
/* For a caller that writes every parameter: only what lies between them is zeroed, so that little of it is touched. */
struct nn_params *nn_params_new_unset(struct nn_graph *graph, struct nn_error *err);
struct nn_params *nn_params_ref(struct nn_params *params);
void nn_params_unref(struct nn_params *params);
/* Whether the caller holds the only reference, so that the block may be written again. */
bool nn_params_unshared(const struct nn_params *params);
/* As PyTorch initialises each layer, drawn from `seed` (Philox, keyed by seed and parameter). */
void nn_params_init(struct nn_params *params, uint64_t seed);
/* All of `from`, which is of the same graph. */
void nn_params_copy(struct nn_params *params, const struct nn_params *from);

/* params = tau * from + (1 - tau) * params, parameter by parameter; `from` may be of another graph whose
 * parameters have the same names, shapes and type: nn_params_alike. */
void nn_params_blend(struct nn_params *params, const struct nn_params *from, double tau,
                     const struct nn_parallel *par);
/* NN_OK, or NN_E_SHAPE with the first difference. */
int nn_params_alike(const struct nn_graph *graph, const struct nn_graph *other, struct nn_error *err);

struct nn_graph *nn_params_graph(const struct nn_params *params);
void *nn_params_data(struct nn_params *params, int param); /* elements of one parameter */
const void *nn_params_view(const struct nn_params *params, int param);
void *nn_params_block(struct nn_params *params); /* all of them, nn_graph_param_bytes */
uint64_t nn_params_version(const struct nn_params *params);
void nn_params_set_version(struct nn_params *params, uint64_t version);
/* The index of the first parameter with a number that is not finite, or -1. */
int nn_params_first_nonfinite(const struct nn_params *params, const struct nn_parallel *par);

/* --- gradients of the parameters --------------------------------------------------------------------- */

struct nn_grads; /* a block with the layout of the trainable parameters */

struct nn_grads *nn_grads_new(struct nn_graph *graph, struct nn_error *err); /* zeroed */
/* For a caller that writes the gradient of every trainable parameter: only what lies between them is zeroed. */
struct nn_grads *nn_grads_new_unset(struct nn_graph *graph, struct nn_error *err);
void nn_grads_free(struct nn_grads *grads);
void nn_grads_clear(struct nn_grads *grads);
/* All of `from`, which is of the same graph. */
void nn_grads_copy(struct nn_grads *grads, const struct nn_grads *from);
/* Elements of one trainable parameter's gradient. */
void *nn_grads_data(struct nn_grads *grads, int param);
void *nn_grads_block(struct nn_grads *grads); /* all of them, nn_graph_trainable_bytes */
/* grads += scale * from */
void nn_grads_add(struct nn_grads *grads, const struct nn_grads *from, double scale,
                  const struct nn_parallel *par);
/* grads *= scale */
void nn_grads_scale(struct nn_grads *grads, double scale, const struct nn_parallel *par);
/* The index of the first parameter whose gradient is not finite, or -1. */
int nn_grads_first_nonfinite(const struct nn_grads *grads, const struct nn_parallel *par);

/* --- forward ----------------------------------------------------------------------------------------- */

enum nn_mode { NN_EVAL, NN_TRAIN };

struct nn_run_options {
    int64_t rows;      /* of the batch; at least 1 */
    int64_t first_row; /* the place of row 0 in the batch that this is a shard of: masks depend on it */
    enum nn_mode mode;
    uint64_t seed;
    bool tape;          /* keep every node's value and what backward reads */
    const bool *wanted; /* without a tape: by node, whose values are kept; NULL: the model's outputs */
    /* Not 0: products go in tiles of so many rows, of which `rows` is a multiple, so that on a machine
     * where a row's bits do not depend on its place in a tile, they depend on that row alone. 0: in tiles
     * that suit the shapes. */
    int64_t tile;
};

struct nn_run;
struct nn_plan; /* where every buffer of a pass lies in its block */

/* The memory of a forward pass, known before any of it is allocated. NN_E_SIZE, NN_E_NOMEM. */
struct nn_plan *nn_plan_forward(const struct nn_graph *graph, const struct nn_run_options *options,
                                struct nn_error *err);
size_t nn_plan_bytes(const struct nn_plan *plan);
void nn_plan_free(struct nn_plan *plan);

/* A pass over `params` (borrowed for a reference of its own), laid out by `plan` (consumed). */
struct nn_run *nn_run_new_take(struct nn_params *params, struct nn_plan *plan, struct nn_error *err);
void nn_run_free(struct nn_run *run);
/* Whether the pass reads this input, so that it has to be given. */
bool nn_run_reads(const struct nn_run *run, int input);
/* Where the caller puts an input: [rows, sample...], of the input's dtype. NULL if it is not read. */
void *nn_run_input(struct nn_run *run, int input);
/* Checks what only data can tell (ids in range). NN_E_VALUE with site NN_SITE_INPUT or _LAYER. */
int nn_run_check(const struct nn_run *run, struct nn_error *err);
/* The same for some rows alone, counted from the first of them. From any thread that may read these. */
int nn_run_check_rows(const struct nn_run *run, int64_t first, int64_t rows, struct nn_error *err);
/* Before forward: another version of the same graph (borrowed for a reference of its own), and the first
 * `rows` rows alone. Values stay where they were planned. */
void nn_run_aim(struct nn_run *run, struct nn_params *params, int64_t rows);
void nn_run_forward(struct nn_run *run, const struct nn_parallel *par);
/* A node's value [rows, sample...]; NULL if the plan did not keep it. Lives as long as the run. */
const void *nn_run_value(const struct nn_run *run, int node);
struct nn_params *nn_run_params(const struct nn_run *run);
const struct nn_run_options *nn_run_options(const struct nn_run *run);

/* --- backward ---------------------------------------------------------------------------------------- */

/* How a request gives what one loss needs. */
struct nn_loss_options {
    bool skip;         /* it is not evaluated, and the rest does not matter */
    bool target_ids;   /* the target is I64, not of the graph's type */
    bool weight_full;  /* sample weights have the unreduced loss's shape, not [rows] */
    double normalizer; /* what `mean` divides by; NaN: this batch's own count */
};

struct nn_backward_options {
    const struct nn_loss_options *losses; /* one for each of the graph's losses; NULL: none is evaluated */
    const bool *upstream;                 /* by node: an upstream gradient is given for it; NULL: none */
    const bool *nodes;                    /* by node, inputs included: whose gradients are kept; NULL: none */
    bool parameters;                      /* whether gradients of the parameters are wanted */
};

struct nn_backward;

/* The memory of a backward pass over a run with these rows and mode. */
struct nn_plan *nn_plan_backward(const struct nn_graph *graph, const struct nn_run_options *run,
                                 const struct nn_backward_options *options, struct nn_error *err);
/* `run` is borrowed, has a tape, and outlives the pass. `plan` is consumed. */
struct nn_backward *nn_backward_new_take(const struct nn_run *run, struct nn_plan *plan,
                                         struct nn_error *err);
void nn_backward_free(struct nn_backward *backward);
/* Where the caller puts an upstream gradient [rows, sample...]; NULL if none was announced. */
void *nn_backward_upstream(struct nn_backward *backward, int node);
/* Where the caller puts a loss's target: [rows, form...]. Losses of one target name each have their own. */
void *nn_backward_target(struct nn_backward *backward, int loss);
/* Where the caller puts sample weights, of the graph's type: [rows] or [rows, unreduced loss...]. NULL if
 * the loss names none. */
void *nn_backward_sample_weight(struct nn_backward *backward, int loss);
/* Checks what only data can tell (labels in range). NN_E_VALUE with site NN_SITE_TARGET. */
int nn_backward_check(const struct nn_backward *backward, struct nn_error *err);
/* Losses, then gradients; adds to `grads` (NULL: none wanted). Once for each object. */
void nn_backward_run(struct nn_backward *backward, struct nn_grads *grads, const struct nn_parallel *par);
/* One loss, scaled and reduced; and what its mean divided by (1 for a sum). 0 for one that was skipped. */
double nn_backward_loss(const struct nn_backward *backward, int loss);
double nn_backward_normalizer(const struct nn_backward *backward, int loss);
/* The gradient [rows, sample...] of a node that options.nodes asked for; zeros where nothing flows. */
const void *nn_backward_gradient(const struct nn_backward *backward, int node);
/* Whether all numbers of that gradient are finite. */
bool nn_backward_gradient_finite(const struct nn_backward *backward, int node);

/* --- optimizers -------------------------------------------------------------------------------------- */

struct nn_optimizer;

/* State for the trainable parameters of `graph`, zero steps taken. Keeps a reference to the graph. */
struct nn_optimizer *nn_optimizer_new(struct nn_graph *graph, const struct nn_def *def,
                                      const struct nn_attrs *attrs, struct nn_error *err);
/* For a caller that writes every slot: as nn_params_new_unset. */
struct nn_optimizer *nn_optimizer_new_unset(struct nn_graph *graph, const struct nn_def *def,
                                            const struct nn_attrs *attrs, struct nn_error *err);
void nn_optimizer_free(struct nn_optimizer *optimizer);
/* What nn_optimizer_new would allocate. */
size_t nn_optimizer_bytes(const struct nn_graph *graph, const struct nn_def *def,
                          const struct nn_attrs *attrs);
/* What a change to these hyper-parameters would: slots that they use, and those before did not. */
size_t nn_optimizer_change_bytes(const struct nn_optimizer *optimizer, const struct nn_attrs *attrs);
/* Other hyper-parameters for the same definition; the state stays, but for slots that they do not use. In two steps, of
 * which only the first may fail: NN_E_VALUE, NN_E_NOMEM. */
struct nn_optimizer_change;
struct nn_optimizer_change *nn_optimizer_change_new(const struct nn_optimizer *optimizer,
                                                    const struct nn_attrs *attrs, struct nn_error *err);
void nn_optimizer_change_free(struct nn_optimizer_change *change);
void nn_optimizer_configure_take(struct nn_optimizer *optimizer, struct nn_optimizer_change *change);
/* Both at once; an error leaves it unchanged. */
int nn_optimizer_configure(struct nn_optimizer *optimizer, const struct nn_attrs *attrs,
                           struct nn_error *err);
const struct nn_def *nn_optimizer_definition(const struct nn_optimizer *optimizer);

/* One step from `from` to `to`, which is a block of its own: all parameters are written. `lr` NaN means
 * the optimizer's own. `scale` multiplies the gradient first; clipping sees the product. False: a number that it
 * wrote is not finite. */
bool nn_optimizer_step(struct nn_optimizer *optimizer, const struct nn_params *from,
                       const struct nn_grads *grads, double scale, double lr, struct nn_params *to,
                       const struct nn_parallel *par);

/* The same for the parameters that `only` marks (by parameter): the others, and their state, stay as they
 * are. NULL: all. */
bool nn_optimizer_step_some(struct nn_optimizer *optimizer, const bool *only, const struct nn_params *from,
                            const struct nn_grads *grads, double scale, double lr, struct nn_params *to,
                            const struct nn_parallel *par);

/* The state: tensors shaped like the trainable parameters, each by name, and the steps taken. */
int nn_optimizer_slot_count(const struct nn_optimizer *optimizer);
const char *nn_optimizer_slot_name(const struct nn_optimizer *optimizer, int slot);
void *nn_optimizer_slot(struct nn_optimizer *optimizer, int slot, int param);
uint64_t nn_optimizer_steps(const struct nn_optimizer *optimizer);
void nn_optimizer_set_steps(struct nn_optimizer *optimizer, uint64_t steps);
/* Whether a slot awaits its first step, as all do at 0 steps, and one does that new hyper-parameters brought. */
bool nn_optimizer_slot_fresh(const struct nn_optimizer *optimizer, int slot);
void nn_optimizer_set_slot_fresh(struct nn_optimizer *optimizer, int slot, bool fresh);

/* --- BLAS -------------------------------------------------------------------------------------------- */

/* One thread inside the library, process-wide: threads are the caller's. Call once, at start. */
void nn_blas_init(void);
/* Version and kernel in use, as the library names them; a static string. */
const char *nn_blas_name(void);
/* The instructions that core's own loops use here: "avx2", or "base"; a static string. */
const char *nn_loops_name(void);
/* Products of many shapes against a naive one, float and double. NN_E_INTERNAL with the shape. */
int nn_blas_check(struct nn_error *err);
/* The nn_run_options.tile at which a row's bits depend on that row alone, in a graph without NN_COUPLES_ROWS:
 * found by trying, in some ten milliseconds. It differs from machine to machine and from type to type. 0:
 * there is none, or memory was out. */
int64_t nn_blas_tile(enum nn_dtype dtype);

#endif
