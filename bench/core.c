/* core.c - passes through core alone, in this process, on the daemon's own compute threads: what a request
 * does, without the request. See support/job.h.
 *
 *     forward, gradients, apply       a perceptron's passes, as POST /forward and /backward do them
 *     sgd, adam, ...                  one pass of an optimizer, with its defaults, over the perceptron's
 *                                     parameters; ROWS does not matter
 *
 * `core plan ROWS WIDTHS` prints the bytes that a training step's plans take. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/nn.h"
#include "../server/pool.h"
#include "support/job.h"

struct peer {
    int64_t rows;
    size_t x_bytes, y_bytes;
    float *x;
    int64_t *y;
    struct nn_graph *graph;
    struct nn_params *current, *next;
    struct nn_grads *grads; /* of an optimizer's pass alone */
    struct nn_optimizer *optimizer;
    struct srv_pool *pool; /* with this thread, as many as the job asks for; NULL: this alone */
    struct nn_parallel with_pool, *parallel;
};

static void check(const struct nn_error *err) {
    if (!err->code) return;
    fprintf(stderr, "core: %s\n", err->text);
    exit(EXIT_FAILURE);
}

/* --- the perceptron ------------------------------------------------------------------------------ */

static void add_layer(struct nn_graph *graph, const char *op, int out_features) {
    struct nn_error err = {0};
    struct nn_layer layer = {.op = nn_op_find(op)};
    struct nn_attrs *attrs = bench_need(nn_attrs_new(layer.op, nn_graph_arena(graph)));
    struct nn_given given = {.kind = NN_GIVEN_INT, .i = out_features, .r = out_features};
    if (out_features) nn_attrs_set(attrs, "out_features", &given, &err);
    layer.attrs = attrs;
    nn_graph_add_layer(graph, &layer, &err);
    check(&err);
}

static struct nn_graph *perceptron(const int *width, int n) {
    struct nn_error err = {0};
    struct nn_shape sample = {1, {width[0]}};
    struct nn_graph *graph = bench_need(nn_graph_new(NN_F32, &err));
    struct nn_loss loss = {.op = nn_op_find("cross_entropy"), .scale = 1};
    nn_graph_add_input(graph, "x", NN_F32, &sample, &err);
    for (int i = 1; i < n; i++) {
        add_layer(graph, "linear", width[i]);
        if (i < n - 1) add_layer(graph, "relu", 0);
    }
    nn_graph_add_loss(graph, &loss, &err);
    nn_graph_seal(graph, &err);
    check(&err);
    return graph;
}

/* Weights as He et al. draw them, biases 0: so that neither values nor gradients fade in a deep graph. */
static void fill_params(struct nn_params *params, struct nn_graph *graph) {
    for (int i = 0; i < nn_graph_param_count(graph); i++) {
        const struct nn_param *param = nn_graph_param(graph, i);
        float bound = param->shape.rank == 2 ? sqrtf(6.0F / (float)param->shape.dim[1]) : 0;
        bench_fill(nn_params_data(params, i), (size_t)param->elements, -bound, bound);
    }
}

static struct nn_optimizer *optimizer(struct nn_graph *graph, const char *name) {
    struct nn_error err = {0};
    const struct nn_def *def = nn_optimizer_find(name);
    struct nn_arena *arena = bench_need(nn_arena_new());
    struct nn_attrs *attrs = bench_need(nn_attrs_new(bench_need((void *)def), arena));
    struct nn_given lr = {.kind = NN_GIVEN_REAL, .r = 1e-4};
    nn_attrs_set(attrs, "lr", &lr, &err);
    struct nn_optimizer *made = bench_need(nn_optimizer_new(graph, def, attrs, &err));
    nn_arena_free(arena);
    return made;
}

static void end(void *state) {
    struct peer *p = state;
    nn_grads_free(p->grads);
    nn_optimizer_free(p->optimizer);
    nn_params_unref(p->current);
    nn_params_unref(p->next);
    nn_graph_unref(p->graph);
    if (p->pool) srv_pool_free(p->pool);
    free(p->x);
    free(p->y);
    free(p);
}

static struct peer *begin(const struct bench_job *job, const char *optimizer_name) {
    struct nn_error err = {0};
    struct peer *p = bench_need(calloc(1, sizeof *p));
    p->rows = job->rows;
    p->x_bytes = (size_t)job->rows * (size_t)job->width[0] * sizeof *p->x;
    p->y_bytes = (size_t)job->rows * sizeof *p->y;
    p->x = bench_need(malloc(p->x_bytes));
    p->y = bench_need(malloc(p->y_bytes));
    bench_fill(p->x, p->x_bytes / sizeof *p->x, 0, 1);
    for (int i = 0; i < job->rows; i++) p->y[i] = i % job->width[job->n_widths - 1];
    if (job->threads > 1) {
        p->pool = bench_need(srv_pool_new(job->threads - 1, 16, &err));
        p->with_pool = (struct nn_parallel){.run = srv_pool_parallel, .pool = p->pool};
        p->parallel = &p->with_pool;
    }
    p->graph = perceptron(job->width, job->n_widths);
    p->current = bench_need(nn_params_new(p->graph, &err));
    p->next = bench_need(nn_params_new(p->graph, &err));
    fill_params(p->current, p->graph);
    p->optimizer = optimizer(p->graph, optimizer_name);
    return p;
}

static void *begin_pass(const struct bench_job *job) { return begin(job, "sgd"); }

/* --- passes -------------------------------------------------------------------------------------- */

static void forward(void *state) {
    struct peer *p = state;
    struct nn_error err = {0};
    struct nn_run_options options = {.rows = p->rows, .mode = NN_EVAL};
    struct nn_run *run =
        bench_need(nn_run_new_take(p->current, bench_need(nn_plan_forward(p->graph, &options, &err)), &err));
    memcpy(nn_run_input(run, 0), p->x, p->x_bytes);
    nn_run_forward(run, p->parallel);
    nn_run_free(run);
}

static const struct nn_loss_options mean_of_ids = {.target_ids = true, .normalizer = (double)NAN};
static const struct nn_backward_options of_parameters = {.losses = &mean_of_ids, .parameters = true};

static struct nn_grads *backward(struct peer *p) {
    struct nn_error err = {0};
    struct nn_run_options options = {.rows = p->rows, .mode = NN_TRAIN, .tape = true};
    struct nn_run *run =
        nn_run_new_take(p->current, bench_need(nn_plan_forward(p->graph, &options, &err)), &err);
    memcpy(nn_run_input(bench_need(run), 0), p->x, p->x_bytes);
    nn_run_forward(run, p->parallel);
    struct nn_plan *plan = bench_need(nn_plan_backward(p->graph, &options, &of_parameters, &err));
    struct nn_backward *pass = bench_need(nn_backward_new_take(run, plan, &err));
    memcpy(nn_backward_target(pass, 0), p->y, p->y_bytes);
    struct nn_grads *grads = bench_need(nn_grads_new(p->graph, &err));
    nn_backward_check(pass, &err);
    nn_backward_run(pass, grads, p->parallel);
    nn_backward_free(pass);
    nn_run_free(run);
    check(&err);
    return grads;
}

static void gradients(void *state) { nn_grads_free(backward(state)); }

static void apply(void *state) {
    struct peer *p = state;
    struct nn_error err = {0};
    struct nn_grads *grads = backward(p);
    if (nn_grads_first_nonfinite(grads, p->parallel) >= 0) nn_fail(&err, NN_E_NOT_FINITE, "not finite");
    check(&err);
    nn_optimizer_step(p->optimizer, p->current, grads, 1, (double)NAN, p->next, p->parallel);
    struct nn_params *swap = p->current;
    p->current = p->next;
    p->next = swap;
    nn_grads_free(grads);
}

/* --- an optimizer alone -------------------------------------------------------------------------- */

static void *begin_optimizer(const struct bench_job *job) {
    struct nn_error err = {0};
    struct peer *p = begin(job, job->what);
    p->grads = bench_need(nn_grads_new(p->graph, &err));
    for (int i = 0; i < nn_graph_param_count(p->graph); i++)
        bench_fill(nn_grads_data(p->grads, i), (size_t)nn_graph_param(p->graph, i)->elements, -1, 1);
    return p;
}

static void optimize(void *state) {
    struct peer *p = state;
    nn_optimizer_step(p->optimizer, p->current, p->grads, 1, (double)NAN, p->next, p->parallel);
    struct nn_params *swap = p->current;
    p->current = p->next;
    p->next = swap;
}

/* --- the program --------------------------------------------------------------------------------- */

static int print_plan(int rows, const char *widths) {
    struct nn_error err = {0};
    int width[BENCH_MAX_WIDTHS], n = 0;
    for (char *next; n < BENCH_MAX_WIDTHS && *widths; widths = *next ? next + 1 : next)
        width[n++] = (int)strtol(widths, &next, 10);
    struct nn_graph *graph = perceptron(width, n);
    struct nn_run_options options = {.rows = rows, .mode = NN_TRAIN, .tape = true};
    struct nn_plan *run = bench_need(nn_plan_forward(graph, &options, &err));
    struct nn_plan *pass = bench_need(nn_plan_backward(graph, &options, &of_parameters, &err));
    printf("%zu\n", nn_plan_bytes(run) + nn_plan_bytes(pass));
    nn_plan_free(run);
    nn_plan_free(pass);
    nn_graph_unref(graph);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv) {
    static const struct bench_task tasks[] = {
        {"forward", begin_pass, forward, end},       {"gradients", begin_pass, gradients, end},
        {"apply", begin_pass, apply, end},           {"sgd", begin_optimizer, optimize, end},
        {"adam", begin_optimizer, optimize, end},    {"adamw", begin_optimizer, optimize, end},
        {"rmsprop", begin_optimizer, optimize, end}, {"adagrad", begin_optimizer, optimize, end},
    };
    nn_blas_init();
    if (argc == 4) return print_plan((int)strtol(argv[2], NULL, 10), argv[3]);
    return bench_serve(tasks, sizeof tasks / sizeof *tasks);
}
