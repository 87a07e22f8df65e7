/* attr.c - attributes as given, against a definition made for it and against the real tables. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/attr.h"

enum { SIZE, RATE, PLAIN, ON, KIND, DIMS, BETAS, WEIGHT };
static const char *const kinds[] = {"none", "tanh", NULL};
static const double betas[] = {0.9, 0.999};
static const struct nn_attr_def rows[] = {
    [SIZE] = {.name = "size", .type = NN_INT, .required = true, .min = 1, .max = 100, .text = "how large"},
    [RATE] = {.name = "rate",
              .type = NN_REAL,
              .min_open = true,
              .max_open = true,
              .min = 0,
              .max = 1,
              .by_default = 0.25},
    [PLAIN] = {.name = "plain", .type = NN_REAL, .by_default = -3},
    [ON] = {.name = "on", .type = NN_BOOL, .by_default = true},
    [KIND] = {.name = "kind", .type = NN_CHOICE, .choices = kinds, .by_default = 1},
    [DIMS] = {.name = "dims", .type = NN_INTS, .min = -1, .max = 9, .list_max = 3},
    [BETAS] = {.name = "betas",
               .type = NN_REALS,
               .min = 0,
               .max = 1,
               .max_open = true,
               .list_default = betas,
               .list_min = 2,
               .list_max = 2},
    [WEIGHT] = {.name = "weight", .type = NN_REALS, .list_min = 1, .list_max = 8},
    {0},
};
static const struct nn_def def = {.name = "thing", .attrs = rows};

struct fixture {
    struct nn_arena *arena;
    struct nn_attrs *attrs;
};

static int setup(void **state) {
    static struct fixture f;
    f.arena = nn_arena_new();
    f.attrs = f.arena ? nn_attrs_new(&def, f.arena) : NULL;
    *state = &f;
    return f.attrs ? 0 : -1;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    nn_arena_free(f->arena);
    return 0;
}

static struct nn_given integer(int64_t i) {
    return (struct nn_given){.kind = NN_GIVEN_INT, .i = i, .r = (double)i};
}
static struct nn_given number(double r) { return (struct nn_given){.kind = NN_GIVEN_REAL, .r = r}; }
static struct nn_given boolean(bool b) { return (struct nn_given){.kind = NN_GIVEN_BOOL, .b = b}; }
static struct nn_given string(const char *text) {
    return (struct nn_given){.kind = NN_GIVEN_TEXT, .text = text};
}
static struct nn_given list(const double *list, int64_t n) {
    return (struct nn_given){.kind = NN_GIVEN_LIST, .list = list, .n = n};
}

static void accept(struct nn_attrs *attrs, const char *name, struct nn_given given) {
    struct nn_error err = {0};
    assert_int_equal(nn_attrs_set(attrs, name, &given, &err), NN_OK);
    assert_int_equal(err.code, NN_OK);
}

static void refuse(struct nn_attrs *attrs, const char *name, struct nn_given given, const char *says) {
    struct nn_error err = {0};
    assert_int_equal(nn_attrs_set(attrs, name, &given, &err), NN_E_VALUE);
    assert_int_equal(err.code, NN_E_VALUE);
    assert_string_equal(err.member, name);
    if (!strstr(err.text, says)) fail_msg("\"%s\" does not say \"%s\"", err.text, says);
}

static void defaults_are_the_tables(void **state) {
    const struct fixture *f = *state;
    const union nn_attr_value *v = nn_attrs_values(f->attrs);
    assert_int_equal(nn_attrs_count(&def), 8);
    assert_ptr_equal(nn_attrs_definition(f->attrs), &def);
    assert_true(v[RATE].r == 0.25 && v[PLAIN].r == -3);
    assert_true(v[ON].b);
    assert_int_equal(v[KIND].i, 1);
    assert_int_equal(v[DIMS].list.n, 0);
    assert_int_equal(v[BETAS].list.n, 2);
    assert_true(v[BETAS].list.reals[0] == 0.9 && v[BETAS].list.reals[1] == 0.999);
    assert_int_equal(v[WEIGHT].list.n, 0);
}

static void values_are_taken(void **state) {
    const struct fixture *f = *state;
    const union nn_attr_value *v = nn_attrs_values(f->attrs);
    double dims[] = {-1, 9, 0};
    accept(f->attrs, "size", integer(100));
    accept(f->attrs, "rate", number(0.5));
    accept(f->attrs, "plain", integer(7));
    accept(f->attrs, "on", boolean(false));
    accept(f->attrs, "kind", string("none"));
    accept(f->attrs, "dims", list(dims, 3));
    accept(f->attrs, "betas", list((double[]){0, 0.5}, 2));
    dims[0] = 5; /* the list is a copy */
    assert_int_equal(v[SIZE].i, 100);
    assert_true(v[RATE].r == 0.5 && v[PLAIN].r == 7);
    assert_false(v[ON].b);
    assert_int_equal(v[KIND].i, 0);
    assert_int_equal(v[DIMS].list.n, 3);
    assert_true(v[DIMS].list.ints[0] == -1 && v[DIMS].list.ints[1] == 9 && v[DIMS].list.ints[2] == 0);
    assert_true(v[BETAS].list.reals[0] == 0 && v[BETAS].list.reals[1] == 0.5);
    accept(f->attrs, "dims", list(NULL, 0));
    assert_int_equal(v[DIMS].list.n, 0);
}

static void wrong_types_are_refused(void **state) {
    const struct fixture *f = *state;
    const double one[] = {1};
    refuse(f->attrs, "size", number(3), "an integer");
    refuse(f->attrs, "size", string("3"), "an integer");
    refuse(f->attrs, "rate", boolean(true), "a number");
    refuse(f->attrs, "on", integer(1), "true or false");
    refuse(f->attrs, "kind", integer(0), "a string");
    refuse(f->attrs, "dims", integer(1), "a list of integers");
    refuse(f->attrs, "weight", number(1), "a list of numbers");
    refuse(f->attrs, "plain", list(one, 1), "a number");
}

static void ranges_hold(void **state) {
    const struct fixture *f = *state;
    refuse(f->attrs, "size", integer(0), "at least 1 and at most 100, not 0");
    refuse(f->attrs, "size", integer(101), "not 101");
    refuse(f->attrs, "size", integer(INT64_MIN), "at least 1");
    refuse(f->attrs, "rate", number(0), "greater than 0 and less than 1");
    refuse(f->attrs, "rate", integer(1), "less than 1, not 1");
    refuse(f->attrs, "plain", number((double)INFINITY), "finite");
    refuse(f->attrs, "plain", number((double)NAN), "finite");
    refuse(f->attrs, "kind", string("exact"), "\"none\" or \"tanh\"");
    refuse(f->attrs, "betas", list((double[]){0.5, 1}, 2), "every number of \"betas\"");
    refuse(f->attrs, "betas", list((double[]){0.5}, 1), "must have 2 elements, not 1");
    refuse(f->attrs, "dims", list((double[]){1, 2, 3, 4}, 4), "0 to 3 elements, not 4");
    refuse(f->attrs, "dims", list((double[]){1.5}, 1), "a list of integers");
    refuse(f->attrs, "dims", list((double[]){-2}, 1), "at least -1");
    refuse(f->attrs, "weight", list(NULL, 0), "1 to 8 elements");
    const union nn_attr_value *v = nn_attrs_values(f->attrs); /* a refusal changes nothing */
    assert_true(v[RATE].r == 0.25 && v[KIND].i == 1 && v[BETAS].list.reals[1] == 0.999);
}

static void unknown_names_are_refused(void **state) {
    const struct fixture *f = *state;
    struct nn_error err = {0};
    const struct nn_given given = integer(1);
    assert_int_equal(nn_attrs_set(f->attrs, "sice", &given, &err), NN_E_UNKNOWN_MEMBER);
    assert_string_equal(err.member, "sice");
    assert_non_null(strstr(err.text, "thing has no attribute \"sice\""));
}

static void required_ones_are_missed(void **state) {
    const struct fixture *f = *state;
    struct nn_error err = {0};
    refuse(f->attrs, "size", integer(0), "at least 1"); /* which does not count as given */
    assert_int_equal(nn_attrs_require(f->attrs, &err), NN_E_VALUE);
    assert_string_equal(err.member, "size");
    accept(f->attrs, "size", integer(1));
    memset(&err, 0, sizeof err);
    assert_int_equal(nn_attrs_require(f->attrs, &err), NN_OK);
}

static void a_copy_outlives_the_original(void **state) {
    (void)state;
    struct nn_arena *first = nn_arena_new(), *second = nn_arena_new();
    struct nn_attrs *attrs = nn_attrs_new(&def, first);
    assert_non_null(attrs);
    accept(attrs, "size", integer(4));
    accept(attrs, "dims", list((double[]){2, 3}, 2));
    union nn_attr_value *copy = nn_attrs_copy(attrs, second);
    assert_non_null(copy);
    nn_arena_free(first);
    assert_int_equal(copy[SIZE].i, 4);
    assert_int_equal(copy[DIMS].list.n, 2);
    assert_true(copy[DIMS].list.ints[0] == 2 && copy[DIMS].list.ints[1] == 3);
    assert_true(copy[BETAS].list.reals[1] == 0.999);
    nn_arena_free(second);
}

static void check_table(const struct nn_def *d, bool optimizer) {
    struct nn_arena *arena = nn_arena_new();
    assert_non_null(nn_attrs_new(d, arena));
    assert_true(d->name && d->summary && d->forward);
    assert_true(optimizer || (d->backward && d->n_examples >= 2));
    for (int i = 0; i < nn_attrs_count(d); i++) {
        const struct nn_attr_def *row = &d->attrs[i];
        assert_non_null(row->text);
        assert_true(row->type != NN_CHOICE || row->choices);
        bool bounded = row->min != 0 || row->max != 0;
        bool scalar = row->type == NN_INT || row->type == NN_REAL;
        if (bounded) assert_true(row->min < row->max);
        if (bounded && scalar && !row->required)
            assert_true(row->by_default >= row->min && row->by_default <= row->max);
        for (int j = 0; j < i; j++) assert_string_not_equal(row->name, d->attrs[j].name);
    }
    nn_arena_free(arena);
}

static void every_table_is_well_formed(void **state) {
    (void)state;
    int ops = 0, optimizers = 0;
    for (const struct nn_def *d; (d = nn_op_def(ops)); ops++) {
        check_table(d, false);
        assert_ptr_equal(nn_op_find(d->name), d);
    }
    for (const struct nn_def *d; (d = nn_optimizer_def(optimizers)); optimizers++) {
        check_table(d, true);
        assert_ptr_equal(nn_optimizer_find(d->name), d);
        assert_string_equal(d->attrs[0].name, "lr");
        assert_string_equal(d->attrs[1].name, "clip_grad_norm");
    }
    assert_true(ops > 0 && optimizers > 0);
    assert_null(nn_op_def(-1));
    assert_null(nn_optimizer_def(-1));
    assert_null(nn_op_find("no such operator"));
    assert_null(nn_optimizer_find("no such optimizer"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(defaults_are_the_tables, setup, teardown),
        cmocka_unit_test_setup_teardown(values_are_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_types_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(ranges_hold, setup, teardown),
        cmocka_unit_test_setup_teardown(unknown_names_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(required_ones_are_missed, setup, teardown),
        cmocka_unit_test(a_copy_outlives_the_original),
        cmocka_unit_test(every_table_is_well_formed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
