/* shortest.c - prints the shortest decimal of a binary number, with the Schubfach algorithm (Giulietti, "The Schubfach
 * way to render doubles", 2020).
 *
 * The decimals that read back as a value c * 2^q form an interval around it. Let 10^k be the largest power of ten that
 * is not above the interval's length. Then at least one multiple of 10^k lies in the interval, and at most one multiple
 * of 10^(k+1). If the interval has a multiple of 10^(k+1), that is the shortest decimal, without its last zeros; else
 * the shortest is the nearest multiple of 10^k. The code multiplies the value and the interval's ends by 4, which makes
 * all three integers, and by 10^-k. The bits that are cut off are or-ed into the last bit ("round to odd"), so that
 * comparisons with integers are exact. */
#include "decimal.h"

#include <assert.h>
#include <string.h>

#include "powers.h"

/* digits * 10^exponent; digits is below 10^17. */
struct decimal {
    uint64_t digits;
    int exponent;
};

/* c * 2^q, other than 0. */
struct binary {
    uint64_t c;
    int q;
    bool narrow_below; /* c is a power of two: the next value below is half as far away as the next above */
};

/* --- the shortest decimal ----------------------------------------------------------------------- */

/* x * power / 2^128, rounded to odd: the last bit is set if the quotient is not an integer. */
static inline uint64_t scale(const struct api_power *power, uint64_t x) {
    wide product = (wide)power->high * x + ((wide)power->low * x >> 64);
    return (uint64_t)(product >> 64) | ((uint64_t)product > 1);
}

static inline struct decimal shorten(const struct binary *x) {
    /* floor(log10(length of the interval)). The length is 2^q, or 3/4 of 2^q with narrow_below. */
    int k = x->narrow_below ? (x->q * 1262611 - 524031) >> 22 : api_log10_of_power2(x->q);
    int shift = x->q + api_log2_of_power10(-k) + 1;
    struct api_power power = api_powers[-k - API_POWER_MIN];
    power.low += -k > 55;    /* rounds up, as Schubfach wants; the table rounds these powers down */
    uint64_t odd = x->c & 1; /* rounding to even: the ends belong to the interval only if c is even */
    uint64_t value = scale(&power, 4 * x->c << shift);
    uint64_t low = scale(&power, (4 * x->c - 2 + x->narrow_below) << shift) + odd;
    uint64_t high = scale(&power, (4 * x->c + 2) << shift) - odd;
    uint64_t whole = value / 4, tens = whole / 10;
    bool below = low <= 40 * tens, above = 40 * tens + 40 <= high;
    if (below != above) return (struct decimal){tens + above, k + 1};
    below = low <= 4 * whole;
    above = 4 * whole + 4 <= high;
    if (below != above) return (struct decimal){whole + above, k};
    uint64_t rest = value - 4 * whole; /* in quarters; 2 is a tie, which goes to even */
    return (struct decimal){whole + (rest > 2 || (rest == 2 && whole & 1)), k};
}

/* --- the text of a decimal -------------------------------------------------------------------------- */

#define P(n) UINT64_C(1##n)
static const uint64_t pow10_u64[] = {P(),
                                     P(0),
                                     P(00),
                                     P(000),
                                     P(0000),
                                     P(00000),
                                     P(000000),
                                     P(0000000),
                                     P(00000000),
                                     P(000000000),
                                     P(0000000000),
                                     P(00000000000),
                                     P(000000000000),
                                     P(0000000000000),
                                     P(00000000000000),
                                     P(000000000000000),
                                     P(0000000000000000),
                                     P(00000000000000000)};

/* Eight digits of x as characters, the first in the lowest byte (Khuong, "How to print integers really fast", 2017).
 * Each step splits all parts at once: into fours, pairs, single digits. */
static inline uint64_t eight_digits(uint64_t x) {
    uint64_t fours = x / 10000 | x % 10000 << 32;
    uint64_t hundreds = fours * 10486 >> 20 & 0x0000007f0000007f;
    uint64_t twos = hundreds | (fours - 100 * hundreds) << 16;
    uint64_t tens = twos * 103 >> 10 & 0x000f000f000f000f;
    return (tens | (twos - 10 * tens) << 8) + 0x3030303030303030;
}

/* 0.d1d2...d17 * 10^point, where d1 is not 0. */
struct digits {
    char first; /* d1 */
    wide rest;  /* d2 to d17, as characters in memory order */
    int n;      /* the number of digits up to the last that is not 0 */
    int point;
};

static inline struct digits split(const struct decimal *x) {
    const uint64_t zeros = 0x3030303030303030;
    /* The number of bits times log10(2): the number of digits, or one less. */
    int n = (64 - __builtin_clzll(x->digits)) * 1233 >> 12;
    n += x->digits >= pow10_u64[n];
    uint64_t all = x->digits * pow10_u64[17 - n], head = all / 100000000, tail = all % 100000000;
    uint64_t middle = eight_digits(head % 100000000), last = tail ? eight_digits(tail) : zeros;
    struct digits out = {.first = (char)('0' + head / 100000000), .n = 1, .point = n + x->exponent};
    out.rest = (wide)last << 64 | middle;
    if (tail)
        out.n = 17 - __builtin_clzll(last ^ zeros) / 8;
    else if (middle != zeros)
        out.n = 9 - __builtin_clzll(middle ^ zeros) / 8;
    return out;
}

static char *write_exponent(char *p, int exponent) {
    *p++ = 'e';
    if (exponent < 0) *p++ = '-';
    if (exponent < 0) exponent = -exponent;
    if (exponent >= 100) *p++ = (char)('0' + exponent / 100);
    if (exponent >= 10) *p++ = (char)('0' + exponent / 10 % 10);
    *p++ = (char)('0' + exponent % 10);
    return p;
}

/* Writes words of 16 bytes, which are more than the number needs: later writes overwrite the surplus, and the last
 * surplus stays behind the end. Returns the size without it. */
static inline size_t write(const struct digits *x, bool negative, char *out) {
    char *p = out;
    *p = '-';
    p += negative;
    if (x->point > 16 || x->point <= -4) {
        p[0] = x->first;
        p[1] = '.';
        memcpy(p + 2, &x->rest, sizeof x->rest);
        p = write_exponent(p + (x->n > 1 ? x->n + 1 : 1), x->point - 1);
    } else if (x->point <= 0) {
        memcpy(p, "0.000", 5);
        p += 2 - x->point;
        *p = x->first;
        memcpy(p + 1, &x->rest, sizeof x->rest);
        p += x->n;
    } else {
        *p = x->first;
        memcpy(p + 1, &x->rest, sizeof x->rest);
        p += x->point;
        *p++ = '.';
        wide fraction = x->rest >> 8 * (x->point - 1);
        memcpy(p, &fraction, sizeof fraction);
        p += x->n > x->point ? x->n - x->point : 1;
    }
    return (size_t)(p - out);
}

/* --- numbers of core's types ------------------------------------------------------------------------ */

static inline size_t from_binary(const struct binary *x, bool negative, char *out) {
    if (!x->c) {
        memcpy(out, negative ? "-0.0" : "0.0", 4);
        return 3 + (size_t)negative;
    }
    struct decimal shortest = shorten(x);
    struct digits digits = split(&shortest);
    return write(&digits, negative, out);
}

size_t api_decimal_from_f32(float value, char out[API_DECIMAL_ROOM]) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t m = bits & 0x7fffff;
    int e = (int)(bits >> 23 & 0xff);
    assert(e != 0xff);
    struct binary x = {e ? m | 0x800000 : m, (e ? e : 1) - 150, !m && e > 1};
    return from_binary(&x, bits >> 31, out);
}

size_t api_decimal_from_f64(double value, char out[API_DECIMAL_ROOM]) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint64_t m = bits & 0xfffffffffffff;
    int e = (int)(bits >> 52 & 0x7ff);
    assert(e != 0x7ff);
    struct binary x = {e ? m | 0x10000000000000 : m, (e ? e : 1) - 1075, !m && e > 1};
    return from_binary(&x, bits >> 63, out);
}

size_t api_decimal_from_i64(int64_t value, char out[API_DECIMAL_ROOM]) {
    char digits[API_DECIMAL_I64_SIZE];
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    size_t n = 0, size = 0;
    do digits[n++] = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0) out[size++] = '-';
    while (n) out[size++] = digits[--n];
    return size;
}
