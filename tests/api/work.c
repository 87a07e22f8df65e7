/* The limit on a request's arithmetic: the service's, and its token's. Refused is what goes beyond it, with the figure,
 * before memory is reserved or anything is changed; and what does not is served. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../../api/request/token.h"
#include "../support/journal.h"
#include "../support/service.h"

/* Of the tokens "t-read" and "t-admin", as sha256sum tells them. */
#define H_BOUND "37b8d57153bffdf023160736edb4fcb922a1b6b6ce2dba953f4b571880757b47"
#define H_OWNER "c140b9ee332d67f84953aae63edc037a10d217685d2d98161ecb34696eb4e2a4"

#define LAYERS                                                                                               \
    "'inputs': {'x': {'shape': [3]}}, 'layers': [{'op': 'linear', 'out_features': 4}, {'op': 'tanh'},"       \
    " {'op': 'linear', 'out_features': 2}], 'loss': {'op': 'mse'}"
#define MODEL(name, more) "{'name': '" name "', " LAYERS more "}"
#define ADAM              ", 'optimizer': {'op': 'adam'}"
#define X                 "'inputs': {'x': [[1, 2, 3], [3, 4, -1]]}"
#define BATCH             X ", 'targets': {'y': [[0, 1], [1, 0]]}"
#define BIAS              "'2.bias': [0.5, 0.25]"

static struct test_service service;

/* NULL: it is refused. */
static struct api_tokens *read_file(char *text) {
    struct nn_error err = {0};
    return api_tokens_read("tokens", text, strlen(text), &err);
}

/* "t-admin" may do all; "t-read" too, but for this much work. */
static void bound(double work) {
    char text[512];
    snprintf(text, sizeof text, "owner admin " H_OWNER "\nbound admin " H_BOUND " work=%.17g\n", work);
    struct api_tokens *tokens = read_file(text);
    assert_non_null(tokens);
    api_set_tokens_take(service.api, tokens);
}

/* The answer's document; in a format as test_ask's. */
static json_t *ask(const char *token, int status, const char *request, const char *body) {
    char bearer[64];
    snprintf(bearer, sizeof bearer, "Bearer %s", token);
    return test_ask(&service, status, request, &(struct test_request){.authorization = bearer},
                    body ? "%s" : NULL, body);
}

static void run(const char *token, int status, const char *request, const char *body) {
    json_decref(ask(token, status, request, body));
}

/* A refusal's figure, which is above its limit. */
static double refused(json_t *problem, double limit) {
    double work = json_number_value(json_object_get(problem, "work"));
    assert_string_equal(json_string_value(json_object_get(problem, "type")),
                        API_PROBLEM_TYPE "too-much-work");
    assert_true(json_number_value(json_object_get(problem, "limit")) == limit);
    assert_true(work > limit);
    json_decref(problem);
    return work;
}

static int setup(void **state) {
    (void)state;
    test_service_start(&service, NULL, 0);
    bound(1);
    run("t-admin", 201, "POST /models", MODEL("m", ADAM));
    run("t-admin", 201, "POST /models", MODEL("other", ""));
    run("t-admin", 201, "POST /models", MODEL("together", ", 'coalesce': true"));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_service_stop(&service);
    return 0;
}

/* --- every request that computes ------------------------------------------------------------------------ */

/* A $ is a context, or an incarnation. */
static const struct computing {
    const char *what, *request, *body;
} requests[] = {
    {"initial values", "POST /models", MODEL("new", "")},
    {"initial values and an optimizer", "POST /models", MODEL("more", ADAM)},
    {"forward", "POST /forward", "{'model': 'm', " X "}"},
    {"forward, kept", "POST /forward", "{'model': 'm', 'retain': true, " X "}"},
    {"forward, together", "POST /forward", "{'model': 'together', " X "}"},
    {"forward, drawn", "POST /forward", "{'model': {'seed': 1, " LAYERS "}, " X "}"},
    {"backward", "POST /backward", "{'model': 'm', " BATCH "}"},
    {"backward, drawn", "POST /backward", "{'model': {'seed': 1, " LAYERS "}, " BATCH "}"},
    {"backward, accumulated", "POST /backward", "{'model': 'm', 'accumulate': true, " BATCH "}"},
    {"backward, applied", "POST /backward", "{'model': 'm', 'apply': true, " BATCH "}"},
    {"backward of a context", "POST /backward", "{'context': '$', 'targets': {'y': [[0, 1], [1, 0]]}}"},
    {"a context, applied", "POST /backward",
     "{'context': '$', 'targets': {'y': [[0, 1], [1, 0]]}, 'apply': true}"},
    {"a push", "POST /models/m/gradients", "{'incarnation': '$', 'version': 0, 'gradients': {" BIAS "}}"},
    {"a push, accumulated", "POST /models/m/gradients",
     "{'incarnation': '$', 'version': 0, 'accumulate': true, 'gradients': {" BIAS "}}"},
    {"a step", "POST /step", "{'model': 'm'}"},
    {"parameters", "PUT /models/m/parameters?partial=true", "{'parameters': {" BIAS "}}"},
    {"a blend", "POST /models/m/parameters", "{'from': 'other', 'tau': 0.5}"},
    {"another optimizer", "PATCH /models/m", "{'optimizer': {'op': 'rmsprop'}}"},
    {"more of the optimizer", "PATCH /models/m", "{'optimizer': {'centered': true}}"},
};
enum { REQUESTS = sizeof requests / sizeof requests[0] };

/* What stands for $ in it. */
static char *taken(const struct computing *computing) {
    bool context = strstr(computing->body, "context");
    json_t *json = context ? ask("t-admin", 200, "POST /forward", "{'model': 'm', 'retain': true, " X "}")
                           : ask("t-admin", 200, "GET /models/m", NULL);
    char *text = strdup(json_string_value(json_object_get(json, context ? "context" : "incarnation")));
    json_decref(json);
    assert_non_null(text);
    return text;
}

static char *body_of(const struct computing *computing) {
    size_t room = strlen(computing->body) + 64;
    char *body = calloc(1, room), *word = taken(computing);
    const char *hole = strchr(computing->body, '$');
    int before = (int)(hole ? hole - computing->body : (long)strlen(computing->body));
    assert_non_null(body);
    snprintf(body, room, "%.*s%s%s", before, computing->body, hole ? word : "", hole ? hole + 1 : "");
    free(word);
    return body;
}

static char *state_of_all(void) {
    json_t *json = ask("t-admin", 200, "GET /models", NULL),
           *one = ask("t-admin", 200, "GET /models/m", NULL);
    json_object_set_new(json, "m", one);
    char *text = json_dumps(json, JSON_SORT_KEYS);
    json_decref(json);
    assert_non_null(text);
    return text;
}

/* What it takes is found by what is refused; so much is enough, and nothing less is. */
static void a_bound_is_the_last_that_is_served(void **state) {
    (void)state;
    for (const struct computing *r = requests; r < requests + REQUESTS; r++) {
        char *body = body_of(r), *before = state_of_all();
        size_t memory = api_memory_in_use(service.api);
        bound(1);
        double work = refused(ask("t-read", 422, r->request, body), 1), less = work * (1 - 1e-15);
        bound(less);
        if (refused(ask("t-read", 422, r->request, body), less) != work)
            fail_msg("%s: not as before", r->what);
        char *after = state_of_all();
        assert_string_equal(before, after);
        assert_int_equal(api_memory_in_use(service.api), memory);
        bound(work);
        run("t-read", strncmp(r->request, "POST /models", 12) == 0 && !r->request[12] ? 201 : 200, r->request,
            body);
        free(before);
        free(after);
        free(body);
    }
}

/* Two rows take twice what one does; of a context too, whose rows are not in the request. */
static void work_goes_by_rows(void **state) {
    (void)state;
    static const char *const bodies[][2] = {
        {"{'model': 'other', 'inputs': {'x': [[1, 2, 3]]}}", "{'model': 'other', " X "}"},
        {"{'model': 'other', 'inputs': {'x': [[1, 2, 3]]}, 'targets': {'y': [[0, 1]]}}",
         "{'model': 'other', " BATCH "}"},
    };
    double work[3][2];
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 2; k++)
            work[i][k] = refused(ask("t-read", 422, i ? "POST /backward" : "POST /forward", bodies[i][k]), 1);
    for (int k = 0; k < 2; k++) {
        char body[256];
        json_t *kept = ask("t-admin", 200, "POST /forward",
                           k ? "{'model': 'other', 'retain': true, " X "}"
                             : "{'model': 'other', 'retain': true, 'inputs': {'x': [[1, 2, 3]]}}");
        snprintf(body, sizeof body, "{'context': '%s', 'targets': {'y': [[0, 1]%s]}}",
                 json_string_value(json_object_get(kept, "context")), k ? ", [1, 0]" : "");
        work[2][k] = refused(ask("t-read", 422, "POST /backward", body), 1);
        json_decref(kept);
    }
    for (int i = 0; i < 3; i++) assert_true(work[i][1] == 2 * work[i][0]);
    for (int k = 0; k < 2; k++) assert_true(work[1][k] == work[0][k] + work[2][k]);
}

/* What was refused uses up neither the context nor the key. */
static void a_refusal_uses_nothing_up(void **state) {
    (void)state;
    char *body = body_of(&requests[10]);
    assert_non_null(strstr(body, "context"));
    struct test_request bounded = {.authorization = "Bearer t-read", .idempotency_key = "k"};
    refused(test_ask(&service, 422, "POST /backward", &bounded, "%s", body), 1);
    bound(1e9);
    json_t *answer = test_ask(&service, 200, "POST /backward", &bounded, "%s", body);
    assert_null(json_object_get(answer, "replayed"));
    json_decref(answer);
    free(body);
}

/* --- the service's limit -------------------------------------------------------------------------------- */

/* Small bodies that would have computed for seconds, or for minutes: in a service without room for them, to see that
 * they are refused before there is any talk of memory. */
static void small_bodies_of_large_work(void **state) {
    (void)state;
    static const char *const bodies[] = {
        "{'model': {'seed': 1, 'inputs': {'id': {'shape': [], 'dtype': 'I64'}}, 'layers': [{'op': "
        "'embedding',"
        " 'num_embeddings': 75000000, 'embedding_dim': 1}]}, 'inputs': {'id': [0]}}",
        "{'model': {'seed': 1, 'inputs': {'x': {'shape': [1]}}, 'layers': [{'op': 'linear', 'out_features': "
        "4000000},"
        " {'op': 'reshape', 'shape': [2000, 2000]}, {'op': 'linear', 'out_features': 100000},"
        " {'op': 'linear', 'out_features': 1}]}, 'inputs': {'x': [[1]]}}",
    };
    struct api_settings settings = {.limits = api_default_limits};
    settings.limits.memory = 1 << 20;
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        assert_true(strlen(bodies[i]) < 298);
        settings.limits.work = 1e11;
        test_service_start(&service, &settings, 0);
        double work = refused(test_ask(&service, 422, "POST /forward", NULL, "%s", bodies[i]), 1e11);
        assert_true(work > 2e11);
        test_service_stop(&service);
        settings.limits.work = 0;
        test_service_start(&service, &settings, 0);
        json_decref(test_ask(&service, 413, "POST /forward", NULL, "%s", bodies[i]));
        test_service_stop(&service);
    }
}

/* The lower of the two counts, and the words say whose it is. */
static void the_lower_limit_counts(void **state) {
    (void)state;
    static const struct {
        double service, token, limit;
        const char *whose;
    } cases[] = {{0, 5, 5, "a request of this token"},
                 {3, 5, 3, "a request may"},
                 {7, 5, 5, "a request of this token"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct api_settings settings = {.limits = api_default_limits};
        settings.limits.work = cases[i].service;
        test_service_start(&service, &settings, 0);
        bound(cases[i].token);
        json_t *problem = ask("t-read", 422, "POST /models", MODEL("m", ""));
        assert_non_null(strstr(json_string_value(json_object_get(problem, "detail")), cases[i].whose));
        refused(problem, cases[i].limit);
        test_service_stop(&service);
    }
}

/* What was there before is there again, though a limit has been set since that it would not have passed. */
static void recovery_has_no_limit(void **state) {
    (void)state;
    struct test_journal journal, again;
    struct api_settings settings = {.limits = api_default_limits};
    struct nn_error err = {0};
    test_journal_init(&journal);
    test_service_start_stored(&service, NULL, 0, &journal.store);
    json_decref(test_ask(&service, 201, "POST /models", NULL, MODEL("m", ADAM ", 'durability': 'journal'")));
    json_decref(test_ask(&service, 200, "POST /backward", NULL, "{'model': 'm', 'apply': true, " BATCH "}"));
    json_decref(test_ask(&service, 200, "PATCH /models/m", NULL, "{'optimizer': {'op': 'rmsprop'}}"));
    json_t *before = test_ask(&service, 200, "GET /models/m/parameters", NULL, NULL);
    test_service_stop(&service);

    settings.limits.work = 1;
    test_journal_init(&again);
    test_service_start_stored(&service, &settings, 0, &again.store);
    if (test_journal_recover(&journal, service.api, false, journal.n, &err)) fail_msg("%s", err.text);
    json_t *after = test_ask(&service, 200, "GET /models/m/parameters", NULL, NULL);
    assert_true(json_equal(json_object_get(before, "parameters"), json_object_get(after, "parameters")));
    refused(test_ask(&service, 422, "POST /forward", NULL, "{'model': 'm', " X "}"), 1);
    json_decref(before);
    json_decref(after);
    test_service_stop(&service);
    test_journal_fini(&again);
    test_journal_fini(&journal);
}

/* --- the token's, in its file --------------------------------------------------------------------------- */

#define LINES "a read " H_OWNER " work=200000\nb read " H_BOUND " team- work=3e5 # more\n"

/* Cut off anywhere behind its first word, a file has no token with another bound than it had. */
static void no_part_of_a_file_allows_more(void **state) {
    (void)state;
    static const char whole[] = LINES;
    int good = 0;
    for (size_t size = strlen("a r"); size < sizeof whole; size++) {
        char text[sizeof whole] = "";
        memcpy(text, whole, size);
        struct api_tokens *tokens = read_file(text);
        if (!tokens) continue;
        const struct api_token *a = api_tokens_find(tokens, "t-admin"),
                               *b = api_tokens_find(tokens, "t-read");
        assert_non_null(a);
        assert_true(api_token_work(a) == 200000);
        assert_true(!b ||
                    (api_token_work(b) == 300000 && !api_token_sees(b, "m") && api_token_sees(b, "team-m")));
        assert_int_equal(api_tokens_count(tokens), ++good);
        api_tokens_unref(tokens);
    }
    assert_int_equal(good, 2);
}

static void bounds_that_are_wrong(void **state) {
    (void)state;
    static const char *const bad[] = {"work=",        "work=0",        "work=-1",    "work=x",
                                      "work=1e999",   "work=1e",       "work=0x1p9", "work=inf",
                                      "work=1 team-", "work=1 work=2", "work=0.5",   "WORK=1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[256];
        snprintf(text, sizeof text, "a read " H_BOUND " %s\n", bad[i]);
        assert_null(read_file(text));
    }
}

#define with_service(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        with_service(a_bound_is_the_last_that_is_served), with_service(work_goes_by_rows),
        with_service(a_refusal_uses_nothing_up),          cmocka_unit_test(small_bodies_of_large_work),
        cmocka_unit_test(the_lower_limit_counts),         cmocka_unit_test(recovery_has_no_limit),
        cmocka_unit_test(no_part_of_a_file_allows_more),  cmocka_unit_test(bounds_that_are_wrong),
    };
    nn_blas_init();
    return cmocka_run_group_tests_name("work", tests, NULL, NULL);
}
