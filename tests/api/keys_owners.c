/* Whose a key is, and to whom it says what it has done: to its secret, within the scope and the prefix that this has now. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../api/request/token.h"
#include "../../api/store.h"
#include "../support/journal.h"

/* Of the tokens "t-read", "t-train", "t-admin", "t-team". */
#define H_READ  "37b8d57153bffdf023160736edb4fcb922a1b6b6ce2dba953f4b571880757b47"
#define H_TRAIN "78034d53244f92e6dae23d009fe8342cdedda871c0e2878b7a069fc0d666a445"
#define H_ADMIN "c140b9ee332d67f84953aae63edc037a10d217685d2d98161ecb34696eb4e2a4"
#define H_TEAM  "4f930662c02a038ea1ea86788f029deff2a0d5a402cf113aa43a824abea5385d"

static struct test_service service;
static struct test_journal journal;

#define LAYERS                                                                                               \
    "'seed': 1, 'durability': 'journal', 'inputs': {'x': {'shape': [1]}}, 'layers': [{'op': 'linear', "      \
    "'out_features': 1}], 'loss': {'op': 'mse'}, 'optimizer': {'op': 'sgd', 'lr': 0.1}"
#define BATCH "'inputs': {'x': [[1]]}, 'targets': {'y': [[1]]}"

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

/* The tokens of a service from now on. */
static void give(struct test_service *of, const char *text) {
    struct nn_error err = {0};
    char *copy = strdup(text);
    assert_non_null(copy);
    struct api_tokens *tokens = api_tokens_read("tokens", copy, strlen(text), &err);
    assert_string_equal(err.text, "");
    api_set_tokens_take(of->api, tokens);
    free(copy);
}

/* The answer; `token` NULL: none is borne, and `key` NULL: none is sent. Status 0: any. */
static json_t *as(struct test_service *of, const char *token, const char *key, int status,
                  const char *request, const char *body) {
    char bearer[64];
    snprintf(bearer, sizeof bearer, "Bearer %s", token ? token : "");
    const struct test_request headers = {.authorization = token ? bearer : NULL, .idempotency_key = key};
    return test_ask(of, status, request, &headers, body ? "%s" : NULL, body);
}

static void run(const char *token, const char *key, int status, const char *request, const char *body) {
    json_decref(as(&service, token, key, status, request, body));
}

/* Whether it had been done before. */
static bool again(struct test_service *of, const char *token, const char *key, int status,
                  const char *request, const char *body) {
    json_t *json = as(of, token, key, status, request, body);
    bool replayed = json_is_true(json_object_get(json, "replayed"));
    json_decref(json);
    return replayed;
}

static void create(const char *token, const char *key, const char *name) {
    char body[512];
    snprintf(body, sizeof body, "{'name': '%s', " LAYERS "}", name);
    run(token, key, 201, "POST /models", body);
}

/* --- scope and prefix --------------------------------------------------------------------------------- */

/* Changes that concern "other", in an order in which each succeeds; %s is a kept tape of it, or its incarnation. */
static const struct {
    const char *request, *body;
    int status;
} changes[] = {
    {"POST /models", "{'name': 'other', " LAYERS "}", 201},
    {"POST /backward", "{'model': 'other', 'apply': true, " BATCH "}", 200},
    {"POST /backward", "{'model': 'other', 'accumulate': true, " BATCH "}", 200},
    {"POST /step", "{'model': 'other'}", 200},
    {"POST /backward", "{'context': '%s', 'apply': true, 'retain': true, 'targets': {'y': [[1]]}}", 200},
    {"POST /backward", "{'context': '%s', 'apply': true, 'targets': {'y': [[2]]}}", 200},
    {"DELETE /contexts/%s", NULL, 200},
    {"PATCH /models/other", "{'optimizer': {'lr': 0.5}}", 200},
    {"PUT /models/other/parameters?partial=true", "{'parameters': {'0.bias': [0]}}", 200},
    {"PUT /models/other/optimizer", "{'steps': 3, 'state': {}}", 200},
    {"POST /models/other/gradients",
     "{'incarnation': '%s', 'version': 0, 'gradients': {'0.weight': [[1]], '0.bias': [1]}, 'apply': true}",
     200},
    {"POST /models/other/parameters", "{'from': 'team-a', 'tau': 0.5}", 200},
    {"POST /models/team-a/parameters", "{'from': 'other', 'tau': 0.5}", 200},
    {"DELETE /models/other/gradients", NULL, 200},
    {"DELETE /models/other", NULL, 200},
};
enum { CHANGES = sizeof changes / sizeof changes[0] };

struct call {
    char request[96], key[24], body[512];
    bool has_body;
};

/* The i-th change, as it is sent. */
static struct call call_of(int i, char holes[3][40]) {
    const char *tape = holes[i == 6 ? 1 : i == 10 ? 2 : 0];
    struct call call = {.has_body = changes[i].body != NULL};
    const char *hole = strstr(changes[i].request, "%s");
    snprintf(call.request, sizeof call.request, "%.*s%s", hole ? (int)(hole - changes[i].request) : 90,
             changes[i].request, hole ? tape : "");
    const char *body = changes[i].body ? changes[i].body : "", *in = strstr(body, "%s");
    snprintf(call.body, sizeof call.body, "%.*s%s%s", in ? (int)(in - body) : 500, body, in ? tape : "",
             in ? in + 2 : "");
    snprintf(call.key, sizeof call.key, "change-%d", i);
    return call;
}

static json_t *send(const struct call *call, const char *token, const char *key, int status) {
    return as(&service, token, key, status, call->request, call->has_body ? call->body : NULL);
}

static void find_holes(char holes[3][40]) {
    for (int i = 0; i < 2; i++) {
        json_t *json = as(&service, "t-admin", NULL, 200, "POST /forward",
                          "{'model': 'other', 'inputs': {'x': [[1]]}, 'retain': true, 'mode': 'train'}");
        snprintf(holes[i], 40, "%s", json_string_value(json_object_get(json, "context")));
        json_decref(json);
    }
    json_t *json = as(&service, "t-admin", NULL, 200, "GET /models/other", NULL);
    snprintf(holes[2], 40, "%s", json_string_value(json_object_get(json, "incarnation")));
    json_decref(json);
}

/* Makes all changes as "t-admin", with a key each. The tapes that they name: one is used up, and one let go. */
static void make_changes(char holes[3][40]) {
    give(&service, "owner admin " H_ADMIN "\n");
    create("t-admin", NULL, "team-a");
    for (int i = 0; i < CHANGES; i++) {
        struct call call = call_of(i, holes);
        json_decref(send(&call, "t-admin", call.key, changes[i].status));
        if (i == 0) find_holes(holes);
    }
}

/* What a token that does not see "other" is told with a key, it is told without one too, and with the key of another
 * change: as if there were no keys. */
static void check_unseen(char holes[3][40]) {
    for (int i = 0; i < CHANGES; i++) {
        struct call call = call_of(i, holes);
        json_t *without = send(&call, "t-admin", NULL, 0), *with = send(&call, "t-admin", call.key, 0),
               *reused = send(&call, "t-admin", "change-1", 0);
        json_int_t status = json_integer_value(json_object_get(without, "status"));
        if (status != 404 && status != 403 && status != 422)
            fail_msg("%s %s: %s", call.request, call.body, json_dumps(without, 0));
        if (!json_equal(with, without) || !json_equal(reused, without))
            fail_msg("%s %s: %s", call.request, call.body, json_dumps(with, 0));
        json_decref(without);
        json_decref(with);
        json_decref(reused);
    }
}

static void a_key_says_nothing_beyond_the_prefix(void **state) {
    (void)state;
    char holes[3][40];
    make_changes(holes);
    run("t-admin", "mine", 200, "PATCH /models/team-a", "{'optimizer': {'lr': 0.5}}");
    for (int i = 0; i < CHANGES; i++) { /* as long as it sees all, each is replayed */
        struct call call = call_of(i, holes);
        json_t *json = send(&call, "t-admin", call.key, changes[i].status);
        assert_true(json_is_true(json_object_get(json, "replayed")));
        json_decref(json);
    }
    give(&service, "owner admin " H_ADMIN " team-\n");
    check_unseen(holes);
    assert_true(
        again(&service, "t-admin", "mine", 200, "PATCH /models/team-a", "{'optimizer': {'lr': 0.5}}"));
    give(&service, "owner admin " H_ADMIN "\n");
    struct call last = call_of(CHANGES - 1, holes);
    assert_true(again(&service, "t-admin", last.key, 200, last.request, NULL));
}

/* A step from a kept tape, with the key "tape": its body. */
static void use_tape(const char *model, char body[128]) {
    char keep[128];
    snprintf(keep, sizeof keep, "{'model': '%s', 'inputs': {'x': [[1]]}, 'retain': true, 'mode': 'train'}",
             model);
    json_t *kept = as(&service, "t-admin", NULL, 200, "POST /forward", keep);
    snprintf(body, 128, "{'context': '%s', 'apply': true, 'targets': {'y': [[1]]}}",
             json_string_value(json_object_get(kept, "context")));
    json_decref(kept);
    run("t-admin", "tape", 200, "POST /backward", body);
}

/* Also behind a start, from records and from a checkpoint's file. */
static void nor_after_a_start(void **state) {
    (void)state;
    static const char step[] = "{'model': 'other', 'apply': true, " BATCH "}";
    give(&service, "owner admin " H_ADMIN "\n");
    create("t-admin", NULL, "other");
    run("t-admin", "k", 200, "POST /backward", step);
    char use[128];
    use_tape("other", use);
    for (int checkpoint = 0; checkpoint < 2; checkpoint++) {
        struct test_recovered other;
        if (checkpoint) test_journal_checkpoint(&journal, service.api);
        test_recovered_start(&other, &journal, &service, checkpoint, journal.n);
        give(&other.service, "owner admin " H_ADMIN " team-\n");
        assert_false(again(&other.service, "t-admin", "k", 404, "POST /backward", step));
        assert_false(again(&other.service, "t-admin", "tape", 404, "POST /backward", use));
        give(&other.service, "owner admin " H_ADMIN " oth\n");
        assert_true(again(&other.service, "t-admin", "k", 200, "POST /backward", step));
        assert_true(again(&other.service, "t-admin", "tape", 200, "POST /backward", use));
        test_recovered_stop(&other);
    }
}

static void a_key_says_nothing_beyond_the_scope(void **state) {
    (void)state;
    char holes[3][40];
    static const char *const less[] = {"owner read " H_ADMIN "\n", "owner train " H_ADMIN "\n"};
    make_changes(holes);
    for (int k = 0; k < 2; k++) {
        give(&service, less[k]);
        for (int i = 0; i < CHANGES; i++) {
            struct call call = call_of(i, holes);
            bool admins = strncmp(call.request, "PATCH", 5) == 0 ||
                          strcmp(call.request, "POST /models") == 0 ||
                          strcmp(call.request, "DELETE /models/other") == 0;
            bool may = k == 1 && !admins;
            json_t *json = send(&call, "t-admin", call.key, may ? changes[i].status : 403);
            assert_int_equal(json_is_true(json_object_get(json, "replayed")), may);
            json_decref(json);
        }
    }
}

/* --- whose a key is ----------------------------------------------------------------------------------- */

#define STEP "{'model': 'm', 'apply': true, " BATCH "}"
static bool steps_again(struct test_service *of, const char *token) {
    return again(of, token, "k", 200, "POST /backward", STEP);
}

static void a_key_is_its_secrets(void **state) {
    (void)state;
    give(&service, "owner admin " H_ADMIN "\nworker train " H_TRAIN "\n");
    create("t-admin", NULL, "m");
    assert_false(steps_again(&service, "t-train"));
    assert_false(steps_again(&service, "t-admin"));
    give(&service, "worker admin " H_ADMIN "\nrenamed train " H_TRAIN "\n");
    assert_true(steps_again(&service, "t-train"));
    assert_true(steps_again(&service, "t-admin"));

    /* Another secret under a name that another one had. */
    give(&service, "owner admin " H_ADMIN "\nworker train " H_TEAM "\n");
    assert_false(steps_again(&service, "t-team"));
    assert_true(steps_again(&service, "t-team"));
    give(&service, "owner admin " H_ADMIN "\nother train " H_TRAIN "\nworker train " H_TEAM "\n");
    for (int checkpoint = 0; checkpoint < 2; checkpoint++) {
        struct test_recovered other;
        if (checkpoint) test_journal_checkpoint(&journal, service.api);
        test_recovered_start(&other, &journal, &service, checkpoint, journal.n);
        give(&other.service, "a admin " H_READ "\nb train " H_TRAIN "\nc train " H_TEAM "\n");
        assert_true(steps_again(&other.service, "t-train"));
        assert_true(steps_again(&other.service, "t-team"));
        assert_false(steps_again(&other.service, "t-read"));
        test_recovered_stop(&other);
    }
}

/* Who was nobody and has a token now asks again, and is answered as nobody was: for the same request, of a model that it
 * sees, and for no other. */
static void tokens_that_come_later(void **state) {
    (void)state;
    create(NULL, NULL, "m");
    create(NULL, NULL, "team-a");
    assert_false(steps_again(&service, NULL));
    for (int live = 0; live < 2; live++) {
        static struct test_recovered other;
        struct test_service *of = live ? &service : &other.service;
        if (!live) test_recovered_start(&other, &journal, &service, false, journal.n);
        give(of, "owner admin " H_ADMIN "\nteam admin " H_TEAM " team-\n");
        assert_true(steps_again(of, "t-admin"));
        assert_false(again(of, "t-team", "k", 404, "POST /backward", STEP));
        static const char own[] = "{'model': 'team-a', 'apply': true, " BATCH "}";
        assert_false(again(of, "t-team", "k", 200, "POST /backward", own)); /* which is another's */
        assert_true(again(of, "t-team", "k", 200, "POST /backward", own));
        assert_true(steps_again(of, "t-admin"));
        if (!live) test_recovered_stop(&other);
    }
}

/* --- as format 0 has stored them -------------------------------------------------------------------------- */

/* Of a key's line: the name of its token in place of its owner, and a time of the calendar in place of its age. */
static void make_old(json_t *key, const char *name) {
    json_object_del(key, "owner");
    json_object_del(key, "model");
    json_object_del(key, "age");
    json_object_set_new(key, "token", json_string(name));
    json_object_set_new(key, "time", json_integer(INT64_C(1700000000000)));
}

/* The checkpoint's keys of `journal`, all with this name. */
static void keys_were_of(const char *name) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    for (char *at = journal.keys, *end; at < (char *)journal.keys + journal.keys_size; at = end + 1) {
        end = memchr(at, '\n', (size_t)((char *)journal.keys + journal.keys_size - at));
        assert_non_null(end);
        json_t *line = json_loadb(at, (size_t)(end - at), 0, NULL);
        assert_non_null(line);
        if (!json_object_get(line, "format")) {
            make_old(line, name);
            json_dumpf(line, out, 0);
            fputc('\n', out);
        }
        json_decref(line);
    }
    assert_int_equal(fclose(out), 0);
    free(journal.keys);
    journal.keys = text;
    journal.keys_size = size;
}

static void keys_that_have_a_name(void **state) {
    (void)state;
    struct test_recovered other;
    give(&service, "owner admin " H_ADMIN "\n");
    create("t-admin", NULL, "m");
    assert_false(steps_again(&service, "t-admin"));
    char use[128];
    use_tape("m", use);
    test_journal_checkpoint(&journal, service.api);
    keys_were_of("worker");
    test_recovered_start(&other, &journal, &service, true, journal.n);
    struct test_service *of = &other.service;
    /* Nobody of that name, one that does not see the model, and one that may not train. */
    give(of, "team admin " H_TEAM " team-\nreader read " H_READ "\n");
    assert_false(again(of, "t-team", "k", 404, "POST /backward", STEP));
    give(of, "worker admin " H_TEAM " team-\n");
    assert_false(again(of, "t-team", "k", 404, "POST /backward", STEP));
    assert_false(again(of, "t-team", "tape", 404, "POST /backward", use));
    give(of, "worker train " H_TEAM " m\n");
    assert_true(again(of, "t-team", "tape", 200, "POST /backward", use));
    give(of, "worker read " H_READ "\n");
    assert_false(again(of, "t-read", "k", 403, "POST /backward", STEP));
    give(of, "worker train " H_TRAIN "\nowner admin " H_ADMIN "\n");
    assert_true(steps_again(of, "t-train"));
    json_decref(
        as(of, "t-train", "k", 422, "POST /step", "{'model': 'm'}")); /* it came with another request */

    /* And so it is behind one more start, in the format of today. */
    test_journal_checkpoint(&other.journal, of->api);
    other.journal.saved[0].seq = journal.n; /* it counts records of its own */
    struct test_recovered third;
    test_recovered_start(&third, &other.journal, of, true, 0);
    give(&third.service, "worker train " H_TRAIN "\nowner admin " H_ADMIN "\n");
    assert_true(steps_again(&third.service, "t-train"));
    assert_false(steps_again(&third.service, "t-admin"));
    test_recovered_stop(&third);
    test_recovered_stop(&other);
}

/* What is stored has no secret in it, nor all of its hash. */
static void no_secret_is_stored(void **state) {
    (void)state;
    give(&service, "owner admin " H_ADMIN "\n");
    create("t-admin", "k", "m");
    test_journal_checkpoint(&journal, service.api);
    const char *const words[] = {"t-admin", H_ADMIN};
    for (size_t i = 0; i < 2; i++) {
        assert_null(memmem(journal.keys, journal.keys_size, words[i], strlen(words[i])));
        for (size_t k = 0; k < journal.n; k++)
            assert_null(
                memmem(journal.records[k].bytes, journal.records[k].size, words[i], strlen(words[i])));
    }
    assert_non_null(memmem(journal.keys, journal.keys_size, H_ADMIN, 32));
}

static void owners_that_nobody_is(void **state) {
    (void)state;
    static const char *const good[] = {"", "@a", "0123456789abcdef0123456789abcdef"},
                             *const bad[] = {"@",
                                             "@@",
                                             "@a b",
                                             "a",
                                             "0123456789ABCDEF0123456789abcdef",
                                             "0123456789abcdef0123456789abcdef0",
                                             "\n"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) assert_true(api_token_is_owner(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(api_token_is_owner(bad[i]));
}

int main(void) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_key_says_nothing_beyond_the_prefix),
        TEST(nor_after_a_start),
        TEST(a_key_says_nothing_beyond_the_scope),
        TEST(a_key_is_its_secrets),
        TEST(tokens_that_come_later),
        TEST(keys_that_have_a_name),
        TEST(no_secret_is_stored),
        cmocka_unit_test(owners_that_nobody_is),
    };
    nn_blas_init();
    return cmocka_run_group_tests_name("keys_owners", tests, NULL, NULL);
}
