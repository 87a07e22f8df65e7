/* dtype.c - the types on the wire, and their conversion to and from core's types.
 *
 * Elements are converted through double, block by block. Every type but I64 widens to double exactly, so a result is
 * rounded once. */
#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "convert.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "elements on the wire are little-endian");

#define BLOCK 512 /* elements converted at a time */

/* --- half precision ---------------------------------------------------------------------------- */

static uint32_t float_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static double f16_value(uint16_t half) {
    uint32_t exponent = half >> 10 & 0x1f, mantissa = half & 0x3ff;
    float magnitude;
    if (exponent == 0)
        magnitude = (float)mantissa * 0x1p-24F;
    else if (exponent == 0x1f)
        magnitude = float_of_bits(0x7f800000 | mantissa << 13);
    else
        magnitude = float_of_bits((exponent + 127 - 15) << 23 | mantissa << 13);
    return (double)(half & 0x8000 ? -magnitude : magnitude);
}

static double bf16_value(uint16_t half) { return (double)float_of_bits((uint32_t)half << 16); }

/* Truncates to float, and sets the last bit if the value changed ("round to odd"). Rounding the result once more, to
 * fewer bits, then gives the same as rounding `x` directly. */
static float round_to_odd(double x) {
    float nearest = (float)x;
    if ((double)nearest == x || isnan(x)) return nearest;
    uint32_t bits = float_bits(nearest);
    if (fabs((double)nearest) > fabs(x)) bits--;
    return float_of_bits(bits | 1);
}

static uint16_t f16_bits(double x) {
    uint32_t bits = float_bits(round_to_odd(x)), sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (bits >= 0x47800000) return (uint16_t)(sign | 0x7c00); /* from 65536 on */
    if (bits < 0x38800000) /* below 2^-14: steps of 2^-24, as floats above 0.5 have */
        return (uint16_t)(sign | (float_bits(float_of_bits(bits) + 0.5F) - float_bits(0.5F)));
    bits = bits - ((127 - 15) << 23) + 0xfff + (bits >> 13 & 1);
    return (uint16_t)(sign | bits >> 13);
}

static uint16_t bf16_bits(double x) {
    uint32_t bits = float_bits(round_to_odd(x));
    if (isnan(x)) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* --- the table --------------------------------------------------------------------------------- */

/* Conversion between elements of a wire type and doubles. */
#define WIDEN(name, type, value)                                                                             \
    static void widen_##name(const unsigned char *from, double *to, size_t n) {                              \
        for (size_t i = 0; i < n; i++) {                                                                     \
            type x;                                                                                          \
            memcpy(&x, from + i * sizeof x, sizeof x);                                                       \
            to[i] = value;                                                                                   \
        }                                                                                                    \
    }
#define NARROW(name, type, value)                                                                            \
    static void narrow_##name(const double *from, unsigned char *to, size_t n) {                             \
        for (size_t i = 0; i < n; i++) {                                                                     \
            type x = value;                                                                                  \
            memcpy(to + i * sizeof x, &x, sizeof x);                                                         \
        }                                                                                                    \
    }

WIDEN(f32, float, (double)x)
WIDEN(f64, double, x)
WIDEN(f16, uint16_t, f16_value(x))
WIDEN(bf16, uint16_t, bf16_value(x))
WIDEN(u8, uint8_t, x)
WIDEN(i32, int32_t, x)
NARROW(f32, float, (float)from[i])
NARROW(f64, double, from[i])
NARROW(f16, uint16_t, f16_bits(from[i]))
NARROW(bf16, uint16_t, bf16_bits(from[i]))

static const struct {
    const char *name;
    size_t size;
    bool is_float;
    void (*widen)(const unsigned char *from, double *to, size_t n);
    void (*narrow)(const double *from, unsigned char *to, size_t n);
} dtypes[API_DTYPES] = {
    [API_F32] = {"F32", 4, true, widen_f32, narrow_f32},
    [API_F64] = {"F64", 8, true, widen_f64, narrow_f64},
    [API_F16] = {"F16", 2, true, widen_f16, narrow_f16},
    [API_BF16] = {"BF16", 2, true, widen_bf16, narrow_bf16},
    [API_U8] = {"U8", 1, false, widen_u8, NULL},
    [API_I32] = {"I32", 4, false, widen_i32, NULL},
    [API_I64] = {"I64", 8, false, NULL, NULL}, /* a double does not hold all values */
    [API_BOOL] = {"BOOL", 1, false, widen_u8, NULL},
};

size_t api_dtype_size(enum api_dtype dtype) { return dtypes[dtype].size; }
const char *api_dtype_name(enum api_dtype dtype) { return dtypes[dtype].name; }
bool api_dtype_is_float(enum api_dtype dtype) { return dtypes[dtype].is_float; }

enum api_dtype api_dtype_find(const char *name) {
    int i = 0;
    while (i < API_DTYPES && strcmp(dtypes[i].name, name) != 0) i++;
    return (enum api_dtype)i;
}

enum api_dtype api_dtype_of(enum nn_dtype dtype) {
    static const enum api_dtype same[] = {[NN_F32] = API_F32, [NN_F64] = API_F64, [NN_I64] = API_I64};
    return same[dtype];
}

/* --- from the wire ----------------------------------------------------------------------------- */

/* The error of a refused conversion. */
struct refusal {
    enum nn_code code;
    const char *what;
};
static const struct refusal accepted = {NN_OK, NULL};

/* Converts doubles to core's elements. Integers (`exact`) must not be rounded. *at becomes the index of the first
 * element that is refused. */
static struct refusal put_f64(const double *from, bool exact, double *to, size_t n, size_t *at) {
    (void)exact;
    bool good = true;
    for (size_t i = 0; i < n; i++) good &= fabs(to[i] = from[i]) <= DBL_MAX;
    if (good) return accepted;
    for (*at = 0; fabs(from[*at]) <= DBL_MAX;) ++*at;
    return (struct refusal){NN_E_NOT_FINITE, "is not finite"};
}

static struct refusal put_f32(const double *from, bool exact, float *to, size_t n, size_t *at) {
    bool good = true;
    for (size_t i = 0; i < n; i++) {
        to[i] = (float)from[i];
        good &= fabsf(to[i]) <= FLT_MAX && (!exact || (double)to[i] == from[i]);
    }
    if (good) return accepted;
    for (*at = 0; fabsf(to[*at]) <= FLT_MAX && (!exact || (double)to[*at] == from[*at]);) ++*at;
    if (!isfinite(from[*at])) return (struct refusal){NN_E_NOT_FINITE, "is not finite"};
    return (struct refusal){NN_E_VALUE, exact ? "is an integer that F32 does not hold exactly"
                                              : "is beyond the range of F32"};
}

static struct refusal put_i64(const double *from, bool exact, int64_t *to, size_t n, size_t *at) {
    static const double limit = 0x1p63;
    (void)exact;
    for (size_t i = 0; i < n; i++) {
        *at = i;
        if (!isfinite(from[i])) return (struct refusal){NN_E_NOT_FINITE, "is not finite"};
        if (from[i] < -limit || from[i] >= limit)
            return (struct refusal){NN_E_VALUE, "is beyond the range of I64"};
        to[i] = (int64_t)from[i];
        if ((double)to[i] != from[i]) return (struct refusal){NN_E_VALUE, "is not an integer"};
    }
    return accepted;
}

static struct refusal put(const double *from, bool exact, enum nn_dtype type, void *out, size_t n,
                          size_t *at) {
    if (type == NN_F32) return put_f32(from, exact, out, n, at);
    if (type == NN_F64) return put_f64(from, exact, out, n, at);
    return put_i64(from, exact, out, n, at);
}

static int convert_elements(const struct api_tensor *tensor, enum nn_dtype to, unsigned char *out,
                            struct nn_error *err) {
    const unsigned char *from = tensor->data;
    size_t n = (size_t)nn_shape_elements(&tensor->shape), size = dtypes[tensor->dtype].size;
    double block[BLOCK];
    for (size_t done = 0, part; done < n; done += part) {
        part = n - done < BLOCK ? n - done : BLOCK;
        dtypes[tensor->dtype].widen(from + done * size, block, part);
        size_t at = 0;
        struct refusal refusal =
            put(block, !dtypes[tensor->dtype].is_float, to, out + done * nn_dtype_size(to), part, &at);
        if (tensor->dtype == API_BOOL)
            for (size_t i = 0; i < part && !refusal.code; i++)
                if (block[at = i] > 1) refusal = (struct refusal){NN_E_VALUE, "is a BOOL other than 0 or 1"};
        if (refusal.code)
            return api_element_fail(err, refusal.code, &tensor->shape, (int64_t)(done + at), refusal.what);
    }
    return NN_OK;
}

/* Converts I64, which does not pass through double. */
static int convert_integers(const struct api_tensor *tensor, enum nn_dtype to, void *out,
                            struct nn_error *err) {
    const unsigned char *from = tensor->data;
    int64_t n = nn_shape_elements(&tensor->shape);
    for (int64_t i = 0; i < n; i++) {
        int64_t x;
        memcpy(&x, from + (size_t)i * sizeof x, sizeof x);
        double real = to == NN_F32 ? (double)(float)x : (double)x;
        /* Rounding may give 2^63, which int64_t does not hold: converting it back would be undefined. */
        if (to != NN_I64 && (real >= 0x1p63 || (int64_t)real != x))
            return api_element_fail(err, NN_E_VALUE, &tensor->shape, i,
                                    to == NN_F32 ? "is an integer that F32 does not hold exactly"
                                                 : "is an integer that F64 does not hold exactly");
        if (to == NN_F32)
            ((float *)out)[i] = (float)x;
        else if (to == NN_F64)
            ((double *)out)[i] = real;
        else
            ((int64_t *)out)[i] = x;
    }
    return NN_OK;
}

int api_tensor_convert(const struct api_tensor *tensor, enum nn_dtype to, void *out, struct nn_error *err) {
    if (tensor->json) return api_json_array_convert(tensor, to, out, err);
    if (tensor->dtype == API_I64) return convert_integers(tensor, to, out, err);
    return convert_elements(tensor, to, out, err);
}

/* Copies and checks in one pass, while the element is in a register. A number is finite unless its exponent bits are
 * all ones. */
#define COPY(bits, exponent)                                                                                 \
    static bool copy_##bits(const unsigned char *restrict from, unsigned char *restrict to, size_t n) {      \
        uint##bits##_t bad = 0;                                                                              \
        for (size_t i = 0; i < n; i++) {                                                                     \
            uint##bits##_t x;                                                                                \
            memcpy(&x, from + i * sizeof x, sizeof x);                                                       \
            memcpy(to + i * sizeof x, &x, sizeof x);                                                         \
            bad |= (x & (exponent)) == (exponent);                                                           \
        }                                                                                                    \
        return !bad;                                                                                         \
    }
COPY(32, UINT32_C(0x7f800000))
COPY(64, UINT64_C(0x7ff0000000000000))

#define COPIED_AT_ONCE ((size_t)1 << 18) /* elements; fewer are not worth another thread */

struct copy {
    const unsigned char *from;
    unsigned char *to;
    enum nn_dtype type;
    size_t n;
    atomic_bool bad;
};

static void copy_part(void *arg, size_t part) {
    struct copy *copy = arg;
    size_t first = part * COPIED_AT_ONCE,
           n = copy->n - first < COPIED_AT_ONCE ? copy->n - first : COPIED_AT_ONCE;
    size_t at = first * nn_dtype_size(copy->type);
    bool good = true;
    if (copy->type == NN_I64)
        memcpy(copy->to + at, copy->from + at, n * sizeof(int64_t));
    else
        good = (copy->type == NN_F32 ? copy_32 : copy_64)(copy->from + at, copy->to + at, n);
    if (!good) atomic_store_explicit(&copy->bad, true, memory_order_relaxed);
}

bool api_elements_copy(const void *from, enum nn_dtype type, void *out, int64_t n,
                       const struct nn_parallel *par) {
    struct copy copy = {.from = from, .to = out, .type = type, .n = (size_t)n};
    size_t parts = ((size_t)n + COPIED_AT_ONCE - 1) / COPIED_AT_ONCE;
    if (par && par->run && parts > 1)
        par->run(par->pool, parts, copy_part, &copy);
    else
        for (size_t i = 0; i < parts; i++) copy_part(&copy, i);
    return !atomic_load(&copy.bad);
}

/* --- to the wire ------------------------------------------------------------------------------- */

void api_elements_convert(const void *from, enum nn_dtype from_type, void *to, enum api_dtype to_type,
                          int64_t n) {
    const unsigned char *source = from;
    unsigned char *target = to;
    size_t count = (size_t)n, from_size = nn_dtype_size(from_type), to_size = dtypes[to_type].size;
    if (api_dtype_of(from_type) == to_type) {
        if (count) memcpy(target, source, count * to_size);
        return;
    }
    assert(from_type != NN_I64 && dtypes[to_type].is_float);
    double block[BLOCK];
    for (size_t done = 0, part; done < count; done += part) {
        part = count - done < BLOCK ? count - done : BLOCK;
        dtypes[api_dtype_of(from_type)].widen(source + done * from_size, block, part);
        dtypes[to_type].narrow(block, target + done * to_size, part);
    }
}

void api_elements_widen(const void *from, enum api_dtype from_type, float *to, int64_t n) {
    double wide[BLOCK];
    const unsigned char *bytes = from;
    for (int64_t done = 0; done < n; done += BLOCK) {
        size_t count = (size_t)(n - done < BLOCK ? n - done : BLOCK);
        dtypes[from_type].widen(bytes + (size_t)done * dtypes[from_type].size, wide, count);
        for (size_t i = 0; i < count; i++) to[done + (int64_t)i] = (float)wide[i];
    }
}
