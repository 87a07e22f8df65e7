/* nn.h - the engine: graphs of operators, their parameters, and passes over them.
 *
 * The one header of core/ that other folders include; errors, types, shapes and memory are in base.h, what the tables
 * say in def.h: both come with it. A model is four kinds of object:
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
#include "def.h"

/* --- graphs -------------------------------------------------------------------------------------- */

#define NN_MAX_NAME 128 /* bytes of a node's name, without the end */

enum nn_mode { NN_EVAL, NN_TRAIN };

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

/* A parameter that is another layer's: of this layer's operator, `suffix` ("weight") is the parameter `owner`
 * ("wte.weight"), which its own layer does not tie. */
struct nn_tie {
    const char *suffix, *owner;
};

struct nn_layer {
    const struct nn_def *op;
    const char *name;          /* NULL: its index among the layers, as in PyTorch's nn.Sequential */
    const char *const *inputs; /* NULL: the layer before it, or the model's only input */
    int n_inputs;
    const struct nn_attrs *attrs; /* NULL: defaults */
    bool frozen;                  /* the parameters that it owns are not trained */
    const struct nn_tie *ties;    /* owners may be layers that are added later */
    int n_ties;
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

/* Of a sealed graph. A value is an input, or an output of a layer; an operator's first output bears the layer's name,
 * a further one "<layer>.<output>". Values are the inputs, then the outputs of the layers, each in the order of their
 * adding. */
enum nn_dtype nn_graph_dtype(const struct nn_graph *graph);
int nn_graph_input_count(const struct nn_graph *graph);
int nn_graph_value_count(const struct nn_graph *graph);
int nn_graph_output_count(const struct nn_graph *graph);
int nn_graph_output(const struct nn_graph *graph, int index);      /* a value */
int nn_graph_find(const struct nn_graph *graph, const char *name); /* a value, or -1 */

struct nn_value_info {
    const char *name;
    const struct nn_def *op; /* NULL for an input */
    enum nn_dtype dtype;
    struct nn_shape shape; /* of a sample */
    bool rows; /* whether it has a batch dimension. false: it is one sample, the same for all rows */
};
struct nn_value_info nn_graph_value(const struct nn_graph *graph, int value);
/* The shape of a value in a batch: [rows, sample...], or that of the sample. */
struct nn_shape nn_value_shape(const struct nn_value_info *value, int64_t rows);

/* How much arithmetic a graph takes at most, known before any is done. It is counted in floating-point operations of
 * a product of matrices, two for each term of a sum; a core does some 1e11 of them a second. All else counts as many
 * as a product does in its time, roughly: a number that is read or written, NN_WORK_NUMBER (which is that of a cache;
 * from memory it takes up to ten times as long); an exponential, some hundred. */
struct nn_cost {
    double a_row; /* of the nodes that are computed row by row */
    double once;  /* of the nodes without rows: of the whole pass */
};
struct nn_work {
    struct nn_cost forward;  /* all nodes */
    struct nn_cost backward; /* all gradients, and all losses with theirs */
    double draw;             /* of nn_params_init */
};
static inline double nn_cost_of(struct nn_cost cost, double rows) { return cost.once + rows * cost.a_row; }
#define NN_WORK_NUMBER   8
#define NN_WORK_BACKWARD 2 /* times a node's forward */
struct nn_work nn_graph_work(const struct nn_graph *graph);

/* What a parameter is, in the order of the block: a step changes the trained ones; a step also changes the buffers, by
 * what was seen in train mode; nothing but its being set changes a frozen one. */
enum nn_kind { NN_TRAINED, NN_BUFFER, NN_FROZEN };
#define NN_KINDS 3

/* One parameter, of however many layers: a view into the block. A gradient is the block's first part, of the trained
 * ones and the buffers: it has the statistics that were seen where the block has the buffers. */
struct nn_param {
    const char *name; /* "<layer>.<suffix>" of its owner, as in a PyTorch state_dict */
    struct nn_shape shape;
    enum nn_kind kind;
    enum nn_dtype dtype; /* the graph's; of a buffer that counts batches, I64 */
    int64_t elements;
    size_t bytes;  /* of the elements */
    size_t offset; /* bytes from the start of the block; a multiple of 64 */
};
int nn_graph_param_count(const struct nn_graph *graph);
const struct nn_param *nn_graph_param(const struct nn_graph *graph, int index);
int nn_graph_param_find(const struct nn_graph *graph, const char *name); /* by the owner's name; or -1 */
/* The names that tied parameters have beside their owner's. */
struct nn_alias {
    const char *name;
    int param;
};
int nn_graph_alias_count(const struct nn_graph *graph);
struct nn_alias nn_graph_alias(const struct nn_graph *graph, int index);
/* A parameter by any of its names, or -1. */
int nn_graph_param_find_any(const struct nn_graph *graph, const char *name);
size_t nn_graph_param_bytes(const struct nn_graph *graph);   /* of the whole block */
size_t nn_graph_trained_bytes(const struct nn_graph *graph); /* of the trained ones: an optimizer's slot */
size_t
nn_graph_gradient_bytes(const struct nn_graph *graph); /* of these and the buffers: a gradient's block */
/* A layer of which, in this mode, a row depends on other rows of the batch; NULL: there is none. */
const char *nn_graph_couples_rows(const struct nn_graph *graph, enum nn_mode mode);

/* What a target may be: indices, or numbers of the graph's type. */
struct nn_target_form {
    bool ids;              /* I64 */
    struct nn_shape shape; /* of a sample */
};
struct nn_loss_info {
    const struct nn_def *op;
    int input; /* a value */
    bool
        rows; /* whether that has a batch dimension; else the loss counts only in the shard whose first_row is 0 */
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
    /* Asked before each node of a pass, on the pass's own thread: whether the pass is given up. NULL: it is not. */
    bool (*given_up)(void *asked);
    void *asked;
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

struct nn_grads; /* a block with the layout of the trained parameters and the buffers */

struct nn_grads *nn_grads_new(struct nn_graph *graph, struct nn_error *err); /* zeroed */
/* For a caller that writes the gradient of every trained parameter: only the rest is zeroed. */
struct nn_grads *nn_grads_new_unset(struct nn_graph *graph, struct nn_error *err);
void nn_grads_free(struct nn_grads *grads);
void nn_grads_clear(struct nn_grads *grads);
/* All of `from`, which is of the same graph. */
void nn_grads_copy(struct nn_grads *grads, const struct nn_grads *from);
/* Elements of one trained parameter's gradient. */
void *nn_grads_data(struct nn_grads *grads, int param);
void *nn_grads_block(struct nn_grads *grads); /* all of them, nn_graph_gradient_bytes */
/* grads += scale * from; the statistics stay as they are */
void nn_grads_add(struct nn_grads *grads, const struct nn_grads *from, double scale,
                  const struct nn_parallel *par);
/* grads *= scale; likewise */
void nn_grads_scale(struct nn_grads *grads, double scale, const struct nn_parallel *par);
/* The index of the first parameter whose gradient, or buffer whose statistics are not finite, or -1. */
int nn_grads_first_nonfinite(const struct nn_grads *grads, const struct nn_parallel *par);
/* The same for a number of scale * grads, or of sum + scale * grads (`sum` NULL: of the former), that is not finite or
 * whose size is beyond `limit`, which may be infinite. Statistics have no scale and no limit. */
int nn_grads_first_beyond(const struct nn_grads *grads, double scale, const struct nn_grads *sum,
                          double limit, const struct nn_parallel *par);

/* --- buffers ----------------------------------------------------------------------------------------- *
 *
 * A pass in train mode does not change buffers: it sees statistics of its batch, which ride in the gradient. Of a layer
 * with the momentum m, a gradient that has seen n batches, one after the other, with the statistics s_1 ... s_n has
 *     S = Σ_i (1 - m)^(n - i) s_i    and n, where the block has the I64 buffer.
 * A step makes r = (1 - m)^n r + m S of a buffer r, and adds n to the count k. Without a momentum the average is
 * cumulative: S = Σ_i s_i, and r = (k r + S) / (k + n). That is what n forward passes of PyTorch's BatchNorm leave. */

/* How many batches the statistics of a buffer are of; 0: it has seen none. */
int64_t nn_grads_seen(const struct nn_grads *grads, int buffer);
/* The elements of a buffer's statistic S, or n. */
void *nn_grads_statistic(struct nn_grads *grads, int buffer);
/* As if it had seen nothing. */
void nn_grads_forget(struct nn_grads *grads);
/* What `from` has seen comes after what `grads` has. */
void nn_grads_follow(struct nn_grads *grads, const struct nn_grads *from);
/* The weighted mean of what the buffers of `at` would be after each of `n` gradients, which becomes what `mean` has
 * instead of statistics; the weights' sum is 1. `mean` may be one of them. */
void nn_grads_average_buffers(struct nn_grads *mean, const struct nn_grads *const *each,
                              const double *weights, size_t n, const struct nn_params *at);
/* Whether it has such means, and not statistics; and sets that. */
bool nn_grads_is_averaged(const struct nn_grads *grads);
void nn_grads_set_averaged(struct nn_grads *grads, bool averaged);

/* --- forward ----------------------------------------------------------------------------------------- */

struct nn_run_options {
    int64_t rows;      /* of the batch; at least 1 */
    int64_t first_row; /* the place of row 0 in the batch that this is a shard of: masks depend on it */
    enum nn_mode mode;
    uint64_t seed;
    bool tape;          /* keep every node's value and what backward reads */
    const bool *wanted; /* by value: which are kept; NULL: the model's outputs */
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
/* Checks what only data can tell: ids in range, enough rows. NN_E_VALUE with site NN_SITE_INPUT or _LAYER. */
int nn_run_check(const struct nn_run *run, struct nn_error *err);
/* The same for some rows alone, counted from the first of them. From any thread that may read these. */
int nn_run_check_rows(const struct nn_run *run, int64_t first, int64_t rows, struct nn_error *err);
/* Before forward: another version of the same graph (borrowed for a reference of its own), and the first
 * `rows` rows alone. Values stay where they were planned. */
void nn_run_aim(struct nn_run *run, struct nn_params *params, int64_t rows);
/* False: it was given up, and values are not to be read. */
bool nn_run_forward(struct nn_run *run, const struct nn_parallel *par);
/* A value: nn_value_shape; NULL if the plan did not keep it. Lives as long as the run. */
const void *nn_run_value(const struct nn_run *run, int value);
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
    const bool *upstream;                 /* by value: an upstream gradient is given for it; NULL: none */
    const bool *nodes; /* by value, inputs included: whose gradients are kept; NULL: none */
    bool parameters;   /* whether gradients of the parameters are wanted */
};

struct nn_backward;

/* The memory of a backward pass over a run with these rows and mode. */
struct nn_plan *nn_plan_backward(const struct nn_graph *graph, const struct nn_run_options *run,
                                 const struct nn_backward_options *options, struct nn_error *err);
/* `run` is borrowed, has a tape, and outlives the pass. `plan` is consumed. */
struct nn_backward *nn_backward_new_take(const struct nn_run *run, struct nn_plan *plan,
                                         struct nn_error *err);
void nn_backward_free(struct nn_backward *backward);
/* Where the caller puts an upstream gradient, shaped like the value; NULL if none was announced. */
void *nn_backward_upstream(struct nn_backward *backward, int value);
/* Where the caller puts a loss's target: [rows, form...], or [form...] if the loss's input has no rows. Losses of one
 * target name each have their own. */
void *nn_backward_target(struct nn_backward *backward, int loss);
/* Where the caller puts sample weights, of the graph's type: [rows] or [rows, unreduced loss...]. NULL if
 * the loss names none. */
void *nn_backward_sample_weight(struct nn_backward *backward, int loss);
/* Checks what only data can tell (labels in range). NN_E_VALUE with site NN_SITE_TARGET. */
int nn_backward_check(const struct nn_backward *backward, struct nn_error *err);
/* Losses, then gradients; adds to `grads` (NULL: none wanted), and of a run in train mode what it has seen. Once for
 * each object. False: it was given up, and neither losses nor gradients are to be read. */
bool nn_backward_run(struct nn_backward *backward, struct nn_grads *grads, const struct nn_parallel *par);
/* One loss, scaled and reduced; and what its mean divided by (1 for a sum). 0 for one that was skipped. */
double nn_backward_loss(const struct nn_backward *backward, int loss);
double nn_backward_normalizer(const struct nn_backward *backward, int loss);
/* Whether a way leads from a trained parameter to a loss that was evaluated, or to an upstream gradient: else its
 * gradient is 0 whatever the numbers are. Nothing is said of a frozen one. */
bool nn_backward_reaches(const struct nn_backward *backward, int param);
/* The gradient, shaped like the value, of one that options.nodes asked for; zeros where nothing flows. */
const void *nn_backward_gradient(const struct nn_backward *backward, int value);
/* Whether all numbers of that gradient are finite. */
bool nn_backward_gradient_finite(const struct nn_backward *backward, int value);

/* --- optimizers -------------------------------------------------------------------------------------- */

struct nn_optimizer;

/* State for the trained parameters of `graph`, zero steps taken. Keeps a reference to the graph. */
struct nn_optimizer *nn_optimizer_new(struct nn_graph *graph, const struct nn_def *def,
                                      const struct nn_attrs *attrs, struct nn_error *err);
/* For a caller that writes every slot: as nn_params_new_unset. */
struct nn_optimizer *nn_optimizer_new_unset(struct nn_graph *graph, const struct nn_def *def,
                                            const struct nn_attrs *attrs, struct nn_error *err);
void nn_optimizer_free(struct nn_optimizer *optimizer);
/* Of a step: see struct nn_work. */
double nn_optimizer_work(const struct nn_optimizer *optimizer);
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

/* The greatest |g| that a step takes, in a graph of this type: the squares of greater ones, or the sums of these, would
 * be infinite in the state. */
double nn_optimizer_takes(const struct nn_def *def, enum nn_dtype dtype);
/* What a gradient times its scale is held against before a step: the same; or infinity, where clipping leaves less. */
double nn_optimizer_limit(const struct nn_optimizer *optimizer);

/* One step from `from` to `to`, which is a block of its own: all parameters are written. `lr` NaN means
 * the optimizer's own. `scale` multiplies the gradient first; clipping sees the product. Buffers become what they are
 * after the batches that the gradient has seen. False: a number that it wrote, of the parameters or of the state, is
 * not finite. */
bool nn_optimizer_step(struct nn_optimizer *optimizer, const struct nn_params *from,
                       const struct nn_grads *grads, double scale, double lr, struct nn_params *to,
                       const struct nn_parallel *par);

/* The same for the parameters that `only` marks (by parameter): the others, and their state, stay as they
 * are. NULL: all. Where all are stepped and have come equally far, it is one pass over the block. */
bool nn_optimizer_step_some(struct nn_optimizer *optimizer, const bool *only, const struct nn_params *from,
                            const struct nn_grads *grads, double scale, double lr, struct nn_params *to,
                            const struct nn_parallel *par);

/* After a step that returned false: the index of a parameter of which, or of whose state, a number is not finite. */
int nn_optimizer_first_nonfinite(const struct nn_optimizer *optimizer, const struct nn_params *params,
                                 const struct nn_parallel *par);

/* The state: tensors shaped like the trained parameters, each by name, and how many steps each parameter has taken:
 * bias correction and the like count those, as PyTorch's do. */
int nn_optimizer_slot_count(const struct nn_optimizer *optimizer);
const char *nn_optimizer_slot_name(const struct nn_optimizer *optimizer, int slot);
void *nn_optimizer_slot(struct nn_optimizer *optimizer, int slot, int param);
uint64_t nn_optimizer_steps(const struct nn_optimizer *optimizer, int param);
void nn_optimizer_set_steps(struct nn_optimizer *optimizer, int param, uint64_t steps);
/* Of any parameter. */
uint64_t nn_optimizer_most_steps(const struct nn_optimizer *optimizer);
/* Whether a parameter's next step writes a slot whatever that holds, as SGD's first step does with the momentum. It
 * does so only in slots that heed it, from when they come on until the parameter's first step. */
bool nn_optimizer_slot_heeds_fresh(const struct nn_optimizer *optimizer, int slot);
bool nn_optimizer_slot_fresh(const struct nn_optimizer *optimizer, int slot, int param);
void nn_optimizer_set_slot_fresh(struct nn_optimizer *optimizer, int slot, int param, bool fresh);

/* --- BLAS -------------------------------------------------------------------------------------------- */

/* One thread inside the library, process-wide: threads are the caller's. Call once, at start. */
void nn_blas_init(void);
/* Version and kernel in use, as the library names them; a static string. */
const char *nn_blas_name(void);
/* The instructions that core's own loops use here: "avx2", or "base"; a static string. */
const char *nn_loops_name(void);
/* A hash of what the C library's functions answer here. It chooses their code by CPU too: code that multiplies and adds
 * with one rounding has other last bits. */
uint64_t nn_libm_bits(void);
/* Products of many shapes against a naive one, float and double. NN_E_INTERNAL with the shape. */
int nn_blas_check(struct nn_error *err);
/* The nn_run_options.tile at which a row's bits depend on that row alone, in a graph without NN_COUPLES_ROWS:
 * found by trying, in some ten milliseconds. It differs from machine to machine and from type to type. 0:
 * there is none, or memory was out. */
int64_t nn_blas_tile(enum nn_dtype dtype);

#endif
