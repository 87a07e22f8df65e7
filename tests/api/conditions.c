/* If-Match and If-None-Match: on every route, of every kind of resource; where a name is to be made, in a retry, and in
 * the turn of a change. */
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

#include "../../api/wire/document.h"
#include "../support/service.h"

static struct test_service service;
static char own[20];     /* the model's incarnation */
static char context[40]; /* of a pass that was kept at version 0 */

#define LAYERS                                                                                               \
    "'seed': 3, 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear', 'out_features': 2}], 'loss': "  \
    "{'op': 'mse'}, 'optimizer': {'op': 'sgd', 'lr': 1}"
#define BATCH "'inputs': {'x': [[1, 2]]}, 'targets': {'y': [[0, 1]]}"

static json_t *ask(int status, const char *request, struct test_request headers, const char *body) {
    return test_ask(&service, status, request, &headers, body ? "%s" : NULL, body);
}

static const char *member_of(json_t *json, const char *name, char *text, size_t room) {
    snprintf(text, room, "%s", json_string_value(json_object_get(json, name)));
    json_decref(json);
    return text;
}

static void run(int status, const char *request, struct test_request headers, const char *body) {
    json_decref(ask(status, request, headers, body));
}

static void refused(int status, const char *slug, const char *request, struct test_request headers,
                    const char *body) {
    char type[80], expected[80];
    snprintf(expected, sizeof expected, API_PROBLEM_TYPE "%s", slug);
    member_of(ask(status, request, headers, body), "type", type, sizeof type);
    if (strcmp(type, expected) != 0)
        fail_msg("%s: %s instead of %s (%s; %s)", request, type, slug,
                 headers.if_match ? headers.if_match : "",
                 headers.if_none_match ? headers.if_none_match : "");
}

static json_int_t version_of(const char *model) {
    char request[80];
    snprintf(request, sizeof request, "GET /models/%s", model);
    json_t *json = ask(200, request, (struct test_request){0}, NULL);
    json_int_t version = json_integer_value(json_object_get(json, "version"));
    json_decref(json);
    return version;
}

#define NONE ((struct test_request){0})

/* A model with something to read at each of its paths. */
static int start(int workers) {
    test_service_start(&service, NULL, workers);
    member_of(ask(201, "POST /models", NONE, "{'name': 'm', " LAYERS "}"), "incarnation", own, sizeof own);
    run(200, "POST /backward", NONE, "{'model': 'm', 'accumulate': true, " BATCH "}");
    member_of(ask(200, "POST /forward", NONE, "{'model': 'm', 'retain': true, 'inputs': {'x': [[1, 2]]}}"),
              "context", context, sizeof context);
    return 0;
}

static int setup(void **state) {
    (void)state;
    return start(0);
}

static int on_threads(void **state) {
    (void)state;
    return start(4);
}

static int teardown(void **state) {
    (void)state;
    test_service_stop(&service);
    return 0;
}

static const struct route {
    const char *method, *path;
    enum api_body body;
} routes[] = {
#define API_ROUTE(method, path, handler, body, effect, scope, recorded, cost, query, requires, members,      \
                  summary)                                                                                   \
    {method, path, body},
#include "../../api/request/routes.def"
#undef API_ROUTE
};
enum { ROUTES = sizeof routes / sizeof routes[0] };

static struct test_answer send(const struct route *route, struct test_request request) {
    char path[160];
    const char *hole = strstr(route->path, "{}");
    int before = hole ? (int)(hole - route->path) : (int)strlen(route->path);
    bool kept = strncmp(route->path, "/contexts", 9) == 0;
    snprintf(path, sizeof path, "%.*s%s%s", before, route->path,
             !hole  ? ""
             : kept ? context
                    : "m",
             hole ? hole + 2 : "");
    request.method = route->method;
    request.path = path;
    if (route->body > API_PLAIN_TEXT) {
        request.body = "{}";
        request.size = 2;
    }
    return test_request(&service, &request);
}

/* --- lists of tags --------------------------------------------------------------------------------------- */

static void what_is_no_list_of_tags_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"*x",       "*\"other\"",  "*, \"x\"", "\"x\", *", "x",
                                      "\"x",      "\"x\" \"y\"", "\"a b\"",  "w/\"x\"",  "W/",
                                      "W/ \"x\"", "\"x\"y",      "\"x\", y", ", *"};
    for (const struct route *route = routes; route < routes + ROUTES; route++)
        for (size_t i = 0; i < 2 * sizeof bad / sizeof bad[0]; i++) {
            const struct test_request headers = {.if_match = i % 2 ? bad[i / 2] : NULL,
                                                 .if_none_match = i % 2 ? NULL : bad[i / 2]};
            struct test_answer answer = send(route, headers);
            if (answer.status != 400 || !strstr(answer.body, i % 2 ? "If-Match" : "If-None-Match"))
                fail_msg("%s %s, %s: %d %s", route->method, route->path, bad[i / 2], answer.status,
                         answer.body);
            test_answer_free(&answer);
        }
    static const char *const good[] = {"*",        " * ", "\"x\"", "W/\"x\"", "\"x\",\"y\" , W/\"z\"",
                                       ",\"x\",,", "",    ",",     "\"\"",    "\"\xc3\xbc!#\\\""};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct test_answer answer = send(&routes[ROUTES - 1], (struct test_request){.if_match = good[i]});
        assert_int_equal(answer.status, strchr(good[i], '*') ? 200 : 412);
        test_answer_free(&answer);
    }
}

/* --- reading ----------------------------------------------------------------------------------------------- */

static void check_read(const struct route *route, int status, const char *slug, struct test_request headers) {
    struct test_answer answer = send(route, headers);
    if (answer.status != status || (slug && !strstr(answer.body, slug)) || (status == 304 && answer.size))
        fail_msg("%s (%s; %s): %d instead of %d: %s", route->path, headers.if_match ? headers.if_match : "",
                 headers.if_none_match ? headers.if_none_match : "", answer.status, status, answer.body);
    test_answer_free(&answer);
}

/* Whatever is read: it exists, and only what is about a model has tags. */
static void every_read_heeds_both(void **state) {
    (void)state;
    char tags[3][64];
    snprintf(tags[0], sizeof tags[0], "\"%s-0\"", own);
    snprintf(tags[1], sizeof tags[1], "\"x\", W/\"%s-0-json-F32\"", own);
    snprintf(tags[2], sizeof tags[2], "\"%s-1\"", own);
    for (const struct route *route = routes; route < routes + ROUTES; route++) {
        if (strcmp(route->method, "GET") != 0) continue;
        bool tagged = strncmp(route->path, "/models/{}", 10) == 0;
        const char *slug = tagged ? "stale" : "precondition-failed";
        check_read(route, 200, NULL, (struct test_request){.if_match = "*"});
        check_read(route, 412, slug, (struct test_request){.if_match = "\"x\""});
        check_read(route, 412, slug, (struct test_request){.if_match = ""});
        check_read(route, 412, slug, (struct test_request){.if_match = tags[2]});
        check_read(route, 200, NULL, (struct test_request){.if_none_match = "\"x\""});
        check_read(route, 304, NULL, (struct test_request){.if_none_match = "*"});
        check_read(route, 304, NULL, (struct test_request){.if_match = "*", .if_none_match = "*"});
        check_read(route, 412, slug, (struct test_request){.if_match = "\"x\"", .if_none_match = "*"});
        for (int i = 0; i < 2; i++)
            check_read(route, tagged ? 200 : 412, NULL, (struct test_request){.if_match = tags[i]});
    }
    refused(404, "not-found", "GET /models/nobody", (struct test_request){.if_match = "\"x\""}, NULL);
    refused(404, "not-found", "GET /models/nobody", (struct test_request){.if_none_match = "*"}, NULL);
    refused(422, "unknown-name", "GET /models/m/parameters?names=x",
            (struct test_request){.if_match = "\"x\""}, NULL);
}

/* A pass reads a version as well: of a model, of a kept pass, or of nothing that has a tag. */
static void passes_heed_both(void **state) {
    (void)state;
    static const char *const passes[] = {"POST /forward", "POST /backward"};
    static const char *const bodies[][2] = {
        {"{'model': 'm', 'inputs': {'x': [[1, 2]]}}", "{'model': 'm', " BATCH "}"},
        {"{'model': 'c', 'inputs': {'x': [[1, 2]]}}", "{'model': 'c', " BATCH "}"},
        {"{'model': {" LAYERS "}, 'inputs': {'x': [[1, 2]]}}", "{'model': {" LAYERS "}, " BATCH "}"}};
    char tag[2][64], other[20];
    member_of(ask(201, "POST /models", NONE, "{'name': 'c', 'coalesce': true, " LAYERS "}"), "incarnation",
              other, sizeof other);
    snprintf(tag[0], sizeof tag[0], "W/\"%s-0\"", own);
    snprintf(tag[1], sizeof tag[1], "\"%s-0-json-F16\"", other);
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 3; k++) {
            const char *body = bodies[k][i], *slug = k < 2 ? "stale" : "precondition-failed";
            run(200, passes[i], (struct test_request){.if_match = "*"}, body);
            refused(412, slug, passes[i], (struct test_request){.if_match = "\"x\""}, body);
            refused(412, slug, passes[i], (struct test_request){.if_match = "\"x\"", .if_none_match = "*"},
                    body);
            run(200, passes[i], (struct test_request){.if_none_match = "\"x\""}, body);
            refused(412, "precondition-failed", passes[i], (struct test_request){.if_none_match = "*"}, body);
            if (k == 2) continue;
            run(200, passes[i], (struct test_request){.if_match = tag[k]}, body);
            refused(412, "precondition-failed", passes[i], (struct test_request){.if_none_match = tag[k]},
                    body);
        }
    /* A kept pass is of its own version, and is not used up by what was refused. */
    char body[160], later[64];
    run(200, "POST /models/m/parameters", NONE, "{'from': 'm', 'tau': 1}");
    snprintf(body, sizeof body, "{'context': '%s', 'targets': {'y': [[0, 1]]}}", context);
    snprintf(later, sizeof later, "\"%s-1\"", own);
    refused(412, "stale", "POST /backward", (struct test_request){.if_match = later}, body);
    refused(412, "precondition-failed", "POST /backward", (struct test_request){.if_none_match = tag[0]},
            body);
    run(200, "POST /backward", (struct test_request){.if_match = tag[0], .if_none_match = later}, body);
}

/* --- changing ---------------------------------------------------------------------------------------------- */

/* Every call that changes a model; in the last body, %s is its incarnation. */
static const struct {
    const char *request, *body;
    int made; /* versions */
} changes[] = {
    {"POST /backward", "{'model': 'm', 'apply': true, " BATCH "}", 1},
    {"POST /backward", "{'model': 'm', 'accumulate': true, " BATCH "}", 0},
    {"POST /step", "{'model': 'm'}", 1},
    {"PATCH /models/m", "{'optimizer': {'lr': 0.5}}", 0},
    {"PUT /models/m/parameters?partial=true", "{'parameters': {'0.bias': [0, 0]}}", 1},
    {"POST /models/m/parameters", "{'from': 'm', 'tau': 0.5}", 1},
    {"POST /models/m/gradients", "{'incarnation': '%s', 'version': 0, 'gradients': {'0.bias': [1, 1]}}", 1},
    {"PUT /models/m/optimizer", "{'steps': 7, 'state': {}}", 0},
    {"DELETE /models/m/gradients", NULL, 0},
    {"DELETE /models/m", NULL, 0},
};
enum { CHANGES = sizeof changes / sizeof changes[0] };

static void no_change_that_if_none_match_rules_out(void **state) {
    (void)state;
    json_int_t at = 0;
    for (size_t i = 0; i < CHANGES; i++) {
        const char *request = changes[i].request;
        char now[64], weak[64], other[160], body[300];
        snprintf(body, sizeof body, "%s", changes[i].body ? changes[i].body : "");
        if (strstr(body, "%s")) /* the format is the table's */
            snprintf(body, sizeof body,
                     "{'incarnation': '%s', 'version': 0, 'gradients': {'0.bias': [1, 1]}}", own);
        const char *sent = changes[i].body ? body : NULL;
        snprintf(now, sizeof now, "\"%s-%lld\"", own, (long long)at);
        snprintf(weak, sizeof weak, "\"x\", W/\"%s-%lld-json-F32\"", own, (long long)at);
        snprintf(other, sizeof other, "\"x\", \"%s-%lld\", \"%s-%lld0\", \"%s\"", own, (long long)at + 1, own,
                 (long long)at + 1, own);
        const char *const out[] = {"*", now, weak};
        for (size_t k = 0; k < sizeof out / sizeof out[0]; k++) {
            refused(412, "precondition-failed", request, (struct test_request){.if_none_match = out[k]},
                    sent);
            refused(412, "precondition-failed", request,
                    (struct test_request){.if_match = now, .if_none_match = out[k]}, sent);
            refused(412, "stale", request,
                    (struct test_request){.if_match = "\"x\"", .if_none_match = out[k]}, sent);
        }
        assert_int_equal(version_of("m"), at);
        run(200, request, (struct test_request){.if_match = weak, .if_none_match = other}, sent);
        at += changes[i].made;
    }
    refused(404, "not-found", "GET /models/m", NONE, NULL);
}

static void a_context_exists_and_has_no_tag(void **state) {
    (void)state;
    char request[80];
    snprintf(request, sizeof request, "DELETE /contexts/%s", context);
    refused(412, "precondition-failed", request, (struct test_request){.if_match = "\"x\""}, NULL);
    refused(412, "precondition-failed", request, (struct test_request){.if_none_match = "*"}, NULL);
    run(200, request, (struct test_request){.if_match = "*", .if_none_match = "\"x\""}, NULL);
    refused(404, "not-found", request, (struct test_request){.if_match = "*"}, NULL);
}

/* What a proxy has weakened on its way to the client comes back as it is. */
static void a_weak_tag_counts_as_the_strong_one(void **state) {
    (void)state;
    static const char *const encodings[] = {"application/json", "application/safetensors"};
    char weak[160];
    for (json_int_t i = 0; i < 2; i++) {
        const struct test_request pull = {
            .method = "GET", .path = "/models/m/parameters", .accept = encodings[i]};
        struct test_answer answer = test_request(&service, &pull);
        snprintf(weak, sizeof weak, "W/%s", test_answer_header(&answer, "ETag"));
        test_answer_free(&answer);
        run(304, "GET /models/m/parameters",
            (struct test_request){.accept = encodings[i], .if_none_match = weak}, NULL);
        run(200, "POST /models/m/parameters", (struct test_request){.if_match = weak},
            "{'from': 'm', 'tau': 1}");
        refused(412, "stale", "POST /models/m/parameters", (struct test_request){.if_match = weak},
                "{'from': 'm', 'tau': 1}");
        assert_int_equal(version_of("m"), i + 1);
    }
}

/* --- making ------------------------------------------------------------------------------------------------ */

static void creation_is_about_the_name(void **state) {
    (void)state;
    static const char fresh[] = "{'name': 'n', " LAYERS "}", taken[] = "{'name': 'm', " LAYERS "}";
    char now[64];
    snprintf(now, sizeof now, "\"%s-0\"", own);
    refused(412, "precondition-failed", "POST /models", (struct test_request){.if_match = "*"}, fresh);
    refused(412, "precondition-failed", "POST /models", (struct test_request){.if_match = now}, fresh);
    refused(404, "not-found", "GET /models/n", NONE, NULL);
    run(201, "POST /models", (struct test_request){.if_none_match = "*"}, fresh);
    refused(412, "precondition-failed", "POST /models", (struct test_request){.if_none_match = "*"}, fresh);
    refused(409, "name-taken", "POST /models", NONE, fresh);
    run(200, "DELETE /models/n", NONE, NULL);
    run(201, "POST /models", (struct test_request){.if_none_match = "\"x\""}, fresh);
    refused(409, "name-taken", "POST /models", (struct test_request){.if_none_match = "\"x\""}, taken);
    refused(412, "precondition-failed", "POST /models", (struct test_request){.if_none_match = now}, taken);
    refused(412, "stale", "POST /models", (struct test_request){.if_match = "\"x\""}, taken);
    refused(409, "name-taken", "POST /models", (struct test_request){.if_match = "*"}, taken);
    refused(409, "name-taken", "POST /models", (struct test_request){.if_match = now}, taken);
    assert_int_equal(version_of("m"), 0);
}

/* What has succeeded once is told again, though its condition does not hold any more; what failed frees its key. */
static void a_retry_is_not_asked_again(void **state) {
    (void)state;
    static const char fresh[] = "{'name': 'n', " LAYERS "}", blend[] = "{'from': 'm', 'tau': 1}";
    char now[64];
    snprintf(now, sizeof now, "\"%s-0\"", own);
    for (int i = 0; i < 3; i++) {
        const struct test_request make = {.idempotency_key = "k1", .if_none_match = "*"};
        const struct test_request change = {.idempotency_key = "k2", .if_match = now};
        json_t *json = ask(201, "POST /models", make, fresh);
        assert_true(json_is_true(json_object_get(json, "replayed")) == (i > 0));
        json_decref(json);
        json = ask(200, "POST /models/m/parameters", change, blend);
        assert_true(json_is_true(json_object_get(json, "replayed")) == (i > 0));
        json_decref(json);
        assert_int_equal(version_of("m"), 1);
    }
    const struct test_request late = {.idempotency_key = "k3", .if_match = now},
                              out = {.idempotency_key = "k3", .if_none_match = "*"};
    refused(412, "stale", "POST /models/m/parameters", late, blend);
    refused(412, "precondition-failed", "POST /models/m/parameters", out, blend);
    run(200, "POST /models/m/parameters", (struct test_request){.idempotency_key = "k3"}, blend);
    assert_int_equal(version_of("m"), 2);
}

/* --- in the turn ------------------------------------------------------------------------------------------- */

/* Two on threads, one of whom means a version, and the other every version but this; and all make the same name. */
enum { PAIR = 2, MAKERS = 8, ROUNDS = 60 };
static atomic_int made, ruled_out, wins[PAIR][ROUNDS], odd;
static pthread_barrier_t barrier;

static void *write_rounds(void *arg) {
    int which = *(int *)arg;
    static const char blend[] = "{\"from\": \"m\", \"tau\": 1}";
    char tag[64], body[300];
    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&barrier);
        snprintf(tag, sizeof tag, "\"%s-%lld\"", own, (long long)version_of("m"));
        pthread_barrier_wait(&barrier);
        if (which < PAIR) {
            struct test_request change = {.method = "POST", .path = "/models/m/parameters", .body = blend};
            change.size = strlen(blend);
            *(which ? &change.if_none_match : &change.if_match) = tag;
            struct test_answer answer = test_request(&service, &change);
            atomic_store(&wins[which][round], answer.status == 200);
            if (answer.status != 200 && answer.status != 412) atomic_fetch_add(&odd, 1);
            test_answer_free(&answer);
        }
        snprintf(
            body, sizeof body,
            "{\"name\": \"n%d\", \"inputs\": {\"x\": {\"shape\": [1]}}, \"layers\": [{\"op\": \"relu\"}]}",
            round);
        struct test_answer answer = test_request(&service, &(struct test_request){.method = "POST",
                                                                                  .path = "/models",
                                                                                  .if_none_match = "*",
                                                                                  .body = body,
                                                                                  .size = strlen(body)});
        atomic_fetch_add(answer.status == 201 ? &made : answer.status == 412 ? &ruled_out : &odd, 1);
        test_answer_free(&answer);
    }
    return NULL;
}

static void nothing_comes_between(void **state) {
    (void)state;
    pthread_t threads[MAKERS];
    int numbers[MAKERS], won = 0;
    assert_int_equal(pthread_barrier_init(&barrier, NULL, MAKERS), 0);
    for (int i = 0; i < MAKERS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, write_rounds, &numbers[i]), 0);
    }
    for (int i = 0; i < MAKERS; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&barrier);
    for (int round = 0; round < ROUNDS; round++) {
        assert_true(
            atomic_load(&wins[0][round])); /* for the other changes nothing while this version stands */
        won += 1 + atomic_load(&wins[1][round]);
    }
    assert_int_equal(atomic_load(&odd), 0);
    assert_int_equal(version_of("m"), won);
    assert_int_equal(atomic_load(&made), ROUNDS);
    assert_int_equal(atomic_load(&ruled_out), ROUNDS * (MAKERS - 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_no_list_of_tags_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(every_read_heeds_both, setup, teardown),
        cmocka_unit_test_setup_teardown(passes_heed_both, setup, teardown),
        cmocka_unit_test_setup_teardown(no_change_that_if_none_match_rules_out, setup, teardown),
        cmocka_unit_test_setup_teardown(a_context_exists_and_has_no_tag, setup, teardown),
        cmocka_unit_test_setup_teardown(a_weak_tag_counts_as_the_strong_one, setup, teardown),
        cmocka_unit_test_setup_teardown(creation_is_about_the_name, setup, teardown),
        cmocka_unit_test_setup_teardown(a_retry_is_not_asked_again, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_comes_between, on_threads, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
