/* Bad safetensors: truncated, overlapping, with gaps, of other types, too large, not finite; and documents
 * that only this encoding can get wrong. Each gets its problem, and the daemon lives on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../support/e2e.h"

static int setup(void **state) {
    service_setup(state);
    ask(201, "POST", "/models",
        "{'name': 'm', 'seed': 1, 'inputs': {'x': {'shape': [3]}}, 'layers': [{'op': 'linear', "
        "'out_features': 2, 'name': 'out'}], 'loss': {'op': 'cross_entropy'}, 'optimizer': {'op': 'sgd', "
        "'lr': 1}}");
    return 0;
}

static const struct http_answer *post(int status, const char *path, const void *body, size_t size) {
    return service_call(status,
                        &(struct http_request){
                            .method = "POST", .path = path, .type = FILE_TYPE, .body = body, .size = size});
}

#define META "'__metadata__': {'model': 'm'}, "
#define TENSOR(type, shape, offsets)                                                                         \
    "'inputs/x': {'dtype': '" type "', 'shape': " shape ", 'data_offsets': " offsets "}"

static void headers(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t size; /* of the data: zeros */
        int status;
        const char *slug, *pointer;
    } cases[] = {
        {"{" META TENSOR("F32", "[1, 3]", "[0, 12]") "}", 12, 200, NULL, NULL},
        {"", 0, 400, "malformed", NULL},
        {"{", 0, 400, "malformed", NULL},
        {"[]", 0, 400, "malformed", NULL},
        {"{'a': 1}", 0, 400, "malformed", NULL},
        {"{" META TENSOR("F32", "[1, 3]", "[0, 12]"), 12, 400, "malformed", NULL},
        {"{" META TENSOR("F32", "[1, 3]", "[0, 12]") "} x", 12, 400, "malformed", NULL},
        /* truncated, too long, of the wrong length */
        {"{" META TENSOR("F32", "[1, 3]", "[0, 12]") "}", 11, 400, "malformed", NULL},
        {"{" META TENSOR("F32", "[1, 3]", "[0, 12]") "}", 0, 400, "malformed", NULL},
        {"{" META TENSOR("F32", "[1, 3]", "[0, 12]") "}", 13, 400, "malformed", NULL},
        {"{" META TENSOR("F32", "[1, 3]", "[0, 8]") "}", 8, 400, "malformed", NULL},
        {"{" META TENSOR("F32", "[1, 4]", "[0, 12]") "}", 12, 400, "malformed", NULL},
        {"{" META TENSOR("F32", "[1, 3]", "[12, 0]") "}", 12, 400, "malformed", NULL},
        {"{" META TENSOR("F32", "[1, 3]", "[-12, 0]") "}", 12, 400, "malformed", NULL},
        {"{" META TENSOR("F32", "[1, 3]", "[0.0, 12.0]") "}", 12, 400, "malformed", NULL},
        {"{" META TENSOR("F32", "[1, 3]", "[9223372036854775795, 9223372036854775807]") "}", 12, 400,
         "malformed", NULL},
        /* gaps and overlaps */
        {"{" META TENSOR("F32", "[1, 3]", "[4, 16]") "}", 16, 400, "malformed", NULL},
        {"{" META TENSOR("F32", "[1, 3]", "[0, 12]") ", 'inputs/z': {'dtype': 'F32', 'shape': [1], "
                                                     "'data_offsets': [16, 20]}}",
         20, 400, "malformed", NULL},
        {"{" META TENSOR("F32", "[1, 3]", "[0, 12]") ", 'inputs/z': {'dtype': 'F32', 'shape': [1], "
                                                     "'data_offsets': [8, 12]}}",
         12, 400, "malformed", NULL},
        {"{" META TENSOR("F32", "[1, 3]", "[0, 12]") ", 'inputs/z': {'dtype': 'F32', 'shape': [1, 3], "
                                                     "'data_offsets': [0, 12]}}",
         12, 400, "malformed", NULL},
        /* twice */
        {"{" META TENSOR("F32", "[1, 3]", "[0, 12]") ", " TENSOR("F32", "[1, 3]", "[12, 24]") "}", 24, 400,
         "malformed", NULL},
        {"{" META META TENSOR("F32", "[1, 3]", "[0, 12]") "}", 12, 400, "malformed", NULL},
        {"{'__metadata__': {'model': 'm', 'model': 'm'}, " TENSOR("F32", "[1, 3]", "[0, 12]") "}", 12, 400,
         "malformed", NULL},
        {"{'__metadata__': {'model': 1}, " TENSOR("F32", "[1, 3]", "[0, 12]") "}", 12, 400, "malformed",
         NULL},
        /* types and sizes */
        {"{" META TENSOR("F8_E4M3", "[1, 3]", "[0, 3]") "}", 3, 422, "dtype-mismatch", NULL},
        {"{" META TENSOR("float", "[1, 3]", "[0, 12]") "}", 12, 422, "dtype-mismatch", NULL},
        {"{" META TENSOR("F32", "[1000000000, 1000000000]", "[0, 12]") "}", 12, 422, "size-overflow", NULL},
        {"{" META TENSOR("F32", "[4294967296, 4294967296]", "[0, 0]") "}", 0, 422, "size-overflow", NULL},
        {"{" META TENSOR("F32", "[18446744073709551615]", "[0, 12]") "}", 12, 422, "size-overflow", NULL},
        {"{" META TENSOR("F32", "[1, 1, 1, 1, 1, 1, 1, 1, 3]", "[0, 12]") "}", 12, 422, "shape-mismatch",
         NULL},
        {"{" META TENSOR("F32", "[3]", "[0, 12]") "}", 12, 422, "shape-mismatch", "/inputs/x"},
        {"{" META TENSOR("F32", "[0, 3]", "[0, 0]") "}", 0, 422, "shape-mismatch", "/inputs/x"},
        {"{" META TENSOR("F32", "[]", "[0, 4]") "}", 4, 422, "shape-mismatch", "/inputs/x"},
        /* names and members */
        {"{" META "'x': {'dtype': 'F32', 'shape': [1, 3], 'data_offsets': [0, 12]}}", 12, 422, "unknown-name",
         NULL},
        {"{" META "'nowhere/x': {'dtype': 'F32', 'shape': [1, 3], 'data_offsets': [0, 12]}}", 12, 422,
         "unknown-name", NULL},
        {"{" META "'inputs/z': {'dtype': 'F32', 'shape': [1, 3], 'data_offsets': [0, 12]}}", 12, 422,
         "unknown-name", "/inputs/z"},
        {"{" META "'targets/y': {'dtype': 'F32', 'shape': [1, 3], 'data_offsets': [0, 12]}}", 12, 422,
         "unknown-member", "/targets"},
        {"{'__metadata__': {'model': 'm', 'format': 'pt'}, " TENSOR("F32", "[1, 3]", "[0, 12]") "}", 12, 422,
         "unknown-member", "/format"},
        {"{'__metadata__': {'model': 'm', 'format': '1'}, " TENSOR("F32", "[1, 3]", "[0, 12]") "}", 12, 422,
         "unknown-member", "/format"},
        {"{'__metadata__': {'model': 'm', 'seed': '01'}, " TENSOR("F32", "[1, 3]", "[0, 12]") "}", 12, 400,
         "malformed", "/seed"},
        {"{'__metadata__': {'model': 'm', 'seed': ''}, " TENSOR("F32", "[1, 3]", "[0, 12]") "}", 12, 400,
         "malformed", "/seed"},
        {"{'__metadata__': {'model': 'm', 'inputs': '{}'}, " TENSOR("F32", "[1, 3]", "[0, 12]") "}", 12, 422,
         "invalid-value", "/inputs"},
        {"{" TENSOR("F32", "[1, 3]", "[0, 12]") "}", 12, 422, "invalid-value", "/model"},
    };
    static const char zeros[64];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t size;
        unsigned char *file =
            service_keep(test_file_of(quoted(cases[i].header), zeros, cases[i].size, &size));
        struct http_request request = {
            .method = "POST", .path = "/forward", .type = FILE_TYPE, .body = file, .size = size};
        struct http_answer answer;
        http_call(client, &request, &answer);
        if (answer.status != cases[i].status)
            fail_msg("%s: %d, not %d: %s", cases[i].header, answer.status, cases[i].status, answer.body);
        if (cases[i].slug) check_problem(&answer, cases[i].status, cases[i].slug, cases[i].pointer);
        http_answer_fini(&answer);
    }
    service_is_alive();
}

/* A whole file, cut everywhere. */
static void truncations(void **state) {
    (void)state;
    struct test_writer writer = {0};
    size_t size;
    test_write_text(&writer, "model", "m");
    test_write_f32(&writer, "inputs/x", SHAPE(1, 3), (const float[]){1, 2, 3});
    unsigned char *file = service_keep(test_write_end(&writer, &size));
    post(200, "/forward", file, size);
    for (size_t cut = 1; cut < size; cut++)
        check_problem(post(400, "/forward", file, cut), 400, "malformed", NULL);
    check_problem(post(400, "/forward", "", 0), 400, "malformed", NULL);
    memset(file, 0xff, 8); /* a header of 2^64 - 1 bytes */
    check_problem(post(400, "/forward", file, size), 400, "malformed", NULL);
    service_is_alive();
}

/* Neither JSON sent as safetensors nor the other way round. */
static void mistaken(void **state) {
    (void)state;
    struct test_writer writer = {0};
    struct http_request request = {.method = "POST", .path = "/forward", .type = JSON_TYPE};
    const char *json = quoted("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}}");
    check_problem(post(400, "/forward", json, strlen(json)), 400, "malformed", NULL);
    test_write_text(&writer, "model", "m");
    request.body = service_keep(test_write_end(&writer, &request.size));
    check_problem(service_call(400, &request), 400, "malformed", NULL);
}

/* What each type can hold that no tensor may. */
static void not_finite(void **state) {
    (void)state;
    static const float f32[] = {NAN, INFINITY, -INFINITY};
    static const double f64[] = {NAN, INFINITY, -INFINITY};
    static const uint16_t f16[] = {0x7e00, 0x7c00, 0xfc00}, bf16[] = {0x7fc0, 0x7f80, 0xff80};
    static const struct {
        const char *dtype;
        const void *data;
    } types[] = {{"F32", f32}, {"F64", f64}, {"F16", f16}, {"BF16", bf16}};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (size_t bad = 0; bad < 3; bad++) {
            struct test_writer writer = {0};
            unsigned char data[24] = {0};
            size_t size = test_dtype_size(types[t].dtype);
            memcpy(data + 2 * size, (const unsigned char *)types[t].data + bad * size, size);
            test_write_text(&writer, "model", "m");
            test_write(&writer, "inputs/x", types[t].dtype, SHAPE(1, 3), data);
            unsigned char *file = service_keep(test_write_end(&writer, &size));
            check_problem(post(422, "/forward", file, size), 422, "not-finite", "/inputs/x");
        }
    /* finite there, but not here */
    struct test_writer writer = {0};
    size_t size;
    test_write_text(&writer, "model", "m");
    test_write(&writer, "inputs/x", "F64", SHAPE(1, 3), (const double[]){0, 0, 1e300});
    unsigned char *file = service_keep(test_write_end(&writer, &size));
    check_problem(post(422, "/forward", file, size), 422, "invalid-value", "/inputs/x");
}

static void labels(void **state) {
    (void)state;
    const struct {
        const char *dtype;
        const void *data;
    } cases[] = {
        {"I64", (const int64_t[]){2}},         {"I64", (const int64_t[]){-1}},
        {"I64", (const int64_t[]){INT64_MIN}}, {"I32", (const int32_t[]){-1}},
        {"U8", (const uint8_t[]){255}},        {"F32", (const float[]){0.5F}},
        {"F32", (const float[]){1e30F}},       {"F64", (const double[]){0.5}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct test_writer writer = {0};
        size_t size;
        test_write_text(&writer, "model", "m");
        test_write_f32(&writer, "inputs/x", SHAPE(1, 3), (const float[]){1, 2, 3});
        test_write(&writer, "targets/y", cases[i].dtype, SHAPE(1), cases[i].data);
        unsigned char *file = service_keep(test_write_end(&writer, &size));
        check_problem(post(422, "/backward", file, size), 422, "invalid-value", "/targets/y");
    }
}

/* The parameters resource has plain names, and takes no others. */
static void state_dicts(void **state) {
    (void)state;
    static const struct {
        const char *names[2];
        int64_t columns;
        const char *slug, *pointer;
    } cases[] = {
        {{"out.weight", NULL}, 3, "invalid-value", "/parameters/out.bias"},
        {{"out.weight", "out.gain"}, 3, "unknown-name", "/parameters/out.gain"},
        {{"parameters/out.weight", "out.bias"}, 3, "unknown-name", "/parameters/parameters~1out.weight"},
        {{"out.weight", "out.bias"}, 4, "shape-mismatch", "/parameters/out.weight"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static const float numbers[8];
        struct test_writer writer = {0};
        struct http_request request = {.method = "PUT", .path = "/models/m/parameters", .type = FILE_TYPE};
        test_write_f32(&writer, cases[i].names[0], SHAPE(2, cases[i].columns), numbers);
        if (cases[i].names[1]) test_write_f32(&writer, cases[i].names[1], SHAPE(2), numbers);
        request.body = service_keep(test_write_end(&writer, &request.size));
        check_problem(service_call(422, &request), 422, cases[i].slug, cases[i].pointer);
    }
    assert_int_equal(integer_at(ask(200, "GET", "/models/m", NULL), "version"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        service_test(headers),    service_test(truncations), service_test(mistaken),
        service_test(not_finite), service_test(labels),      service_test(state_dicts),
    };
    return cmocka_run_group_tests(tests, setup, service_teardown);
}
