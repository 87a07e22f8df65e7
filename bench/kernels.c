/* kernels.c - what core does to arrays besides products: gigabytes a second, and how that compares to copying
 * memory in the same run. Bytes are those that a pass has to read and to write, once each; in a copy too. A
 * table of medians, on one thread and on all cores. Usage: kernels [ROUNDS [NAME]] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../core/nn.h"
#include "../server/pool.h"

enum { WIDTH = 1000, MAX_ROUNDS = 101, MIN_ELEMENTS_TIMED = 4000000 };

static const int64_t sizes[] = {100000, 1000000, 10000000};

struct bench {
    int64_t n; /* elements, WIDTH a row */
    const struct nn_parallel *par;
    struct nn_graph *graph;
    /* of optimizers and blocks */
    struct nn_params *from, *to;
    struct nn_grads *grads, *more;
    struct nn_optimizer *optimizer;
    /* of operators and losses */
    struct nn_run *run;
    struct nn_backward *backward;
};

/* A line of the table. Members that a kind does not need are left out. */
struct row {
    const char *name;
    int arrays; /* read or written, of float */
    void (*step)(struct bench *b);
    const char *op; /* an optimizer, operator or loss: with this name, */
    struct {
        const char *attr; /* and these attributes */
        double value;
    } attrs[3];
};

static void *need(void *p) {
    if (!p) {
        fputs("kernels: out of memory, or refused\n", stderr);
        exit(EXIT_FAILURE);
    }
    return p;
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Numbers in [-2, 2), never 0. */
static void fill(float *x, int64_t n, uint32_t seed) {
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)((double)(seed >> 8) + 0.5) * 0x1p-22F - 2;
    }
}

/* --- passes --------------------------------------------------------------------------------------------- */

static void copy_piece(void *arg, size_t i) {
    const struct bench *b = arg;
    int64_t begin = (int64_t)i * 16384, end = begin + 16384 < b->n ? begin + 16384 : b->n;
    memcpy((float *)nn_params_data(b->to, 0) + begin, (const float *)nn_params_view(b->from, 0) + begin,
           (size_t)(end - begin) * sizeof(float));
}
static void copy(struct bench *b) {
    size_t pieces = (size_t)(b->n + 16383) / 16384;
    if (b->par)
        b->par->run(b->par->pool, pieces, copy_piece, b);
    else
        for (size_t i = 0; i < pieces; i++) copy_piece(b, i);
}
static void optimize(struct bench *b) {
    nn_optimizer_step(b->optimizer, b->from, b->grads, 1, (double)NAN, b->to, b->par);
}
static void add(struct bench *b) { nn_grads_add(b->grads, b->more, 1e-6, b->par); }
static void scale(struct bench *b) { nn_grads_scale(b->grads, -1, b->par); }
static void check(struct bench *b) { nn_grads_first_nonfinite(b->grads, b->par); }
static void blend(struct bench *b) { nn_params_blend(b->to, b->from, 0.01, b->par); }
static void forward(struct bench *b) { nn_run_forward(b->run, b->par); }
static void backward(struct bench *b) { nn_backward_run(b->backward, NULL, b->par); }

/* A loss's backward pass is its forward pass too. An operator's also clears the gradient that it adds to. */
static const struct row table[] = {
    {"memcpy", 2, copy, NULL, {{0}}},
    {"add", 3, add, NULL, {{0}}},
    {"scale", 2, scale, NULL, {{0}}},
    {"finite", 1, check, NULL, {{0}}},
    {"blend", 3, blend, NULL, {{0}}},
    {"sgd", 3, optimize, "sgd", {{0}}},
    {"sgd, clipped", 4, optimize, "sgd", {{"clip_grad_norm", 1}}},
    {"sgd, momentum", 5, optimize, "sgd", {{"momentum", 0.9}}},
    {"sgd, nesterov", 5, optimize, "sgd", {{"momentum", 0.9}, {"nesterov", 1}}},
    {"adam", 7, optimize, "adam", {{0}}},
    {"adamw", 7, optimize, "adamw", {{0}}},
    {"adamw, amsgrad", 9, optimize, "adamw", {{"amsgrad", 1}}},
    {"rmsprop", 5, optimize, "rmsprop", {{0}}},
    {"rmsprop, centered", 7, optimize, "rmsprop", {{"centered", 1}}},
    {"adagrad", 5, optimize, "adagrad", {{0}}},
    {"relu", 2, forward, "relu", {{0}}},
    {"relu, back", 5, backward, "relu", {{0}}},
    {"leaky_relu", 2, forward, "leaky_relu", {{0}}},
    {"leaky_relu, back", 5, backward, "leaky_relu", {{0}}},
    {"dropout", 3, forward, "dropout", {{0}}},
    {"dropout, back", 5, backward, "dropout", {{0}}},
    {"elu", 2, forward, "elu", {{0}}},
    {"elu, back", 5, backward, "elu", {{0}}},
    {"gelu", 2, forward, "gelu", {{0}}},
    {"gelu, back", 5, backward, "gelu", {{0}}},
    {"gelu, tanh", 2, forward, "gelu", {{"approximate", 1}}},
    {"gelu, tanh, back", 5, backward, "gelu", {{"approximate", 1}}},
    {"silu", 2, forward, "silu", {{0}}},
    {"silu, back", 5, backward, "silu", {{0}}},
    {"sigmoid", 2, forward, "sigmoid", {{0}}},
    {"sigmoid, back", 5, backward, "sigmoid", {{0}}},
    {"tanh", 2, forward, "tanh", {{0}}},
    {"tanh, back", 5, backward, "tanh", {{0}}},
    {"softplus", 2, forward, "softplus", {{0}}},
    {"softplus, back", 5, backward, "softplus", {{0}}},
    {"softmax", 2, forward, "softmax", {{0}}},
    {"softmax, back", 5, backward, "softmax", {{0}}},
    {"log_softmax", 2, forward, "log_softmax", {{0}}},
    {"log_softmax, back", 5, backward, "log_softmax", {{0}}},
    {"cross_entropy", 5, backward, "cross_entropy", {{0}}},
    {"mse", 9, backward, "mse", {{0}}},
    {"bce_with_logits", 9, backward, "bce_with_logits", {{0}}},
};

/* --- what they are done to ------------------------------------------------------------------------------- */

static struct nn_attrs *attrs_of(const struct nn_def *def, const struct row *row, struct nn_arena *arena) {
    struct nn_error err = {0};
    struct nn_attrs *attrs = need(nn_attrs_new(def, arena));
    for (int i = 0; i < 3 && row && row->attrs[i].attr; i++) {
        double value = row->attrs[i].value;
        bool is_flag = strcmp(row->attrs[i].attr, "nesterov") == 0 ||
                       strcmp(row->attrs[i].attr, "amsgrad") == 0 ||
                       strcmp(row->attrs[i].attr, "centered") == 0;
        struct nn_given given = {.kind = is_flag ? NN_GIVEN_BOOL : NN_GIVEN_REAL, .r = value, .b = true};
        if (strcmp(row->attrs[i].attr, "approximate") == 0)
            given = (struct nn_given){.kind = NN_GIVEN_TEXT, .text = "tanh"};
        if (nn_attrs_set(attrs, row->attrs[i].attr, &given, &err)) need(NULL);
    }
    return attrs;
}

/* n parameters in one linear layer. */
static void begin_blocks(struct bench *b, const struct row *row) {
    struct nn_error err = {0};
    struct nn_shape sample = {1, {WIDTH}};
    const int64_t rows = b->n / WIDTH;
    struct nn_given out = {.kind = NN_GIVEN_INT, .i = rows, .r = (double)rows};
    struct nn_given no_bias = {.kind = NN_GIVEN_BOOL};
    b->graph = need(nn_graph_new(NN_F32, &err));
    struct nn_layer layer = {.op = nn_op_find("linear")};
    struct nn_attrs *attrs = attrs_of(layer.op, NULL, nn_graph_arena(b->graph));
    nn_attrs_set(attrs, "out_features", &out, &err);
    nn_attrs_set(attrs, "bias", &no_bias, &err);
    layer.attrs = attrs;
    nn_graph_add_input(b->graph, "x", NN_F32, &sample, &err);
    nn_graph_add_layer(b->graph, &layer, &err);
    if (nn_graph_seal(b->graph, &err)) need(NULL);
    b->from = need(nn_params_new(b->graph, &err));
    b->to = need(nn_params_new(b->graph, &err));
    b->grads = need(nn_grads_new(b->graph, &err));
    b->more = need(nn_grads_new(b->graph, &err));
    fill(nn_params_data(b->from, 0), b->n, 1);
    fill(nn_grads_data(b->grads, 0), b->n, 2);
    fill(nn_grads_data(b->more, 0), b->n, 3);
    if (!row->op) return;
    const struct nn_def *def = need((void *)nn_optimizer_find(row->op));
    b->optimizer = need(nn_optimizer_new(b->graph, def, attrs_of(def, row, nn_graph_arena(b->graph)), &err));
}

static void begin_graph(struct bench *b, const struct row *row, bool is_loss) {
    struct nn_error err = {0};
    struct nn_shape sample = {1, {WIDTH}};
    b->graph = need(nn_graph_new(NN_F32, &err));
    nn_graph_add_input(b->graph, "x", NN_F32, &sample, &err);
    struct nn_layer layer = {.op = nn_op_find(is_loss ? "flatten" : row->op)};
    layer.attrs = attrs_of(layer.op, is_loss ? NULL : row, nn_graph_arena(b->graph));
    nn_graph_add_layer(b->graph, &layer, &err);
    if (is_loss)
        nn_graph_add_loss(b->graph, &(struct nn_loss){.op = nn_op_find(row->op), .input = "x", .scale = 1},
                          &err);
    if (nn_graph_seal(b->graph, &err)) need(NULL);
}

/* One layer or loss over n numbers in rows of WIDTH. */
static void begin_passes(struct bench *b, const struct row *row) {
    struct nn_error err = {0};
    const bool is_loss = nn_op_find(row->op)->flags & NN_IS_LOSS, ids = strcmp(row->op, "cross_entropy") == 0;
    begin_graph(b, row, is_loss);
    struct nn_run_options options = {.rows = b->n / WIDTH, .mode = NN_TRAIN, .tape = true};
    struct nn_loss_options loss = {.target_ids = ids, .normalizer = (double)NAN};
    const bool nodes[] = {true, false}, upstream[] = {false, !is_loss};
    struct nn_backward_options wish = {
        .losses = is_loss ? &loss : NULL, .upstream = upstream, .nodes = nodes};
    b->from = need(nn_params_new(b->graph, &err));
    b->run = need(nn_run_new_take(b->from, need(nn_plan_forward(b->graph, &options, &err)), &err));
    fill(nn_run_input(b->run, 0), b->n, 1);
    nn_run_forward(b->run, NULL);
    struct nn_plan *plan = need(nn_plan_backward(b->graph, &options, &wish, &err));
    b->backward = need(nn_backward_new_take(b->run, plan, &err));
    if (!is_loss) fill(nn_backward_upstream(b->backward, 1), b->n, 2);
    if (is_loss && !ids) fill(nn_backward_target(b->backward, 0), b->n, 2);
    if (ids) memset(nn_backward_target(b->backward, 0), 0, (size_t)options.rows * sizeof(int64_t));
}

static void end(struct bench *b) {
    nn_backward_free(b->backward);
    nn_run_free(b->run);
    nn_optimizer_free(b->optimizer);
    nn_grads_free(b->grads);
    nn_grads_free(b->more);
    nn_params_unref(b->from);
    nn_params_unref(b->to);
    nn_graph_unref(b->graph);
}

/* --- the table -------------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Median seconds of a step. */
static double measure(const struct row *row, int64_t n, const struct nn_parallel *par, int rounds) {
    double taken[MAX_ROUNDS] = {0};
    struct bench b = {.n = n, .par = par};
    if (row->step == forward || row->step == backward)
        begin_passes(&b, row);
    else
        begin_blocks(&b, row);
    int64_t steps = MIN_ELEMENTS_TIMED / n + 1;
    row->step(&b);
    for (int r = 0; r < rounds; r++) {
        double begin = seconds();
        for (int64_t s = 0; s < steps; s++) row->step(&b);
        taken[r] = (seconds() - begin) / (double)steps;
    }
    end(&b);
    qsort(taken, (size_t)rounds, sizeof *taken, by_size);
    return taken[rounds / 2];
}

int main(int argc, char **argv) {
    struct nn_error err = {0};
    int rounds = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 9;
    if (rounds < 1 || rounds > MAX_ROUNDS) rounds = 9;
    const int cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
    struct srv_pool *pool = need(srv_pool_new(cores, 16, &err));
    const struct nn_parallel all = {.run = srv_pool_parallel, .pool = pool}, *const pars[] = {NULL, &all};
    double copied[2][3] = {{0}};
    printf("%-18s", "GB/s (x memcpy's)");
    for (int p = 0; p < 2; p++)
        for (int s = 0; s < 3; s++) printf("  %5.1fM on %d     ", (double)sizes[s] / 1e6, p ? cores : 1);
    puts("");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (i > 0 && argc > 2 && !strstr(table[i].name, argv[2])) continue;
        printf("%-18s", table[i].name);
        for (int p = 0; p < 2; p++)
            for (int s = 0; s < 3; s++) {
                double taken = measure(&table[i], sizes[s], pars[p], rounds);
                double rate = (double)table[i].arrays * (double)sizes[s] * sizeof(float) / taken / 1e9;
                if (i == 0) copied[p][s] = rate;
                printf("  %6.1f (%4.2f)   ", rate, rate / copied[p][s]);
                fflush(stdout);
            }
        puts("");
    }
    srv_pool_free(pool);
    return EXIT_SUCCESS;
}
