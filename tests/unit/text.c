/* Growing text: quoting, nested arrays, and numbers that are the shortest to read back as themselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <cmocka.h>

#include "../../api/wire/tensor.h"

static void assert_text(struct api_text *text, const char *want) {
    assert_false(text->failed);
    api_text_add(text, "", 1);
    assert_string_equal(text->data, want);
    api_text_free(text);
}

static void grows(void **state) {
    (void)state;
    struct api_text text = {0};
    for (int i = 0; i < 100000; i++) api_text_puts(&text, "abc");
    api_text_add(&text, NULL, 0);
    assert_false(text.failed);
    assert_int_equal(text.size, 300000);
    for (size_t i = 0; i < text.size; i++) assert_int_equal(text.data[i], "abc"[i % 3]);
    api_text_free(&text);
    assert_null(text.data);
    api_text_free(&text);
}

/* What cannot be had is remembered, and nothing more is added. */
static void fails_once(void **state) {
    (void)state;
    struct api_text text = {0};
    api_text_puts(&text, "abc");
    api_text_add(&text, "", SIZE_MAX / 2); /* refused before it is read */
    assert_true(text.failed);
    api_text_puts(&text, "d");
    assert_int_equal(text.size, 3);
    api_text_free(&text);
}

static void quotes(void **state) {
    (void)state;
    static const struct {
        const char *in, *want;
    } cases[] = {
        {"", "\"\""},
        {"plain /x", "\"plain /x\""},
        {"\"\\\b\f\n\r\t", "\"\\\"\\\\\\b\\f\\n\\r\\t\""},
        {"\x01\x1f\x7f", "\"\\u0001\\u001f\x7f\""},
        {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\""},
        {"a\xff\xe2\x82", "\"a\\ufffd\\ufffd\\ufffd\""},
        {"\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\""},
        {"\xc0\xaf\xf5", "\"\\ufffd\\ufffd\\ufffd\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct api_text text = {0};
        api_text_quote(&text, cases[i].in);
        assert_text(&text, cases[i].want);
    }
}

/* What a reader is to find: the characters that jansson knows as UTF-8, and U+FFFD for every other byte. */
static void what_is_read(const char *in, char *out) {
    while (*in) {
        size_t size = 1, left = strlen(in);
        json_t *one;
        while (!(one = json_stringn(in, size)) && size < left) size++;
        memcpy(out, one ? in : "\xef\xbf\xbd", one ? size : 3);
        out += one ? size : 3;
        in += one ? size : 1;
        json_decref(one);
    }
    *out = '\0';
}

/* Any bytes: what comes out is JSON, and says what went in. */
static void quotes_everything(void **state) {
    (void)state;
    static const char third[] = {'\0', 'y', '\x80', '\xbf', '\xc3'};
    for (int a = 1; a < 256; a++)
        for (int b = 1; b < 256; b++)
            for (size_t c = 0; c < sizeof third; c++) {
                const char in[] = {'x', (char)a, (char)b, third[c], 0};
                char want[16];
                struct api_text text = {0};
                api_text_quote(&text, in);
                json_t *value = json_loadb(text.data, text.size, JSON_DECODE_ANY, NULL);
                what_is_read(in, want);
                if (!value || strcmp(json_string_value(value), want) != 0)
                    fail_msg("%02x %02x %02x", (unsigned)a, (unsigned)b, (unsigned char)third[c]);
                json_decref(value);
                api_text_free(&text);
            }
}

static void arrays(void **state) {
    (void)state;
    static const float f32[] = {1, -0.5F, 0.1F, INFINITY, -INFINITY, NAN};
    static const double f64[] = {1, -0.5, 0.1, 1e300, (double)INFINITY, (double)NAN};
    static const int64_t i64[] = {INT64_MIN, INT64_MAX, 0, -1, 2, 3};
    static const struct {
        const void *data;
        enum nn_dtype dtype;
        struct nn_shape shape;
        const char *want;
    } cases[] = {
        {f32, NN_F32, {1, {6}}, "[1.0,-0.5,0.1,\"Infinity\",\"-Infinity\",\"NaN\"]"},
        {f64, NN_F64, {2, {2, 3}}, "[[1.0,-0.5,0.1],[1e300,\"Infinity\",\"NaN\"]]"},
        {i64, NN_I64, {2, {3, 2}}, "[[-9223372036854775808,9223372036854775807],[0,-1],[2,3]]"},
        {i64 + 2, NN_I64, {3, {2, 1, 2}}, "[[[0,-1]],[[2,3]]]"},
        {i64 + 2, NN_I64, {3, {2, 2, 1}}, "[[[0],[-1]],[[2],[3]]]"},
        {f32 + 1, NN_F32, {0}, "-0.5"},
        {i64 + 4, NN_I64, {0}, "2"},
        {i64 + 4, NN_I64, {8, {1, 1, 1, 1, 1, 1, 1, 1}}, "[[[[[[[[2]]]]]]]]"},
        {f32, NN_F32, {1, {0}}, "[]"},
        {f32, NN_F32, {2, {2, 0}}, "[[],[]]"},
        {f32, NN_F32, {2, {0, 2}}, "[]"},
        {f32, NN_F32, {4, {2, 2, 0, 3}}, "[[[],[]],[[],[]]]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct api_text text = {0};
        api_text_array(&text, cases[i].data, cases[i].dtype, &cases[i].shape);
        assert_true(text.size <= api_text_array_bound(cases[i].dtype, &cases[i].shape));
        assert_text(&text, cases[i].want);
    }
}

/* Room for what is told to be enough is enough. */
static void bounds(void **state) {
    (void)state;
    static const float f32[] = {-1e15F, -9.9999994e15F, -1.17549435e-38F};
    static const double f64[] = {-2.2250738585072014e-308, -0.00012345678901234567, -1234567890123456.7};
    static const int64_t i64[] = {INT64_MIN, INT64_MIN, INT64_MIN};
    static const struct nn_shape shapes[] = {{1, {3}}, {4, {3, 1, 1, 1}}, {4, {1, 1, 3, 1}}, {2, {3, 0}}};
    static const void *const data[] = {[NN_F32] = f32, [NN_F64] = f64, [NN_I64] = i64};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (enum nn_dtype dtype = NN_F32; dtype <= NN_I64; dtype++) {
            struct api_text text = {0};
            api_text_array(&text, data[dtype], dtype, &shapes[i]);
            assert_true(text.size && text.size <= api_text_array_bound(dtype, &shapes[i]));
            api_text_free(&text);
        }
    }
    struct api_text text = {0};
    api_text_quote(&text, "\x01\xff\"");
    assert_true(text.size <= api_text_quote_bound("\x01\xff\""));
    api_text_free(&text);
}

/* --- numbers ----------------------------------------------------------------------------------- */

static const struct nn_shape scalar = {0};

static const char *print(const void *x, enum nn_dtype dtype, char out[64]) {
    struct api_text text = {0};
    api_text_array(&text, x, dtype, &scalar);
    assert_false(text.failed);
    assert_true(text.size < 64);
    memcpy(out, text.data, text.size);
    out[text.size] = 0;
    api_text_free(&text);
    return out;
}

static void doubles(void **state) {
    (void)state;
    static const struct {
        double x;
        const char *want;
    } cases[] = {
        {0, "0.0"},
        {-0.0, "-0.0"},
        {1, "1.0"},
        {-10, "-10.0"},
        {0.1, "0.1"},
        {0.30000000000000004, "0.30000000000000004"},
        {1e-4, "0.0001"},
        {1e-5, "1e-5"},
        {1.5e-7, "1.5e-7"},
        {123456.789, "123456.789"},
        {9007199254740992, "9007199254740992.0"},
        {1e15, "1000000000000000.0"},
        {1e16, "1e16"},
        {1e22, "1e22"},
        {1e23, "1e23"},
        {1.2345e200, "1.2345e200"},
        {DBL_MAX, "1.7976931348623157e308"},
        {DBL_MIN, "2.2250738585072014e-308"},
        {DBL_TRUE_MIN, "5e-324"},
        {-2.5e-320, "-2.5e-320"},
        {0x1p-44,
         "5.684341886080802e-14"}, /* not the nearest of sixteen digits: that reads as its neighbour */
        {0x1p-1021, "4.450147717014403e-308"},
    };
    char text[64];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(print(&cases[i].x, NN_F64, text), cases[i].want);
}

static void floats(void **state) {
    (void)state;
    static const struct {
        float x;
        const char *want;
    } cases[] = {
        {0.1F, "0.1"},
        {-0.0F, "-0.0"},
        {16777216, "16777216.0"},
        {0.33333334F, "0.33333334"},
        {3.1415927F, "3.1415927"},
        {FLT_MAX, "3.4028235e38"},
        {FLT_MIN, "1.1754944e-38"},
        {FLT_TRUE_MIN, "1e-45"},
        {0x1p90F, "1.2379401e27"},
        {0x1p-96F, "1.2621775e-29"},
    };
    char text[64];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(print(&cases[i].x, NN_F32, text), cases[i].want);
}

static uint64_t random_bits(uint64_t *seed) { /* splitmix64 */
    uint64_t z = *seed += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static int significant_digits(const char *text) {
    int n = 0, zeros = 0;
    for (; *text && *text != 'e'; text++) {
        if (*text < '0' || *text > '9' || (*text == '0' && !n)) continue;
        n++;
        zeros = *text == '0' ? zeros + 1 : 0;
    }
    return n - zeros;
}

/* A number reads back, and the nearest decimal of one digit less does not. At powers of two a decimal that
 * is not the nearest may be shorter still; the tables above have some. */
static void check_f32(float x) {
    char text[64], shorter[64];
    print(&x, NN_F32, text);
    float back = strtof(text, NULL);
    if (memcmp(&back, &x, sizeof x) != 0) fail_msg("%.9g is written %s", (double)x, text);
    int digits = significant_digits(text);
    if (digits < 2) return;
    snprintf(shorter, sizeof shorter, "%.*e", digits - 2, (double)x);
    if (strtof(shorter, NULL) == x) fail_msg("%s is shorter than %s", shorter, text);
    snprintf(shorter, sizeof shorter, "%.*e", digits - 1, (double)x);
    int exponent;
    if (strtod(shorter, NULL) != strtod(text, NULL) && fabsf(frexpf(x, &exponent)) != 0.5F)
        fail_msg("%s is nearer than %s", shorter, text);
}

static void check_f64(double x) {
    char text[64], shorter[64];
    print(&x, NN_F64, text);
    double back = strtod(text, NULL);
    if (memcmp(&back, &x, sizeof x) != 0) fail_msg("%.17g is written %s", x, text);
    int digits = significant_digits(text);
    if (digits < 2) return;
    snprintf(shorter, sizeof shorter, "%.*e", digits - 2, x);
    if (strtod(shorter, NULL) == x) fail_msg("%s is shorter than %s", shorter, text);
}

static void random_floats(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (int i = 0; i < 1000000; i++) {
        uint32_t bits = (uint32_t)random_bits(&seed);
        if (i % 4 == 0) bits &= 0xff800000U | 0x7fffffU << (bits & 31) % 24; /* few bits: short decimals */
        float x;
        memcpy(&x, &bits, sizeof x);
        if (isfinite(x)) check_f32(x);
    }
    for (uint32_t e = 0; e < 255; e++) { /* every power of two and its neighbours */
        for (uint32_t d = 0; d < 3; d++) {
            uint32_t bits = (e << 23) + d - 1;
            float x;
            memcpy(&x, &bits, sizeof x);
            if (isfinite(x)) check_f32(x);
        }
    }
}

static void random_doubles(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int i = 0; i < 600000; i++) {
        uint64_t bits = random_bits(&seed);
        if (i % 4 == 0) bits &= ~UINT64_C(0) << (bits & 63) % 53;
        if (i % 4 > 1) bits = (bits & 0x800fffffffffffff) | (1023 - 50 + (bits >> 53) % 100) << 52;
        double x;
        memcpy(&x, &bits, sizeof x);
        if (isfinite(x)) check_f64(x);
    }
    for (uint64_t e = 0; e < 2047; e++) {
        for (uint64_t d = 0; d < 3; d++) {
            uint64_t bits = (e << 52) + d - 1;
            double x;
            memcpy(&x, &bits, sizeof x);
            if (isfinite(x)) check_f64(x);
        }
    }
    for (int i = 0; i < 100000; i++) { /* decimals that people write */
        double x = (double)(random_bits(&seed) % 1000000) / 1e4;
        check_f64(x);
        check_f32((float)x);
    }
}

/* What is written is read as the same bits. */
static void round_trip(void **state) {
    (void)state;
    enum { N = 100000 };
    static float in[N], out[N];
    uint64_t seed = 4;
    for (int i = 0; i < N; i++) {
        do {
            uint32_t bits = (uint32_t)random_bits(&seed);
            memcpy(&in[i], &bits, sizeof bits);
        } while (!isfinite(in[i]));
    }
    struct nn_shape shape = {3, {10, N / 100, 10}};
    struct api_text text = {0};
    api_text_array(&text, in, NN_F32, &shape);
    struct nn_error err = {0};
    struct api_tensor tensor = {.json = text.data};
    tensor.json_size = api_json_array_scan(text.data, text.size, &tensor.shape, &err);
    assert_int_equal(tensor.json_size, text.size);
    assert_true(nn_shape_equal(&tensor.shape, &shape));
    assert_int_equal(api_tensor_convert(&tensor, NN_F32, out, &err), NN_OK);
    assert_memory_equal(in, out, sizeof in);
    api_text_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows),         cmocka_unit_test(fails_once),
        cmocka_unit_test(quotes),        cmocka_unit_test(quotes_everything),
        cmocka_unit_test(arrays),        cmocka_unit_test(bounds),
        cmocka_unit_test(doubles),       cmocka_unit_test(floats),
        cmocka_unit_test(random_floats), cmocka_unit_test(random_doubles),
        cmocka_unit_test(round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
