/* tables.c - the attribute tables of every operator, loss and optimizer: defaults can be given, bounds hold,
 * and what is refused is refused by name. */
#include <math.h>
#include <string.h>

#include "../support/attrs.h"
#include "../support/check.h"

static const struct nn_def *definition(int i) {
    int n_ops = 0;
    while (nn_op_def(n_ops)) n_ops++;
    return i < n_ops ? nn_op_def(i) : nn_optimizer_def(i - n_ops);
}

/* Sets one attribute of a fresh set; the error is left in `err`. */
static int set(const struct nn_def *def, const struct nn_attr_def *attr, struct nn_given value,
               struct nn_error *err) {
    struct nn_arena *arena = nn_arena_new();
    struct nn_attrs *attrs = nn_attrs_new(def, arena);
    assert_non_null(attrs);
    *err = (struct nn_error){0};
    int code = nn_attrs_set(attrs, attr->name, &value, err);
    nn_arena_free(arena);
    return code;
}

static void refuse(const struct nn_def *def, const struct nn_attr_def *attr, struct nn_given value,
                   const char *what) {
    struct nn_error err;
    test_refused(set(def, attr, value, &err), &err, NN_E_VALUE, "%s.%s: %s", def->name, attr->name, what);
    assert_string_equal(err.member, attr->name);
}

static void accept(const struct nn_def *def, const struct nn_attr_def *attr, struct nn_given value,
                   const char *what) {
    struct nn_error err;
    test_ok(set(def, attr, value, &err), &err, "%s.%s: %s", def->name, attr->name, what);
}

/* A number, alone or as every element of a list of the shortest length. */
static struct nn_given number(const struct nn_attr_def *attr, double x) {
    static double list[64];
    int n = attr->list_min ? attr->list_min : 1;
    assert_true(n <= 64);
    for (int i = 0; i < n; i++) list[i] = x;
    if (attr->type == NN_INTS || attr->type == NN_REALS)
        return (struct nn_given){.kind = NN_GIVEN_LIST, .list = list, .n = n};
    if (attr->type == NN_INT) return (struct nn_given){.kind = NN_GIVEN_INT, .i = (int64_t)x, .r = x};
    return (struct nn_given){.kind = NN_GIVEN_REAL, .r = x};
}

static bool is_number(const struct nn_attr_def *attr) {
    return attr->type != NN_BOOL && attr->type != NN_CHOICE;
}
static bool is_integer(const struct nn_attr_def *attr) {
    return attr->type == NN_INT || attr->type == NN_INTS;
}
static bool is_list(const struct nn_attr_def *attr) {
    return attr->type == NN_INTS || attr->type == NN_REALS;
}

static void bounds(const struct nn_def *def, const struct nn_attr_def *attr) {
    if (!is_number(attr)) return;
    if (!is_integer(attr)) {
        refuse(def, attr, number(attr, (double)NAN), "NaN");
        refuse(def, attr, number(attr, (double)INFINITY), "infinity");
    }
    if (attr->min == 0 && attr->max == 0) return;
    double step = is_integer(attr) ? 1 : 1e-9 * fmax(1, fmax(fabs(attr->min), fabs(attr->max)));
    refuse(def, attr, number(attr, attr->min - step), "below the least");
    refuse(def, attr, number(attr, attr->max + step), "above the most");
    if (attr->min_open)
        refuse(def, attr, number(attr, attr->min), "the open least");
    else
        accept(def, attr, number(attr, attr->min), "the least");
    if (attr->max_open)
        refuse(def, attr, number(attr, attr->max), "the open most");
    else
        accept(def, attr, number(attr, attr->max), "the most");
    if (is_integer(attr) && is_list(attr)) refuse(def, attr, number(attr, attr->max - 0.5), "a fraction");
}

static void list_lengths(const struct nn_def *def, const struct nn_attr_def *attr) {
    if (!is_list(attr)) return;
    double x = attr->min == 0 && attr->max == 0 ? 0
               : attr->max_open                 ? attr->min / 2 + attr->max / 2
                                                : attr->max;
    struct nn_given list = number(attr, x);
    for (int64_t n = 0; n < attr->list_min; n++) {
        list.n = n;
        refuse(def, attr, list, "too short");
    }
    list.n = (int64_t)attr->list_max + 1; /* refused by its length alone, before it is read */
    refuse(def, attr, list, "too long");
}

static void kinds(const struct nn_def *def, const struct nn_attr_def *attr) {
    static const double one[] = {1};
    struct nn_given value = {.i = 1, .r = 1, .b = true, .text = "no such choice", .list = one, .n = 1};
    static const struct {
        unsigned kind, also;
    } fits[] = {
        [NN_INT] = {NN_GIVEN_INT, NN_GIVEN_INT},    [NN_REAL] = {NN_GIVEN_REAL, NN_GIVEN_INT},
        [NN_BOOL] = {NN_GIVEN_BOOL, NN_GIVEN_BOOL}, [NN_CHOICE] = {NN_GIVEN_TEXT, NN_GIVEN_TEXT},
        [NN_INTS] = {NN_GIVEN_LIST, NN_GIVEN_LIST}, [NN_REALS] = {NN_GIVEN_LIST, NN_GIVEN_LIST},
    };
    for (unsigned kind = NN_GIVEN_INT; kind <= NN_GIVEN_LIST; kind++) {
        value.kind = kind;
        if (kind != fits[attr->type].kind && kind != fits[attr->type].also)
            refuse(def, attr, value, "of another kind");
    }
    value.kind = NN_GIVEN_NULL;
    if (attr->nullable)
        accept(def, attr, value, "null");
    else
        refuse(def, attr, value, "null");
    value.kind = NN_GIVEN_TEXT;
    if (attr->type == NN_CHOICE) refuse(def, attr, value, "an unknown choice");
    for (int i = 0; attr->type == NN_CHOICE && attr->choices[i]; i++) {
        value.text = attr->choices[i];
        accept(def, attr, value, value.text);
    }
}

/* What an attribute is when it is not given has to be a value that could be given. */
static void defaults(const struct nn_def *def, const struct nn_attr_def *attr) {
    assert_true(attr->text && attr->text[0]);
    if (attr->required) return;
    if (attr->type == NN_CHOICE) {
        int n = 0;
        while (attr->choices[n]) n++;
        assert_true(attr->by_default >= 0 && attr->by_default < n);
    }
    if (!is_number(attr) || (is_list(attr) && !attr->list_default)) return;
    struct nn_given value = number(attr, attr->by_default);
    if (is_list(attr)) value.list = attr->list_default;
    accept(def, attr, value, "its default");
}

static void every_attribute(void (*check)(const struct nn_def *def, const struct nn_attr_def *attr)) {
    const struct nn_def *def;
    for (int i = 0; (def = definition(i)); i++)
        for (const struct nn_attr_def *attr = def->attrs; attr && attr->name; attr++) check(def, attr);
}

static void test_bounds(void **state) { (void)state, every_attribute(bounds); }
static void test_list_lengths(void **state) { (void)state, every_attribute(list_lengths); }
static void test_kinds(void **state) { (void)state, every_attribute(kinds); }
static void test_defaults(void **state) { (void)state, every_attribute(defaults); }

static void test_unknown(void **state) {
    (void)state;
    const struct nn_def *def;
    for (int i = 0; (def = definition(i)); i++) {
        struct nn_arena *arena = nn_arena_new();
        struct nn_error err = {0};
        assert_null(test_attrs(def, "\"no_such_attribute\": 1", arena, &err));
        test_refused((int)err.code, &err, NN_E_UNKNOWN_MEMBER, "%s", def->name);
        assert_string_equal(err.member, "no_such_attribute");
        nn_arena_free(arena);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds),   cmocka_unit_test(test_list_lengths), cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_unknown),
    };
    return cmocka_run_group_tests_name("attribute tables", tests, NULL, NULL);
}
