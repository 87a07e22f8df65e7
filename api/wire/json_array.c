/* json_array.c - nested arrays of numbers in JSON. One pass checks and measures them, and one converts them. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert.h"
#include "decimal.h"

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static inline bool is_space(char c) { return c <= ' ' && (c == ' ' || c == '\n' || c == '\r' || c == '\t'); }

/* --- numbers ----------------------------------------------------------------------------------- */

/* digits * 10^exponent with a sign. `inexact`: `digits` holds the first 19 digits, and one behind them is not 0. */
struct number {
    uint64_t digits;
    int64_t exponent;
    bool negative, inexact;
    const char *first; /* if inexact: the first digit in the text */
};

#define MAX_DIGITS 19 /* decimal digits that always fit 64 bits */
/* An exponent in the text stops growing here: far above the size of any body, so that sums do not overflow. */
#define MAX_EXPONENT INT64_C(1000000000000000)

/* Reads the digits and the point of a number once more, because more than 19 digits may overflow `digits`. Keeps the
 * first 19 significant ones. */
static void read_long(const char *p, const char *end, struct number *out) {
    int kept = 0;
    bool fraction = false;
    out->first = p;
    out->digits = 0;
    out->exponent = 0;
    for (; p < end; p++) {
        if (*p == '.') {
            fraction = true;
        } else if (kept < MAX_DIGITS) {
            out->digits = out->digits * 10 + (uint64_t)(*p - '0');
            kept += out->digits != 0;
            out->exponent -= fraction;
        } else {
            out->inexact |= *p != '0';
            out->exponent += !fraction;
        }
    }
}

/* Reads JSON's `exp` behind the 'e'. NULL: it is malformed. */
static const char *read_exponent(const char *p, const char *end, int64_t *exponent) {
    bool negative = p < end && *p == '-';
    if (p < end && (*p == '-' || *p == '+')) p++;
    if (p == end || !is_digit(*p)) return NULL;
    int64_t value = 0;
    for (; p < end && is_digit(*p); p++)
        if (value < MAX_EXPONENT) value = value * 10 + (*p - '0');
    *exponent += negative ? -value : value;
    return p;
}

/* Reads JSON's `number`, of any length. Returns its end. NULL: there is no number at p. */
static __attribute__((noinline)) const char *read_any(const char *p, const char *end, struct number *out) {
    *out = (struct number){.negative = p < end && *p == '-'};
    p += out->negative;
    const char *first = p;
    for (; p < end && is_digit(*p); p++) out->digits = out->digits * 10 + (uint64_t)(*p - '0');
    if (p == first || (*first == '0' && p - first > 1)) return NULL;
    if (p < end && *p == '.') {
        const char *point = p++;
        for (; p < end && is_digit(*p); p++) out->digits = out->digits * 10 + (uint64_t)(*p - '0');
        if (p == point + 1) return NULL;
        out->exponent = point + 1 - p;
    }
    if (p - first > MAX_DIGITS + (out->exponent != 0)) read_long(first, p, out);
    if (p < end && (*p == 'e' || *p == 'E')) return read_exponent(p + 1, end, &out->exponent);
    return p;
}

/* The number that eight digits form; the lowest byte holds the first digit. Neighbours are joined to pairs, fours and
 * eights (Lemire, "Number parsing at a gigabyte per second", Software: Practice and Experience 51, 2021, section 3). */
static inline uint64_t join_eight(uint64_t x) {
    x = x * 10 + (x >> 8);
    return ((x & 0x000000ff000000ff) * 0x000f424000000064 +
            (x >> 16 & 0x000000ff000000ff) * 0x0000271000000001) >>
           32;
}

/* Reads up to 8 * chunks - 1 digits, eight at a time, and appends them to *digits. NULL: there are more. */
static inline const char *append_digits(const char *p, int chunks, uint64_t *digits) {
    static const uint64_t powers[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000};
    for (int chunk = 0; chunk < chunks; chunk++) {
        uint64_t x;
        memcpy(&x, p, sizeof x);
        x ^= 0x3030303030303030; /* digits become 0 to 9, every other character more */
        /* Sets the high bit of each byte that is no digit. The sum carries into a byte only from one that is no digit,
         * so the first such byte is found correctly. */
        uint64_t others = (x | (x + 0x7676767676767676)) & 0x8080808080808080;
        if (others) { /* shifts zeros in front of the n digits; in two steps, because a shift by 64 is undefined */
            unsigned n = (unsigned)__builtin_ctzll(others) / 8;
            *digits = *digits * powers[n] + join_eight(x << 8 << (56 - 8 * n));
            return p + n;
        }
        *digits = *digits * 100000000 + join_eight(x);
        p += 8;
    }
    return NULL;
}

#define SHORT 48 /* bytes that read_short may read */

/* Reads a number of usual length, mostly without a loop over single digits. NULL: read_any must read it. */
static inline const char *read_short(const char *p, struct number *out) {
    *out = (struct number){.negative = *p == '-'};
    p += out->negative;
    const char *first = p, *part;
    if (p[1] == '.') {
        if (!is_digit(*p)) return NULL;
        out->digits = (uint64_t)(*p++ - '0');
    } else {
        p = append_digits(p, 1, &out->digits);
        if (!p || p == first || (*first == '0' && p - first > 1)) return NULL;
    }
    if (*p == '.') {
        p = append_digits(part = p + 1, 3, &out->digits);
        if (!p || p == part || p - first > MAX_DIGITS + 1 + (*first == '0')) return NULL;
        out->exponent = part - p;
    }
    if ((*p | 0x20) == 'e') {
        uint64_t exponent = 0;
        bool negative = *++p == '-';
        p += negative | (*p == '+');
        p = append_digits(part = p, 1, &exponent);
        if (!p || p == part) return NULL;
        out->exponent += negative ? -(int64_t)exponent : (int64_t)exponent;
    }
    return p;
}

/* Reads JSON's `true` and `false` as the numbers 1 and 0. */
static __attribute__((noinline)) const char *read_boolean(const char *p, const char *end,
                                                          struct number *out) {
    *out = (struct number){.digits = p < end && *p == 't'};
    const char *word = out->digits ? "true" : "false";
    size_t size = strlen(word);
    return (size_t)(end - p) >= size && memcmp(p, word, size) == 0 ? p + size : NULL;
}

/* read_short is inlined, so where a scan ignores *out, the compiler leaves out the computation of the value. The
 * functions that are not inlined write to `other`, because a pointer to *out that they got would prevent this. */
static inline const char *read_element(const char *p, const char *end, struct number *out) {
    const char *after = end - p >= SHORT ? read_short(p, out) : NULL;
    if (after) return after;
    struct number other;
    after = read_any(p, end, &other);
    if (!after) after = read_boolean(p, end, &other);
    *out = other;
    return after;
}

/* --- scanning ---------------------------------------------------------------------------------- */

static inline const char *skip_space(const char *p, const char *end) {
    while (p < end && is_space(*p)) p++;
    return p;
}

struct scan {
    const char *text, *p, *end;
    struct nn_shape shape;      /* rank 0 until the first number; a dimension is -1 until its array ends */
    int64_t count[NN_MAX_RANK]; /* of each open array: its elements so far */
    int depth;                  /* number of open arrays */
    int64_t elements;
    struct nn_error *err;
};

static int malformed(struct scan *s) {
    if (s->p >= s->end) return nn_fail(s->err, NN_E_MALFORMED, "the text ends within an array");
    return nn_fail(s->err, NN_E_MALFORMED, "not JSON at byte %lld of an array", (long long)(s->p - s->text));
}

static int ragged(struct scan *s) {
    return nn_fail(s->err, NN_E_SHAPE,
                   "the array is ragged at its byte %lld: nesting and lengths must be even",
                   (long long)(s->p - s->text));
}

static int open_array(struct scan *s) {
    if (s->depth == NN_MAX_RANK)
        return nn_fail(s->err, NN_E_SHAPE, "an array is nested at most %d deep", NN_MAX_RANK);
    if (s->shape.rank && s->depth >= s->shape.rank) return ragged(s);
    s->count[s->depth++] = 0;
    s->p++;
    return NN_OK;
}

static int close_array(struct scan *s) {
    int64_t count = s->count[s->depth - 1];
    if (!s->shape.rank) s->shape.rank = s->depth; /* the first innermost array is empty */
    if (!count && s->depth < s->shape.rank) return ragged(s);
    int64_t *dim = &s->shape.dim[s->depth - 1];
    if (*dim >= 0 && *dim != count) return ragged(s);
    *dim = count;
    s->depth--;
    s->p++;
    return NN_OK;
}

static bool starts_with(const struct scan *s, const char *word) {
    size_t size = strlen(word);
    return (size_t)(s->end - s->p) >= size && memcmp(s->p, word, size) == 0;
}

/* Records the error for an element that read_element does not take. */
static int not_a_number(struct scan *s) {
    if (starts_with(s, "\"NaN\"") || starts_with(s, "\"Infinity\"") || starts_with(s, "\"-Infinity\""))
        return nn_fail(s->err, NN_E_NOT_FINITE, "numbers in an array must be finite");
    if (*s->p == '"' || *s->p == '{' || starts_with(s, "null"))
        return nn_fail(s->err, NN_E_VALUE, "an array holds something other than numbers at its byte %lld",
                       (long long)(s->p - s->text));
    return malformed(s);
}

/* Scans from the first element of an innermost array to the end of its last element. An array behind a number ends the
 * scan; open_array then finds that the lengths are ragged. */
static int scan_numbers(struct scan *s) {
    const char *p = s->p, *end = s->end, *after;
    int64_t n = 0;
    struct number ignored;
    if (!s->shape.rank) s->shape.rank = s->depth;
    if (s->depth != s->shape.rank) return read_element(p, end, &ignored) ? ragged(s) : not_a_number(s);
    do {
        after = read_element(p, end, &ignored);
        if (!after || ++n > NN_MAX_ELEMENTS - s->elements) break;
        p = skip_space(after, end);
        if (p == end || *p != ',') break;
        p = skip_space(p + 1, end);
    } while (p == end || *p != '[');
    s->p = after ? after : p;
    if (!after) return p == end ? malformed(s) : not_a_number(s);
    s->elements += n;
    if (s->elements > NN_MAX_ELEMENTS)
        return nn_fail(s->err, NN_E_SIZE, "a tensor has at most %lld elements", (long long)NN_MAX_ELEMENTS);
    s->count[s->depth - 1] += n - 1; /* scan_separator counts the last element */
    return NN_OK;
}

/* Counts the element that has just ended, closes the arrays that end behind it, and steps over a comma. */
static int scan_separator(struct scan *s) {
    while (s->depth) {
        s->count[s->depth - 1]++;
        s->p = skip_space(s->p, s->end);
        if (s->p == s->end) return malformed(s);
        if (*s->p == ',') {
            s->p++;
            return NN_OK;
        }
        if (*s->p != ']') return malformed(s);
        int code = close_array(s);
        if (code) return code;
    }
    return NN_OK;
}

static int scan_element(struct scan *s) {
    s->p = skip_space(s->p, s->end);
    if (s->p == s->end) return malformed(s);
    int code;
    if (*s->p != '[') {
        code = scan_numbers(s);
    } else {
        if ((code = open_array(s))) return code;
        s->p = skip_space(s->p, s->end);
        if (s->p == s->end || *s->p != ']') return NN_OK; /* the first element is next */
        code = close_array(s);
    }
    return code ? code : scan_separator(s);
}

size_t api_json_array_scan(const char *text, size_t size, struct nn_shape *shape, struct nn_error *err) {
    assert(size && *text == '[');
    struct scan s = {.text = text, .p = text, .end = text + size, .err = err};
    for (int i = 0; i < NN_MAX_RANK; i++) s.shape.dim[i] = -1;
    do
        if (scan_element(&s)) return 0;
    while (s.depth);
    for (int i = s.shape.rank; i < NN_MAX_RANK; i++) s.shape.dim[i] = 0;
    *shape = s.shape;
    return (size_t)(s.p - text);
}

/* --- converting -------------------------------------------------------------------------------- */

#define MANY_DIGITS 768 /* no value half-way between two doubles has more significant digits */

/* Writes the number for strtod: without a point, so that the locale does not matter. Nonzero digits beyond MANY_DIGITS
 * only say that the value is above that of the digits before them, so a single 1 takes their place. */
static void plain_text(const struct number *x, char *out, size_t room) {
    const char *p = x->first;
    int n = 0;
    bool more = false;
    out[0] = '+';
    while (*p == '0' || *p == '.') p++;
    for (; is_digit(*p) || *p == '.'; p++) {
        if (*p == '.') continue;
        if (n < MANY_DIGITS)
            out[++n] = *p;
        else
            more |= *p != '0';
    }
    if (more) out[++n] = '1';
    snprintf(out + n + 1, room - (size_t)n - 1, "e%lld", (long long)(x->exponent - (n - MAX_DIGITS)));
}

/* Converts a number of more than 19 digits. It lies between its first 19 digits and these plus 1; if both round to the
 * same double, the other digits do not matter. */
static __attribute__((noinline)) double read_long_f64(struct number x) {
    double value = api_decimal_to_f64(x.digits, x.exponent);
    if (value == api_decimal_to_f64(x.digits + 1, x.exponent)) return value;
    char text[MANY_DIGITS + 32];
    plain_text(&x, text, sizeof text);
    return strtod(text, NULL);
}

static __attribute__((noinline)) float read_long_f32(struct number x) {
    float value = api_decimal_to_f32(x.digits, x.exponent);
    if (value == api_decimal_to_f32(x.digits + 1, x.exponent)) return value;
    char text[MANY_DIGITS + 32];
    plain_text(&x, text, sizeof text);
    return strtof(text, NULL);
}

int api_element_fail(struct nn_error *err, enum nn_code code, const struct nn_shape *shape, int64_t index,
                     const char *what) {
    struct nn_shape at = {.rank = shape->rank};
    for (int i = at.rank - 1; i >= 0; i--) {
        at.dim[i] = index % shape->dim[i];
        index /= shape->dim[i];
    }
    char text[192];
    return nn_fail(err, code, "element %s %s", nn_shape_text(&at, text, sizeof text), what);
}

/* Each store_* converts a number into *out. Returns NULL or the text of an error. */

static inline const char *store_f64(const struct number *x, double *out) {
    double value = x->inexact ? read_long_f64(*x) : api_decimal_to_f64(x->digits, x->exponent);
    *out = x->negative ? -value : value;
    return __builtin_isinf(value) ? "is beyond the range of F64" : NULL;
}

static inline const char *store_f32(const struct number *x, float *out) {
    float value = x->inexact ? read_long_f32(*x) : api_decimal_to_f32(x->digits, x->exponent);
    *out = x->negative ? -value : value;
    return __builtin_isinf(value) ? "is beyond the range of F32" : NULL;
}

static inline const char *store_i64(const struct number *x, int64_t *out) {
    uint64_t value = x->digits;
    int64_t exponent = value ? x->exponent : 0;
    for (; exponent < 0 && value % 10 == 0; exponent++) value /= 10;
    if (exponent < 0 || (x->inexact && x->exponent < 0)) return "is not an integer";
    for (; exponent > 0; exponent--)
        if (__builtin_mul_overflow(value, (uint64_t)10, &value)) return "is beyond the range of I64";
    if (x->inexact || value > (uint64_t)INT64_MAX + x->negative) return "is beyond the range of I64";
    *out = (int64_t)(x->negative ? 0 - value : value);
    return NULL;
}

/* Finds the next element, over brackets, commas and spaces. The scan has checked that there is one. */
static inline const char *find_element(const char *p) {
    while (*p < '-' || (*p > '9' && *p != 't' && *p != 'f')) p++;
    return p;
}

/* Converts all elements to one type. */
#define CONVERT_ALL(name, type)                                                                              \
    static int convert_all_##name(const struct api_tensor *tensor, void *to, struct nn_error *err) {         \
        const char *p = tensor->json, *end = p + tensor->json_size;                                          \
        int64_t n = nn_shape_elements(&tensor->shape);                                                       \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            struct number x;                                                                                 \
            p = read_element(find_element(p), end, &x);                                                      \
            assert(p); /* the scan has checked it */                                                         \
            const char *wrong = store_##name(&x, (type *)to + i);                                            \
            if (wrong) return api_element_fail(err, NN_E_VALUE, &tensor->shape, i, wrong);                   \
        }                                                                                                    \
        return NN_OK;                                                                                        \
    }
CONVERT_ALL(f32, float)
CONVERT_ALL(f64, double)
CONVERT_ALL(i64, int64_t)

int api_json_array_convert(const struct api_tensor *tensor, enum nn_dtype to, void *out,
                           struct nn_error *err) {
    static int (*const convert[])(const struct api_tensor *, void *, struct nn_error *) = {
        [NN_F32] = convert_all_f32, [NN_F64] = convert_all_f64, [NN_I64] = convert_all_i64};
    return convert[to](tensor, out, err);
}
