/* Every call of routes.def, in both encodings, and what each answers when all is well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../support/e2e.h"

#define LAYERS                                                                                               \
    "'inputs': {'x': {'shape': [3]}}, 'layers': [{'op': 'linear', 'out_features': 4}, {'op': 'relu'}, "      \
    "{'op': 'linear', 'out_features': 2, 'name': 'out'}], 'loss': {'op': 'cross_entropy'}, "                 \
    "'optimizer': {'op': 'adam', 'lr': 0.01}"

/* In an order in which each finds what it needs; {} is "m", or the context kept by /forward. */
static const struct {
    const char *method, *path;
    int status;
    const char *json;
    const char *members; /* of the answer */
} calls[] = {
    {"GET", "/healthz", 200, NULL, "status version"},
    {"GET", "/readyz", 200, NULL, "status"},
    {"GET", "/ops", 200, NULL, "operators losses optimizers"},
    {"POST", "/models", 201, "{'name': 'm', 'seed': 7, " LAYERS "}",
     "name incarnation version specification"},
    {"GET", "/models", 200, NULL, "models"},
    {"GET", "/models/{}", 200, NULL, "name incarnation version seed specification parameters steps"},
    {"GET", "/models/{}/parameters", 200, NULL, "incarnation version"},
    {"PUT", "/models/{}/parameters", 200, "{'parameters': {'out.bias': [1, -1]}}",
     "model incarnation version applied_version"},
    {"POST", "/forward", 200, "{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'retain': true}",
     "model incarnation version seed context"},
    {"GET", "/contexts", 200, NULL, "contexts"},
    {"GET", "/contexts/{}", 200, NULL,
     "context model incarnation version rows mode seed bytes expires_in_ms"},
    {"DELETE", "/contexts/{}", 200, NULL, "deleted"},
    {"POST", "/backward", 200,
     "{'model': 'm', 'inputs': {'x': [[1, 2, 3], [3, 2, 1]]}, 'targets': {'y': [0, 1]}, 'accumulate': true}",
     "model incarnation version loss losses samples seed accumulated"},
    {"GET", "/models/{}/gradients", 200, NULL,
     "model incarnation version contributions scale oldest_version"},
    {"POST", "/step", 200, "{'model': 'm', 'mean': true}",
     "model incarnation version applied_version contributions"},
    {"POST", "/models/{}/gradients", 200,
     "{'incarnation': 'INCARNATION', 'version': 1, 'samples': 2, 'gradients': {'out.bias': [1, -1]}}",
     "model incarnation version staleness applied_version"},
    {"DELETE", "/models/{}/gradients", 200, NULL, "model incarnation cleared"},
    {"POST", "/models/{}/parameters", 200, "{'from': 'm', 'tau': 0.5}",
     "model incarnation version applied_version from_version"},
    {"GET", "/models/{}/optimizer", 200, NULL, "model incarnation version op steps"},
    {"PUT", "/models/{}/optimizer", 200,
     "{'op': 'adam', 'steps': 3, 'state': {"
     "'exp_avg.0.weight': [[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3]], 'exp_avg.0.bias': [1, 2, 3, 4], "
     "'exp_avg.out.weight': [[1, 2, 3, 4], [1, 2, 3, 4]], 'exp_avg.out.bias': [1, 2], "
     "'exp_avg_sq.0.weight': [[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3]], "
     "'exp_avg_sq.0.bias': [1, 2, 3, 4], 'exp_avg_sq.out.weight': [[1, 2, 3, 4], [1, 2, 3, 4]], "
     "'exp_avg_sq.out.bias': [1, 2]}}",
     "model incarnation version steps"},
    {"PATCH", "/models/{}", 200, "{'optimizer': {'lr': 0.5}}", "specification"},
    {"DELETE", "/models/{}", 200, NULL, "deleted"},
};
enum { CALLS = sizeof calls / sizeof calls[0] };

static void the_table_is_whole(void **state) {
    (void)state;
    static const struct {
        const char *method, *path, *body;
    } routes[] = {
#define API_ROUTE(method, path, handler, body, effect, scope, recorded, cost, query, requires, members,      \
                  summary)                                                                                   \
    {method, path, #body},
#include "../../api/request/routes.def"
#undef API_ROUTE
    };
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        /* For tests/e2e/metrics.c and tests/docs, and for tests/e2e/data.c. */
        bool found = !strcmp(routes[i].body, "API_PLAIN_TEXT") || strstr(routes[i].path, "/restore");
        for (size_t k = 0; k < CALLS; k++)
            found |= !strcmp(routes[i].method, calls[k].method) && !strcmp(routes[i].path, calls[k].path);
        if (!found) fail_msg("no test calls %s %s", routes[i].method, routes[i].path);
    }
}

/* The path with its {} filled in; ?partial=true, as a whole state is not what is sent here. */
static const char *path_of(int call, const char *context) {
    char *path = service_keep(malloc(256));
    const char *braces = strstr(calls[call].path, "{}");
    if (!braces) return calls[call].path;
    snprintf(path, 256, "%.*s%s%s%s", (int)(braces - calls[call].path), calls[call].path,
             strncmp(calls[call].path, "/contexts", 9) == 0 ? context : "m", braces + 2,
             calls[call].method[1] == 'U' && strstr(braces, "parameters") ? "?partial=true" : "");
    return path;
}

/* The call's document, where an INCARNATION stands for the model's, which its creation told. */
static const char *body_of(int call, const char *incarnation) {
    const char *json = calls[call].json, *hole = json ? strstr(json, "INCARNATION") : NULL;
    if (!hole) return json;
    char *body = service_keep(malloc(256));
    snprintf(body, 256, "%.*s%s%s", (int)(hole - json), json, incarnation, hole + strlen("INCARNATION"));
    return body;
}

/* Every word of `members` is a member of the answer. */
static void check_members(int call, const json_t *members) {
    char words[256];
    char *rest = NULL;
    snprintf(words, sizeof words, "%s", calls[call].members);
    for (char *word = strtok_r(words, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        if (!json_object_get(members, word))
            fail_msg("%s %s does not tell \"%s\"", calls[call].method, calls[call].path, word);
}

static void in_json(void **state) {
    (void)state;
    const char *context = "", *incarnation = "";
    for (int i = 0; i < CALLS; i++) {
        const struct http_answer *bytes =
            ask_bytes(calls[i].status, calls[i].method, path_of(i, context), body_of(i, incarnation));
        json_t *answer = json_loadb((char *)bytes->body, bytes->size, JSON_REJECT_DUPLICATES, NULL);
        char type[256];
        assert_non_null(answer);
        assert_string_equal(http_header(bytes, "Content-Type", type), JSON_TYPE);
        check_members(i, answer);
        if (json_object_get(answer, "context")) context = quoted(text_at(answer, "context"));
        if (calls[i].status == 201) incarnation = quoted(text_at(answer, "incarnation"));
        json_decref(answer);
    }
}

/* The tensors of one map, numbers all, as F32. */
static void write_map(struct test_writer *writer, const char *map, const char *name, const json_t *array,
                      bool plain) {
    int64_t shape[9] = {0};
    int rank = 0;
    char path[256];
    float data[64];
    double numbers[64];
    for (const json_t *inner = array; json_is_array(inner); inner = json_array_get(inner, 0))
        shape[rank++] = (int64_t)json_array_size(inner);
    shape[rank] = -1;
    size_t n = numbers_of(array, numbers, 64);
    for (size_t i = 0; i < n; i++) data[i] = (float)numbers[i];
    snprintf(path, sizeof path, "%s%s%s", plain ? "" : map, plain ? "" : "/", name);
    test_write_f32(writer, path, shape, data);
}

/* The same document as JSON, by the rule of the two encodings. */
static void write_document(struct test_writer *writer, const json_t *document, bool plain) {
    const char *name, *inner;
    json_t *value, *array;
    json_object_foreach((json_t *)(uintptr_t)document, name, value) {
        bool map = false;
        json_object_foreach(value, inner, array) map |= json_is_array(array) && strcmp(name, "loss") != 0;
        if (map) {
            json_object_foreach(value, inner, array) write_map(writer, name, inner, array, plain);
        } else {
            char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY);
            test_write_text(writer, name, text ? text : json_string_value(value));
            free(text);
        }
    }
}

static void in_safetensors(void **state) {
    (void)state;
    const char *context = "", *incarnation = "";
    for (int i = 0; i < CALLS; i++) {
        struct test_writer writer = {0};
        json_t *document = calls[i].json ? json_loads(quoted(body_of(i, incarnation)), 0, NULL) : NULL;
        bool plain = strstr(calls[i].path, "/parameters") && strcmp(calls[i].method, "PUT") == 0;
        if (document) write_document(&writer, document, plain);
        const struct test_file *answer =
            ask_file(calls[i].status, calls[i].method, path_of(i, context), document ? &writer : NULL);
        json_decref(document);
        const json_t *members = json_object_get(answer->header, "__metadata__");
        check_members(i, members);
        if (json_object_get(members, "context")) context = quoted(test_file_text(answer, "context"));
        if (calls[i].status == 201) incarnation = quoted(test_file_text(answer, "incarnation"));
    }
}

/* Of /healthz and others, HEAD answers what GET does, without its body. */
static void head(void **state) {
    (void)state;
    const struct http_answer *answer =
        service_call(200, &(struct http_request){.method = "HEAD", .path = "/healthz"});
    char length[256];
    assert_int_equal(answer->size, 0);
    assert_true(strtol(http_header(answer, "Content-Length", length), NULL, 10) > 10);
}

static void what_is_not_there(void **state) {
    (void)state;
    static const char *const methods[] = {"GET", "PATCH", "DELETE", "GET", "PUT", "GET", "PUT"};
    static const char *const paths[] = {"/models/none",
                                        "/models/none",
                                        "/models/none",
                                        "/models/none/parameters",
                                        "/models/none/parameters",
                                        "/models/none/optimizer",
                                        "/models/none/optimizer"};
    static const char *const bodies[] = {NULL, "{'optimizer': null}",      NULL, NULL, "{'parameters': {}}",
                                         NULL, "{'steps': 0, 'state': {}}"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        check_problem(ask_bytes(404, methods[i], paths[i], bodies[i]), 404, "not-found", NULL);
    refused(404, "not-found", NULL, "GET", "/contexts/none", NULL);
    refused(404, "not-found", NULL, "DELETE", "/contexts/none", NULL);
    refused(404, "not-found", NULL, "POST", "/forward", "{'model': 'none', 'inputs': {'x': [[1]]}}");
    refused(404, "not-found", NULL, "POST", "/backward", "{'context': 'none', 'targets': {'y': [1]}}");
    refused(404, "not-found", NULL, "POST", "/step", "{'model': 'none'}");
    refused(404, "not-found", NULL, "GET", "/", NULL);
    refused(404, "not-found", NULL, "GET", "/models/", NULL);
    refused(404, "not-found", NULL, "GET", "/models/m/nothing", NULL);
    refused(404, "not-found", NULL, "GET", "/models/%2e%2e/parameters", NULL);
    refused(404, "not-found", NULL, "GET", "/models/a%2fb", NULL);
}

static void a_name_is_taken_once(void **state) {
    (void)state;
    ask(201, "POST", "/models", "{'name': 'once', " LAYERS "}");
    refused(409, "name-taken", "/name", "POST", "/models", "{'name': 'once', " LAYERS "}");
    ask(200, "DELETE", "/models/once", NULL);
    const json_t *again = ask(201, "POST", "/models", "{'name': 'once', " LAYERS "}");
    assert_int_equal(strlen(text_at(again, "incarnation")), 16);
    ask(200, "DELETE", "/models/once", NULL);
}

static void a_model_has_its_place(void **state) {
    (void)state;
    char location[256];
    const struct http_answer *answer =
        ask_bytes(201, "POST", "/models", "{'name': 'Here.is_1-m', " LAYERS "}");
    assert_string_equal(http_header(answer, "Location", location), "/models/Here.is_1-m");
    assert_string_equal(text_at(ask(200, "GET", location, NULL), "name"), "Here.is_1-m");
    ask(200, "DELETE", location, NULL);
}

/* What a model was made of makes it again. */
static void a_specification_comes_back(void **state) {
    (void)state;
    ask(201, "POST", "/models", "{'name': 'a', " LAYERS "}");
    const json_t *described = ask(200, "GET", "/models/a", NULL);
    json_t *specification = json_deep_copy(at(described, "specification"));
    json_object_set_new(specification, "name", json_string("b"));
    char *text = json_dumps(specification, 0);
    json_decref(specification);
    service_keep(text);
    ask(201, "POST", "/models", "%s", text);
    same_json(at(ask(200, "GET", "/models/a/parameters", NULL), "parameters"),
              at(ask(200, "GET", "/models/b/parameters", NULL), "parameters"));
    ask(200, "DELETE", "/models/a", NULL);
    ask(200, "DELETE", "/models/b", NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        service_test(the_table_is_whole),    service_test(in_json),
        service_test(in_safetensors),        service_test(head),
        service_test(what_is_not_there),     service_test(a_name_is_taken_once),
        service_test(a_model_has_its_place), service_test(a_specification_comes_back),
    };
    return cmocka_run_group_tests(tests, service_setup, service_teardown);
}
