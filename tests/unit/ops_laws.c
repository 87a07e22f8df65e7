/* ops_laws.c - what holds for every operator and loss, whatever it computes. */
#include <math.h>
#include <string.h>

#include "../../core/graph.h"
#include "../support/subject.h"
#include "../support/threads.h"

/* --- gradients are derivatives ----------------------------------------------------------------------- */

/* The number that a pass's gradients are gradients of. */
static double objective(struct subject *s, struct pass *p) {
    struct pass probe = *p;
    probe.no_parameters = true;
    for (int i = 0; i < PASS_MAX; i++) probe.unwanted[i] = true;
    probe.forward_only = !test_is_loss(s->def);
    test_pass(s, &probe, "finite difference");
    if (test_is_loss(s->def)) return probe.loss[0];
    double sum = 0;
    for (int op = test_op_value(p); op < nn_graph_value_count(p->graph); op++)
        for (int64_t i = 0; i < test_value_elements(p, op); i++) sum += p->upstream[op][i] * probe.y[op][i];
    return sum;
}

/* Central differences along every element of *at, which is one of the pass's arrays. */
static void check_derivative(struct subject *s, struct pass *p, const double **at, int64_t n,
                             const double *gradient, const char *what, int index) {
    const double *original = *at, h = 1e-5;
    double *moved = nn_arena_alloc(s->arena, (size_t)n, sizeof *moved);
    double *difference = nn_arena_alloc(s->arena, (size_t)n, sizeof *difference);
    assert_true(moved && difference);
    memcpy(moved, original, (size_t)n * sizeof *moved);
    *at = moved;
    for (int64_t i = 0; i < n; i++) {
        moved[i] = original[i] + h;
        double ahead = objective(s, p);
        moved[i] = original[i] - h;
        difference[i] = (ahead - objective(s, p)) / (2 * h);
        moved[i] = original[i];
    }
    *at = original;
    test_close(gradient, difference, n, 1e-6, 1e-3, "%s: gradient of %s %d", s->def->name, what, index);
}

static void finite_differences(struct subject *s) {
    for (int e = 0; e < s->def->n_examples; e++) {
        struct pass p = test_given(s, e, "ordinary", NN_F64);
        test_pass(s, &p, "gradients");
        for (int i = 0; i < nn_graph_input_count(p.graph); i++)
            if (p.d_x[i]) check_derivative(s, &p, &p.x[i], test_value_elements(&p, i), p.d_x[i], "input", i);
        for (int i = 0; i < nn_graph_param_count(p.graph); i++)
            if (p.d_w[i])
                check_derivative(s, &p, &p.w[i], test_param_elements(&p, i), p.d_w[i], "parameter", i);
        nn_graph_unref(p.graph);
    }
}

/* --- backward adds, and only to what is wanted ------------------------------------------------------- */

static void adds_to_parameters(struct subject *s) {
    for (int e = 0; e < s->def->n_examples; e++) {
        struct pass once = test_given(s, e, "ordinary", NN_F64), twice = once;
        twice.backwards = 2;
        test_pass(s, &once, "once");
        test_pass(s, &twice, "twice");
        for (int i = 0; i < nn_graph_param_count(once.graph); i++) {
            int64_t n = test_param_elements(&once, i);
            if (!once.d_w[i]) continue;
            for (int64_t k = 0; k < n; k++) once.d_w[i][k] *= 2;
            test_close(twice.d_w[i], once.d_w[i], n, 1e-14, 0, "%s: parameter %d", s->def->name, i);
        }
        nn_graph_unref(once.graph);
    }
}

/* A gradient that an input already has, here from upstream, stays and is added to. */
static void adds_to_inputs(struct subject *s) {
    for (int e = 0; e < s->def->n_examples; e++) {
        struct pass plain = test_given(s, e, "ordinary", NN_F64), added = plain;
        for (int i = 0; i < nn_graph_input_count(plain.graph); i++)
            if (nn_graph_value(plain.graph, i).dtype != NN_I64) added.upstream[i] = plain.x[i];
        test_pass(s, &plain, "plain");
        test_pass(s, &added, "added");
        for (int i = 0; i < nn_graph_input_count(plain.graph); i++) {
            if (!plain.d_x[i]) continue;
            int64_t n = test_value_elements(&plain, i);
            for (int64_t k = 0; k < n; k++) plain.d_x[i][k] += plain.x[i][k];
            test_close(added.d_x[i], plain.d_x[i], n, 1e-14, 0, "%s: input %d", s->def->name, i);
        }
        nn_graph_unref(plain.graph);
    }
}

/* `part`, of which some gradients were not wanted, has the others as they are in `whole`. */
static void check_part(struct subject *s, const struct pass *whole, struct pass *part, const char *what) {
    test_pass(s, part, what);
    for (int i = 0; i < nn_graph_value_count(whole->graph); i++)
        if (part->d_x[i] && !part->unwanted[i])
            test_same(part->d_x[i], whole->d_x[i], test_value_elements(whole, i), "%s: %s: node %d",
                      s->def->name, what, i);
    for (int i = 0; i < nn_graph_param_count(whole->graph) && !part->no_parameters; i++)
        test_same(whole->d_w[i] ? part->d_w[i] : part->seen[i],
                  whole->d_w[i] ? whole->d_w[i] : whole->seen[i], test_param_elements(whole, i),
                  "%s: %s: parameter %d", s->def->name, what, i);
    assert_memory_equal(part->loss, whole->loss, sizeof whole->loss);
}

static void unwanted_gradients(struct subject *s) {
    for (int e = 0; e < s->def->n_examples; e++) {
        struct pass given = test_given(s, e, "ordinary", NN_F32), whole = given;
        int n = nn_graph_value_count(given.graph);
        test_pass(s, &whole, "all wanted");
        for (int only = -2; only < n; only++) { /* -2: parameters and the inputs, -1: parameters alone */
            struct pass part = given;
            part.no_parameters = only >= 0;
            for (int i = 0; i < n; i++) part.unwanted[i] = only == -2 ? i == n - 1 : i != only;
            check_part(s, &whole, &part, "some unwanted");
        }
        struct pass none = given;
        none.no_parameters = true;
        memset(none.unwanted, true, sizeof none.unwanted);
        check_part(s, &whole, &none, "none wanted");
        nn_graph_unref(given.graph);
    }
}

/* --- a batch is the sum of its halves ----------------------------------------------------------------- */

/* Rows [first, first + rows) of the pass's batch. */
static struct pass shard(const struct pass *whole, int64_t first, int64_t rows) {
    struct pass part = *whole;
    for (int i = 0; i < nn_graph_value_count(whole->graph); i++) {
        struct nn_value_info info = nn_graph_value(whole->graph, i);
        int64_t skip = first * nn_shape_elements(&info.shape);
        if (part.x[i]) part.x[i] += skip;
        if (part.upstream[i] && info.rows) part.upstream[i] += skip;
        if (part.upstream[i] && !info.rows && first > 0) part.upstream[i] = NULL; /* the first shard has it */
    }
    if (nn_graph_loss_count(whole->graph)) {
        struct nn_loss_info loss = nn_graph_loss(whole->graph, 0);
        for (int i = 0; i < loss.n_forms; i++)
            if (loss.forms[i].ids == part.target_ids[0])
                part.target[0] = whole->target[0] + first * nn_shape_elements(&loss.forms[i].shape);
        if (part.weight[0])
            part.weight[0] += first * (part.weight_full[0] ? nn_shape_elements(&loss.shape) : 1);
        part.divisor[0] = whole->normalizer[0];
    }
    part.options.first_row += first;
    part.options.rows = rows;
    return part;
}

static void check_halves(struct subject *s, struct pass *whole) {
    int64_t cut = whole->options.rows / 2;
    test_pass(s, whole, "whole");
    struct pass half[] = {shard(whole, 0, cut), shard(whole, cut, whole->options.rows - cut)};
    double loss = 0;
    for (int h = 0; h < 2; h++) {
        test_pass(s, &half[h], "half");
        loss += half[h].loss[0];
        for (int i = 0; i < nn_graph_value_count(whole->graph); i++) {
            int64_t n = test_value_elements(&half[h], i), skip = h ? test_value_elements(whole, i) - n : 0;
            if (whole->d_x[i] && (!h || nn_graph_value(whole->graph, i).rows))
                test_close(half[h].d_x[i], whole->d_x[i] + skip, n, 1e-13, 1e-3, "%s: gradient of node %d",
                           s->def->name, i);
            if (!whole->y[i] || !half[h].y[i]) continue;
            test_close(half[h].y[i], whole->y[i] + skip, n, 1e-13, 1e-3, "%s: node %d", s->def->name, i);
            if (s->def->flags & NN_USES_RNG)
                test_same(half[h].y[i], whole->y[i] + skip, n, "%s: node %d", s->def->name, i);
        }
    }
    test_close(&loss, &whole->loss[0], 1, 1e-13, 1e-3, "%s: loss", s->def->name);
    for (int i = 0; i < nn_graph_param_count(whole->graph); i++) {
        int64_t n = test_param_elements(whole, i);
        if (!whole->d_w[i]) continue;
        for (int64_t k = 0; k < n; k++) half[0].d_w[i][k] += half[1].d_w[i][k];
        test_close(half[0].d_w[i], whole->d_w[i], n, 1e-13, 1e-3, "%s: parameter %d", s->def->name, i);
    }
}

/* In train mode, or in eval mode where only that leaves rows alone. */
static void halves_add_up(struct subject *s) {
    for (int e = 0; e < s->def->n_examples; e++) {
        struct pass whole = test_given(s, e, "ordinary", NN_F64);
        whole.options.first_row = 7;
        if (nn_graph_couples_rows(whole.graph, NN_TRAIN)) whole.options.mode = NN_EVAL;
        if (!nn_graph_couples_rows(whole.graph, whole.options.mode)) check_halves(s, &whole);
        nn_graph_unref(whole.graph);
    }
}

/* --- what is not a number is not hidden ------------------------------------------------------------------ */

/* Row 0 of an input is not a number: neither is its output or loss, and no other row notices. */
static void check_nan(struct subject *s, struct pass given, int input) {
    int64_t row = test_value_elements(&given, input) / given.options.rows;
    double *broken = nn_arena_alloc(s->arena, (size_t)(row * given.options.rows), sizeof *broken);
    assert_non_null(broken);
    memcpy(broken, given.x[input], (size_t)(row * given.options.rows) * sizeof *broken);
    for (int64_t i = 0; i < row; i++) broken[i] = (double)NAN;
    struct pass p = given;
    p.x[input] = broken;
    test_pass(s, &given, "numbers");
    test_pass(s, &p, "no numbers");
    if (test_is_loss(s->def)) {
        if (isfinite(p.loss[0])) fail_msg("%s hides a NaN", s->def->name);
        return;
    }
    int op = test_op_value(&p);
    int64_t out = test_value_elements(&p, op) / p.options.rows, bad = 0;
    for (int64_t i = 0; i < out; i++) bad += !isfinite(p.y[op][i]);
    if (!bad) fail_msg("%s hides a NaN", s->def->name);
    if (!nn_graph_couples_rows(p.graph, p.options.mode))
        test_same(p.y[op] + out, given.y[op] + out, out * (p.options.rows - 1), "%s: rows without a NaN",
                  s->def->name);
}

static void nan_is_not_hidden(struct subject *s) {
    for (int e = 0; e < s->def->n_examples; e++) {
        struct pass p = test_given(s, e, "ordinary", NN_F32);
        for (int i = 0; i < s->def->examples[e].n_inputs; i++)
            if (nn_graph_value(p.graph, i).dtype != NN_I64) check_nan(s, p, i);
        p.options.mode = NN_EVAL;
        for (int i = 0; i < s->def->examples[e].n_inputs && s->def->flags & NN_COUPLES_ROWS; i++)
            check_nan(s, p, i);
        nn_graph_unref(p.graph);
    }
}

/* The catalogue tells of an operator whose rows depend on each other in some mode. */
static void coupled_rows_are_told(struct subject *s) {
    bool any = false;
    for (int e = 0; e < s->def->n_examples; e++) {
        struct pass p = test_given(s, e, "ordinary", NN_F32);
        any |= nn_graph_couples_rows(p.graph, NN_TRAIN) || nn_graph_couples_rows(p.graph, NN_EVAL);
        nn_graph_unref(p.graph);
    }
    assert_int_equal(any, (s->def->flags & NN_COUPLES_ROWS) != 0);
}

/* --- who computes makes no difference ------------------------------------------------------------------ */

#define MANY (1 << 17) /* elements: enough that work is split */

/* The array over and over, until it has `to` elements. */
static const double *repeated(struct subject *s, const double *from, int64_t n, int64_t to) {
    double *all = nn_arena_alloc(s->arena, (size_t)to, sizeof *all);
    assert_non_null(all);
    for (int64_t i = 0; i < to; i++) all[i] = from[i % n];
    return all;
}

/* The example with so many rows that some tensor of it has MANY elements. */
static struct pass many_rows(struct subject *s, int e, enum nn_dtype dtype) {
    struct pass p = test_given(s, e, "ordinary", dtype);
    int64_t few = p.options.rows, widest = 1;
    int n_nodes = nn_graph_value_count(p.graph);
    for (int i = 0; i < n_nodes; i++)
        if (test_value_elements(&p, i) / few > widest) widest = test_value_elements(&p, i) / few;
    int64_t rows = p.options.rows = MANY / widest + 1;
    for (int i = 0; i < n_nodes; i++) {
        int64_t to = test_value_elements(&p, i), n = to / rows * few;
        if (!nn_graph_value(p.graph, i).rows) continue;
        if (p.x[i]) p.x[i] = repeated(s, p.x[i], n, to);
        if (p.upstream[i]) p.upstream[i] = repeated(s, p.upstream[i], n, to);
    }
    if (!nn_graph_loss_count(p.graph)) return p;
    struct nn_loss_info loss = nn_graph_loss(p.graph, 0);
    for (int i = 0; i < loss.n_forms; i++) {
        int64_t n = nn_shape_elements(&loss.forms[i].shape);
        if (loss.forms[i].ids == p.target_ids[0]) p.target[0] = repeated(s, p.target[0], few * n, rows * n);
    }
    int64_t n = nn_shape_elements(&loss.shape);
    p.weight[0] = repeated(s, p.weight[0], few * n, rows * n);
    return p;
}

static void check_threads(struct subject *s, int e, enum nn_dtype dtype) {
    static const int counts[] = {1, 2, 8};
    struct pass alone = many_rows(s, e, dtype), given = alone;
    test_pass(s, &alone, "here");
    for (int t = 0; t < 3; t++) {
        struct pass p = given;
        const struct nn_parallel par = test_parallel(counts[t]);
        p.par = &par;
        check_part(s, &alone, &p, "in threads");
        for (int i = 0; i < nn_graph_value_count(p.graph); i++)
            if (alone.y[i])
                test_same(p.y[i], alone.y[i], test_value_elements(&p, i), "%s: %d threads: node %d",
                          s->def->name, counts[t], i);
    }
    nn_graph_unref(alone.graph);
}

static void threads_make_no_difference(struct subject *s) {
    for (int e = 0; e < s->def->n_examples; e++) {
        check_threads(s, e, NN_F32);
        nn_arena_free(s->arena);
        s->arena = nn_arena_new();
        check_threads(s, e, NN_F64);
    }
}

/* --- nor do the CPU's instructions --------------------------------------------------------------------- */

static void use(enum nn_isa isa, struct nn_node *node, enum nn_dtype dtype) {
    if (node->op) node->op = nn_op_in(isa, nn_op_find(node->op->def.name), dtype);
}

static void check_isas(struct subject *s, int e, enum nn_dtype dtype) {
    struct pass best = many_rows(s, e, dtype), base = best;
    test_pass(s, &best, "as the CPU can");
    for (int i = 0; i < base.graph->n_nodes; i++) use(NN_ISA_BASE, &base.graph->nodes[i], dtype);
    for (int i = 0; i < base.graph->n_losses; i++) use(NN_ISA_BASE, &base.graph->losses[i].node, dtype);
    check_part(s, &best, &base, "as any CPU can");
    for (int i = 0; i < nn_graph_value_count(base.graph); i++)
        if (best.y[i])
            test_same(base.y[i], best.y[i], test_value_elements(&base, i), "%s: node %d", s->def->name, i);
    nn_graph_unref(base.graph);
}

static void instructions_make_no_difference(struct subject *s) {
    for (int e = 0; e < s->def->n_examples; e++) {
        check_isas(s, e, NN_F32);
        check_isas(s, e, NN_F64);
        nn_arena_free(s->arena);
        s->arena = nn_arena_new();
    }
}

/* --- what it takes is told beforehand ----------------------------------------------------------------- */

/* The node of the example alone, as its operator was asked. */
static struct nn_node *node_of(struct nn_graph *graph) {
    return graph->n_losses ? &graph->losses[0].node : &graph->nodes[graph->n_nodes - 1];
}

/* In front of the others, as of so many samples in one. */
static struct nn_shape many_of(int64_t n, const struct nn_shape *sample) {
    struct nn_shape shape = nn_shape_batch(n, sample);
    assert_true(shape.rank <= NN_MAX_RANK);
    return shape;
}

static void work_grows_with_the_numbers(struct subject *s) {
    for (int e = 0; e < s->def->n_examples; e++)
        for (int dtype = NN_F32; dtype <= NN_F64; dtype++) {
            struct pass p = test_given(s, e, "ordinary", (enum nn_dtype)dtype);
            const struct nn_node *node = node_of(p.graph);
            struct nn_infer once = node->inferred, often = once;
            struct nn_shape in[8];
            assert_true(once.n_inputs <= 8);
            for (int i = 0; i < once.n_inputs; i++) in[i] = many_of(1000, &once.in[i]);
            often.in = in;
            often.out = many_of(1000, &once.out);
            double work = node->op->work(&once);
            assert_true(isfinite(work) && work >= 0);
            assert_true(node->op->work(&often) == 1000 * work);
            nn_graph_unref(p.graph);
        }
}

static bool is_among(double y, const double *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&y, &x[i], sizeof y) == 0) return true;
    return false;
}

/* Whether every number of the output is one of an input, or of a parameter. */
static bool only_moves(const struct pass *p) {
    int op = test_op_value(p);
    for (int64_t k = 0; k < test_value_elements(p, op); k++) {
        bool moved = false;
        for (int i = 0; i < nn_graph_input_count(p->graph); i++)
            moved |= is_among(p->y[op][k], p->x[i], test_value_elements(p, i));
        for (int i = 0; i < nn_graph_param_count(p->graph); i++)
            moved |= is_among(p->y[op][k], p->w[i], test_param_elements(p, i));
        if (!moved) return false;
    }
    return true;
}

/* Numbers may be moved, or be made; to make one takes an operation at least. */
static void what_is_made_takes_work(struct subject *s) {
    bool made = test_is_loss(s->def);
    for (int e = 0; e < s->def->n_examples; e++) {
        struct pass p = test_given(s, e, "ordinary", NN_F64);
        const struct nn_node *node = node_of(p.graph);
        double work = node->op->work(&node->inferred);
        test_pass(s, &p, "its numbers");
        made |= !test_is_loss(s->def) && !only_moves(&p);
        if (made && work < (double)nn_shape_elements(&node->inferred.out))
            fail_msg("%s says that it makes no number", s->def->name);
        nn_graph_unref(p.graph);
    }
}

int main(void) {
    static const struct subject_test tests[] = {
        {"gradients are derivatives", finite_differences},
        {"backward adds to the parameters' gradients", adds_to_parameters},
        {"backward adds to the inputs' gradients", adds_to_inputs},
        {"unwanted gradients change nothing", unwanted_gradients},
        {"halves add up", halves_add_up},
        {"a NaN is not hidden", nan_is_not_hidden},
        {"coupled rows are told", coupled_rows_are_told},
        {"threads make no difference", threads_make_no_difference},
        {"instructions make no difference", instructions_make_no_difference},
        {"its work grows with its numbers", work_grows_with_the_numbers},
        {"what is made takes work", what_is_made_takes_work},
    };
    nn_blas_init();
    return test_subjects("what holds for every operator and loss", tests, sizeof tests / sizeof tests[0]);
}
