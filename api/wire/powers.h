/* powers.h - powers of ten to 128 bits, by which both directions of decimal.h multiply. */
#ifndef API_POWERS_H
#define API_POWERS_H

#include <stdint.h>

__extension__ typedef unsigned __int128 wide;

#define API_POWER_MIN (-342) /* 2^64 * 10^-343 is less than half of the least double */
#define API_POWER_MAX 324    /* the least double times 10^324 has its digit before the point */

/* 10^q = high.low * 2^r with 2^127 <= high.low < 2^128: exactly for q = 0 to 55, else truncated for q > 55,
 * and for q < 0 truncated plus one, so that a number that 5^-q divides comes out no smaller than it is. */
extern const struct api_power { uint64_t high, low; } api_powers[API_POWER_MAX - API_POWER_MIN + 1];

/* The floors of the logarithms of 10^n to base 2 (|n| <= 600) and of 2^n to base 10 (|n| <= 1200). */
static inline int api_log2_of_power10(int n) { return n * 217706 >> 16; }
static inline int api_log10_of_power2(int n) { return n * 1262611 >> 22; }

#endif
