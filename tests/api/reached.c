/* What a backward pass does not reach has no gradient, which is another thing than 0: an optimizer leaves it alone. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/journal.h"
#include "../support/service.h"

static struct test_service service;
static struct test_journal journal;

static int setup(void **state) {
    (void)state;
    test_journal_init(&journal);
    test_service_start_stored(&service, NULL, 0, &journal.store);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_service_stop(&service);
    test_journal_fini(&journal);
    return 0;
}

static json_t *get(struct test_service *of, const char *what) {
    char request[128];
    snprintf(request, sizeof request, "GET /models/%s", what);
    return test_call(of, 200, request, NULL);
}

static double parameter_of(struct test_service *of, const char *name) {
    json_t *pulled = get(of, "m/parameters");
    const json_t *value = json_object_get(json_object_get(pulled, "parameters"), name);
    while (json_is_array(value)) value = json_array_get(value, 0);
    assert_true(json_is_number(value));
    double number = json_number_value(value);
    json_decref(pulled);
    return number;
}

static void expect_in(struct test_service *of, const char *name, double expected) {
    double found = parameter_of(of, name);
    if (!(fabs(found - expected) < 1e-6)) fail_msg("%s is %.9g, and not %.9g", name, found, expected);
}

/* That an answer has a member, which is written with ' for "; NULL: it has none. */
static void expect_member(const char *what, const char *member, const char *expected) {
    json_t *answer = get(&service, what);
    char *text = json_dumps(json_object_get(answer, member), JSON_ENCODE_ANY | JSON_SORT_KEYS);
    for (char *c = text; c && *c; c++)
        if (*c == '"') *c = '\'';
    if (!text != !expected || (text && strcmp(text, expected) != 0))
        fail_msg("%s: %s: %s instead of %s", what, member, text ? text : "nothing",
                 expected ? expected : "nothing");
    free(text);
    json_decref(answer);
}

/* A trunk "t" and two heads, "a" and "b", each with its loss; all parameters are 1. */
static void create_heads(const char *rest) {
    static const char *const names[] = {"t.weight", "t.bias", "a.weight", "a.bias", "b.weight", "b.bias"};
    json_decref(test_ask(&service, 201, "POST /models", NULL,
                         "{'name': 'm', 'seed': 1, 'durability': 'journal', 'inputs': {'x': {'shape': [1]}}, "
                         "'layers': [{'name': 't', 'op': 'linear', 'out_features': 1}, "
                         "{'name': 'a', 'op': 'linear', 'out_features': 1, 'inputs': ['t']}, "
                         "{'name': 'b', 'op': 'linear', 'out_features': 1, 'inputs': ['t']}], "
                         "'outputs': ['a', 'b'], 'loss': [{'op': 'mse', 'input': 'a', 'target': 'a'}, "
                         "{'op': 'mse', 'input': 'b', 'target': 'b'}], 'optimizer': {'op': 'sgd', 'lr': 0.1, "
                         "'weight_decay': 0.5}%s}",
                         rest));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        json_decref(test_ask(&service, 200, "PUT /models/m/parameters?partial=true", NULL,
                             strstr(names[i], "bias") ? "{'parameters': {'%s': [1]}}"
                                                      : "{'parameters': {'%s': [[1]]}}",
                             names[i]));
}

#define OF_A "'losses': [0], 'targets': {'a': [[2.5]]}"

/* Of x = 1, so that t is 2 and a is 3: with a target of 2.5 the gradients of a.bias and of the trunk are 1, that of a.weight
 * is 2. Steps are of 0.1 (gradient + 0.5 weight). */
static void check_a_step_of_a(struct test_service *of) {
    expect_in(of, "t.weight", 0.85);
    expect_in(of, "t.bias", 0.85);
    expect_in(of, "a.weight", 0.75);
    expect_in(of, "a.bias", 0.85);
    expect_in(of, "b.weight", 1);
    expect_in(of, "b.bias", 1);
}

static void backward(const char *rest) {
    json_decref(
        test_ask(&service, 200, "POST /backward", NULL, "{'model': 'm', 'inputs': {'x': [[1]]}, %s}", rest));
}

#define STEPS_OF_A "{'a.bias': 1, 'a.weight': 1, 'b.bias': 0, 'b.weight': 0, 't.bias': 1, 't.weight': 1}"

/* Parameters that a loss does not reach have no gradient, which is another thing than 0. */
static void what_a_pass_does_not_reach_stays(void **state) {
    (void)state;
    struct test_recovered recovered;
    create_heads("");
    backward(OF_A ", 'apply': true");
    check_a_step_of_a(&service);
    expect_member("m/optimizer", "steps", STEPS_OF_A);
    test_recovered_start(&recovered, &journal, &service, false,
                         journal.n); /* the request is carried out again */
    check_a_step_of_a(&recovered.service);
    test_recovered_stop(&recovered);
    json_decref(test_ask(&service, 200, "DELETE /models/m", NULL, NULL));

    create_heads("");
    backward("'upstream': {'a': [[1]]}, 'accumulate': true");
    expect_member("m/gradients", "gradients",
                  "{'a.bias': [1.0], 'a.weight': [[2.0]], 't.bias': [1.0], 't.weight': [[1.0]]}");
    test_recovered_start(&recovered, &journal, &service, false, journal.n);
    json_decref(test_ask(&recovered.service, 200, "POST /step", NULL, "{'model': 'm'}"));
    check_a_step_of_a(&recovered.service);
    test_recovered_stop(&recovered);

    backward("'upstream': {'b': [[0]]}, 'accumulate': true"); /* names join; and 0 is a gradient */
    json_decref(test_ask(&service, 200, "POST /step", NULL, "{'model': 'm'}"));
    expect_in(&service, "a.weight", 0.75);
    expect_in(&service, "b.weight", 0.95);
    expect_member("m/optimizer", "steps", "1");
}

/* Of a round too, of which the sum is written down. An answer shows all gradients. */
static void a_round_leaves_what_it_does_not_reach(void **state) {
    (void)state;
    struct test_recovered recovered;
    create_heads(", 'aggregation': {'mode': 'sync', 'workers': 1}");
    json_t *answer = test_ask(&service, 200, "POST /backward", NULL,
                              "{'model': 'm', 'inputs': {'x': [[1]]}, " OF_A
                              ", 'worker': 'w', 'apply': true, 'return': ['parameters']}");
    assert_int_equal(json_object_size(json_object_get(answer, "gradients")), 6);
    json_decref(answer);
    check_a_step_of_a(&service);
    expect_member("m/optimizer", "steps", STEPS_OF_A);
    test_recovered_start(&recovered, &journal, &service, false, journal.n);
    check_a_step_of_a(&recovered.service);
    test_recovered_stop(&recovered);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_a_pass_does_not_reach_stays),
        TEST(a_round_leaves_what_it_does_not_reach),
    };
    return cmocka_run_group_tests_name("reached", tests, NULL, NULL);
}
