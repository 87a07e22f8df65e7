/* file.c - see file.h. The format: 8 bytes of little-endian length, that much JSON, the tensors' bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "file.h"

size_t test_dtype_size(const char *dtype) {
    static const struct {
        const char *name;
        size_t size;
    } table[] = {{"F64", 8}, {"I64", 8},  {"F32", 4}, {"I32", 4},
                 {"F16", 2}, {"BF16", 2}, {"U8", 1},  {"BOOL", 1}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i].name, dtype) == 0) return table[i].size;
    fail_msg("no dtype %s", dtype);
    return 0;
}

/* --- writing ----------------------------------------------------------------------------------------- */

static json_t *header_of(struct test_writer *writer) {
    if (!writer->header) writer->header = json_object();
    assert_non_null(writer->header);
    return writer->header;
}

void test_write(struct test_writer *writer, const char *name, const char *dtype, const int64_t *shape,
                const void *data) {
    size_t size = test_dtype_size(dtype), end;
    json_t *dims = json_array();
    for (; *shape >= 0; shape++) {
        json_array_append_new(dims, json_integer(*shape));
        size *= (size_t)*shape;
    }
    writer->data = realloc(writer->data, writer->size + size + 1);
    assert_non_null(writer->data);
    memcpy(writer->data + writer->size, data, size);
    end = writer->size + size;
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", dims, "data_offsets",
                              (json_int_t)writer->size, (json_int_t)end);
    assert_int_equal(json_object_set_new(header_of(writer), name, entry), 0);
    writer->size = end;
}

void test_write_f32(struct test_writer *writer, const char *name, const int64_t *shape, const float *data) {
    test_write(writer, name, "F32", shape, data);
}

void test_write_text(struct test_writer *writer, const char *name, const char *text) {
    json_t *header = header_of(writer), *metadata = json_object_get(header, "__metadata__");
    if (!metadata) json_object_set_new(header, "__metadata__", metadata = json_object());
    assert_int_equal(json_object_set_new(metadata, name, json_string(text)), 0);
}

unsigned char *test_file_of(const char *header, const void *data, size_t size, size_t *whole) {
    uint64_t n = strlen(header);
    unsigned char *bytes = malloc(8 + n + size);
    assert_non_null(bytes);
    memcpy(bytes, &n, 8);
    memcpy(bytes + 8, header, n);
    if (size) memcpy(bytes + 8 + n, data, size);
    *whole = 8 + n + size;
    return bytes;
}

unsigned char *test_write_end(struct test_writer *writer, size_t *size) {
    char *header = json_dumps(header_of(writer), JSON_COMPACT);
    assert_non_null(header);
    unsigned char *bytes = test_file_of(header, writer->data, writer->size, size);
    free(header);
    json_decref(writer->header);
    free(writer->data);
    *writer = (struct test_writer){0};
    return bytes;
}

/* --- reading ----------------------------------------------------------------------------------------- */

void test_file_open(struct test_file *file, const unsigned char *bytes, size_t size) {
    uint64_t n;
    assert_in_range(size, 10, SIZE_MAX);
    memcpy(&n, bytes, 8);
    assert_in_range(n, 2, size - 8);
    file->header = json_loadb((const char *)bytes + 8, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(file->header);
    file->data = bytes + 8 + n;
    file->size = size - 8 - (size_t)n;
}

void test_file_close(struct test_file *file) { json_decref(file->header); }

const void *test_file_tensor(const struct test_file *file, const char *name, const char *dtype, size_t *n) {
    const char *own;
    json_int_t begin, end;
    const json_t *entry = json_object_get(file->header, name);
    if (!entry) fail_msg("the file has no tensor \"%s\"", name);
    assert_int_equal(json_unpack((json_t *)(uintptr_t)entry, "{s:s, s:[I, I]}", "dtype", &own, "data_offsets",
                                 &begin, &end),
                     0);
    assert_string_equal(own, dtype);
    assert_in_range(end, 0, file->size);
    assert_in_range(begin, 0, end);
    *n = (size_t)(end - begin) / test_dtype_size(dtype);
    return file->data + begin;
}

float test_file_f32(const struct test_file *file, const char *name, size_t i) {
    size_t n;
    float value;
    const unsigned char *data = test_file_tensor(file, name, "F32", &n);
    assert_in_range(i, 0, n - 1);
    memcpy(&value, data + i * sizeof value, sizeof value);
    return value;
}

const char *test_file_text(const struct test_file *file, const char *name) {
    const char *text =
        json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), name));
    if (!text) fail_msg("the file's metadata has no \"%s\"", name);
    return text;
}
