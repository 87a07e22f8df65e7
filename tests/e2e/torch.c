/* PyTorch's files and numbers: a state_dict as its users save it loads as it is, and the gradients are those
 * of loss.backward(). Made by tests/golden/torch_model.py. */
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

#define FOLDER "tests/golden/torch_model/"

enum { ROWS = 16, COLUMNS = 8 };

static unsigned char *read_file(const char *path, size_t *size) {
    unsigned char *bytes = service_keep(malloc(65536));
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("%s is not there: run from the top of the project", path);
    *size = fread(bytes, 1, 65536, file);
    fclose(file);
    assert_in_range(*size, 100, 65535);
    return bytes;
}

static int setup(void **state) {
    service_setup(state);
    ask(201, "POST", "/models",
        "{'name': 'm', 'inputs': {'x': {'shape': [8]}}, 'layers': [{'op': 'linear', 'out_features': 16}, "
        "{'op': "
        "'relu'}, {'op': 'linear', 'out_features': 12}, {'op': 'gelu'}, {'op': 'linear', 'out_features': "
        "5}], "
        "'loss': {'op': 'cross_entropy'}}");
    struct http_request put = {.method = "PUT", .path = "/models/m/parameters", .type = FILE_TYPE};
    put.body = read_file(FOLDER "state_dict.safetensors", &put.size);
    service_call(200, &put); /* the very file */
    return service_forget(state);
}

static void open_pass(struct test_file *file) {
    size_t size;
    unsigned char *bytes = read_file(FOLDER "pass.safetensors", &size);
    test_file_open(file, bytes, size);
}

/* Norm-wise, to 1e-5. */
static void check(const struct test_file *torch, const char *theirs, const struct test_file *ours,
                  const char *name) {
    size_t n, m;
    double error = 0, norm = 0;
    test_file_tensor(torch, theirs, "F32", &n);
    test_file_tensor(ours, name, "F32", &m);
    assert_int_equal(n, m);
    for (size_t i = 0; i < n; i++) {
        double is = test_file_f32(torch, theirs, i), off = test_file_f32(ours, name, i) - is;
        error += off * off;
        norm += is * is;
    }
    assert_true(norm > 0);
    if (!(sqrt(error) <= 1e-5 * sqrt(norm))) fail_msg("%s is off by %g", name, sqrt(error / norm));
}

static void gradients(void **state) {
    (void)state;
    static const char *const names[] = {"0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"};
    struct test_file torch;
    struct test_writer writer = {0};
    size_t n;
    open_pass(&torch);
    test_write_text(&writer, "model", "m");
    test_write_text(&writer, "return", quoted("['parameters', 'inputs', 'outputs']"));
    test_write_f32(&writer, "inputs/x", SHAPE(ROWS, COLUMNS), test_file_tensor(&torch, "x", "F32", &n));
    test_write(&writer, "targets/y", "I64", SHAPE(ROWS), test_file_tensor(&torch, "y", "I64", &n));
    const struct test_file *ours = ask_file(200, "POST", "/backward", &writer);
    near(strtod(test_file_text(ours, "loss"), NULL), test_file_f32(&torch, "loss", 0), 1e-5);
    check(&torch, "logits", ours, "outputs/4");
    check(&torch, "grad/x", ours, "input_gradients/x");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char theirs[64], name[64];
        snprintf(theirs, sizeof theirs, "grad/%s", names[i]);
        snprintf(name, sizeof name, "gradients/%s", names[i]);
        check(&torch, theirs, ours, name);
    }
    test_file_close(&torch);
}

/* What was put comes back, bit by bit, under the same names. */
static void comes_back(void **state) {
    (void)state;
    struct test_file put;
    size_t size, n, m;
    const char *name;
    json_t *entry;
    unsigned char *bytes = read_file(FOLDER "state_dict.safetensors", &size);
    test_file_open(&put, bytes, size);
    const struct test_file *got = ask_file(200, "GET", "/models/m/parameters", NULL);
    assert_int_equal(json_object_size(got->header), json_object_size(put.header));
    json_object_foreach(put.header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) continue;
        const void *was = test_file_tensor(&put, name, "F32", &n),
                   *is = test_file_tensor(got, name, "F32", &m);
        assert_int_equal(n, m);
        assert_memory_equal(was, is, n * sizeof(float));
        same_json(json_object_get(json_object_get(got->header, name), "shape"),
                  json_object_get(entry, "shape"));
    }
    test_file_close(&put);
}

int main(void) {
    const struct CMUnitTest tests[] = {service_test(gradients), service_test(comes_back)};
    return cmocka_run_group_tests(tests, setup, service_teardown);
}
