/* Records of format 0: what was let in then, and is refused now, is carried out again all the same, for what follows in the
 * journal rests on the versions that came of it. The service writes no such records any more; these are made of its own. */
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

static void create(const char *optimizer) {
    json_decref(test_ask(&service, 201, "POST /models", NULL,
                         "{'name': 'm', 'seed': 1, 'durability': 'journal', 'inputs': {'x': {'shape': [1]}}, "
                         "'layers': [{'op': 'linear', 'out_features': 1}], 'optimizer': {%s}}",
                         optimizer));
    json_decref(test_ask(&service, 200, "PUT /models/m/parameters", NULL,
                         "{'parameters': {'0.weight': [[1]], '0.bias': [1]}}"));
}

static void push(double weight, double bias, const char *how) {
    json_t *seen = test_call(&service, 200, "GET /models/m", NULL);
    json_decref(test_ask(&service, 200, "POST /models/m/gradients", NULL,
                         "{'incarnation': '%s', 'version': %lld, "
                         "'gradients': {'0.weight': [[%g]], '0.bias': [%g]}, %s}",
                         json_string_value(json_object_get(seen, "incarnation")),
                         json_integer_value(json_object_get(seen, "version")), weight, bias, how));
    json_decref(seen);
}

/* In all records that have it; both are equally long. */
static void put_for(const char *text, const char *other) {
    size_t size = strlen(text), found = 0;
    assert_int_equal(size, strlen(other));
    for (size_t i = 0; i < journal.n; i++)
        for (char *at = journal.records[i].bytes;
             (at = memmem(at, journal.records[i].size - (size_t)(at - journal.records[i].bytes), text, size));
             at += size, found++)
            memcpy(at, other, size);
    assert_true(found > 0);
}

static void check(struct test_service *of, json_int_t version, json_int_t accumulated) {
    json_t *json = test_call(of, 200, "GET /models/m", NULL);
    assert_int_equal(json_integer_value(json_object_get(json, "version")), version);
    assert_int_equal(json_integer_value(json_object_get(json, "accumulated")), accumulated);
    assert_true(json_is_null(json_object_get(json, "stopped")));
    json_decref(json);
}

/* The square of such a gradient was infinite in the optimizer's state, and the parameter stood still from then on. */
static void gradients_of_any_size(void **state) {
    (void)state;
    struct test_recovered recovered;
    create("'op': 'sgd', 'lr': 1e-30");
    push(1e25, 1, "'apply': true");
    push(1, 1, "'apply': true");
    put_for("\"format\":1", "\"format\":0");
    put_for("\"op\": \"sgd\"", "\"op\":\"adam\"");
    test_recovered_start(&recovered, &journal, &service, false, journal.n);
    check(&recovered.service, 3, 0);
    test_recovered_stop(&recovered);
}

/* A sum that had overflowed was let go of by the step that found it. */
static void sums_that_overflow(void **state) {
    (void)state;
    struct test_recovered recovered;
    create("'op': 'sgd', 'lr': 1e-30");
    push(1e38, 1, "'accumulate': {'scale': 1.5}");
    push(1e38, 1, "'accumulate': {'scale': 1.5}");
    json_decref(test_ask(&service, 200, "POST /step", NULL, "{'model': 'm'}"));
    put_for("\"format\":1", "\"format\":0");
    put_for("\"scale\":1.5", "\"scale\":9.5");
    test_recovered_start(&recovered, &journal, &service, false, journal.n - 1);
    check(&recovered.service, 1, 2);
    test_recovered_stop(&recovered);
    test_recovered_start(&recovered, &journal, &service, false, journal.n);
    check(&recovered.service, 1, 0);
    test_recovered_stop(&recovered);
}

/* A document that was sent back could have anything in the members that its call does not read. */
static void members_that_were_not_read(void **state) {
    (void)state;
    struct test_recovered recovered;
    create("'op': 'sgd', 'lr': 1, 'momentum': 0.5");
    json_decref(
        test_ask(&service, 200, "PUT /models/m/parameters", NULL,
                 "{'parameters': {'0.weight': [[2]], '0.bias': [1]}, 'incarnation': 'i', 'version': 1}"));
    json_decref(test_ask(&service, 200, "PUT /models/m/optimizer", NULL,
                         "{'model': 'x', 'version': 7, 'steps': 3, 'state': "
                         "{'momentum_buffer.0.weight': [[1]], 'momentum_buffer.0.bias': [1]}}"));
    put_for("\"incarnation\": \"i\"", "\"incarnation\": 123");
    put_for("\"version\": 1", "\"version\":\"\"");
    put_for("\"version\": 7", "\"version\":-7");
    put_for("\"model\": \"x\"", "\"model\": 1.5");
    test_recovered_start(&recovered, &journal, &service, false, journal.n);
    check(&recovered.service, 2, 0);
    json_t *state_of = test_call(&recovered.service, 200, "GET /models/m/optimizer", NULL);
    assert_int_equal(json_integer_value(json_object_get(state_of, "steps")), 3);
    json_decref(state_of);
    test_recovered_stop(&recovered);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(gradients_of_any_size),
        TEST(sums_that_overflow),
        TEST(members_that_were_not_read),
    };
    return cmocka_run_group_tests_name("earlier", tests, NULL, NULL);
}
