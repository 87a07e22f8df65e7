/* attr.c - attributes as given, held against a definition's table. */
#include "attr.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct nn_attrs {
    const struct nn_def *def;
    struct nn_arena *arena;
    union nn_attr_value *value; /* one a row of the table */
    bool *given;
};

int nn_attrs_count(const struct nn_def *def) {
    int n = 0;
    while (def->attrs && def->attrs[n].name) n++;
    return n;
}

const struct nn_def *nn_attrs_definition(const struct nn_attrs *attrs) { return attrs->def; }
const union nn_attr_value *nn_attrs_values(const struct nn_attrs *attrs) { return attrs->value; }

static int out_of_memory(struct nn_error *err) {
    return nn_fail(err, NN_E_NOMEM, "no memory for attributes");
}

/* --- lists ------------------------------------------------------------------------------------------- */

/* `list` as INTS or REALS. false when memory is out. */
static bool store_list(union nn_attr_value *value, enum nn_attr_type type, const double *list, int64_t n,
                       struct nn_arena *arena) {
    *value = (union nn_attr_value){.list = {.n = n}};
    if (n == 0) return true;
    if (type == NN_INTS) {
        int64_t *ints = nn_arena_alloc(arena, (size_t)n, sizeof *ints);
        if (!ints) return false;
        for (int64_t i = 0; i < n; i++) ints[i] = (int64_t)list[i];
        value->list.ints = ints;
        return true;
    }
    double *reals = nn_arena_alloc(arena, (size_t)n, sizeof *reals);
    if (!reals) return false;
    value->list.reals = memcpy(reals, list, (size_t)n * sizeof *reals);
    return true;
}

static bool copy_list(union nn_attr_value *value, enum nn_attr_type type, struct nn_arena *arena) {
    if (value->list.n == 0) return true;
    size_t n = (size_t)value->list.n;
    void *copy = nn_arena_alloc(arena, n, sizeof(double));
    if (!copy) return false;
    if (type == NN_INTS)
        value->list.ints = memcpy(copy, value->list.ints, n * sizeof(int64_t));
    else
        value->list.reals = memcpy(copy, value->list.reals, n * sizeof(double));
    return true;
}

static bool is_list(enum nn_attr_type type) { return type == NN_INTS || type == NN_REALS; }

/* --- defaults and copies ------------------------------------------------------------------------------ */

static bool set_default(union nn_attr_value *value, const struct nn_attr_def *row, struct nn_arena *arena) {
    switch (row->type) {
    case NN_INT:
    case NN_CHOICE:
        value->i = (int64_t)row->by_default;
        return true;
    case NN_REAL:
        value->r = row->by_default;
        return true;
    case NN_BOOL:
        value->b = row->by_default != 0;
        return true;
    case NN_INTS:
    case NN_REALS:
        return store_list(value, row->type, row->list_default, row->list_default ? row->list_min : 0, arena);
    }
    return false;
}

struct nn_attrs *nn_attrs_new(const struct nn_def *def, struct nn_arena *arena) {
    int n = nn_attrs_count(def);
    struct nn_attrs *attrs = nn_arena_alloc(arena, 1, sizeof *attrs);
    if (!attrs) return NULL;
    attrs->def = def;
    attrs->arena = arena;
    attrs->value = nn_arena_alloc(arena, (size_t)n, sizeof *attrs->value);
    attrs->given = nn_arena_alloc(arena, (size_t)n, sizeof *attrs->given);
    if (!attrs->value || !attrs->given) return NULL;
    for (int i = 0; i < n; i++)
        if (!set_default(&attrs->value[i], &def->attrs[i], arena)) return NULL;
    return attrs;
}

union nn_attr_value *nn_attrs_copy(const struct nn_attrs *attrs, struct nn_arena *arena) {
    int n = nn_attrs_count(attrs->def);
    union nn_attr_value *copy = nn_arena_alloc(arena, (size_t)n, sizeof *copy);
    if (!copy) return NULL;
    for (int i = 0; i < n; i++) {
        copy[i] = attrs->value[i];
        enum nn_attr_type type = attrs->def->attrs[i].type;
        if (is_list(type) && !copy_list(&copy[i], type, arena)) return NULL;
    }
    return copy;
}

int nn_attrs_require(const struct nn_attrs *attrs, struct nn_error *err) {
    for (int i = 0; i < nn_attrs_count(attrs->def); i++) {
        const struct nn_attr_def *row = &attrs->def->attrs[i];
        if (row->required && !attrs->given[i])
            return nn_fail_member(err, NN_E_VALUE, row->name, "%s needs \"%s\": %s", attrs->def->name,
                                  row->name, row->text);
    }
    return NN_OK;
}

/* --- setting ------------------------------------------------------------------------------------------ */

static int wrong_type(const struct nn_attr_def *row, struct nn_error *err) {
    static const char *const wanted[] = {
        [NN_INT] = "an integer",  [NN_REAL] = "a number",           [NN_BOOL] = "true or false",
        [NN_CHOICE] = "a string", [NN_INTS] = "a list of integers", [NN_REALS] = "a list of numbers",
    };
    return nn_fail_member(err, NN_E_VALUE, row->name, "\"%s\" must be %s%s", row->name, wanted[row->type],
                          row->nullable ? " or null" : "");
}

static int out_of_range(const struct nn_attr_def *row, double x, struct nn_error *err) {
    char least[48] = "", most[48] = "";
    if (row->min > -NN_UNBOUNDED)
        snprintf(least, sizeof least, " %s %.10g", row->min_open ? "greater than" : "at least", row->min);
    if (row->max < NN_UNBOUNDED)
        snprintf(most, sizeof most, "%s %s %.10g", *least ? " and" : "",
                 row->max_open ? "less than" : "at most", row->max);
    const char *whose = is_list(row->type) ? "every number of " : "";
    if (!*least && !*most)
        return nn_fail_member(err, NN_E_VALUE, row->name, "%.10g is too large for \"%s\"", x, row->name);
    return nn_fail_member(err, NN_E_VALUE, row->name, "%s\"%s\" must be%s%s, not %.10g", whose, row->name,
                          least, most, x);
}

static int check_number(const struct nn_attr_def *row, double x, struct nn_error *err) {
    if (!isfinite(x)) return nn_fail_member(err, NN_E_VALUE, row->name, "\"%s\" must be finite", row->name);
    if (row->min == 0 && row->max == 0) return NN_OK;
    bool low = row->min_open ? x <= row->min : x < row->min;
    bool high = row->max_open ? x >= row->max : x > row->max;
    return low || high ? out_of_range(row, x, err) : NN_OK;
}

static int set_choice(union nn_attr_value *value, const struct nn_attr_def *row, const char *text,
                      struct nn_error *err) {
    char known[160] = "";
    size_t used = 0;
    for (int64_t i = 0; row->choices[i]; i++) {
        if (strcmp(row->choices[i], text) == 0) {
            value->i = i;
            return NN_OK;
        }
        if (used < sizeof known)
            used += (size_t)snprintf(known + used, sizeof known - used, "%s\"%s\"", i ? " or " : "",
                                     row->choices[i]);
    }
    return nn_fail_member(err, NN_E_VALUE, row->name, "\"%s\" must be %s", row->name, known);
}

static int set_list(union nn_attr_value *value, const struct nn_attr_def *row, const double *list, int64_t n,
                    struct nn_arena *arena, struct nn_error *err) {
    if (n < row->list_min || n > row->list_max) {
        if (row->list_min == row->list_max)
            return nn_fail_member(err, NN_E_VALUE, row->name, "\"%s\" must have %d elements, not %lld",
                                  row->name, row->list_min, (long long)n);
        return nn_fail_member(err, NN_E_VALUE, row->name, "\"%s\" must have %d to %d elements, not %lld",
                              row->name, row->list_min, row->list_max, (long long)n);
    }
    for (int64_t i = 0; i < n; i++) {
        int rc = check_number(row, list[i], err);
        if (rc) return rc;
        if (row->type == NN_INTS && (list[i] != floor(list[i]) || fabs(list[i]) > 0x1p53))
            return wrong_type(row, err);
    }
    return store_list(value, row->type, list, n, arena) ? NN_OK : out_of_memory(err);
}

static bool accepts(enum nn_attr_type type, const struct nn_given *given) {
    switch (type) {
    case NN_INT:
        return given->kind == NN_GIVEN_INT;
    case NN_REAL:
        return given->kind == NN_GIVEN_REAL || given->kind == NN_GIVEN_INT;
    case NN_BOOL:
        return given->kind == NN_GIVEN_BOOL;
    case NN_CHOICE:
        return given->kind == NN_GIVEN_TEXT;
    case NN_INTS:
    case NN_REALS:
        return given->kind == NN_GIVEN_LIST;
    }
    return false;
}

static int set_value(union nn_attr_value *value, const struct nn_attr_def *row, const struct nn_given *given,
                     struct nn_arena *arena, struct nn_error *err) {
    if (row->nullable && given->kind == NN_GIVEN_NULL) {
        value->r = (double)NAN;
        return NN_OK;
    }
    if (!accepts(row->type, given)) return wrong_type(row, err);
    if (is_list(row->type)) return set_list(value, row, given->list, given->n, arena, err);
    if (row->type == NN_CHOICE) return set_choice(value, row, given->text, err);
    if (row->type == NN_BOOL) {
        value->b = given->b;
        return NN_OK;
    }
    int rc = check_number(row, row->type == NN_INT ? (double)given->i : given->r, err);
    if (rc) return rc;
    if (row->type == NN_INT)
        value->i = given->i;
    else
        value->r = given->r;
    return NN_OK;
}

int nn_attrs_set(struct nn_attrs *attrs, const char *name, const struct nn_given *value,
                 struct nn_error *err) {
    for (int i = 0; i < nn_attrs_count(attrs->def); i++) {
        const struct nn_attr_def *row = &attrs->def->attrs[i];
        if (strcmp(row->name, name) != 0) continue;
        int rc = set_value(&attrs->value[i], row, value, attrs->arena, err);
        if (rc == NN_OK) attrs->given[i] = true;
        return rc;
    }
    return nn_fail_member(err, NN_E_UNKNOWN_MEMBER, name, "%s has no attribute \"%.60s\"", attrs->def->name,
                          name);
}
