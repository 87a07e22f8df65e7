/* decimal.c - converts decimals to binary floating point where the shortcut of decimal.h does not apply, by the
 * algorithm of Eisel and Lemire (Lemire, "Number parsing at a gigabyte per second", Software: Practice and Experience
 * 51, 2021).
 *
 * digits * 10^q is digits * 5^q times a power of two. The product of the digits and the first 64 bits of 5^q gives the
 * mantissa and the bit that rounds it, unless all bits behind these are ones: then the rest of 5^q may carry into them.
 * The next 64 bits of 5^q always decide (Mushtak and Lemire, "Fast number parsing without fallback", Software: Practice
 * and Experience 53, 2023). */
#include "decimal.h"

#include <string.h>

#include "powers.h"

/* A binary format. */
struct format {
    int mantissa; /* stored bits of the mantissa */
    int infinity; /* the stored exponent of an infinity */
    int bias;     /* of the stored exponent */
    /* Below min_power, 2^64 * 10^q rounds to 0. Above max_power, 10^q is an infinity. */
    int min_power, max_power;
    /* Only from min_tie to max_tie can digits * 10^q lie half-way between two numbers (Lemire, section 6). */
    int min_tie, max_tie;
};
static const struct format f32 = {23, 0xff, 127, -65, 38, -17, 10};
static const struct format f64 = {52, 0x7ff, 1023, -342, 308, -4, 23};

/* The first 128 bits of digits * 5^q. Where the first 64 decide `precision` bits, the others are not exact. */
static inline wide multiply(uint64_t digits, int q, int precision) {
    const struct api_power *power = &api_powers[q - API_POWER_MIN];
    wide product = (wide)digits * power->high;
    uint64_t behind = UINT64_MAX >> precision;
    if (((uint64_t)(product >> 64) & behind) == behind) product += (wide)digits * power->low >> 64;
    return product;
}

/* The bits of digits * 10^exponent in a format, without the sign. */
static inline uint64_t convert(const struct format *format, uint64_t digits, int64_t exponent) {
    const uint64_t infinity = (uint64_t)format->infinity << format->mantissa;
    if (!digits || exponent < format->min_power) return 0;
    if (exponent > format->max_power) return infinity;
    int q = (int)exponent, zeros = __builtin_clzll(digits);
    wide product = multiply(digits << zeros, q, format->mantissa + 3);
    uint64_t high = (uint64_t)(product >> 64);
    int carry = (int)(high >> 63), shift = carry + 64 - format->mantissa - 3;
    uint64_t mantissa = high >> shift; /* with one bit more, for rounding */
    int power = api_log2_of_power10(q) + 63 + carry - zeros + format->bias;
    if (power <= 0) { /* subnormal; half-way would take digits that a power of five beyond 64 bits divides */
        if (power < -62) return 0;
        mantissa >>= 1 - power;
        return (mantissa >> 1) + (mantissa & 1);
    }
    /* A tie: the value is half-way between an even mantissa and the next one. No bit behind the rounding bit is set,
     * except that an inexact power (see powers.h) may set the last one. */
    bool tie = (uint64_t)product <= 1 && (mantissa & 3) == 1 && q >= format->min_tie &&
               q <= format->max_tie && mantissa << shift == high;
    mantissa = (mantissa >> 1) + (mantissa & (uint64_t)!tie);
    /* The mantissa's leading one adds 1 to the exponent field, and a carry of the rounding adds 1 more. */
    uint64_t bits = ((uint64_t)(power - 1) << format->mantissa) + mantissa;
    return bits < infinity ? bits : infinity;
}

float api_decimal_round_f32(uint64_t digits, int64_t exponent) {
    uint32_t bits = (uint32_t)convert(&f32, digits, exponent);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

double api_decimal_round_f64(uint64_t digits, int64_t exponent) {
    uint64_t bits = convert(&f64, digits, exponent);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

const double api_exact_powers[API_EXACT_POWERS] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                   1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                                   1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
