/* Members that are not known: each is told by its name, before its value, or anything else about it, is judged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/file.h"
#include "../support/service.h"

static struct test_service service;

#define PARTS                                                                                                \
    "'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear', 'out_features': 1}], 'loss': {'op': "      \
    "'mse'}"
#define INPUTS "'inputs': {'x': [[1, 2]]}"

static int setup(void **state) {
    (void)state;
    test_service_start(&service, NULL, 0);
    json_decref(test_ask(&service, 201, "POST /models", NULL,
                         "{'name': 'm', 'seed': 1, " PARTS
                         ", 'optimizer': {'op': 'sgd', 'lr': 1, 'momentum': 0.5}}"));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_service_stop(&service);
    return 0;
}

static void check(const json_t *json, const char *what, const char *pointer) {
    const char *type = json_string_value(json_object_get(json, "type"));
    const char *at = json_string_value(json_object_get(json, "pointer"));
    if (strcmp(type, API_PROBLEM_TYPE "unknown-member") != 0 || !at || strcmp(at, pointer) != 0)
        fail_msg("%s: %s at %s", what, type, at ? at : "no place");
}

/* Each with a value that is wrong in a way of its own, wherever the name may stand. */
static void told_by_name_whatever_the_value(void **state) {
    (void)state;
    static const char *const values[] = {"null",       "{}",
                                         "[]",         "'x'",
                                         "[['x']]",    "[[1], [1, 2]]",
                                         "{'y': 5}",   "{'y': [[[1]]]}",
                                         "[null, {}]", "{'y': {}}",
                                         "-1",         "1e300",
                                         "true",       "{'base64': '*', 'dtype': 'F9', 'shape': []}"};
    static const struct {
        const char *request, *body, *pointer; /* %s in the body is the value */
    } places[] = {
        {"POST /forward", "{'model': 'm', " INPUTS ", 'modle': %s}", "/modle"},
        {"POST /forward", "{'model': 'm', " INPUTS ", 'targets': %s}", "/targets"},
        {"POST /forward", "{'state': %s, 'model': 'm', " INPUTS "}", "/state"},
        {"POST /backward", "{'model': 'm', " INPUTS ", 'gradients': %s}", "/gradients"},
        {"POST /step", "{'inputs': %s, 'model': 'm'}", "/inputs"},
        {"PUT /models/m/parameters", "{'parameters': {}, 'upstream': %s}", "/upstream"},
        {"PUT /models/m/optimizer", "{'parameters': %s}", "/parameters"},
        {"POST /models/m/gradients", "{'inputs': %s}", "/inputs"},
        {"POST /models", "{'name': 'n', " PARTS ", 'targets': %s}", "/targets"},
        {"POST /models", "{'name': 'n', " PARTS ", 'optimizer': {'op': 'sgd', 'lr': 1, 'x': %s}}",
         "/optimizer/x"},
        {"POST /models",
         "{'name': 'n', 'inputs': {'x': {'shape': [2], 'x': %s}}, 'layers': [{'op': 'relu'}]}",
         "/inputs/x/x"},
        {"POST /models",
         "{'name': 'n', 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'relu', 'x': %s}]}",
         "/layers/0/x"},
        {"POST /models",
         "{'name': 'n', 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'relu'}], 'loss': {'op': 'mse', "
         "'x': %s}}",
         "/loss/x"},
        {"POST /models", "{'name': 'n', " PARTS ", 'aggregation': {'mode': 'async', 'x': %s}}",
         "/aggregation/x"},
        {"POST /forward", "{'model': {" PARTS ", 'targets': %s}, " INPUTS "}", "/model/targets"},
        {"PATCH /models/m", "{'inputs': %s}", "/inputs"},
        {"PATCH /models/m", "{'optimizer': {'momentun': %s}}", "/optimizer/momentun"},
        {"PATCH /models/m", "{'optimizer': {'op': 'adam', 'momentum': null, 'x': %s}}", "/optimizer/x"},
        {"PATCH /models/m", "{'aggregation': {'mode': 'async', 'x': %s}}", "/aggregation/x"},
        {"POST /backward", "{'model': 'm', " INPUTS ", 'apply': {'rate': %s}}", "/apply/rate"},
        {"POST /models/m/gradients", "{'accumulate': {'scale': 1, 'x': %s}}", "/accumulate/x"},
    };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        for (size_t k = 0; k < sizeof values / sizeof values[0]; k++) {
            char body[600];
            const char *hole = strstr(places[i].body, "%s");
            assert_non_null(hole);
            snprintf(body, sizeof body, "%.*s%s%s", (int)(hole - places[i].body), places[i].body, values[k],
                     hole + 2);
            json_t *json = test_ask(&service, 422, places[i].request, NULL, "%s", body);
            check(json, body, places[i].pointer);
            json_decref(json);
        }
    json_t *model = test_ask(&service, 200, "GET /models/m", NULL, NULL);
    assert_int_equal(json_integer_value(json_object_get(model, "version")), 0);
    json_decref(model);
}

/* However often it is asked for, and whichever optimizer there is by then. */
static void a_null_removes_what_could_be_there(void **state) {
    (void)state;
    static const char *const fine[] = {"{'optimizer': {'momentum': null}}",
                                       "{'optimizer': {'momentum': null, 'dampening': null}}",
                                       "{'optimizer': {'op': 'adam', 'momentum': null, 'betas': null}}",
                                       "{'optimizer': {'op': 'sgd', 'betas': null, 'weight_decay': null}}",
                                       "{'aggregation': {'workers': null, 'mode': 'async'}}",
                                       "{'aggregation': null}",
                                       "{'max_staleness': null}"};
    static const char *const wrong[][2] = {{"{'optimizer': {'momentun': null}}", "/optimizer/momentun"},
                                           {"{'aggregation': {'worker': null}}", "/aggregation/worker"},
                                           {"{'seed': null}", "/seed"}};
    for (size_t i = 0; i < 2 * sizeof fine / sizeof fine[0]; i++)
        json_decref(test_ask(&service, 200, "PATCH /models/m", NULL, "%s", fine[i / 2]));
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        json_t *json = test_ask(&service, 422, "PATCH /models/m", NULL, "%s", wrong[i][0]);
        check(json, wrong[i][0], wrong[i][1]);
        json_decref(json);
    }
}

/* In safetensors, members are texts of the metadata, and maps stand in the names of tensors. */
static void in_safetensors_as_well(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct test_writer writer = {0};
        test_write_text(&writer, "model", "m");
        test_write_f32(&writer, "inputs/x", SHAPE(1, 2), (const float[]){1, 2});
        if (i)
            test_write_f32(&writer, "targets/y", SHAPE(1, 1), (const float[]){1});
        else
            test_write_text(&writer, "modle", "{");
        struct test_request request = {.method = "POST",
                                       .path = "/forward",
                                       .content_type = "application/safetensors",
                                       .accept = "application/json"};
        void *body = test_write_end(&writer, &request.size);
        request.body = body;
        struct test_answer answer = test_request(&service, &request);
        json_t *json = json_loadb(answer.body, answer.size, 0, NULL);
        check(json, answer.body, i ? "/targets" : "/modle");
        json_decref(json);
        test_answer_free(&answer);
        free(body);
    }
}

/* About losses, where none is evaluated. */
static void nothing_is_without_effect_beside_no_targets(void **state) {
    (void)state;
    static const char *const members[] = {"'losses': [0]", "'normalizer': 2"};
    static const char *const pointers[] = {"/losses", "/normalizer"};
    for (size_t i = 0; i < 2; i++) {
        json_t *json = test_ask(&service, 422, "POST /backward", NULL,
                                "{'model': 'm', " INPUTS ", 'upstream': {'0': [[1]]}, %s}", members[i]);
        assert_string_equal(json_string_value(json_object_get(json, "pointer")), pointers[i]);
        json_decref(json);
        json_decref(test_ask(
            &service, 200, "POST /backward", NULL,
            "{'model': 'm', " INPUTS ", 'upstream': {'0': [[1]]}, 'targets': {'y': [[1]]}, %s}", members[i]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(told_by_name_whatever_the_value, setup, teardown),
        cmocka_unit_test_setup_teardown(a_null_removes_what_could_be_there, setup, teardown),
        cmocka_unit_test_setup_teardown(in_safetensors_as_well, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_without_effect_beside_no_targets, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
