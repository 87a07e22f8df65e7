/* Who may do what: every route against every scope, models by their prefix, and the file that says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../../api/request/request.h"
#include "../../api/request/token.h"
#include "../support/service.h"

/* Of the tokens "t-read", "t-train", ... as sha256sum tells them. */
#define H_READ  "37b8d57153bffdf023160736edb4fcb922a1b6b6ce2dba953f4b571880757b47"
#define H_TRAIN "78034d53244f92e6dae23d009fe8342cdedda871c0e2878b7a069fc0d666a445"
#define H_ADMIN "c140b9ee332d67f84953aae63edc037a10d217685d2d98161ecb34696eb4e2a4"
#define H_TEAM  "4f930662c02a038ea1ea86788f029deff2a0d5a402cf113aa43a824abea5385d"

static const char file[] = "# name scope hash prefix\n"
                           "reader read " H_READ "\n\n"
                           "trainer\ttrain " H_TRAIN " # may train all\r\n"
                           "owner admin " H_ADMIN "\n"
                           "team admin " H_TEAM " team-\n";

static struct test_service service;

static struct api_tokens *read_tokens(const char *text, struct nn_error *err) {
    char *copy = strdup(text);
    assert_non_null(copy);
    struct api_tokens *tokens = api_tokens_read("tokens", copy, strlen(text), err);
    free(copy);
    return tokens;
}

static void give(const char *text) {
    struct nn_error err = {0};
    struct api_tokens *tokens = read_tokens(text, &err);
    assert_string_equal(err.text, "");
    api_set_tokens_take(service.api, tokens);
}

static int setup(void **state) {
    (void)state;
    test_service_start(&service, NULL, 0);
    give(file);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_service_stop(&service);
    return 0;
}

/* The answer's document; `token` may be NULL. */
static json_t *as(const char *token, int status, const char *request, const char *body) {
    char bearer[64];
    snprintf(bearer, sizeof bearer, "Bearer %s", token ? token : "");
    return test_ask(&service, status, request, &(struct test_request){.authorization = token ? bearer : NULL},
                    body ? "%s" : NULL, body);
}

static void check(const char *token, int status, const char *request, const char *body) {
    json_decref(as(token, status, request, body));
}

static char *text_of(const char *token, int status, const char *request) {
    json_t *json = as(token, status, request, NULL);
    char *text = json_dumps(json, JSON_SORT_KEYS);
    json_decref(json);
    assert_non_null(text);
    return text;
}

/* --- scopes ------------------------------------------------------------------------------------------ */

static const struct route {
    const char *method, *path;
    enum api_scope scope;
    int effect;
} routes[] = {
#define API_ROUTE(method, path, handler, body, effect, scope, recorded, cost, query, requires, members,      \
                  summary)                                                                                   \
    {method, path, API_SCOPE_##scope, effect},
#include "../../api/request/routes.def"
#undef API_ROUTE
};
enum { ROUTES = sizeof routes / sizeof routes[0] };

/* "/models/{}/parameters" -> "/models/m/parameters" */
static void path_of(const struct route *route, const char *name, char path[128]) {
    const char *hole = strstr(route->path, "{}");
    int before = hole ? (int)(hole - route->path) : (int)strlen(route->path);
    snprintf(path, 128, "%.*s%s%s", before, route->path, hole ? name : "", hole ? hole + 2 : "");
}

static struct test_answer send(const struct route *route, const char *name, const char *token) {
    char path[128], bearer[64];
    path_of(route, name, path);
    snprintf(bearer, sizeof bearer, "Bearer %s", token ? token : "");
    bool has_body = strcmp(route->method, "GET") != 0 && strcmp(route->method, "DELETE") != 0;
    return test_request(&service, &(struct test_request){.method = route->method,
                                                         .path = path,
                                                         .authorization = token ? bearer : NULL,
                                                         .body = has_body ? "{}" : NULL,
                                                         .size = has_body ? 2 : 0});
}

static void every_route_and_scope(void **state) {
    (void)state;
    static const struct {
        const char *token;
        int scope; /* -1: it is no token */
    } bearers[] = {{NULL, -1},
                   {"", -1},
                   {"t-rea", -1},
                   {H_ADMIN, -1},
                   {"t-read", API_SCOPE_READ},
                   {"t-train", API_SCOPE_TRAIN},
                   {"t-admin", API_SCOPE_ADMIN}};
    for (const struct route *route = routes; route < routes + ROUTES; route++)
        for (size_t i = 0; i < sizeof bearers / sizeof bearers[0]; i++) {
            struct test_answer answer = send(route, "m", bearers[i].token);
            const char *challenge = test_answer_header(&answer, "WWW-Authenticate");
            char expected[128];
            int status = bearers[i].scope >= (int)route->scope || route->scope == API_SCOPE_ANYONE ? 0
                         : bearers[i].scope < 0                                                    ? 401
                                                                                                   : 403;
            if (status ? answer.status != status : answer.status == 401 || answer.status == 403)
                fail_msg("%s %s with \"%s\": %d", route->method, route->path,
                         bearers[i].token ? bearers[i].token : "none", answer.status);
            snprintf(expected, sizeof expected,
                     status == 403 ? "Bearer realm=\"gradd\", error=\"insufficient_scope\", scope=\"%s\""
                                   : "Bearer realm=\"gradd\"",
                     api_scope_name(route->scope));
            if (status)
                assert_string_equal(challenge, expected);
            else
                assert_null(challenge);
            test_answer_free(&answer);
        }
}

/* What read may do changes nothing, and all but the probes ask for a token. */
static void the_table_is_sound(void **state) {
    (void)state;
    for (const struct route *route = routes; route < routes + ROUTES; route++) {
        if (route->effect != API_READS) assert_true(route->scope >= API_SCOPE_TRAIN);
        bool probe = strcmp(route->path, "/healthz") == 0 || strcmp(route->path, "/readyz") == 0;
        assert_true(probe == (route->scope == API_SCOPE_ANYONE));
    }
}

#define MODEL(name)                                                                                          \
    "{'name': '" name "', 'seed': 1, 'inputs': {'x': {'shape': [1]}}, 'layers': [{'op': 'linear', "          \
    "'out_features': 1}], 'loss': {'op': 'mse'}, 'optimizer': {'op': 'sgd', 'lr': 0.1}}"

static char *quoted(const char *text) {
    char *copy = strdup(text);
    assert_non_null(copy);
    for (char *c = copy; *c; c++)
        if (*c == '\'') *c = '"';
    return copy;
}

static void send_as(const char *token, int status, const char *request, const char *body) {
    char *text = quoted(body);
    check(token, status, request, text);
    free(text);
}

static void keeping_a_tape_takes_train(void **state) {
    (void)state;
    static const char keep[] = "{'model': 'm', 'inputs': {'x': [[1]]}, 'retain': true}";
    send_as("t-admin", 201, "POST /models", MODEL("m"));
    send_as("t-read", 200, "POST /forward", "{'model': 'm', 'inputs': {'x': [[1]]}, 'retain': false}");
    send_as("t-read", 403, "POST /forward", keep);
    send_as("t-train", 200, "POST /forward", keep);
}

/* --- prefixes ---------------------------------------------------------------------------------------- */

/* To a token with a prefix, others' models are as if they were not there. */
static void others_models_are_not_there(void **state) {
    (void)state;
    send_as("t-admin", 201, "POST /models", MODEL("team-a"));
    send_as("t-admin", 201, "POST /models", MODEL("other"));
    for (const struct route *route = routes; route < routes + ROUTES; route++) {
        if (strncmp(route->path, "/models/{}", 10) != 0) continue;
        struct test_answer there = send(route, "other", "t-team"), absent = send(route, "nobody", "t-team");
        if (strncmp(route->method, "P", 1) == 0 && there.status == 422) /* its body is looked at first */
            assert_string_equal(there.body, absent.body);
        else
            assert_int_equal(there.status, 404);
        assert_int_equal(there.status, absent.status);
        test_answer_free(&there);
        test_answer_free(&absent);
    }
    send_as("t-team", 404, "PATCH /models/other", "{'optimizer': {'lr': 1}}");
    send_as("t-team", 404, "PUT /models/other/parameters", "{'parameters': {}}");
    send_as("t-team", 404, "POST /models/other/parameters", "{'from': 'team-a', 'tau': 0.5}");
    send_as("t-team", 422, "POST /models/team-a/parameters", "{'from': 'other', 'tau': 0.5}");
    send_as("t-team", 404, "POST /forward", "{'model': 'other', 'inputs': {'x': [[1]]}}");
    send_as("t-team", 404, "POST /backward",
            "{'model': 'other', 'inputs': {'x': [[1]]}, 'targets': {'y': [[1]]}}");
    send_as("t-team", 404, "POST /step", "{'model': 'other'}");
    send_as("t-team", 200, "POST /forward", "{'model': 'team-a', 'inputs': {'x': [[1]]}}");
    send_as("t-team", 200, "POST /backward",
            "{'model': 'team-a', 'inputs': {'x': [[1]]}, 'targets': {'y': [[1]]}, 'apply': true}");

    json_t *list = as("t-team", 200, "GET /models", NULL);
    const json_t *models = json_object_get(list, "models");
    assert_int_equal(json_array_size(models), 1);
    assert_string_equal(json_string_value(json_object_get(json_array_get(models, 0), "name")), "team-a");
    json_decref(list);
}

/* Whether the name is taken is not told either. */
static void models_are_made_within_the_prefix(void **state) {
    (void)state;
    send_as("t-admin", 201, "POST /models", MODEL("other"));
    send_as("t-team", 403, "POST /models", MODEL("other"));
    send_as("t-team", 403, "POST /models", MODEL("nobody"));
    send_as("t-team", 403, "POST /models", MODEL("team"));
    send_as("t-team", 201, "POST /models", MODEL("team-a"));
    check("t-team", 200, "DELETE /models/team-a", NULL);
}

static void others_tapes_are_not_there(void **state) {
    (void)state;
    send_as("t-admin", 201, "POST /models", MODEL("other"));
    char *body = quoted("{'model': 'other', 'inputs': {'x': [[1]]}, 'retain': true}"), request[80], use[128];
    json_t *kept = as("t-admin", 200, "POST /forward", body);
    const char *id = json_string_value(json_object_get(kept, "context"));
    free(body);
    char *list = text_of("t-team", 200, "GET /contexts");
    assert_null(strstr(list, id));
    free(list);
    snprintf(request, sizeof request, "GET /contexts/%s", id);
    check("t-team", 404, request, NULL);
    snprintf(request, sizeof request, "DELETE /contexts/%s", id);
    check("t-team", 404, request, NULL);
    snprintf(use, sizeof use, "{'context': '%s', 'targets': {'y': [[1]]}}", id);
    send_as("t-team", 404, "POST /backward", use);
    send_as("t-admin", 200, "POST /backward", use);
    json_decref(kept);
}

/* A graph that comes with the request is nobody's. */
static void stateless_passes_need_no_model(void **state) {
    (void)state;
    static const char pass[] = "{'model': {'seed': 1, 'inputs': {'x': {'shape': [1]}}, 'layers': [{'op': "
                               "'linear', 'out_features': 1}]}, 'inputs': {'x': [[1]]}}";
    send_as("t-team", 200, "POST /forward", pass);
    send_as("t-read", 200, "POST /forward", pass);
}

/* A key of another's says nothing of what it did. */
static void keys_are_a_tokens_own(void **state) {
    (void)state;
    static const char *const bearers[] = {"Bearer t-admin", "Bearer t-train"};
    send_as("t-admin", 201, "POST /models", MODEL("m"));
    static const char apply[] =
        "{'model': 'm', 'inputs': {'x': [[1]]}, 'targets': {'y': [[1]]}, 'apply': true}";
    for (int i = 0; i < 4; i++) {
        struct test_request headers = {.authorization = bearers[i % 2], .idempotency_key = "same"};
        json_t *answer = test_ask(&service, 200, "POST /backward", &headers, "%s", apply);
        assert_int_equal(json_integer_value(json_object_get(answer, "applied_version")), i % 2 + 1);
        assert_true((json_object_get(answer, "replayed") != NULL) == (i >= 2));
        json_decref(answer);
    }
}

/* What is told of all models is for who may see all. */
static void the_page_of_metrics_takes_all_models(void **state) {
    (void)state;
    check("t-team", 403, "GET /metrics", NULL);
    const struct route metrics = {"GET", "/metrics", API_SCOPE_READ, API_READS};
    struct test_answer answer = send(&metrics, "", "t-read");
    assert_int_equal(answer.status, 200);
    test_answer_free(&answer);
}

/* --- the file ---------------------------------------------------------------------------------------- */

static void a_new_file_takes_effect(void **state) {
    (void)state;
    check("t-read", 200, "GET /models", NULL);
    give("writer train " H_TRAIN "\n");
    check("t-read", 401, "GET /models", NULL);
    check("t-train", 200, "GET /models", NULL);
}

/* A file of one secret, with an end of its line or without. */
static void a_secret_may_do_all(void **state) {
    (void)state;
    static const char *const ends[] = {"", "\n", "\r\n", "\n\n"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        char text[80], secret[48], name[] = MODEL("m0");
        struct nn_error err = {0};
        snprintf(secret, sizeof secret, "%zu#3456789-123456789+123456789/12", i);
        snprintf(text, sizeof text, "%s%s", secret, ends[i]);
        api_set_tokens_take(service.api, api_tokens_read_secret("secret", text, strlen(text), &err));
        assert_string_equal(err.text, "");
        check("t-admin", 401, "GET /models", NULL);
        *strchr(name, '0') = (char)('0' + i);
        send_as(secret, 201, "POST /models", name);
    }
}

/* What a token may do by a set of them: its scope, and the prefix of its models, as text. */
static void grant_of(const struct api_tokens *tokens, const char *sent, char grant[40]) {
    static const char *const models[] = {"team-a", "team", "te", "t", "other"};
    const struct api_token *token = api_tokens_find(tokens, sent);
    int used = 0;
    *grant = '\0';
    for (size_t i = 0; token && i < sizeof models / sizeof models[0]; i++)
        used += snprintf(grant + used, 40 - (size_t)used, "%d", api_token_sees(token, models[i]));
    struct api_request request = {.token = token};
    for (int scope = API_SCOPE_READ; token && scope <= API_SCOPE_ADMIN; scope++)
        used += snprintf(grant + used, 40 - (size_t)used, "%d",
                         api_token_allows(&request, (enum api_scope)scope) == NN_OK);
}

/* That of two grants the second has nothing that the first lacks. */
static void check_no_more(const char *whole, const char *part, const char *sent, size_t size) {
    for (size_t i = 0; part[i]; i++)
        if (part[i] == '1' && (!*whole || whole[i] != '1'))
            fail_msg("cut off at byte %zu, \"%s\" may do %s, and not %s", size, sent, part, whole);
}

/* Cut at any byte, a file is refused or grants no more, to any token and to what is left of any word. */
static void a_file_that_is_cut_off_grants_no_more(void **state) {
    (void)state;
    static const char *const files[] = {file, "viewer read " H_READ "\n",
                                        "v read " H_READ " team-a\n# end\n"};
    static const char *const known[] = {"t-read", "t-train", "t-admin", "t-team", "", H_READ};
    for (size_t k = 0; k < sizeof files / sizeof files[0]; k++) {
        struct nn_error none = {0};
        struct api_tokens *whole = read_tokens(files[k], &none);
        assert_non_null(whole);
        for (size_t size = 0; size < strlen(files[k]); size++) {
            char *part = strndup(files[k], size), theirs[40], ours[40];
            assert_non_null(part);
            struct nn_error err = {0};
            struct api_tokens *tokens = read_tokens(part, &err);
            for (size_t i = 0; tokens && i < size + sizeof known / sizeof known[0]; i++) {
                const char *sent = i < size ? part + i : known[i - size];
                grant_of(whole, sent, theirs);
                grant_of(tokens, sent, ours);
                check_no_more(theirs, ours, sent, size);
            }
            api_tokens_unref(tokens);
            free(part);
        }
        api_tokens_unref(whole);
    }
}

/* A line of the other file, or what is left of it, is no secret; and of a secret so much is left that nobody guesses it. */
static void a_secret_that_is_cut_off_is_still_one(void **state) {
    (void)state;
    static const char *const texts[] = {file, "viewer read " H_READ "\n", H_ADMIN, H_ADMIN "\n"};
    for (size_t k = 0; k < sizeof texts / sizeof texts[0]; k++)
        for (size_t size = 0; size <= strlen(texts[k]); size++) {
            char *part = strndup(texts[k], size);
            assert_non_null(part);
            struct nn_error err = {0};
            struct api_tokens *tokens = api_tokens_read_secret("secret", part, size, &err);
            bool good = k >= 2 && size >= API_LEAST_SECRET;
            if (good != (tokens != NULL)) fail_msg("\"%s\", cut at byte %zu: %s", texts[k], size, err.text);
            api_tokens_unref(tokens);
            free(part);
        }
}

#define ONE_WORD                                                                                             \
    "tokens:1: a line is NAME SCOPE HASH, and perhaps PREFIX and work=N; one secret alone is for "           \
    "--secret-file"

static void files_that_are_wrong(void **state) {
    (void)state;
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"", "tokens: there is no token in it"},
        {"# nothing\n \n", "tokens: there is no token in it"},
        {"two words", "tokens:1: a line is NAME SCOPE HASH, and perhaps PREFIX and work=N"},
        {"a read " H_READ " p q", "tokens:1: a line is NAME SCOPE HASH, and perhaps PREFIX and work=N"},
        {"a read " H_READ "\ntwo words\n",
         "tokens:2: a line is NAME SCOPE HASH, and perhaps PREFIX and work=N"},
        {"bare\n", ONE_WORD},
        {"bare", ONE_WORD},
        {H_READ H_READ "\n", ONE_WORD},
        {"#\n-a read " H_READ, "tokens:2: a token's name is made as a model's is"},
        {"a write " H_READ, "tokens:1: a scope is read, train or admin"},
        {"a READ " H_READ, "tokens:1: a scope is read, train or admin"},
        {"a read 1" H_READ, "tokens:1: a hash is the token's SHA-256 in 64 hexadecimal digits"},
        {"a read secret", "tokens:1: a hash is the token's SHA-256 in 64 hexadecimal digits"},
        {"a read " H_READ " p work=", "tokens:1: work= is a number of operations, such as 2e12"},
        {"a read " H_READ " work=1 p", "tokens:1: a line is NAME SCOPE HASH, and perhaps PREFIX and work=N"},
        {"a read " H_READ " work=1", "tokens:1: the line has no end: it may be cut off"},
        {"a read " H_READ " team/", "tokens:1: a prefix is what a model's name may begin with"},
        {"a read " H_READ, "tokens:1: the line has no end: it may be cut off"},
        {"a read " H_READ "\nb read " H_TRAIN " tea", "tokens:2: the line has no end: it may be cut off"},
        {"a read " H_READ "\na read " H_TRAIN, "tokens:2: a token of this name is above"},
        {"a read " H_READ "\nb admin " H_READ, "tokens:2: this token is above, with a name"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nn_error err = {0};
        assert_null(read_tokens(cases[i].text, &err));
        assert_string_equal(err.text, cases[i].error);
        assert_int_equal(err.code, NN_E_VALUE);
    }
    struct nn_error err = {0};
    char zero[] = "bare\0more";
    assert_null(api_tokens_read("tokens", zero, sizeof zero - 1, &err));
    assert_string_equal(err.text, "tokens: it is no text");
}

static void secrets_that_are_wrong(void **state) {
    (void)state;
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"", "secret: a secret has 32 characters or more"},
        {"\n", "secret: a secret has 32 characters or more"},
        {"0123456789012345678901234567890\n", "secret: a secret has 32 characters or more"},
        {"\n" H_READ "\n", "secret: it holds more than one line"},
        {H_READ "\n" H_READ "\n", "secret: it holds more than one line"},
        {"a read " H_READ "\n", "secret: a secret is made of visible ASCII characters, without spaces"},
        {H_READ " ", "secret: a secret is made of visible ASCII characters, without spaces"},
        {H_READ "\xc3\xa9", "secret: a secret is made of visible ASCII characters, without spaces"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nn_error err = {0};
        char *text = strdup(cases[i].text);
        assert_non_null(text);
        assert_null(api_tokens_read_secret("secret", text, strlen(text), &err));
        assert_string_equal(err.text, cases[i].error);
        assert_int_equal(err.code, NN_E_VALUE);
        free(text);
    }
    struct nn_error err = {0};
    char zero[] = H_READ "\0more";
    assert_null(api_tokens_read_secret("secret", zero, sizeof zero - 1, &err));
    assert_string_equal(err.text, "secret: it is no text");
}

static void hashes_in_capitals(void **state) {
    (void)state;
    char text[] = "reader read " H_READ "\n";
    for (char *c = text + 12; *c; c++)
        if (*c >= 'a') *c = (char)(*c - 'a' + 'A');
    give(text);
    check("t-read", 200, "GET /models", NULL);
}

#define with_service(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        with_service(every_route_and_scope),
        cmocka_unit_test(the_table_is_sound),
        with_service(keeping_a_tape_takes_train),
        with_service(others_models_are_not_there),
        with_service(models_are_made_within_the_prefix),
        with_service(others_tapes_are_not_there),
        with_service(stateless_passes_need_no_model),
        with_service(keys_are_a_tokens_own),
        with_service(the_page_of_metrics_takes_all_models),
        with_service(a_new_file_takes_effect),
        with_service(a_secret_may_do_all),
        cmocka_unit_test(a_file_that_is_cut_off_grants_no_more),
        cmocka_unit_test(a_secret_that_is_cut_off_is_still_one),
        cmocka_unit_test(files_that_are_wrong),
        cmocka_unit_test(secrets_that_are_wrong),
        with_service(hashes_in_capitals),
    };
    nn_blas_init();
    return cmocka_run_group_tests_name("access", tests, NULL, NULL);
}
