/* decimal.h - decimals to binary floating point (decimal.c) and back (shortest.c), both correctly rounded, with
 * the powers of ten of powers.h and without libc. */
#ifndef API_DECIMAL_H
#define API_DECIMAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* digits * 10^exponent, rounded once to nearest even; beyond the largest number, an infinity. */
static inline float api_decimal_to_f32(uint64_t digits, int64_t exponent);
static inline double api_decimal_to_f64(uint64_t digits, int64_t exponent);
/* The same without the shortcut that those take first. */
float api_decimal_round_f32(uint64_t digits, int64_t exponent);
double api_decimal_round_f64(uint64_t digits, int64_t exponent);

/* The shortest decimal that reads back as `value`, and of those the nearest, as a JSON number: always
 * with a point or an exponent, so that a reader that tells integers from reals sees a real (and the sign of
 * -0.0). Plain where that is short, as Python's repr and ECMAScript have it. `value` is finite. Returns how many
 * bytes the number has, at most API_DECIMAL_F32_SIZE or _F64_SIZE; bytes of `out` behind them may be written
 * too. There is no NUL. */
#define API_DECIMAL_ROOM     40
#define API_DECIMAL_F32_SIZE 19 /* -9999999400000000.0 */
#define API_DECIMAL_F64_SIZE 24 /* -2.2250738585072014e-308 */
#define API_DECIMAL_I64_SIZE 20
size_t api_decimal_from_f32(float value, char out[API_DECIMAL_ROOM]);
size_t api_decimal_from_f64(double value, char out[API_DECIMAL_ROOM]);
/* An integer, without a point. */
size_t api_decimal_from_i64(int64_t value, char out[API_DECIMAL_ROOM]);

/* --- the shortcut, for most numbers that there are -------------------------------------------------- */

#define API_EXACT_POWERS 23 /* 10^0 to 10^22 are doubles */
extern const double api_exact_powers[API_EXACT_POWERS];

/* Where digits and power are doubles, one division or product rounds (Clinger, "How to read floating point numbers
 * accurately", PLDI 1990). There are both, one of them by 1, as a branch would often be mispredicted. */
static inline bool api_decimal_exact(uint64_t digits, int64_t exponent, double *out) {
    if (digits >> 53 || exponent <= -API_EXACT_POWERS || exponent >= API_EXACT_POWERS) return false;
    *out = (double)(int64_t)digits * api_exact_powers[exponent > 0 ? exponent : 0] /
           api_exact_powers[exponent < 0 ? -exponent : 0];
    return true;
}

static inline double api_decimal_to_f64(uint64_t digits, int64_t exponent) {
    double value;
    return api_decimal_exact(digits, exponent, &value) ? value : api_decimal_round_f64(digits, exponent);
}

/* Rounding twice is wrong only if the first result is half-way between two floats: none of these is subnormal. */
static inline float api_decimal_to_f32(uint64_t digits, int64_t exponent) {
    double value;
    uint64_t bits;
    if (!api_decimal_exact(digits, exponent, &value)) return api_decimal_round_f32(digits, exponent);
    memcpy(&bits, &value, sizeof bits);
    return (bits & 0x1fffffff) != 0x10000000 ? (float)value : api_decimal_round_f32(digits, exponent);
}

#endif
