/* What outlives the process: records and snapshots, and what recovery makes of them. */
#include <pthread.h>
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

static json_t *ask(int status, const char *request, const char *body) {
    return test_ask(&service, status, request, NULL, body ? "%s" : NULL, body);
}

static void run(int status, const char *request, const char *body) {
    json_decref(ask(status, request, body));
}

static json_t *ask_keyed(int status, const char *key, const char *request, const char *body) {
    const struct test_request headers = {.idempotency_key = key};
    return test_ask(&service, status, request, &headers, "%s", body);
}

static json_int_t integer(const json_t *json, const char *name) {
    assert_true(json_is_integer(json_object_get(json, name)));
    return json_integer_value(json_object_get(json, name));
}

static void check_slug(json_t *json, const char *slug) {
    char type[80];
    snprintf(type, sizeof type, API_PROBLEM_TYPE "%s", slug);
    assert_string_equal(json_string_value(json_object_get(json, "type")), type);
    json_decref(json);
}

#define LAYERS                                                                                               \
    "'inputs': {'x': {'shape': [3]}}, 'layers': [{'op': 'linear', 'out_features': 4}, {'op': 'tanh'},"       \
    " {'op': 'dropout', 'p': 0.5}, {'op': 'linear', 'out_features': 2}, {'op': 'batch_norm'},"               \
    " {'op': 'linear', 'name': 'p', 'out_features': 2},"                                                     \
    " {'op': 'linear', 'name': 'q', 'out_features': 2, 'tied': {'weight': 'p.weight'}}], 'loss': {'op': "    \
    "'mse'}"
#define ADAM  "'optimizer': {'op': 'adam', 'lr': 0.01}"
#define BATCH "'inputs': {'x': [[1, 2, 3], [3, 4, -1]]}, 'targets': {'y': [[0, 1], [1, 0]]}"
#define STEP  "{'model': 'm', 'apply': true, " BATCH "}"

static void create(const char *name, const char *durability) {
    char body[1024];
    snprintf(body, sizeof body, "{'name': '%s', " LAYERS ", " ADAM ", 'durability': '%s'}", name, durability);
    run(201, "POST /models", body);
}

/* Everything that a model's answers tell of its state, but for what is new after a start. */
static char *state_of(struct test_service *of, const char *model) {
    static const char *const parts[] = {"", "/parameters", "/optimizer", "/gradients"};
    static const char *const moments[] = {"incarnation", "durable_version", "snapshots", "coalescing"};
    json_t *all = json_array();
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        char request[128];
        snprintf(request, sizeof request, "GET /models/%s%s", model, parts[i]);
        json_t *part = test_call(of, 0, request, NULL);
        for (size_t k = 0; k < sizeof moments / sizeof moments[0]; k++) json_object_del(part, moments[k]);
        json_array_append_new(all, part);
    }
    char *text = json_dumps(all, JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    json_decref(all);
    return text;
}

/* A service at this moment that has started with the first `n` records, and perhaps snapshots. */
static void start_again(struct test_recovered *recovered, bool snapshots, size_t n) {
    test_recovered_start(recovered, &journal, &service, snapshots, n);
}

/* That such a service has this model as it is. */
static void check_recovered_from(const char *model, bool snapshots, size_t n, const char *expected) {
    struct test_recovered recovered;
    start_again(&recovered, snapshots, n);
    char *found = state_of(&recovered.service, model);
    assert_string_equal(found, expected);
    free(found);
    test_recovered_stop(&recovered);
}

static void check_recovered(const char *model, bool snapshots) {
    char *expected = state_of(&service, model);
    check_recovered_from(model, snapshots, journal.n, expected);
    free(expected);
}

static json_int_t version_of(const char *model) {
    char request[128];
    snprintf(request, sizeof request, "GET /models/%s", model);
    json_t *json = ask(200, request, NULL);
    json_int_t version = integer(json, "version");
    json_decref(json);
    return version;
}

/* A gradient of the model at its version, as /backward tells it. */
static char *gradient(void) {
    json_t *json = ask(200, "POST /backward", "{'model': 'm', 'seed': 8, " BATCH "}");
    json_object_set_new(json, "worker", json_string("w"));
    char *text = json_dumps(json, JSON_REAL_PRECISION(17));
    json_decref(json);
    return text;
}

static void push(int status, const char *request, char *body) {
    test_do(&service, status, request, body);
    free(body);
}

/* --- changes ------------------------------------------------------------------------------------------ */

static void a_bit_of_everything(void) {
    create("m", "journal");
    create("other", "journal");
    for (int i = 0; i < 3; i++) run(200, "POST /backward", STEP);
    char *old = gradient();
    run(200, "POST /backward", STEP);
    push(200, "POST /models/m/gradients", old);
    run(200, "POST /backward", "{'model': 'm', 'accumulate': {'scale': 0.5}, " BATCH "}");
    push(200, "POST /models/m/gradients", gradient());
    run(200, "POST /backward", "{'model': 'm', 'accumulate': true, 'seed': 5, " BATCH "}");
    run(200, "POST /step", "{'model': 'm', 'mean': true, 'lr': 0.1}");
    run(200, "PATCH /models/m", "{'optimizer': {'lr': 0.02, 'amsgrad': true}}");
    run(200, "POST /backward", STEP);
    run(200, "POST /models/m/parameters", "{'from': 'other', 'tau': 0.25}");
    run(200, "PUT /models/m/parameters?partial=true", "{'parameters': {'3.bias': [0.5, -0.5]}}");
    run(200, "POST /backward", "{'model': 'm', 'apply': {'lr': 0.5}, 'return': ['parameters'], " BATCH "}");
    run(200, "POST /backward", "{'model': 'm', 'accumulate': true, " BATCH "}");
}

static void every_change_is_recovered_from_its_records(void **state) {
    (void)state;
    a_bit_of_everything();
    check_recovered("m", false);
    check_recovered("other", false);
}

static void a_snapshot_stands_for_the_records_before_it(void **state) {
    (void)state;
    a_bit_of_everything();
    test_journal_checkpoint(&journal, service.api);
    for (size_t i = 0; i < journal.n; i++) memset(journal.records[i].bytes, 0, 8); /* nobody looks at them */
    run(200, "POST /backward", STEP);
    run(200, "POST /step", "{'model': 'm'}");
    run(200, "PATCH /models/m", "{'optimizer': {'op': 'sgd', 'lr': 0.1, 'momentum': 0.9, 'amsgrad': null}}");
    run(200, "POST /backward", STEP);
    run(200, "DELETE /models/other", NULL);
    create("other", "journal");
    run(200, "POST /backward", "{'model': 'other', 'apply': true, " BATCH "}");
    check_recovered("m", true);
    check_recovered("other", true);
}

static void many_steps_with_hashes(void **state) {
    (void)state;
    create("m", "journal");
    for (int i = 0; i < 200; i++) run(200, "POST /backward", STEP);
    check_recovered("m", false);
    /* One bit of a body that was sent: another step than it was. */
    char *at = memmem(journal.records[70].bytes, journal.records[70].size, "[1, 2, 3]", 9);
    assert_non_null(at);
    at[1] = '7';
    struct test_service other;
    struct nn_error err = {0};
    test_service_start_stored(&other, NULL, 0, &journal.store);
    assert_int_equal(test_journal_recover(&journal, other.api, false, journal.n, &err), NN_E_CORRUPT);
    test_service_stop(&other);
}

static void rounds_are_recovered(void **state) {
    (void)state;
    struct test_pending a, b;
    create("m", "journal");
    run(200, "PATCH /models/m", "{'aggregation': {'mode': 'sync', 'workers': 2}}");
    for (int i = 0; i < 3; i++) {
        static const char
            one[] = "{\"model\": \"m\", \"apply\": true, \"worker\": \"a\", \"inputs\": {\"x\": [[1, 2, 3], "
                    "[0, 1, -1]]}, "
                    "\"targets\": {\"y\": [[0, 1], [1, 0]]}}",
            two[] = "{\"model\": \"m\", \"apply\": true, \"worker\": \"b\", \"return\": [\"parameters\"], "
                    "\"inputs\": {\"x\": [[3, 2, 3], [1, 0, 1]]}, \"targets\": {\"y\": [[0, 1], [1, 0]]}}";
        const struct test_request first = {.method = "POST",
                                           .path = "/backward",
                                           .idempotency_key = i ? NULL : "k1",
                                           .body = one,
                                           .size = sizeof one - 1},
                                  second = {.method = "POST",
                                            .path = "/backward",
                                            .idempotency_key = i ? NULL : "k2",
                                            .body = two,
                                            .size = sizeof two - 1};
        journal.hold = true;
        test_submit(&service, &a, &first);
        test_submit(&service, &b, &second);
        assert_false(atomic_load(&a.done) || atomic_load(&b.done)); /* neither is durable */
        journal.hold = false;
        test_journal_sync(&journal);
        struct test_answer answers[2] = {test_take(&a), test_take(&b)};
        for (int k = 0; k < 2; k++) {
            json_t *json = json_loadb(answers[k].body, answers[k].size, 0, NULL);
            assert_int_equal(answers[k].status, 200);
            assert_int_equal(integer(json, "durable_version"), i + 1);
            json_decref(json);
            test_answer_free(&answers[k]);
        }
    }
    assert_int_equal(version_of("m"), 3);
    check_recovered("m", false);
}

/* --- waiting ------------------------------------------------------------------------------------------ */

static const struct test_request one_step = {
    .method = "POST",
    .path = "/backward",
    .body = "{\"model\": \"m\", \"apply\": true, \"inputs\": {\"x\": [[1, 2, 3], [0, 1, -1]]}, "
            "\"targets\": {\"y\": [[0, 1], [1, 0]]}}",
    .size = 83};

static void nothing_is_answered_before_it_is_durable(void **state) {
    (void)state;
    struct test_pending pending;
    create("m", "journal");
    journal.hold = true;
    struct test_request request = one_step;
    request.size = strlen(one_step.body);
    test_submit(&service, &pending, &request);
    assert_false(atomic_load(&pending.done));
    assert_int_equal(version_of("m"), 1); /* it is made, and readers see it */
    json_t *json = ask(200, "GET /models/m", NULL);
    assert_int_equal(integer(json, "durable_version"), 0);
    json_decref(json);
    test_journal_sync(&journal);
    struct test_answer answer = test_take(&pending);
    json = json_loadb(answer.body, answer.size, 0, NULL);
    assert_int_equal(answer.status, 200);
    assert_int_equal(integer(json, "durable_version"), 1);
    json_decref(json);
    test_answer_free(&answer);
    json = ask(200, "GET /models/m", NULL);
    assert_int_equal(integer(json, "durable_version"), 1);
    json_decref(json);
    journal.hold = false;
}

static void a_store_without_room_refuses_and_nothing_has_changed(void **state) {
    (void)state;
    create("m", "journal");
    run(200, "POST /backward", STEP);
    char *before = state_of(&service, "m");
    journal.refuse = true;
    static const char *const requests[][2] = {
        {"POST /backward", STEP},
        {"POST /backward", "{'model': 'm', 'accumulate': true, " BATCH "}"},
        {"PATCH /models/m", "{'optimizer': {'lr': 0.5}}"},
        {"PATCH /models/m", "{'optimizer': {'op': 'sgd', 'lr': 0.5}}"},
        {"PUT /models/m/parameters?partial=true", "{'parameters': {'3.bias': [0.5, -0.5]}}"},
        {"POST /models/m/parameters", "{'from': 'm', 'tau': 0.5}"},
        {"DELETE /models/m", NULL},
        {"POST /models", "{'name': 'another', " LAYERS "}"},
    };
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++)
        check_slug(ask(503, requests[i][0], requests[i][1]), "storage");
    char *after = state_of(&service, "m");
    assert_string_equal(before, after);
    free(before);
    free(after);
    run(404, "GET /models/another", NULL);
    run(200, "POST /forward", "{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}}"); /* readers go on */
    journal.refuse = false;
    run(200, "POST /backward", STEP);
    assert_int_equal(version_of("m"), 2);
    check_recovered("m", false);
}

static void a_sync_that_failed_is_told(void **state) {
    (void)state;
    create("m", "journal");
    journal.fail = true;
    check_slug(ask(503, "POST /backward", STEP), "storage");
    journal.fail = false;
}

/* --- keys --------------------------------------------------------------------------------------------- */

/* Whether a service that has recovered knows the step of key "k". */
static void check_key(bool snapshots, size_t n, bool replayed) {
    const struct test_request headers = {.idempotency_key = "k"};
    struct test_recovered recovered;
    start_again(&recovered, snapshots, n);
    json_t *json = test_ask(&recovered.service, 200, "POST /backward", &headers, "%s", STEP);
    assert_int_equal(json_is_true(json_object_get(json, "replayed")), replayed);
    if (replayed) assert_int_equal(integer(json, "applied_version"), 1);
    json_decref(json);
    test_recovered_stop(&recovered);
}

static void keys_outlive_the_process(void **state) {
    (void)state;
    create("m", "journal");
    json_decref(ask_keyed(200, "k", "POST /backward", STEP));
    run(200, "POST /backward", STEP);
    check_key(false, journal.n, true);
    check_key(false, 1, false); /* its change is not there */
    test_journal_checkpoint(&journal, service.api);
    check_key(true, journal.n, true);
}

static void keys_of_snapshots_go_with_them(void **state) {
    (void)state;
    create("m", "snapshot");
    json_decref(ask_keyed(200, "k", "POST /backward", STEP));
    check_key(false, journal.n, false);
    test_journal_checkpoint(&journal, service.api);
    check_key(true, journal.n, true);
}

/* --- durability --------------------------------------------------------------------------------------- */

static void snapshots_alone(void **state) {
    (void)state;
    struct test_pending pending;
    run(201, "POST /models", "{'name': 'm', " LAYERS ", " ADAM "}"); /* which is the default */
    size_t created = journal.n;
    assert_int_equal(created, 1);
    char *first = state_of(&service, "m");
    json_t *json = ask(200, "POST /backward", STEP);
    assert_int_equal(integer(json, "durable_version"), 0);
    json_decref(json);
    assert_int_equal(journal.n, created);
    check_recovered_from("m", false, journal.n, first);
    free(first);

    static const char waits[] =
        "{\"model\": \"m\", \"apply\": true, \"wait\": \"durable\", "
        "\"inputs\": {\"x\": [[1, 2, 3], [0, 1, -1]]}, \"targets\": {\"y\": [[0, 1], [1, 0]]}}";
    const struct test_request request = {
        .method = "POST", .path = "/backward", .body = waits, .size = sizeof waits - 1};
    test_submit(&service, &pending, &request);
    assert_false(atomic_load(&pending.done));
    assert_int_equal(journal.wanted, 1);
    test_journal_checkpoint(&journal, service.api);
    struct test_answer answer = test_take(&pending);
    assert_int_equal(answer.status, 200);
    json = json_loadb(answer.body, answer.size, 0, NULL);
    assert_int_equal(integer(json, "durable_version"), 2);
    json_decref(json);
    test_answer_free(&answer);
    check_recovered("m", true);
}

/* A round has one answer for all: who asks for a durable one has the others wait too. */
static void one_who_waits_has_the_round_wait(void **state) {
    (void)state;
#define ROUND                                                                                                \
    "{\"model\": \"m\", \"apply\": true, \"inputs\": {\"x\": [[1, 2, 3], [0, 1, -1]]}, \"targets\": "        \
    "{\"y\": [[0, 1], [1, 0]]}, "
    static const char *const bodies[] = {ROUND "\"worker\": \"a\"}",
                                         ROUND "\"worker\": \"b\", \"wait\": \"durable\"}"};
#undef ROUND
    struct test_pending pending[2];
    create("m", "snapshot");
    run(200, "PATCH /models/m", "{'aggregation': {'mode': 'sync', 'workers': 2}}");
    for (int i = 0; i < 2; i++)
        test_submit(&service, &pending[i],
                    &(struct test_request){
                        .method = "POST", .path = "/backward", .body = bodies[i], .size = strlen(bodies[i])});
    assert_int_equal(version_of("m"), 1);
    assert_false(atomic_load(&pending[0].done) || atomic_load(&pending[1].done));
    test_journal_checkpoint(&journal, service.api);
    for (int i = 0; i < 2; i++) {
        struct test_answer answer = test_take(&pending[i]);
        assert_int_equal(answer.status, 200);
        json_t *json = json_loadb(answer.body, answer.size, 0, NULL);
        assert_int_equal(integer(json, "durable_version"), 1);
        json_decref(json);
        test_answer_free(&answer);
    }
    run(200, "PATCH /models/m", "{'durability': 'none'}");
    check_slug(ask(422, "POST /backward",
                   "{'model': 'm', 'apply': true, 'worker': 'a', 'wait': 'durable', " BATCH "}"),
               "invalid-value");
}

/* A gradient of before, applied after: what it was computed from is not there to be read again. */
static void what_was_read_before_a_state_is_not_needed(void **state) {
    (void)state;
    create("m", "none");
    run(200, "POST /backward", STEP);
    json_t *forward =
        ask(200, "POST /forward",
            "{'model': 'm', 'retain': true, 'mode': 'train', 'inputs': {'x': [[1, 2, 3], [3, 1, 0]]}}");
    run(200, "POST /backward", STEP);
    run(200, "PATCH /models/m", "{'durability': 'journal'}");
    run(200, "POST /backward", STEP);
    char body[256];
    snprintf(body, sizeof body, "{'context': '%s', 'apply': true, 'targets': {'y': [[1, 0], [0, 1]]}}",
             json_string_value(json_object_get(forward, "context")));
    json_decref(forward);
    run(200, "POST /backward", body);
    run(200, "POST /backward", "{'model': 'm', 'wait': 'durable', " BATCH "}");
    check_recovered("m", false);
}

static void reading_waits_for_nothing(void **state) {
    (void)state;
    create("m", "snapshot");
    run(200, "POST /backward", "{'model': 'm', 'wait': 'durable', " BATCH "}");
    assert_int_equal(journal.wanted, 0);
}

/* A start with other limits than those that the model came under. */
static void what_was_allowed_is_recovered(void **state) {
    (void)state;
    run(201, "POST /models",
        "{'name': 'm', 'inputs': {'x': {'shape': [3]}}, 'layers': [{'op': 'linear', 'out_features': 2}],"
        " 'loss': {'op': 'mse'}, " ADAM ", 'durability': 'journal'}");
    run(200, "POST /backward", STEP);
    struct api_settings strict = {.limits = api_default_limits};
    strict.limits.layers = strict.limits.json_depth = strict.limits.json_values = strict.limits.tensors = 1;
    strict.limits.name = strict.limits.rank = 1;
    strict.limits.memory = 1 << 12;
    struct test_service other;
    struct nn_error err = {0};
    test_service_start_stored(&other, &strict, 0, &journal.store);
    assert_int_equal(test_journal_recover(&journal, other.api, false, journal.n, &err), NN_OK);
    json_t *json = test_ask(&other, 200, "GET /models/m", NULL, NULL);
    assert_int_equal(integer(json, "version"), 1);
    json_decref(json);
    test_service_stop(&other);
}

static void who_waits_is_told_of_the_end(void **state) {
    (void)state;
    struct test_pending pending[2];
    create("m", "snapshot");
    static const char waits[] =
        "{\"model\": \"m\", \"apply\": true, \"wait\": \"durable\", "
        "\"inputs\": {\"x\": [[1, 2, 3], [0, 1, -1]]}, \"targets\": {\"y\": [[0, 1], [1, 0]]}}";
    const struct test_request request = {
        .method = "POST", .path = "/backward", .body = waits, .size = sizeof waits - 1};
    const struct nn_error full = {.code = NN_E_STORE, .text = "the disk is full"};
    test_submit(&service, &pending[0], &request);
    api_checkpoint_failed(service.api, &full);
    struct test_answer answer = test_take(&pending[0]);
    assert_int_equal(answer.status, 503);
    test_answer_free(&answer);
    test_submit(&service, &pending[1], &request);
    run(200, "DELETE /models/m", NULL);
    answer = test_take(&pending[1]);
    assert_int_equal(answer.status, 404);
    test_answer_free(&answer);
}

static void not_stored(void **state) {
    (void)state;
    create("m", "none");
    run(200, "POST /backward", STEP);
    assert_int_equal(journal.n, 0);
    check_slug(ask(422, "POST /backward", "{'model': 'm', 'apply': true, 'wait': 'durable', " BATCH "}"),
               "invalid-value");
    assert_int_equal(version_of("m"), 1);
    check_slug(ask(422, "POST /models", "{'name': 'n', " LAYERS ", 'durability': 'forever'}"),
               "invalid-value");
}

static void durability_can_be_changed(void **state) {
    (void)state;
    create("m", "none");
    run(200, "POST /backward", STEP);
    run(200, "PATCH /models/m", "{'durability': 'journal'}");
    run(200, "POST /backward", STEP);
    check_recovered("m", false);
    run(200, "PATCH /models/m", "{'durability': 'snapshot'}");
    run(200, "POST /backward", STEP);
    run(200, "PATCH /models/m", "{'durability': 'journal'}");
    check_recovered("m", false);
    run(200, "PATCH /models/m", "{'durability': 'none'}");
    struct test_service other;
    struct nn_error err = {0};
    test_service_start_stored(&other, NULL, 0, &journal.store);
    assert_int_equal(test_journal_recover(&journal, other.api, false, journal.n, &err), NN_OK);
    json_decref(test_ask(&other, 404, "GET /models/m", NULL, NULL));
    test_service_stop(&other);
}

/* --- stopped, and restored ---------------------------------------------------------------------------- */

static void a_model_that_is_not_finite_is_stopped(void **state) {
    (void)state;
    create("m", "journal");
    run(200, "PATCH /models/m", "{'optimizer': {'op': 'sgd', 'lr': 1e30, 'momentum': 0.5}}");
    test_journal_checkpoint(&journal, service.api);
    char body[256];
    json_t *json = ask(200, "GET /models/m", NULL);
    snprintf(body, sizeof body, "{'incarnation': '%s', 'version': 0, 'gradients': {'3.bias': [1e20, 1]}}",
             json_string_value(json_object_get(json, "incarnation")));
    json_decref(json);
    check_slug(ask(422, "POST /models/m/gradients", body), "not-finite");
    assert_int_equal(version_of("m"), 0);
    json = ask(200, "GET /models/m", NULL);
    assert_string_equal(json_string_value(json_object_get(json, "stopped")), "3.bias");
    json_decref(json);
    check_slug(ask(409, "POST /backward", STEP), "stopped");
    run(200, "POST /forward", "{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}}");
    check_recovered("m", false);
    check_recovered("m", true);
    json = ask(200, "POST /models/m/restore", "{'version': 0}");
    assert_int_equal(integer(json, "version"), 0);
    json_decref(json);
    check_recovered("m", false);
    run(200, "PATCH /models/m", "{'optimizer': {'lr': 0.01}}");
    run(200, "POST /backward", STEP);
    check_recovered("m", true);
}

/* The same where it is the optimizer's state alone that a step makes infinite; and what is refused before is no
 * record. */
static void a_state_that_is_not_finite_stops_too(void **state) {
    (void)state;
    create("m", "journal");
    run(200, "PATCH /models/m", "{'optimizer': {'op': 'adam'}}");
    char body[256];
    json_t *json = ask(200, "GET /models/m", NULL);
    const char *incarnation = json_string_value(json_object_get(json, "incarnation"));
    snprintf(body, sizeof body, "{'incarnation': '%s', 'version': 0, 'gradients': {'3.bias': [1e25, 1]}}",
             incarnation);
    check_slug(ask(422, "POST /models/m/gradients", body), "not-finite");
    check_recovered("m", false);
    run(200, "PATCH /models/m", "{'optimizer': {'weight_decay': 1e30}}");
    snprintf(body, sizeof body, "{'incarnation': '%s', 'version': 0, 'gradients': {'3.bias': [1, 1]}}",
             incarnation);
    run(200, "PUT /models/m/parameters?partial=true", "{'parameters': {'3.bias': [1, 1]}}");
    json_decref(json);
    json = ask(200, "GET /models/m", NULL);
    assert_true(json_is_null(json_object_get(json, "stopped")));
    json_decref(json);
    check_slug(ask(422, "POST /models/m/gradients", body), "not-finite");
    assert_int_equal(version_of("m"), 1);
    json = ask(200, "GET /models/m", NULL);
    assert_string_equal(json_string_value(json_object_get(json, "stopped")), "3.bias");
    json_decref(json);
    check_recovered("m", false);
    check_recovered("m", true);
}

static void restored_models_refuse_what_came_before(void **state) {
    (void)state;
    create("m", "journal");
    run(200, "POST /backward", STEP);
    test_journal_checkpoint(&journal, service.api);
    for (int i = 0; i < 3; i++) run(200, "POST /backward", STEP);
    char *old = gradient();
    json_t *before = ask(200, "GET /models/m", NULL);
    json_t *restored = ask(200, "POST /models/m/restore", "{}");
    assert_int_equal(integer(restored, "version"), 1);
    assert_string_not_equal(json_string_value(json_object_get(before, "incarnation")),
                            json_string_value(json_object_get(restored, "incarnation")));
    json_decref(before);
    json_decref(restored);
    push(412, "POST /models/m/gradients", old);
    run(404, "POST /models/m/restore", "{'version': 77}");
    run(200, "POST /backward", STEP);
    check_recovered("m", false);
    check_recovered("m", true);
}

static void a_name_taken_anew_has_no_snapshots_of_before(void **state) {
    (void)state;
    create("m", "journal");
    run(200, "POST /backward", STEP);
    test_journal_checkpoint(&journal, service.api);
    run(200, "DELETE /models/m", NULL);
    json_t *made = ask(201, "POST /models", "{'name': 'm', " LAYERS ", " ADAM ", 'durability': 'journal'}");
    assert_int_equal(json_array_size(json_object_get(made, "snapshots")), 0);
    assert_true(json_is_array(json_object_get(made, "snapshots")));
    json_decref(made);
    json_t *refused = ask(404, "POST /models/m/restore", "{}");
    assert_string_equal(json_string_value(json_object_get(refused, "detail")), "there is no such snapshot");
    check_slug(refused, "not-found");
    check_slug(ask(404, "POST /models/m/restore", "{'version': 1}"), "not-found");
    test_journal_checkpoint(&journal, service.api);
    run(200, "POST /backward", STEP);
    json_t *restored = ask(200, "POST /models/m/restore", "{}");
    assert_int_equal(integer(restored, "version"), 0);
    json_decref(restored);
}

/* The store hands over what is another model's: it is not the client that is wrong then. */
static void a_snapshot_of_another_model_is_corrupt(void **state) {
    (void)state;
    create("m", "journal");
    run(200, "POST /backward", STEP);
    test_journal_checkpoint(&journal, service.api);
    run(200, "DELETE /models/m", NULL);
    create("m", "journal");
    test_journal_checkpoint(&journal, service.api);
    assert_int_equal(journal.n_saved, 2);
    memcpy(journal.saved[0].birth, journal.saved[1].birth, sizeof journal.saved[0].birth);
    check_slug(ask(500, "POST /models/m/restore", "{'version': 1}"), "corrupt");
    assert_int_equal(version_of("m"), 0);
}

int main(void) {
#define durable_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        durable_test(every_change_is_recovered_from_its_records),
        durable_test(a_snapshot_stands_for_the_records_before_it),
        durable_test(many_steps_with_hashes),
        durable_test(rounds_are_recovered),
        durable_test(nothing_is_answered_before_it_is_durable),
        durable_test(a_store_without_room_refuses_and_nothing_has_changed),
        durable_test(a_sync_that_failed_is_told),
        durable_test(keys_outlive_the_process),
        durable_test(keys_of_snapshots_go_with_them),
        durable_test(snapshots_alone),
        durable_test(what_was_read_before_a_state_is_not_needed),
        durable_test(one_who_waits_has_the_round_wait),
        durable_test(reading_waits_for_nothing),
        durable_test(what_was_allowed_is_recovered),
        durable_test(who_waits_is_told_of_the_end),
        durable_test(not_stored),
        durable_test(durability_can_be_changed),
        durable_test(a_model_that_is_not_finite_is_stopped),
        durable_test(a_state_that_is_not_finite_stops_too),
        durable_test(restored_models_refuse_what_came_before),
        durable_test(a_name_taken_anew_has_no_snapshots_of_before),
        durable_test(a_snapshot_of_another_model_is_corrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
