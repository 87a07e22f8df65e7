/* broadcast.h - operators on two inputs, element by element, whose samples need not have one shape: their trailing
 * dimensions are aligned, and a dimension that is 1 or missing in one of them is repeated, as in NumPy. So is the one
 * sample of an input without rows, for every row.
 *
 *   NN_BINARY(op, from, cost, f, back_a, back_b, texts...)
 *     y = f(a, b);  from X: da += back_a(a, b, dy), db += back_b(a, b, dy);  from NOTHING: back_a(dy), back_b(dy)
 *
 * The gradient of a repeated element is the sum over its places, in double. Its order depends on the shapes alone. Of
 * an input without rows that has few elements, the rows are summed in a fixed number of pieces, so that threads share
 * them. */
#ifndef NN_BROADCAST_H
#define NN_BROADCAST_H

#include <string.h>

#include "../params.h"
#include "elementwise.h"
#include "strided.h"

enum { NN_PIECES = 16, NN_FEW = 1024 }; /* pieces of the rows; elements that are summed in pieces are fewer */

static inline bool nn_is_small(const struct nn_shape *shape) { return nn_shape_elements(shape) < NN_FEW; }

static inline int nn_infer_broadcast(struct nn_infer *infer, struct nn_error *err) {
    const struct nn_shape *a = &infer->in[0], *b = &infer->in[1];
    const int rank = a->rank > b->rank ? a->rank : b->rank;
    infer->broadcasts = infer->shared || !nn_shape_equal(a, b);
    infer->out.rank = rank;
    for (int i = 1; i <= rank; i++) {
        const int64_t m = i > a->rank ? 1 : a->dim[a->rank - i], n = i > b->rank ? 1 : b->dim[b->rank - i];
        if (m != n && m != 1 && n != 1)
            return nn_fail_shape(err, a, b,
                                 "the inputs' dimensions, aligned at their ends, must be equal or 1");
        infer->out.dim[rank - i] = m > n ? m : n;
    }
    for (int i = 0; i < 2; i++) {
        const size_t totals = NN_PIECES * (size_t)nn_shape_elements(&infer->in[i]) * sizeof(wide);
        if (infer->shared && infer->shared[i] && nn_is_small(&infer->in[i]) && totals > infer->scratch.once)
            infer->scratch.once = totals;
    }
    return NN_OK;
}

static inline bool nn_broadcasts(const struct nn_pass *pass) {
    return pass->shared || !nn_shape_equal(&pass->in[0], &pass->in[1]);
}

/* --- walks --------------------------------------------------------------------------------------------------- */

enum { NN_A, NN_B, NN_OUT }; /* a, b; and y or dy */

/* Over the whole batch in the order of y. On the innermost dimension a step is 0 or 1. */
static inline struct nn_loops nn_broadcast_loops(const struct nn_pass *pass) {
    struct nn_shape shape[NN_TENSORS];
    int64_t left[NN_TENSORS]; /* elements of what is inside the dimension at hand */
    const int rank = pass->out->rank + 1;
    for (int t = 0; t < NN_TENSORS; t++) {
        const struct nn_shape *sample = t == NN_OUT ? pass->out : &pass->in[t];
        shape[t] = (struct nn_shape){.rank = rank};
        shape[t].dim[0] = t != NN_OUT && pass->shared && pass->shared[t] ? 1 : pass->rows;
        for (int i = 1; i < rank; i++)
            shape[t].dim[i] = i < rank - sample->rank ? 1 : sample->dim[i - rank + sample->rank];
        left[t] = nn_shape_elements(&shape[t]);
    }
    struct nn_loops loops = {.rank = 0};
    for (int i = 0; i < rank; i++) {
        int64_t step[NN_TENSORS];
        for (int t = 0; t < NN_TENSORS; t++) {
            left[t] /= shape[t].dim[i];
            step[t] = shape[t].dim[i] == 1 ? 0 : left[t];
        }
        nn_loops_add(&loops, shape[NN_OUT].dim[i], step);
    }
    nn_loops_end(&loops);
    return loops;
}

/* The dimensions in which an input is repeated, or those in which it is not. */
static inline struct nn_loops nn_loops_where(const struct nn_loops *all, int input, bool repeated) {
    struct nn_loops loops = {.rank = 0};
    for (int i = 0; i < all->rank; i++) {
        const int64_t step[NN_TENSORS] = {all->step[NN_A][i], all->step[NN_B][i], all->step[NN_OUT][i]};
        if ((step[input] == 0) == repeated) nn_loops_add(&loops, all->dim[i], step);
    }
    nn_loops_end(&loops);
    return loops;
}

/* --- lines --------------------------------------------------------------------------------------------------- */

#define NN_INLINE static inline __attribute__((always_inline))

typedef real nn_binary_fn(real a, real b);
typedef real nn_binary_back_fn(real a, real b, real d_y);

/* Calls the statement with the steps as constants, so that the compiler makes a version for each pair of them. */
#define NN_WITH_STEPS(step_a, step_b, statement)                                                             \
    do {                                                                                                     \
        if ((step_a) && (step_b)) {                                                                          \
            enum { sa = 1, sb = 1 };                                                                         \
            statement;                                                                                       \
        } else if (step_a) {                                                                                 \
            enum { sa = 1, sb = 0 };                                                                         \
            statement;                                                                                       \
        } else {                                                                                             \
            enum { sa = 0, sb = 1 };                                                                         \
            statement;                                                                                       \
        }                                                                                                    \
    } while (0)

NN_INLINE void nn_line_forward(const real *a, int64_t sa, const real *b, int64_t sb, real *y, int64_t n,
                               nn_binary_fn *f) {
    for (int64_t j = 0; j < n; j++) y[j] = f(a[j * sa], b[j * sb]);
}

NN_INLINE void nn_line_add(wide *total, const real *a, int64_t sa, const real *b, int64_t sb, const real *d_y,
                           int64_t n, nn_binary_back_fn *back) {
    for (int64_t j = 0; j < n; j++) total[j] += (wide)back(a[j * sa], b[j * sb], d_y[j]);
}

/* In NN_LANES lanes, element j in lane j % NN_LANES. */
NN_INLINE wide nn_line_sum(const real *a, int64_t sa, const real *b, int64_t sb, const real *d_y, int64_t n,
                           nn_binary_back_fn *back) {
    wide lane[NN_LANES] = {0}, sum = 0;
    const int64_t whole = n - n % NN_LANES;
    for (int64_t j = 0; j < whole; j += NN_LANES)
        for (int l = 0; l < NN_LANES; l++)
            lane[l] += (wide)back(a[(j + l) * sa], b[(j + l) * sb], d_y[j + l]);
    for (int l = 0; l < NN_LANES; l++) sum += lane[l];
    for (int64_t j = whole; j < n; j++) sum += (wide)back(a[j * sa], b[j * sb], d_y[j]);
    return sum;
}

/* --- passes -------------------------------------------------------------------------------------------------- */

/* Over the elements [begin, end) of y. */
NN_INLINE void nn_broadcast_forward(const struct nn_pass *pass, int64_t begin, int64_t end, nn_binary_fn *f) {
    const struct nn_loops loops = nn_broadcast_loops(pass);
    const int64_t line = nn_loops_line(&loops), a_step = nn_loops_step(&loops, NN_A),
                  b_step = nn_loops_step(&loops, NN_B);
    struct nn_walk walk = nn_walk_to(&loops, begin / line);
    for (int64_t i = begin, n; i < end; i += n, nn_walk_next(&walk, &loops)) {
        const int64_t skip = i % line;
        n = line - skip < end - i ? line - skip : end - i;
        const real *a = (const real *)pass->x[0] + walk.at[NN_A] + skip * a_step;
        const real *b = (const real *)pass->x[1] + walk.at[NN_B] + skip * b_step;
        real *y = (real *)pass->y + i;
        NN_WITH_STEPS(a_step, b_step, nn_line_forward(a, sa, b, sb, y, n, f));
    }
}

/* What a task needs for elements of the gradient of one input. */
struct nn_broadcast_task {
    const struct nn_pass *pass;
    int input;
    struct nn_loops kept, repeated;
    bool lines; /* whether the innermost dimension of y is repeated */
};

enum { NN_BROADCAST_BLOCK = 256 }; /* elements that are summed together */

/* total[j] += Σ over the places of element j of a block: n elements along a line of `kept`, which begins at `base`. */
NN_INLINE void nn_broadcast_sum(const struct nn_broadcast_task *task, const int64_t base[NN_TENSORS],
                                int64_t n, wide *total, bool reads, nn_binary_back_fn *back) {
    const struct nn_loops *kept = &task->kept, *over = &task->repeated;
    const int64_t places = nn_loops_line(over), lines = nn_loops_elements(over) / places;
    const real *d_y = task->pass->d_y;
    const real *a = reads ? task->pass->x[0] : d_y,
               *b = reads ? task->pass->x[1] : d_y; /* else not looked at */
    int64_t in[NN_TENSORS], out[NN_TENSORS];
    for (int t = 0; t < NN_TENSORS; t++) in[t] = nn_loops_step(over, t), out[t] = nn_loops_step(kept, t);
    struct nn_walk walk = nn_walk_to(over, 0);
    for (int64_t i = 0; i < lines; i++, nn_walk_next(&walk, over)) {
        const real *pa = a + base[NN_A] + walk.at[NN_A], *pb = b + base[NN_B] + walk.at[NN_B];
        const real *pd = d_y + base[NN_OUT] + walk.at[NN_OUT];
        for (int64_t j = 0; task->lines && j < n; j++)
            NN_WITH_STEPS(in[NN_A], in[NN_B],
                          total[j] += nn_line_sum(pa + j * out[NN_A], sa, pb + j * out[NN_B], sb,
                                                  pd + j * out[NN_OUT], places, back));
        for (int64_t p = 0; !task->lines && p < places; p++)
            NN_WITH_STEPS(out[NN_A], out[NN_B],
                          nn_line_add(total, pa + p * in[NN_A], sa, pb + p * in[NN_B], sb,
                                      pd + p * in[NN_OUT], n, back));
    }
}

static inline struct nn_broadcast_task nn_broadcast_task_of(const struct nn_pass *pass, int input) {
    const struct nn_loops all = nn_broadcast_loops(pass);
    return (struct nn_broadcast_task){.pass = pass,
                                      .input = input,
                                      .kept = nn_loops_where(&all, input, false),
                                      .repeated = nn_loops_where(&all, input, true),
                                      .lines = nn_loops_step(&all, input) == 0 && nn_loops_line(&all) > 1};
}

/* The totals of elements from `i` on, as many as lie in one line and one block, and before `end`. Their number. */
NN_INLINE int64_t nn_broadcast_totals(const struct nn_broadcast_task *task, int64_t i, int64_t end,
                                      wide *total, bool reads, nn_binary_back_fn *back) {
    const struct nn_loops *kept = &task->kept;
    const int64_t line = nn_loops_line(kept), skip = i % line;
    const struct nn_walk walk = nn_walk_to(kept, i / line);
    int64_t base[NN_TENSORS], n = line - skip < end - i ? line - skip : end - i;
    for (int t = 0; t < NN_TENSORS; t++) base[t] = walk.at[t] + skip * nn_loops_step(kept, t);
    if (n > NN_BROADCAST_BLOCK) n = NN_BROADCAST_BLOCK;
    for (int64_t j = 0; j < n; j++) total[j] = 0;
    nn_broadcast_sum(task, base, n, total, reads, back);
    return n;
}

/* The elements [begin, end) of the input's gradient. */
NN_INLINE void nn_broadcast_range(const struct nn_broadcast_task *task, int64_t begin, int64_t end,
                                  bool reads, nn_binary_back_fn *back) {
    real *d_x = task->pass->d_x[task->input];
    const bool fresh = task->pass->fresh_x && task->pass->fresh_x[task->input];
    wide total[NN_BROADCAST_BLOCK];
    if (fresh) memset(d_x + begin, 0, (size_t)(end - begin) * sizeof *d_x);
    for (int64_t i = begin, n; i < end; i += n) {
        n = nn_broadcast_totals(task, i, end, total, reads, back);
        for (int64_t j = 0; j < n; j++) d_x[i + j] += (real)total[j];
    }
}

/* The totals of the pieces [begin, end) of the rows, into the scratch. */
NN_INLINE void nn_broadcast_pieces(const struct nn_broadcast_task *whole, int64_t begin, int64_t end,
                                   bool reads, nn_binary_back_fn *back) {
    const struct nn_pass *pass = whole->pass;
    const int64_t out = nn_shape_elements(pass->out), elements = nn_shape_elements(&pass->in[whole->input]);
    for (int64_t piece = begin; piece < end; piece++) {
        const int64_t first = pass->rows * piece / NN_PIECES, last = pass->rows * (piece + 1) / NN_PIECES;
        wide *totals = (wide *)pass->scratch + piece * elements;
        const void *x[2];
        for (int k = 0; k < 2; k++) {
            const int64_t skipped = pass->shared[k] ? 0 : first * nn_shape_elements(&pass->in[k]);
            x[k] = reads ? (const real *)pass->x[k] + skipped : NULL;
        }
        struct nn_pass part = *pass;
        part.rows = last - first;
        part.x = x;
        part.d_y = (const real *)pass->d_y + first * out;
        const struct nn_broadcast_task task = nn_broadcast_task_of(&part, whole->input);
        for (int64_t i = 0; i < elements;)
            i += nn_broadcast_totals(&task, i, elements, totals + i, reads, back);
    }
}

static inline void nn_broadcast_reduce(const struct nn_pass *pass, int input) {
    const int64_t elements = nn_shape_elements(&pass->in[input]);
    const bool fresh = pass->fresh_x && pass->fresh_x[input];
    real *d_x = pass->d_x[input];
    for (int64_t i = 0; i < elements; i++) {
        wide sum = 0;
        for (int piece = 0; piece < NN_PIECES; piece++)
            sum += ((const wide *)pass->scratch)[piece * elements + i];
        d_x[i] = fresh ? (real)sum : d_x[i] + (real)sum;
    }
}

typedef void nn_broadcast_fn(void *task, int64_t begin, int64_t end);

/* Cut by the elements of the gradient, so that each is one task's; or by rows. */
static inline void nn_broadcast_gradient(const struct nn_pass *pass, int input, nn_broadcast_fn *range,
                                         nn_broadcast_fn *pieces) {
    enum { LEAST = 64 }; /* elements in one task: some cache lines */
    if (!pass->d_x[input]) return;
    struct nn_broadcast_task task = nn_broadcast_task_of(pass, input);
    const int64_t each = nn_loops_elements(&task.repeated), n = nn_loops_elements(&task.kept);
    const int64_t chunk = NN_CHUNK / each;
    if (pass->shared && pass->shared[input] && nn_is_small(&pass->in[input]) && pass->rows >= NN_PIECES) {
        const int64_t at_once = (int64_t)NN_PIECES * NN_CHUNK / (each * n);
        nn_parallel_ranges(pass->par, NN_PIECES, at_once > 1 ? at_once : 1, pieces, &task);
        nn_broadcast_reduce(pass, input);
    } else {
        nn_parallel_ranges(pass->par, n, chunk > LEAST ? chunk : LEAST, range, &task);
    }
}

#define NN_BACK_X(back)       back(a, b, d_y)
#define NN_BACK_NOTHING(back) ((void)a, (void)b, back(d_y))
#define NN_HAS_X              true
#define NN_HAS_NOTHING        false

#define NN_BROADCAST_PASSES(from, f, back_a, back_b)                                                         \
    static inline real every_a(real a, real b, real d_y) { return NN_BACK_##from(back_a); }                  \
    static inline real every_b(real a, real b, real d_y) { return NN_BACK_##from(back_b); }                  \
    static void range_a(void *task, int64_t begin, int64_t end) {                                            \
        nn_broadcast_range(task, begin, end, NN_HAS_##from, every_a);                                        \
    }                                                                                                        \
    static void range_b(void *task, int64_t begin, int64_t end) {                                            \
        nn_broadcast_range(task, begin, end, NN_HAS_##from, every_b);                                        \
    }                                                                                                        \
    static void pieces_a(void *task, int64_t begin, int64_t end) {                                           \
        nn_broadcast_pieces(task, begin, end, NN_HAS_##from, every_a);                                       \
    }                                                                                                        \
    static void pieces_b(void *task, int64_t begin, int64_t end) {                                           \
        nn_broadcast_pieces(task, begin, end, NN_HAS_##from, every_b);                                       \
    }                                                                                                        \
    static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {                            \
        if (nn_broadcasts(pass))                                                                             \
            nn_broadcast_forward(pass, begin, end, f);                                                       \
        else                                                                                                 \
            same_forward(pass, begin, end);                                                                  \
    }                                                                                                        \
    static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {                           \
        if (!nn_broadcasts(pass)) {                                                                          \
            same_backward(pass, begin, end);                                                                 \
            return;                                                                                          \
        }                                                                                                    \
        nn_broadcast_gradient(pass, 0, range_a, pieces_a);                                                   \
        nn_broadcast_gradient(pass, 1, range_b, pieces_b);                                                   \
    }

#define NN_BINARY(op, from, cost, f, back_a, back_b, ...)                                                    \
    NN_BINARY_PASSES(same_forward, same_backward, from, f, back_a, back_b)                                   \
    NN_BROADCAST_PASSES(from, f, back_a, back_b)                                                             \
    static const struct nn_example examples[] = {                                                            \
        {.attrs = "", .n_inputs = 2, .inputs = {{1, {5}}, {1, {5}}}},                                        \
        {.attrs = "", .n_inputs = 2, .inputs = {{2, {2, 3}}, {2, {2, 3}}}},                                  \
        {.attrs = "", .n_inputs = 2, .inputs = {{2, {2, 3}}, {1, {3}}}},                                     \
        {.attrs = "", .n_inputs = 2, .inputs = {{3, {2, 1, 3}}, {4, {2, 1, 2, 1}}}},                         \
        {.attrs = "", .n_inputs = 2, .inputs = {{0, {0}}, {1, {20}}}},                                       \
    };                                                                                                       \
    static double work(const struct nn_infer *infer) { return (cost)*nn_work_outputs(infer); }               \
    const struct nn_op NN_OP(op) = {                                                                         \
        NN_DEF(op, 2, 2, __VA_ARGS__),                                                                       \
        .takes_shared = 1U << 0 | 1U << 1,                                                                   \
        .forward_split = NN_BY_ELEMENT,                                                                      \
        .backward_split = NN_BY_ELEMENT,                                                                     \
        .reads = NN_READS_##from,                                                                            \
        .infer = nn_infer_broadcast,                                                                         \
        .work = work,                                                                                        \
        .forward = forward,                                                                                  \
        .backward = backward,                                                                                \
    }

#endif
