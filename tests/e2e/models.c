/* Models of every form: inside a request, of several inputs, outputs and losses, over ids, in double, frozen
 * in parts; and tensors of every type, both ways. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../support/e2e.h"

static void forget_model(const char *name) {
    char path[100];
    snprintf(path, sizeof path, "/models/%s", name);
    ask(200, "DELETE", path, NULL);
}

/* --- inside a request -------------------------------------------------------------------------------- */

#define LINEAR "'model': {'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear', 'out_features': 3}]}"

/* dx = dout w, dw = doutT x, db = sum dout: by hand. */
static void a_linear_layer(void **state) {
    (void)state;
    const json_t *answer =
        ask(200, "POST", "/backward",
            "{" LINEAR ", 'parameters': {'0.weight': [[1, 2], [3, 4], [5, 6]], '0.bias': "
            "[1, 1, 1]}, 'inputs': {'x': [[1, -1], [2, 0.5]]}, 'upstream': {'0': [[1, 0, 2], "
            "[0, 1, -1]]}, 'return': ['parameters', 'inputs', 'outputs']}");
    same_json(at(answer, "outputs/0"), service_json("[[0.0, 0.0, 0.0], [4.0, 9.0, 14.0]]"));
    same_json(at(answer, "input_gradients/x"), service_json("[[11.0, 14.0], [-2.0, -2.0]]"));
    same_json(at(answer, "gradients/0.weight"), service_json("[[1.0, -1.0], [2.0, 0.5], [0.0, -2.5]]"));
    same_json(at(answer, "gradients/0.bias"), service_json("[1.0, 1.0, 1.0]"));
    assert_null(json_object_get(answer, "loss"));
    assert_null(json_object_get(answer, "model"));
    assert_null(json_object_get(answer, "version"));
    assert_int_equal(json_array_size(at(ask(200, "GET", "/models", NULL), "models")), 0);
}

/* In safetensors, where the specification is a text among the metadata. */
static void a_linear_layer_in_a_file(void **state) {
    (void)state;
    struct test_writer writer = {0};
    static const float dx[] = {11, 14, -2, -2}, dw[] = {1, -1, 2, 0.5F, 0, -2.5F};
    test_write_text(
        &writer, "model",
        quoted("{'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear', 'out_features': 3}]}"));
    test_write_text(&writer, "return", quoted("['inputs', 'parameters']"));
    test_write_f32(&writer, "parameters/0.weight", SHAPE(3, 2), (const float[]){1, 2, 3, 4, 5, 6});
    test_write_f32(&writer, "parameters/0.bias", SHAPE(3), (const float[]){1, 1, 1});
    test_write_f32(&writer, "inputs/x", SHAPE(2, 2), (const float[]){1, -1, 2, 0.5F});
    test_write_f32(&writer, "upstream/0", SHAPE(2, 3), (const float[]){1, 0, 2, 0, 1, -1});
    const struct test_file *answer = ask_file(200, "POST", "/backward", &writer);
    for (size_t i = 0; i < 4; i++) assert_true(test_file_f32(answer, "input_gradients/x", i) == dx[i]);
    for (size_t i = 0; i < 6; i++) assert_true(test_file_f32(answer, "gradients/0.weight", i) == dw[i]);
    for (size_t i = 0; i < 3; i++) assert_true(test_file_f32(answer, "gradients/0.bias", i) == 1);
}

/* matmul is y = x w with w [D, M]; a frozen layer has no gradient; a seed draws the parameters. */
static void other_layers(void **state) {
    (void)state;
    const json_t *answer = ask(
        200, "POST", "/backward",
        "{'model': {'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'matmul', 'out_features': 3, 'bias': "
        "false}]}, 'parameters': {'0.weight': [[1, 2, 3], [4, 5, 6]]}, 'inputs': {'x': [[1, -1]]}, "
        "'upstream': {'0': [[1, 0, 2]]}, 'return': ['parameters', 'inputs', 'outputs']}");
    same_json(at(answer, "outputs/0"), service_json("[[-3.0, -3.0, -3.0]]"));
    same_json(at(answer, "input_gradients/x"), service_json("[[7.0, 16.0]]"));
    same_json(at(answer, "gradients/0.weight"), service_json("[[1.0, 0.0, 2.0], [-1.0, 0.0, -2.0]]"));
    static const char seeded[] = "{'model': {'seed': 5, 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': "
                                 "'linear', 'out_features': 3, "
                                 "'trainable': false}, {'op': 'linear', 'out_features': 1}], 'loss': {'op': "
                                 "'mse'}}, 'inputs': {'x': [[1, "
                                 "-1]]}, 'targets': {'y': [[1]]}}";
    answer = ask(200, "POST", "/backward", seeded);
    assert_int_equal(json_object_size(at(answer, "gradients")), 2);
    at(answer, "gradients/1.weight");
    same_json(at(ask(200, "POST", "/backward", seeded), "gradients"), at(answer, "gradients"));
}

/* --- several of everything --------------------------------------------------------------------------- */

#define TWO                                                                                                  \
    "'seed': 1, 'inputs': {'a': {'shape': [2]}, 'b': {'shape': [3]}}, 'layers': [{'op': 'concat', "          \
    "'inputs': "                                                                                             \
    "['a', 'b'], 'name': 'ab'}, {'op': 'linear', 'out_features': 2, 'name': 'classes'}, {'op': 'linear', "   \
    "'inputs': ['ab'], 'out_features': 1, 'name': 'value'}], 'outputs': ['classes', 'value']"
#define LOSS1 "{'op': 'cross_entropy', 'input': 'classes', 'target': 'c'}"
#define LOSS2 "{'op': 'mse', 'input': 'value', 'target': 'v', 'scale': 0.5, 'reduction': 'sum'}"
#define IN    "'inputs': {'a': [[1, 2], [3, -1]], 'b': [[1, 0, 2], [0.5, 1, 1]]}"

static void several_losses(void **state) {
    (void)state;
    ask(201, "POST", "/models", "{'name': 'both', " TWO ", 'loss': [" LOSS1 ", " LOSS2 "]}");
    ask(201, "POST", "/models", "{'name': 'one', " TWO ", 'loss': " LOSS1 "}");
    ask(201, "POST", "/models", "{'name': 'two', " TWO ", 'loss': " LOSS2 "}");
    const json_t *out = ask(200, "POST", "/forward", "{'model': 'both', " IN "}");
    assert_int_equal(json_object_size(at(out, "outputs")), 2);
    double value[2], expected = 0;
    numbers_of(at(out, "outputs/value"), value, 2);
    for (int i = 0; i < 2; i++) expected += 0.5 * (value[i] - i) * (value[i] - i);
    const json_t *both = ask(200, "POST", "/backward",
                             "{'model': 'both', " IN ", 'targets': {'c': [0, 1], 'v': [[0], [1]]}, 'return': "
                             "['parameters', 'inputs', 'nodes', 'outputs']}");
    const json_t *one =
        ask(200, "POST", "/backward",
            "{'model': 'one', " IN ", 'targets': {'c': [0, 1]}, 'return': ['inputs', 'parameters']}");
    const json_t *two =
        ask(200, "POST", "/backward",
            "{'model': 'two', " IN ", 'targets': {'v': [[0], [1]]}, 'return': ['inputs', 'parameters']}");
    near(number_at(both, "losses/1"), expected, 1e-6);
    near(number_at(both, "losses/0"), number_at(one, "loss"), 1e-6);
    near(number_at(both, "loss"), number_at(one, "loss") + number_at(two, "loss"), 1e-6);
    assert_true(number_at(both, "normalizers/0") == 2);
    same_json(at(both, "outputs"), at(out, "outputs"));
    static const char *const sums[] = {"input_gradients/a", "input_gradients/b"};
    for (int i = 0; i < 2; i++) {
        double sum[6], first[6], second[6];
        size_t n = numbers_of(at(both, sums[i]), sum, 6);
        numbers_of(at(one, sums[i]), first, 6);
        numbers_of(at(two, sums[i]), second, 6);
        for (size_t k = 0; k < n; k++) near(sum[k], first[k] + second[k], 1e-6);
    }
    same_json(at(both, "gradients/classes.weight"), at(one, "gradients/classes.weight"));
    same_json(at(both, "gradients/value.weight"), at(two, "gradients/value.weight"));
    same_json(at(both, "node_gradients/a"), at(both, "input_gradients/a"));
    assert_int_equal(json_object_size(at(both, "node_gradients")), 5);
    /* some of the nodes */
    out = ask(200, "POST", "/forward", "{'model': 'both', " IN ", 'outputs': ['ab', 'a']}");
    same_json(at(out, "outputs"), service_json("{'a': [[1.0, 2.0], [3.0, -1.0]], 'ab': [[1.0, 2.0, 1.0, 0.0, "
                                               "2.0], [3.0, -1.0, 0.5, 1.0, 1.0]]}"));
    forget_model("both");
    forget_model("one");
    forget_model("two");
}

/* Targets and upstream at once: the gradient of the sum of both. */
static void losses_and_upstream(void **state) {
    (void)state;
    ask(201, "POST", "/models", "{'name': 'm', " TWO ", 'loss': " LOSS1 "}");
#define REQUEST(more) "{'model': 'm', " IN ", 'return': ['inputs'], " more "}"
    const json_t *both = ask(200, "POST", "/backward",
                             REQUEST("'targets': {'c': [0, 1]}, 'upstream': {'value': [[2], [-1]], 'ab': "
                                     "[[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]}"));
    const json_t *loss = ask(200, "POST", "/backward", REQUEST("'targets': {'c': [0, 1]}"));
    const json_t *value = ask(200, "POST", "/backward", REQUEST("'upstream': {'value': [[2], [-1]]}"));
    double sum[4], first[4], second[4];
    static const double third[] = {1, 0, 0, 0};
    numbers_of(at(both, "input_gradients/a"), sum, 4);
    numbers_of(at(loss, "input_gradients/a"), first, 4);
    numbers_of(at(value, "input_gradients/a"), second, 4);
    for (int i = 0; i < 4; i++) near(sum[i], first[i] + second[i] + third[i], 1e-6);
    forget_model("m");
}

/* Weights multiply before the reduction, and the mean still divides by the count. */
static void sample_weights(void **state) {
    (void)state;
    ask(201, "POST", "/models",
        "{'name': 'm', 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'reshape', 'shape': [2]}], 'loss': "
        "{'op': 'mse', "
        "'sample_weight': 'w'}}");
    const json_t *answer =
        ask(200, "POST", "/backward",
            "{'model': 'm', 'inputs': {'x': [[1, 2], [3, 4]]}, 'targets': {'y': [[0, 0], [0, 0]], "
            "'w': [1, -2]}, 'return': ['inputs']}");
    near(number_at(answer, "loss"), (1 + 4 - 2 * (9 + 16)) / 4.0, 1e-6);
    same_json(at(answer, "input_gradients/x"), service_json("[[0.5, 1.0], [-3.0, -4.0]]"));
    answer = ask(
        200, "POST", "/backward",
        "{'model': 'm', 'inputs': {'x': [[1, 2], [3, 4]]}, 'targets': {'y': [[0, 0], [0, 0]], 'w': [[1, 0], "
        "[0, 2]]}, 'return': ['inputs'], 'normalizer': 8}");
    near(number_at(answer, "loss"), (1 + 2 * 16) / 8.0, 1e-6);
    same_json(at(answer, "input_gradients/x"), service_json("[[0.25, 0.0], [0.0, 2.0]]"));
    forget_model("m");
}

/* --- ids --------------------------------------------------------------------------------------------- */

static void ids(void **state) {
    (void)state;
    static const char *const types[] = {"I64", "I32", "U8", "F32"};
    static const int64_t i64[] = {0, 2, 2, 1};
    static const int32_t i32[] = {0, 2, 2, 1};
    static const uint8_t u8[] = {0, 2, 2, 1};
    static const float f32[] = {0, 2, 2, 1};
    const void *const data[] = {i64, i32, u8, f32};
    static const float rows[] = {0, 1, 4, 5, 4, 5, 2, 3}, d_rows[] = {1, 1, 1, 1, 2, 2};
    ask(201, "POST", "/models",
        "{'name': 'm', 'inputs': {'ids': {'shape': [2], 'dtype': 'I64'}}, 'layers': [{'op': 'embedding', "
        "'num_embeddings': 3, 'embedding_dim': 2, 'name': 'e'}]}");
    ask(200, "PUT", "/models/m/parameters", "{'parameters': {'e.weight': [[0, 1], [2, 3], [4, 5]]}}");
    const json_t *out = ask(200, "POST", "/forward",
                            "{'model': 'm', 'inputs': {'ids': [[0, 2], [2, 1]]}, 'outputs': ['ids', 'e']}");
    same_json(at(out, "outputs/e"), service_json("[[[0.0, 1.0], [4.0, 5.0]], [[4.0, 5.0], [2.0, 3.0]]]"));
    same_json(at(out, "outputs/ids"), service_json("[[0, 2], [2, 1]]"));
    for (size_t t = 0; t < 4; t++) {
        static const float ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
        struct test_writer writer = {0};
        test_write_text(&writer, "model", "m");
        test_write_text(&writer, "return", quoted("['parameters', 'outputs', 'nodes', 'inputs']"));
        test_write(&writer, "inputs/ids", types[t], SHAPE(2, 2), data[t]);
        test_write_f32(&writer, "upstream/e", SHAPE(2, 2, 2), ones);
        const struct test_file *answer = ask_file(200, "POST", "/backward", &writer);
        for (size_t i = 0; i < 8; i++) assert_true(test_file_f32(answer, "outputs/e", i) == rows[i]);
        for (size_t i = 0; i < 6; i++)
            assert_true(test_file_f32(answer, "gradients/e.weight", i) == d_rows[i]);
        assert_null(json_object_get(answer->header, "input_gradients/ids")); /* ids have none */
        assert_null(json_object_get(answer->header, "node_gradients/ids"));
    }
    forget_model("m");
}

/* --- types ------------------------------------------------------------------------------------------- */

/* 1, -2, 0 as each type holds them; BOOL and U8: 1, 0, 0. */
static void tensors_of_every_type(void **state) {
    (void)state;
    static const float f32[] = {1, -2, 0};
    static const double f64[] = {1, -2, 0};
    static const uint16_t f16[] = {0x3c00, 0xc000, 0}, bf16[] = {0x3f80, 0xc000, 0};
    static const int32_t i32[] = {1, -2, 0};
    static const int64_t i64[] = {1, -2, 0};
    static const uint8_t u8[] = {1, 0, 0};
    const struct {
        const char *dtype;
        const void *data;
        float second;
    } types[] = {{"F32", f32, -2}, {"F64", f64, -2}, {"F16", f16, -2}, {"BF16", bf16, -2},
                 {"I32", i32, -2}, {"I64", i64, -2}, {"U8", u8, 0},    {"BOOL", u8, 0}};
    ask(201, "POST", "/models",
        "{'name': 'm', 'inputs': {'x': {'shape': [3]}}, 'layers': [{'op': 'reshape', 'shape': [3]}]}");
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        struct test_writer writer = {0};
        test_write_text(&writer, "model", "m");
        test_write(&writer, "inputs/x", types[t].dtype, SHAPE(1, 3), types[t].data);
        const struct test_file *answer = ask_file(200, "POST", "/forward", &writer);
        assert_true(test_file_f32(answer, "outputs/0", 0) == 1);
        assert_true(test_file_f32(answer, "outputs/0", 1) == types[t].second);
        assert_true(test_file_f32(answer, "outputs/0", 2) == 0);
    }
    forget_model("m");
}

/* What one type holds and another does not is rounded to nearest, once. */
static void answers_of_every_type(void **state) {
    (void)state;
    static const char *const types[] = {"F32", "F64", "F16", "BF16"};
    static const uint16_t f16[] = {0x3555, 0xc000}, bf16[] = {0x3eab, 0xc000}; /* a third, -2 */
    const float f32[] = {1.0F / 3, -2};
    const double f64[] = {(double)(1.0F / 3), -2};
    const void *const bits[] = {f32, f64, f16, bf16};
    ask(201, "POST", "/models",
        "{'name': 'm', 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'reshape', 'shape': [2]}]}");
    for (size_t t = 0; t < 4; t++) {
        struct test_writer writer = {0};
        size_t n;
        test_write_text(&writer, "model", "m");
        test_write_text(&writer, "dtype", types[t]);
        test_write_f32(&writer, "inputs/x", SHAPE(1, 2), f32);
        const struct test_file *answer = ask_file(200, "POST", "/forward", &writer);
        const void *data = test_file_tensor(answer, "outputs/0", types[t], &n);
        assert_int_equal(n, 2);
        assert_memory_equal(data, bits[t], 2 * test_dtype_size(types[t]));
        const json_t *json =
            ask(200, "POST", "/forward", "{'model': 'm', 'inputs': {'x': [[0.33333334, -2]]}, 'dtype': '%s'}",
                types[t]);
        near(number_at(json, "outputs/0/0/0"), 1.0 / 3, t < 2 ? 1e-7 : 2e-3);
    }
    forget_model("m");
}

/* A model in double keeps what float would lose, in both encodings. */
static void in_double(void **state) {
    (void)state;
    ask(201, "POST", "/models",
        "{'name': 'm', 'dtype': 'F64', 'seed': 1, 'inputs': {'x': {'shape': [2], 'dtype': 'F64'}}, 'layers': "
        "[{'op': 'linear', 'out_features': 1}], 'loss': {'op': 'mse'}, 'optimizer': {'op': 'sgd', 'lr': 1}}");
    ask(200, "PUT", "/models/m/parameters", "{'parameters': {'0.weight': [[1, 1e-12]], '0.bias': [0.1]}}");
    const json_t *out = ask(200, "POST", "/forward", "{'model': 'm', 'inputs': {'x': [[1, 1]]}}");
    assert_true(number_at(out, "outputs/0/0/0") == 1.0 + 1e-12 + 0.1);
    out = ask(200, "POST", "/backward",
              "{'model': 'm', 'inputs': {'x': [[1, 1e-9]]}, 'targets': {'y': [[0.1]]}, 'return': "
              "['parameters'], 'apply': true}");
    near(number_at(out, "gradients/0.weight/0/1"), 2e-9, 1e-15);
    struct test_writer writer = {0};
    size_t n;
    double value;
    test_write_text(&writer, "model", "m");
    test_write(&writer, "inputs/x", "F64", SHAPE(1, 2), (const double[]){0, 1});
    const void *data = test_file_tensor(ask_file(200, "POST", "/forward", &writer), "outputs/0", "F64", &n);
    memcpy(&value, data, sizeof value);
    near(value, (0.1 - 2) + (1e-12 - 2e-9), 1e-13);
    const json_t *described = ask(200, "GET", "/models/m", NULL);
    assert_string_equal(text_at(described, "dtype"), "F64");
    forget_model("m");
}

/* Base64 of what the arrays say. */
static void base64(void **state) {
    (void)state;
    ask(201, "POST", "/models",
        "{'name': 'm', 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'reshape', 'shape': [2]}]}");
    const json_t *arrays = ask(200, "POST", "/forward", "{'model': 'm', 'inputs': {'x': [[1, -2]]}}");
    const json_t *text =
        ask(200, "POST", "/forward",
            "{'model': 'm', 'inputs': {'x': {'dtype': 'F32', 'shape': [1, 2], 'base64': 'AACAPwAAAMA='}}}");
    same_json(at(text, "outputs"), at(arrays, "outputs"));
    text = ask(200, "POST", "/forward",
               "{'model': 'm', 'inputs': {'x': {'shape': [1, 2], 'base64': 'ADwAwA==', 'dtype': 'F16'}}}");
    same_json(at(text, "outputs"), at(arrays, "outputs"));
    forget_model("m");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        service_test(a_linear_layer),
        service_test(a_linear_layer_in_a_file),
        service_test(other_layers),
        service_test(several_losses),
        service_test(losses_and_upstream),
        service_test(sample_weights),
        service_test(ids),
        service_test(tensors_of_every_type),
        service_test(answers_of_every_type),
        service_test(in_double),
        service_test(base64),
    };
    return cmocka_run_group_tests(tests, service_setup, service_teardown);
}
