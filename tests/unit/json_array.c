/* JSON arrays of numbers: the grammar, shapes, correct rounding, and refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../api/wire/tensor.h"

/* A copy without a byte to spare, so that a sanitizer sees reading beyond it. */
static char *exact_copy(const char *text, size_t size) {
    char *copy = malloc(size);
    assert_non_null(copy);
    return memcpy(copy, text, size);
}

static enum nn_code scan(const char *text, size_t size, struct nn_shape *shape, size_t *span) {
    struct nn_error err = {0};
    char *copy = exact_copy(text, size);
    *span = api_json_array_scan(copy, size, shape, &err);
    free(copy);
    assert_true((*span == 0) == (err.code != NN_OK));
    return err.code;
}

static enum nn_code convert(const char *text, enum nn_dtype to, void *out) {
    struct nn_error err = {0};
    struct api_tensor tensor = {.member = "", .name = "x", .json_size = strlen(text)};
    char *copy = exact_copy(text, tensor.json_size);
    tensor.json = copy;
    if (!api_json_array_scan(copy, tensor.json_size, &tensor.shape, &err)) fail_msg("%s: %s", text, err.text);
    api_tensor_convert(&tensor, to, out, &err);
    free(copy);
    return err.code;
}

/* --- shapes and grammar ------------------------------------------------------------------------ */

static void shapes(void **state) {
    (void)state;
    static const struct {
        const char *text, *rest;
        struct nn_shape shape;
    } cases[] = {
        {"[]", "", {1, {0}}},
        {"[ \t\r\n]", "", {1, {0}}},
        {"[1]", "", {1, {1}}},
        {"[1,2,3]", ",\"b\":1}", {1, {3}}},
        {"[ 1 , 2\n]", "  ]", {1, {2}}},
        {"[[1,2,3],[4,5,6]]", "", {2, {2, 3}}},
        {"[[[1],[2]],[[3],[4]],[[5],[6]]]", "]", {3, {3, 2, 1}}},
        {"[[],[]]", "", {2, {2, 0}}},
        {"[[[],[]]]", "", {3, {1, 2, 0}}},
        {"[true,false,1e0]", "", {1, {3}}},
        {"[[[[[[[[1]]]]]]]]", "", {8, {1, 1, 1, 1, 1, 1, 1, 1}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[128];
        snprintf(text, sizeof text, "%s%s", cases[i].text, cases[i].rest);
        struct nn_shape shape;
        size_t span;
        assert_int_equal(scan(text, strlen(text), &shape, &span), NN_OK);
        assert_int_equal(span, strlen(cases[i].text));
        if (!nn_shape_equal(&shape, &cases[i].shape)) fail_msg("shape of %s", cases[i].text);
    }
}

static void refusals(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum nn_code code;
    } cases[] = {
        {"[", NN_E_MALFORMED},
        {"[1", NN_E_MALFORMED},
        {"[1,", NN_E_MALFORMED},
        {"[1,]", NN_E_MALFORMED},
        {"[,1]", NN_E_MALFORMED},
        {"[1 2]", NN_E_MALFORMED},
        {"[1}", NN_E_MALFORMED},
        {"[[1]", NN_E_MALFORMED},
        {"[01]", NN_E_MALFORMED},
        {"[-01]", NN_E_MALFORMED},
        {"[+1]", NN_E_MALFORMED},
        {"[.5]", NN_E_MALFORMED},
        {"[5.]", NN_E_MALFORMED},
        {"[-]", NN_E_MALFORMED},
        {"[1e]", NN_E_MALFORMED},
        {"[1e+]", NN_E_MALFORMED},
        {"[1.e5]", NN_E_MALFORMED},
        {"[0x10]", NN_E_MALFORMED},
        {"[NaN]", NN_E_MALFORMED},
        {"[Infinity]", NN_E_MALFORMED},
        {"[-Infinity]", NN_E_MALFORMED},
        {"[nan]", NN_E_MALFORMED},
        {"[inf]", NN_E_MALFORMED},
        {"[1.2.3]", NN_E_MALFORMED},
        {"[--1]", NN_E_MALFORMED},
        {"[1e5.5]", NN_E_MALFORMED},
        {"[tru]", NN_E_MALFORMED},
        {"[True]", NN_E_MALFORMED},
        {"[nul]", NN_E_MALFORMED},
        {"[truefalse]", NN_E_MALFORMED},
        {"[1,\v2]", NN_E_MALFORMED},
        {"[1_000]", NN_E_MALFORMED},
        {"[1\"]", NN_E_MALFORMED},
        {"[\"1\"]", NN_E_VALUE},
        {"[null]", NN_E_VALUE},
        {"[{}]", NN_E_VALUE},
        {"[1,\"NaN\"]", NN_E_NOT_FINITE},
        {"[\"Infinity\"]", NN_E_NOT_FINITE},
        {"[\"-Infinity\"]", NN_E_NOT_FINITE},
        {"[1,[2]]", NN_E_SHAPE},
        {"[[1],2]", NN_E_SHAPE},
        {"[[1,2],[3]]", NN_E_SHAPE},
        {"[[1],[2,3]]", NN_E_SHAPE},
        {"[[],[1]]", NN_E_SHAPE},
        {"[[1],[]]", NN_E_SHAPE},
        {"[[],1]", NN_E_SHAPE},
        {"[[[]],[]]", NN_E_SHAPE},
        {"[[],[[]]]", NN_E_SHAPE},
        {"[[[1]],[2]]", NN_E_SHAPE},
        {"[[[1,2]],[[3,4],[5,6]]]", NN_E_SHAPE},
        {"[[[[[[[[[1]]]]]]]]]", NN_E_SHAPE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nn_shape shape;
        size_t span;
        enum nn_code code = scan(cases[i].text, strlen(cases[i].text), &shape, &span);
        if (code != cases[i].code) fail_msg("%s: code %d, not %d", cases[i].text, code, cases[i].code);
    }
}

/* Refused at the ninth bracket, not after a stack of a million. */
static void deep_nesting(void **state) {
    (void)state;
    enum { DEPTH = 1000000 };
    char *text = malloc(DEPTH);
    assert_non_null(text);
    memset(text, '[', DEPTH);
    struct nn_shape shape;
    size_t span;
    assert_int_equal(scan(text, DEPTH, &shape, &span), NN_E_SHAPE);
    free(text);
}

static void truncations(void **state) {
    (void)state;
    static const char text[] = "[[[1.5e-3, -20], [true, 0.25E+2]], [[4,5] ,\n[6,false]]]";
    struct nn_shape shape;
    size_t span;
    for (size_t size = 1; size < sizeof text - 1; size++)
        assert_int_equal(scan(text, size, &shape, &span), NN_E_MALFORMED);
    assert_int_equal(scan(text, sizeof text - 1, &shape, &span), NN_OK);
}

/* The numbers in a value that has this shape from dimension `at` on. */
static bool flatten(const json_t *json, const struct nn_shape *shape, int at, double *out, int *n) {
    if (at == shape->rank) {
        if (!json_is_number(json) && !json_is_boolean(json)) return false;
        out[(*n)++] = json_is_number(json) ? json_number_value(json) : json_is_true(json);
        return true;
    }
    if ((int64_t)json_array_size(json) != shape->dim[at] || !json_is_array(json)) return false;
    for (size_t i = 0; i < json_array_size(json); i++)
        if (!flatten(json_array_get(json, i), shape, at + 1, out, n)) return false;
    return true;
}

/* What jansson finds in the text: whether it begins with an array of numbers of one shape, and these. */
static bool read_by_jansson(const char *text, size_t size, struct nn_shape *shape, double *out, int *n) {
    json_t *json = json_loadb(text, size, JSON_DECODE_INT_AS_REAL | JSON_DISABLE_EOF_CHECK, NULL);
    *shape = (struct nn_shape){0};
    *n = 0;
    for (const json_t *first = json; json_is_array(first); first = json_array_get(first, 0))
        shape->dim[shape->rank++] = (int64_t)json_array_size(first);
    bool well = json && flatten(json, shape, 0, out, n);
    json_decref(json);
    return well;
}

static void check_numbers(const struct api_tensor *tensor, const double *want, int n) {
    struct nn_error err = {0};
    double f64[16];
    float f32[16];
    int64_t i64[16];
    assert_int_equal(api_tensor_convert(tensor, NN_F64, f64, &err), NN_OK);
    assert_memory_equal(f64, want, (size_t)n * sizeof *want);
    bool narrow = api_tensor_convert(tensor, NN_F32, f32, &err) == NN_OK;
    err = (struct nn_error){0};
    bool whole = api_tensor_convert(tensor, NN_I64, i64, &err) == NN_OK;
    for (int i = 0; i < n; i++) {
        if (narrow) assert_true(f32[i] == (float)want[i]);
        if (!isfinite((float)want[i])) assert_false(narrow);
        if (whole) assert_true((double)i64[i] == want[i]);
        if (want[i] != trunc(want[i]) || fabs(want[i]) > 0x1p63) assert_false(whole);
    }
}

/* Whatever the byte: what is accepted is what jansson accepts, with its shape and its numbers. */
static void mutations(void **state) {
    (void)state;
    static const char text[] = "[[1.5e-3,-20],[true,12345678901234567890123]]";
    int accepted = 0;
    for (size_t at = 1; at < sizeof text - 1; at++) {
        for (int byte = 0; byte < 256; byte++) {
            struct nn_error err = {0};
            char *copy = exact_copy(text, sizeof text - 1);
            copy[at] = (char)byte;
            struct api_tensor tensor = {.json = copy};
            tensor.json_size = api_json_array_scan(copy, sizeof text - 1, &tensor.shape, &err);
            struct nn_shape shape;
            double want[16] = {0}, got[16];
            int n = 0;
            /* jansson passes over a byte 0 behind a number. */
            bool well = byte && read_by_jansson(copy, sizeof text - 1, &shape, want, &n);
            bool taken = tensor.json_size && api_tensor_convert(&tensor, NN_F64, got, &err) == NN_OK;
            if (well != taken) fail_msg("byte %d at %zu: %s", byte, at, taken ? "taken" : err.text);
            if (taken) {
                assert_true(nn_shape_equal(&tensor.shape, &shape));
                check_numbers(&tensor, want, n);
                accepted++;
            }
            free(copy);
        }
    }
    assert_in_range(accepted, 200, 1000); /* each digit may be any */
}

/* Digits are read eight at a time: every byte in every place among them. */
static void bytes_among_digits(void **state) {
    (void)state;
    static const char number[] = "0.1234567890123456789";
    for (size_t at = 2; at < sizeof number - 1; at++) {
        for (int byte = 1; byte < 256; byte++) {
            if (strchr(",]eE", byte)) continue;
            char copy[sizeof number], text[sizeof number + 2];
            memcpy(copy, number, sizeof number);
            copy[at] = (char)byte;
            snprintf(text, sizeof text, "[%s]", copy);
            bool digit = byte >= '0' && byte <= '9',
                 space = strchr(" \t\r\n", byte) && at == sizeof number - 2;
            struct nn_shape shape;
            size_t span;
            enum nn_code code = scan(text, strlen(text), &shape, &span);
            assert_int_equal(code, digit || space ? NN_OK : NN_E_MALFORMED);
            double value;
            if (code) continue;
            assert_int_equal(convert(text, NN_F64, &value), NN_OK);
            assert_true(value == strtod(copy, NULL));
        }
    }
}

/* --- values ------------------------------------------------------------------------------------ */

static void check_real(const char *number) {
    char text[2048];
    snprintf(text, sizeof text, "[ %s ]", number);
    double f64 = 0, want64 = strtod(number, NULL);
    float f32 = 0, want32 = strtof(number, NULL);
    enum nn_code code = convert(text, NN_F64, &f64);
    assert_int_equal(code, isinf(want64) ? NN_E_VALUE : NN_OK);
    if (!code && memcmp(&f64, &want64, sizeof f64) != 0) fail_msg("%s as F64: %.17g", number, f64);
    code = convert(text, NN_F32, &f32);
    assert_int_equal(code, isinf(want32) ? NN_E_VALUE : NN_OK);
    if (!code && memcmp(&f32, &want32, sizeof f32) != 0) fail_msg("%s as F32: %.9g", number, (double)f32);
}

static const char *const real_texts[] = {
    "0",
    "-0",
    "0.0",
    "-0.0e5",
    "0e999999999999999999999",
    "1",
    "-1",
    "0.1",
    "1e-5",
    "1E+5",
    "123456789",
    "3.4028234663852886e38",
    "3.4028235677973366e38",
    "3.4028235677973367e38",
    "1e39",
    "-1e39",
    "1.7976931348623157e308",
    "1.7976931348623158e308",
    "1.7976931348623159e308",
    "1e309",
    "1e999999999999",
    "1.1754943508222875e-38",
    "1.401298464324817e-45",
    "7.006492321624085e-46",
    "7.006492321624086e-46",
    "4.9406564584124654e-324",
    "2.4703282292062327e-324",
    "2.4703282292062328e-324",
    "1e-999999999999",
    "9007199254740991",
    "9007199254740992",
    "9007199254740993",
    "9007199254740993.0000000000000000000001",
    "16777217",
    "16777217.000000000000000000000000000001",
    "16777219",
    "33554434.99999999999999999999",
    /* half-way between floats, and beside it as a double cannot tell */
    "1.00000005960464477539062500000000000000000000001",
    "1.000000059604644775390625",
    "1.00000005960464477539062499999999999999999999999",
    "1.00000017881393432617187499",
    "1.00000017881393432617187500",
    "1.00000017881393432617187501",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999",
    "0.00000000000000000000000000000000000000001e41",
    "100000000000000000000000000000000000000000e-41",
    "2.2250738585072011e-308",
    "2.2250738585072012e-308",
    "8.5e-27",
    "8.5e-28",
    "12345678901234567e27",
    "12345678901234567e-27",
    "1e22",
    "1e23",
    "1e-22",
    "1e-23",
    "0.12345678955316544",
    "0.01234567890123456789",
    "6.02214076e23",
};

static void reals(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof real_texts / sizeof *real_texts; i++) check_real(real_texts[i]);
    /* Half-way between two doubles, with 767 digits: their neighbour is in the digit behind. */
    char text[1100];
    for (int tail = 0; tail < 2; tail++) {
        int size = snprintf(text, sizeof text, "%.1076Lf", 0x1.fffffffffffff8p-1022L);
        assert_true(size == 1078);
        text[size - 1] = (char)('0' + tail);
        check_real(text);
    }
    static char digits[1800];
    memset(digits, '7', 1700);
    check_real(digits);
    memcpy(digits, "0.", 2);
    check_real(digits);
    memcpy(digits + 1690, "e1234", 5);
    check_real(digits);
}

static uint64_t random_bits(uint64_t *seed) { /* splitmix64 */
    uint64_t z = *seed += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* Numbers as printf writes them, in all the ways that clients do, against strtod and strtof. */
static void random_reals(void **state) {
    (void)state;
    enum { N = 500, ROUNDS = 3000 };
    static const char *const formats[] = {"%.17g", "%.16g", "%.9g", "%.6f", "%.*e", "%.25f"};
    uint64_t seed = 1;
    static char text[N * 512];
    static float f32[N], want32[N];
    static double f64[N], want64[N];
    for (int round = 0; round < ROUNDS; round++) {
        size_t size = 0, n = 0;
        text[size++] = '[';
        while (n < N) {
            uint64_t bits = random_bits(&seed);
            double x;
            if (round % 3) bits = (bits & 0x800fffffffffffff) | (1023 - 100 + bits % 200) << 52;
            memcpy(&x, &bits, sizeof x);
            if (round % 3 == 1) x = (double)(float)x + (round % 2 ? 0 : x * 0x1p-24);
            if (!isfinite(x) || !(fabs(x) < 3e38)) continue;
            const char *format = formats[(fabs(x) < 1e40 ? bits >> 8 : bits >> 8 & 1) % 6];
            char number[512];
            if (format[2] == '*')
                snprintf(number, sizeof number, format, (int)(bits % 24), x);
            else
                snprintf(number, sizeof number, format, x);
            want32[n] = strtof(number, NULL);
            want64[n] = strtod(number, NULL);
            if (isinf(want32[n])) continue;
            size += (size_t)snprintf(text + size, sizeof text - size, "%s%s", n ? "," : "", number);
            n++;
        }
        text[size++] = ']';
        text[size] = 0;
        assert_int_equal(convert(text, NN_F32, f32), NN_OK);
        assert_int_equal(convert(text, NN_F64, f64), NN_OK);
        for (size_t i = 0; i < N; i++) {
            if (memcmp(&f32[i], &want32[i], sizeof *f32) != 0) fail_msg("%.9g", (double)want32[i]);
            if (memcmp(&f64[i], &want64[i], sizeof *f64) != 0) fail_msg("%.17g", want64[i]);
        }
    }
}

/* Half-way between two neighbours, where the even one is right, and a little beside that. */
static void halves(void **state) {
    (void)state;
    uint64_t seed = 5;
    char text[1100], beside[1200];
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = random_bits(&seed);
        double half = ldexp((double)(bits % (1 << 24) * 2 + 1), (int)(bits >> 32) % 90 - 60);
        long double long_half =
            ldexpl((long double)(bits >> 11 | UINT64_C(1) << 52) * 2 + 1, (int)(bits % 80) - 60);
        if (i % 2)
            snprintf(text, sizeof text, "%.70f", half);
        else
            snprintf(text, sizeof text, "%.70Lf", long_half);
        check_real(text);
        snprintf(beside, sizeof beside, "%s1", text);
        check_real(beside);
        char *end = text + strlen(text);
        while (end[-1] == '0') *--end = '\0'; /* as short as it can be */
        if (end[-1] == '.') end[-1] = '\0';
        check_real(text);
    }
}

/* Over the whole range, and beyond both ends. */
static void any_exponent(void **state) {
    (void)state;
    uint64_t seed = 6;
    for (int i = 0; i < 50000; i++) {
        uint64_t bits = random_bits(&seed), digits = random_bits(&seed) >> bits % 64;
        char text[64];
        snprintf(text, sizeof text, "%llue%d", (unsigned long long)digits, (int)(bits >> 8) % 360);
        check_real(text);
        snprintf(text, sizeof text, "%llu.%05de%d", (unsigned long long)digits % 1000,
                 (int)(bits >> 8 & 0xffff), (int)(bits >> 24) % 50);
        check_real(text);
    }
}

static void integers(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum nn_code code;
        int64_t value;
    } cases[] = {
        {"3", NN_OK, 3},
        {"-3", NN_OK, -3},
        {"-0", NN_OK, 0},
        {"3.0", NN_OK, 3},
        {"3e2", NN_OK, 300},
        {"3.25e2", NN_OK, 325},
        {"300e-2", NN_OK, 3},
        {"0e-99999999999999999999", NN_OK, 0},
        {"0.000e3", NN_OK, 0},
        {"true", NN_OK, 1},
        {"false", NN_OK, 0},
        {"9223372036854775807", NN_OK, INT64_MAX},
        {"-9223372036854775808", NN_OK, INT64_MIN},
        {"9223372036854775807.000000000000000", NN_OK, INT64_MAX},
        {"9007199254740993", NN_OK, 9007199254740993},
        {"0.0000000000000000000000000000000000000000000123e46", NN_OK, 123},
        {"1000000000000000000000000000000e-30", NN_OK, 1},
        {"3.5", NN_E_VALUE, 0},
        {"1e-1", NN_E_VALUE, 0},
        {"1e-999999999999", NN_E_VALUE, 0},
        {"1.00000000000000000000000000001", NN_E_VALUE, 0},
        {"9223372036854775808", NN_E_VALUE, 0},
        {"-9223372036854775809", NN_E_VALUE, 0},
        {"9223372036854775807.5", NN_E_VALUE, 0},
        {"18446744073709551616", NN_E_VALUE, 0},
        {"18446744073709551619", NN_E_VALUE, 0},
        {"1e19", NN_E_VALUE, 0},
        {"1e999999999999999", NN_E_VALUE, 0},
        {"123456789012345678901234567890", NN_E_VALUE, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[128];
        int64_t value = 0;
        snprintf(text, sizeof text, "[%s]", cases[i].text);
        enum nn_code code = convert(text, NN_I64, &value);
        if (code != cases[i].code || value != cases[i].value)
            fail_msg("%s: code %d, value %lld", text, code, (long long)value);
    }
}

static void names_the_element(void **state) {
    (void)state;
    struct nn_error err = {0};
    struct api_tensor tensor = {.json = "[[1,2,3],[4,5e40,6]]", .json_size = 20};
    assert_int_equal(api_json_array_scan(tensor.json, tensor.json_size, &tensor.shape, &err), 20);
    float out[6];
    assert_int_equal(api_tensor_convert(&tensor, NN_F32, out, &err), NN_E_VALUE);
    assert_string_equal(err.text, "element [1, 1] is beyond the range of F32");
}

static void converts_in_order(void **state) {
    (void)state;
    double out[6];
    assert_int_equal(convert("[ [true, -2.5,3 ], [\n4,5e0,\tfalse] ]", NN_F64, out), NN_OK);
    static const double want[] = {1, -2.5, 3, 4, 5, 0};
    assert_memory_equal(out, want, sizeof want);
    assert_int_equal(convert("[[],[]]", NN_F64, out), NN_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes),
        cmocka_unit_test(refusals),
        cmocka_unit_test(deep_nesting),
        cmocka_unit_test(truncations),
        cmocka_unit_test(mutations),
        cmocka_unit_test(bytes_among_digits),
        cmocka_unit_test(reals),
        cmocka_unit_test(random_reals),
        cmocka_unit_test(halves),
        cmocka_unit_test(any_exponent),
        cmocka_unit_test(integers),
        cmocka_unit_test(names_the_element),
        cmocka_unit_test(converts_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
