/* Versions and updates: what counts, what is applied, accumulated, changed and set, and that the optimizer's
 * state goes with it. */
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

#define LAYERS                                                                                               \
    "'inputs': {'x': {'shape': [3]}}, 'layers': [{'op': 'linear', 'out_features': 4}, {'op': 'tanh'}, "      \
    "{'op': 'linear', 'out_features': 2}], 'loss': {'op': 'cross_entropy'}"
#define SGD  "'optimizer': {'op': 'sgd', 'lr': 0.5}"
#define ADAM "'optimizer': {'op': 'adam', 'lr': 0.05}"
#define A    "'inputs': {'x': [[1, 2, 3], [-1, 0.5, 2]]}, 'targets': {'y': [0, 1]}"
#define B    "'inputs': {'x': [[0, 1, -1]]}, 'targets': {'y': [1]}"

static void make(const char *name, const char *optimizer) {
    ask(201, "POST", "/models", "{'name': '%s', 'seed': 7, " LAYERS ", %s}", name, optimizer);
}

/* Removes all models. */
static int no_models(void **state) {
    const json_t *list = at(ask(200, "GET", "/models", NULL), "models");
    for (size_t i = 0; i < json_array_size(list); i++) {
        char path[100];
        snprintf(path, sizeof path, "/models/%s", text_at(json_array_get(list, i), "name"));
        ask(200, "DELETE", path, NULL);
    }
    return service_forget(state);
}

static const json_t *parameters(const char *name) {
    char path[100];
    snprintf(path, sizeof path, "/models/%s/parameters", name);
    return ask(200, "GET", path, NULL);
}

static const json_t *gradients(const char *name, const char *batch) {
    return at(ask(200, "POST", "/backward", "{'model': '%s', %s}", name, batch), "gradients");
}

static const json_t *described(const char *name) {
    char path[100];
    snprintf(path, sizeof path, "/models/%s", name);
    return ask(200, "GET", path, NULL);
}

/* after = before - lr (g1 + weight g2), but for rounding. */
static void check_step(const json_t *before, const json_t *after, double lr, const json_t *g1,
                       const json_t *g2, double weight) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)g1, name, value) {
        double was[16], is[16], one[16], two[16] = {0};
        size_t n = numbers_of(value, one, 16);
        assert_int_equal(numbers_of(json_object_get(before, name), was, 16), n);
        assert_int_equal(numbers_of(json_object_get(after, name), is, 16), n);
        if (g2) numbers_of(json_object_get(g2, name), two, 16);
        for (size_t i = 0; i < n; i++) near(is[i], was[i] - lr * (one[i] + weight * two[i]), 1e-6);
    }
}

/* --- counting ---------------------------------------------------------------------------------------- */

static void counts(void **state) {
    (void)state;
    make("m", SGD);
    assert_int_equal(integer_at(described("m"), "version"), 0);
    ask(200, "POST", "/forward", "{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}}");
    ask(200, "POST", "/backward", "{'model': 'm', " A "}");
    assert_int_equal(integer_at(described("m"), "version"), 0);
    for (int i = 0; i < 3; i++) {
        const json_t *answer = ask(200, "POST", "/backward", "{'model': 'm', " A ", 'apply': true}");
        assert_int_equal(integer_at(answer, "version"), i);
        assert_int_equal(integer_at(answer, "applied_version"), i + 1);
        assert_null(json_object_get(answer, "gradients")); /* not unless asked for */
        assert_int_equal(integer_at(answer, "samples"), 2);
    }
    assert_int_equal(integer_at(described("m"), "steps"), 3);
    const json_t *answer =
        ask(200, "PUT", "/models/m/parameters?partial=true", "{'parameters': {'0.bias': [1, 2, 3, 4]}}");
    assert_int_equal(integer_at(answer, "applied_version"), 4);
    assert_int_equal(integer_at(parameters("m"), "version"), 4);
    assert_int_equal(integer_at(described("m"), "steps"), 3);
    ask(200, "PATCH", "/models/m", "{'optimizer': {'lr': 1}}");
    assert_int_equal(integer_at(described("m"), "version"), 4);
    refused(422, "invalid-value", NULL, "POST", "/backward",
            "{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'targets': {'y': [2]}, 'apply': true}");
    assert_int_equal(integer_at(described("m"), "version"), 4);
}

/* A step lowers the loss, and is told by its version. */
static void trains(void **state) {
    (void)state;
    make("m", ADAM);
    double first = number_at(ask(200, "POST", "/backward", "{'model': 'm', " A "}"), "loss");
    for (int i = 0; i < 50; i++) ask(200, "POST", "/backward", "{'model': 'm', " A ", 'apply': true}");
    double last = number_at(ask(200, "POST", "/backward", "{'model': 'm', " A "}"), "loss");
    assert_true(last < 0.3 * first);
}

static void applies(void **state) {
    (void)state;
    make("m", SGD);
    const json_t *before = at(parameters("m"), "parameters"), *g = gradients("m", A);
    const json_t *answer =
        ask(200, "POST", "/backward", "{'model': 'm', " A ", 'apply': true, 'return': ['parameters']}");
    same_json(at(answer, "gradients"), g);
    const json_t *after = at(parameters("m"), "parameters");
    check_step(before, after, 0.5, g, NULL, 0);
    g = gradients("m", B);
    ask(200, "POST", "/backward", "{'model': 'm', " B ", 'apply': {'lr': 0.125}}"); /* for this once */
    const json_t *third = at(parameters("m"), "parameters");
    check_step(after, third, 0.125, g, NULL, 0);
    g = gradients("m", A);
    ask(200, "POST", "/backward", "{'model': 'm', " A ", 'apply': true}");
    check_step(third, at(parameters("m"), "parameters"), 0.5, g, NULL, 0);
    assert_true(number_at(described("m"), "specification/optimizer/lr") == 0.5);
}

/* --- accumulating ------------------------------------------------------------------------------------ */

static void accumulates(void **state) {
    (void)state;
    make("m", SGD);
    const json_t *before = at(parameters("m"), "parameters"), *a = gradients("m", A), *b = gradients("m", B);
    const json_t *answer = ask(200, "POST", "/backward", "{'model': 'm', " A ", 'accumulate': true}");
    assert_int_equal(integer_at(answer, "accumulated/contributions"), 1);
    assert_null(json_object_get(answer, "gradients"));
    answer = ask(200, "POST", "/backward", "{'model': 'm', " B ", 'accumulate': {'scale': 2}}");
    assert_int_equal(integer_at(answer, "accumulated/contributions"), 2);
    assert_true(number_at(answer, "accumulated/scale") == 3);
    assert_int_equal(integer_at(described("m"), "accumulated"), 2);
    assert_int_equal(integer_at(described("m"), "version"), 0);

    answer = ask(200, "POST", "/step", "{'model': 'm'}"); /* the sum */
    assert_int_equal(integer_at(answer, "version"), 0);
    assert_int_equal(integer_at(answer, "applied_version"), 1);
    assert_int_equal(integer_at(answer, "contributions"), 2);
    check_step(before, at(parameters("m"), "parameters"), 0.5, a, b, 2);
    assert_int_equal(integer_at(described("m"), "accumulated"), 0);
    refused(409, "nothing-accumulated", NULL, "POST", "/step", "{'model': 'm'}");

    before = at(parameters("m"), "parameters"), a = gradients("m", A), b = gradients("m", B);
    ask(200, "POST", "/backward", "{'model': 'm', " A ", 'accumulate': true}");
    ask(200, "POST", "/backward", "{'model': 'm', " B ", 'accumulate': {'scale': 3}}");
    ask(200, "POST", "/step", "{'model': 'm', 'mean': true, 'lr': 0.25}"); /* (a + 3 b) / 4 */
    check_step(before, at(parameters("m"), "parameters"), 0.25 / 4, a, b, 3);
}

/* Scales that cancel have a sum, but no mean. */
static void accumulates_of_any_sign(void **state) {
    (void)state;
    make("m", SGD);
    const json_t *before = at(parameters("m"), "parameters");
    ask(200, "POST", "/backward", "{'model': 'm', " A ", 'accumulate': true}");
    ask(200, "POST", "/backward", "{'model': 'm', " A ", 'accumulate': {'scale': -1}}");
    refused(422, "invalid-value", NULL, "POST", "/step", "{'model': 'm', 'mean': true}");
    ask(200, "POST", "/step", "{'model': 'm'}");
    same_json(at(parameters("m"), "parameters"), before);
}

/* --- what is not finite ------------------------------------------------------------------------------ */

static void nothing_infinite_is_applied(void **state) {
    (void)state;
    static const char *const changes[] = {"'apply': true", "'accumulate': true", "'apply': {'lr': 0}"};
    ask(201, "POST", "/models",
        "{'name': 'm', 'seed': 1, 'inputs': {'x': {'shape': [1]}}, 'layers': [{'op': 'linear', "
        "'out_features': "
        "1, 'name': 'first'}, {'op': 'linear', 'out_features': 1, 'name': 'last'}], 'loss': {'op': "
        "'mse'}, " SGD "}");
    ask(200, "PUT", "/models/m/parameters",
        "{'parameters': {'first.weight': [[1e30]], 'first.bias': [0], 'last.weight': [[1e-30]], 'last.bias': "
        "[0]}}");
    const json_t *before = parameters("m");
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        /* the output is 1e5, the loss finite, and d last.weight = 2e5 * 1e35 is not */
        const json_t *problem =
            refused(422, "not-finite", NULL, "POST", "/backward",
                    "{'model': 'm', 'inputs': {'x': [[1e5]]}, 'targets': {'y': [[0]]}, %s}", changes[i]);
        assert_non_null(strstr(text_at(problem, "detail"), "last.weight"));
        problem =
            refused(422, "not-finite", NULL, "POST", "/backward",
                    "{'model': 'm', 'inputs': {'x': [[1e25]]}, 'targets': {'y': [[0]]}, %s}", changes[i]);
        assert_non_null(strstr(text_at(problem, "detail"), "loss"));
    }
    same_json(parameters("m"), before);
    assert_int_equal(integer_at(described("m"), "accumulated"), 0);
    assert_int_equal(integer_at(described("m"), "steps"), 0);
    /* where nothing is changed, they may be looked at */
    const json_t *answer =
        ask(200, "POST", "/backward", "{'model': 'm', 'inputs': {'x': [[1e5]]}, 'targets': {'y': [[0]]}}");
    assert_string_equal(text_at(answer, "gradients/last.weight/0/0"), "Infinity");
}

/* --- changing hyper-parameters ----------------------------------------------------------------------- */

static void patches(void **state) {
    (void)state;
    make("m", ADAM);
    ask(200, "POST", "/backward", "{'model': 'm', " A ", 'apply': true}");
    const json_t *answer = ask(200, "PATCH", "/models/m", "{'optimizer': {'lr': 0.5, 'weight_decay': 0.25}}");
    same_json(at(answer, "specification/optimizer"),
              service_json("{'op': 'adam', 'lr': 0.5, 'weight_decay': 0.25}"));
    assert_int_equal(integer_at(answer, "steps"), 1); /* its state stays */
    answer = ask(200, "PATCH", "/models/m", "{'optimizer': {'weight_decay': null}}");
    same_json(at(answer, "specification/optimizer"), service_json("{'op': 'adam', 'lr': 0.5}"));
    answer = ask(200, "PATCH", "/models/m", "{}");
    same_json(at(answer, "specification/optimizer"), service_json("{'op': 'adam', 'lr': 0.5}"));
    refused(422, "invalid-value", "/optimizer/eps", "PATCH", "/models/m", "{'optimizer': {'eps': -1}}");
    same_json(at(described("m"), "specification"), at(answer, "specification"));
    refused(422, "invalid-value", "/optimizer/op", "PATCH", "/models/m", "{'optimizer': {'op': null}}");
    /* adam's lr is no sgd's: another op keeps what fits, and the rest is refused or its own */
    answer = ask(200, "PATCH", "/models/m", "{'optimizer': {'op': 'sgd', 'momentum': 0.5}}");
    same_json(at(answer, "specification/optimizer"),
              service_json("{'op': 'sgd', 'lr': 0.5, 'momentum': 0.5}"));
    assert_int_equal(integer_at(answer, "steps"), 0); /* a fresh state */
    refused(422, "unknown-member", "/optimizer/momentum", "PATCH", "/models/m",
            "{'optimizer': {'op': 'adam'}}");
    answer = ask(200, "PATCH", "/models/m", "{'optimizer': null}");
    assert_null(json_object_get(at(answer, "specification"), "optimizer"));
    refused(409, "no-optimizer", NULL, "POST", "/backward", "{'model': 'm', " A ", 'apply': true}");
    refused(409, "no-optimizer", NULL, "POST", "/step", "{'model': 'm'}");
    refused(409, "no-optimizer", NULL, "GET", "/models/m/optimizer", NULL);
    ask(200, "PATCH", "/models/m", "{'optimizer': {'op': 'sgd', 'lr': 1}}");
    ask(200, "POST", "/backward", "{'model': 'm', " A ", 'apply': true}");
}

/* Its state is as if it had had these all along. */
static void a_patch_takes_effect(void **state) {
    (void)state;
    make("a", "'optimizer': {'op': 'sgd', 'lr': 0.5}");
    make("b", "'optimizer': {'op': 'sgd', 'lr': 0.125}");
    ask(200, "PATCH", "/models/b", "{'optimizer': {'lr': 0.5}}");
    ask(200, "POST", "/backward", "{'model': 'a', " A ", 'apply': true}");
    ask(200, "POST", "/backward", "{'model': 'b', " A ", 'apply': true}");
    same_json(at(parameters("a"), "parameters"), at(parameters("b"), "parameters"));
}

/* --- parameters -------------------------------------------------------------------------------------- */

static void parameters_go_round(void **state) {
    (void)state;
    make("a", SGD);
    ask(201, "POST", "/models", "{'name': 'b', 'seed': 8, " LAYERS "}");
    const json_t *of_a = at(parameters("a"), "parameters");
    assert_false(json_equal(of_a, at(parameters("b"), "parameters")));
    char *text = json_dumps(of_a, JSON_REAL_PRECISION(17));
    service_keep(text);
    ask(200, "PUT", "/models/b/parameters", "{'parameters': %s}", text);
    same_json(at(parameters("b"), "parameters"), of_a);
    /* some */
    ask(200, "PUT", "/models/b/parameters?partial=true", "{'parameters': {'0.bias': [1, 2, 3, 4]}}");
    same_json(at(parameters("b"), "parameters/0.bias"), service_json("[1.0, 2.0, 3.0, 4.0]"));
    same_json(at(parameters("b"), "parameters/0.weight"), at(of_a, "0.weight"));
    /* none of it, if not all is right */
    refused(422, "shape-mismatch", "/parameters/2.bias", "PUT", "/models/b/parameters?partial=true",
            "{'parameters': {'0.bias': [9, 9, 9, 9], '2.bias': [1]}}");
    same_json(at(parameters("b"), "parameters/0.bias"), service_json("[1.0, 2.0, 3.0, 4.0]"));
    /* what GET answers, whole */
    const struct http_answer *whole = ask_bytes(200, "GET", "/models/a/parameters", NULL);
    service_call(200, &(struct http_request){.method = "PUT",
                                             .path = "/models/b/parameters",
                                             .type = JSON_TYPE,
                                             .body = whole->body,
                                             .size = whole->size});
    same_json(at(parameters("b"), "parameters"), of_a);
    assert_int_equal(integer_at(parameters("b"), "version"), 3);
}

static void parameters_go_round_as_files(void **state) {
    (void)state;
    make("a", SGD);
    ask(201, "POST", "/models", "{'name': 'b', 'seed': 8, " LAYERS "}");
    struct http_request get = {.method = "GET", .path = "/models/a/parameters", .accept = FILE_TYPE};
    const struct http_answer *file = service_call(200, &get);
    service_call(200, &(struct http_request){.method = "PUT",
                                             .path = "/models/b/parameters",
                                             .type = FILE_TYPE,
                                             .body = file->body,
                                             .size = file->size});
    get.path = "/models/b/parameters";
    const struct http_answer *back = service_call(200, &get);
    struct test_file one, two;
    test_file_open(&one, file->body, file->size);
    test_file_open(&two, back->body, back->size);
    assert_int_equal(one.size, (12 + 4 + 8 + 2) * sizeof(float));
    assert_int_equal(two.size, one.size);
    assert_memory_equal(one.data, two.data, one.size);
    assert_string_equal(test_file_text(&one, "version"), "0");
    assert_string_equal(test_file_text(&two, "version"), "1");
    test_file_close(&one);
    test_file_close(&two);
}

static void parameters_in_other_types(void **state) {
    (void)state;
    static const struct {
        const char *dtype;
        double tolerance;
    } types[] = {{"F64", 0}, {"F32", 0}, {"F16", 1e-3}, {"BF16", 8e-3}};
    make("m", SGD);
    double own[12], other[12];
    numbers_of(at(parameters("m"), "parameters/0.weight"), own, 12);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        char path[100];
        size_t n;
        snprintf(path, sizeof path, "/models/m/parameters?dtype=%s", types[t].dtype);
        numbers_of(at(ask(200, "GET", path, NULL), "parameters/0.weight"), other, 12);
        /* F64 in JSON shows more digits of the same number */
        for (int i = 0; i < 12; i++) near((float)other[i], (float)own[i], types[t].tolerance);
        const struct test_file *file = ask_file(200, "GET", path, NULL);
        test_file_tensor(file, "0.weight", types[t].dtype, &n);
        assert_int_equal(n, 12);
    }
}

/* --- the optimizer's state ---------------------------------------------------------------------------- */

static void take_steps(const char *name, int n) {
    for (int i = 0; i < n; i++)
        ask(200, "POST", "/backward", "{'model': '%s', %s, 'apply': true}", name, i % 2 ? A : B);
}

/* What GET gives of "a", put to "b", of which nothing else is known. */
static void copy(const char *what, const char *type) {
    char from[100], to[100];
    snprintf(from, sizeof from, "/models/a/%s", what);
    snprintf(to, sizeof to, "/models/b/%s", what);
    const struct http_answer *got =
        service_call(200, &(struct http_request){.method = "GET", .path = from, .accept = type});
    service_call(200, &(struct http_request){
                          .method = "PUT", .path = to, .type = type, .body = got->body, .size = got->size});
}

/* Training that is carried over to another model goes on to the same bytes. */
static void state_goes_round(void **state) {
    (void)state;
    static const char *const optimizers[] = {
        "'optimizer': {'op': 'sgd', 'lr': 0.1, 'momentum': 0.9, 'nesterov': true}",
        "'optimizer': {'op': 'adam', 'lr': 0.01, 'weight_decay': 0.1}",
        "'optimizer': {'op': 'adamw', 'lr': 0.01}",
        "'optimizer': {'op': 'rmsprop', 'lr': 0.01, 'momentum': 0.5, 'centered': true}",
        "'optimizer': {'op': 'adagrad', 'lr': 0.1}",
    };
    static const char *const types[] = {JSON_TYPE, FILE_TYPE};
    for (size_t o = 0; o < sizeof optimizers / sizeof *optimizers; o++)
        for (size_t t = 0; t < 2; t++) {
            make("a", optimizers[o]);
            ask(201, "POST", "/models", "{'name': 'b', 'seed': 99, " LAYERS ", %s}", optimizers[o]);
            take_steps("a", 5);
            take_steps("b", 3);
            copy("parameters", types[t]);
            copy("optimizer", types[t]);
            take_steps("a", 5);
            take_steps("b", 5);
            same_json(at(parameters("a"), "parameters"), at(parameters("b"), "parameters"));
            const json_t *one = ask(200, "GET", "/models/a/optimizer", NULL);
            const json_t *two = ask(200, "GET", "/models/b/optimizer", NULL);
            same_json(at(one, "state"), at(two, "state"));
            assert_int_equal(integer_at(one, "steps"), 10);
            assert_int_equal(integer_at(two, "steps"), 10);
            ask(200, "DELETE", "/models/a", NULL);
            ask(200, "DELETE", "/models/b", NULL);
        }
}

#define version_test(function) cmocka_unit_test_teardown(function, no_models)

int main(void) {
    const struct CMUnitTest tests[] = {
        version_test(counts),
        version_test(trains),
        version_test(applies),
        version_test(accumulates),
        version_test(accumulates_of_any_sign),
        version_test(nothing_infinite_is_applied),
        version_test(patches),
        version_test(a_patch_takes_effect),
        version_test(parameters_go_round),
        version_test(parameters_go_round_as_files),
        version_test(parameters_in_other_types),
        version_test(state_goes_round),
    };
    return cmocka_run_group_tests(tests, service_setup, service_teardown);
}
