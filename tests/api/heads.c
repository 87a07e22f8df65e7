/* What a request's head says of queries, encodings and content codings, and what an answer's head says of itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../api/wire/document.h"
#include "../support/service.h"

static struct test_service service;

#define JSON  "application/json"
#define FILES "application/safetensors"
#define MODEL                                                                                                \
    "{'name': 'm', 'seed': 1, 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear', 'out_features': " \
    "1}], 'loss': {'op': 'mse'}, 'optimizer': {'op': 'sgd', 'lr': 1}}"
#define BATCH "'inputs': {'x': [[1, 2]]}, 'targets': {'y': [[3]]}"

static char context[40]; /* of a kept pass */

static json_t *ask(int status, const char *request, const char *body) {
    return test_ask(&service, status, request, NULL, body ? "%s" : NULL, body);
}

static void run(int status, const char *request, const char *body) {
    json_decref(ask(status, request, body));
}

/* A model with something to read at each of its paths. */
static int setup(void **state) {
    (void)state;
    test_service_start(&service, NULL, 0);
    run(201, "POST /models", MODEL);
    run(200, "POST /backward", "{'model': 'm', 'accumulate': true, " BATCH "}");
    json_t *kept = ask(200, "POST /forward", "{'model': 'm', 'retain': true, 'inputs': {'x': [[1, 2]]}}");
    snprintf(context, sizeof context, "%s", json_string_value(json_object_get(kept, "context")));
    json_decref(kept);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_service_stop(&service);
    return 0;
}

/* --- every route ----------------------------------------------------------------------------------------- */

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

static bool reads(const struct route *route) { return strcmp(route->method, "GET") == 0; }
static bool is_probe(const struct route *route) {
    return strcmp(route->path, "/healthz") == 0 || strcmp(route->path, "/readyz") == 0;
}

static struct test_answer send(const struct route *route, const char *query, struct test_request request) {
    char path[160];
    const char *hole = strstr(route->path, "{}");
    int before = hole ? (int)(hole - route->path) : (int)strlen(route->path);
    snprintf(path, sizeof path, "%.*s%s%s%s", before, route->path,
             !hole                                       ? ""
             : strncmp(route->path, "/contexts", 9) == 0 ? context
                                                         : "m",
             hole ? hole + 2 : "", query);
    request.method = route->method;
    request.path = path;
    if (route->body > API_PLAIN_TEXT) {
        request.body = "{}";
        request.size = 2;
    }
    return test_request(&service, &request);
}

static const char *slug_of(const struct test_answer *answer, char slug[80]) {
    json_t *json = json_loadb(answer->body, answer->size, 0, NULL);
    const char *type = json_string_value(json_object_get(json, "type"));
    snprintf(slug, 80, "%s", type ? strrchr(type, ':') + 1 : "");
    json_decref(json);
    return slug;
}

static bool says(const struct test_answer *answer, const char *text) {
    return answer->size && strstr(answer->body, text);
}

/* --- queries --------------------------------------------------------------------------------------------- */

static void check_names(const char *query, const char *const *expected) {
    char request[200];
    snprintf(request, sizeof request, "GET /models/m/parameters?%s", query);
    json_t *json = ask(200, request, NULL), *map = json_object_get(json, "parameters");
    size_t n = 0;
    for (; expected[n]; n++)
        if (!json_object_get(map, expected[n])) fail_msg("%s lacks %s", query, expected[n]);
    assert_int_equal(json_object_size(map), n);
    json_decref(json);
}

static void a_list_in_a_query_may_come_in_parts(void **state) {
    (void)state;
    static const char *const both[] = {"0.weight", "0.bias", NULL}, *const bias[] = {"0.bias", NULL},
                             *const none[] = {NULL};
    check_names("names=0.weight&names=0.bias", both);
    check_names("names=0.bias&dtype=F16&names=0.weight", both);
    check_names("names=0.bias%2C0.weight&names=0.bias", both);
    check_names("names=0.bias&names=0.bias", bias);
    check_names("names=&names=0.bias&names=", bias);
    check_names("names=&names=", none);
    json_t *unknown = ask(422, "GET /models/m/parameters?names=0.bias&names=nobody", NULL);
    assert_non_null(strstr(json_string_value(json_object_get(unknown, "detail")), "nobody"));
    json_decref(unknown);
}

/* One representation has one tag, however its query is written. */
static void parts_of_a_list_make_one_tag(void **state) {
    (void)state;
    static const char *const same[] = {"/models/m/parameters?names=0.weight,0.bias",
                                       "/models/m/parameters?names=0.weight%2C0.bias",
                                       "/models/m/parameters?names=0.weight&names=0.bias"};
    char tag[128] = "";
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        struct test_answer answer =
            test_request(&service, &(struct test_request){.method = "GET", .path = same[i]});
        const char *own = test_answer_header(&answer, "ETag");
        assert_non_null(own);
        if (i) assert_string_equal(own, tag);
        snprintf(tag, sizeof tag, "%s", own);
        test_answer_free(&answer);
    }
}

static void one_value_is_not_sent_twice(void **state) {
    (void)state;
    static const struct {
        const char *request, *name;
        bool body;
    } cases[] = {
        {"GET /models/m/parameters?dtype=F16&dtype=F32", "dtype", false},
        {"GET /models/m/parameters?dtype=F16&names=0.bias&dtype=F16", "dtype", false},
        {"GET /models/m/gradients?dtype=F16&dtype=F32", "dtype", false},
        {"GET /models/m/optimizer?dtype=F16&dtype=F32", "dtype", false},
        {"PUT /models/m/parameters?partial=true&partial=false", "partial", true},
        {"PUT /models/m/parameters?partial=true&partial", "partial", true},
        {"PUT /models/m/parameters?wait=durable&partial=true&wait=durable", "wait", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char expected[64];
        snprintf(expected, sizeof expected, "\"%s\" twice", cases[i].name);
        json_t *json = ask(400, cases[i].request, cases[i].body ? "{'parameters': {'0.bias': [1]}}" : NULL);
        const char *detail = json_string_value(json_object_get(json, "detail"));
        assert_string_equal(json_string_value(json_object_get(json, "type")), API_PROBLEM_TYPE "malformed");
        if (!strstr(detail, expected)) fail_msg("%s: %s", cases[i].request, detail);
        json_decref(json);
    }
}

/* A parameter that a call does not have is refused by each but the probes. */
static void no_query_is_without_effect(void **state) {
    (void)state;
    static const char *const queries[] = {"?x=1", "?x", "?dtype=F32&x=", "?DTYPE=F32", "?%64type=F32&x=1",
                                          "?&"};
    char slug[80];
    for (const struct route *route = routes; route < routes + ROUTES; route++)
        for (size_t i = 0; i < sizeof queries / sizeof queries[0]; i++) {
            struct test_answer answer = send(route, queries[i], (struct test_request){0});
            if (is_probe(route))
                assert_int_equal(answer.status, 200);
            else if (answer.status != 422 || strcmp(slug_of(&answer, slug), "unknown-member") != 0)
                fail_msg("%s %s%s: %d %s", route->method, route->path, queries[i], answer.status,
                         answer.body);
            test_answer_free(&answer);
        }
}

/* --- Accept ---------------------------------------------------------------------------------------------- */

/* What a GET gets for each; NULL: 406. */
static void accept_is_parsed(void **state) {
    (void)state;
    static const struct {
        const char *accept, *type;
    } cases[] = {
        {"application/json;seq=0", JSON},
        {"application/json;faq=0;q=1", JSON},
        {"application/json;profile=\"a;q=0\"", JSON},
        {"application/json;profile=\"a,b;q=0\", text/html", JSON},
        {"application/json;profile=\"a\\\";q=0,\"", JSON},
        {"application/json;profile=\"application/safetensors\"", JSON},
        {"text/html;also=\"x, application/json\"", NULL},
        {"application/safetensors;x=\"q=0\";q=0.5, application/json;q=0.4", FILES},
        {"application/json ; v=1 ; Q=0.2 , application/safetensors ; q=0.3", FILES},
        {"application/json;q=0;seq=1", NULL},
        {"application/json;q=0.0;profile=\"q=1\"", NULL},
        {"application/json;q=0, application/safetensors;q=0.001", FILES},
        {"application/json;v=1;q=0, application/json", JSON}, /* of the same range, the greatest weight */
        {"application/json;q=", JSON},                        /* an unreadable weight is none */
        {"application/json;q=x, application/safetensors;q=0.5", JSON},
        {"application/json;q=nan, application/safetensors;q=0.5", JSON},
        {"application/json;q=-1, application/safetensors;q=0.5", JSON},
        {"application/json;q=7, application/safetensors;q=1", JSON},
        {"application/json;q=.2, application/safetensors;q=0.1", JSON},
        {"*; q=.2, */*; q=.2", JSON},
        {"application/*", JSON},
        {"application/*x", NULL},
        {"application/json/x", NULL},
        {"*/*x", NULL},
        {"*", NULL},
        {"", JSON},
        {" , ", JSON},
        {"text/html,, application/json,", JSON},
        {"application/json;profile=\"open", JSON},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct test_answer answer = test_request(
            &service, &(struct test_request){.method = "GET", .path = "/models", .accept = cases[i].accept});
        const char *type = test_answer_header(&answer, "Content-Type");
        if (answer.status != (cases[i].type ? 200 : 406) ||
            (cases[i].type && strcmp(type, cases[i].type) != 0))
            fail_msg("Accept: %s: %d %s", cases[i].accept, answer.status, type);
        test_answer_free(&answer);
    }
}

static void content_type_is_parsed(void **state) {
    (void)state;
    static const struct {
        const char *type;
        int status;
    } cases[] = {
        {"application/json", 404},
        {"application/json;charset=utf-8", 404},
        {"Application/JSON ; charset=\"utf-8\"; x=y", 404},
        {"application/json;", 404},
        {"application/json, text/html", 415},
        {"application/json text/html", 415},
        {"application/json;charset=utf-8, text/html", 415},
        {"application/jsonx", 415},
        {"", 415},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *body = "{\"model\": \"nobody\"}";
        struct test_answer answer =
            test_request(&service, &(struct test_request){.method = "POST",
                                                          .path = "/step",
                                                          .content_type = cases[i].type,
                                                          .body = body,
                                                          .size = strlen(body)});
        if (answer.status != cases[i].status)
            fail_msg("Content-Type: %s: %d %s", cases[i].type, answer.status, answer.body);
        assert_null(test_answer_header(&answer, "Accept-Encoding"));
        test_answer_free(&answer);
    }
}

/* --- Content-Encoding ------------------------------------------------------------------------------------ */

/* On every route, at its head. */
static void a_coded_body_is_refused(void **state) {
    (void)state;
    static const char *const coded[] = {"gzip", "GZIP",        "identity, br", "deflate,identity",
                                        "x",    "identity;q=1"},
                             *const plain[] = {"identity", "Identity", "", " identity , ,identity", NULL};
    char slug[80];
    for (const struct route *route = routes; route < routes + ROUTES; route++) {
        for (size_t i = 0; i < sizeof coded / sizeof coded[0]; i++) {
            struct test_answer answer =
                send(route, "", (struct test_request){.content_encoding = coded[i], .accept = "*/*"});
            if (answer.status != 415 || strcmp(slug_of(&answer, slug), "unsupported-coding") != 0)
                fail_msg("%s %s, %s: %d %s", route->method, route->path, coded[i], answer.status,
                         answer.body);
            assert_string_equal(test_answer_header(&answer, "Accept-Encoding"), "identity");
            test_answer_free(&answer);
        }
        if (!reads(route)) continue;
        for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
            struct test_answer answer = send(route, "", (struct test_request){.content_encoding = plain[i]});
            assert_int_equal(answer.status, 200);
            assert_null(test_answer_header(&answer, "Accept-Encoding"));
            test_answer_free(&answer);
        }
    }
    /* Before a byte of the body is taken, and before there is room for it. */
    const struct api_head head = {.method = "POST",
                                  .path = "/forward",
                                  .content_encoding = "gzip",
                                  .content_length = (int64_t)api_default_limits.body * 2};
    struct api_admission admission = api_admit(service.api, &head);
    assert_null(admission.request);
    assert_int_equal(admission.refusal->status, 415);
    api_response_free(admission.refusal);
}

/* --- answers --------------------------------------------------------------------------------------------- */

static void check_caching(const struct test_answer *answer, const char *what, bool negotiated, bool get) {
    const char *vary = test_answer_header(answer, "Vary"),
               *cache = test_answer_header(answer, "Cache-Control");
    if (negotiated ? !vary || strcmp(vary, "Accept") != 0 : vary != NULL)
        fail_msg("%s (%d): Vary: %s", what, answer->status, vary ? vary : "none");
    if (get ? !cache || strcmp(cache, "no-cache") != 0 : cache != NULL)
        fail_msg("%s (%d): Cache-Control: %s", what, answer->status, cache ? cache : "none");
}

/* Whatever the status: an error of a GET may be kept by a cache as well. */
static void every_answer_says_how_it_may_be_kept(void **state) {
    (void)state;
    static const struct {
        const char *query;
        struct test_request headers;
    } asked[] = {{"", {0}},
                 {"", {.accept = FILES}},
                 {"", {.accept = "text/html"}},
                 {"", {.content_encoding = "gzip"}},
                 {"?no=1", {0}}};
    for (const struct route *route = routes; route < routes + ROUTES; route++)
        for (size_t i = 0; i < sizeof asked / sizeof asked[0] && reads(route); i++) {
            struct test_answer answer = send(route, asked[i].query, asked[i].headers);
            check_caching(&answer, route->path, route->body != API_PLAIN_TEXT, true);
            test_answer_free(&answer);
        }
    static const struct {
        const char *method, *path, *if_none_match;
        int status;
        bool negotiated;
    } others[] = {{"GET", "/models/m/parameters", "*", 304, true},
                  {"GET", "/models/nobody", NULL, 404, true},
                  {"GET", "/nowhere", NULL, 404, false},
                  {"GET", "/step", NULL, 405, false},
                  {"POST", "/step", NULL, 400, true},
                  {"DELETE", "/models/nobody", NULL, 404, true},
                  {"PUT", "/nowhere", NULL, 404, false}};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        struct test_answer answer =
            test_request(&service, &(struct test_request){.method = others[i].method,
                                                          .path = others[i].path,
                                                          .if_none_match = others[i].if_none_match});
        assert_int_equal(answer.status, others[i].status);
        check_caching(&answer, others[i].path, others[i].negotiated, strcmp(others[i].method, "GET") == 0);
        test_answer_free(&answer);
    }
    json_t *made = ask(200, "POST /forward", "{'model': 'm', 'inputs': {'x': [[1, 2]]}}");
    json_decref(made);
}

static void allow_names_head(void **state) {
    (void)state;
    static const struct {
        const char *method, *path, *allow;
    } cases[] = {{"PUT", "/models", "GET, HEAD, POST"},
                 {"BREW", "/models/m", "GET, HEAD, PATCH, DELETE"},
                 {"PATCH", "/models/m/parameters", "GET, HEAD, PUT, POST"},
                 {"PATCH", "/models/m/gradients", "GET, HEAD, POST, DELETE"},
                 {"OPTIONS", "/metrics", "GET, HEAD"},
                 {"GET", "/step", "POST"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct test_answer answer =
            test_request(&service, &(struct test_request){.method = cases[i].method, .path = cases[i].path});
        assert_int_equal(answer.status, 405);
        assert_string_equal(test_answer_header(&answer, "Allow"), cases[i].allow);
        assert_true(says(&answer, cases[i].allow));
        test_answer_free(&answer);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_list_in_a_query_may_come_in_parts, setup, teardown),
        cmocka_unit_test_setup_teardown(parts_of_a_list_make_one_tag, setup, teardown),
        cmocka_unit_test_setup_teardown(one_value_is_not_sent_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(no_query_is_without_effect, setup, teardown),
        cmocka_unit_test_setup_teardown(accept_is_parsed, setup, teardown),
        cmocka_unit_test_setup_teardown(content_type_is_parsed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_coded_body_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(every_answer_says_how_it_may_be_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(allow_names_head, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
