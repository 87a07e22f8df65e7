/* kernels.c - the loops over plain arrays, and the optimizers' updates. At every length and place in memory a
 * range gives the bits that its elements give one by one, and that any CPU's instructions give; and nothing
 * beside it is written. */
#include <math.h>
#include <string.h>

#include "../../core/attr.h"
#include "../../core/op.h"
#include "../support/attrs.h"
#include "../support/check.h"
#include "../support/pass.h"

#define LENGTHS 68 /* 0 to 67: more than four cache lines of floats, and every remainder */
#define PLACES  9  /* of the first element */
#define ROOM    (PLACES + LENGTHS + 8)
#define ARRAYS  6

/* Aligned for either type, and used as either. */
struct arrays {
    double of[ARRAYS][ROOM];
};

/* Positive numbers of all sizes (squares are kept in some); every other array has both signs. */
static struct arrays filled(enum nn_dtype dtype) {
    struct arrays a;
    memset(&a, 0, sizeof a);
    for (int k = 0; k < ARRAYS; k++) {
        double x[ROOM];
        for (int i = 0; i < ROOM; i++)
            x[i] = (k < 2 ? sin(i * 3 + k) : fabs(sin(i * 3 + k))) * exp2((i * 5 + k) % 9 - 4);
        test_narrow(x, dtype, a.of[k], ROOM);
    }
    return a;
}

/* Calls check for each length at each place, float and double. */
static void everywhere(void (*check)(enum nn_dtype dtype, int64_t begin, int64_t end, void *arg), void *arg) {
    static const enum nn_dtype dtypes[] = {NN_F32, NN_F64};
    for (int d = 0; d < 2; d++)
        for (int64_t begin = 0; begin < PLACES; begin++)
            for (int64_t n = 0; n < LENGTHS; n++) check(dtypes[d], begin, begin + n, arg);
}

/* --- what is done element by element --------------------------------------------------------------------- */

struct elementwise {
    const char *name;
    void (*run)(const struct elementwise *e, enum nn_isa isa, enum nn_dtype dtype, struct arrays *a,
                int64_t begin, int64_t end);
    const struct nn_def *optimizer;
    const union nn_attr_value *attrs;
    bool fresh;
};

static void check_elementwise(enum nn_dtype dtype, int64_t begin, int64_t end, void *arg) {
    const struct elementwise *e = arg;
    struct arrays at_once = filled(dtype), one_by_one = at_once;
    e->run(e, nn_isa_here(), dtype, &at_once, begin, end);
    for (int64_t i = begin; i < end; i++) e->run(e, NN_ISA_BASE, dtype, &one_by_one, i, i + 1);
    if (memcmp(&at_once, &one_by_one, sizeof at_once) != 0)
        fail_msg("%s, %s: [%d, %d) is not what its elements are", e->name, nn_dtype_name(dtype), (int)begin,
                 (int)end);
}

#define KERNEL(name, ...)                                                                                    \
    static void run_##name(const struct elementwise *e, enum nn_isa isa, enum nn_dtype dtype,                \
                           struct arrays *a, int64_t begin, int64_t end) {                                   \
        (void)e;                                                                                             \
        nn_kernels_in(isa, dtype)->name(a->of[0], __VA_ARGS__, begin, end);                                  \
    }
KERNEL(add, a->of[1], 0.3)
KERNEL(blend, a->of[1], 0.3)
KERNEL(scale, 0.3)
KERNEL(fill, 0.3)
KERNEL(spread, a->of[1], 1, 0.3)

static void kernels(void **state) {
    (void)state;
    struct elementwise all[] = {{.name = "add", .run = run_add},
                                {.name = "blend", .run = run_blend},
                                {.name = "scale", .run = run_scale},
                                {.name = "fill", .run = run_fill},
                                {.name = "spread", .run = run_spread}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) everywhere(check_elementwise, &all[i]);
}

static void run_update(const struct elementwise *e, enum nn_isa isa, enum nn_dtype dtype, struct arrays *a,
                       int64_t begin, int64_t end) {
    void *slots[NN_MAX_SLOTS] = {a->of[3], a->of[4], a->of[5]};
    struct nn_update update = {.attrs = e->attrs,
                               .step = e->fresh ? 1 : 3,
                               .scale = 0.7,
                               .w = a->of[0],
                               .g = a->of[1],
                               .w_next = a->of[2],
                               .slot = slots};
    for (int i = 0; i < NN_MAX_SLOTS; i++) update.fresh[i] = e->fresh;
    nn_optimizer_in(isa, e->optimizer, dtype)->update(&update, begin, end);
}

static void updates(void **state) {
    (void)state;
    const struct nn_def *def;
    for (int o = 0; (def = nn_optimizer_def(o)); o++)
        for (int e = 0; e < 2 * def->n_examples; e++) {
            struct nn_error err = {0};
            struct nn_arena *arena = nn_arena_new();
            const struct nn_attrs *attrs = test_attrs(def, def->examples[e / 2].attrs, arena, &err);
            test_ok((int)err.code, &err, "%s", def->name);
            everywhere(check_elementwise, &(struct elementwise){.name = def->name,
                                                                .run = run_update,
                                                                .optimizer = def,
                                                                .attrs = nn_attrs_values(attrs),
                                                                .fresh = e % 2});
            nn_arena_free(arena);
        }
}

/* --- what is summed up -------------------------------------------------------------------------------------- */

static void check_sums(enum nn_dtype dtype, int64_t begin, int64_t end, void *arg) {
    (void)arg;
    const struct arrays a = filled(dtype);
    const struct nn_kernels *sets[] = {nn_kernels_in(NN_ISA_BASE, dtype), nn_kernels_of(dtype)};
    double x[ROOM], y[ROOM], want[4] = {0}, got[2][4];
    test_widen(a.of[0], dtype, x, ROOM);
    test_widen(a.of[1], dtype, y, ROOM);
    for (int64_t i = begin; i < end; i++) {
        want[0] += x[i] * x[i];
        want[1] += x[i];
        want[2] += x[i] * y[i];
        want[3] += x[i] * y[i / 5];
    }
    for (int s = 0; s < 2; s++) {
        got[s][0] = sets[s]->sum_squares(a.of[0], begin, end);
        got[s][1] = sets[s]->reduce(a.of[0], NULL, 1, begin, end);
        got[s][2] = sets[s]->reduce(a.of[0], a.of[1], 1, begin, end);
        got[s][3] = sets[s]->reduce(a.of[0], a.of[1], 5, begin, end);
    }
    test_close(got[1], want, 4, 1e-14, 1, "[%d, %d)", (int)begin, (int)end);
    test_same(got[1], got[0], 4, "[%d, %d)", (int)begin, (int)end);
}

/* Of columns, each in the order of its rows. */
static void check_columns(enum nn_dtype dtype, int64_t begin, int64_t end, void *arg) {
    (void)arg;
    enum { ROWS = 5 };
    double x[ROWS * ROOM], matrix[ROWS * ROOM], sum[ROOM], got[ROOM], want[ROOM];
    for (int i = 0; i < ROWS * ROOM; i++) x[i] = (double)(float)(sin(i) * exp2(i % 40));
    for (int i = 0; i < ROOM; i++) sum[i] = want[i] = i / 8.0;
    for (int64_t j = begin; j < end; j++) {
        double column = 0, rounded;
        for (int64_t i = 0; i < ROWS; i++) column += x[i * ROOM + j];
        test_narrow(&column, dtype, &rounded, 1);
        test_widen(&rounded, dtype, &column, 1);
        want[j] += column;
    }
    test_narrow(want, dtype, got, ROOM);
    test_widen(got, dtype, want, ROOM);
    test_narrow(x, dtype, matrix, (int64_t)ROWS * ROOM);
    test_narrow(sum, dtype, got, ROOM);
    nn_kernels_of(dtype)->column_sums(got, matrix, ROWS, ROOM, begin, end);
    test_widen(got, dtype, sum, ROOM);
    test_same(sum, want, ROOM, "columns [%d, %d)", (int)begin, (int)end);
}

static void columns(void **state) { (void)state, everywhere(check_columns, NULL); }

static void sums(void **state) { (void)state, everywhere(check_sums, NULL); }

/* One number that is not finite is found in the range and nowhere else. */
static void check_finite(enum nn_dtype dtype, int64_t begin, int64_t end, void *arg) {
    const double *bad = arg;
    const struct nn_kernels *here = nn_kernels_of(dtype);
    const struct arrays good = filled(dtype);
    for (int64_t i = 0; i < ROOM; i++) {
        struct arrays a = good;
        test_narrow(bad, dtype, (char *)a.of[0] + (size_t)i * nn_dtype_size(dtype), 1);
        const bool well = i < begin || i >= end;
        assert_int_equal(here->finite(a.of[0], begin, end), well);
        assert_int_equal(here->within(a.of[0], 0.5, (double)INFINITY, begin, end), well);
        assert_int_equal(here->sum_within(a.of[1], a.of[0], 0.5, (double)INFINITY, begin, end), well);
    }
}

static void finiteness(void **state) {
    (void)state;
    double bad[] = {(double)INFINITY, -(double)INFINITY, (double)NAN};
    for (int b = 0; b < 3; b++) everywhere(check_finite, &bad[b]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(kernels), cmocka_unit_test(updates),
                                       cmocka_unit_test(sums), cmocka_unit_test(columns),
                                       cmocka_unit_test(finiteness)};
    return test_group("loops over arrays", tests, sizeof tests / sizeof tests[0]);
}
