/* ops_small.c - results that are small because something near 1 is taken from 1, where the right ones are known. The
 * values are those of mpmath, computed with 80 digits. */
#include <math.h>

#include "../support/subject.h"

/* One row of a batch of one. */
static const struct known {
    const char *op, *attrs;
    int n; /* numbers in the row */
    double x[2];
    double given[2]; /* upstream gradient; of a loss, the target */
    bool ids;
    double result[2]; /* output; of a loss, the loss */
    double d_x[2];
} table[] = {
    {"bce_with_logits", "", 1, {-15}, {0}, false, {3.0590227371372049e-7}, {3.0590222692562473e-7}},
    {"bce_with_logits", "", 1, {-17}, {0}, false, {4.1399376330897474e-8}, {4.1399375473943306e-8}},
    {"bce_with_logits", "", 1, {-40}, {0}, false, {4.248354255291589e-18}, {4.248354255291589e-18}},
    {"bce_with_logits", "", 1, {17}, {1}, false, {4.1399376330897474e-8}, {-4.1399375473943306e-8}},
    {"bce_with_logits", "", 1, {40}, {1}, false, {4.248354255291589e-18}, {-4.248354255291589e-18}},
    {"bce_with_logits",
     "\"pos_weight\": [3]",
     1,
     {17},
     {1},
     false,
     {1.2419812899269242e-7},
     {-1.2419812642182992e-7}},
    {"sigmoid", "", 1, {17}, {1}, false, {0.99999995860062453}, {4.1399373760035016e-8}},
    {"sigmoid", "", 1, {-17}, {1}, false, {4.1399375473943306e-8}, {4.1399373760035016e-8}},
    {"sigmoid", "", 1, {40}, {1}, false, {1.0}, {4.248354255291589e-18}},
    {"sigmoid", "", 1, {-40}, {1}, false, {4.248354255291589e-18}, {4.248354255291589e-18}},
    {"tanh", "", 1, {10}, {1}, false, {0.99999999587769276}, {8.2446144557673974e-9}},
    {"tanh", "", 1, {-10}, {1}, false, {-0.99999999587769276}, {8.2446144557673974e-9}},
    {"tanh", "", 1, {20}, {1}, false, {0.99999999999999999}, {1.6993417021166356e-17}},
    {"gelu",
     "\"approximate\": \"tanh\"",
     1,
     {-4},
     {1},
     false,
     {-7.024594819237269e-5},
     {-0.00033512319712267076}},
    {"gelu",
     "\"approximate\": \"tanh\"",
     1,
     {-5},
     {1},
     false,
     {-2.291796196629506e-7},
     {-1.5463619875325946e-6}},
    {"gelu",
     "\"approximate\": \"tanh\"",
     1,
     {-7},
     {1},
     false,
     {-2.315442262072549e-15},
     {-2.7651173507066019e-14}},
    {"gelu", "\"approximate\": \"tanh\"", 1, {1e30}, {1}, false, {1e30}, {1}},
    {"silu", "", 1, {-40}, {1}, false, {-1.6993417021166356e-16}, {-1.6568581595637197e-16}},
    {"softplus", "", 1, {-40}, {1}, false, {4.248354255291589e-18}, {4.248354255291589e-18}},
    {"softmax",
     "",
     2,
     {0, 17},
     {0, 1},
     false,
     {4.1399375473943306e-8, 0.99999995860062453},
     {-4.1399373760035016e-8, 4.1399373760035016e-8}},
    {"log_softmax",
     "",
     2,
     {0, 17},
     {0, -1},
     false,
     {-17.000000041399376, -4.1399376330897474e-8},
     {4.1399375473943306e-8, -4.1399375473943306e-8}},
    {"cross_entropy",
     "",
     2,
     {0, 17},
     {1},
     true,
     {4.1399376330897474e-8},
     {4.1399375473943306e-8, -4.1399375473943306e-8}},
    {"cross_entropy",
     "",
     2,
     {0, 17},
     {0, 1},
     false,
     {4.1399376330897474e-8},
     {4.1399375473943306e-8, -4.1399375473943306e-8}},
    {"softmax",
     "",
     2,
     {0, 40},
     {0, 1},
     false,
     {4.248354255291589e-18, 1.0},
     {-4.248354255291589e-18, 4.248354255291589e-18}},
    {"log_softmax",
     "",
     2,
     {0, 40},
     {0, -1},
     false,
     {-40.0, -4.248354255291589e-18},
     {4.248354255291589e-18, -4.248354255291589e-18}},
    {"cross_entropy",
     "",
     2,
     {0, 40},
     {1},
     true,
     {4.248354255291589e-18},
     {4.248354255291589e-18, -4.248354255291589e-18}},
    {"cross_entropy",
     "",
     2,
     {0, 40},
     {0, 1},
     false,
     {4.248354255291589e-18},
     {4.248354255291589e-18, -4.248354255291589e-18}},
};

static void check(const struct known *k, enum nn_dtype dtype, double tolerance) {
    const struct nn_def *def = nn_op_find(k->op);
    const struct nn_example example = {
        .attrs = k->attrs, .inputs = {{1, {k->n}}}, .n_inputs = 1, .ids = k->ids, .classes = k->n};
    const struct nn_loss how = {.sum = true};
    struct nn_error err = {0};
    struct subject s = {.def = def, .arena = nn_arena_new()};
    struct pass p = {.options = {.rows = 1, .mode = NN_TRAIN}};
    p.graph = test_graph_of(def, &example, dtype, &how, &err);
    test_ok(0, &err, "%s", k->op);
    p.x[0] = k->x;
    if (test_is_loss(def))
        p.target[0] = k->given, p.target_ids[0] = k->ids;
    else
        p.upstream[test_op_value(&p)] = k->given;
    test_pass(&s, &p, "known");
    for (int i = 0; i < k->n; i++)
        test_close(&p.d_x[0][i], &k->d_x[i], 1, tolerance, 0, "%s %s of %g: gradient %d", k->op, k->attrs,
                   k->x[k->n - 1], i);
    if (test_is_loss(def))
        test_close(p.loss, k->result, 1, tolerance, 0, "%s %s of %g: loss", k->op, k->attrs, k->x[k->n - 1]);
    for (int i = 0; i < k->n && !test_is_loss(def); i++)
        test_close(&p.y[test_op_value(&p)][i], &k->result[i], 1, tolerance, 0, "%s %s of %g: output %d",
                   k->op, k->attrs, k->x[k->n - 1], i);
    nn_graph_unref(p.graph);
    nn_arena_free(s.arena);
}

static void in_float(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) check(&table[i], NN_F32, 1e-5);
}

static void in_double(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) check(&table[i], NN_F64, 1e-13);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(in_float), cmocka_unit_test(in_double)};
    nn_blas_init();
    return test_group("small results", tests, sizeof tests / sizeof tests[0]);
}
