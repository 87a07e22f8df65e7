/* core.c - the step through core alone, in this process, on as many threads as there are cores.
 * Usage: core ROWS */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "../core/nn.h"
#include "../server/pool.h"
#include "step.h"

struct peer {
    int rows;
    float *x;
    long *y;
    struct nn_graph *graph;
    struct nn_params *current, *next;
    struct nn_optimizer *optimizer;
    struct nn_parallel parallel;
};

static void check(const struct nn_error *err) {
    if (!err->code) return;
    fprintf(stderr, "core: %s\n", err->text);
    exit(EXIT_FAILURE);
}

static void add_layer(struct nn_graph *graph, const char *op, int out_features) {
    struct nn_error err = {0};
    struct nn_layer layer = {.op = nn_op_find(op)};
    struct nn_attrs *attrs = need(nn_attrs_new(layer.op, nn_graph_arena(graph)));
    struct nn_given given = {.kind = NN_GIVEN_INT, .i = out_features, .r = out_features};
    if (out_features) nn_attrs_set(attrs, "out_features", &given, &err);
    layer.attrs = attrs;
    nn_graph_add_layer(graph, &layer, &err);
    check(&err);
}

static struct nn_graph *perceptron(void) {
    struct nn_error err = {0};
    struct nn_shape sample = {1, {FEATURES}};
    struct nn_graph *graph = need(nn_graph_new(NN_F32, &err));
    struct nn_loss loss = {.op = nn_op_find("cross_entropy"), .scale = 1};
    nn_graph_add_input(graph, "x", NN_F32, &sample, &err);
    add_layer(graph, "linear", HIDDEN);
    add_layer(graph, "relu", 0);
    add_layer(graph, "linear", HIDDEN);
    add_layer(graph, "relu", 0);
    add_layer(graph, "linear", CLASSES);
    nn_graph_add_loss(graph, &loss, &err);
    nn_graph_seal(graph, &err);
    check(&err);
    return graph;
}

/* What a request that is applied does, without the request. */
static void step(void *arg) {
    struct peer *p = arg;
    struct nn_error err = {0};
    struct nn_run_options options = {.rows = p->rows, .mode = NN_TRAIN, .tape = true};
    struct nn_loss_options loss = {.target_ids = true, .normalizer = (double)NAN};
    struct nn_backward_options wish = {.losses = &loss, .parameters = true};
    struct nn_run *run = nn_run_new_take(p->current, need(nn_plan_forward(p->graph, &options, &err)), &err);
    memcpy(nn_run_input(need(run), 0), p->x, (size_t)p->rows * FEATURES * sizeof *p->x);
    nn_run_forward(run, &p->parallel);
    struct nn_plan *plan = need(nn_plan_backward(p->graph, &options, &wish, &err));
    struct nn_backward *backward = need(nn_backward_new_take(run, plan, &err));
    memcpy(nn_backward_target(backward, 0), p->y, (size_t)p->rows * sizeof *p->y);
    struct nn_grads *grads = need(nn_grads_new(p->graph, &err));
    nn_backward_check(backward, &err);
    nn_backward_run(backward, grads, &p->parallel);
    if (nn_grads_first_nonfinite(grads, &p->parallel) >= 0) nn_fail(&err, NN_E_NOT_FINITE, "not finite");
    check(&err);
    nn_optimizer_step(p->optimizer, p->current, grads, 1, (double)NAN, p->next, &p->parallel);
    struct nn_params *swap = p->current;
    p->current = p->next;
    p->next = swap;
    nn_grads_free(grads);
    nn_backward_free(backward);
    nn_run_free(run);
}

int main(int argc, char **argv) {
    struct nn_error err = {0};
    struct peer p = {.rows = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 256};
    nn_blas_init();
    struct srv_pool *pool = need(srv_pool_new((int)sysconf(_SC_NPROCESSORS_ONLN), 16, &err));
    p.parallel = (struct nn_parallel){srv_pool_parallel, pool};
    p.x = need(malloc((size_t)p.rows * FEATURES * sizeof *p.x));
    p.y = need(malloc((size_t)p.rows * sizeof *p.y));
    fill_batch(p.x, p.y, p.rows);
    p.graph = perceptron();
    p.current = need(nn_params_new(p.graph, &err));
    p.next = need(nn_params_new(p.graph, &err));
    nn_params_init(p.current, 1);
    struct nn_arena *arena = need(nn_arena_new());
    const struct nn_def *sgd = nn_optimizer_find("sgd");
    p.optimizer = need(nn_optimizer_new(p.graph, sgd, need(nn_attrs_new(sgd, arena)), &err));
    int status = serve_steps(step, &p);
    nn_optimizer_free(p.optimizer);
    nn_arena_free(arena);
    nn_params_unref(p.current);
    nn_params_unref(p.next);
    nn_graph_unref(p.graph);
    srv_pool_free(pool);
    free(p.x);
    free(p.y);
    return status;
}
