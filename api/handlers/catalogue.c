/* catalogue.c - GET /ops and docs/ops.md, from the tables. */
#include "catalogue.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../api.h"
#include "../wire/json_build.h"
#include "../wire/tensor.h"

static const char *const type_names[] = {
    [NN_INT] = "integer",   [NN_REAL] = "number",   [NN_BOOL] = "boolean",
    [NN_CHOICE] = "string", [NN_INTS] = "integers", [NN_REALS] = "numbers"};

static const struct {
    enum nn_flags flag;
    const char *name;
} flag_names[] = {{NN_COUPLES_ROWS, "couples_rows"}, {NN_HAS_KINKS, "has_kinks"}, {NN_USES_RNG, "uses_rng"}};

static bool is_list(const struct nn_attr_def *attr) {
    return attr->type == NN_INTS || attr->type == NN_REALS;
}

static bool is_bounded(const struct nn_attr_def *attr) { return attr->min != 0 || attr->max != 0; }

/* --- JSON ------------------------------------------------------------------------------------------ */

static json_t *default_json(const struct nn_attr_def *attr) {
    json_t *list;
    switch (attr->type) {
    case NN_INT:
        return json_integer((json_int_t)attr->by_default);
    case NN_REAL:
        return isnan(attr->by_default) ? json_null() : json_real(attr->by_default);
    case NN_BOOL:
        return json_boolean(attr->by_default != 0);
    case NN_CHOICE:
        return json_string(attr->choices[(int)attr->by_default]);
    case NN_INTS:
    case NN_REALS:
        break;
    }
    list = json_array();
    for (int i = 0; attr->list_default && i < attr->list_min; i++)
        list = api_json_append(list, json_real(attr->list_default[i]));
    return list;
}

static json_t *choices_json(const struct nn_attr_def *attr) {
    json_t *list = json_array();
    for (int i = 0; attr->choices[i]; i++) list = api_json_append(list, json_string(attr->choices[i]));
    return list;
}

static json_t *attr_json(const struct nn_attr_def *attr) {
    json_t *json = json_pack("{s:s, s:s, s:b, s:s}", "name", attr->name, "type", type_names[attr->type],
                             "required", attr->required, "text", attr->text);
    if (attr->nullable) json = api_json_with(json, "nullable", json_true());
    if (!attr->required) json = api_json_with(json, "default", default_json(attr));
    if (is_bounded(attr)) {
        json = api_json_with(json, attr->min_open ? "exclusive_minimum" : "minimum", json_real(attr->min));
        json = api_json_with(json, attr->max_open ? "exclusive_maximum" : "maximum", json_real(attr->max));
    }
    return attr->choices ? api_json_with(json, "choices", choices_json(attr)) : json;
}

static json_t *more_outputs_json(const struct nn_def *def) {
    json_t *names = json_array();
    for (int i = 0; def->more_outputs[i]; i++)
        names = api_json_append(names, json_string(def->more_outputs[i]));
    return names;
}

static json_t *def_json(const struct nn_def *def) {
    json_t *attrs = json_array(), *flags = json_array();
    for (const struct nn_attr_def *attr = def->attrs; attr && attr->name; attr++)
        attrs = api_json_append(attrs, attr_json(attr));
    for (size_t i = 0; i < sizeof flag_names / sizeof flag_names[0]; i++)
        if (def->flags & flag_names[i].flag) flags = api_json_append(flags, json_string(flag_names[i].name));
    json_t *json =
        json_pack("{s:s, s:s, s:s}", "op", def->name, "summary", def->summary, "forward", def->forward);
    if (def->backward) json = api_json_with(json, "backward", json_string(def->backward));
    if (def->source) json = api_json_with(json, "source", json_string(def->source));
    json = api_json_with(json, "min_inputs", json_integer(def->min_inputs));
    json = api_json_with(json, "max_inputs", json_integer(def->max_inputs));
    if (def->more_outputs) json = api_json_with(json, "more_outputs", more_outputs_json(def));
    json = api_json_with(json, "flags", flags);
    return api_json_with(json, "attributes", attrs);
}

static json_t *optimizer_json(const struct nn_def *def) {
    json_t *takes = json_pack("{s:f, s:f}", nn_dtype_name(NN_F32), nn_optimizer_takes(def, NN_F32),
                              nn_dtype_name(NN_F64), nn_optimizer_takes(def, NN_F64));
    return api_json_with(def_json(def), "takes", takes);
}

json_t *api_catalogue_json(void) {
    json_t *operators = json_array(), *losses = json_array(), *optimizers = json_array();
    const struct nn_def *def;
    for (int i = 0; (def = nn_op_def(i)); i++) {
        json_t **list = def->flags & NN_IS_LOSS ? &losses : &operators;
        *list = api_json_append(*list, def_json(def));
    }
    for (int i = 0; (def = nn_optimizer_def(i)); i++)
        optimizers = api_json_append(optimizers, optimizer_json(def));
    return json_pack("{s:o, s:o, s:o}", "operators", operators, "losses", losses, "optimizers", optimizers);
}

/* --- Markdown -------------------------------------------------------------------------------------- */

/* Adds an attribute's default as JSON: 1e-08, or [0.9, 0.999]. */
static void add_default(struct api_text *text, const struct nn_attr_def *attr) {
    json_t *json = default_json(attr);
    size_t i;
    json_t *item;
    char number[32];
    if (!json) {
        text->failed = true;
        return;
    }
    if (is_list(attr)) {
        api_text_puts(text, "[");
        json_array_foreach(json, i, item) {
            snprintf(number, sizeof number, "%s%.15g", i ? ", " : "", json_real_value(item));
            api_text_puts(text, number);
        }
        api_text_puts(text, "]");
    } else if (json_is_number(json)) {
        snprintf(number, sizeof number, "%.15g", json_number_value(json));
        api_text_puts(text, number);
    } else {
        api_text_puts(text, json_is_string(json) ? json_string_value(json)
                            : json_is_true(json) ? "true"
                                                 : "false");
    }
    json_decref(json);
}

/* Adds an attribute's range, such as (0, 1], or its choices. */
static void add_range(struct api_text *text, const struct nn_attr_def *attr) {
    char range[96];
    if (is_bounded(attr)) {
        snprintf(range, sizeof range, "%s%.15g, %.15g%s", attr->min_open ? "(" : "[", attr->min, attr->max,
                 attr->max_open ? ")" : "]");
        api_text_puts(text, range);
    }
    for (int i = 0; attr->choices && attr->choices[i]; i++) {
        if (i) api_text_puts(text, ", ");
        api_text_puts(text, attr->choices[i]);
    }
}

static void add_attr(struct api_text *text, const struct nn_attr_def *attr) {
    const char *const before[] = {"| `", "` | ", attr->nullable ? " or null" : "", " | "};
    const char *const words[] = {attr->name, type_names[attr->type], "", ""};
    for (int i = 0; i < 4; i++) {
        api_text_puts(text, before[i]);
        api_text_puts(text, words[i]);
    }
    add_range(text, attr);
    api_text_puts(text, " | ");
    if (attr->required)
        api_text_puts(text, "required");
    else
        add_default(text, attr);
    api_text_puts(text, " | ");
    api_text_puts(text, attr->text);
    api_text_puts(text, " |\n");
}

/* Adds an operator or an optimizer. `rule` is the heading of def->forward, which differs for the two. `takes` is the
 * bound of an optimizer's gradients; NULL for an operator. */
static void add_def(struct api_text *text, const struct nn_def *def, const char *rule, const char *takes) {
    const char *const parts[][2] = {{"\n### ", def->name},  {"\n\n", def->summary},
                                    {rule, def->forward},   {"\n- Backward: ", def->backward},
                                    {"\n- Takes: ", takes}, {"\n- Source: ", def->source}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (!parts[i][1]) continue;
        api_text_puts(text, parts[i][0]);
        api_text_puts(text, parts[i][1]);
    }
    for (int i = 0; def->more_outputs && def->more_outputs[i]; i++) {
        api_text_puts(text, i ? ", `" : "\n- Outputs behind the first: `");
        api_text_puts(text, def->more_outputs[i]);
        api_text_puts(text, "`");
    }
    api_text_puts(text, "\n");
    if (!def->attrs || !def->attrs->name) return;
    api_text_puts(text, "\n| attribute | type | range | default | |\n| --- | --- | --- | --- | --- |\n");
    for (const struct nn_attr_def *attr = def->attrs; attr->name; attr++) add_attr(text, attr);
}

char *api_ops_markdown(void) {
    static const char forward[] = "\n\n- Forward: ";
    struct api_text text = {0};
    const struct nn_def *def;
    api_text_puts(
        &text, "# Operators, losses and optimizers\n\n"
               "Made from the tables by `make docs`; `GET /ops` gives the same as JSON. Names, defaults and\n"
               "meaning are PyTorch's. A `dim` counts the batch as 0.\n\n## Operators\n");
    for (int i = 0; (def = nn_op_def(i)); i++)
        if (!(def->flags & NN_IS_LOSS)) add_def(&text, def, forward, NULL);
    api_text_puts(
        &text,
        "\n## Losses\n\nA loss also takes `input`, `target`, `sample_weight`, `scale` and `reduction`: "
        "see [api.md](api.md).\n");
    for (int i = 0; (def = nn_op_def(i)); i++)
        if (def->flags & NN_IS_LOSS) add_def(&text, def, forward, NULL);
    api_text_puts(
        &text, "\n## Optimizers\n\nA gradient with a greater number than an optimizer takes, after its "
               "scale, is refused: its "
               "square would be infinite in\nthe state. Where `clip_grad_norm` is not above that, any finite "
               "gradient is taken.\n");
    for (int i = 0; (def = nn_optimizer_def(i)); i++) {
        char takes[96];
        snprintf(takes, sizeof takes, "numbers up to %.3g in F32, %.3g in F64",
                 nn_optimizer_takes(def, NN_F32), nn_optimizer_takes(def, NN_F64));
        add_def(&text, def, "\n\n- Update: ", takes);
    }
    api_text_add(&text, "", 1);
    if (!text.failed) return text.data;
    api_text_free(&text);
    return NULL;
}
