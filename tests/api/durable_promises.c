/* What a crash must not do: forget what was told to be durable, make a change twice, or lead to other numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
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

/* --- what the tests say ------------------------------------------------------------------------------- */

#define LAYERS                                                                                               \
    "'inputs': {'x': {'shape': [3]}}, 'layers': [{'op': 'linear', 'out_features': 2}], 'loss': {'op': "      \
    "'mse'}, 'optimizer': {'op': 'sgd', 'lr': 0.1, 'momentum': 0.9}"

static json_t *ask(int status, const char *request, const char *body) {
    return test_ask(&service, status, request, NULL, body ? "%s" : NULL, body);
}

static void run(int status, const char *request, const char *body) {
    json_decref(ask(status, request, body));
}

static void create(const char *durability) {
    char body[512];
    snprintf(body, sizeof body, "{'name': 'm', " LAYERS ", 'durability': '%s'}", durability);
    run(201, "POST /models", body);
}

static json_int_t version_of(struct test_service *of) {
    json_t *json = test_ask(of, 200, "GET /models/m", NULL, NULL);
    json_int_t version = json_integer_value(json_object_get(json, "version"));
    json_decref(json);
    return version;
}

/* --- made once ---------------------------------------------------------------------------------------- */

#define WAITS                                                                                                \
    "{\"model\": \"m\", \"apply\": true, \"wait\": \"durable\", \"inputs\": {\"x\": [[1, 2, 3]]}, "          \
    "\"targets\": {\"y\": [[0, 1]]}}"

static void a_change_that_no_checkpoint_has_yet_is_not_made_again(void **state) {
    (void)state;
    const struct nn_error full = {.code = NN_E_STORE, .text = "the disk is full"};
    const struct test_request request = {.method = "POST",
                                         .path = "/backward",
                                         .idempotency_key = "k",
                                         .body = WAITS,
                                         .size = sizeof WAITS - 1};
    static const int status[] = {503, 200};
    create("snapshot");
    for (int i = 0; i < 2; i++) {
        struct test_pending pending;
        test_submit(&service, &pending, &request);
        assert_int_equal(version_of(&service), 1);
        api_checkpoint_failed(service.api, &full);
        struct test_answer answer = test_take(&pending);
        assert_int_equal(answer.status, status[i]);
        json_t *json = json_loadb(answer.body, answer.size, 0, NULL);
        if (i == 1) {
            assert_true(json_is_true(json_object_get(json, "replayed")));
            assert_int_equal(json_integer_value(json_object_get(json, "applied_version")), 1);
            assert_int_equal(json_integer_value(json_object_get(json, "durable_version")), 0);
        }
        json_decref(json);
        test_answer_free(&answer);
    }
}

int main(void) {
#define promise(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        promise(a_change_that_no_checkpoint_has_yet_is_not_made_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
