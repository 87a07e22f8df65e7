/* decimal.c - decimals to binary floating point and back, in integers of 128 bits.
 *
 * Reading: w * 10^e with w < 2^64 is w * 5^|e|, or w / 5^|e|, times a power of two. Both are computed to 63
 * bits or more with every lost bit or-ed into the last ("round to odd": Boldo and Melquiond, "Emulation of
 * a FMA and correctly rounded sums", IEEE Trans. Computers 57, 2008), so that the one conversion to float
 * or double rounds as if from the exact value. Where double arithmetic is exact it is used instead
 * (Clinger, "How to read floating point numbers accurately", PLDI 1990).
 *
 * Writing: value = m * 2^e is scaled to N / B = value * 10^k, an integer of at least 9 (17) digits and a
 * remainder; then digits are dropped from the right for as long as the decimal stays within half a unit
 * in the last place of the value. All comparisons are exact. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decimal.h"

__extension__ typedef unsigned __int128 wide;

#define MAX_POW5 27 /* the largest power of five below 2^64 */

static const uint64_t pow5[MAX_POW5 + 1] = {
    1u,
    5u,
    25u,
    125u,
    625u,
    3125u,
    15625u,
    78125u,
    390625u,
    1953125u,
    9765625u,
    48828125u,
    244140625u,
    1220703125u,
    6103515625u,
    30517578125u,
    152587890625u,
    762939453125u,
    3814697265625u,
    19073486328125u,
    95367431640625u,
    476837158203125u,
    2384185791015625u,
    11920928955078125u,
    59604644775390625u,
    298023223876953125u,
    1490116119384765625u,
    7450580596923828125u,
};

static uint64_t pow10_u64(int n) { return pow5[n] << n; } /* n <= 19 */

/* --- reading ----------------------------------------------------------------------------------- */

#define MAX_EXACT_POW10 22 /* the largest power of ten that is a double */

static const double exact_pow10[MAX_EXACT_POW10 + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                        1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                                        1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* digits * 10^exponent = odd * 2^power, where `odd` has at least 63 bits and is rounded to odd. */
struct scaled {
    uint64_t odd;
    int power;
};

static struct scaled scale(uint64_t digits, int exponent) {
    uint64_t five = pow5[abs(exponent)];
    int digits_shift = __builtin_clzll(digits), five_shift = __builtin_clzll(five);
    digits <<= digits_shift;
    five <<= five_shift;
    if (exponent >= 0) {
        wide product = (wide)digits * five;
        return (struct scaled){(uint64_t)(product >> 64) | ((uint64_t)product != 0),
                               64 + exponent - digits_shift - five_shift};
    }
    wide dividend = (wide)digits << 63; /* below five * 2^64, so that the quotient has 64 bits at most */
    uint64_t quotient = (uint64_t)(dividend / five);
    bool exact = (wide)quotient * five == dividend;
    return (struct scaled){quotient | (exact ? 0 : 1), exponent - digits_shift + five_shift - 63};
}

static double power_of_two(int n) {
    uint64_t bits = (uint64_t)(1023 + n) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

static bool exact_product(uint64_t digits, int64_t exponent, double *out) {
    if (digits >> 53 || exponent < -MAX_EXACT_POW10 || exponent > MAX_EXACT_POW10) return false;
    *out = exponent < 0 ? (double)digits / exact_pow10[-exponent] : (double)digits * exact_pow10[exponent];
    return true;
}

bool api_decimal_to_f64(uint64_t digits, int64_t exponent, double *out) {
    if (exact_product(digits, exponent, out)) return true;
    *out = 0;
    if (!digits) return true;
    if (exponent < -MAX_POW5 || exponent > MAX_POW5) return false;
    struct scaled s = scale(digits, (int)exponent);
    *out = (double)s.odd * power_of_two(s.power);
    return true;
}

bool api_decimal_to_f32(uint64_t digits, int64_t exponent, float *out) {
    double nearest;
    if (exact_product(digits, exponent, &nearest)) {
        uint64_t bits;
        memcpy(&bits, &nearest, sizeof bits);
        /* Rounding to double and then to float is wrong only if the double is half-way between floats. */
        if ((bits & 0x1fffffff) != 0x10000000) {
            *out = (float)nearest;
            return true;
        }
    }
    *out = 0;
    if (!digits) return true;
    if (exponent < -MAX_POW5 || exponent > MAX_POW5) return false;
    struct scaled s = scale(digits, (int)exponent);
    *out = (float)((double)(float)s.odd * power_of_two(s.power));
    return true;
}

/* --- writing ----------------------------------------------------------------------------------- */

/* A finite value other than 0 of a binary format: m * 2^e. */
struct binary {
    uint64_t m;
    int e;
    bool narrow_below; /* a power of two: the next value below is half as far as the next above */
    int max_digits;    /* that many always suffice */
};

struct decimal {
    uint64_t digits;
    int exponent;
};

/* value = n / b * 10^-k, and n = m * a: a is n's step from one value of the format to the next. */
struct ratio {
    wide n, a, b;
    int k, shift;
};

static int bit_length(uint64_t x) { return 64 - __builtin_clzll(x); }

/* False if 126 bits do not hold it: two are left for comparisons. n / b has max_digits digits or one more. */
static bool make_ratio(const struct binary *x, struct ratio *out) {
    int log2 = bit_length(x->m) + x->e - 1;            /* the floor of the logarithm */
    int log10 = (int)((log2 * INT64_C(315653)) >> 20); /* the same in base ten, or one less */
    int k = x->max_digits - 1 - log10, shift = x->e + k;
    int bits = bit_length(x->m) + (k > 0 ? k * 7 / 3 + 1 : 0) + (shift > 0 ? shift : 0);
    if (bits > 126 || shift < -126 || k < -MAX_POW5) return false;
    *out = (struct ratio){.a = 1, .b = 1, .k = k, .shift = shift};
    if (k < 0)
        out->b = pow5[-k];
    else if (k <= MAX_POW5)
        out->a = pow5[k];
    else
        out->a = (wide)pow5[MAX_POW5] * pow5[k - MAX_POW5];
    if (shift < 0)
        out->b <<= -shift;
    else
        out->a <<= shift;
    out->n = x->m * out->a;
    return true;
}

/* Whether digits * 10^-k rounds to the value: it is within half a step (at the half itself if m is even),
 * on the narrow side of a power of two a quarter. */
static bool reads_back(const struct binary *x, const struct ratio *r, uint64_t digits) {
    wide at = digits * r->b;
    bool below = at < r->n;
    wide distance = (below ? r->n - at : at - r->n) * (below && x->narrow_below ? 4 : 2);
    return distance < r->a || (distance == r->a && x->m % 2 == 0);
}

/* Drops digits for as long as what is left reads back. */
static bool shorten(const struct binary *x, struct decimal *out) {
    struct ratio r;
    if (!make_ratio(x, &r)) return false;
    uint64_t whole = (uint64_t)(r.k < 0 ? r.n / r.b : r.n >> (r.shift < 0 ? -r.shift : 0));
    wide rest = r.n - whole * r.b;
    *out = (struct decimal){whole + (2 * rest > r.b || (2 * rest == r.b && whole % 2)), -r.k};
    for (int drop = 1; drop <= x->max_digits; drop++) {
        uint64_t unit = pow10_u64(drop), digits = whole / unit, tail = whole % unit;
        bool up = tail > unit / 2 || (tail == unit / 2 && (rest || digits % 2));
        if (!reads_back(x, &r, (digits + up) * unit)) {
            /* Above a power of two there is more room, so the second nearest may do where the nearest
             * does not. */
            if (up || !x->narrow_below || !reads_back(x, &r, (digits + 1) * unit)) break;
            up = true;
        }
        *out = (struct decimal){digits + up, drop - r.k};
    }
    return true;
}

static bool decimal_is(const struct decimal *x, double value, bool is_float) {
    char text[API_DECIMAL_MAX]; /* without a point, so that the locale does not matter */
    snprintf(text, sizeof text, "%llue%d", (unsigned long long)x->digits, x->exponent);
    return is_float ? strtof(text, NULL) == (float)value : strtod(text, NULL) == value;
}

/* The same by means of libc, for the far ends of the range. */
static void shorten_slowly(const struct binary *x, double value, struct decimal *out) {
    for (int n = x->max_digits; n >= 1; n--) {
        char text[API_DECIMAL_MAX];
        snprintf(text, sizeof text, "%.*e", n - 1, value);
        struct decimal nearest = {0, 1 - n};
        char *p = text;
        for (; *p != 'e'; p++)
            if (*p >= '0' && *p <= '9') nearest.digits = nearest.digits * 10 + (uint64_t)(*p - '0');
        nearest.exponent += (int)strtol(p + 1, NULL, 10);
        if (!decimal_is(&nearest, value, x->max_digits == 9)) {
            nearest.digits++;
            if (!x->narrow_below || !decimal_is(&nearest, value, x->max_digits == 9)) break;
        }
        *out = nearest;
    }
}

/* As Python's repr and ECMAScript do: plain where that is short. */
static size_t print(bool negative, struct decimal x, char out[API_DECIMAL_MAX]) {
    char digits[20], *p = out;
    int n = 0;
    for (; x.digits % 10 == 0 && x.digits; x.digits /= 10) x.exponent++;
    do digits[n++] = (char)('0' + x.digits % 10);
    while (x.digits /= 10);
    int point = n + x.exponent; /* digits before the point */
    bool plain = point > -4 && point <= 16;
    if (negative) *p++ = '-';
    if (!plain) point = 1;
    if (point <= 0) *p++ = '0';
    for (int i = 0; i < point; i++) *p++ = (char)(n ? digits[--n] : '0');
    if (plain || n) *p++ = '.';
    if (plain && !n) *p++ = '0';
    for (int i = point; i < 0; i++) *p++ = '0';
    int exponent = x.exponent + n;
    while (n) *p++ = digits[--n];
    if (!plain) p += snprintf(p, 6, "e%d", exponent);
    return (size_t)(p - out);
}

static size_t from_binary(const struct binary *x, double value, char *out) {
    struct decimal shortest = {0, 0};
    if (x->m && !shorten(x, &shortest)) shorten_slowly(x, value < 0 ? -value : value, &shortest);
    return print(__builtin_signbit(value), shortest, out);
}

size_t api_decimal_from_f32(float value, char out[API_DECIMAL_MAX]) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t m = bits & 0x7fffff;
    int e = (int)(bits >> 23 & 0xff);
    assert(e != 0xff);
    struct binary x = {e ? m | 0x800000 : m, (e ? e : 1) - 150, !m && e > 1, 9};
    return from_binary(&x, (double)value, out);
}

size_t api_decimal_from_f64(double value, char out[API_DECIMAL_MAX]) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint64_t m = bits & 0xfffffffffffff;
    int e = (int)(bits >> 52 & 0x7ff);
    assert(e != 0x7ff);
    struct binary x = {e ? m | 0x10000000000000 : m, (e ? e : 1) - 1075, !m && e > 1, 17};
    return from_binary(&x, value, out);
}
