/* vexp.h - exponentials and functions made of them. In double they are the C library's. In float they have no
 * branch, so that a loop over them vectorises: ten times as fast as calling the library, and with the same bits
 * at every place of an array and on every CPU. They handle infinities, NaN and subnormal numbers. The error is
 * at most 2 units in the last place, except where a comment gives another bound.
 *
 * Source of the polynomials, except where a comment gives another: Moshier, Cephes, single/expf.c and
 * single/tanhf.c. */
#ifndef NN_VEXP_H
#define NN_VEXP_H

#include <stdint.h>
#include <string.h>

#include "real.h"

/* The cost of one exponential, in the unit of nn_op.work. */
#ifdef NN_REAL_IS_DOUBLE
#define NN_WORK_EXP 2000
#else
#define NN_WORK_EXP 300
#endif

/* Of a sum, log(1 + x). */
static inline wide nn_log1p(wide x) { return log1p(x); }

#ifdef NN_REAL_IS_DOUBLE

static inline real nn_exp(real x) { return exp(x); }
static inline real nn_expm1(real x) { return expm1(x); }
static inline real nn_tanh(real x) { return tanh(x); }
static inline real nn_log1p_exp(real x) { return log1p(exp(x)); }
static inline real nn_phi(real x, real e) {
    (void)e;
    return 0.5 * erfc(-x * M_SQRT1_2);
}

#else

/* 2^n, -127 < n < 128 */
static inline float nn_power_of_2(uint32_t n) {
    uint32_t bits = (n + 127) << 23;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* eʳ - 1 where |r| <= ½ ln 2 */
static inline float nn_expm1_near_0(float r) {
    float p = 1.9875691500e-4F;
    p = p * r + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    return p * r * r + r;
}

/* eˣ = 2ⁿ eʳ with x = n ln 2 + r. ln 2 is split in two parts; n times the first part is exact (Cody and Waite,
 * "Software manual for the elementary functions", 1980). Adding 1.5 · 2²³ rounds to an integer: the last bits of
 * the sum hold it. 2ⁿ is multiplied in as two halves, because 2ⁿ itself may be out of range. */
static inline float nn_exp(float x) {
    const float to_integer = 0x1.8p23F;
    uint32_t bits, zero;
    x = x > 89 ? 89 : x; /* e⁸⁹ is infinite; a NaN stays NaN */
    x = x < -104 ? -104 : x;
    float shifted = x * 1.44269504F + to_integer, n = shifted - to_integer;
    float r = x - n * 0.693359375F + n * 2.12194440e-4F;
    memcpy(&bits, &shifted, sizeof bits);
    memcpy(&zero, &to_integer, sizeof zero);
    uint32_t power = bits - zero + 512, half = power >> 1; /* both at least 0 */
    return (nn_expm1_near_0(r) + 1) * nn_power_of_2(half - 256) * nn_power_of_2(power - half - 256);
}

/* Within 4 units in the last place. */
static inline float nn_expm1(float x) {
    float near_0 = nn_expm1_near_0(x), far = nn_exp(x) - 1;
    return fabsf(x) < 0.34F ? near_0 : far; /* below ½ ln 2 */
}

static inline float nn_tanh(float x) {
    float s = x * x, p = -5.70498872745e-3F;
    p = p * s + 2.06390887954e-2F;
    p = p * s - 5.37397155531e-2F;
    p = p * s + 1.33314422036e-1F;
    p = p * s - 3.33332819422e-1F;
    float near_0 = p * s * x + x, far = 1 - 2 / (nn_exp(2 * fabsf(x)) + 1);
    return fabsf(x) < 0.625F ? near_0 : copysignf(far, x);
}

/* log(1 + eˣ) where x <= 0, within 3 units in the last place. With u = eˣ and s = u / (2 + u) <= 1/3 it equals
 * 2 artanh s, which the series computes. */
static inline float nn_log1p_exp(float x) {
    float u = nn_exp(x), s = u / (2 + u), q = s * s, p = 1.0F / 15;
    p = p * q + 1.0F / 13;
    p = p * q + 1.0F / 11;
    p = p * q + 1.0F / 9;
    p = p * q + 1.0F / 7;
    p = p * q + 1.0F / 5;
    p = p * q + 1.0F / 3;
    return 2 * (p * q * s + s);
}

/* Φ(x), the normal distribution function, with a relative error below 4e-7 + 3e-8 x². The caller passes
 * e = nn_exp(-x²/2), which it needs itself. Φ(-|x|) = e · t · P(t), t = 1 / (1 + 0.4 |x|), as in Abramowitz and
 * Stegun, "Handbook of mathematical functions", 26.2.17, with P of degree 9 in place of 5: a least-squares fit,
 * weighted so that the relative error is even. */
static inline float nn_phi(float x, float e) {
    float t = 1 / (1 + 0.4F * fabsf(x)), p = 3.256617859e-2F;
    p = p * t - 1.786860377e-1F;
    p = p * t + 3.865901828e-1F;
    p = p * t - 3.795457184e-1F;
    p = p * t + 1.238685027e-1F;
    p = p * t - 2.905976772e-2F;
    p = p * t + 9.204953909e-2F;
    p = p * t + 1.329991519e-1F;
    p = p * t + 1.596427709e-1F;
    p = p * t + 1.595751941e-1F;
    float tail = e * (p * t);
    return x > 0 ? 1 - tail : tail;
}

#endif
#endif
