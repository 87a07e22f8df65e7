/* rng.c - Philox 4x32-10 against the known answers of its authors' library, Random123 (kat_vectors). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/op.h"

/* The generator's own order: four counter words, two key words. */
static void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    struct nn_rng_key k = {.seed = key[0] | (uint64_t)key[1] << 32, .stream = counter[1]};
    nn_rng_draw(k, counter[2] | (uint64_t)counter[3] << 32, counter[0], out);
}

static void known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], answer[4];
    } vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        uint32_t out[4];
        philox(vectors[i].counter, vectors[i].key, out);
        assert_memory_equal(out, vectors[i].answer, sizeof out);
    }
}

static void every_part_of_the_counter_counts(void **state) {
    (void)state;
    uint32_t base[4], other[4];
    nn_rng_draw((struct nn_rng_key){5, 6}, 7, 8, base);
    nn_rng_draw((struct nn_rng_key){5 + (1ull << 32), 6}, 7, 8, other);
    assert_memory_not_equal(base, other, sizeof base);
    nn_rng_draw((struct nn_rng_key){5, 6 | NN_RNG_PARAMS}, 7, 8, other);
    assert_memory_not_equal(base, other, sizeof base);
    nn_rng_draw((struct nn_rng_key){5, 6}, 7 + (1ull << 32), 8, other);
    assert_memory_not_equal(base, other, sizeof base);
    nn_rng_draw((struct nn_rng_key){5, 6}, 7, 9, other);
    assert_memory_not_equal(base, other, sizeof base);
    nn_rng_draw((struct nn_rng_key){5, 6}, 7, 8, other);
    assert_memory_equal(base, other, sizeof base);
}

static void units_lie_below_one(void **state) {
    (void)state;
    assert_true(nn_rng_unit(0) == 0);
    assert_true(nn_rng_unit(UINT32_MAX) < 1);
    assert_true((float)nn_rng_unit(UINT32_MAX) < 1);
    assert_true(nn_rng_unit(0x80000000u) == 0.5);
}

enum { DRAWS = 20001 }; /* not a multiple of four */

static void moments(const double *w, double *mean, double *variance) {
    *mean = *variance = 0;
    for (int i = 0; i < DRAWS; i++) *mean += w[i] / DRAWS;
    for (int i = 0; i < DRAWS; i++) *variance += (w[i] - *mean) * (w[i] - *mean) / DRAWS;
}

static void initial_values_have_their_distribution(void **state) {
    (void)state;
    static double w[DRAWS];
    const struct nn_kernels *kernels = nn_kernels_of(NN_F64);
    const struct nn_rng_key key = {42, NN_RNG_PARAMS | 3};
    double mean, variance;

    kernels->init(w, DRAWS, &(struct nn_init){.kind = NN_INIT_UNIFORM, .scale = 0.5}, key);
    for (int i = 0; i < DRAWS; i++) assert_true(w[i] >= -0.5 && w[i] < 0.5);
    moments(w, &mean, &variance);
    assert_true(mean > -0.01 && mean < 0.01);
    assert_true(variance > 0.95 / 12 && variance < 1.05 / 12);

    kernels->init(w, DRAWS, &(struct nn_init){.kind = NN_INIT_NORMAL, .scale = 2}, key);
    moments(w, &mean, &variance);
    assert_true(mean > -0.06 && mean < 0.06);
    assert_true(variance > 3.8 && variance < 4.2);
    int within = 0;
    for (int i = 0; i < DRAWS; i++) within += w[i] > -2 && w[i] < 2;
    assert_true(within > 0.67 * DRAWS && within < 0.70 * DRAWS); /* one standard deviation: 68.3% */

    kernels->init(w, DRAWS, &(struct nn_init){.kind = NN_INIT_CONSTANT}, key);
    for (int i = 0; i < DRAWS; i++) assert_true(w[i] == 0);
}

/* Element i is column i of row 0, and a float model starts where the double one does. */
static void initial_values_are_those_of_their_columns(void **state) {
    (void)state;
    const struct nn_rng_key key = {7, NN_RNG_PARAMS};
    const struct nn_init uniform = {.kind = NN_INIT_UNIFORM, .scale = 0.25},
                         normal = {.kind = NN_INIT_NORMAL, .scale = 1};
    double w[11];
    float f[11];
    nn_kernels_of(NN_F64)->init(w, 11, &uniform, key);
    for (int i = 0; i < 11; i++) {
        uint32_t word[4];
        nn_rng_draw(key, 0, (uint32_t)(i / 4), word);
        assert_true(w[i] == 0.25 * (2 * nn_rng_unit(word[i % 4]) - 1));
    }
    nn_kernels_of(NN_F32)->init(f, 11, &uniform, key);
    for (int i = 0; i < 11; i++) assert_true(f[i] == (float)w[i]);
    nn_kernels_of(NN_F64)->init(w, 11, &normal, key);
    nn_kernels_of(NN_F32)->init(f, 11, &normal, key);
    for (int i = 0; i < 11; i++) assert_true(f[i] == (float)w[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(every_part_of_the_counter_counts),
        cmocka_unit_test(units_lie_below_one),
        cmocka_unit_test(initial_values_have_their_distribution),
        cmocka_unit_test(initial_values_are_those_of_their_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
