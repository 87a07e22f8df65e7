/* How much arithmetic a graph and an optimizer say that they take. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "../../core/nn.h"
#include "../support/attrs.h"
#include "../support/model.h"

static struct nn_work work_of(enum nn_dtype dtype, struct nn_shape x, const struct row *rows) {
    struct nn_graph *graph = test_model(dtype, x, rows);
    struct nn_work work = nn_graph_work(graph);
    nn_graph_unref(graph);
    return work;
}

/* In either type; `numbers` are read or written by the layer. */
static void check_forward(struct nn_shape x, const struct row *rows, double operations, double numbers) {
    for (int dtype = NN_F32; dtype <= NN_F64; dtype++) {
        struct nn_work work = work_of((enum nn_dtype)dtype, x, rows);
        assert_true(work.forward.a_row == operations + numbers * NN_WORK_NUMBER);
        assert_true(work.backward.a_row == 2 * work.forward.a_row);
        assert_true(work.forward.once == 0 && work.backward.once == 0);
    }
}

static void a_product_takes_two_for_each_term(void **state) {
    (void)state;
    const struct nn_shape vector = {1, {784}}, image = {3, {3, 5, 784}};
    const struct row linear[] = {{"linear", .attrs = "\"out_features\": 128, \"bias\": false"}, {0}};
    const struct row bias[] = {{"linear", .attrs = "\"out_features\": 128"}, {0}};
    const struct row matmul[] = {{"matmul", .attrs = "\"out_features\": 128"}, {0}};
    check_forward(vector, linear, 2.0 * 784 * 128, 784 + 128);
    check_forward(vector, bias, 2.0 * 784 * 128 + 128, 784 + 128);
    check_forward(vector, matmul, 2.0 * 784 * 128, 784 + 128);
    check_forward(image, matmul, 15 * 2.0 * 784 * 128, 15 * (784 + 128));
}

/* The reshape of an image was said to take 45 billion operations. */
static void to_change_a_shape_takes_a_copy(void **state) {
    (void)state;
    const struct nn_shape image = {3, {3, 224, 224}};
    const double pixels = 3 * 224 * 224;
    const struct row reshape[] = {{"reshape", .attrs = "\"shape\": [224, -1]"}, {0}};
    const struct row flatten[] = {{.op = "flatten"}, {0}};
    const struct row relu[] = {{.op = "relu"}, {0}};
    check_forward(image, reshape, 0, 2 * pixels);
    check_forward(image, flatten, 0, 2 * pixels);
    check_forward(image, relu, pixels, 2 * pixels);
}

static void a_graph_takes_what_its_layers_take(void **state) {
    (void)state;
    const struct nn_shape x = {1, {10}};
    const struct row first[] = {{"linear", .attrs = "\"out_features\": 7"}, {0}};
    const struct row second[] = {{.op = "tanh"}, {0}};
    const struct row both[] = {{"linear", .attrs = "\"out_features\": 7"}, {.op = "tanh"}, {0}};
    double a = work_of(NN_F32, x, first).forward.a_row,
           b = work_of(NN_F32, (struct nn_shape){1, {7}}, second).forward.a_row;
    assert_true(work_of(NN_F32, x, both).forward.a_row == a + b);
    assert_true(b > 7 * 100); /* an exponential each */
}

/* Nodes without rows are computed once, however many rows a batch has. */
static void what_has_no_rows_is_counted_once(void **state) {
    (void)state;
    const struct row rows[] = {{"parameter", .name = "p", .attrs = "\"shape\": [10]"},
                               {"tanh", .name = "t", .inputs = {"p"}},
                               {"concat", .name = "both", .inputs = {"x", "t"}},
                               {0}};
    const struct nn_work work = work_of(NN_F32, (struct nn_shape){1, {4}}, rows);
    const double parameter = 10 * NN_WORK_NUMBER, tanh = 10 * 2 * NN_WORK_NUMBER;
    assert_true(work.forward.once > parameter + tanh + 10 * 100);
    /* The expansion of t, and the copy. */
    assert_true(work.forward.a_row == (10 + 10 + 14 + 14) * NN_WORK_NUMBER);
    assert_true(nn_cost_of(work.forward, 3) == work.forward.once + 3 * work.forward.a_row);
}

/* Each loss, and its gradient. */
static void backward_has_the_losses(void **state) {
    (void)state;
    const struct row rows[] = {{"linear", .attrs = "\"out_features\": 7"}, {0}};
    struct nn_error err = {0};
    double last = work_of(NN_F32, (struct nn_shape){1, {10}}, rows).backward.a_row, first_loss = 0;
    for (int losses = 1; losses <= 3; losses++) {
        struct nn_graph *graph = test_inputs(NN_F32, (struct nn_shape){1, {10}}, NO_INPUT);
        assert_int_equal(test_add(graph, rows, &err), NN_OK);
        for (int i = 0; i < losses; i++) assert_int_equal(test_add_loss(graph, "mse", NULL, &err), NN_OK);
        assert_int_equal(nn_graph_seal(graph, &err), NN_OK);
        double loss = nn_graph_work(graph).backward.a_row - last;
        if (losses == 1) first_loss = loss;
        assert_true(loss >= 3 * 7 * 2);
        assert_true(loss == first_loss);
        last += loss;
        nn_graph_unref(graph);
    }
}

/* A normal number takes a logarithm, and more of them more. */
static void drawing_takes_work(void **state) {
    (void)state;
    const struct nn_shape x = {1, {100}};
    const struct row none[] = {{.op = "relu"}, {0}};
    const struct row uniform[] = {{"linear", .attrs = "\"out_features\": 10, \"bias\": false"}, {0}};
    const struct row frozen[] = {{"linear", .attrs = "\"out_features\": 10, \"bias\": false", .frozen = true},
                                 {0}};
    const struct row twice[] = {{"linear", .attrs = "\"out_features\": 20, \"bias\": false"}, {0}};
    double draw = work_of(NN_F32, x, uniform).draw;
    assert_true(work_of(NN_F32, x, none).draw == 0);
    assert_true(draw >= 1000 * 600);
    assert_true(work_of(NN_F32, x, frozen).draw == draw);
    assert_true(work_of(NN_F32, x, twice).draw == 2 * draw);
}

static double step_of(const struct nn_def *def, const char *attrs, const char *layer) {
    const struct row rows[] = {{"linear", .attrs = layer}, {0}};
    struct nn_graph *graph = test_model(NN_F32, (struct nn_shape){1, {16}}, rows);
    struct nn_error err = {0};
    struct nn_attrs *values = test_attrs(def, attrs, nn_graph_arena(graph), &err);
    struct nn_optimizer *optimizer = nn_optimizer_new(graph, def, values, &err);
    assert_non_null(optimizer);
    double step = nn_optimizer_work(optimizer);
    nn_optimizer_free(optimizer);
    nn_graph_unref(graph);
    return step;
}

/* A weight, its gradient and the next weight, and an operation at least; and more where more is kept. */
static void every_optimizer_says_what_a_step_takes(void **state) {
    (void)state;
    const struct nn_def *def;
    for (int i = 0; (def = nn_optimizer_def(i)); i++)
        for (int e = 0; e < def->n_examples; e++) {
            const char *attrs = def->examples[e].attrs;
            double step = step_of(def, attrs, "\"out_features\": 16, \"bias\": false");
            assert_true(isfinite(step) && step >= 256 * (3 * NN_WORK_NUMBER + 1));
            assert_true(step_of(def, attrs, "\"out_features\": 32, \"bias\": false") == 2 * step);
        }
    const struct nn_def *sgd = nn_optimizer_find("sgd"), *adam = nn_optimizer_find("adam");
    const char *layer = "\"out_features\": 16, \"bias\": false";
    assert_true(step_of(sgd, "\"momentum\": 0.9", layer) - step_of(sgd, "", layer) ==
                256 * 2 * NN_WORK_NUMBER);
    assert_true(step_of(adam, "\"amsgrad\": true", layer) - step_of(adam, "", layer) ==
                256 * 2 * NN_WORK_NUMBER);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_product_takes_two_for_each_term),
        cmocka_unit_test(to_change_a_shape_takes_a_copy),
        cmocka_unit_test(a_graph_takes_what_its_layers_take),
        cmocka_unit_test(what_has_no_rows_is_counted_once),
        cmocka_unit_test(backward_has_the_losses),
        cmocka_unit_test(drawing_takes_work),
        cmocka_unit_test(every_optimizer_says_what_a_step_takes),
    };
    nn_blas_init();
    return cmocka_run_group_tests_name("work", tests, NULL, NULL);
}
