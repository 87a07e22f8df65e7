/* What a crash must not do: forget what was told to be durable, make a change twice, or lead to other numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/journal.h"
#include "../support/service.h"

static struct test_service service; /* the one that ends, */
static struct test_journal journal;
static struct test_recovered other; /* and the one that starts after it */

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

#define BATCH "'inputs': {'x': [[1, 2, 3], [3, 4, -1]]}, 'targets': {'y': [[0, 1], [1, 0]]}"
#define STEP  "{'model': 'm', 'apply': true, " BATCH "}"

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

/* The service as it starts after a crash: with the first `n` records, and perhaps snapshots. */
static void crash(bool snapshots, size_t n) {
    test_recovered_start(&other, &journal, &service, snapshots, n);
}

static void end_crash(void) { test_recovered_stop(&other); }

static json_t *keyed(struct test_service *of, int status, const char *request, const char *body) {
    const struct test_request headers = {.idempotency_key = "k"};
    return test_ask(of, status, request, &headers, "%s", body);
}

static void check_replayed(struct test_service *of, const char *request, const char *body, bool replayed) {
    json_t *json = keyed(of, 200, request, body);
    assert_int_equal(json_is_true(json_object_get(json, "replayed")), replayed);
    json_decref(json);
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

/* Before its durability is raised, a model's changes are in no record, and their keys are not either. */
static void a_change_that_a_state_has_is_not_made_again(void **state) {
    (void)state;
    static const char *const before[] = {"none", "snapshot"};
    for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
        create(before[i]);
        check_replayed(&service, "POST /backward", STEP, false);
        run(200, "PATCH /models/m", "{'durability': 'journal'}");
        crash(false, journal.n);
        check_replayed(&other.service, "POST /backward", STEP, true);
        assert_int_equal(version_of(&other.service), 1);
        end_crash();
        run(200, "DELETE /models/m", NULL);
        atomic_fetch_add(&service.now_ms, api_default_limits.key_ttl_ms + 1);
    }
}

/* --- no start is refused ------------------------------------------------------------------------------ */

/* The state is there, and what was to follow it is not: the model is gone, and another takes its name. */
static void a_raise_that_was_cut_short_is_in_nobodys_way(void **state) {
    (void)state;
    create("none");
    check_replayed(&service, "POST /backward", STEP, false);
    run(200, "PATCH /models/m", "{'durability': 'journal'}");
    test_journal_checkpoint(&journal,
                            service.api); /* whose snapshot comes to nothing, but whose keys are there */
    while (journal.n_saved > 0) free(journal.saved[--journal.n_saved].bytes);
    run(200, "DELETE /models/m", NULL);
    while (journal.n > 1) free(journal.records[--journal.n].bytes);
    journal.durable = 1;
    for (int with_keys = 0; with_keys < 2; with_keys++) {
        crash(with_keys, journal.n);
        json_decref(keyed(&other.service, 404, "POST /backward", STEP)); /* and not replayed */
        json_decref(test_ask(&other.service, 404, "GET /models/m", NULL, NULL));
        end_crash();
    }
    create("journal");
    run(200, "POST /backward", STEP);
    run(200, "POST /backward", STEP);
    crash(false, journal.n);
    assert_int_equal(version_of(&other.service), 2);
    end_crash();
}

/* --- what a checkpoint sees --------------------------------------------------------------------------- */

static int (*append)(void *self, const struct api_segment *segments, size_t n,
                     void (*done)(void *arg, bool durable), void *arg, uint64_t *seq, struct nn_error *err);
static int appended, listed;

static void count_listed(void *arg, const char *name) {
    (void)arg;
    listed += strcmp(name, "m") == 0;
}

static void list_stored(void) {
    struct nn_error err = {0};
    assert_int_equal(api_models_stored(service.api, count_listed, NULL, &err), NN_OK);
}

/* A checkpoint begins right behind the record, and asks whom it is to have a snapshot of. */
static int append_and_list(void *self, const struct api_segment *segments, size_t n,
                           void (*done)(void *arg, bool durable), void *arg, uint64_t *seq,
                           struct nn_error *err) {
    int code = append(self, segments, n, done, arg, seq, err);
    appended++;
    list_stored();
    return code;
}

/* It throws away the records before it: so whoever has one of them has to have a snapshot, or be gone. */
static void who_has_a_record_is_not_missed_by_a_checkpoint(void **state) {
    (void)state;
    static const char *const bodies[] = {"{'durability': 'snapshot'}", "{'durability': 'none'}",
                                         "{'durability': 'journal'}"};
    append = journal.store.append;
    journal.store.append = append_and_list;
    create("journal");
    run(200, "POST /backward", STEP);
    run(200, "PATCH /models/m", bodies[1]);
    for (int i = 0; i < 3; i++) run(200, "PATCH /models/m", bodies[i]);
    assert_int_equal(appended, 8); /* raised from none, a state comes before the patch */
    assert_int_equal(listed, appended);
    run(200, "PATCH /models/m", bodies[1]);
    listed = 0;
    list_stored();
    assert_int_equal(listed, 0);
    journal.refuse = true;
    json_decref(ask(503, "PATCH /models/m", bodies[2]));
    assert_int_equal(listed, 1); /* by the record that was refused */
    list_stored();
    assert_int_equal(listed, 1);
}

struct checkpoint {
    pthread_t thread;
    struct api_snapshot *snapshot;
    struct nn_error err;
};
static struct checkpoint beside;

static void *take_snapshot(void *arg) {
    struct checkpoint *checkpoint = arg;
    checkpoint->snapshot = api_snapshot_take(service.api, "m", NULL, 0, &checkpoint->err);
    return NULL;
}

/* It begins right before the record, and finds the model that is on its way out; most likely. */
static int append_amid_a_checkpoint(void *self, const struct api_segment *segments, size_t n,
                                    void (*done)(void *arg, bool durable), void *arg, uint64_t *seq,
                                    struct nn_error *err) {
    assert_int_equal(pthread_create(&beside.thread, NULL, take_snapshot, &beside), 0);
    usleep(50000);
    return append(self, segments, n, done, arg, seq, err);
}

static void who_is_restored_is_not_missed_by_a_checkpoint(void **state) {
    (void)state;
    create("journal");
    for (int i = 0; i < 2; i++) {
        run(200, "POST /backward", STEP);
        test_journal_checkpoint(&journal, service.api);
    }
    append = journal.store.append;
    journal.store.append = append_amid_a_checkpoint;
    run(200, "POST /models/m/restore", "{'version': 1}");
    journal.store.append = append;
    pthread_join(beside.thread, NULL);
    if (!beside.snapshot) fail_msg("%s", beside.err.text);
    assert_int_equal(beside.snapshot->version, 1);
    assert_int_equal(beside.snapshot->seq, journal.n);
    api_snapshot_free(beside.snapshot);
}

/* --- the same numbers --------------------------------------------------------------------------------- */

static char *parameters_of(struct test_service *of) {
    json_t *json = test_ask(of, 200, "GET /models/m/parameters", NULL, NULL);
    json_object_del(json, "incarnation");
    char *text = json_dumps(json, JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    json_decref(json);
    return text;
}

static void check_same(bool snapshots) {
    crash(snapshots, journal.n);
    char *found = parameters_of(&other.service), *expected = parameters_of(&service);
    assert_string_equal(found, expected);
    free(found);
    free(expected);
    end_crash();
}

/* State that a checkpoint does not have cannot be what a later step goes on from. */
static void what_an_optimizer_used_once_does_not_come_back(void **state) {
    (void)state;
    create("journal");
    run(200, "POST /backward", STEP);
    run(200, "PATCH /models/m", "{'optimizer': {'momentum': 0}}");
    run(200, "POST /backward", STEP);
    test_journal_checkpoint(&journal, service.api);
    run(200, "PATCH /models/m", "{'optimizer': {'momentum': 0.9}}");
    run(200, "POST /backward", STEP);
    check_same(false);
    check_same(true);
}

/* --- what is told ------------------------------------------------------------------------------------- */

/* -1: null. What is told by the answer and of the model then, and what there is after a crash. */
static void check_durable(const char *request, const char *body, json_int_t durable) {
    json_t *json = ask(200, request, body);
    const json_t *told = json_object_get(json, "durable_version");
    assert_true(durable < 0 ? json_is_null(told) : json_is_integer(told));
    if (durable >= 0) assert_int_equal(json_integer_value(told), durable);
    json_decref(json);
    crash(true, journal.n);
    if (durable < 0)
        json_decref(test_ask(&other.service, 404, "GET /models/m", NULL, NULL));
    else
        assert_int_equal(version_of(&other.service), durable);
    end_crash();
    json = ask(0, "GET /models/m", NULL);
    told = json_object_get(json, "durable_version");
    assert_int_equal(json_is_integer(told) ? json_integer_value(told) : -1, durable);
    json_decref(json);
}

static void answers_tell_what_a_crash_would_leave(void **state) {
    (void)state;
    create("snapshot");
    for (int i = 0; i < 2; i++) {
        check_durable("POST /backward", STEP, i);
        test_journal_checkpoint(&journal, service.api);
    }
    check_durable("POST /models/m/restore", "{'version': 1}", 1);
    check_durable("POST /backward", STEP, 1);
    check_durable("PATCH /models/m", "{'durability': 'journal'}", 2);
    check_durable("POST /backward", STEP, 3);
    check_durable("PATCH /models/m", "{'durability': 'none'}", -1);
    run(200, "POST /backward", STEP);
    check_durable("PATCH /models/m", "{'durability': 'snapshot'}", 4);
    check_durable("DELETE /models/m", NULL, -1);
}

/* What was written down before durability was lowered is durable, and no help. */
static void what_was_durable_once_is_not_told_later(void **state) {
    (void)state;
    struct test_pending pending[2];
    static char step[] = STEP, lower[] = "{\"durability\": \"none\"}";
    for (char *c = step; *c; c++)
        if (*c == '\'') *c = '"';
    create("journal");
    journal.hold = true;
    test_submit(
        &service, &pending[0],
        &(struct test_request){.method = "POST", .path = "/backward", .body = step, .size = sizeof step - 1});
    test_submit(&service, &pending[1],
                &(struct test_request){
                    .method = "PATCH", .path = "/models/m", .body = lower, .size = sizeof lower - 1});
    test_journal_sync(&journal);
    for (int i = 0; i < 2; i++) {
        struct test_answer answer = test_take(&pending[i]);
        assert_int_equal(answer.status, 200);
        test_answer_free(&answer);
    }
    json_t *json = ask(200, "GET /models/m", NULL);
    assert_true(json_is_null(json_object_get(json, "durable_version")));
    json_decref(json);
    run(200, "POST /backward", STEP);
    static char raise[] = "{\"durability\": \"snapshot\"}";
    test_submit(&service, &pending[0],
                &(struct test_request){
                    .method = "PATCH", .path = "/models/m", .body = raise, .size = sizeof raise - 1});
    json = ask(200, "POST /backward", STEP); /* which waits for no record */
    assert_true(json_is_null(json_object_get(json, "durable_version")));
    json_decref(json);
    journal.hold = false;
    test_journal_sync(&journal);
    struct test_answer answer = test_take(&pending[0]);
    assert_int_equal(answer.status, 200);
    test_answer_free(&answer);
}

/* A key is saved when its change is over, and then only where it succeeded. */
static void a_step_that_failed_is_not_told_as_made(void **state) {
    (void)state;
    static char body[256];
    const struct test_request request = {
        .method = "POST", .path = "/models/m/gradients", .idempotency_key = "k", .body = body};
    struct test_request sent = request;
    struct test_pending pending;
    create("journal");
    run(200, "PATCH /models/m", "{'optimizer': {'lr': 1e30}}");
    json_t *json = ask(200, "GET /models/m", NULL);
    snprintf(body, sizeof body,
             "{\"incarnation\": \"%s\", \"version\": 0, \"gradients\": {\"0.bias\": [1e20, 1]}}",
             json_string_value(json_object_get(json, "incarnation")));
    json_decref(json);
    sent.size = strlen(body);
    journal.hold = true;
    test_submit(&service, &pending, &sent);
    assert_int_equal(journal.n, 3);
    test_journal_checkpoint(&journal, service.api);
    test_journal_sync(&journal);
    struct test_answer answer = test_take(&pending);
    assert_int_equal(answer.status, 422);
    test_answer_free(&answer);
    crash(true, journal.n);
    json = keyed(&other.service, 0, "POST /models/m/gradients", body);
    assert_null(json_object_get(json, "replayed"));
    json_decref(json);
    end_crash();
    journal.hold = false;
}

/* Versions that recovery has kept to read from are nobody's then. */
static void a_start_holds_no_more_than_was_held(void **state) {
    (void)state;
    create("journal");
    for (int i = 0; i < 8; i++) run(200, "POST /backward", STEP);
    crash(false, journal.n);
    assert_in_range(api_memory_in_use(other.service.api), 1, api_memory_in_use(service.api));
    end_crash();
}

/* What fits in when it comes does so again, though its answer's text would not. */
static void an_answer_that_nobody_reads_takes_no_memory(void **state) {
    (void)state;
    struct api_settings tight = {.limits = api_default_limits};
    tight.limits.memory = (size_t)70 << 20;
    struct test_service small;
    struct nn_error err = {0};
    struct test_journal records;
    test_journal_init(&records);
    test_service_start_stored(&small, &tight, 0, &records.store);
    test_do(&small, 201, "POST /models",
            "{\"name\": \"m\", \"durability\": \"journal\", \"inputs\": {\"x\": {\"shape\": [], \"dtype\": "
            "\"I64\"}}, "
            "\"layers\": [{\"op\": \"embedding\", \"num_embeddings\": 5000000, \"embedding_dim\": 1}], "
            "\"loss\": {\"op\": \"mse\"}, \"optimizer\": {\"op\": \"sgd\", \"lr\": 0.1}}");
    static const char step[] = "{\"model\": \"m\", \"apply\": true, \"return\": [\"parameters\"], "
                               "\"inputs\": {\"x\": [3]}, \"targets\": {\"y\": [[1]]}}";
    const struct test_request request = {.method = "POST",
                                         .path = "/backward",
                                         .accept = "application/safetensors",
                                         .body = step,
                                         .size = sizeof step - 1};
    struct test_answer answer = test_request(&small, &request);
    assert_int_equal(answer.status, 200);
    test_answer_free(&answer);
    test_service_stop(&small);
    test_service_start_stored(&small, &tight, 0, &records.store);
    if (test_journal_recover(&records, small.api, false, records.n, &err)) fail_msg("%s", err.text);
    assert_int_equal(version_of(&small), 1);
    test_service_stop(&small);
    test_journal_fini(&records);
}

int main(void) {
#define promise(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        promise(a_change_that_no_checkpoint_has_yet_is_not_made_again),
        promise(a_change_that_a_state_has_is_not_made_again),
        promise(a_raise_that_was_cut_short_is_in_nobodys_way),
        promise(who_has_a_record_is_not_missed_by_a_checkpoint),
        promise(who_is_restored_is_not_missed_by_a_checkpoint),
        promise(what_an_optimizer_used_once_does_not_come_back),
        promise(what_was_durable_once_is_not_told_later),
        promise(a_start_holds_no_more_than_was_held),
        promise(answers_tell_what_a_crash_would_leave),
        promise(a_step_that_failed_is_not_told_as_made),
        promise(an_answer_that_nobody_reads_takes_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
