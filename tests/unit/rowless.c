/* rowless.c - values without rows: every operator and loss that reads one computes what it would for a batch whose rows
 * are all that one sample. */
#include <math.h>
#include <string.h>

#include "../support/attrs.h"
#include "../support/subject.h"
#include "../support/threads.h"

static const char *const names[] = {"x0", "x1", "x2"};

/* The example with a `parameter` named "p" in the place of input `at`. In both graphs the operator is the node of the
 * same index, so that what is random is the same. */
static struct nn_graph *without_rows(struct subject *s, const struct nn_example *example, int at,
                                     enum nn_dtype dtype) {
    struct nn_error err = {0};
    struct nn_graph *graph = nn_graph_new(dtype, &err);
    assert_non_null(graph);
    const char *inputs[3] = {0};
    char shape[160], attrs[192];
    for (int i = 0; i < example->n_inputs && i < 3; i++) {
        inputs[i] = i == at ? "p" : names[i];
        if (i != at)
            test_ok(nn_graph_add_input(graph, names[i], dtype, &example->inputs[i], &err), &err, "input");
    }
    nn_shape_text(&example->inputs[at], shape, sizeof shape);
    snprintf(attrs, sizeof attrs, "\"shape\": %s", shape);
    struct nn_layer p = {.op = nn_op_find("parameter"), .name = "p"};
    p.attrs = test_attrs(p.op, attrs, nn_graph_arena(graph), &err);
    test_ok(nn_graph_add_layer(graph, &p, &err), &err, "parameter");
    const struct nn_attrs *given = test_attrs(s->def, example->attrs, nn_graph_arena(graph), &err);
    const struct nn_layer op = {
        .op = s->def, .name = "op", .inputs = inputs, .n_inputs = example->n_inputs, .attrs = given};
    const struct nn_loss loss = {.op = s->def, .input = "p", .scale = 1, .attrs = given};
    if (test_is_loss(s->def))
        test_ok(nn_graph_add_loss(graph, &loss, &err), &err, "loss");
    else
        test_ok(nn_graph_add_layer(graph, &op, &err), &err, "layer");
    test_ok(nn_graph_seal(graph, &err), &err, "%s on a value without rows", s->def->name);
    return graph;
}

/* Gives all rows of input `at` the numbers of the first. */
static void repeat_first(struct subject *s, struct pass *p, int at) {
    int64_t n = test_value_elements(p, at), row = n / p->options.rows;
    double *same = nn_arena_alloc(s->arena, (size_t)n, sizeof *same);
    assert_non_null(same);
    for (int64_t i = 0; i < n; i++) same[i] = p->x[at][i % row];
    p->x[at] = same;
}

/* The pass over the graph without_rows, given the numbers of `rows`. */
static struct pass same_numbers(struct subject *s, const struct pass *rows, int e, int at) {
    const struct nn_example *example = &s->def->examples[e];
    struct pass p = *rows;
    p.graph = without_rows(s, example, at, nn_graph_dtype(rows->graph));
    memset(p.upstream, 0, sizeof p.upstream);
    for (int i = 0, k = 0; i < example->n_inputs; i++)
        if (i != at) p.x[k++] = rows->x[i];
    p.w[0] = rows->x[at]; /* "p" is the first of the layers */
    for (int i = 0; i < nn_graph_param_count(rows->graph); i++) p.w[i + 1] = rows->w[i];
    const int op = test_op_value(&p), of_rows = test_op_value(rows);
    for (int i = 0; op + i < nn_graph_value_count(p.graph) && !test_is_loss(s->def); i++)
        p.upstream[op + i] = rows->upstream[of_rows + i];
    return p;
}

static void check_gradients(struct subject *s, const struct pass *rows, const struct pass *p, int at) {
    const int64_t n = test_param_elements(p, 0);
    const int64_t many = test_value_elements(rows, at) / n;
    double *sum = nn_arena_alloc(s->arena, (size_t)n, sizeof *sum);
    assert_non_null(sum);
    for (int64_t i = 0; i < many * n; i++) sum[i % n] += rows->d_x[at][i];
    test_close(p->d_w[0], sum, n, 1e-12, 1e-3, "%s: gradient of what has no rows, input %d", s->def->name,
               at);
    for (int i = 0; i < nn_graph_param_count(rows->graph); i++)
        if (rows->d_w[i])
            test_close(p->d_w[i + 1], rows->d_w[i], test_param_elements(rows, i), 1e-12, 1e-3,
                       "%s: parameter %d beside what has no rows", s->def->name, i);
    for (int i = 0, k = 0; i < nn_graph_input_count(rows->graph); i++) {
        if (i == at) continue;
        if (rows->d_x[i])
            test_close(p->d_x[k], rows->d_x[i], test_value_elements(rows, i), 1e-12, 1e-3,
                       "%s: input %d beside what has no rows", s->def->name, i);
        k++;
    }
}

static void check_input(struct subject *s, int e, int at) {
    struct pass rows = test_given(s, e, "ordinary", NN_F64);
    memset(rows.weight, 0, sizeof rows.weight);
    if (s->def->flags & NN_COUPLES_ROWS) rows.options.mode = NN_EVAL; /* one row has no variance */
    repeat_first(s, &rows, at);
    if (rows.options.rows > 1 && s->def->examples[e].n_inputs == 1) rows.options.rows = 1;
    struct pass p = same_numbers(s, &rows, e, at);
    if (test_is_loss(s->def)) { /* the weights of the golden pass would need rows */
        nn_graph_unref(rows.graph);
        rows.graph = test_graph_of(s->def, &s->def->examples[e], NN_F64, NULL, &(struct nn_error){0});
    }
    test_pass(s, &rows, "rows that are alike");
    test_pass(s, &p, "no rows");
    check_gradients(s, &rows, &p, at);
    if (test_is_loss(s->def)) {
        test_close(&p.loss[0], &rows.loss[0], 1, 1e-13, 1e-3, "%s: loss", s->def->name);
    } else {
        struct nn_value_info info = nn_graph_value(p.graph, test_op_value(&p));
        assert_true(info.rows == (s->def->examples[e].n_inputs > 1));
        test_close(p.y[test_op_value(&p)], rows.y[test_op_value(&rows)],
                   test_value_elements(&p, test_op_value(&p)), 1e-13, 1e-3, "%s: output", s->def->name);
    }
    nn_graph_unref(rows.graph);
    nn_graph_unref(p.graph);
}

static void as_rows_that_are_alike(struct subject *s) {
    for (int e = 0; e < s->def->n_examples; e++)
        for (int at = 0; at < s->def->examples[e].n_inputs; at++)
            if (test_is_loss(s->def) || !s->def->examples[e].ids) check_input(s, e, at);
}

/* Of the shards of a batch, one counts the loss. */
static void shards_count_a_loss_once(struct subject *s) {
    if (!test_is_loss(s->def)) return;
    for (int e = 0; e < s->def->n_examples; e++) {
        struct pass rows = test_given(s, e, "ordinary", NN_F64);
        memset(rows.weight, 0, sizeof rows.weight);
        struct pass first = same_numbers(s, &rows, e, 0), second = first;
        second.options.first_row = first.options.rows;
        test_pass(s, &first, "first shard");
        test_pass(s, &second, "second shard");
        assert_true(fabs(first.loss[0]) > 0);
        assert_true(second.loss[0] == 0);
        assert_true(second.normalizer[0] == first.normalizer[0]);
        for (int64_t i = 0; i < test_param_elements(&first, 0); i++) assert_true(second.d_w[0][i] == 0);
        nn_graph_unref(rows.graph);
        nn_graph_unref(first.graph);
    }
}

static void threads_make_no_difference(struct subject *s) {
    if (test_is_loss(s->def)) return;
    for (int e = 0; e < s->def->n_examples; e++)
        for (int at = 0; at < s->def->examples[e].n_inputs && !s->def->examples[e].ids; at++) {
            struct pass rows = test_given(s, e, "ordinary", NN_F32);
            if (s->def->flags & NN_COUPLES_ROWS) rows.options.mode = NN_EVAL;
            struct pass p = same_numbers(s, &rows, e, at), threads = p;
            const struct nn_parallel par = test_parallel(3);
            threads.par = &par;
            test_pass(s, &p, "here");
            test_pass(s, &threads, "in threads");
            for (int i = 0; i < nn_graph_param_count(p.graph); i++)
                if (p.d_w[i])
                    test_same(threads.d_w[i], p.d_w[i], test_param_elements(&p, i), "%s: parameter %d",
                              s->def->name, i);
            nn_graph_unref(rows.graph);
            nn_graph_unref(p.graph);
        }
}

int main(void) {
    static const struct subject_test tests[] = {
        {"as rows that are alike", as_rows_that_are_alike},
        {"shards count a loss once", shards_count_a_loss_once},
        {"threads make no difference", threads_make_no_difference},
    };
    nn_blas_init();
    return test_subjects("values without rows", tests, sizeof tests / sizeof tests[0]);
}
