/* decimal.h - decimals to binary floating point and back, correctly rounded, in integers of 128 bits.
 *
 * Both directions cover what tensors hold (about 1e-15 to 1e30 for double, nearly all of float) and leave
 * the rest to libc, which is right everywhere but ten times slower. */
#ifndef API_DECIMAL_H
#define API_DECIMAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* digits * 10^exponent, rounded once to nearest even. False: out of range, ask strtod or strtof.
 * A number beyond FLT_MAX is an infinity. */
bool api_decimal_to_f32(uint64_t digits, int64_t exponent, float *out);
bool api_decimal_to_f64(uint64_t digits, int64_t exponent, double *out);

/* The shortest decimal that reads back as `value`, and of those the nearest, as a JSON number: always
 * with a point or an exponent, so that a reader that tells integers from reals sees a real (and the sign of
 * -0.0). `value` is finite. Returns the bytes written; there is no NUL behind them. */
#define API_DECIMAL_MAX 32
size_t api_decimal_from_f32(float value, char out[API_DECIMAL_MAX]);
size_t api_decimal_from_f64(double value, char out[API_DECIMAL_MAX]);

#endif
