/* members.c - reads what a request asks: the members of its document, and those of its query, into request->ask. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "request.h"

int api_point(struct api_request *request, const char *member, const char *name) {
    if (!request->pointer.text[0]) {
        api_pointer_add(&request->pointer, member);
        if (name) api_pointer_add(&request->pointer, name);
    }
    return (int)request->err.code;
}

static const size_t offsets[API_MEMBERS] = {
#define API_MEMBER(name, kind, field, ...) offsetof(struct api_ask, field),
#include "../wire/members.def"
#undef API_MEMBER
};

static void *field_at(struct api_ask *ask, int row) { return (char *)ask + offsets[row]; }
static void *field_of(struct api_request *request, int row) { return field_at(&request->ask, row); }

void api_ask_init(struct api_ask *ask) {
    *ask = (struct api_ask){0};
    for (int row = 0; row < API_MEMBERS; row++) {
        const struct api_member *member = &api_members[row];
        if (member->kind == API_INTEGER) *(int64_t *)field_at(ask, row) = (int64_t)member->absent;
        if (member->kind == API_REAL) *(double *)field_at(ask, row) = member->absent;
        if (member->kind == API_SWITCH) ((struct api_switch *)field_at(ask, row))->value = member->absent;
    }
}

bool api_is_given(const struct api_request *request, int member) { return request->ask.given >> member & 1; }

int api_ask_wrong(struct api_request *request, int member, const char *is) {
    nn_fail(&request->err, NN_E_VALUE, "\"%s\" must be %s", api_members[member].name, is);
    return api_point(request, api_members[member].name, NULL);
}

const char *api_asked_model(const struct api_request *request) {
    return json_string_value(request->ask.model);
}

/* --- one kind each ------------------------------------------------------------------------------------ */

static bool is_within(const struct api_member *member, double value) {
    return isfinite(value) && value >= member->least && value <= member->most;
}

/* " from 0 to 1e+30"; "" where any number will do. */
static const char *range_of(const struct api_member *member, char text[64]) {
    text[0] = '\0';
    if (isfinite(member->most)) snprintf(text, 64, " from %.17g to %.17g", member->least, member->most);
    return text;
}

static int read_text(struct api_request *request, int row, const json_t *value) {
    const struct api_member *member = &api_members[row];
    const char *text = json_string_value(value);
    if (!text) return api_ask_wrong(request, row, "a string");
    *(const char **)field_of(request, row) = text;
    if (member->kind == API_NAME && !nn_name_valid(text)) {
        nn_fail(&request->err, NN_E_NAME, "a %s is named as layers are", member->name);
        return api_point(request, member->name, NULL);
    }
    if (member->kind != API_CHOICE || api_among(member->words, text, strlen(text))) return NN_OK;
    nn_fail(&request->err, NN_E_VALUE, "\"%s\" is one of: %s", member->name, member->words);
    return api_point(request, member->name, NULL);
}

/* Sets a bit for each word of the list. */
static int read_choices(struct api_request *request, int row, const json_t *value) {
    const struct api_member *member = &api_members[row];
    unsigned *bits = field_of(request, row);
    bool known = json_is_array(value);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const char *text = json_string_value(json_array_get(value, i)), *words = member->words;
        unsigned bit = 1;
        for (; text && *words; bit <<= 1, words += strcspn(words, " "), words += *words == ' ')
            if (strcspn(words, " ") == strlen(text) && strncmp(words, text, strlen(text)) == 0) break;
        known &= text && *words;
        *bits |= bit;
    }
    if (known) return NN_OK;
    nn_fail(&request->err, NN_E_VALUE, "\"%s\" must be a list of: %s", member->name, member->words);
    return api_point(request, member->name, NULL);
}

static int read_flag(struct api_request *request, int row, const json_t *value) {
    *(bool *)field_of(request, row) = json_is_true(value);
    return json_is_boolean(value) ? NN_OK : api_ask_wrong(request, row, "true or false");
}

static int read_number(struct api_request *request, int row, const json_t *value) {
    const struct api_member *member = &api_members[row];
    const bool whole = member->kind == API_INTEGER;
    char range[64];
    if (whole)
        *(int64_t *)field_of(request, row) = json_integer_value(value);
    else
        *(double *)field_of(request, row) = json_number_value(value);
    if ((whole ? json_is_integer(value) : json_is_number(value)) &&
        is_within(member, json_number_value(value)))
        return NN_OK;
    nn_fail(&request->err, NN_E_VALUE, "\"%s\" must be %s%s", member->name, whole ? "an integer" : "a number",
            range_of(member, range));
    return api_point(request, member->name, NULL);
}

static int read_switch(struct api_request *request, int row, const json_t *value) {
    const struct api_member *member = &api_members[row];
    struct api_switch *option = field_of(request, row);
    const json_t *number = json_object_get(value, member->words);
    const char *name;
    json_t *any;
    char range[64];
    option->on = !json_is_false(value);
    if (json_is_boolean(value)) return NN_OK;
    json_object_foreach((json_t *)value, name, any) {
        if (strcmp(name, member->words) == 0) continue;
        nn_fail(&request->err, NN_E_UNKNOWN_MEMBER, "\"%s\" takes: %s", member->name, member->words);
        return api_point(request, member->name, name);
    }
    option->value = json_number_value(number);
    if (json_is_number(number) && is_within(member, option->value)) return NN_OK;
    nn_fail(&request->err, NN_E_VALUE, "\"%s\" must be true, false, or {\"%s\": a number%s}", member->name,
            member->words, range_of(member, range));
    return api_point(request, member->name, NULL);
}

static int read_value(struct api_request *request, int row, const json_t *value) {
    *(const json_t **)field_of(request, row) = value;
    return NN_OK;
}

static int read_model(struct api_request *request, int row, const json_t *value) {
    if (json_is_string(value) || json_is_object(value)) return read_value(request, row, value);
    return api_ask_wrong(request, row, "a model's name, or a specification");
}

/* Maps of tensors are not among the document's members: document.c has taken them. */
static int read_tensors(struct api_request *request, int row, const json_t *value) {
    (void)value;
    *(bool *)field_of(request, row) = true;
    return NN_OK;
}

static int (*const readers[])(struct api_request *request, int row, const json_t *value) = {
    [API_TEXT] = read_text,      [API_TEXTS] = read_text,      [API_NAME] = read_text,
    [API_CHOICE] = read_text,    [API_CHOICES] = read_choices, [API_FLAG] = read_flag,
    [API_INTEGER] = read_number, [API_REAL] = read_number,     [API_SWITCH] = read_switch,
    [API_MODEL] = read_model,    [API_VALUE] = read_value,     [API_TENSORS] = read_tensors,
};

/* --- the document ------------------------------------------------------------------------------------- */

static int check_required(struct api_request *request) {
    for (const char *words = request->route->requires; *words; words += *words == ' ') {
        const size_t size = strcspn(words, " ");
        const struct api_member *member = api_member_find(words, size);
        words += size;
        if (api_is_given(request, (int)(member - api_members))) continue;
        nn_fail(&request->err, NN_E_VALUE, "\"%s\" must be given: %s", member->name, member->prose);
        return api_point(request, member->name, NULL);
    }
    return NN_OK;
}

/* A wrong value in a record counts as absent: earlier releases did not look at members that their handler did not use,
 * such as "version" beside parameters that are set, and the record must stay readable. */
static int read_member(struct api_request *request, int row, const json_t *value) {
    const struct api_ask before = request->ask;
    request->ask.given |= UINT64_C(1) << row;
    if (readers[api_members[row].kind](request, row, value) == NN_OK || !request->replay)
        return (int)request->err.code;
    request->ask = before;
    request->err = (struct nn_error){0};
    request->pointer = (struct api_pointer){0};
    return NN_OK;
}

/* Of a specification, spec.c reads all but the members that the route requires. */
static int read_members(struct api_request *request) {
    const bool all = request->route->body != API_SPECIFICATION;
    for (int row = 0; row < API_MEMBERS; row++) {
        const char *name = api_members[row].name;
        const json_t *value = json_object_get(request->doc.members, name);
        if (!value && !api_document_has(&request->doc, name)) continue;
        if (!all && !api_among(request->route->requires, name, strlen(name))) continue;
        if (read_member(request, row, value)) return (int)request->err.code;
    }
    return NN_OK;
}

enum api_dtype api_result_dtype(const struct api_request *request, enum nn_dtype dtype) {
    return request->ask.dtype ? api_dtype_find(request->ask.dtype) : api_dtype_of(dtype);
}

/* --- the query ------------------------------------------------------------------------------------- */

/* Splits the next name=value off the query. False: there is none. */
static bool next_part(const char **query, const char **name, size_t *name_size, const char **value,
                      size_t *value_size) {
    const char *at = *query;
    if (!at || !*at) return false;
    size_t size = strcspn(at, "&");
    const char *equals = memchr(at, '=', size);
    *name = at;
    *name_size = equals ? (size_t)(equals - at) : size;
    *value = equals ? equals + 1 : at + size;
    *value_size = size - (size_t)(*value - at);
    *query = at + size + (at[size] == '&');
    return true;
}

/* True if another part of the query has this name. */
static bool comes_again(const char *left, const char *name, size_t size) {
    const char *other, *value;
    size_t other_size, value_size;
    while (next_part(&left, &other, &other_size, &value, &value_size))
        if (other_size == size && memcmp(other, name, size) == 0) return true;
    return false;
}

/* Refuses a name that the route does not take, and a second value of a member that takes one. */
static int check_names(struct api_request *request) {
    const char *left = request->query, *name, *value, *known = request->route->query;
    size_t name_size, value_size;
    while (next_part(&left, &name, &name_size, &value, &value_size)) {
        if (!api_among(known, name, name_size))
            return nn_fail(&request->err, NN_E_UNKNOWN_MEMBER, "the query has no \"%.*s\" here",
                           (int)(name_size < 64 ? name_size : 64), name);
        bool once = api_member_find(name, name_size)->kind != API_TEXTS &&
                    !request->replay; /* earlier releases took two */
        if (once && comes_again(left, name, name_size))
            return nn_fail(&request->err, NN_E_MALFORMED,
                           "the query has \"%.*s\" twice, and it takes one value", (int)name_size, name);
    }
    return NN_OK;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Decodes in place. A '%' without two digits stays, and %00 stays, because it would end the text. */
static void decode_percent(char *text) {
    char *to = text;
    for (const char *c = text; *c; c++) {
        int high = *c == '%' ? hex_digit(c[1]) : -1, low = high < 0 ? -1 : hex_digit(c[2]);
        bool escape = low >= 0 && (high || low);
        *to++ = escape ? (char)(high * 16 + low) : *c;
        if (escape) c += 2;
    }
    *to = '\0';
}

/* The value of a member in the query, percent-decoded, in the arena. Several values of a list are joined by commas.
 * *value is NULL where the member is absent. */
static int find_text(struct api_request *request, const struct api_member *member, const char **value) {
    const char *left = request->query, *name, *text;
    size_t name_size, text_size, used = 0;
    char *all = NULL;
    *value = NULL;
    while (next_part(&left, &name, &name_size, &text, &text_size)) {
        if (strlen(member->name) != name_size || memcmp(name, member->name, name_size) != 0) continue;
        if (!all && !(all = nn_arena_alloc(request->arena, strlen(request->query) + 1, 1)))
            return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
        *value = all;
        if (used && text_size) all[used++] = ',';
        memcpy(all + used, text, text_size);
        all[used + text_size] = '\0';
        decode_percent(all + used);
        used += strlen(all + used);
        if (member->kind != API_TEXTS) break;
    }
    return NN_OK;
}

/* A query has strings, choices and flags. */
static int set_text(struct api_request *request, int row, const char *text) {
    const struct api_member *member = &api_members[row];
    request->ask.given |= UINT64_C(1) << row;
    if (member->kind == API_FLAG) {
        bool *flag = field_of(request, row);
        *flag = strcmp(text, "true") == 0;
        if (*flag || strcmp(text, "false") == 0) return NN_OK;
        return nn_fail(&request->err, NN_E_VALUE, "?%s= is true or false", member->name);
    }
    *(const char **)field_of(request, row) = text;
    if (member->kind != API_CHOICE || api_among(member->words, text, strlen(text))) return NN_OK;
    return nn_fail(&request->err, NN_E_VALUE, "?%s= is one of: %s", member->name, member->words);
}

static int read_query(struct api_request *request) {
    const char *wanted = request->route->query, *text;
    if (!request->query || wanted[0] == '*') return NN_OK;
    if (check_names(request)) return (int)request->err.code;
    for (int row = 0; row < API_MEMBERS; row++) {
        const struct api_member *member = &api_members[row];
        if (!api_among(wanted, member->name, strlen(member->name))) continue;
        if (find_text(request, member, &text) || (text && set_text(request, row, text)))
            return (int)request->err.code;
    }
    return NN_OK;
}

int api_ask_read(struct api_request *request) {
    if (read_query(request)) return (int)request->err.code;
    if (API_HAS_BODY(request->route->body) && read_members(request) == NN_OK) check_required(request);
    return (int)request->err.code;
}

/* --- names ------------------------------------------------------------------------------------------ */

bool api_model_name_valid(const char *name) {
    static const char allowed[] = "-._0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    size_t length = strlen(name);
    return length >= 1 && length <= API_MAX_MODEL_NAME && strspn(name, allowed) == length &&
           !strchr("-._", name[0]);
}
