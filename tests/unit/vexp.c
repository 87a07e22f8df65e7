/* vexp.c - exponentials in float against the C library's in double, over numbers of every size. */
#include <math.h>
#include <string.h>

#include "../support/check.h"

#include "../../core/vexp.h"

/* How far apart numbers lie where this one is. */
static double ulp(double want) {
    float f = (float)fabs(want);
    return (double)nextafterf(f, INFINITY) - (double)f;
}

static void check(const char *what, double x, float got, double want, double most) {
    if (isnan(want) ? isnan(got) : (float)want == got) return;
    if (!(fabs((double)got - want) <= most * ulp(want)))
        fail_msg("%s(%.9g) is %.9g, not %.9g", what, x, (double)got, want);
}

/* Of a relative error of 4e-7 + 3e-8 x²; an ulp is at least 2⁻²⁴ of its number. */
static double phi_bound(double x) { return (4e-7 + (x < 0 ? 3e-8 * x * x : 0)) * 0x1p24; }

static void check_all(float x) {
    const double x64 = (double)x;
    check("exp", x64, nn_exp(x), exp(x64), 1);
    check("expm1", x64, nn_expm1(x), expm1(x64), 4);
    check("tanh", x64, nn_tanh(x), tanh(x64), 2);
    if (!(x > 0)) check("log1p_exp", x64, nn_log1p_exp(x), log1p(exp(x64)), 3);
    if (fabs(x64) < 12 || !(x < 0)) /* below, numbers are too small for a relative error to be bounded */
        check("phi", x64, nn_phi(x, nn_exp(-x * x / 2)), erfc(-x64 * M_SQRT1_2) / 2, phi_bound(x64));
}

static void every_size(void **state) {
    (void)state;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 997) {
        uint32_t word = (uint32_t)bits;
        float x;
        memcpy(&x, &word, sizeof x);
        check_all(x);
    }
}

static void near_the_limits(void **state) {
    (void)state;
    static const float at[] = {0,         -0.0F,      88.72283F, 88.72284F, -87.33655F, -103.97F,
                               -103.98F,  0.34F,      -0.34F,    0.625F,    -0.625F,    INFINITY,
                               -INFINITY, (float)NAN, 1e-40F,    -1e-40F};
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++)
        for (int step = 0; step < 3; step++)
            check_all(step ? nextafterf(at[i], step == 1 ? INFINITY : -INFINITY) : at[i]);
}

/* In a loop, which is vectorised, as by itself. */
static void anywhere_in_a_loop(void **state) {
    (void)state;
    enum { N = 203 };
    float x[N], y[3][N];
    for (int i = 0; i < N; i++) x[i] = sinf((float)i) * exp2f((float)(i % 15 - 7));
    for (int i = 0; i < N; i++) y[0][i] = nn_exp(x[i]);
    for (int i = 0; i < N; i++) y[1][i] = nn_tanh(x[i]);
    for (int i = 0; i < N; i++) y[2][i] = nn_phi(x[i], nn_exp(-x[i] * x[i] / 2));
    for (int i = 0; i < N; i++) {
        volatile float one = x[i];
        float alone[] = {nn_exp(one), nn_tanh(one), nn_phi(one, nn_exp(-one * one / 2))};
        for (int k = 0; k < 3; k++)
            if (memcmp(&alone[k], &y[k][i], sizeof(float)) != 0) fail_msg("function %d at %d", k, i);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_size), cmocka_unit_test(near_the_limits),
                                       cmocka_unit_test(anywhere_in_a_loop)};
    return test_group("exponentials", tests, sizeof tests / sizeof tests[0]);
}
