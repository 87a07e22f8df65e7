/* The table of powers of ten, computed anew: 5^|q| in as many words as it takes, and 2^n over it, bit by bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <cmocka.h>

#include "../../api/wire/powers.h"

#define WORDS 28 /* of 32 bits: 5^342 has 795 bits, and a remainder one more */

struct big {
    uint32_t word[WORDS]; /* the lowest first */
};

static uint32_t multiply(struct big *x, uint32_t by) {
    uint64_t carry = 0;
    for (int i = 0; i < WORDS; i++) {
        carry += (uint64_t)x->word[i] * by;
        x->word[i] = (uint32_t)carry;
        carry >>= 32;
    }
    return (uint32_t)carry;
}

static int bits(const struct big *x) {
    int i = WORDS - 1;
    while (i >= 0 && !x->word[i]) i--;
    return i < 0 ? 0 : 32 * i + 32 - __builtin_clz(x->word[i]);
}

static bool bit(const struct big *x, int n) { return n >= 0 && x->word[n / 32] >> n % 32 & 1; }

/* x -= y unless that is negative. */
static bool subtract(struct big *x, const struct big *y) {
    struct big difference;
    int64_t carry = 0;
    for (int i = 0; i < WORDS; i++) {
        carry += (int64_t)x->word[i] - y->word[i];
        difference.word[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry) return false;
    *x = difference;
    return true;
}

static struct big power_of_five(int n) {
    struct big x = {{1}};
    while (n--) assert_int_equal(multiply(&x, 5), 0);
    return x;
}

/* The first 128 bits of 5^n, and of 1 / 5^n. */
static wide leading_bits(int n) {
    struct big x = power_of_five(n);
    wide out = 0;
    int size = bits(&x);
    for (int i = 1; i <= 128; i++) out = out << 1 | (wide)bit(&x, size - i);
    return out;
}

static wide leading_bits_of_inverse(int n) {
    struct big divisor = power_of_five(n), rest = {{1}};
    wide out = 0;
    for (int found = 0; found < 128;) {
        multiply(&rest, 2);
        bool one = subtract(&rest, &divisor);
        out = out << 1 | (wide)one;
        found += found || one;
    }
    return out;
}

static void table(void **state) {
    (void)state;
    for (int q = API_POWER_MIN; q <= API_POWER_MAX; q++) {
        const struct api_power *power = &api_powers[q - API_POWER_MIN];
        wide want = q < 0 ? leading_bits_of_inverse(-q) + 1 : leading_bits(q);
        if (((wide)power->high << 64 | power->low) != want) fail_msg("10^%d", q);
    }
}

static void logarithms(void **state) {
    (void)state;
    for (int n = -600; n <= 600; n++)
        assert_int_equal(api_log2_of_power10(n), (int)floorl((long double)n * log2l(10)));
    for (int n = -1200; n <= 1200; n++)
        assert_int_equal(api_log10_of_power2(n), (int)floorl((long double)n * log10l(2)));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(table), cmocka_unit_test(logarithms)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
