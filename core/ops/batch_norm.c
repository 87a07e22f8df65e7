/* batch_norm - y = (x - mean) / √(variance + eps) * w + b, channel by channel.
 *   x [c, ...], w [c], b [c], y as x; running_mean [c], running_var [c], num_batches_tracked []
 * In train mode the mean and the variance are those of the channel over all rows and places of the batch:
 *   with x̂ = (x - mean) / √(variance + eps) and the means over the same numbers,
 *   dx = w (dy - mean of dy - x̂ * mean of dy x̂) / √(variance + eps), dw = Σ dy x̂, db = Σ dy
 * In eval mode they are the buffers, which do not depend on x: dx = w dy / √(variance + eps).
 * A running variance is of m / (m - 1) times the batch's variance, which is of m numbers: it is unbiased.
 * Sums are in the wide type, of x less the channel's first element: what all elements have in common is subtracted
 * before anything is rounded. */
#include <string.h>

#include "../params.h"
#include "../real.h"

enum { EPS, MOMENTUM, AFFINE, TRACK };
static const struct nn_attr_def attrs[] = {
    {.name = "eps", .type = NN_REAL, NN_AT_LEAST_0, .by_default = 1e-5, .text = "added to the variance"},
    {.name = "momentum",
     .type = NN_REAL,
     .nullable = true,
     .min = 0,
     .max = 1,
     .by_default = 0.1,
     .text = "the share of a batch in the running statistics; null: they are the average over all batches"},
    {.name = "affine", .type = NN_BOOL, .by_default = 1, .text = "whether there are w and b"},
    {.name = "track_running_stats",
     .type = NN_BOOL,
     .by_default = 1,
     .text = "whether there are running statistics; without them, eval mode takes those of the batch too"},
    {0},
};
/* Parameters, behind those of `affine`. */
enum { WEIGHT, BIAS, N_AFFINE, MEAN = 0, VARIANCE, COUNT, N_TRACKED };

static int first_buffer(const union nn_attr_value *given) { return given[AFFINE].b ? N_AFFINE : 0; }

static bool is_of_batch(const struct nn_pass *pass) {
    return pass->mode == NN_TRAIN || !pass->attrs[TRACK].b;
}

/* What forward keeps of a channel. */
struct stats {
    wide level;    /* the channel's first element; 0 with running statistics */
    wide mean;     /* less the level */
    wide variance; /* biased */
    wide rstd;     /* 1 / √(variance + eps) */
};

static void set_param(struct nn_infer_param *param, const char *suffix, int64_t channels, double value) {
    *param = (struct nn_infer_param){
        .suffix = suffix, .shape = {1, {channels}}, .init = {.kind = NN_INIT_CONSTANT, .center = value}};
}

static int infer(struct nn_infer *infer, struct nn_error *err) {
    const struct nn_shape *in = &infer->in[0];
    if (in->rank < 1)
        return nn_fail_member(err, NN_E_SHAPE, "inputs", "batch_norm needs a dimension of channels");
    const int64_t channels = in->dim[0];
    const bool tracks = infer->attrs[TRACK].b;
    const int first = first_buffer(infer->attrs);
    infer->out = *in;
    infer->saved.once = (size_t)channels * sizeof(struct stats);
    infer->n_params = first + (tracks ? N_TRACKED : 0);
    infer->momentum = infer->attrs[MOMENTUM].r;
    infer->couples[NN_TRAIN] = true;
    infer->couples[NN_EVAL] = !tracks;
    if (first) {
        set_param(&infer->param[WEIGHT], "weight", channels, 1);
        set_param(&infer->param[BIAS], "bias", channels, 0);
    }
    if (!tracks) return NN_OK;
    set_param(&infer->param[first + MEAN], "running_mean", channels, 0);
    set_param(&infer->param[first + VARIANCE], "running_var", channels, 1);
    infer->param[first + COUNT] = (struct nn_infer_param){.suffix = "num_batches_tracked", .counts = true};
    for (int i = 0; i < N_TRACKED; i++) infer->param[first + i].buffer = true;
    return NN_OK;
}

static int64_t places_of(const struct nn_pass *pass) {
    return nn_shape_elements(pass->out) / pass->out->dim[0];
}

static int check(const struct nn_pass *pass, struct nn_error *err) {
    if (!is_of_batch(pass) || pass->rows * places_of(pass) > 1) return NN_OK;
    return nn_fail(err, NN_E_VALUE,
                   "batch_norm needs more than one number for each channel: a batch of "
                   "several rows, or eval mode with running statistics");
}

/* --- sums over channels --------------------------------------------------------------------------------- */

enum { BLOCK = 64 }; /* channels that are summed together */

/* Some channels, at most BLOCK, of all rows. */
struct part {
    int64_t rows, channels, places, first, width;
    const real *x, *d_y; /* of the whole batch */
    wide level[BLOCK], mean[BLOCK];
};

static struct part part_of(const struct nn_pass *pass, int64_t first, int64_t end) {
    struct part part = {.rows = pass->rows,
                        .channels = pass->out->dim[0],
                        .places = places_of(pass),
                        .first = first,
                        .width = end - first < BLOCK ? end - first : BLOCK,
                        .x = pass->x[0],
                        .d_y = pass->d_y ? pass->d_y : pass->x[0]};
    return part;
}

/* sum[c] += Σ term over the channel's numbers: row by row, and in a row place after place in lanes. The order depends
 * on the shape alone. In `term`, c is the channel and j the number's index in the row, both from the part's first. */
#define CHANNEL_SUM(name, term)                                                                              \
    static void name(const struct part *p, wide *sum) {                                                      \
        for (int64_t r = 0; r < p->rows; r++) {                                                              \
            const real *x = p->x + (r * p->channels + p->first) * p->places;                                 \
            const real *d_y = p->d_y + (r * p->channels + p->first) * p->places;                             \
            (void)x, (void)d_y;                                                                              \
            for (int64_t c = 0, j = 0; p->places == 1 && c < p->width; c++, j++) sum[c] += (term);           \
            for (int64_t c = 0; p->places > 1 && c < p->width; c++) {                                        \
                wide lane[NN_LANES] = {0};                                                                   \
                const int64_t end = (c + 1) * p->places;                                                     \
                int64_t begin = c * p->places;                                                               \
                for (; end - begin >= NN_LANES; begin += NN_LANES)                                           \
                    for (int64_t l = 0, j = begin; l < NN_LANES; l++, j++) lane[l] += (term);                \
                for (int64_t l = 0, j = begin; j < end; l++, j++) lane[l] += (term);                         \
                for (int l = 0; l < NN_LANES; l++) sum[c] += lane[l];                                        \
            }                                                                                                \
        }                                                                                                    \
    }

#define DEVIATION ((wide)x[j] - p->level[c] - p->mean[c])

CHANNEL_SUM(sum_deviations, DEVIATION)
CHANNEL_SUM(sum_squares, DEVIATION *DEVIATION)
CHANNEL_SUM(sum_gradient, (wide)d_y[j])
CHANNEL_SUM(sum_product, (wide)d_y[j] * DEVIATION)

/* --- forward ------------------------------------------------------------------------------------------------ */

/* The statistics of the batch, or those in the buffers. */
static void find_stats(const struct nn_pass *pass, struct part *p, struct stats *stats) {
    const wide m = (wide)(p->rows * p->places), eps = (wide)pass->attrs[EPS].r;
    if (is_of_batch(pass)) {
        wide sum[BLOCK] = {0}, squares[BLOCK] = {0};
        for (int64_t c = 0; c < p->width; c++) p->level[c] = (wide)p->x[(p->first + c) * p->places];
        sum_deviations(p, sum);
        for (int64_t c = 0; c < p->width; c++) p->mean[c] = sum[c] / m;
        sum_squares(p, squares);
        for (int64_t c = 0; c < p->width; c++) stats[c].variance = squares[c] / m;
    } else {
        const int first = first_buffer(pass->attrs);
        const real *mean = pass->w[first + MEAN], *variance = pass->w[first + VARIANCE];
        for (int64_t c = 0; c < p->width; c++) {
            p->mean[c] = (wide)mean[p->first + c];
            stats[c].variance = (wide)variance[p->first + c];
        }
    }
    for (int64_t c = 0; c < p->width; c++) {
        stats[c].level = p->level[c];
        stats[c].mean = p->mean[c];
        stats[c].rstd = nn_div(1, sqrt(stats[c].variance + eps));
    }
}

static void normalize(const struct nn_pass *pass, const struct part *p, const struct stats *stats) {
    const bool affine = pass->attrs[AFFINE].b;
    wide scale[BLOCK], shift[BLOCK];
    for (int64_t c = 0; c < p->width; c++) {
        scale[c] = stats[c].rstd * (affine ? (wide)((const real *)pass->w[WEIGHT])[p->first + c] : 1);
        shift[c] = affine ? (wide)((const real *)pass->w[BIAS])[p->first + c] : 0;
    }
    for (int64_t r = 0; r < p->rows; r++) {
        const int64_t at = (r * p->channels + p->first) * p->places;
        const real *x = p->x + at;
        real *y = (real *)pass->y + at;
        for (int64_t c = 0; c < p->width && p->places == 1; c++)
            y[c] = (real)(((wide)x[c] - p->level[c] - p->mean[c]) * scale[c] + shift[c]);
        for (int64_t c = 0; c < p->width && p->places > 1; c++)
            for (int64_t j = c * p->places; j < (c + 1) * p->places; j++)
                y[j] = (real)(DEVIATION * scale[c] + shift[c]);
    }
}

static void forward_channels(void *arg, int64_t begin, int64_t end) {
    const struct nn_pass *pass = arg;
    for (int64_t c = begin; c < end; c += BLOCK) {
        struct part part = part_of(pass, c, end);
        struct stats *stats = (struct stats *)pass->saved + c;
        find_stats(pass, &part, stats);
        normalize(pass, &part, stats);
    }
}

/* Channel by channel, some of them in one task. */
static void each_channel(const struct nn_pass *pass, void (*fn)(void *arg, int64_t begin, int64_t end)) {
    enum { LEAST = 16 }; /* a cache line of a row */
    const int64_t numbers = pass->rows * places_of(pass), least = places_of(pass) < LEAST ? LEAST : 1;
    struct nn_pass copy = *pass; /* tasks take a plain pointer */
    nn_parallel_ranges(pass->par, pass->out->dim[0], NN_CHUNK / numbers > least ? NN_CHUNK / numbers : least,
                       fn, &copy);
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    (void)begin, (void)end;
    each_channel(pass, forward_channels);
}

static void observe(const struct nn_pass *pass, void *const *statistic) {
    const int first = first_buffer(pass->attrs);
    const struct stats *stats = pass->saved;
    const wide m = (wide)(pass->rows * places_of(pass));
    real *mean = statistic[first + MEAN], *variance = statistic[first + VARIANCE];
    for (int64_t c = 0; c < pass->out->dim[0]; c++) {
        mean[c] += (real)(stats[c].level + stats[c].mean);
        variance[c] += (real)(stats[c].variance * m / (m - 1));
    }
}

/* --- backward ----------------------------------------------------------------------------------------------- */

/* d_x += (d_y - mean of d_y - deviation * slope) * scale; the means are 0 in eval mode. */
static void add_gradient(const struct nn_pass *pass, const struct part *p, const wide *mean_gradient,
                         const wide *slope, const wide *scale) {
    const bool fresh = pass->fresh_x && pass->fresh_x[0];
    for (int64_t r = 0; r < p->rows; r++) {
        const int64_t at = (r * p->channels + p->first) * p->places;
        const real *x = p->x + at, *d_y = p->d_y + at;
        real *d_x = (real *)pass->d_x[0] + at;
        if (fresh) memset(d_x, 0, (size_t)(p->width * p->places) * sizeof *d_x);
        for (int64_t c = 0, j = 0; c < p->width && p->places == 1; c++, j++)
            d_x[j] += (real)(((wide)d_y[j] - mean_gradient[c] - DEVIATION * slope[c]) * scale[c]);
        for (int64_t c = 0; c < p->width && p->places > 1; c++)
            for (int64_t j = c * p->places; j < (c + 1) * p->places; j++)
                d_x[j] += (real)(((wide)d_y[j] - mean_gradient[c] - DEVIATION * slope[c]) * scale[c]);
    }
}

static void backward_part(const struct nn_pass *pass, struct part *p, const struct stats *stats) {
    const bool affine = pass->attrs[AFFINE].b, of_batch = is_of_batch(pass);
    const wide m = (wide)(p->rows * p->places);
    real *d_w = affine ? pass->d_w[WEIGHT] : NULL, *d_b = affine ? pass->d_w[BIAS] : NULL;
    wide sum[BLOCK] = {0}, product[BLOCK] = {0}, slope[BLOCK] = {0}, scale[BLOCK];
    sum_gradient(p, sum);
    sum_product(p, product);
    for (int64_t c = 0; c < p->width; c++) {
        const wide w = affine ? (wide)((const real *)pass->w[WEIGHT])[p->first + c] : 1;
        if (d_w) d_w[p->first + c] += (real)(product[c] * stats[c].rstd);
        if (d_b) d_b[p->first + c] += (real)sum[c];
        scale[c] = w * stats[c].rstd;
        slope[c] = of_batch ? product[c] * stats[c].rstd / m * stats[c].rstd : 0;
        sum[c] = of_batch ? sum[c] / m : 0;
    }
    if (pass->d_x[0]) add_gradient(pass, p, sum, slope, scale);
}

static void backward_channels(void *arg, int64_t begin, int64_t end) {
    const struct nn_pass *pass = arg;
    for (int64_t c = begin; c < end; c += BLOCK) {
        struct part part = part_of(pass, c, end);
        const struct stats *stats = (const struct stats *)pass->saved + c;
        for (int64_t i = 0; i < part.width; i++) {
            part.level[i] = stats[i].level;
            part.mean[i] = stats[i].mean;
        }
        backward_part(pass, &part, stats);
    }
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    (void)begin, (void)end;
    each_channel(pass, backward_channels);
}

static double work(const struct nn_infer *infer) { return 24 * nn_work_outputs(infer); }

static const struct nn_example examples[] = {
    {.attrs = "", .n_inputs = 1, .inputs = {{1, {3}}}},
    {.attrs = "\"eps\": 0.001, \"momentum\": null", .n_inputs = 1, .inputs = {{3, {2, 3, 2}}}},
    {.attrs = "\"affine\": false, \"momentum\": 0.5", .n_inputs = 1, .inputs = {{2, {70, 1}}}},
    {.attrs = "\"track_running_stats\": false", .n_inputs = 1, .inputs = {{2, {2, 20}}}},
};

const struct nn_op NN_OP(batch_norm) = {
    NN_DEF(batch_norm, 1, 1,
           .summary =
               "Each channel with a mean of 0 and a variance of 1 over the batch, then scaled and shifted.",
           .forward = "y = (x - mean) / √(variance + eps) * w + b; in eval mode with the running statistics",
           .backward =
               "dx = w (dy - mean(dy) - x̂ mean(dy x̂)) / √(variance + eps), dw = Σ dy x̂, db = Σ dy; in "
               "eval mode without the means",
           .source = "Ioffe, Szegedy 2015: Batch Normalization, algorithms 1 and 2", .flags = NN_COUPLES_ROWS,
           .attrs = attrs),
    .forward_split = NN_WHOLE,
    .backward_split = NN_WHOLE,
    .reads = NN_READS_X,
    .infer = infer,
    .work = work,
    .check = check,
    .forward = forward,
    .backward = backward,
    .observe = observe,
};
