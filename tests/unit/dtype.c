/* The types on the wire: half precision bit by bit, rounding, exact integers, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../api/wire/tensor.h"
#include "../support/threads.h"

static void names(void **state) {
    (void)state;
    static const struct {
        const char *name;
        size_t size;
        enum api_dtype dtype;
        bool is_float;
    } cases[] = {
        {"F32", 4, API_F32, true},   {"F64", 8, API_F64, true},    {"F16", 2, API_F16, true},
        {"BF16", 2, API_BF16, true}, {"U8", 1, API_U8, false},     {"I32", 4, API_I32, false},
        {"I64", 8, API_I64, false},  {"BOOL", 1, API_BOOL, false},
    };
    assert_int_equal(sizeof cases / sizeof *cases, API_DTYPES);
    for (size_t i = 0; i < API_DTYPES; i++) {
        assert_int_equal(api_dtype_find(cases[i].name), cases[i].dtype);
        assert_string_equal(api_dtype_name(cases[i].dtype), cases[i].name);
        assert_int_equal(api_dtype_size(cases[i].dtype), cases[i].size);
        assert_int_equal(api_dtype_is_float(cases[i].dtype), cases[i].is_float);
    }
    assert_int_equal(api_dtype_find("f32"), API_DTYPES);
    assert_int_equal(api_dtype_find(""), API_DTYPES);
    for (enum nn_dtype dtype = NN_F32; dtype <= NN_I64; dtype++)
        assert_string_equal(api_dtype_name(api_dtype_of(dtype)), nn_dtype_name(dtype));
}

/* --- half precision ---------------------------------------------------------------------------- */

/* What the bits say, by arithmetic on the formats' definitions. */
static double half_by_definition(uint16_t bits, int mantissa_bits, int bias) {
    int exponent = (bits & 0x7fff) >> mantissa_bits, largest = 0x7fff >> mantissa_bits;
    double mantissa = (double)(bits & ((1 << mantissa_bits) - 1)), magnitude;
    if (exponent == largest)
        magnitude = mantissa != 0 ? (double)NAN : (double)INFINITY;
    else if (exponent == 0)
        magnitude = ldexp(mantissa, 1 - bias - mantissa_bits);
    else
        magnitude = ldexp(mantissa + ldexp(1, mantissa_bits), exponent - bias - mantissa_bits);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static const struct half {
    enum api_dtype dtype;
    int mantissa_bits, bias;
    uint16_t infinity;
} halves[] = {{API_F16, 10, 15, 0x7c00}, {API_BF16, 7, 127, 0x7f80}};

static uint16_t narrow_f64(double x, enum api_dtype dtype) {
    uint16_t out;
    api_elements_convert(&x, NN_F64, &out, dtype, 1);
    return out;
}

static uint16_t narrow_f32(float x, enum api_dtype dtype) {
    uint16_t out;
    api_elements_convert(&x, NN_F32, &out, dtype, 1);
    return out;
}

/* All 65,536 patterns of both types in, and out again. */
static void halves_round_trip(void **state) {
    (void)state;
    for (const struct half *h = halves; h < halves + 2; h++) {
        for (uint32_t i = 0; i < 0x10000; i++) {
            uint16_t bits = (uint16_t)i;
            double want = half_by_definition(bits, h->mantissa_bits, h->bias), f64 = 0;
            float f32;
            struct api_tensor tensor = {.data = &bits, .dtype = h->dtype};
            struct nn_error err = {0};
            int code = api_tensor_convert(&tensor, NN_F64, &f64, &err);
            assert_int_equal(code, isfinite(want) ? NN_OK : NN_E_NOT_FINITE);
            api_elements_widen(&bits, h->dtype, &f32, 1);
            if (isnan(want)) {
                assert_true(isnan(f32));
                assert_int_equal(narrow_f32(f32, h->dtype) & h->infinity, h->infinity);
                assert_true((narrow_f32(f32, h->dtype) & 0x7fff) > h->infinity);
                continue;
            }
            double widened = (double)f32;
            assert_memory_equal(&widened, &want, sizeof want);
            if (!code) assert_memory_equal(&f64, &want, sizeof want);
            assert_int_equal(narrow_f32(f32, h->dtype), bits);
            assert_int_equal(narrow_f64(want, h->dtype), bits);
        }
    }
}

/* Between each two neighbours: the half goes to the even one, and a double's last bit beside it decides. */
static void halves_round_to_even(void **state) {
    (void)state;
    for (const struct half *h = halves; h < halves + 2; h++) {
        for (uint16_t low = 0; low < h->infinity; low++) {
            uint16_t high = (uint16_t)(low + 1), even = low % 2 ? high : low;
            double a = half_by_definition(low, h->mantissa_bits, h->bias);
            double b = high < h->infinity ? half_by_definition(high, h->mantissa_bits, h->bias)
                                          : ldexp(1, h->bias + 1);
            double middle = a + (b - a) / 2;
            assert_int_equal(narrow_f64(middle, h->dtype), even);
            assert_int_equal(narrow_f64(-middle, h->dtype), even | 0x8000);
            assert_int_equal(narrow_f64(nextafter(middle, a), h->dtype), low);
            assert_int_equal(narrow_f64(nextafter(middle, b), h->dtype), high);
            float single = (float)middle; /* exact: both types have room to spare in float */
            assert_int_equal(narrow_f32(single, h->dtype), even);
            assert_int_equal(narrow_f32(nextafterf(single, 0), h->dtype), low);
            assert_int_equal(narrow_f32(nextafterf(single, INFINITY), h->dtype), high);
        }
        assert_int_equal(narrow_f64(DBL_MAX, h->dtype), h->infinity);
        assert_int_equal(narrow_f64(-(double)INFINITY, h->dtype), h->infinity | 0x8000);
        assert_int_equal(narrow_f64(DBL_TRUE_MIN, h->dtype), 0);
        assert_true((narrow_f64((double)NAN, h->dtype) & 0x7fff) > h->infinity);
    }
}

/* --- one element after the other --------------------------------------------------------------- */

struct element {
    enum api_dtype from;
    union {
        float f32;
        double f64;
        uint16_t half;
        uint8_t u8;
        int32_t i32;
        int64_t i64;
    } x;
    enum nn_dtype to;
    enum nn_code code;
    double real; /* what comes out as F32 or F64 */
    int64_t integer;
};

static void elements(void **state) {
    (void)state;
    static const struct element cases[] = {
        {API_F32, {.f32 = 1.5F}, NN_F32, NN_OK, 1.5, 0},
        {API_F32, {.f32 = FLT_MAX}, NN_F32, NN_OK, (double)FLT_MAX, 0},
        {API_F32, {.f32 = FLT_TRUE_MIN}, NN_F64, NN_OK, 0x1p-149, 0},
        {API_F32, {.f32 = INFINITY}, NN_F32, NN_E_NOT_FINITE, 0, 0},
        {API_F32, {.f32 = NAN}, NN_F64, NN_E_NOT_FINITE, 0, 0},
        {API_F32, {.f32 = NAN}, NN_I64, NN_E_NOT_FINITE, 0, 0},
        {API_F32, {.f32 = 3}, NN_I64, NN_OK, 0, 3},
        {API_F32, {.f32 = 3.5F}, NN_I64, NN_E_VALUE, 0, 0},
        {API_F64, {.f64 = 0.1}, NN_F64, NN_OK, 0.1, 0},
        {API_F64, {.f64 = 0.1}, NN_F32, NN_OK, (double)0.1F, 0},
        {API_F64, {.f64 = 1 + 0x1p-24}, NN_F32, NN_OK, 1, 0},
        {API_F64, {.f64 = 1 + 0x3p-24}, NN_F32, NN_OK, 1 + 0x1p-22, 0},
        {API_F64, {.f64 = 1e39}, NN_F32, NN_E_VALUE, 0, 0},
        {API_F64, {.f64 = -0x1.ffffffp127}, NN_F32, NN_E_VALUE, 0, 0},
        {API_F64, {.f64 = 0x1.fffffefffffffp127}, NN_F32, NN_OK, (double)FLT_MAX, 0},
        {API_F64, {.f64 = 1e-60}, NN_F32, NN_OK, 0, 0},
        {API_F64, {.f64 = -INFINITY}, NN_F32, NN_E_NOT_FINITE, 0, 0},
        {API_F64, {.f64 = 0x1p53}, NN_I64, NN_OK, 0, INT64_C(1) << 53},
        {API_F64, {.f64 = -0x1p63}, NN_I64, NN_OK, 0, INT64_MIN},
        {API_F64, {.f64 = 0x1p63}, NN_I64, NN_E_VALUE, 0, 0},
        {API_F64, {.f64 = -0x1.0000000000001p63}, NN_I64, NN_E_VALUE, 0, 0},
        {API_F64, {.f64 = 1e-300}, NN_I64, NN_E_VALUE, 0, 0},
        {API_F16, {.half = 0xc000}, NN_F32, NN_OK, -2, 0},
        {API_BF16, {.half = 0x4040}, NN_I64, NN_OK, 0, 3},
        {API_U8, {.u8 = 255}, NN_F32, NN_OK, 255, 0},
        {API_U8, {.u8 = 255}, NN_I64, NN_OK, 0, 255},
        {API_I32, {.i32 = INT32_MIN}, NN_F32, NN_OK, -0x1p31, 0},
        {API_I32, {.i32 = INT32_MAX}, NN_F64, NN_OK, 2147483647, 0},
        {API_I32, {.i32 = INT32_MAX}, NN_F32, NN_E_VALUE, 0, 0},
        {API_I32, {.i32 = 16777217}, NN_F32, NN_E_VALUE, 0, 0},
        {API_I32, {.i32 = 16777218}, NN_F32, NN_OK, 16777218, 0},
        {API_I32, {.i32 = -7}, NN_I64, NN_OK, 0, -7},
        {API_I64, {.i64 = INT64_MAX}, NN_I64, NN_OK, 0, INT64_MAX},
        {API_I64, {.i64 = INT64_MIN}, NN_F32, NN_OK, -0x1p63, 0},
        {API_I64, {.i64 = INT64_MAX}, NN_F32, NN_E_VALUE, 0, 0},
        {API_I64, {.i64 = INT64_MAX}, NN_F64, NN_E_VALUE, 0, 0},
        {API_I64, {.i64 = INT64_C(9007199254740993)}, NN_F64, NN_E_VALUE, 0, 0},
        {API_I64, {.i64 = INT64_C(9007199254740994)}, NN_F64, NN_OK, 9007199254740994, 0},
        {API_BOOL, {.u8 = 1}, NN_F32, NN_OK, 1, 0},
        {API_BOOL, {.u8 = 0}, NN_I64, NN_OK, 0, 0},
        {API_BOOL, {.u8 = 2}, NN_F64, NN_E_VALUE, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct element *c = &cases[i];
        unsigned char unaligned[9];
        memcpy(unaligned + 1, &c->x, api_dtype_size(c->from));
        struct api_tensor tensor = {.data = unaligned + 1, .dtype = c->from};
        struct nn_error err = {0};
        float f32 = 0;
        double f64 = 0;
        int64_t i64 = 0;
        void *const out[] = {[NN_F32] = &f32, [NN_F64] = &f64, [NN_I64] = &i64};
        int code = api_tensor_convert(&tensor, c->to, out[c->to], &err);
        if (code != (int)c->code) fail_msg("case %zu: code %d, not %d: %s", i, code, (int)c->code, err.text);
        if (code) continue;
        if (c->to == NN_F32) f64 = (double)f32;
        if (f64 != c->real || i64 != c->integer) fail_msg("case %zu: %.17g, %lld", i, f64, (long long)i64);
    }
}

/* Elements of the type that they are to have, from any address, in one part and in several. */
static void copies(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 7, 64, 1000, ((size_t)1 << 19) + 3};
    static const enum nn_dtype types[] = {NN_F32, NN_F64, NN_I64};
    size_t most = sizes[4] * 8;
    unsigned char *from = malloc(most + 1), *to = malloc(most + 1);
    struct nn_parallel two = test_parallel(2);
    for (size_t i = 0; i < most + 1; i++)
        from[i] = (unsigned char)(i * 2654435761u >> 24 & 0x3f); /* finite */
    for (size_t s = 0; s < 15; s++) {
        enum nn_dtype type = types[s % 3];
        size_t n = sizes[s / 3], bytes = n * nn_dtype_size(type), half = bytes / 2;
        unsigned char *last = from + 1 + bytes - 1, kept = *last;
        memset(to, 0xff, most + 1);
        assert_true(api_elements_copy(from + 1, type, to + 1, (int64_t)n, s % 2 ? &two : NULL));
        assert_memory_equal(from + 1, to + 1, half);
        assert_memory_equal(from + 1 + half, to + 1 + half, bytes - half);
        assert_int_equal(to[0], 0xff);
        if (bytes < most) assert_int_equal(to[1 + bytes], 0xff);
        if (type == NN_I64) continue; /* any bits will do */
        unsigned char above = last[-1];
        last[0] = 0x7f;
        last[-1] = 0xf0; /* an infinity in F64, a NaN in F32 */
        assert_false(api_elements_copy(from + 1, type, to + 1, (int64_t)n, s % 2 ? &two : NULL));
        last[0] = kept;
        last[-1] = above;
    }
    free(from);
    free(to);
}

/* Longer than one block, with the fault far inside. */
static void long_tensors(void **state) {
    (void)state;
    enum { ROWS = 7, COLUMNS = 300, N = ROWS * COLUMNS };
    static uint8_t in[N];
    static float out[N];
    for (int i = 0; i < N; i++) in[i] = (uint8_t)(i % 251);
    struct api_tensor tensor = {.data = in, .dtype = API_U8, .shape = {2, {ROWS, COLUMNS}}};
    struct nn_error err = {0};
    assert_int_equal(api_tensor_convert(&tensor, NN_F32, out, &err), NN_OK);
    for (int i = 0; i < N; i++) assert_true(out[i] == (float)(i % 251));

    static float reals[N];
    reals[4 * COLUMNS + 17] = NAN;
    tensor.data = reals;
    tensor.dtype = API_F32;
    assert_int_equal(api_tensor_convert(&tensor, NN_F32, out, &err), NN_E_NOT_FINITE);
    assert_string_equal(err.text, "element [4, 17] is not finite");

    memset(in, 1, sizeof in);
    in[6 * COLUMNS + 299] = 7;
    tensor.data = in;
    tensor.dtype = API_BOOL;
    err.code = NN_OK;
    assert_int_equal(api_tensor_convert(&tensor, NN_F32, out, &err), NN_E_VALUE);
    assert_non_null(strstr(err.text, "element [6, 299]"));

    static double doubles[N], back[N];
    for (int i = 0; i < N; i++) doubles[i] = i / 8.0;
    api_elements_convert(doubles, NN_F64, out, API_F32, N);
    api_elements_convert(out, NN_F32, back, API_F64, N);
    assert_memory_equal(doubles, back, sizeof back);
    api_elements_convert(doubles, NN_F64, back, API_F64, 0);

    static const int64_t ids[] = {INT64_MIN, -1, INT64_MAX};
    int64_t copy[3];
    api_elements_convert(ids, NN_I64, copy, API_I64, 3);
    assert_memory_equal(ids, copy, sizeof ids);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(halves_round_trip),
        cmocka_unit_test(halves_round_to_even),
        cmocka_unit_test(elements),
        cmocka_unit_test(copies),
        cmocka_unit_test(long_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
