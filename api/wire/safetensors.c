/* safetensors.c - reads and writes the safetensors format, strictly. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_read.h"
#include "json_string.h"
#include "safetensors.h"

#define PREFIX     API_SAFETENSORS_PREFIX
#define MAX_HEADER 100000000U /* bytes, as in the format's reference reader */
#define METADATA   "__metadata__"
#define SORTED     32 /* bytes per entry that qsort may allocate */

/* A tensor of the header while the header is read. */
struct entry {
    struct entry *next;
    struct api_tensor tensor;
    uint64_t begin, end; /* offsets in the data */
};

struct reader {
    const char *p, *end; /* the rest of the header */
    struct nn_arena *arena;
    struct nn_error *err;
    const struct api_limits *limits; /* NULL: no limits */
    json_t *metadata;                /* NULL until it was read */
    struct entry **tail;             /* where the next entry is linked, in the header's order */
    size_t n;
};

/* --- the header's JSON ------------------------------------------------------------------------- */

/* The header has one fixed structure, so this reader needs no JSON tree. A client chooses the header's size, and a tree
 * would take ten times as much memory. */

static int malformed(struct reader *r, const char *what) {
    return nn_fail(r->err, NN_E_MALFORMED, "%s in the safetensors header", what);
}

static int no_memory(struct reader *r) { return nn_fail(r->err, NN_E_NOMEM, "no memory for a header"); }

static void skip_space(struct reader *r) {
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\n' || *r->p == '\r' || *r->p == '\t')) r->p++;
}

/* Steps over white space, and over `c` if it is next. */
static bool accept(struct reader *r, char c) {
    skip_space(r);
    if (r->p == r->end || *r->p != c) return false;
    r->p++;
    return true;
}

/* NULL: an error, which is recorded. */
static char *read_string(struct reader *r) {
    if (accept(r, '"')) {
        r->p--;
        return api_json_string_read(&r->p, r->end, r->arena, r->err);
    }
    malformed(r, "something else than a string");
    return NULL;
}

/* Calls member() for each member of an object; the callee reads the member's value. */
static int read_object(struct reader *r, int (*member)(struct reader *r, const char *name, void *arg),
                       void *arg) {
    if (!accept(r, '{')) return malformed(r, "something else than an object");
    if (accept(r, '}')) return NN_OK;
    do {
        const char *name = read_string(r);
        if (!name) return (int)r->err->code;
        if (!accept(r, ':')) return malformed(r, "a member without a value");
        int code = member(r, name, arg);
        if (code) return code;
    } while (accept(r, ','));
    return accept(r, '}') ? NN_OK : malformed(r, "an object that does not end");
}

static bool at_digit(const struct reader *r) { return r->p < r->end && *r->p >= '0' && *r->p <= '9'; }

static int read_size(struct reader *r, uint64_t *out) {
    skip_space(r);
    const char *first = r->p;
    *out = 0;
    for (; at_digit(r); r->p++)
        if (__builtin_mul_overflow(*out, (uint64_t)10, out) ||
            __builtin_add_overflow(*out, (uint64_t)(*r->p - '0'), out) || *out > INT64_MAX)
            return nn_fail(r->err, NN_E_SIZE, "a size in the safetensors header is beyond 2^63");
    if (r->p == first || (*first == '0' && r->p - first > 1)) return malformed(r, "a size that is none");
    return NN_OK;
}

/* Reads an array of at most `room` sizes. `excess` is the error for a longer one. */
static int read_sizes(struct reader *r, uint64_t *out, int room, enum nn_code excess, int *n) {
    *n = 0;
    if (!accept(r, '[')) return malformed(r, "something else than an array");
    if (accept(r, ']')) return NN_OK;
    do {
        if (*n == room) return nn_fail(r->err, excess, "an array of the safetensors header is too long");
        int code = read_size(r, &out[(*n)++]);
        if (code) return code;
    } while (accept(r, ','));
    return accept(r, ']') ? NN_OK : malformed(r, "an array that does not end");
}

/* --- the header's entries ----------------------------------------------------------------------- */

static int read_metadata(struct reader *r, const char *name, void *arg) {
    (void)arg;
    const char *value = read_string(r);
    if (!value) return (int)r->err->code;
    if (json_object_get(r->metadata, name)) return malformed(r, "a duplicate member of " METADATA);
    if (r->limits && json_object_size(r->metadata) >= (size_t)r->limits->json_values)
        return nn_fail(r->err, NN_E_TOO_LARGE, METADATA " has at most %d members here",
                       r->limits->json_values);
    if (!nn_arena_count(r->arena, api_json_member_bytes(name, value))) return no_memory(r);
    return json_object_set_new(r->metadata, name, json_string(value)) ? no_memory(r) : NN_OK;
}

/* Reading one tensor's object: its entry, and which of its members were read. */
struct members {
    struct entry *entry;
    bool dtype, shape, offsets;
};

static int read_member(struct reader *r, const char *name, void *arg) {
    struct members *seen = arg;
    struct api_tensor *tensor = &seen->entry->tensor;
    bool *met = !strcmp(name, "dtype")          ? &seen->dtype
                : !strcmp(name, "shape")        ? &seen->shape
                : !strcmp(name, "data_offsets") ? &seen->offsets
                                                : NULL;
    if (!met || *met) return malformed(r, met ? "a duplicate member" : "an unknown member");
    *met = true;
    uint64_t sizes[NN_MAX_RANK];
    int n, code;
    if (met == &seen->dtype) {
        const char *type = read_string(r);
        if (!type) return (int)r->err->code;
        tensor->dtype = api_dtype_find(type);
        return tensor->dtype < API_DTYPES ? NN_OK : nn_fail(r->err, NN_E_DTYPE, "unknown dtype %.32s", type);
    }
    if (met == &seen->shape) {
        if ((code = read_sizes(r, sizes, r->limits ? r->limits->rank : NN_MAX_RANK, NN_E_SHAPE, &n)))
            return code;
        tensor->shape.rank = n;
        for (int i = 0; i < n; i++) tensor->shape.dim[i] = (int64_t)sizes[i];
        return NN_OK;
    }
    if ((code = read_sizes(r, sizes, 2, NN_E_MALFORMED, &n))) return code;
    if (n != 2) return malformed(r, "data_offsets other than [begin, end]");
    seen->entry->begin = sizes[0];
    seen->entry->end = sizes[1];
    return NN_OK;
}

/* The size of a tensor in bytes. The format allows dimensions of 0. */
static int tensor_bytes(const struct api_tensor *tensor, uint64_t *bytes, struct nn_error *err) {
    uint64_t n = 1;
    *bytes = 0;
    for (int i = 0; i < tensor->shape.rank; i++)
        if (__builtin_mul_overflow(n, (uint64_t)tensor->shape.dim[i], &n) || n > NN_MAX_ELEMENTS)
            return nn_fail(err, NN_E_SIZE, "tensor \"%.64s\" has more than %lld elements", tensor->name,
                           (long long)NN_MAX_ELEMENTS);
    *bytes = n * api_dtype_size(tensor->dtype);
    return NN_OK;
}

static int read_tensor(struct reader *r, const char *name) {
    if (r->limits && r->n >= (size_t)r->limits->tensors)
        return nn_fail(r->err, NN_E_TOO_LARGE, "a request has at most %d tensors here", r->limits->tensors);
    bool room = nn_arena_count(r->arena, SORTED);
    struct entry *entry = room ? nn_arena_alloc(r->arena, 1, sizeof *entry) : NULL;
    if (!entry) return no_memory(r);
    entry->tensor.member = "";
    entry->tensor.name = name;
    struct members seen = {.entry = entry};
    int code = read_object(r, read_member, &seen);
    if (code) return code;
    if (!seen.dtype || !seen.shape || !seen.offsets) return malformed(r, "a tensor that lacks a member");
    uint64_t bytes;
    if ((code = tensor_bytes(&entry->tensor, &bytes, r->err))) return code;
    if (entry->end < entry->begin || entry->end - entry->begin != bytes)
        return nn_fail(r->err, NN_E_MALFORMED, "tensor \"%.64s\": its offsets do not span its %llu bytes",
                       name, (unsigned long long)bytes);
    *r->tail = entry;
    r->tail = &entry->next;
    r->n++;
    return NN_OK;
}

static int read_entry(struct reader *r, const char *name, void *arg) {
    (void)arg;
    if (strcmp(name, METADATA) != 0) return read_tensor(r, name);
    if (r->metadata) return malformed(r, "a second " METADATA);
    if (!(r->metadata = json_object())) return no_memory(r);
    return read_object(r, read_metadata, NULL);
}

/* --- the whole file ---------------------------------------------------------------------------- */

static int by_offset(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end); /* empty tensors first */
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct entry *)a)->tensor.name, ((const struct entry *)b)->tensor.name);
}

/* Checks that names are unique and that the tensors tile the data, without gap or overlap. Leaves `entries` sorted by
 * offset. */
static int check_entries(struct entry *entries, size_t n, uint64_t data_size, struct nn_error *err) {
    qsort(entries, n, sizeof *entries, by_name);
    for (size_t i = 1; i < n; i++)
        if (by_name(&entries[i - 1], &entries[i]) == 0)
            return nn_fail(err, NN_E_MALFORMED, "two tensors are named \"%.64s\"", entries[i].tensor.name);
    qsort(entries, n, sizeof *entries, by_offset);
    uint64_t at = 0;
    for (size_t i = 0; i < n; at = entries[i++].end)
        if (entries[i].begin != at)
            return nn_fail(err, NN_E_MALFORMED, "tensor \"%.64s\" %s before it", entries[i].tensor.name,
                           entries[i].begin < at ? "overlaps the one" : "leaves a gap");
    if (at != data_size)
        return nn_fail(err, NN_E_MALFORMED, "the tensors take %llu bytes, and there are %llu",
                       (unsigned long long)at, (unsigned long long)data_size);
    return NN_OK;
}

/* A checked copy of the list, in the order of the data. NULL: an error. */
static struct entry *sort_entries(struct reader *r, const struct entry *first, uint64_t data_size) {
    struct entry *entries = nn_arena_alloc(r->arena, r->n, sizeof *entries);
    size_t n = 0;
    if (!entries) return no_memory(r), NULL;
    for (const struct entry *entry = first; entry; entry = entry->next) entries[n++] = *entry;
    return check_entries(entries, n, data_size, r->err) ? NULL : entries;
}

/* Fills in `out`: with `data`, tensors are in the header's order and point into it; without, in the order of their
 * data. */
static int take_entries(struct reader *r, const struct entry *first, const char *data, uint64_t data_size,
                        struct api_safetensors *out) {
    const struct entry *sorted = sort_entries(r, first, data_size);
    struct api_tensor *tensors = sorted ? nn_arena_alloc(r->arena, r->n, sizeof *tensors) : NULL;
    if (!sorted) return (int)r->err->code;
    if (!tensors) return no_memory(r);
    for (size_t i = 0; i < r->n; i++, first = first->next) {
        tensors[i] = data ? first->tensor : sorted[i].tensor;
        if (data) tensors[i].data = data + first->begin;
    }
    *out = (struct api_safetensors){r->metadata, tensors, r->n};
    return NN_OK;
}

static int read_header(struct reader *r) {
    if (r->p == r->end || *r->p != '{') return malformed(r, "no object");
    int code = read_object(r, read_entry, NULL);
    if (code) return code;
    skip_space(r);
    if (r->p != r->end) return malformed(r, "something behind the object");
    if (!r->metadata && !(r->metadata = json_object())) return no_memory(r);
    return NN_OK;
}

static int read_all(const char *header, size_t size, const char *data, uint64_t data_size,
                    const struct api_limits *limits, struct nn_arena *arena, struct api_safetensors *out,
                    struct nn_error *err) {
    struct entry *first = NULL;
    struct reader r = {
        .p = header, .end = header + size, .arena = arena, .err = err, .limits = limits, .tail = &first};
    *out = (struct api_safetensors){0};
    int code = read_header(&r);
    if (!code) code = take_entries(&r, first, data, data_size, out);
    if (code) json_decref(r.metadata);
    return code;
}

int api_safetensors_header_size(const void *prefix, uint64_t size, size_t *header, struct nn_error *err) {
    uint64_t announced;
    if (size < PREFIX) return nn_fail(err, NN_E_MALFORMED, "a safetensors file has at least 8 bytes");
    memcpy(&announced, prefix, PREFIX);
    if (announced > size - PREFIX)
        return nn_fail(err, NN_E_MALFORMED, "the safetensors header is cut off: %llu bytes announced",
                       (unsigned long long)announced);
    if (announced > MAX_HEADER)
        return nn_fail(err, NN_E_SIZE, "a safetensors header has at most %u bytes", MAX_HEADER);
    *header = (size_t)announced;
    return NN_OK;
}

int api_safetensors_read(const void *body, size_t size, struct nn_arena *arena, struct api_safetensors *out,
                         struct nn_error *err) {
    return api_safetensors_read_within(body, size, NULL, arena, out, err);
}

int api_safetensors_read_within(const void *body, size_t size, const struct api_limits *limits,
                                struct nn_arena *arena, struct api_safetensors *out, struct nn_error *err) {
    const char *bytes = body;
    size_t header = 0;
    *out = (struct api_safetensors){0};
    int code = api_safetensors_header_size(bytes, size, &header, err);
    if (code) return code;
    return read_all(bytes + PREFIX, header, bytes + PREFIX + header, size - PREFIX - header, limits, arena,
                    out, err);
}

int api_safetensors_read_header(const void *header, size_t size, uint64_t data_size, struct nn_arena *arena,
                                struct api_safetensors *out, struct nn_error *err) {
    return read_all(header, size, NULL, data_size, NULL, arena, out, err);
}

void api_safetensors_fini(struct api_safetensors *file) {
    json_decref(file->metadata);
    *file = (struct api_safetensors){0};
}

/* --- writing ----------------------------------------------------------------------------------- */

static void add_metadata(struct api_text *text, const json_t *metadata) {
    const char *name;
    json_t *value;
    bool first = true;
    api_text_puts(text, "\"" METADATA "\":{");
    json_object_foreach((json_t *)metadata, name, value) {
        if (!first) api_text_puts(text, ",");
        first = false;
        api_text_quote(text, name);
        api_text_puts(text, ":");
        assert(json_is_string(value));
        api_text_quote(text, json_string_value(value));
    }
    api_text_puts(text, "}");
}

static void add_number(struct api_text *text, const char *before, uint64_t number) {
    char digits[24];
    int size = snprintf(digits, sizeof digits, "%llu", (unsigned long long)number);
    api_text_puts(text, before);
    api_text_add(text, digits, (size_t)size);
}

/* Adds a tensor's full name as a JSON string. `path` is scratch memory that calls share. */
static void add_path(struct api_text *text, const struct api_tensor_out *tensor, struct api_text *path) {
    path->size = 0;
    api_text_puts(path, tensor->member);
    if (*tensor->member) api_text_puts(path, "/");
    api_text_puts(path, tensor->name);
    api_text_add(path, "", 1);
    if (path->failed)
        text->failed = true;
    else
        api_text_quote(text, path->data);
}

static void add_tensor(struct api_text *text, const struct api_tensor_out *tensor, uint64_t *at) {
    api_text_puts(text, ":{\"dtype\":\"");
    api_text_puts(text, api_dtype_name(tensor->dtype));
    api_text_puts(text, "\",\"shape\":[");
    for (int i = 0; i < tensor->shape.rank; i++)
        add_number(text, i ? "," : "", (uint64_t)tensor->shape.dim[i]);
    add_number(text, "],\"data_offsets\":[", *at);
    *at += (uint64_t)nn_shape_elements(&tensor->shape) * api_dtype_size(tensor->dtype);
    add_number(text, ",", *at);
    api_text_puts(text, "]}");
}

void *api_safetensors_header(const json_t *metadata, const struct api_tensor_out *tensors, size_t n,
                             size_t *size) {
    struct api_text text = {0}, path = {0};
    uint64_t at = 0, header;
    api_text_add(&text, "\0\0\0\0\0\0\0", PREFIX);
    api_text_puts(&text, "{");
    if (metadata) add_metadata(&text, metadata);
    for (size_t i = 0; i < n; i++) {
        if (i || metadata) api_text_puts(&text, ",");
        add_path(&text, &tensors[i], &path);
        add_tensor(&text, &tensors[i], &at);
    }
    api_text_puts(&text, "}");
    while (!text.failed && text.size % 8) api_text_puts(&text, " ");
    api_text_free(&path);
    if (text.failed) {
        api_text_free(&text);
        return NULL;
    }
    header = text.size - PREFIX;
    memcpy(text.data, &header, PREFIX);
    *size = text.size;
    return text.data;
}
