/* subject.c - an operator or loss under test: its definition and its golden values. */
#include "subject.h"

#include <stdio.h>
#include <string.h>

/* --- every test on every definition ---------------------------------------------------------------- */

struct job {
    const struct nn_def *def;
    const struct subject_test *test;
};

static void run_job(void **state) {
    const struct job *job = *state;
    struct subject subject = {.def = job->def, .arena = nn_arena_new()};
    assert_non_null(subject.arena);
    if (job->def->n_examples < 1) fail_msg("%s has no examples", job->def->name);
    subject.golden = golden_open(job->def->name, test_case_of_op(job->def));
    job->test->run(&subject);
    golden_close(subject.golden);
    nn_arena_free(subject.arena);
}

int test_subjects(const char *name, const struct subject_test *tests, size_t n) {
    size_t n_ops = 0;
    while (nn_op_def((int)n_ops)) n_ops++;
    struct job *jobs = calloc(n_ops * n, sizeof *jobs);
    struct CMUnitTest *all = calloc(n_ops * n, sizeof *all);
    if (!jobs || !all) abort();
    for (size_t i = 0; i < n_ops * n; i++) {
        jobs[i] = (struct job){nn_op_def((int)(i / n)), &tests[i % n]};
        all[i] = (struct CMUnitTest){.name = test_format("%s: %s", jobs[i].def->name, jobs[i].test->name),
                                     .test_func = run_job,
                                     .initial_state = &jobs[i]};
    }
    int failed = test_group(name, all, n_ops * n);
    for (size_t i = 0; i < n_ops * n; i++) free((void *)all[i].name);
    free(all);
    free(jobs);
    return failed;
}

/* --- what golden values are given for --------------------------------------------------------------- */

const double *test_golden(struct subject *s, const struct nn_shape *shape, int example, const char *variant,
                          const char *name, ...) {
    char rest[96];
    va_list args;
    va_start(args, name);
    vsnprintf(rest, sizeof rest, name, args);
    va_end(args);
    return golden_get(s->golden, shape, "%d/%s/%s", example, variant, rest);
}

int64_t test_value_elements(const struct pass *pass, int value) {
    struct nn_value_info info = nn_graph_value(pass->graph, value);
    return (info.rows ? pass->options.rows : 1) * nn_shape_elements(&info.shape);
}

int64_t test_param_elements(const struct pass *pass, int param) {
    return nn_graph_param(pass->graph, param)->elements;
}

const char *test_output(const struct nn_value_info *value) {
    static char name[64];
    snprintf(name, sizeof name, "y%s", value->name + strlen("op"));
    return name;
}

int test_op_value(const struct pass *pass) {
    int op = nn_graph_find(pass->graph, "op");
    return op >= 0 ? op : nn_graph_value_count(pass->graph) - 1;
}

static struct pass begin(struct subject *s, int e, const char *variant, enum nn_dtype dtype,
                         const struct nn_loss *how) {
    struct nn_error err = {0};
    struct pass p = {.options = {.rows = CASE_ROWS,
                                 .mode = strcmp(variant, "eval") == 0 ? NN_EVAL : NN_TRAIN,
                                 .seed = CASE_SEED}};
    p.graph = test_graph_of(s->def, &s->def->examples[e], dtype, how, &err);
    test_ok(0, &err, "%s, example %d", s->def->name, e);
    for (int i = 0; i < nn_graph_input_count(p.graph); i++) {
        struct nn_value_info info = nn_graph_value(p.graph, i);
        struct nn_shape shape = nn_shape_batch(CASE_ROWS, &info.shape);
        p.x[i] = test_golden(s, &shape, e, variant, "x%d", i);
    }
    for (int i = 0; i < nn_graph_param_count(p.graph); i++) {
        const struct nn_param *param = nn_graph_param(p.graph, i);
        p.w[i] = test_golden(s, &param->shape, e, variant, "w/%s", test_suffix(param));
    }
    return p;
}

struct pass test_given_loss(struct subject *s, int e, const char *variant, enum nn_dtype dtype, bool sum,
                            const char *weight) {
    struct nn_loss how = {.sum = sum, .sample_weight = *weight ? "weight" : NULL};
    struct pass p = begin(s, e, variant, dtype, &how);
    struct nn_loss_info info = nn_graph_loss(p.graph, 0);
    struct nn_shape rows = {1, {CASE_ROWS}}, full = nn_shape_batch(CASE_ROWS, &info.shape);
    p.target_ids[0] = s->def->examples[e].ids;
    for (int i = 0; i < info.n_forms; i++) {
        struct nn_shape shape = nn_shape_batch(CASE_ROWS, &info.forms[i].shape);
        if (info.forms[i].ids == p.target_ids[0]) p.target[0] = test_golden(s, &shape, e, variant, "target");
    }
    assert_non_null(p.target[0]);
    p.weight_full[0] = strcmp(weight, "full") == 0;
    if (*weight)
        p.weight[0] = test_golden(s, p.weight_full[0] ? &full : &rows, e, variant, "weight_%s", weight);
    return p;
}

struct pass test_given(struct subject *s, int e, const char *variant, enum nn_dtype dtype) {
    if (test_is_loss(s->def)) return test_given_loss(s, e, variant, dtype, false, "full");
    struct pass p = begin(s, e, variant, dtype, NULL);
    for (int i = test_op_value(&p); i < nn_graph_value_count(p.graph); i++) {
        struct nn_value_info info = nn_graph_value(p.graph, i);
        struct nn_shape shape = nn_value_shape(&info, CASE_ROWS);
        p.upstream[i] = test_golden(s, &shape, e, variant, "d_%s", test_output(&info));
    }
    return p;
}

void test_pass(struct subject *s, struct pass *pass, const char *what) {
    struct nn_error err = {0};
    test_ok(pass_run(pass, s->arena, &err), &err, "%s: %s", s->def->name, what);
}
