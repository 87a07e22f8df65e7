/* cases.c - what the golden values of a definition are for, described as JSON. */
#include "cases.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "pass.h"

static json_t *shape_json(const struct nn_shape *shape) {
    json_t *array = json_array();
    for (int i = 0; i < shape->rank; i++) json_array_append_new(array, json_integer(shape->dim[i]));
    return array;
}

static json_t *default_json(const struct nn_attr_def *attr) {
    switch (attr->type) {
    case NN_INT:
        return json_integer((json_int_t)attr->by_default);
    case NN_REAL:
        return isnan(attr->by_default) ? json_null() : json_real(attr->by_default);
    case NN_BOOL:
        return json_boolean(attr->by_default != 0);
    case NN_CHOICE:
        return json_string(attr->choices[(int)attr->by_default]);
    default:
        break;
    }
    json_t *list = json_array();
    for (int i = 0; attr->list_default && i < attr->list_min; i++)
        json_array_append_new(list, attr->type == NN_INTS ? json_integer((json_int_t)attr->list_default[i])
                                                          : json_real(attr->list_default[i]));
    return list;
}

static json_t *defaults_json(const struct nn_def *def) {
    json_t *defaults = json_object();
    for (const struct nn_attr_def *a = def->attrs; a && a->name; a++)
        if (!a->required) json_object_set_new(defaults, a->name, default_json(a));
    return defaults;
}

static json_t *attrs_json(const struct nn_def *def, const char *members) {
    char *text = test_format("{%s}", members);
    json_error_t why;
    json_t *attrs = json_loads(text, JSON_REJECT_DUPLICATES, &why);
    if (!attrs) fprintf(stderr, "%s: attributes %s: %s\n", def->name, text, why.text);
    free(text);
    return attrs;
}

static json_t *example_json(const struct nn_def *def, const struct nn_example *example) {
    json_t *inputs = json_array();
    for (int i = 0; i < example->n_inputs; i++)
        json_array_append_new(inputs, shape_json(&example->inputs[i]));
    return json_pack("{s:o, s:o, s:b, s:I}", "attrs", attrs_json(def, example->attrs), "inputs", inputs,
                     "ids", (int)example->ids, "classes", (json_int_t)example->classes);
}

const char *test_suffix(const struct nn_param *param) {
    const char *dot = strrchr(param->name, '.');
    return dot ? dot + 1 : param->name;
}

/* What only the sealed graph knows. */
static void describe_layer(json_t *json, const struct nn_graph *graph) {
    json_t *params = json_object(), *buffers = json_object(), *counts = json_array();
    for (int i = 0; i < nn_graph_param_count(graph); i++) {
        const struct nn_param *param = nn_graph_param(graph, i);
        if (param->dtype == NN_I64)
            json_array_append_new(counts, json_string(test_suffix(param)));
        else
            json_object_set_new(param->kind == NN_BUFFER ? buffers : params, test_suffix(param),
                                shape_json(&param->shape));
    }
    json_object_set_new(json, "params", params);
    if (json_object_size(buffers)) {
        json_object_set(json, "buffers", buffers);
        json_object_set(json, "counts", counts);
    }
    json_decref(buffers);
    json_decref(counts);
}

static void describe_loss(json_t *json, const struct nn_graph *graph, bool ids) {
    struct nn_loss_info loss = nn_graph_loss(graph, 0);
    json_object_set_new(json, "unreduced", shape_json(&loss.shape));
    for (int i = 0; i < loss.n_forms; i++)
        if (loss.forms[i].ids == ids) json_object_set_new(json, "target", shape_json(&loss.forms[i].shape));
}

static json_t *case_json(const struct nn_def *def, json_t *examples) {
    json_t *json =
        json_pack("{s:s, s:b, s:b, s:b, s:o, s:o}", "name", def->name, "loss", !!(def->flags & NN_IS_LOSS),
                  "kinks", !!(def->flags & NN_HAS_KINKS), "rng", !!(def->flags & NN_USES_RNG), "defaults",
                  defaults_json(def), "examples", examples);
    if (def->flags & NN_COUPLES_ROWS) json_object_set_new(json, "couples", json_true());
    if (!def->more_outputs) return json;
    json_t *names = json_array();
    for (const char *const *name = def->more_outputs; *name; name++)
        json_array_append_new(names, json_string(*name));
    json_object_set_new(json, "more_outputs", names);
    return json;
}

json_t *test_case_of_op(const struct nn_def *def) {
    json_t *examples = json_array();
    for (int i = 0; i < def->n_examples; i++) {
        const struct nn_example *example = &def->examples[i];
        struct nn_error err = {0};
        struct nn_graph *graph = test_graph_of(def, example, NN_F64, NULL, &err);
        if (!graph) {
            fprintf(stderr, "%s, example %d: %s\n", def->name, i, err.text);
            exit(1);
        }
        json_t *json = example_json(def, example);
        if (def->flags & NN_IS_LOSS)
            describe_loss(json, graph, example->ids);
        else
            describe_layer(json, graph);
        json_array_append_new(examples, json);
        nn_graph_unref(graph);
    }
    return case_json(def, examples);
}

json_t *test_case_of_optimizer(const struct nn_def *def) {
    json_t *examples = json_array();
    for (int i = 0; i < def->n_examples; i++)
        json_array_append_new(examples, json_pack("{s:o}", "attrs", attrs_json(def, def->examples[i].attrs)));
    return case_json(def, examples);
}
