/* json_array.c - nested arrays of numbers in JSON: one pass checks and measures, one converts. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert.h"
#include "decimal.h"

/* --- numbers ----------------------------------------------------------------------------------- */

/* +-digits * 10^exponent. `inexact`: there are more than 19 digits, and these are the first 19. */
struct number {
    uint64_t digits;
    int64_t exponent;
    bool negative, inexact;
    const char *first; /* where inexact: the text's digits */
};

#define MAX_DIGITS 19 /* any so many fit 64 bits */
#define MAX_EXPONENT                                                                                         \
    INT64_C(1000000000000000) /* in text: far above any body's size, so that sums do not wrap */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

/* Eight digits at once (Lemire, "Number parsing at a gigabyte per second", Software: Practice and Experience
 * 51, 2021, section 3): neighbours are joined by twos, fours and eights. */
static inline bool read_eight(const char *p, uint64_t *digits) {
    uint64_t x;
    memcpy(&x, p, sizeof x);
    if ((x & (x + 0x0606060606060606) & 0xf0f0f0f0f0f0f0f0) != 0x3030303030303030) return false;
    x -= 0x3030303030303030;
    x = x * 10 + (x >> 8);
    x = ((x & 0x000000ff000000ff) * 0x000f424000000064 +
         (x >> 16 & 0x000000ff000000ff) * 0x0000271000000001) >>
        32;
    *digits = *digits * 100000000 + x;
    return true;
}

static inline const char *read_digits(const char *p, const char *end, uint64_t *digits) {
    while (end - p >= 8 && read_eight(p, digits)) p += 8;
    for (; p < end && is_digit(*p); p++) *digits = *digits * 10 + (uint64_t)(*p - '0');
    return p;
}

/* Digits and point again, for numbers of more than 19 digits: keeps the first 19 that count. */
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

/* JSON's `exp`, behind the 'e'. NULL if it is not one. */
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

/* JSON's `number`. Returns its end, or NULL if there is none at p. */
static inline const char *read_number(const char *p, const char *end, struct number *out) {
    *out = (struct number){.negative = p < end && *p == '-'};
    p += out->negative;
    const char *first = p;
    for (; p < end && is_digit(*p); p++) out->digits = out->digits * 10 + (uint64_t)(*p - '0');
    if (p == first || (*first == '0' && p - first > 1)) return NULL;
    if (p < end && *p == '.') {
        const char *point = p++;
        p = read_digits(p, end, &out->digits);
        if (p == point + 1) return NULL;
        out->exponent = point + 1 - p;
    }
    if (p - first > MAX_DIGITS + (out->exponent != 0)) read_long(first, p, out);
    if (p < end && (*p == 'e' || *p == 'E')) return read_exponent(p + 1, end, &out->exponent);
    return p;
}

/* JSON's `true` and `false` as the numbers 1 and 0. */
static const char *read_boolean(const char *p, const char *end, struct number *out) {
    *out = (struct number){.digits = p < end && *p == 't'};
    const char *word = out->digits ? "true" : "false";
    size_t size = strlen(word);
    return (size_t)(end - p) >= size && memcmp(p, word, size) == 0 ? p + size : NULL;
}

/* --- scanning ---------------------------------------------------------------------------------- */

struct scan {
    const char *text, *p, *end;
    struct nn_shape shape;      /* rank 0 until the first innermost array is met, dim -1 until one closes */
    int64_t count[NN_MAX_RANK]; /* elements so far of each open array */
    int depth;                  /* how many are open */
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

static void skip_space(struct scan *s) {
    while (s->p < s->end && is_space(*s->p)) s->p++;
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
    if (!s->shape.rank) s->shape.rank = s->depth; /* empty */
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

/* Something that is not a number, whole or not. */
static int not_a_number(struct scan *s) {
    if (starts_with(s, "\"NaN\"") || starts_with(s, "\"Infinity\"") || starts_with(s, "\"-Infinity\""))
        return nn_fail(s->err, NN_E_NOT_FINITE, "numbers in an array must be finite");
    if (*s->p == '"' || *s->p == '{' || starts_with(s, "null"))
        return nn_fail(s->err, NN_E_VALUE, "an array holds something else than numbers at its byte %lld",
                       (long long)(s->p - s->text));
    return malformed(s);
}

static int scan_number(struct scan *s) {
    struct number ignored;
    bool word = *s->p == 't' || *s->p == 'f';
    const char *after = word ? read_boolean(s->p, s->end, &ignored) : read_number(s->p, s->end, &ignored);
    if (!after) return not_a_number(s);
    if (!s->shape.rank) s->shape.rank = s->depth;
    if (s->depth != s->shape.rank) return ragged(s);
    if (++s->elements > NN_MAX_ELEMENTS)
        return nn_fail(s->err, NN_E_SIZE, "a tensor has at most %lld elements", (long long)NN_MAX_ELEMENTS);
    s->p = after;
    return NN_OK;
}

/* Behind an element: closes arrays that end here, and steps over the comma. */
static int scan_separator(struct scan *s) {
    while (s->depth) {
        s->count[s->depth - 1]++;
        skip_space(s);
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
    skip_space(s);
    if (s->p == s->end) return malformed(s);
    int code;
    if (*s->p != '[') {
        code = scan_number(s);
    } else {
        if ((code = open_array(s))) return code;
        skip_space(s);
        if (s->p == s->end || *s->p != ']') return NN_OK; /* its first element is next */
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

/* Stores a number; returns NULL, or what is wrong with it. */
typedef const char *store(const struct number *x, void *out, int64_t index);

#define MANY_DIGITS 768 /* no value half-way between two doubles has more */

/* The number for strtod, without a point, so that the locale does not matter. Nonzero digits beyond
 * MANY_DIGITS can only say that the value is above what is before them: one 1 does that. */
static void plain_text(const struct number *x, char *out, size_t room) {
    if (!x->inexact) {
        snprintf(out, room, "%s%llue%lld", x->negative ? "-" : "", (unsigned long long)x->digits,
                 (long long)x->exponent);
        return;
    }
    const char *p = x->first;
    int n = 0;
    bool more = false;
    out[0] = x->negative ? '-' : '+';
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

static const char *store_f64(const struct number *x, void *out, int64_t index) {
    double value = api_decimal_to_f64(x->digits, x->exponent, x->negative);
    if (x->inexact && value != api_decimal_to_f64(x->digits + 1, x->exponent, x->negative)) {
        char text[MANY_DIGITS + 32];
        plain_text(x, text, sizeof text);
        value = strtod(text, NULL);
    }
    ((double *)out)[index] = value;
    return __builtin_isinf(value) ? "is beyond the range of F64" : NULL;
}

static const char *store_f32(const struct number *x, void *out, int64_t index) {
    float value = api_decimal_to_f32(x->digits, x->exponent, x->negative);
    if (x->inexact && value != api_decimal_to_f32(x->digits + 1, x->exponent, x->negative)) {
        char text[MANY_DIGITS + 32];
        plain_text(x, text, sizeof text);
        value = strtof(text, NULL);
    }
    ((float *)out)[index] = value;
    return __builtin_isinf(value) ? "is beyond the range of F32" : NULL;
}

static const char *store_i64(const struct number *x, void *out, int64_t index) {
    uint64_t value = x->digits;
    int64_t exponent = value ? x->exponent : 0;
    for (; exponent < 0 && value % 10 == 0; exponent++) value /= 10;
    if (exponent < 0 || (x->inexact && x->exponent < 0)) return "is not an integer";
    for (; exponent > 0; exponent--)
        if (__builtin_mul_overflow(value, (uint64_t)10, &value)) return "is beyond the range of I64";
    if (x->inexact || value > (uint64_t)INT64_MAX + x->negative) return "is beyond the range of I64";
    ((int64_t *)out)[index] = (int64_t)(x->negative ? 0 - value : value);
    return NULL;
}

int api_json_array_convert(const struct api_tensor *tensor, enum nn_dtype to, void *out,
                           struct nn_error *err) {
    static store *const stores[] = {[NN_F32] = store_f32, [NN_F64] = store_f64, [NN_I64] = store_i64};
    const char *p = tensor->json, *end = p + tensor->json_size;
    int64_t n = nn_shape_elements(&tensor->shape);
    for (int64_t i = 0; i < n; i++) {
        while (*p == ',' || *p == '[' || *p == ']' || is_space(*p)) p++;
        struct number x;
        const char *after = *p == 't' || *p == 'f' ? read_boolean(p, end, &x) : read_number(p, end, &x);
        assert(after); /* the scan has seen to that */
        const char *wrong = stores[to](&x, out, i);
        if (wrong) return api_element_fail(err, NN_E_VALUE, &tensor->shape, i, wrong);
        p = after;
    }
    return NN_OK;
}
