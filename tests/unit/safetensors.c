/* Safetensors files: what is read, what is refused, what is written, and memory that runs out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../../api/wire/safetensors.h"

/* A file of this header and `data` zeros, without a byte to spare behind it. */
static unsigned char *file_of(const char *header, size_t header_size, size_t data, size_t *size) {
    uint64_t n = header_size;
    *size = 8 + header_size + data;
    unsigned char *file = calloc(1, *size);
    assert_non_null(file);
    memcpy(file, &n, 8);
    if (header_size) memcpy(file + 8, header, header_size);
    return file;
}

static enum nn_code read_code(const void *body, size_t size) {
    struct nn_error err = {0};
    struct nn_arena *arena = nn_arena_new();
    struct api_safetensors file;
    int code = api_safetensors_read(body, size, arena, &file, &err);
    assert_int_equal(code, err.code);
    if (!code) api_safetensors_fini(&file);
    nn_arena_free(arena);
    return err.code;
}

#define TENSOR(name, type, shape, offsets)                                                                   \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

/* Header order is kept, and is not that of the data; members come in any order. */
static void reads(void **state) {
    (void)state;
    static const char header[] = "{" TENSOR(
        "b/\\u00e9\\ud83d\\ude00", "F32", "[2,1]",
        "[2,10]") ", \"__metadata__\" : { \"k\" : \"\\\"v\\n\" },"
                  " \"a\" :{\"data_offsets\": [ 0 , 2 ] , \"shape\":[],\"dtype\":\"BF16\"},\n" TENSOR(
                      "none", "I64", "[3,0,2]", "[2,2]") "}   ";
    size_t size;
    unsigned char *body = file_of(header, sizeof header - 1, 10, &size);
    struct nn_arena *arena = nn_arena_new();
    struct nn_error err = {0};
    struct api_safetensors file;
    assert_int_equal(api_safetensors_read(body, size, arena, &file, &err), NN_OK);
    assert_int_equal(file.n_tensors, 3);
    const unsigned char *data = body + 8 + sizeof header - 1;

    struct api_safetensors alone; /* the header: what comes first is first */
    assert_int_equal(api_safetensors_read_header(header, sizeof header - 1, 10, arena, &alone, &err), NN_OK);
    assert_int_equal(alone.n_tensors, 3);
    assert_string_equal(alone.tensors[0].name, "a");
    assert_string_equal(alone.tensors[1].name, "none");
    assert_string_equal(alone.tensors[2].name, "b/\xc3\xa9\xf0\x9f\x98\x80");
    for (int i = 0; i < 3; i++) assert_null(alone.tensors[i].data);
    assert_true(json_equal(alone.metadata, file.metadata));
    api_safetensors_fini(&alone);
    assert_int_equal(api_safetensors_read_header(header, sizeof header - 1, 11, arena, &alone, &err),
                     NN_E_MALFORMED);
    err = (struct nn_error){0};

    const struct api_tensor *b = &file.tensors[0], *a = &file.tensors[1], *none = &file.tensors[2];
    assert_string_equal(b->name, "b/\xc3\xa9\xf0\x9f\x98\x80");
    assert_string_equal(b->member, "");
    assert_true(nn_shape_equal(&b->shape, &(struct nn_shape){2, {2, 1}}));
    assert_int_equal(b->dtype, API_F32);
    assert_ptr_equal(b->data, data + 2);
    assert_null(b->json);
    assert_string_equal(a->name, "a");
    assert_int_equal(a->shape.rank, 0);
    assert_int_equal(a->dtype, API_BF16);
    assert_ptr_equal(a->data, data);
    assert_int_equal(none->shape.rank, 3);
    assert_int_equal(json_object_size(file.metadata), 1);
    assert_string_equal(json_string_value(json_object_get(file.metadata, "k")), "\"v\n");

    api_safetensors_fini(&file);
    nn_arena_free(arena);
    free(body);
}

#define HUGE "18446744073709551615"
static const struct {
    const char *header;
    size_t data;
    enum nn_code code;
} header_cases[] = {
    {"{}", 0, NN_OK},
    {"{ }  ", 0, NN_OK},
    {"{\"__metadata__\":{}}", 0, NN_OK},
    {"{" TENSOR("a", "U8", "[4]", "[0,4]") "}", 4, NN_OK},
    {"{" TENSOR("a", "U8", "[1,1,1,1,1,1,1,4]", "[0,4]") "}", 4, NN_OK},
    {"{" TENSOR("a", "U8", "[2]", "[2,4]") "," TENSOR("b", "U8", "[2]", "[0,2]") "}", 4, NN_OK},
    {"{" TENSOR("a", "U8", "[0]", "[2,2]") "," TENSOR("b", "U8", "[2]", "[0,2]") "}", 2, NN_OK},
    {"{" TENSOR("a", "U8", "[0]", "[0,0]") "," TENSOR("b", "U8", "[0]", "[0,0]") "}", 0, NN_OK},
    /* not JSON, or not this JSON */
    {"", 0, NN_E_MALFORMED},
    {" {}", 0, NN_E_MALFORMED},
    {"[]", 0, NN_E_MALFORMED},
    {"{}x", 0, NN_E_MALFORMED},
    {"{}{}", 0, NN_E_MALFORMED},
    {"{,}", 0, NN_E_MALFORMED},
    {"{\"a\"}", 0, NN_E_MALFORMED},
    {"{\"a\":1}", 0, NN_E_MALFORMED},
    {"{\"a\":{}}", 0, NN_E_MALFORMED},
    {"{a:1}", 0, NN_E_MALFORMED},
    {"{\"a", 0, NN_E_MALFORMED},
    {"{\"a\\", 0, NN_E_MALFORMED},
    {"{\"a\\\"", 0, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[4]", "[0,4]") ",}", 4, NN_E_MALFORMED},
    {"{" TENSOR("\xff", "U8", "[4]", "[0,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("\xed\xa0\x80", "U8", "[4]", "[0,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("\xc0\x80", "U8", "[4]", "[0,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("\xe2\x82", "U8", "[4]", "[0,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("\n", "U8", "[4]", "[0,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("\\u0000", "U8", "[4]", "[0,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("\\ud800", "U8", "[4]", "[0,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("\\udc00", "U8", "[4]", "[0,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("\\ud800\\u0041", "U8", "[4]", "[0,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("\\x", "U8", "[4]", "[0,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("\\u12", "U8", "[4]", "[0,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[4,]", "[0,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[4.0]", "[0,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[04]", "[0,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[-4]", "[0,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[[4]]", "[0,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "4", "[0,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[4]", "[4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[4]", "[0,4,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[4]", "[4,0]") "}", 4, NN_E_MALFORMED},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4]}}", 4, NN_E_MALFORMED},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"shape\":[4],\"data_offsets\":[0,4]}}", 4, NN_E_MALFORMED},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"extra\":1,\"data_offsets\":[0,4]}}", 4, NN_E_MALFORMED},
    {"{\"a\":{\"dtype\":8,\"shape\":[4],\"data_offsets\":[0,4]}}", 4, NN_E_MALFORMED},
    {"{\"__metadata__\":{\"a\":1}}", 0, NN_E_MALFORMED},
    {"{\"__metadata__\":{\"a\":{}}}", 0, NN_E_MALFORMED},
    {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, NN_E_MALFORMED},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, NN_E_MALFORMED},
    {"{\"__metadata__\":[]}", 0, NN_E_MALFORMED},
    /* not tiled */
    {"{}", 1, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[4]", "[0,4]") "}", 3, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[4]", "[0,4]") "}", 5, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[4]", "[1,5]") "}", 5, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[4]", "[0,3]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("a", "F32", "[4]", "[0,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[2]", "[0,2]") "," TENSOR("b", "U8", "[2]", "[1,3]") "}", 3, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[2]", "[0,2]") "," TENSOR("b", "U8", "[2]", "[0,2]") "}", 2, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[2]", "[0,2]") "," TENSOR("b", "U8", "[2]", "[3,5]") "}", 5, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[2]", "[0,2]") "," TENSOR("b", "U8", "[0]", "[1,1]") "}", 2, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[2]", "[0,2]") "," TENSOR("a", "U8", "[2]", "[2,4]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[0]", "[9,9]") "}", 0, NN_E_MALFORMED},
    /* others */
    {"{" TENSOR("a", "F8_E4M3", "[4]", "[0,4]") "}", 4, NN_E_DTYPE},
    {"{" TENSOR("a", "f32", "[1]", "[0,4]") "}", 4, NN_E_DTYPE},
    {"{" TENSOR("a", "U8", "[1,1,1,1,1,1,1,1,4]", "[0,4]") "}", 4, NN_E_SHAPE},
    {"{" TENSOR("a", "U8", "[" HUGE "]", "[0,4]") "}", 4, NN_E_SIZE},
    {"{" TENSOR("a", "U8", "[9223372036854775808]", "[0,4]") "}", 4, NN_E_SIZE},
    {"{" TENSOR("a", "U8", "[4294967296,4294967296]", "[0,0]") "}", 0, NN_E_SIZE},
    {"{" TENSOR("a", "U8", "[9223372036854775807,2]", "[0,0]") "}", 0, NN_E_SIZE},
    {"{" TENSOR("a", "U8", "[4]", "[" HUGE ",3]") "}", 4, NN_E_SIZE},
    {"{" TENSOR("a", "U8", "[4]", "[9223372036854775803,9223372036854775807]") "}", 4, NN_E_MALFORMED},
    {"{" TENSOR("a", "U8", "[2147483648]", "[0,2147483648]") "}", 4, NN_E_SIZE},
};

static void headers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof header_cases / sizeof *header_cases; i++) {
        size_t size;
        unsigned char *body =
            file_of(header_cases[i].header, strlen(header_cases[i].header), header_cases[i].data, &size);
        enum nn_code code = read_code(body, size);
        free(body);
        if (code != header_cases[i].code)
            fail_msg("%s: code %d, not %d", header_cases[i].header, code, header_cases[i].code);
    }
}

static void sizes(void **state) {
    (void)state;
    static const unsigned char seven[7] = {0}, eight[8] = {0},
                               huge[10] = {255, 255, 255, 255, 255, 255, 255, 255};
    assert_int_equal(read_code(NULL, 0), NN_E_MALFORMED);
    assert_int_equal(read_code(seven, 7), NN_E_MALFORMED);
    assert_int_equal(read_code(eight, 8), NN_E_MALFORMED);
    assert_int_equal(read_code(huge, 10), NN_E_MALFORMED);
}

static const char small[] = "{\"__metadata__\":{\"a\":\"\\u0041\"}," TENSOR(
    "x", "F16", "[1,2]", "[0,4]") "," TENSOR("y", "U8", "[3]", "[4,7]") "}";

static void truncations(void **state) {
    (void)state;
    size_t size;
    unsigned char *body = file_of(small, sizeof small - 1, 7, &size);
    assert_int_equal(read_code(body, size), NN_OK);
    for (size_t cut = 0; cut < size; cut++) {
        unsigned char *copy = malloc(cut ? cut : 1);
        assert_non_null(copy);
        memcpy(copy, body, cut);
        assert_int_equal(read_code(copy, cut), NN_E_MALFORMED);
        free(copy);
    }
    for (size_t cut = 1; cut < sizeof small - 1; cut++) { /* the size tells the truth, and the JSON ends */
        size_t part;
        unsigned char *copy = file_of(small, cut, 7, &part);
        assert_int_equal(read_code(copy, part), NN_E_MALFORMED);
        free(copy);
    }
    free(body);
}

static void mutations(void **state) {
    (void)state;
    size_t size;
    unsigned char *body = file_of(small, sizeof small - 1, 7, &size);
    for (size_t at = 0; at < 8 + sizeof small - 1; at++) {
        unsigned char kept = body[at];
        for (int byte = 0; byte < 256; byte++) {
            body[at] = (unsigned char)byte;
            read_code(body, size);
        }
        body[at] = kept;
    }
    free(body);
}

static void writes(void **state) {
    (void)state;
    const struct api_tensor_out tensors[] = {
        {"gradients", "0.weight", {2, {3, 2}}, API_F32},
        {"", "\"quoted\"\xc3\xa9", {0}, API_F64},
        {"outputs", "ids", {1, {5}}, API_I64},
    };
    json_t *metadata = json_pack("{s:s,s:s}", "model", "m", "text", "[\"a\\\n\"]");
    size_t header;
    unsigned char *bytes = api_safetensors_header(metadata, tensors, 3, &header);
    assert_non_null(bytes);
    assert_int_equal(header % 8, 0);
    assert_true(bytes[8] == '{');

    size_t size = header + 24 + 8 + 40;
    unsigned char *whole = realloc(bytes, size);
    assert_non_null(whole);
    bytes = whole;
    memset(bytes + header, 0, size - header);
    struct nn_arena *arena = nn_arena_new();
    struct nn_error err = {0};
    struct api_safetensors file;
    assert_int_equal(api_safetensors_read(bytes, size, arena, &file, &err), NN_OK);
    assert_int_equal(file.n_tensors, 3);
    assert_string_equal(file.tensors[0].name, "gradients/0.weight");
    assert_string_equal(file.tensors[1].name, "\"quoted\"\xc3\xa9");
    assert_ptr_equal(file.tensors[1].data, bytes + header + 24);
    assert_ptr_equal(file.tensors[2].data, bytes + header + 32);
    assert_true(nn_shape_equal(&file.tensors[2].shape, &tensors[2].shape));
    assert_true(json_equal(file.metadata, metadata));
    api_safetensors_fini(&file);
    nn_arena_free(arena);
    json_decref(metadata);
    free(bytes);

    bytes = api_safetensors_header(NULL, NULL, 0, &header);
    assert_non_null(bytes);
    assert_int_equal(header, 16);
    assert_memory_equal(bytes, "\x08\0\0\0\0\0\0\0{}      ", 16);
    free(bytes);
}

/* --- memory that runs out, in jansson's half ---------------------------------------------------- */

static int budget;

static void *limited_malloc(size_t size) { return budget-- > 0 ? malloc(size) : NULL; }

static void survives_without_memory(void **state) {
    (void)state;
    size_t size;
    unsigned char *body = file_of(small, sizeof small - 1, 7, &size);
    json_set_alloc_funcs(limited_malloc, free);
    enum nn_code code = NN_E_NOMEM;
    int n = 0;
    for (; code == NN_E_NOMEM && n < 100; n++) {
        budget = n;
        code = read_code(body, size);
    }
    json_set_alloc_funcs(malloc, free);
    assert_int_equal(code, NN_OK);
    assert_true(n > 3);
    free(body);
}

/* The digits that the examples train on, as another program wrote them. */
static void reads_a_real_file(void **state) {
    (void)state;
    FILE *f = fopen("examples/data/digits.safetensors", "rb");
    if (!f) skip();
    static unsigned char body[200000];
    size_t size = fread(body, 1, sizeof body, f);
    fclose(f);
    struct nn_arena *arena = nn_arena_new();
    struct nn_error err = {0};
    struct api_safetensors file;
    assert_int_equal(api_safetensors_read(body, size, arena, &file, &err), NN_OK);
    assert_int_equal(file.n_tensors, 2);
    static int64_t y[1797];
    assert_int_equal(api_tensor_convert(&file.tensors[0], NN_I64, y, &err), NN_OK);
    for (int i = 0; i < 1797; i++) assert_in_range(y[i], 0, 9);
    api_safetensors_fini(&file);
    nn_arena_free(arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads),
        cmocka_unit_test(headers),
        cmocka_unit_test(sizes),
        cmocka_unit_test(truncations),
        cmocka_unit_test(mutations),
        cmocka_unit_test(writes),
        cmocka_unit_test(survives_without_memory),
        cmocka_unit_test(reads_a_real_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
