/* decimal.h - converts decimals to binary floating point (decimal.c) and back (shortest.c). Both directions round
 * correctly, use the powers of ten of powers.h, and call no libc. */
#ifndef API_DECIMAL_H
#define API_DECIMAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* digits * 10^exponent, rounded once: to nearest, ties to even. Values beyond the largest number become an infinity. */
static inline float api_decimal_to_f32(uint64_t digits, int64_t exponent);
static inline double api_decimal_to_f64(uint64_t digits, int64_t exponent);
/* The same, without the shortcut for short numbers. */
float api_decimal_round_f32(uint64_t digits, int64_t exponent);
double api_decimal_round_f64(uint64_t digits, int64_t exponent);

/* Writes the shortest decimal that reads back as `value`; of several, the nearest. The text is a JSON number with a
 * point or an exponent, so that a reader that tells integers from reals sees a real, and keeps the sign of -0.0.
 * Numbers of usual size are written without an exponent, as Python's repr and ECMAScript do. `value` is finite. Returns
 * the number of bytes, at most API_DECIMAL_F32_SIZE or _F64_SIZE. Bytes of `out` behind the number may be overwritten
 * too. No NUL is written. */
#define API_DECIMAL_ROOM     40
#define API_DECIMAL_F32_SIZE 19 /* -9999999400000000.0 */
#define API_DECIMAL_F64_SIZE 24 /* -2.2250738585072014e-308 */
#define API_DECIMAL_I64_SIZE 20
size_t api_decimal_from_f32(float value, char out[API_DECIMAL_ROOM]);
size_t api_decimal_from_f64(double value, char out[API_DECIMAL_ROOM]);
/* Writes an integer, without a point. */
size_t api_decimal_from_i64(int64_t value, char out[API_DECIMAL_ROOM]);

/* --- the shortcut for short numbers ------------------------------------------------------------------ */

#define API_EXACT_POWERS 23 /* 10^0 to 10^22 are doubles */
extern const double api_exact_powers[API_EXACT_POWERS];

/* Where both digits and the power of ten are doubles, one division or one product rounds only once (Clinger, "How to
 * read floating point numbers accurately", PLDI 1990). The code divides and multiplies, one of the two by 1, because a
 * branch would often be mispredicted. */
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

/* Rounds to double and then to float. The result can be wrong only if the double lies half-way between two floats. The
 * shortcut's values are 0 or at least 1e-22, so no float is subnormal. */
static inline float api_decimal_to_f32(uint64_t digits, int64_t exponent) {
    double value;
    uint64_t bits;
    if (!api_decimal_exact(digits, exponent, &value)) return api_decimal_round_f32(digits, exponent);
    memcpy(&bits, &value, sizeof bits);
    return (bits & 0x1fffffff) != 0x10000000 ? (float)value : api_decimal_round_f32(digits, exponent);
}

#endif
