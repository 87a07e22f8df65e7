/* Documents: what the lifter takes out of JSON, what the reader of the rest makes of it, and that neither
 * minds what it is given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../api/api.h"
#include "../../api/wire/document.h"
#include "../../api/wire/json_read.h"

/* A document that was read from a copy of the text without a byte to spare behind it. */
struct reading {
    struct nn_arena *arena;
    struct api_document document;
    struct api_pointer pointer;
    struct nn_error err;
    char *text;
};

static enum nn_code read_bytes(struct reading *r, enum api_body kind, const char *text, size_t size) {
    char *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    if (size) memcpy(copy, text, size);
    *r = (struct reading){.arena = nn_arena_new()};
    assert_non_null(r->arena);
    int code = api_document_read(&r->document, API_JSON, kind, NULL, copy, size, &api_default_limits,
                                 r->arena, &r->pointer, &r->err);
    r->text = copy;
    assert_int_equal(code, r->err.code);
    return r->err.code;
}

static enum nn_code read_text(struct reading *r, const char *text) {
    return read_bytes(r, API_DOCUMENT, text, strlen(text));
}

static void done(struct reading *r) {
    api_document_fini(&r->document);
    nn_arena_free(r->arena);
    free(r->text);
}

static double first_of(const struct reading *r, const char *member, const char *name) {
    const struct api_tensor *tensor = api_document_tensor(&r->document, member, name);
    struct nn_error err = {0};
    double out[64];
    assert_non_null(tensor);
    assert_true(nn_shape_elements(&tensor->shape) <= 64);
    assert_int_equal(api_tensor_convert(tensor, NN_F64, out, &err), NN_OK);
    return out[0];
}

/* --- what is lifted -------------------------------------------------------------------------------- */

static void arrays_are_lifted(void **state) {
    (void)state;
    struct reading r;
    assert_int_equal(read_text(&r,
                               " { \"seed\" : 5 , \"inputs\" : { \"a\" : [ [ 1.5 , 2 ] ] , \"b\" : [7] } ,"
                               " \"outputs\" : [ \"x\" ] , \"targets\" : { } } "),
                     NN_OK);
    assert_int_equal(r.document.n_tensors, 2);
    assert_int_equal(r.document.n_maps, 2);
    assert_true(api_document_has(&r.document, "inputs"));
    assert_true(api_document_has(&r.document, "targets"));
    assert_false(api_document_has(&r.document, "outputs"));
    assert_true(first_of(&r, "inputs", "a") == 1.5);
    assert_true(first_of(&r, "inputs", "b") == 7);
    assert_int_equal(api_document_tensor(&r.document, "inputs", "a")->shape.rank, 2);
    assert_null(api_document_tensor(&r.document, "targets", "a"));
    assert_int_equal(json_object_size(r.document.members), 2);
    assert_int_equal(json_integer_value(json_object_get(r.document.members, "seed")), 5);
    assert_int_equal(json_array_size(json_object_get(r.document.members, "outputs")), 1);
    done(&r);
}

static void keys_may_be_escaped(void **state) {
    (void)state;
    struct reading r;
    assert_int_equal(read_text(&r, "{\"inp\\u0075ts\": {\"\\u0061\\n\": [1], \"\\ud83d\\ude00\": [2]}}"),
                     NN_OK);
    assert_true(first_of(&r, "inputs", "a\n") == 1);
    assert_true(first_of(&r, "inputs", "\xf0\x9f\x98\x80") == 2);
    done(&r);
}

/* In the order of the text, whatever stands between them. */
static void arrays_and_objects_mix(void **state) {
    (void)state;
    struct reading r;
    assert_int_equal(
        read_text(
            &r, "{\"targets\": {\"t\": [1], \"o\": {\"dtype\": \"U8\", \"shape\": [1], \"base64\": \"Ag==\"},"
                " \"u\": [3]}, \"note\": {\"inputs\": {\"x\": [9]}}, \"inputs\": {\"o\":"
                " {\"base64\": \"\\u0042A\\u003d=\", \"shape\": [1], \"dtype\": \"U8\"}, \"x\": [5]}}"),
        NN_OK);
    assert_int_equal(r.document.n_tensors, 5);
    assert_true(first_of(&r, "targets", "t") == 1);
    assert_true(first_of(&r, "targets", "o") == 2);
    assert_true(first_of(&r, "targets", "u") == 3);
    assert_true(first_of(&r, "inputs", "o") == 4);
    assert_true(first_of(&r, "inputs", "x") == 5);
    assert_null(api_document_tensor(&r.document, "note", "x"));
    done(&r);
}

/* A specification's "inputs" are shapes: nothing is lifted out of it. */
static void specifications_are_left_alone(void **state) {
    (void)state;
    static const char text[] = "{\"inputs\": {\"x\": {\"shape\": [64]}}, \"state\": 1}";
    struct reading r;
    assert_int_equal(read_bytes(&r, API_SPECIFICATION, text, sizeof text - 1), NN_OK);
    assert_int_equal(r.document.n_tensors, 0);
    assert_int_equal(json_object_size(r.document.members), 2);
    done(&r);
}

static void many_tensors(void **state) {
    (void)state;
    enum { N = 1000 };
    char *text = malloc((size_t)N * 32), *p = text;
    struct reading r;
    assert_non_null(text);
    p += snprintf(p, 32, "{\"inputs\":{");
    for (int i = 0; i < N; i++) p += snprintf(p, 32, "%s\"x%d\":[%d]", i ? "," : "", i, i);
    snprintf(p, 32, "}}");
    assert_int_equal(read_text(&r, text), NN_OK);
    assert_int_equal(r.document.n_tensors, N);
    assert_true(first_of(&r, "inputs", "x0") == 0);
    assert_true(first_of(&r, "inputs", "x999") == 999);
    done(&r);
    free(text);
}

/* --- what is refused ------------------------------------------------------------------------------- */

/* A number alone is a tensor without dimensions, with the value that it was written with. */
static void numbers_are_tensors(void **state) {
    (void)state;
    struct reading r;
    double real;
    int64_t integer;
    assert_int_equal(
        read_text(&r, "{\"inputs\":{\"a\":0.1,\"b\":[[7]],\"c\":-9223372036854775808,\"d\":[8]}}"), NN_OK);
    assert_int_equal(r.document.n_tensors, 4);
    const struct api_tensor *a = &r.document.tensors[0], *c = &r.document.tensors[2];
    assert_int_equal(a->shape.rank, 0);
    assert_int_equal(c->shape.rank, 0);
    assert_string_equal(c->name, "c");
    assert_int_equal(r.document.tensors[1].shape.rank, 2);
    assert_int_equal(r.document.tensors[3].shape.rank, 1);
    assert_int_equal(api_tensor_convert(a, NN_F64, &real, &r.err), NN_OK);
    assert_true(real == 0.1);
    assert_int_equal(api_tensor_convert(c, NN_I64, &integer, &r.err), NN_OK);
    assert_true(integer == INT64_MIN);
    assert_int_equal(api_tensor_convert(a, NN_I64, &integer, &r.err), NN_E_VALUE);
    done(&r);
}

static void refusals(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum nn_code code;
        const char *pointer;
    } cases[] = {
        /* twice, in and around what is lifted, however it is written */
        {"{\"inputs\":{\"x\":[1],\"x\":[2]}}", NN_E_MALFORMED, ""},
        {"{\"inputs\":{\"x\":[1],\"\\u0078\":[2]}}", NN_E_MALFORMED, ""},
        {"{\"inputs\":{\"x\":[1]},\"inputs\":{\"y\":[2]}}", NN_E_MALFORMED, ""},
        {"{\"inputs\":{\"x\":[1]},\"\\u0069nputs\":{\"y\":[2]}}", NN_E_MALFORMED, ""},
        {"{\"inputs\":{},\"inputs\":{}}", NN_E_MALFORMED, ""},
        {"{\"seed\":1,\"inputs\":{\"x\":[1]},\"seed\":2}", NN_E_MALFORMED, ""},
        {"{\"model\":{\"a\":1,\"a\":1}}", NN_E_MALFORMED, ""},
        /* what stands for a lifted array is nothing that a client can write */
        {"{\"inputs\":{\"x\":true,\"y\":[2]}}", NN_E_VALUE, "/inputs/x"},
        {"{\"inputs\":{\"y\":[2],\"x\":true}}", NN_E_VALUE, "/inputs/x"},
        {"{\"inputs\":{\"x\":\"[]\"}}", NN_E_VALUE, "/inputs/x"},
        {"{\"inputs\":{\"x\":null}}", NN_E_VALUE, "/inputs/x"},
        {"{\"inputs\":{\"a/b~\":true}}", NN_E_VALUE, "/inputs/a~1b~0"},
        /* maps that are none */
        {"{\"inputs\":[[1]]}", NN_E_VALUE, "/inputs"},
        {"{\"inputs\":1}", NN_E_VALUE, "/inputs"},
        {"{\"inputs\":\"x\"}", NN_E_VALUE, "/inputs"},
        {"{\"inputs\":null}", NN_E_VALUE, "/inputs"},
        /* arrays that are none */
        {"{\"inputs\":{\"x\":[[1,2],[3]]}}", NN_E_SHAPE, "/inputs/x"},
        {"{\"inputs\":{\"x\":[[[[[[[[[1]]]]]]]]]}}", NN_E_SHAPE, "/inputs/x"},
        {"{\"inputs\":{\"x\":[\"a\"]}}", NN_E_VALUE, "/inputs/x"},
        {"{\"inputs\":{\"x\":[\"Infinity\"]}}", NN_E_NOT_FINITE, "/inputs/x"},
        {"{\"inputs\":{\"x\":[1,]}}", NN_E_MALFORMED, "/inputs/x"},
        {"{\"inputs\":{\"x\":[1 2]}}", NN_E_MALFORMED, "/inputs/x"},
        /* objects that are none */
        {"{\"inputs\":{\"x\":{}}}", NN_E_VALUE, "/inputs/x"},
        {"{\"inputs\":{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"base64\":\"AA==\",\"x\":1}}}", NN_E_VALUE,
         "/inputs/x"},
        {"{\"inputs\":{\"x\":{\"dtype\":\"U9\",\"shape\":[1],\"base64\":\"AA==\"}}}", NN_E_DTYPE,
         "/inputs/x"},
        {"{\"inputs\":{\"x\":{\"dtype\":\"U8\",\"shape\":1,\"base64\":\"AA==\"}}}", NN_E_VALUE, "/inputs/x"},
        {"{\"inputs\":{\"x\":{\"dtype\":\"U8\",\"shape\":[-1],\"base64\":\"AA==\"}}}", NN_E_VALUE,
         "/inputs/x"},
        {"{\"inputs\":{\"x\":{\"dtype\":\"U8\",\"shape\":[1.0],\"base64\":\"AA==\"}}}", NN_E_VALUE,
         "/inputs/x"},
        {"{\"inputs\":{\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"base64\":\"AA==\"}}}", NN_E_VALUE,
         "/inputs/x"},
        {"{\"inputs\":{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"base64\":\"AA=\"}}}", NN_E_VALUE, "/inputs/x"},
        {"{\"inputs\":{\"x\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"base64\":\"AA==\"}}}",
         NN_E_SHAPE, "/inputs/x"},
        {"{\"inputs\":{\"x\":{\"dtype\":\"U8\",\"shape\":[9223372036854775807,3],\"base64\":\"\"}}}",
         NN_E_SIZE, "/inputs/x"},
        /* not an object, or not JSON */
        {"", NN_E_MALFORMED, ""},
        {"  ", NN_E_MALFORMED, ""},
        {"1", NN_E_MALFORMED, ""},
        {"[]", NN_E_MALFORMED, ""},
        {"{}x", NN_E_MALFORMED, ""},
        {"{\"inputs\":{\"x\":[1]}}}", NN_E_MALFORMED, ""},
        {"{\"inputs\":{\"x\":[1]}", NN_E_MALFORMED, ""},
        {"{\"inputs\":{\"x\":[1]},}", NN_E_MALFORMED, ""},
        {"{\"inputs\":{\"x\":[1],}}", NN_E_MALFORMED, ""},
        {"{\"inputs\":{\"x\" [1]}}", NN_E_MALFORMED, ""},
        {"{\"inputs\":{x:[1]}}", NN_E_MALFORMED, ""},
        {"{\"inputs\":{\"x\\q\":[1]}}", NN_E_MALFORMED, ""},
        {"{\"inputs\":{\"\\u0000\":[1]}}", NN_E_MALFORMED, ""},
        {"{\"inputs\":{\"\xff\":[1]}}", NN_E_MALFORMED, ""},
        {"{\"seed\":01}", NN_E_MALFORMED, ""},
        {"{\"seed\":+1}", NN_E_MALFORMED, ""},
        {"{\"seed\":1.}", NN_E_MALFORMED, ""},
        {"{\"seed\":1e}", NN_E_MALFORMED, ""},
        {"{\"seed\":--1}", NN_E_MALFORMED, ""},
        {"{\"seed\":1-1}", NN_E_MALFORMED, ""},
        {"{\"seed\":NaN}", NN_E_MALFORMED, ""},
        {"{\"seed\":tru}", NN_E_MALFORMED, ""},
        {"{\"seed\":truee}", NN_E_MALFORMED, ""},
        {"{\"a\":\"\n\"}", NN_E_MALFORMED, ""},
        {"{\"seed\":99999999999999999999}", NN_E_VALUE, ""},
        {"{\"seed\":1e999}", NN_E_VALUE, ""},
        {"\xef\xbb\xbf{}", NN_E_MALFORMED, ""},
        {"// {}\n{}", NN_E_MALFORMED, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct reading r;
        enum nn_code code = read_text(&r, cases[i].text);
        if (code != cases[i].code || strcmp(r.pointer.text, cases[i].pointer) != 0)
            fail_msg("%s: %s at \"%s\": %s", cases[i].text, nn_code_info(code)->slug, r.pointer.text,
                     r.err.text);
        done(&r);
    }
}

static void depth_is_bounded(void **state) {
    (void)state;
    static char text[200000];
    struct reading r;
    for (int i = 0; i < 2; i++) {
        memset(text, i ? '[' : '{', sizeof text);
        memcpy(text, "{\"model\":", 9);
        assert_int_equal(read_bytes(&r, API_DOCUMENT, text, sizeof text), NN_E_MALFORMED);
        done(&r);
    }
    for (int depth = API_JSON_DEPTH - 1; depth <= API_JSON_DEPTH; depth++) { /* the document is one more */
        memcpy(text, "{\"model\":", 9);
        memset(text + 9, '[', (size_t)depth);
        memset(text + 9 + depth, ']', (size_t)depth);
        text[9 + 2 * depth] = '}';
        assert_int_equal(read_bytes(&r, API_DOCUMENT, text, (size_t)(10 + 2 * depth)),
                         depth < API_JSON_DEPTH ? NN_OK : NN_E_MALFORMED);
        done(&r);
    }
}

/* --- values ---------------------------------------------------------------------------------------- */

static void values_are_exact(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double real;
        int64_t integer;
    } numbers[] = {{"0", 0, 0},
                   {"-0", 0, 0},
                   {"9007199254740993", 0, INT64_C(9007199254740993)},
                   {"-9223372036854775808", 0, INT64_MIN},
                   {"9223372036854775807", 0, INT64_MAX},
                   {"0.1", 0.1, 0},
                   {"1E2", 100, 0},
                   {"-1.7976931348623157e308", -1.7976931348623157e308, 0},
                   {"5e-324", 5e-324, 0},
                   {"2.2250738585072011e-308", 2.2250738585072011e-308, 0}};
    struct nn_arena *arena = nn_arena_new();
    struct nn_error err = {0};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        json_t *value = api_json_read(numbers[i].text, strlen(numbers[i].text), arena, &err);
        if (numbers[i].real != 0) {
            assert_true(json_is_real(value));
            assert_true(json_real_value(value) == numbers[i].real);
        } else {
            assert_true(json_is_integer(value));
            assert_true(json_integer_value(value) == numbers[i].integer);
        }
        json_decref(value);
    }
    static const char text[] =
        " [ null , true,false ,\"\\u00e9\\\\\\\"\\/\\b\\f\\n\\r\\t\", {\"\":{}}, [] ] ";
    json_t *value = api_json_read(text, sizeof text - 1, arena, &err);
    char *dumped = json_dumps(value, JSON_COMPACT);
    assert_string_equal(dumped, "[null,true,false,\"\xc3\xa9\\\\\\\"/\\b\\f\\n\\r\\t\",{\"\":{}},[]]");
    free(dumped);
    json_decref(value);
    nn_arena_free(arena);
}

/* --- robustness ------------------------------------------------------------------------------------ */

static const char whole[] =
    "{\"model\": {\"inputs\": {\"x\": {\"shape\": [2]}}, \"layers\": [{\"op\": \"linear\", "
    "\"out\\u005ffeatures\": 3}]},"
    " \"inputs\": {\"x\": [[1.5e0, -2], [3, 4.25]], \"i\\u0064\": {\"dtype\": \"I64\", \"shape\": [1],"
    " \"base64\": \"AQAAAAAAAAA=\"}}, \"targets\": {\"y\": [true, false]}, \"seed\": 12, \"return\": "
    "[\"inputs\"]}";

static void every_truncation_is_malformed(void **state) {
    (void)state;
    struct reading r;
    assert_int_equal(read_text(&r, whole), NN_OK);
    assert_int_equal(r.document.n_tensors, 3);
    done(&r);
    for (size_t size = 0; size < sizeof whole - 1; size++)
        for (int kind = API_SPECIFICATION; kind <= API_STATE_DICT; kind++) {
            enum nn_code code = read_bytes(&r, (enum api_body)kind, whole, size);
            if (code != NN_E_MALFORMED) fail_msg("%.*s: %s", (int)size, whole, r.err.text);
            done(&r);
        }
}

/* Bytes changed, doubled, lost and moved, each way many times, from a fixed sequence. */
static void mutations_do_no_harm(void **state) {
    (void)state;
    static const char bytes[] = "{}[]\":,\\u0\"x1e-.tfn \n\x80\xff";
    uint64_t random = 1;
    int read = 0, refused = 0;
    for (int round = 0; round < 40000; round++) {
        char text[sizeof whole + 8];
        size_t size = sizeof whole - 1;
        memcpy(text, whole, sizeof whole);
        for (int i = 0; i <= round % 4; i++) {
            random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            size_t at = (size_t)(random >> 40) % size, from = (size_t)(random >> 20) % size;
            char byte = bytes[(random >> 12) % (sizeof bytes - 1)];
            switch ((random >> 8) % 4) {
            case 0:
                text[at] = byte;
                break;
            case 1:
                memmove(text + at + 1, text + at, size++ - at);
                text[at] = byte;
                break;
            case 2:
                memmove(text + at, text + at + 1, --size - at);
                break;
            default:
                text[at] = text[from];
                break;
            }
        }
        struct reading r;
        enum nn_code code = read_bytes(&r, round % 5 ? API_DOCUMENT : API_SPECIFICATION, text, size);
        for (size_t i = 0; i < r.document.n_tensors && !code; i++) {
            const struct api_tensor *tensor = &r.document.tensors[i];
            struct nn_error err = {0};
            double out[64];
            assert_true((tensor->json != NULL) != (tensor->data != NULL));
            if (nn_shape_elements(&tensor->shape) <= 64) api_tensor_convert(tensor, NN_F64, out, &err);
        }
        read += !code;
        refused += code != 0;
        done(&r);
    }
    assert_true(read > 1000);
    assert_true(refused > 1000);
}

/* In a name and in a value, the error says what is wrong with a string. */
static void strings_are_told_what_is_wrong(void **state) {
    (void)state;
    static const struct {
        const char *string, *why;
    } cases[] = {
        {"\\u0000", "\\u0000"},
        {"a\\u0000b", "\\u0000"},
        {"\\q", "begins no escape"},
        {"\\u12", "begins no escape"},
        {"\\u00g0", "begins no escape"},
        {"\\ud83d", "surrogate"},
        {"\\ud83dx", "surrogate"},
        {"\\ud83d\\u0041", "surrogate"},
        {"\\ud83d\\u0000", "surrogate"},
        {"\\ude00", "surrogate"},
        {"\x1f", "control character"},
        {"a\tb", "control character"},
        {"\xff", "UTF-8"},
        {"\xc3", "UTF-8"},
        {"\xed\xa0\x80", "UTF-8"},
    };
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        char text[80];
        struct reading r;
        snprintf(text, sizeof text, i % 2 ? "{\"%s\": 1}" : "{\"mode\": \"%s\"}", cases[i / 2].string);
        assert_int_equal(read_text(&r, text), NN_E_MALFORMED);
        if (!strstr(r.err.text, cases[i / 2].why)) fail_msg("%s: %s", text, r.err.text);
        done(&r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_are_lifted),
        cmocka_unit_test(keys_may_be_escaped),
        cmocka_unit_test(arrays_and_objects_mix),
        cmocka_unit_test(specifications_are_left_alone),
        cmocka_unit_test(many_tensors),
        cmocka_unit_test(numbers_are_tensors),
        cmocka_unit_test(refusals),
        cmocka_unit_test(strings_are_told_what_is_wrong),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(values_are_exact),
        cmocka_unit_test(every_truncation_is_malformed),
        cmocka_unit_test(mutations_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
