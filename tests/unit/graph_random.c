/* graph_random.c - random graphs, whole: gradients of all that is asked for are derivatives of the sum that the
 * upstream gradients make; what else is asked for, and whether there is a tape, changes no bit. Finds buffers
 * that are given back too early or shared too soon. */
#include <stdio.h>
#include <string.h>

#include "../../core/rng.h"
#include "../support/check.h"
#include "../support/model.h"
#include "../support/pass.h"

enum { GRAPHS = 200, MOST_LAYERS = 11, WIDTH = 3, ROWS = 2, CELLS = ROWS * WIDTH };
static const struct nn_shape sample = {1, {WIDTH}};

/* --- chance, the same at every run ------------------------------------------------------------------------ */

struct chance {
    struct nn_rng_key key;
    uint64_t at;
};

static uint32_t below(struct chance *chance, uint32_t n) {
    uint32_t words[4];
    nn_rng_draw(chance->key, chance->at++, 0, words);
    return words[0] % n;
}

static const double *numbers(struct chance *chance, struct nn_arena *arena, int64_t n) {
    double *x = nn_arena_alloc(arena, (size_t)n, sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = ((double)below(chance, 1 << 20) / (1 << 19) - 1) * 1.5;
    return x;
}

/* --- a graph and its pass ----------------------------------------------------------------------------------- */

/* Ties a product's weight now and then to that of another, before or behind it. */
static void tie(struct chance *chance, struct row *rows, int n, int i) {
    static char owners[MOST_LAYERS][24];
    const int j = (int)below(chance, (uint32_t)n);
    if (strcmp(rows[i].op, "linear") != 0 || strcmp(rows[j].op, "linear") != 0 || j == i ||
        rows[j].ties[0].suffix)
        return;
    for (int k = 0; k < n; k++)
        if (rows[k].ties[0].owner && strncmp(rows[k].ties[0].owner, rows[i].name, strlen(rows[i].name)) == 0)
            return; /* it is an owner itself */
    snprintf(owners[i], sizeof owners[i], "%s.weight", rows[j].name);
    rows[i].ties[0] = (struct nn_tie){"weight", owners[i]};
}

/* Layers that keep the shape, of inputs anywhere before them; some are written in reverse order. All are outputs, or only
 * the last. */
static struct nn_graph *draw_graph(struct chance *chance, enum nn_dtype dtype, bool all) {
    static const struct {
        const char *op, *attrs;
        int n_inputs;
    } kinds[] = {
        {"tanh", NULL, 1},
        {"sigmoid", NULL, 1},
        {"gelu", NULL, 1},
        {"softmax", NULL, 1},
        {"mul", NULL, 2},
        {"add", NULL, 2},
        {"sub", NULL, 2},
        {"linear", "\"out_features\": 3", 1},
        {"reshape", "\"shape\": [3]", 1},
        {"dropout", NULL, 1},
        {"parameter", "\"shape\": [3]", 0},
    };
    static char names[MOST_LAYERS + 2][16];
    struct row rows[MOST_LAYERS + 1] = {{0}}, written[MOST_LAYERS + 1] = {{0}};
    int n = 2 + (int)below(chance, MOST_LAYERS - 1);
    bool reversed = below(chance, 2);
    snprintf(names[0], sizeof names[0], "x");
    snprintf(names[1], sizeof names[1], "z");
    for (int i = 2; i < n + 2; i++) snprintf(names[i], sizeof names[i], "l%d", i);
    for (int i = 0; i < n; i++) {
        uint32_t kind = below(chance, sizeof kinds / sizeof kinds[0]);
        rows[i] = (struct row){.op = kinds[kind].op, .name = names[i + 2], .attrs = kinds[kind].attrs};
        rows[i].frozen = below(chance, 4) == 0;
        for (int k = 0; k < kinds[kind].n_inputs; k++)
            rows[i].inputs[k] = names[below(chance, (uint32_t)i + 2)];
    }
    for (int i = 0; i < n; i++) tie(chance, rows, n, i);
    for (int i = 0; i < n; i++) written[i] = rows[reversed ? n - 1 - i : i];
    struct nn_error err = {0};
    struct nn_graph *graph = test_inputs(dtype, sample, sample);
    test_ok(test_add(graph, written, &err), &err, "layers");
    if (below(chance, 2))
        test_ok(test_add_loss(graph, "mse", names[below(chance, (uint32_t)n + 2)], &err), &err, "mse");
    if (below(chance, 2))
        test_ok(test_add_loss(graph, "mse", names[below(chance, (uint32_t)n + 2)], &err), &err, "mse");
    for (int i = all ? 0 : n - 1; i < n; i++)
        test_ok(nn_graph_add_output(graph, names[i + 2], &err), &err, "output");
    test_ok(nn_graph_seal(graph, &err), &err, "sealing");
    return graph;
}

static int64_t cells(const struct nn_graph *graph, int value) {
    return nn_graph_value(graph, value).rows ? CELLS : WIDTH;
}

static struct pass draw_pass(struct chance *chance, struct nn_arena *arena, enum nn_dtype dtype) {
    struct pass p = {.graph = draw_graph(chance, dtype, true),
                     .options = {.rows = ROWS, .mode = NN_TRAIN, .seed = below(chance, 1000)}};
    int n = nn_graph_value_count(p.graph);
    for (int i = 0; i < 2; i++) p.x[i] = numbers(chance, arena, CELLS);
    for (int i = 0; i < nn_graph_param_count(p.graph); i++)
        p.w[i] = numbers(chance, arena, nn_graph_param(p.graph, i)->elements);
    for (int i = 0; i < n; i++)
        if (below(chance, 4) == 0) p.upstream[i] = numbers(chance, arena, CELLS);
    if (!p.upstream[n - 1]) p.upstream[n - 1] = numbers(chance, arena, CELLS);
    for (int i = 0; i < nn_graph_loss_count(p.graph); i++) p.target[i] = numbers(chance, arena, CELLS);
    return p;
}

static void run(struct pass *p, struct nn_arena *arena, int graph, const char *what) {
    struct nn_error err = {0};
    test_ok(pass_run(p, arena, &err), &err, "graph %d: %s", graph, what);
}

/* --- derivatives ----------------------------------------------------------------------------------------------- */

static double objective(const struct pass *p, struct nn_arena *arena, int graph) {
    struct pass probe = *p;
    double sum = 0;
    probe.no_parameters = true;
    memset(probe.unwanted, true, sizeof probe.unwanted);
    run(&probe, arena, graph, "probe");
    for (int i = 0; i < nn_graph_loss_count(p->graph); i++) sum += probe.loss[i];
    for (int i = 0; i < nn_graph_value_count(p->graph); i++) {
        const double *y = i < 2 ? p->x[i] : probe.y[i];
        for (int k = 0; k < cells(p->graph, i) && p->upstream[i]; k++) sum += p->upstream[i][k] * y[k];
    }
    return sum;
}

static void check_derivative(struct pass *p, const double **at, int64_t n, const double *gradient, int graph,
                             struct nn_arena *arena) {
    const double *original = *at, h = 1e-5;
    double moved[16], difference[16];
    assert_true(n <= 16);
    memcpy(moved, original, (size_t)n * sizeof *moved);
    *at = moved;
    for (int64_t i = 0; i < n; i++) {
        moved[i] = original[i] + h;
        double ahead = objective(p, arena, graph);
        moved[i] = original[i] - h;
        difference[i] = (ahead - objective(p, arena, graph)) / (2 * h);
        moved[i] = original[i];
    }
    *at = original;
    test_close(gradient, difference, n, 1e-6, 1e-2, "graph %d", graph);
}

static void gradients_are_derivatives(void **state) {
    (void)state;
    for (int g = 0; g < GRAPHS; g++) {
        struct chance chance = {{1, (uint32_t)g}, 0};
        struct nn_arena *arena = nn_arena_new();
        struct pass p = draw_pass(&chance, arena, NN_F64);
        run(&p, arena, g, "gradients");
        for (int i = 0; i < 2; i++) check_derivative(&p, &p.x[i], CELLS, p.d_x[i], g, arena);
        for (int i = 0; i < nn_graph_param_count(p.graph); i++)
            if (p.d_w[i])
                check_derivative(&p, &p.w[i], nn_graph_param(p.graph, i)->elements, p.d_w[i], g, arena);
        nn_graph_unref(p.graph);
        nn_arena_free(arena);
    }
}

/* --- what is asked for, and how ----------------------------------------------------------------------------------- */

static void asking_for_less(void **state) {
    (void)state;
    for (int g = 0; g < GRAPHS; g++) {
        struct chance chance = {{2, (uint32_t)g}, 0};
        struct nn_arena *arena = nn_arena_new();
        struct pass given = draw_pass(&chance, arena, NN_F32), whole = given;
        run(&whole, arena, g, "whole");
        for (int k = 0; k < 6; k++) {
            struct pass part = given;
            part.no_parameters = below(&chance, 2);
            for (int i = 0; i < PASS_MAX; i++) part.unwanted[i] = below(&chance, 2);
            run(&part, arena, g, "part");
            for (int i = 0; i < nn_graph_value_count(given.graph); i++)
                if (part.d_x[i])
                    test_same(part.d_x[i], whole.d_x[i], cells(given.graph, i), "graph %d, node %d", g, i);
            for (int i = 0; i < nn_graph_param_count(given.graph); i++)
                if (part.d_w[i] && !part.no_parameters)
                    test_same(part.d_w[i], whole.d_w[i], nn_graph_param(given.graph, i)->elements,
                              "graph %d, parameter %d", g, i);
        }
        nn_graph_unref(given.graph);
        nn_arena_free(arena);
    }
}

/* Forward without a tape, for some nodes. */
static void check_without_tape(const struct pass *p, const bool *wanted, int graph) {
    struct nn_error err = {0};
    struct nn_run_options options = p->options;
    options.tape = false;
    options.wanted = wanted;
    struct nn_params *params = nn_params_new(p->graph, &err);
    for (int i = 0; i < nn_graph_param_count(p->graph); i++)
        test_narrow(p->w[i], NN_F32, nn_params_data(params, i), nn_graph_param(p->graph, i)->elements);
    struct nn_run *r = nn_run_new_take(params, nn_plan_forward(p->graph, &options, &err), &err);
    test_ok(0, &err, "graph %d", graph);
    for (int i = 0; i < 2; i++)
        if (nn_run_reads(r, i)) test_narrow(p->x[i], NN_F32, nn_run_input(r, i), CELLS);
    nn_run_forward(r, NULL);
    for (int i = 0; i < nn_graph_value_count(p->graph); i++) {
        double y[CELLS];
        assert_true(!!nn_run_value(r, i) == wanted[i]);
        if (!wanted[i]) continue;
        test_widen(nn_run_value(r, i), NN_F32, y, cells(p->graph, i));
        if (i >= 2) test_same(y, p->y[i], cells(p->graph, i), "graph %d, node %d", graph, i);
    }
    nn_run_free(r);
    nn_params_unref(params);
}

static void without_a_tape(void **state) {
    (void)state;
    for (int g = 0; g < GRAPHS; g++) {
        struct chance chance = {{3, (uint32_t)g}, 0};
        struct nn_arena *arena = nn_arena_new();
        struct pass p = draw_pass(&chance, arena, NN_F32);
        run(&p, arena, g, "with a tape");
        for (int k = 0; k < 6; k++) {
            bool wanted[PASS_MAX];
            for (int i = 0; i < PASS_MAX; i++) wanted[i] = below(&chance, 3) == 0;
            check_without_tape(&p, wanted, g);
        }
        nn_graph_unref(p.graph);
        nn_arena_free(arena);
    }
}

/* A value that is no output, and that backward does not read, may be overwritten. */
static void with_fewer_outputs(void **state) {
    (void)state;
    for (int g = 0; g < GRAPHS; g++) {
        struct chance chance = {{4, (uint32_t)g}, 0}, same = chance;
        struct nn_arena *arena = nn_arena_new();
        struct pass p = draw_pass(&chance, arena, NN_F32), fewer = p;
        fewer.graph = draw_graph(&same, NN_F32, false);
        run(&p, arena, g, "all outputs");
        run(&fewer, arena, g, "one output");
        for (int i = 0; i < nn_graph_value_count(p.graph); i++)
            if (p.d_x[i]) test_same(fewer.d_x[i], p.d_x[i], cells(p.graph, i), "graph %d, value %d", g, i);
        for (int i = 0; i < nn_graph_param_count(p.graph); i++)
            if (p.d_w[i])
                test_same(fewer.d_w[i], p.d_w[i], nn_graph_param(p.graph, i)->elements,
                          "graph %d, parameter %d", g, i);
        for (int i = 0; i < nn_graph_loss_count(p.graph); i++) assert_true(fewer.loss[i] == p.loss[i]);
        nn_graph_unref(fewer.graph);
        nn_graph_unref(p.graph);
        nn_arena_free(arena);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_derivatives),
        cmocka_unit_test(asking_for_less),
        cmocka_unit_test(without_a_tape),
        cmocka_unit_test(with_fewer_outputs),
    };
    nn_blas_init();
    return cmocka_run_group_tests_name("random graphs", tests, NULL, NULL);
}
