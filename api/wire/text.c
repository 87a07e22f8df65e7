/* text.c - text that grows, and JSON written into it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decimal.h"
#include "json_string.h"
#include "tensor.h"

/* Makes room for `size` more bytes; returns where they go. NULL: memory is out, or was out before. */
static char *grow(struct api_text *text, size_t size) {
    if (text->failed) return NULL;
    if (text->room - text->size < size) {
        size_t room;
        if (__builtin_add_overflow(text->size, size, &room))
            room = SIZE_MAX;
        else if (room < 2 * text->room)
            room = 2 * text->room;
        if (room < 256) room = 256;
        char *data = room < SIZE_MAX / 2 ? realloc(text->data, room) : NULL;
        if (!data) {
            text->failed = true;
            return NULL;
        }
        text->data = data;
        text->room = room;
    }
    return text->data + text->size;
}

void api_text_add(struct api_text *text, const char *bytes, size_t size) {
    char *p = size ? grow(text, size) : NULL;
    if (!p) return;
    memcpy(p, bytes, size);
    text->size += size;
}

void api_text_puts(struct api_text *text, const char *string) { api_text_add(text, string, strlen(string)); }

void api_text_free(struct api_text *text) {
    free(text->data);
    *text = (struct api_text){0};
}

/* --- strings ----------------------------------------------------------------------------------- */

static void add_escape(struct api_text *text, unsigned char c) {
    static const char letters[] = "\"\\bfnrt", meanings[] = "\"\\\b\f\n\r\t";
    const char *meaning = c ? strchr(meanings, c) : NULL;
    char escape[8];
    int size = meaning ? snprintf(escape, sizeof escape, "\\%c", letters[meaning - meanings])
                       : snprintf(escape, sizeof escape, "\\u%04x", (unsigned)c);
    api_text_add(text, escape, (size_t)size);
}

void api_text_quote(struct api_text *text, const char *string) {
    const char *p = string, *end = p + strlen(p);
    api_text_puts(text, "\"");
    while (p < end) {
        const char *plain = p;
        size_t size = 1;
        while (p < end && (unsigned char)*p >= 0x20 && *p != '"' && *p != '\\' &&
               (size = api_utf8_size(p, end)))
            p += size;
        api_text_add(text, plain, (size_t)(p - plain));
        if (p == end) break;
        if (size)
            add_escape(text, (unsigned char)*p);
        else
            api_text_puts(text, "\\ufffd");
        p++;
    }
    api_text_puts(text, "\"");
}

size_t api_text_quote_bound(const char *string) {
    size_t bytes = 2;
    for (const unsigned char *c = (const unsigned char *)string; *c; c++)
        bytes += *c < 0x20 || *c >= 0x80 ? 6 : *c == '"' || *c == '\\' ? 2 : 1;
    return bytes;
}

/* --- numbers ----------------------------------------------------------------------------------- */

#define NUMBER_ROOM (API_DECIMAL_ROOM + 1) /* with a comma */

static size_t print_not_finite(double x, char *out) {
    const char *name = __builtin_isnan(x) ? "\"NaN\"" : x > 0 ? "\"Infinity\"" : "\"-Infinity\"";
    size_t size = strlen(name);
    memcpy(out, name, size);
    return size;
}

static inline size_t print_f64(double x, char *out) {
    return __builtin_isfinite(x) ? api_decimal_from_f64(x, out) : print_not_finite(x, out);
}

static inline size_t print_f32(float x, char *out) {
    return __builtin_isfinite(x) ? api_decimal_from_f32(x, out) : print_not_finite((double)x, out);
}

static inline size_t print_i64(int64_t x, char *out) { return api_decimal_from_i64(x, out); }

/* Writes numbers with a comma behind each. The caller has made room. Returns their end. */
#define PRINT_ALL(name, type)                                                                                \
    static char *print_all_##name(const void *data, int64_t first, int64_t n, char *out) {                   \
        for (const type *x = (const type *)data + first, *end = x + n; x < end; *out++ = ',')                \
            out += print_##name(*x++, out);                                                                  \
        return out;                                                                                          \
    }
PRINT_ALL(f32, float)
PRINT_ALL(f64, double)
PRINT_ALL(i64, int64_t)

/* --- arrays ------------------------------------------------------------------------------------ */

typedef char *print_all(const void *data, int64_t first, int64_t n, char *out);

static void add_numbers(struct api_text *text, print_all *print, const void *data, int64_t first, int64_t n) {
    if (!n) return;
    while (n) {
        char *p = grow(text, NUMBER_ROOM);
        if (!p) return;
        int64_t fit = (int64_t)((text->room - text->size) / NUMBER_ROOM), part = n < fit ? n : fit;
        text->size += (size_t)(print(data, first, part, p) - p);
        first += part;
        n -= part;
    }
    text->size--; /* removes the last comma */
}

/* The number of brackets that open in front of a row (a list of the innermost dimension). As many close behind the row
 * before it. */
static int brackets(const struct nn_shape *shape, int rank, int64_t row) {
    int64_t rows = 1;
    int n = 1;
    for (int i = rank - 2; i >= 0 && row % (rows *= shape->dim[i]) == 0; i--) n++;
    return n;
}

static void add_nested(struct api_text *text, print_all *print, const void *data,
                       const struct nn_shape *shape) {
    int rank = 1; /* dimensions behind one of 0 are not written */
    int64_t rows = 1;
    for (; rank < shape->rank && shape->dim[rank - 1]; rank++) rows *= shape->dim[rank - 1];
    int64_t n = shape->dim[rank - 1];
    for (int64_t row = 0; row < rows && !text->failed; row++) {
        if (row) api_text_puts(text, ",");
        for (int i = brackets(shape, rank, row); i > 0; i--) api_text_puts(text, "[");
        add_numbers(text, print, data, row * n, n);
        for (int i = brackets(shape, rank, row + 1); i > 0; i--) api_text_puts(text, "]");
    }
}

void api_text_array(struct api_text *text, const void *data, enum nn_dtype dtype,
                    const struct nn_shape *shape) {
    static print_all *const prints[] = {
        [NN_F32] = print_all_f32, [NN_F64] = print_all_f64, [NN_I64] = print_all_i64};
    if (shape->rank)
        add_nested(text, prints[dtype], data, shape);
    else
        add_numbers(text, prints[dtype], data, 0, 1);
}

size_t api_text_array_bound(enum nn_dtype dtype, const struct nn_shape *shape) {
    static const size_t sizes[] = {
        [NN_F32] = API_DECIMAL_F32_SIZE, [NN_F64] = API_DECIMAL_F64_SIZE, [NN_I64] = API_DECIMAL_I64_SIZE};
    size_t bytes = (sizes[dtype] + 1) * (size_t)nn_shape_elements(shape), arrays = 1;
    for (int i = 0; i < shape->rank; i++) {
        bytes += 3 * arrays; /* brackets and a comma */
        arrays *= (size_t)shape->dim[i];
    }
    return bytes;
}
