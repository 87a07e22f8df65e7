/* json_read.c - see json_read.h. The reader is recursive; its depth is bounded. */
#include "json_read.h"

#include <string.h>

#include "json_string.h"
#include "tensor.h"

struct reader {
    const char *p, *end;
    int depth, most_depth;
    int64_t values, most_values;
    const struct api_json_lifter *lifter;
    const char *member; /* the member of the document that is being read */
    struct nn_arena *arena;
    struct nn_error *err;
};

static json_t *read_value(struct reader *r, const char *name);

static json_t *no_memory(struct reader *r) {
    nn_fail(r->err, NN_E_NOMEM, "memory is out");
    return NULL;
}

static json_t *malformed(struct reader *r) {
    if (r->p >= r->end)
        nn_fail(r->err, NN_E_MALFORMED, "the text ends too early");
    else
        nn_fail(r->err, NN_E_MALFORMED, "not JSON, from here on: %.*s",
                (int)(r->end - r->p < 32 ? r->end - r->p : 32), r->p);
    return NULL;
}

static void skip_space(struct reader *r) {
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r')) r->p++;
}

/* Steps over white space, and over `c` if it is next. */
static bool accept(struct reader *r, char c) {
    skip_space(r);
    if (r->p == r->end || *r->p != c) return false;
    r->p++;
    return true;
}

/* Upper bounds of the bytes that jansson takes beside texts: A_VALUE for a value and its place in an array, A_CONTAINER
 * for an array or object, A_MEMBER for a place in an object. Arrays and objects double as they grow. Values must be
 * counted, because two bytes of text ("1,") may make one. */
enum { A_VALUE = 64, A_CONTAINER = 192, A_MEMBER = 96 };

/* --- words, numbers, strings ----------------------------------------------------------------------- */

static json_t *read_word(struct reader *r) {
    static const struct {
        const char *text;
        json_t *(*make)(void);
    } words[] = {{"true", json_true}, {"false", json_false}, {"null", json_null}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t size = strlen(words[i].text);
        if ((size_t)(r->end - r->p) < size || memcmp(r->p, words[i].text, size) != 0) continue;
        r->p += size;
        return words[i].make();
    }
    return malformed(r);
}

/* Reads a number as an array of one element, because the reader of arrays checks strictly and rounds correctly. */
static json_t *read_number(struct reader *r) {
    size_t size = 0;
    while (size < (size_t)(r->end - r->p) && strchr("+-.0123456789eE", r->p[size]) && r->p[size]) size++;
    if (!size) return malformed(r);
    char *list = nn_arena_alloc(r->arena, size + 2, 1);
    if (!list) return no_memory(r);
    list[0] = '[';
    memcpy(list + 1, r->p, size);
    list[size + 1] = ']';
    struct api_tensor tensor = {.json = list};
    struct nn_error ignored = {0};
    tensor.json_size = api_json_array_scan(list, size + 2, &tensor.shape, &ignored);
    if (tensor.json_size != size + 2) return malformed(r);
    bool real = memchr(list, '.', size + 1) || memchr(list, 'e', size + 1) || memchr(list, 'E', size + 1);
    double x = 0;
    int64_t i = 0;
    if (api_tensor_convert(&tensor, real ? NN_F64 : NN_I64, real ? (void *)&x : &i, r->err)) return NULL;
    r->p += size;
    json_t *value = real ? json_real(x) : json_integer(i);
    return value ? value : no_memory(r);
}

/* An upper bound of the bytes of a jansson string, with the allocator's overhead. */
static size_t string_bytes(const char *text) {
    size_t size = strlen(text);
    return size + size / 4 + 16;
}

static bool count_string(struct reader *r, const char *text) {
    return nn_arena_count(r->arena, string_bytes(text));
}

static json_t *read_string(struct reader *r, const char *name) {
    char *text = api_json_string_read(&r->p, r->end, r->arena, r->err);
    if (!text) return NULL;
    bool offered = r->lifter && r->lifter->lift_text && r->depth == 3 && r->member && name;
    const char *kept = offered && r->lifter->lift_text(r->lifter->self, r->member, name, text) ? "" : text;
    json_t *value = r->err->code == NN_OK && count_string(r, kept) ? json_string_nocheck(kept) : NULL;
    return value ? value : no_memory(r);
}

/* --- arrays and objects ---------------------------------------------------------------------------- */

/* Both read the elements behind the opening bracket. False: an error. */
static bool read_elements(struct reader *r, json_t *array) {
    if (accept(r, ']')) return true;
    do {
        json_t *value = read_value(r, NULL);
        if (!value) return false;
        if (json_array_append_new(array, value)) return no_memory(r), false;
    } while (accept(r, ','));
    return accept(r, ']') || malformed(r);
}

/* Offers an array to the lifter. */
static json_t *read_member_value(struct reader *r, const char *name) {
    size_t span = 0;
    skip_space(r);
    if (r->depth == 1) r->member = name;
    bool lifts = r->lifter && r->lifter->lift;
    bool offered = lifts && r->depth == 2 && r->member && r->p < r->end && *r->p == '[';
    if (offered && !r->lifter->lift(r->lifter->self, r->member, name, r->p, (size_t)(r->end - r->p), &span))
        return NULL;
    if (!span) return read_value(r, name);
    json_t *empty = nn_arena_count(r->arena, A_VALUE + A_CONTAINER) ? json_array() : NULL;
    r->p += span;
    return empty ? empty : no_memory(r);
}

static bool read_member(struct reader *r, json_t *object) {
    skip_space(r);
    if (r->p == r->end || *r->p != '"') return malformed(r);
    const char *name = api_json_string_read(&r->p, r->end, r->arena, r->err);
    if (!name) return false;
    if (!accept(r, ':')) return malformed(r);
    if (json_object_get(object, name))
        return nn_fail(r->err, NN_E_MALFORMED, "the member \"%.100s\" is there twice", name), false;
    bool asks = r->depth == 1 && r->lifter && r->lifter->allow;
    if (asks && !r->lifter->allow(r->lifter->self, name)) return false;
    if (!nn_arena_count(r->arena, A_MEMBER) || !count_string(r, name)) return no_memory(r), false;
    json_t *value = read_member_value(r, name);
    if (!value) return false;
    if (json_object_set_new_nocheck(object, name, value)) return no_memory(r), false;
    return true;
}

static bool read_members(struct reader *r, json_t *object) {
    if (accept(r, '}')) return true;
    do
        if (!read_member(r, object)) return false;
    while (accept(r, ','));
    return accept(r, '}') || malformed(r);
}

static json_t *read_nested(struct reader *r, bool is_array) {
    if (r->depth == r->most_depth) {
        nn_fail(r->err, NN_E_MALFORMED, "JSON is nested at most %d deep here", r->most_depth);
        return NULL;
    }
    json_t *value = !nn_arena_count(r->arena, A_CONTAINER) ? NULL : is_array ? json_array() : json_object();
    if (!value) return no_memory(r);
    r->p++;
    r->depth++;
    bool good = is_array ? read_elements(r, value) : read_members(r, value);
    r->depth--;
    if (good) return value;
    json_decref(value);
    return NULL;
}

/* `name` is the name of the member whose value this is, or NULL. */
static json_t *read_value(struct reader *r, const char *name) {
    skip_space(r);
    if (r->p == r->end) return malformed(r);
    if (++r->values > r->most_values) {
        nn_fail(r->err, NN_E_TOO_LARGE, "a document has at most %lld values here, beside its tensors",
                (long long)r->most_values);
        return NULL;
    }
    if (!nn_arena_count(r->arena, A_VALUE)) return no_memory(r);
    switch (*r->p) {
    case '{':
    case '[':
        return read_nested(r, *r->p == '[');
    case '"':
        return read_string(r, name);
    case 't':
    case 'f':
    case 'n':
        return read_word(r);
    default:
        return read_number(r);
    }
}

size_t api_json_bytes(const json_t *value) {
    const char *name;
    json_t *item;
    size_t i, bytes = A_VALUE;
    if (json_is_object(value) || json_is_array(value)) bytes += A_CONTAINER;
    if (json_is_string(value)) bytes += string_bytes(json_string_value(value));
    json_array_foreach((json_t *)value, i, item) { bytes += api_json_bytes(item); }
    json_object_foreach((json_t *)value, name, item) {
        bytes += A_MEMBER + string_bytes(name) + api_json_bytes(item);
    }
    return bytes;
}

size_t api_json_member_bytes(const char *name, const char *text) {
    return A_MEMBER + string_bytes(name) + A_VALUE + string_bytes(text);
}

static json_t *read_text(struct reader *r) {
    json_t *value = read_value(r, NULL);
    if (!value) return NULL;
    skip_space(r);
    if (r->p == r->end) return value;
    json_decref(value);
    return malformed(r);
}

json_t *api_json_read(const char *text, size_t size, struct nn_arena *arena, struct nn_error *err) {
    struct reader r = {.p = text,
                       .end = text + size,
                       .most_depth = API_JSON_DEPTH,
                       .most_values = INT64_MAX,
                       .arena = arena,
                       .err = err};
    return read_text(&r);
}

json_t *api_json_read_lifting(const char *text, size_t size, const struct api_json_lifter *lifter,
                              const struct api_limits *limits, int64_t *values, struct nn_arena *arena,
                              struct nn_error *err) {
    struct reader r = {.p = text,
                       .end = text + size,
                       .most_depth = limits->json_depth,
                       .values = *values,
                       .most_values = limits->json_values,
                       .lifter = lifter,
                       .arena = arena,
                       .err = err};
    json_t *value = read_text(&r);
    *values = r.values;
    return value;
}
