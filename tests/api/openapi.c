/* GET /openapi.json says of each endpoint what its row of routes.def does, and speaks of nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../api/wire/document.h"
#include "../support/service.h"

static struct test_service service;
static json_t *document;

static const struct route {
    const char *method, *path, *query, *requires, *members, *summary;
    enum api_body body;
    enum { API_READS, API_CHANGES, API_IF_ASKED } effect;
    const char *scope;
} routes[] = {
#define API_ROUTE(method, path, handler, body, effect, scope, recorded, cost, query, requires, members,      \
                  summary)                                                                                   \
    {method, path, query, requires, members, summary, body, effect, #scope},
#include "../../api/request/routes.def"
#undef API_ROUTE
};
enum { ROUTES = sizeof routes / sizeof routes[0] };

static int setup(void **state) {
    (void)state;
    const struct api_settings settings = {.limits = api_default_limits, .version = "1.2.3", .token = "t"};
    const struct test_request request = {
        .method = "GET", .path = "/openapi.json", .authorization = "Bearer t"};
    test_service_start(&service, &settings, 0);
    struct test_answer answer = test_request(&service, &request);
    assert_int_equal(answer.status, 200);
    assert_string_equal(test_answer_header(&answer, "Content-Type"), "application/json");
    document = json_loadb(answer.body, answer.size, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(document);
    test_answer_free(&answer);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    json_decref(document);
    test_service_stop(&service);
    return 0;
}

static const char *text_at(const json_t *json, const char *name) {
    const char *text = json_string_value(json_object_get(json, name));
    assert_non_null(text);
    return text;
}

/* "/models/{}" and "PUT" -> paths./models/{name}.put */
static json_t *operation_of(const struct route *route) {
    char path[128], method[8] = "";
    const char *hole = strstr(route->path, "{}");
    int before = hole ? (int)(hole - route->path) : (int)strlen(route->path);
    snprintf(path, sizeof path, "%.*s%s%s", before, route->path, hole ? "{name}" : "", hole ? hole + 2 : "");
    for (size_t i = 0; route->method[i]; i++) method[i] = (char)(route->method[i] - 'A' + 'a');
    json_t *operation = json_object_get(json_object_get(json_object_get(document, "paths"), path), method);
    if (!operation) fail_msg("nothing is said of %s %s", route->method, route->path);
    return operation;
}

static json_t *schema_of(const json_t *operation) {
    static const char *const way[] = {"requestBody", "content", "application/json", "schema"};
    json_t *at = (json_t *)operation;
    for (size_t i = 0; i < sizeof way / sizeof way[0]; i++) at = json_object_get(at, way[i]);
    return at;
}

static void every_route_and_no_other(void **state) {
    (void)state;
    size_t told = 0;
    const char *path;
    json_t *methods, *ids = json_object();
    for (const struct route *route = routes; route < routes + ROUTES; route++) {
        const json_t *operation = operation_of(route);
        const char *id = text_at(operation, "operationId");
        assert_string_equal(text_at(operation, "summary"), route->summary);
        assert_null(json_object_get(ids, id));
        json_object_set_new(ids, id, json_true());
    }
    json_object_foreach(json_object_get(document, "paths"), path, methods) told += json_object_size(methods);
    assert_int_equal(told, ROUTES);
    json_decref(ids);
}

static void members_of_bodies(void **state) {
    (void)state;
    for (const struct route *route = routes; route < routes + ROUTES; route++) {
        const json_t *schema = schema_of(operation_of(route)),
                     *properties = json_object_get(schema, "properties");
        char words[256];
        char *rest = NULL;
        size_t n = 0;
        assert_int_equal(schema != NULL, route->body > API_PLAIN_TEXT);
        if (!schema) continue;
        assert_true(json_is_false(json_object_get(schema, "additionalProperties")));
        snprintf(words, sizeof words, "%s", route->members);
        for (char *word = strtok_r(words, " ", &rest); word; word = strtok_r(NULL, " ", &rest), n++)
            if (!json_object_get(properties, word)) fail_msg("%s lacks %s", route->path, word);
        assert_int_equal(json_object_size(properties), n);
    }
    const json_t *step = json_object_get(schema_of(operation_of(&routes[1])), "properties");
    assert_string_equal(text_at(json_object_get(step, "mode"), "type"), "string");
    assert_string_equal(text_at(json_object_get(step, "inputs"), "type"), "object");
    assert_int_equal(json_array_size(json_object_get(json_object_get(step, "model"), "type")), 2);
    const json_t *seed = json_object_get(step, "seed"), *mode = json_object_get(step, "mode");
    assert_string_equal(text_at(seed, "type"), "integer");
    assert_int_equal(json_integer_value(json_object_get(seed, "maximum")), (INT64_C(1) << 53) - 1);
    assert_null(json_object_get(seed, "default"));
    assert_int_equal(json_array_size(json_object_get(mode, "enum")), 2);
    const json_t *apply = json_object_get(step, "apply"),
                 *lr = json_object_get(json_object_get(apply, "properties"), "lr");
    assert_int_equal(json_array_size(json_object_get(apply, "type")), 2);
    assert_true(json_number_value(json_object_get(lr, "maximum")) == 1e30);
}

static bool takes(const json_t *operation, const char *parameter) {
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(operation, "parameters"), i,
                       item) if (strcmp(text_at(item, "name"), parameter) == 0) return true;
    return false;
}

/* Required members, and the names of a query, are those of the row. */
static void what_is_required(void **state) {
    (void)state;
    for (const struct route *route = routes; route < routes + ROUTES; route++) {
        const json_t *operation = operation_of(route),
                     *required = json_object_get(schema_of(operation), "required");
        size_t words = 0, i;
        json_t *item;
        for (const char *at = route->requires; *at; at += strspn(at, " ")) words++, at += strcspn(at, " ");
        assert_int_equal(json_array_size(required), words);
        json_array_foreach((json_t *)required, i, item)
            assert_true(api_among(route->requires, json_string_value(item), json_string_length(item)));
        json_array_foreach(json_object_get(operation, "parameters"), i, item) {
            const char *name = text_at(item, "name");
            if (strcmp(text_at(item, "in"), "query") == 0)
                assert_true(api_among(route->query, name, strlen(name)));
        }
        for (const char *at = route->query; *at && *at != '*'; at += strspn(at, " ")) {
            char name[32];
            snprintf(name, sizeof name, "%.*s", (int)strcspn(at, " "), at);
            assert_true(takes(operation, name));
            at += strlen(name);
        }
    }
}

static void names_keys_and_tokens(void **state) {
    (void)state;
    for (const struct route *route = routes; route < routes + ROUTES; route++) {
        const json_t *operation = operation_of(route);
        assert_int_equal(takes(operation, "name"), strstr(route->path, "{}") != NULL);
        assert_int_equal(takes(operation, "Idempotency-Key"), route->effect != API_READS);
        assert_int_equal(json_object_get(operation, "security") != NULL, strcmp(route->scope, "ANYONE") == 0);
    }
}

static void the_document(void **state) {
    (void)state;
    static const char *const way[] = {
        "components", "responses",  "problem", "content", "application/problem+json",
        "schema",     "properties", "type",    "enum"};
    const json_t *at = document;
    assert_string_equal(text_at(document, "openapi"), "3.1.0");
    assert_string_equal(text_at(json_object_get(document, "info"), "version"), "1.2.3");
    for (size_t i = 0; i < sizeof way / sizeof way[0]; i++) at = json_object_get(at, way[i]);
    assert_int_equal(json_array_size(at), NN_CODE_COUNT - 1);
    assert_string_equal(json_string_value(json_array_get(at, NN_E_SCOPE - 1)),
                        "urn:gradd:problem:insufficient-scope");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_route_and_no_other),
        cmocka_unit_test(members_of_bodies),
        cmocka_unit_test(what_is_required),
        cmocka_unit_test(names_keys_and_tokens),
        cmocka_unit_test(the_document),
    };
    return cmocka_run_group_tests_name("openapi", tests, setup, teardown);
}
