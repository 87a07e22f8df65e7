/* powers.h - powers of ten to 128 bits, for both directions of decimal.h. */
#ifndef API_POWERS_H
#define API_POWERS_H

#include <stdint.h>

__extension__ typedef unsigned __int128 wide;

#define API_POWER_MIN (-342) /* 2^64 * 10^-343 is less than half of the least double: it rounds to 0 */
#define API_POWER_MAX 324    /* the least double times 10^324 has its first digit before the point */

/* 10^q = high.low * 2^r with 2^127 <= high.low < 2^128. Exact for q from 0 to 55; truncated for q > 55. For q < 0 it is
 * truncated, plus one: a product with a number that 5^-q divides must not be too small. */
extern const struct api_power { uint64_t high, low; } api_powers[API_POWER_MAX - API_POWER_MIN + 1];

/* floor(log2(10^n)) for |n| <= 600, and floor(log10(2^n)) for |n| <= 1200. */
static inline int api_log2_of_power10(int n) { return n * 217706 >> 16; }
static inline int api_log10_of_power2(int n) { return n * 1262611 >> 22; }

#endif
