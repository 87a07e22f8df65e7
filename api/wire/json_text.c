/* json_text.c - writes jansson's values as text. */
#include "json_text.h"

#define A_NUMBER 32 /* an upper bound of the bytes of a number, a word, or a pair of brackets */

static void add_number(struct api_text *text, const json_t *value) {
    const struct nn_shape scalar = {0};
    double real = json_real_value(value);
    int64_t integer = json_integer_value(value);
    if (json_is_real(value))
        api_text_array(text, &real, NN_F64, &scalar);
    else
        api_text_array(text, &integer, NN_I64, &scalar);
}

static void add_array(struct api_text *text, const json_t *array) {
    size_t i;
    json_t *item;
    api_text_puts(text, "[");
    json_array_foreach((json_t *)array, i, item) {
        if (i) api_text_puts(text, ",");
        api_text_json(text, item);
    }
    api_text_puts(text, "]");
}

static void add_object(struct api_text *text, const json_t *object) {
    const char *name;
    json_t *value;
    bool first = true;
    api_text_puts(text, "{");
    json_object_foreach((json_t *)object, name, value) {
        if (!first) api_text_puts(text, ",");
        first = false;
        api_text_quote(text, name);
        api_text_puts(text, ":");
        api_text_json(text, value);
    }
    api_text_puts(text, "}");
}

void api_text_json(struct api_text *text, const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        add_object(text, value);
        break;
    case JSON_ARRAY:
        add_array(text, value);
        break;
    case JSON_STRING:
        api_text_quote(text, json_string_value(value));
        break;
    case JSON_INTEGER:
    case JSON_REAL:
        add_number(text, value);
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        api_text_puts(text, json_is_true(value) ? "true" : "false");
        break;
    case JSON_NULL:
        api_text_puts(text, "null");
        break;
    }
}

size_t api_json_text_bound(const json_t *value) {
    const char *name;
    json_t *item;
    size_t i, bytes = A_NUMBER;
    if (json_is_string(value)) bytes += api_text_quote_bound(json_string_value(value));
    json_array_foreach((json_t *)value, i, item) { bytes += 1 + api_json_text_bound(item); }
    json_object_foreach((json_t *)value, name, item) {
        bytes += 2 + api_text_quote_bound(name) + api_json_text_bound(item);
    }
    return bytes;
}

char *api_json_text(const json_t *value) {
    struct api_text text = {0};
    api_text_json(&text, value);
    api_text_add(&text, "", 1);
    if (!text.failed) return text.data;
    api_text_free(&text);
    return NULL;
}
