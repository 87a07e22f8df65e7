/* Changes of many threads with a store: records in one order, snapshots between them, answers when they are durable. What
 * recovery makes of it is what there was, to the byte. For TSan, too. */
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

#define CLIENTS  4
#define REQUESTS 60

static struct test_service service;
static struct test_journal journal;
static atomic_bool over;

#define SPEC                                                                                                 \
    "'inputs': {'x': {'shape': [3]}}, 'layers': [{'op': 'linear', 'out_features': 4}, {'op': 'dropout'},"    \
    " {'op': 'linear', 'out_features': 2}], 'loss': {'op': 'mse'}, 'optimizer': {'op': 'adam', 'lr': 0.01}"

/* A disk that syncs now and then. */
static void *sync_journal(void *arg) {
    (void)arg;
    while (!atomic_load(&over)) test_journal_sync(&journal);
    test_journal_sync(&journal);
    return NULL;
}

static void *take_checkpoints(void *arg) {
    (void)arg;
    for (int i = 0; i < 10; i++) test_journal_checkpoint(&journal, service.api);
    return NULL;
}

/* Requests in turn; what is refused for being late or too early is none the worse. */
static void *train(void *arg) {
    static const char *const requests[][2] = {
        {"POST /backward",
         "{'model': 'm', 'apply': true, 'inputs': {'x': [[1, 2, 3]]}, 'targets': {'y': [[0, 1]]}}"},
        {"POST /backward",
         "{'model': 'm', 'accumulate': true, 'inputs': {'x': [[3, 1]]}, 'targets': {'y': [[1]]}}"},
        {"POST /backward",
         "{'model': 'm', 'accumulate': true, 'inputs': {'x': [[3, 1, 1]]}, 'targets': {'y': [[1, 0]]}}"},
        {"POST /step", "{'model': 'm'}"},
        {"PATCH /models/m", "{'optimizer': {'lr': 0.02}}"},
        {"POST /models/m/parameters", "{'from': 'other', 'tau': 0.5}"},
        {"GET /models/m", NULL},
        {"POST /models/other/restore", "{}"},
        {"POST /backward",
         "{'model': 'other', 'apply': true, 'inputs': {'x': [[1, 2, 3]]}, 'targets': {'y': [[0, 1]]}}"},
    };
    size_t first = (size_t)(intptr_t)arg;
    for (size_t i = 0; i < REQUESTS; i++) {
        const char *const *request = requests[(first + i) % (sizeof requests / sizeof requests[0])];
        json_decref(test_ask(&service, 0, request[0], NULL, request[1] ? "%s" : NULL, request[1]));
    }
    return NULL;
}

static json_t *state_of(struct test_service *of, const char *model, const char *part) {
    char request[128];
    snprintf(request, sizeof request, "GET /models/%s%s", model, part);
    json_t *json = test_ask(of, 0, request, NULL, NULL);
    json_object_del(json, "incarnation");
    return json;
}

static void check_recovered(bool snapshots) {
    static const char *const parts[] = {"/parameters", "/optimizer", "/gradients"};
    struct test_service again;
    struct test_journal empty;
    struct nn_error err = {0};
    test_journal_init(&empty);
    test_service_start_stored(&again, NULL, 0, &empty.store);
    if (test_journal_recover(&journal, again.api, snapshots, journal.n, &err)) fail_msg("%s", err.text);
    for (int i = 0; i < 6; i++) {
        const char *model = i < 3 ? "m" : "other";
        json_t *was = state_of(&service, model, parts[i % 3]), *is = state_of(&again, model, parts[i % 3]);
        assert_true(json_equal(was, is));
        json_decref(was);
        json_decref(is);
    }
    test_service_stop(&again);
    test_journal_fini(&empty);
}

static void all_at_once(void **state) {
    (void)state;
    pthread_t clients[CLIENTS], syncer, checkpointer;
    test_journal_init(&journal);
    test_service_start_stored(&service, NULL, 3, &journal.store);
    test_do(&service, 201, "POST /models",
            "{\"name\": \"warm\", \"inputs\": {\"x\": {\"shape\": [1]}}, "
            "\"layers\": [{\"op\": \"relu\"}]}");
    json_decref(
        test_ask(&service, 201, "POST /models", NULL, "{'name': 'm', " SPEC ", 'durability': 'journal'}"));
    json_decref(test_ask(&service, 201, "POST /models", NULL,
                         "{'name': 'other', " SPEC ", 'durability': 'journal'}"));
    test_journal_checkpoint(&journal, service.api);
    journal.hold = true;
    pthread_create(&syncer, NULL, sync_journal, NULL);
    pthread_create(&checkpointer, NULL, take_checkpoints, NULL);
    for (intptr_t i = 0; i < CLIENTS; i++) pthread_create(&clients[i], NULL, train, (void *)(2 * i));
    for (int i = 0; i < CLIENTS; i++) pthread_join(clients[i], NULL);
    pthread_join(checkpointer, NULL);
    atomic_store(&over, true);
    pthread_join(syncer, NULL);
    check_recovered(false);
    check_recovered(true);
    test_service_stop(&service);
    test_journal_fini(&journal);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_at_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
