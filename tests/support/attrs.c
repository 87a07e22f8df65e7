/* attrs.c - attributes written as JSON, as the examples in the operators' tables are. */
#include "attrs.h"

#include <jansson.h>

#include "check.h"

/* What a JSON value gives; a list's numbers live in the arena. */
static struct nn_given given(const json_t *value, struct nn_arena *arena) {
    if (json_is_integer(value))
        return (struct nn_given){
            .kind = NN_GIVEN_INT, .i = json_integer_value(value), .r = (double)json_integer_value(value)};
    if (json_is_real(value)) return (struct nn_given){.kind = NN_GIVEN_REAL, .r = json_real_value(value)};
    if (json_is_null(value)) return (struct nn_given){.kind = NN_GIVEN_NULL};
    if (json_is_boolean(value)) return (struct nn_given){.kind = NN_GIVEN_BOOL, .b = json_is_true(value)};
    if (json_is_string(value))
        return (struct nn_given){.kind = NN_GIVEN_TEXT,
                                 .text = nn_arena_strdup(arena, json_string_value(value))};
    assert_true(json_is_array(value));
    size_t n = json_array_size(value);
    double *list = nn_arena_alloc(arena, n ? n : 1, sizeof *list);
    for (size_t i = 0; i < n; i++) list[i] = json_number_value(json_array_get(value, i));
    return (struct nn_given){.kind = NN_GIVEN_LIST, .list = list, .n = (int64_t)n};
}

struct nn_attrs *test_attrs(const struct nn_def *def, const char *members, struct nn_arena *arena,
                            struct nn_error *err) {
    struct nn_attrs *attrs = nn_attrs_new(def, arena);
    assert_non_null(attrs);
    json_error_t why;
    char *text = test_format("{%s}", members);
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &why);
    if (!object) fail_msg("%s: attributes %s: %s", def->name, text, why.text);
    free(text);
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value) {
        struct nn_given v = given(value, arena);
        if (nn_attrs_set(attrs, name, &v, err)) {
            attrs = NULL;
            break;
        }
    }
    json_decref(object);
    return attrs;
}
