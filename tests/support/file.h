/* file.h - safetensors files as tests write and read them, without the service's own code.
 *
 * All of it fails the test rather than its caller. */
#ifndef TEST_FILE_H
#define TEST_FILE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/* Dimensions, ended by -1. */
#define SHAPE(...) ((const int64_t[]){__VA_ARGS__, -1})

struct test_writer {
    json_t *header; /* NULL: nothing yet */
    unsigned char *data;
    size_t size;
};
void test_write(struct test_writer *writer, const char *name, const char *dtype, const int64_t *shape,
                const void *data);
void test_write_f32(struct test_writer *writer, const char *name, const int64_t *shape, const float *data);
/* A text of __metadata__. */
void test_write_text(struct test_writer *writer, const char *name, const char *text);
/* The bytes of the file, malloc'ed; the writer is empty again. */
unsigned char *test_write_end(struct test_writer *writer, size_t *size);
/* A file of this very header, which may be nonsense, with `size` bytes behind it. */
unsigned char *test_file_of(const char *header, const void *data, size_t size, size_t *whole);

struct test_file {
    json_t *header;
    const unsigned char *data; /* behind the header */
    size_t size;
};
/* `bytes` are borrowed, and have to outlive the file. */
void test_file_open(struct test_file *file, const unsigned char *bytes, size_t size);
void test_file_close(struct test_file *file);
/* Elements of a tensor of this type, and how many; they may be unaligned. */
const void *test_file_tensor(const struct test_file *file, const char *name, const char *dtype, size_t *n);
/* Element i of a tensor of F32. */
float test_file_f32(const struct test_file *file, const char *name, size_t i);
const char *test_file_text(const struct test_file *file, const char *name);
size_t test_dtype_size(const char *dtype);

#endif
