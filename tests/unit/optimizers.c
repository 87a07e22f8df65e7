/* optimizers.c - every optimizer against PyTorch over 20 steps, and what holds for all of them: the learning
 * rate and scale of a single step, state that can be carried over, frozen parameters, threads. */
#include <math.h>
#include <string.h>

#include "../support/attrs.h"
#include "../support/cases.h"
#include "../support/check.h"
#include "../support/golden.h"
#include "../support/pass.h"
#include "../support/threads.h"

/* --- a model that is trained ----------------------------------------------------------------------------- */

/* Two layers, "a" trained and "b" frozen, one optimizer; parameters swap between two blocks. */
struct training {
    struct nn_graph *graph;
    struct nn_params *now, *next;
    struct nn_grads *grads;
    struct nn_optimizer *optimizer;
};

static void add_linear(struct nn_graph *graph, const char *name, const char *attrs, bool frozen) {
    struct nn_error err = {0};
    struct nn_layer layer = {.op = nn_op_find("linear"),
                             .name = name,
                             .inputs = &(const char *){"x"},
                             .n_inputs = 1,
                             .frozen = frozen};
    layer.attrs = test_attrs(layer.op, attrs, nn_graph_arena(graph), &err);
    test_ok(nn_graph_add_layer(graph, &layer, &err), &err, "%s", name);
}

/* "a" is [3, in]. */
static struct training training_new(const struct nn_def *def, const char *members, enum nn_dtype dtype,
                                    int64_t in) {
    struct training t;
    struct nn_error err = {0};
    struct nn_shape sample = {1, {in}};
    t.graph = nn_graph_new(dtype, &err);
    test_ok(nn_graph_add_input(t.graph, "x", dtype, &sample, &err), &err, "x");
    add_linear(t.graph, "b", "\"out_features\": 5", true);
    add_linear(t.graph, "a", "\"out_features\": 3", false);
    test_ok(nn_graph_seal(t.graph, &err), &err, "graph");
    t.now = nn_params_new(t.graph, &err);
    t.next = nn_params_new(t.graph, &err);
    t.grads = nn_grads_new(t.graph, &err);
    nn_params_init(t.now, 7);
    struct nn_arena *arena = nn_arena_new();
    const struct nn_attrs *attrs = test_attrs(def, members, arena, &err);
    test_ok(0, &err, "%s: %s", def->name, members);
    t.optimizer = nn_optimizer_new(t.graph, def, attrs, &err);
    test_ok(0, &err, "%s: %s", def->name, members);
    nn_arena_free(arena); /* the optimizer keeps values of its own */
    return t;
}

static void training_free(struct training *t) {
    nn_optimizer_free(t->optimizer);
    nn_grads_free(t->grads);
    nn_params_unref(t->now);
    nn_params_unref(t->next);
    nn_graph_unref(t->graph);
}

/* `only`: by parameter; NULL: all. */
static void step_some(struct training *t, const bool *only, double scale, double lr,
                      const struct nn_parallel *par) {
    nn_optimizer_step_some(t->optimizer, only, t->now, t->grads, scale, lr, t->next, par);
    struct nn_params *made = t->next;
    t->next = t->now;
    t->now = made;
}

static void step(struct training *t, double scale, double lr, const struct nn_parallel *par) {
    step_some(t, NULL, scale, lr, par);
}

static int param(const struct training *t, const char *name) {
    int i = nn_graph_param_find(t->graph, name);
    assert_true(i >= 0);
    return i;
}

/* Gradients that depend on the step and the element alone. */
static void set_gradient(struct training *t, int p, int64_t i, double g) {
    enum nn_dtype dtype = nn_graph_dtype(t->graph);
    test_narrow(&g, dtype, (char *)nn_grads_data(t->grads, p) + (size_t)i * nn_dtype_size(dtype), 1);
}

static void make_gradient(struct training *t, int at, double factor) {
    for (int p = 0; p < nn_graph_param_count(t->graph); p++) {
        const struct nn_param *info = nn_graph_param(t->graph, p);
        for (int64_t i = 0; info->kind == NN_TRAINED && i < info->elements; i++)
            set_gradient(t, p, i, factor * (double)((i * 7 + (int64_t)at * 13 + p) % 11 - 5) / 8);
    }
}

/* The same bits in all parameters. */
static void same_params(const struct training *a, const struct training *b, const char *what) {
    for (int p = 0; p < nn_graph_param_count(a->graph); p++) {
        size_t bytes =
            (size_t)nn_graph_param(a->graph, p)->elements * nn_dtype_size(nn_graph_dtype(a->graph));
        if (memcmp(nn_params_view(a->now, p), nn_params_view(b->now, p), bytes) != 0)
            fail_msg("%s: %s: %s differs", nn_optimizer_definition(a->optimizer)->name, what,
                     nn_graph_param(a->graph, p)->name);
    }
}

/* Calls check for every example of every optimizer. */
static void every_example(void (*check)(const struct nn_def *def, const char *attrs)) {
    const struct nn_def *def;
    for (int i = 0; (def = nn_optimizer_def(i)); i++) {
        if (def->n_examples < 1) fail_msg("%s has no examples", def->name);
        for (int e = 0; e < def->n_examples; e++) check(def, def->examples[e].attrs);
    }
}

/* --- against PyTorch -------------------------------------------------------------------------------------- */

static const char *const suffixes[] = {"weight", "bias"};
static const struct nn_shape shapes[] = {{2, {3, 4}}, {1, {3}}};

static void compare_step(const struct training *t, struct golden *g, int e, int at, const char *reference,
                         double tolerance) {
    for (int k = 0; k < 2; k++) {
        struct nn_shape path = nn_shape_batch(CASE_STEPS, &shapes[k]);
        int64_t n = nn_shape_elements(&shapes[k]);
        double got[12];
        const double *want = golden_get(g, &path, "%d/%s/w/%s", e, reference, suffixes[k]) + at * n;
        char *name = test_format("a.%s", suffixes[k]);
        test_widen(nn_params_view(t->now, param(t, name)), nn_graph_dtype(t->graph), got, n);
        test_close(got, want, n, tolerance, 1e-3, "%s, example %d, step %d, %s: %s",
                   nn_optimizer_definition(t->optimizer)->name, e, at + 1, reference, name);
        free(name);
    }
}

/* Returns how many tensors were compared. */
static size_t compare_state(const struct training *t, struct golden *g, int e, const char *reference,
                            double tolerance) {
    int n_slots = nn_optimizer_slot_count(t->optimizer);
    for (int slot = 0; slot < n_slots; slot++)
        for (int k = 0; k < 2; k++) {
            int64_t n = nn_shape_elements(&shapes[k]);
            double got[12];
            const char *name = nn_optimizer_slot_name(t->optimizer, slot);
            char *of = test_format("a.%s", suffixes[k]);
            test_widen(nn_optimizer_slot(t->optimizer, slot, param(t, of)), nn_graph_dtype(t->graph), got, n);
            test_close(got, golden_get(g, &shapes[k], "%d/%s/%s/%s", e, reference, name, suffixes[k]), n,
                       tolerance, 1e-3, "example %d, %s: %s of %s", e, reference, name, of);
            free(of);
        }
    return 2 * (size_t)n_slots;
}

/* Which parameters have a gradient at a step, as `partial` files tell; for the others it is zero. */
static void read_named(struct training *t, struct golden *g, int e, int at, bool *only) {
    const struct nn_shape steps = {1, {CASE_STEPS}};
    for (int k = 0; k < 2; k++) {
        char *name = test_format("a.%s", suffixes[k]);
        int p = param(t, name);
        only[p] = golden_get(g, &steps, "%d/named/%s", e, suffixes[k])[at] != 0;
        for (int64_t i = 0; i < nn_graph_param(t->graph, p)->elements && !only[p]; i++)
            set_gradient(t, p, i, 0);
        free(name);
    }
}

static size_t compare_training(const struct nn_def *def, struct golden *g, int e, enum nn_dtype dtype,
                               const char *reference, bool partial, double tolerance) {
    struct training t = training_new(def, def->examples[e].attrs, dtype, 4);
    uint64_t most = 0, taken[4] = {0};
    int frozen = param(&t, "b.weight");
    double before[20], after[20];
    test_widen(nn_params_view(t.now, frozen), dtype, before, 20);
    for (int at = 0; at < CASE_STEPS; at++) {
        for (int k = 0; k < 2; k++) {
            struct nn_shape path = nn_shape_batch(CASE_STEPS, &shapes[k]);
            int64_t n = nn_shape_elements(&shapes[k]);
            char *name = test_format("a.%s", suffixes[k]);
            test_narrow(golden_get(g, &path, "%d/g/%s", e, suffixes[k]) + at * n, dtype,
                        nn_grads_data(t.grads, param(&t, name)), n);
            if (at == 0)
                test_narrow(golden_get(g, &shapes[k], "%d/w/%s", e, suffixes[k]), dtype,
                            nn_params_data(t.now, param(&t, name)), n);
            free(name);
        }
        bool only[4] = {true, true, true, true};
        if (partial) read_named(&t, g, e, at, only);
        step_some(&t, partial ? only : NULL, 1, (double)NAN, NULL);
        compare_step(&t, g, e, at, reference, tolerance);
        for (int p = 0; p < nn_graph_param_count(t.graph); p++)
            taken[p] += nn_graph_param(t.graph, p)->kind == NN_TRAINED && only[p];
    }
    for (int p = 0; p < nn_graph_param_count(t.graph); p++) {
        assert_int_equal(nn_optimizer_steps(t.optimizer, p), taken[p]);
        if (taken[p] > most) most = taken[p];
    }
    assert_int_equal(nn_optimizer_most_steps(t.optimizer), most);
    test_widen(nn_params_view(t.now, frozen), dtype, after, 20);
    test_same(after, before, 20, "%s: frozen", def->name);
    size_t compared = compare_state(&t, g, e, reference, tolerance);
    training_free(&t);
    return compared;
}

/* State that PyTorch keeps and the optimizer lacks would be left over. */
static void compare_with_pytorch(bool partial) {
    const struct nn_def *def;
    for (int i = 0; (def = nn_optimizer_def(i)); i++) {
        char *name = test_format("%s%s", partial ? "partial_" : "", def->name);
        struct golden *g = golden_open(name, test_case_of_optimizer(def));
        size_t compared = 0;
        for (int e = 0; e < def->n_examples; e++) {
            compare_training(def, g, e, NN_F32, "f64", partial, 1e-5);
            compared += partial ? 6 : 4; /* the start, the gradients, and who has one */
            compared += 2 + compare_training(def, g, e, NN_F64, "f64", partial, 1e-10);
            compared += 2 + compare_training(def, g, e, NN_F32, "f32", partial, 1e-5);
        }
        assert_int_equal(compared, golden_count(g));
        golden_close(g);
        free(name);
    }
}
static void against_pytorch(void **state) { (void)state, compare_with_pytorch(false); }
/* What is counted is counted by parameter. */
static void against_pytorch_in_part(void **state) { (void)state, compare_with_pytorch(true); }

/* --- what holds for all ------------------------------------------------------------------------------------ */

static char *with_lr(const char *attrs, double lr) {
    return test_format("%s%s\"lr\": %g", attrs, *attrs ? ", " : "", lr);
}

/* A learning rate for one step is as good as one's own, and only for that step. */
static void check_lr(const struct nn_def *def, const char *attrs) {
    if (strstr(attrs, "\"lr\"")) return; /* given twice otherwise */
    char *other = with_lr(attrs, 0.25);
    struct training plain = training_new(def, attrs, NN_F64, 4), own = training_new(def, other, NN_F64, 4);
    for (int at = 0; at < 4; at++) {
        make_gradient(&plain, at, 1);
        make_gradient(&own, at, 1);
        step(&plain, 1, 0.25, NULL);
        step(&own, 1, (double)NAN, NULL);
        same_params(&plain, &own, "lr of a step");
    }
    training_free(&plain);
    training_free(&own);
    free(other);
}
static void lr_of_a_step(void **state) { (void)state, every_example(check_lr); }

/* Half of twice a gradient is that gradient, also for what clipping sees. */
static void check_scale(const struct nn_def *def, const char *attrs) {
    struct training plain = training_new(def, attrs, NN_F32, 4), scaled = training_new(def, attrs, NN_F32, 4);
    for (int at = 0; at < 4; at++) {
        make_gradient(&plain, at, 1);
        make_gradient(&scaled, at, -2);
        step(&plain, 1, (double)NAN, NULL);
        step(&scaled, -0.5, (double)NAN, NULL);
        same_params(&plain, &scaled, "scale");
    }
    training_free(&plain);
    training_free(&scaled);
}
static void scale_of_a_gradient(void **state) { (void)state, every_example(check_scale); }

/* One whose state is to be set, in memory that is not zero. */
static struct nn_optimizer *fresh_optimizer(const struct training *t, const char *name, const char *members) {
    struct nn_error err = {0};
    struct nn_arena *arena = nn_arena_new();
    const struct nn_def *def = nn_optimizer_find(name);
    size_t bytes = nn_graph_trained_bytes(t->graph);
    unsigned char *dirty = nn_block_new(bytes);
    memset(dirty, 0xff, bytes);
    nn_block_free(dirty);
    struct nn_optimizer *optimizer =
        nn_optimizer_new_unset(t->graph, def, test_attrs(def, members, arena, &err), &err);
    test_ok(0, &err, "%s: %s", name, members);
    nn_arena_free(arena);
    return optimizer;
}

/* 0 / 0 between the parameters, where all is zero, is nobody's number; of a parameter it is. */
static void eps_of_zero(void **state) {
    (void)state;
    static const char *const names[] = {"adam", "adamw", "adagrad", "rmsprop"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        for (int some = 0; some < 2; some++) {
            struct training t = training_new(nn_optimizer_find(names[i]), "\"eps\": 0", NN_F32, 5);
            bool only[4] = {0};
            only[param(&t, "a.weight")] = only[param(&t, "a.bias")] = true;
            for (int at = 0; at < 3; at++) {
                for (int k = 0; k < 15; k++) set_gradient(&t, param(&t, "a.weight"), k, 0.5);
                for (int k = 0; k < 3; k++) set_gradient(&t, param(&t, "a.bias"), k, -0.25);
                assert_true(nn_optimizer_step_some(t.optimizer, some ? only : NULL, t.now, t.grads, 1,
                                                   (double)NAN, t.next, NULL));
                struct nn_params *made = t.next;
                t.next = t.now;
                t.now = made;
                assert_int_equal(nn_params_first_nonfinite(t.now, NULL), -1);
            }
            training_free(&t);
            t = training_new(nn_optimizer_find(names[i]), "\"eps\": 0", NN_F32, 5); /* its gradient is zero */
            assert_false(nn_optimizer_step_some(t.optimizer, some ? only : NULL, t.now, t.grads, 1,
                                                (double)NAN, t.next, NULL));
            training_free(&t);
        }
}

/* A new optimizer with another's state goes on as the other would have. */
static void check_state(const struct nn_def *def, const char *attrs) {
    struct training a = training_new(def, attrs, NN_F32, 4), b = training_new(def, attrs, NN_F32, 4);
    for (int at = 0; at < 8; at++) {
        if (at == 4) {
            nn_optimizer_free(b.optimizer);
            b.optimizer = fresh_optimizer(&b, def->name, attrs);
            for (int p = 0; p < nn_graph_param_count(a.graph); p++) {
                size_t bytes = (size_t)nn_graph_param(a.graph, p)->elements * sizeof(float);
                if (nn_graph_param(a.graph, p)->kind == NN_TRAINED)
                    nn_optimizer_set_steps(b.optimizer, p, nn_optimizer_steps(a.optimizer, p));
                memcpy(nn_params_data(b.now, p), nn_params_view(a.now, p), bytes);
                for (int s = 0; nn_graph_param(a.graph, p)->kind == NN_TRAINED &&
                                s < nn_optimizer_slot_count(a.optimizer);
                     s++) {
                    memcpy(nn_optimizer_slot(b.optimizer, s, p), nn_optimizer_slot(a.optimizer, s, p), bytes);
                    nn_optimizer_set_slot_fresh(b.optimizer, s, p,
                                                nn_optimizer_slot_fresh(a.optimizer, s, p));
                }
            }
        }
        make_gradient(&a, at, 1);
        make_gradient(&b, at, 1);
        step(&a, 1, (double)NAN, NULL);
        if (at < 4) continue;
        step(&b, 1, (double)NAN, NULL);
        same_params(&a, &b, "state carried over");
    }
    assert_int_equal(nn_optimizer_most_steps(b.optimizer), 8);
    /* What lies between parameters too. */
    assert_memory_equal(nn_params_block(a.now), nn_params_block(b.now), nn_graph_param_bytes(a.graph));
    training_free(&a);
    training_free(&b);
}
static void state_carried_over(void **state) { (void)state, every_example(check_state); }

/* Other hyper-parameters in the middle leave the state: only the rate changes. */
static void check_configure(const struct nn_def *def, const char *attrs) {
    if (strstr(attrs, "\"lr\"")) return;
    char *other = with_lr(attrs, 0.125);
    struct training a = training_new(def, attrs, NN_F64, 4), b = training_new(def, attrs, NN_F64, 4);
    for (int at = 0; at < 6; at++) {
        struct nn_arena *arena = nn_arena_new();
        struct nn_error err = {0};
        if (at == 3)
            test_ok(nn_optimizer_configure(b.optimizer, test_attrs(def, other, arena, &err), &err), &err,
                    "%s", def->name);
        nn_arena_free(arena);
        make_gradient(&a, at, 1);
        make_gradient(&b, at, 1);
        step(&a, 1, at < 3 ? (double)NAN : 0.125, NULL);
        step(&b, 1, (double)NAN, NULL);
        same_params(&a, &b, "configured");
    }
    training_free(&a);
    training_free(&b);
    free(other);
}
static void configure_keeps_state(void **state) { (void)state, every_example(check_configure); }

static void check_threads(const struct nn_def *def, const char *attrs) {
    static const int counts[] = {1, 2, 8};
    for (int i = 0; i < 3; i++) {
        struct training a = training_new(def, attrs, NN_F32, 100000),
                        b = training_new(def, attrs, NN_F32, 100000);
        const struct nn_parallel par = test_parallel(counts[i]);
        for (int at = 0; at < 2; at++) {
            make_gradient(&a, at, 1);
            make_gradient(&b, at, 1);
            step(&a, 1, (double)NAN, NULL);
            step(&b, 1, (double)NAN, &par);
            same_params(&a, &b, "threads");
        }
        training_free(&a);
        training_free(&b);
    }
}
static void threads_make_no_difference(void **state) { (void)state, every_example(check_threads); }

/* The block grows only by what the hyper-parameters use. */
static void check_bytes(const struct nn_def *def, const char *attrs) {
    struct training t = training_new(def, attrs, NN_F64, 4);
    struct nn_arena *arena = nn_arena_new();
    struct nn_error err = {0};
    size_t bytes = nn_optimizer_bytes(t.graph, def, test_attrs(def, attrs, arena, &err));
    size_t slots = (size_t)nn_optimizer_slot_count(t.optimizer) * nn_graph_trained_bytes(t.graph);
    assert_in_range(bytes, slots, slots + 1024);
    nn_arena_free(arena);
    training_free(&t);
}
static void bytes_are_told(void **state) { (void)state, every_example(check_bytes); }

/* Many parameters, some of which are ahead of others: each comes to the same as alone, whoever lies beside it. */
static void equal_steps_go_together(void **state) {
    (void)state;
    const struct nn_def *adam = nn_optimizer_find("adam");
    struct nn_error err = {0};
    struct nn_shape sample = {1, {7}};
    struct training t = {.graph = nn_graph_new(NN_F32, &err)}, one;
    test_ok(nn_graph_add_input(t.graph, "x", NN_F32, &sample, &err), &err, "x");
    for (int i = 0; i < 6; i++) {
        char name[2] = {(char)('c' + i), '\0'};
        add_linear(t.graph, name, "\"out_features\": 3", i == 4);
    }
    test_ok(nn_graph_seal(t.graph, &err), &err, "graph");
    one = (struct training){.graph = nn_graph_ref(t.graph)};
    struct nn_arena *arena = nn_arena_new();
    const struct nn_attrs *attrs = test_attrs(adam, "\"lr\": 0.1", arena, &err);
    struct training *both[] = {&t, &one};
    for (int i = 0; i < 2; i++) {
        both[i]->now = nn_params_new(t.graph, &err);
        both[i]->next = nn_params_new(t.graph, &err);
        both[i]->grads = nn_grads_new(t.graph, &err);
        both[i]->optimizer = nn_optimizer_new(t.graph, adam, attrs, &err);
        test_ok(0, &err, "adam");
        nn_params_init(both[i]->now, 7);
    }
    nn_arena_free(arena);
    int n = nn_graph_param_count(t.graph);
    for (int at = 0; at < 40; at++) {
        bool only[12];
        for (int p = 0; p < n; p++) only[p] = at % 4 == 0 || (at * 7 + p * p) % 3 != 0;
        make_gradient(&t, at, 1);
        make_gradient(&one, at, 1);
        step_some(&t, only, 1, (double)NAN, NULL);
        for (int p = 0; p < n; p++) {
            bool alone[12] = {0};
            alone[p] = only[p];
            if (only[p]) step_some(&one, alone, 1, (double)NAN, NULL);
        }
        same_params(&t, &one, "side by side");
    }
    /* What lies between parameters too. */
    assert_memory_equal(nn_params_block(t.now), nn_params_block(one.now), nn_graph_param_bytes(t.graph));
    training_free(&t);
    training_free(&one);
}

/* --- single ones ------------------------------------------------------------------------------------------- */

/* What is refused leaves an optimizer as it was. */
static void refused_configuration(void **state) {
    (void)state;
    const struct nn_def *sgd = nn_optimizer_find("sgd");
    struct training a = training_new(sgd, "\"momentum\": 0.9", NN_F64, 4);
    struct training b = training_new(sgd, "\"momentum\": 0.9", NN_F64, 4);
    struct nn_arena *arena = nn_arena_new();
    struct nn_error err = {0};
    const struct nn_attrs *bad = test_attrs(sgd, "\"nesterov\": true", arena, &err);
    test_refused(nn_optimizer_configure(a.optimizer, bad, &err), &err, NN_E_VALUE,
                 "nesterov without momentum");
    assert_string_equal(err.member, "nesterov");
    err = (struct nn_error){0};
    assert_null(nn_optimizer_new(a.graph, sgd, bad, &err));
    assert_int_equal(err.code, NN_E_VALUE);
    for (int at = 0; at < 3; at++) {
        make_gradient(&a, at, 1);
        make_gradient(&b, at, 1);
        step(&a, 1, (double)NAN, NULL);
        step(&b, 1, (double)NAN, NULL);
    }
    same_params(&a, &b, "refused");
    nn_arena_free(arena);
    training_free(&a);
    training_free(&b);
}

/* Momentum begins with the first gradient itself, not with (1 - dampening) of it: also after a change that
 * first asks for momentum. */
static void momentum_begins_late(void **state) {
    (void)state;
    const struct nn_def *sgd = nn_optimizer_find("sgd");
    struct training t = training_new(sgd, "\"lr\": 1", NN_F64, 4);
    struct nn_arena *arena = nn_arena_new();
    struct nn_error err = {0};
    make_gradient(&t, 0, 1);
    step(&t, 1, (double)NAN, NULL);
    const struct nn_attrs *attrs =
        test_attrs(sgd, "\"lr\": 1, \"momentum\": 0.5, \"dampening\": 0.5", arena, &err);
    test_ok(nn_optimizer_configure(t.optimizer, attrs, &err), &err, "momentum");
    double before, after, g;
    int bias = param(&t, "a.bias");
    make_gradient(&t, 2, 1);
    test_widen(nn_params_view(t.now, bias), NN_F64, &before, 1);
    test_widen(nn_grads_data(t.grads, bias), NN_F64, &g, 1);
    step(&t, 1, (double)NAN, NULL);
    test_widen(nn_params_view(t.now, bias), NN_F64, &after, 1);
    double want = before - g;
    assert_true(g != 0);
    test_close(&after, &want, 1, 1e-14, 0, "first step with momentum");
    nn_arena_free(arena);
    training_free(&t);
}

/* A gradient of 1e4 and then one of 1e-4: both averages in float are those in double, whatever the shares are. */
static void averages_keep_what_is_new(void **state) {
    (void)state;
    static const struct {
        const char *op, *attrs;
    } cases[] = {{"adam", "\"betas\": [0, 0]"},
                 {"adam", "\"betas\": [0.1, 0.4], \"amsgrad\": true"},
                 {"adam", "\"betas\": [0.5, 0.5]"},
                 {"adamw", "\"betas\": [0.3, 0.999]"},
                 {"adamw", "\"betas\": [0.9, 0]"},
                 {"rmsprop", "\"alpha\": 0, \"centered\": true"},
                 {"rmsprop", "\"alpha\": 0.4, \"centered\": true"},
                 {"rmsprop", "\"alpha\": 1, \"centered\": true"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct nn_def *def = nn_optimizer_find(cases[i].op);
        struct training t[] = {training_new(def, cases[i].attrs, NN_F32, 4),
                               training_new(def, cases[i].attrs, NN_F64, 4)};
        int bias = param(&t[0], "a.bias");
        for (int at = 0; at < 2; at++)
            for (int k = 0; k < 2; k++) {
                for (int64_t j = 0; j < 3; j++) set_gradient(&t[k], bias, j, at ? 1e-4 : 1e4);
                step(&t[k], 1, (double)NAN, NULL);
            }
        for (int slot = 0; slot < nn_optimizer_slot_count(t[0].optimizer); slot++) {
            double got[3], want[3];
            test_widen(nn_optimizer_slot(t[0].optimizer, slot, bias), NN_F32, got, 3);
            test_widen(nn_optimizer_slot(t[1].optimizer, slot, bias), NN_F64, want, 3);
            test_close(got, want, 3, 1e-6, 0, "%s, %s: %s", def->name, cases[i].attrs,
                       nn_optimizer_slot_name(t[0].optimizer, slot));
        }
        training_free(&t[0]);
        training_free(&t[1]);
    }
}

/* Without averages, Adam steps by lr against the gradient's sign, however small it has become. */
static void adam_without_averages(void **state) {
    (void)state;
    struct training t = training_new(nn_optimizer_find("adam"), "\"lr\": 0.1, \"betas\": [0, 0]", NN_F32, 4);
    int bias = param(&t, "a.bias");
    const double one[] = {1, 1, 1}, want = 0.80001;
    double got;
    test_narrow(one, NN_F32, nn_params_data(t.now, bias), 3);
    for (int at = 0; at < 2; at++) {
        for (int64_t j = 0; j < 3; j++) set_gradient(&t, bias, j, at ? 1e-4 : 1e4);
        step(&t, 1, (double)NAN, NULL);
    }
    test_widen(nn_params_view(t.now, bias), NN_F32, &got, 1);
    test_close(&got, &want, 1, 1e-6, 0, "adam");
    training_free(&t);
}

/* A model with nothing to train can be stepped all the same. */
static void nothing_to_train(void **state) {
    (void)state;
    struct nn_error err = {0};
    struct nn_shape sample = {1, {3}};
    struct nn_graph *graph = nn_graph_new(NN_F32, &err);
    test_ok(nn_graph_add_input(graph, "x", NN_F32, &sample, &err), &err, "x");
    struct nn_layer relu = {.op = nn_op_find("relu")};
    test_ok(nn_graph_add_layer(graph, &relu, &err), &err, "relu");
    test_ok(nn_graph_seal(graph, &err), &err, "graph");
    struct nn_params *from = nn_params_new(graph, &err), *to = nn_params_new(graph, &err);
    struct nn_grads *grads = nn_grads_new(graph, &err);
    struct nn_arena *arena = nn_arena_new();
    const struct nn_def *adam = nn_optimizer_find("adam");
    struct nn_optimizer *optimizer =
        nn_optimizer_new(graph, adam, test_attrs(adam, "\"clip_grad_norm\": 1", arena, &err), &err);
    test_ok(0, &err, "adam");
    nn_optimizer_step(optimizer, from, grads, 1, (double)NAN, to, NULL);
    assert_int_equal(nn_optimizer_most_steps(optimizer), 0); /* by no parameter */
    assert_int_equal(nn_grads_first_nonfinite(grads, NULL), -1);
    nn_optimizer_free(optimizer);
    nn_arena_free(arena);
    nn_grads_free(grads);
    nn_params_unref(from);
    nn_params_unref(to);
    nn_graph_unref(graph);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_pytorch),         cmocka_unit_test(lr_of_a_step),
        cmocka_unit_test(scale_of_a_gradient),     cmocka_unit_test(state_carried_over),
        cmocka_unit_test(configure_keeps_state),   cmocka_unit_test(threads_make_no_difference),
        cmocka_unit_test(bytes_are_told),          cmocka_unit_test(refused_configuration),
        cmocka_unit_test(momentum_begins_late),    cmocka_unit_test(eps_of_zero),
        cmocka_unit_test(nothing_to_train),        cmocka_unit_test(averages_keep_what_is_new),
        cmocka_unit_test(adam_without_averages),   cmocka_unit_test(against_pytorch_in_part),
        cmocka_unit_test(equal_steps_go_together),
    };
    return cmocka_run_group_tests_name("optimizers", tests, NULL, NULL);
}
