/* memory.c - what a pass takes is what its plan says: the block, and a little beside it that does not grow with the batch.
 * Nothing is allocated while a pass runs. For every operator and loss, alone, and with an input that has no rows.
 * `build/tests/unit/memory print` prints what a tape keeps of each layer of a stack: see docs/performance.md. */
#include <stdio.h>
#include <string.h>

#include "../support/malloc.h"
#include "../support/model.h"
#include "../support/subject.h"

enum { MANY_ROWS = 300 };
#define BESIDE 4096 /* the objects, and their lists by node: whatever the number of rows */

/* Counts what is allocated from here on. */
struct taken {
    long bytes, calls;
};
static struct taken begin(void) { return (struct taken){atomic_load(&test_bytes), atomic_load(&test_calls)}; }

static void check_block(const struct taken *before, size_t planned, const char *what) {
    const long took = atomic_load(&test_bytes) - before->bytes;
    if (took < (long)planned || took > (long)planned + BESIDE)
        fail_msg("%s took %ld bytes, and its plan says %zu", what, took, planned);
}

static void check_quiet(const struct taken *before, const char *what) {
    if (atomic_load(&test_calls) != before->calls) fail_msg("%s allocates while it runs", what);
}

static void run_backward(struct nn_graph *graph, const struct nn_run *run, struct nn_grads *grads,
                         const bool *target_ids, const char *what) {
    struct nn_error err = {0};
    bool upstream[PASS_MAX] = {0}, nodes[PASS_MAX] = {0};
    struct nn_loss_options losses[PASS_MAX] = {{0}};
    const int n = nn_graph_value_count(graph);
    for (int i = 0; i < n; i++) nodes[i] = nn_graph_value(graph, i).dtype != NN_I64;
    for (int i = 0; i < nn_graph_loss_count(graph); i++)
        losses[i] = (struct nn_loss_options){.target_ids = target_ids[i], .normalizer = 1};
    upstream[n - 1] = true;
    const struct nn_backward_options options = {.losses = nn_graph_loss_count(graph) ? losses : NULL,
                                                .upstream = upstream,
                                                .nodes = nodes,
                                                .parameters = true};
    struct nn_plan *plan = nn_plan_backward(graph, nn_run_options(run), &options, &err);
    test_ok(0, &err, "%s: a plan", what);
    if (!plan) abort();
    const size_t planned = nn_plan_bytes(plan);
    struct taken before = begin();
    struct nn_backward *b = nn_backward_new_take(run, plan, &err);
    test_ok(0, &err, "%s: a backward pass", what);
    if (!b) abort();
    check_block(&before, planned, what);
    const struct nn_value_info y = nn_graph_value(graph, n - 1);
    const int64_t rows = y.rows ? nn_run_options(run)->rows : 1;
    memset(nn_backward_upstream(b, n - 1), 0,
           (size_t)(rows * nn_shape_elements(&y.shape)) * nn_dtype_size(y.dtype));
    for (int i = 0; i < nn_graph_loss_count(graph); i++) {
        const struct nn_loss_info loss = nn_graph_loss(graph, i);
        for (int k = 0; k < loss.n_forms; k++)
            if (loss.forms[k].ids == target_ids[i])
                memset(nn_backward_target(b, i), 0,
                       (size_t)((loss.rows ? nn_run_options(run)->rows : 1) *
                                nn_shape_elements(&loss.forms[k].shape)) *
                           nn_dtype_size(target_ids[i] ? NN_I64 : nn_graph_dtype(graph)));
    }
    before = begin();
    nn_backward_run(b, grads, NULL);
    check_quiet(&before, what);
    nn_backward_free(b);
}

static void run_pass(struct nn_graph *graph, enum nn_mode mode, bool tape, const bool *target_ids,
                     const char *what) {
    struct nn_error err = {0};
    const struct nn_run_options options = {.rows = MANY_ROWS, .mode = mode, .seed = 1, .tape = tape};
    struct nn_params *params = nn_params_new(graph, &err);
    struct nn_grads *grads = params ? nn_grads_new(graph, &err) : NULL;
    struct nn_plan *plan = grads ? nn_plan_forward(graph, &options, &err) : NULL;
    test_ok(0, &err, "%s: a plan", what);
    if (!plan) abort();
    nn_params_init(params, 1);
    const size_t planned = nn_plan_bytes(plan);
    struct taken before = begin();
    struct nn_run *run = nn_run_new_take(params, plan, &err);
    test_ok(0, &err, "%s: a run", what);
    if (!run) abort();
    check_block(&before, planned, what);
    for (int i = 0; i < nn_graph_input_count(graph); i++) {
        const struct nn_value_info x = nn_graph_value(graph, i);
        const size_t bytes = (size_t)(MANY_ROWS * nn_shape_elements(&x.shape)) * nn_dtype_size(x.dtype);
        if (nn_run_reads(run, i)) memset(nn_run_input(run, i), 0, bytes);
    }
    before = begin();
    nn_run_forward(run, NULL);
    check_quiet(&before, what);
    if (tape) run_backward(graph, run, grads, target_ids, what);
    nn_run_free(run);
    nn_grads_free(grads);
    nn_params_unref(params);
}

static void every_way(struct nn_graph *graph, const bool *target_ids, const char *what) {
    for (int mode = NN_EVAL; mode <= NN_TRAIN; mode++)
        for (int tape = 0; tape < 2; tape++) run_pass(graph, (enum nn_mode)mode, tape, target_ids, what);
}

static void plans_are_what_passes_take(struct subject *s) {
    for (int e = 0; e < s->def->n_examples; e++)
        for (int dtype = NN_F32; dtype <= NN_F64; dtype++) {
            struct pass p = test_given(s, e, "ordinary", (enum nn_dtype)dtype);
            every_way(p.graph, p.target_ids, s->def->name);
            nn_graph_unref(p.graph);
        }
}

/* Values without rows, an expansion, a tie, an output behind the first, elementwise nodes in place, a buffer. */
static void kinds_of_nodes(struct subject *s) {
    static const bool none[PASS_MAX];
    static const struct row rows[] = {
        {.op = "parameter", .name = "p", .attrs = "\"shape\": [4]"},
        {.op = "tanh", .name = "q"},
        {.op = "add", .name = "a", .inputs = {"x", "q"}},
        {.op = "concat", .name = "c", .inputs = {"a", "p"}},
        {.op = "linear", .name = "l", .attrs = "\"out_features\": 8"},
        {.op = "batch_norm", .name = "n"},
        {.op = "relu", .name = "r"},
        {.op = "linear", .name = "m", .attrs = "\"out_features\": 8", .ties = {{"weight", "l.weight"}}},
        {.op = "reshape", .name = "s", .attrs = "\"shape\": [2, 4]"},
        {.op = "lstm", .name = "t", .attrs = "\"hidden_size\": 3"},
        {.op = "flatten", .inputs = {"t.h_n"}},
        {0}};
    if (strcmp(s->def->name, "linear") != 0) return; /* once is enough */
    for (int dtype = NN_F32; dtype <= NN_F64; dtype++) {
        struct nn_graph *graph = test_model((enum nn_dtype)dtype, (struct nn_shape){1, {4}}, rows);
        every_way(graph, none, "a graph of all kinds");
        nn_graph_unref(graph);
    }
}

/* --- the table in docs/performance.md -------------------------------------------------------------------------- */

static size_t tape_of(const struct row *layers, int n) {
    struct row rows[16] = {{0}};
    struct nn_error err = {0};
    memcpy(rows, layers, (size_t)n * sizeof *rows);
    rows[n] = (struct row){.op = "linear", .attrs = "\"out_features\": 1"}; /* reads what is before it */
    struct nn_graph *graph = test_model(NN_F32, (struct nn_shape){1, {1024}}, rows);
    const struct nn_run_options options = {.rows = 256, .mode = NN_TRAIN, .tape = true};
    struct nn_plan *plan = nn_plan_forward(graph, &options, &err);
    test_ok(0, &err, "a plan");
    if (!plan) abort();
    const size_t bytes = nn_plan_bytes(plan);
    nn_plan_free(plan);
    nn_graph_unref(graph);
    return bytes;
}

static void print_tape(const char *norm, const char *attrs) {
    const struct row layers[] = {
        {.op = "linear", .attrs = "\"out_features\": 1024"}, {.op = norm, .attrs = attrs}, {.op = "relu"},
        {.op = "linear", .attrs = "\"out_features\": 1024"}, {.op = norm, .attrs = attrs}, {.op = "relu"}};
    for (int i = 3; i < 6; i++)
        printf("%s: %zu bytes\n", layers[i].op, tape_of(layers, i + 1) - tape_of(layers, i));
}

int main(int argc, char **argv) {
    static const struct subject_test tests[] = {
        {"its plan is what a pass takes", plans_are_what_passes_take},
        {"so are those of all kinds of nodes", kinds_of_nodes},
    };
    nn_blas_init();
    if (argc > 1 && strcmp(argv[1], "print") == 0) {
        print_tape("batch_norm", "");
        print_tape("layer_norm", "\"normalized_shape\": [1024]");
        return 0;
    }
    atomic_store(&test_counts_bytes, true);
    return test_subjects("memory", tests, sizeof tests / sizeof tests[0]);
}
