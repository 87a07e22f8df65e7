/* Each row of members.def, at each route that takes it: a value of the wrong kind or beyond its range is refused at its
 * name, in both encodings, before anything else is looked at; and a member that a route requires is missed by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../api/wire/document.h"
#include "../../api/wire/members.h"
#include "../support/file.h"
#include "../support/service.h"

static struct test_service service; /* without a model: no handler finds one */

static const struct route {
    const char *method, *path, *query, *requires, *members;
    enum api_body body;
} routes[] = {
#define API_ROUTE(method, path, handler, body, effect, scope, recorded, cost, query, requires, members,      \
                  summary)                                                                                   \
    {method, path, query, requires, members, body},
#include "../../api/request/routes.def"
#undef API_ROUTE
};
enum { ROUTES = sizeof routes / sizeof routes[0], MOST = 6 };

/* Of each kind: a value that will do, and values that will not. */
static const struct {
    const char *right, *wrong[MOST];
} samples[] = {
    [API_TEXT] = {"\"a\"", {"5", "null"}},
    [API_TEXTS] = {"\"a\"", {"5", "null"}},
    [API_NAME] = {"\"a\"", {"5", "null", "\"\"", "\"-\""}},
    [API_CHOICE] = {"\"train\"", {"5", "\"nothing\"", "\"\"", "null"}},
    [API_CHOICES] = {"[]", {"5", "{}", "[5]", "[\"nothing\"]", "[\"input\"]"}},
    [API_FLAG] = {"true", {"1", "\"true\"", "null"}},
    [API_INTEGER] = {"1", {"1.5", "\"1\"", "true", "-1", "9007199254740992"}},
    [API_REAL] = {"0.5", {"\"1\"", "true", "null", "-0.5", "1e31"}},
    [API_SWITCH] = {"true", {"5", "null", "{}", "[]", "\"true\""}},
    [API_MODEL] = {"\"m\"", {"5", "null", "[]", "true"}},
    [API_VALUE] = {"1", {NULL}},
    [API_TENSORS] = {"{\"t\": [1]}", {"5", "null", "[]", "\"m\""}},
};

static int setup(void **state) {
    (void)state;
    test_service_start(&service, NULL, 0);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_service_stop(&service);
    return 0;
}

static struct test_request request_of(const struct route *route, char path[128], const char *type,
                                      const void *body, size_t size) {
    const char *hole = strstr(route->path, "{}");
    int before = hole ? (int)(hole - route->path) : (int)strlen(route->path);
    snprintf(path, 128, "%.*s%s%s", before, route->path, hole ? "m" : "", hole ? hole + 2 : "");
    return (struct test_request){.method = route->method,
                                 .path = path,
                                 .content_type = type,
                                 .accept = "application/json",
                                 .body = body,
                                 .size = size};
}

/* The answer is a problem document about this member. */
static void refused(const struct route *route, const char *type, const void *body, size_t size,
                    const char *name, const char *what) {
    char path[128], pointer[64];
    const struct test_request request = request_of(route, path, type, body, size);
    struct test_answer answer = test_request(&service, &request);
    json_t *json = json_loadb(answer.body, answer.size, 0, NULL);
    const char *at = json_string_value(json_object_get(json, "pointer"));
    snprintf(pointer, sizeof pointer, "/%s", name);
    if (answer.status != 422 || !at || strcmp(at, pointer) != 0)
        fail_msg("%s %s with %s %s: %d %s", route->method, path, name, what, answer.status, answer.body);
    json_decref(json);
    test_answer_free(&answer);
}

static void refused_in_json(const struct route *route, const struct api_member *member, const char *value) {
    char body[128];
    int size = snprintf(body, sizeof body, "{\"%s\": %s}", member->name, value);
    refused(route, "application/json", body, (size_t)size, member->name, value);
}

/* In the metadata a string stands bare, and every text is one. */
static void refused_in_safetensors(const struct route *route, const struct api_member *member,
                                   const char *value) {
    struct test_writer writer = {0};
    size_t size;
    const bool quoted = value[0] == '"', string = member->kind <= API_CHOICE;
    if (member->kind == API_TENSORS || member->kind == API_MODEL || (string && !quoted)) return;
    char text[64];
    snprintf(text, sizeof text, "%s", value);
    if (string) snprintf(text, sizeof text, "%.*s", (int)strlen(value) - 2, value + 1);
    test_write_text(&writer, member->name, text);
    void *body = test_write_end(&writer, &size);
    refused(route, "application/safetensors", body, size, member->name, text);
    free(body);
}

static bool takes(const struct route *route, const char *name) {
    return route->body > API_SPECIFICATION && api_among(route->members, name, strlen(name));
}

static void a_wrong_value_is_told_at_its_name(void **state) {
    (void)state;
    int tried[API_MEMBERS] = {0};
    for (const struct route *route = routes; route < routes + ROUTES; route++)
        for (int row = 0; row < API_MEMBERS; row++) {
            const struct api_member *member = &api_members[row];
            if (!takes(route, member->name)) continue;
            for (int i = 0; i < MOST && samples[member->kind].wrong[i]; i++, tried[row]++) {
                refused_in_json(route, member, samples[member->kind].wrong[i]);
                if (route->body != API_STATE_DICT) /* whose metadata are not read */
                    refused_in_safetensors(route, member, samples[member->kind].wrong[i]);
            }
        }
    for (int row = 0; row < API_MEMBERS; row++) {
        bool body = false;
        for (const struct route *route = routes; route < routes + ROUTES; route++)
            body |= takes(route, api_members[row].name);
        assert_int_equal(tried[row] > 0, body && api_members[row].kind != API_VALUE);
    }
}

/* One beyond each bound that a double can tell apart from it. */
static void a_number_beyond_its_range_is_told(void **state) {
    (void)state;
    for (const struct route *route = routes; route < routes + ROUTES; route++)
        for (int row = 0; row < API_MEMBERS; row++) {
            const struct api_member *member = &api_members[row];
            const double beyond[] = {member->least - 1,
                                     member->most < 1e20 ? member->most + 1 : member->most * 2};
            const bool number = member->kind == API_INTEGER || member->kind == API_REAL;
            char value[64];
            if (!takes(route, member->name) || !(number || member->kind == API_SWITCH)) continue;
            for (int i = 0; i < 2; i++) {
                if (beyond[i] - beyond[i] != 0) continue; /* there is no such bound */
                snprintf(value, sizeof value, member->kind == API_INTEGER ? "%.0f" : "%.17g", beyond[i]);
                if (!number) snprintf(value, sizeof value, "{\"%s\": %.17g}", member->words, beyond[i]);
                refused_in_json(route, member, value);
                if (route->body != API_STATE_DICT) refused_in_safetensors(route, member, value);
            }
        }
}

/* A query holds texts; flags and choices do not take every text. The error names the member. It has no pointer, for
 * those point into the document. */
static void a_wrong_value_in_a_query_is_told(void **state) {
    (void)state;
    int tried = 0;
    for (const struct route *route = routes; route < routes + ROUTES; route++)
        for (int row = 0; row < API_MEMBERS; row++) {
            const struct api_member *member = &api_members[row];
            char path[128], query[160], told[40];
            if (!api_among(route->query, member->name, strlen(member->name))) continue;
            if (member->kind != API_FLAG && member->kind != API_CHOICE) continue;
            const bool body = route->body > API_PLAIN_TEXT;
            struct test_request request =
                request_of(route, path, "application/json", body ? "{}" : NULL, body ? 2 : 0);
            snprintf(query, sizeof query, "%s?%s=nothing", path, member->name);
            snprintf(told, sizeof told, "?%s= is", member->name);
            request.path = query;
            struct test_answer answer = test_request(&service, &request);
            if (answer.status != 422 || !strstr(answer.body, told) || strstr(answer.body, "\"pointer\""))
                fail_msg("%s %s: %d %s", route->method, query, answer.status, answer.body);
            test_answer_free(&answer);
            tried++;
        }
    assert_true(tried >= 5);
}

/* `body` has all members that the route requires but this one. */
static void write_others(const struct route *route, const char *missing, char *body, size_t room) {
    size_t used = (size_t)snprintf(body, room, "{");
    for (int row = 0; row < API_MEMBERS; row++) {
        const struct api_member *member = &api_members[row];
        if (!api_among(route->requires, member->name, strlen(member->name)) ||
            strcmp(member->name, missing) == 0)
            continue;
        used += (size_t)snprintf(body + used, room - used, "%s\"%s\": %s", used > 1 ? ", " : "", member->name,
                                 samples[member->kind].right);
    }
    snprintf(body + used, room - used, "}");
}

static void a_missing_member_is_told_by_name(void **state) {
    (void)state;
    int missed = 0;
    for (const struct route *route = routes; route < routes + ROUTES; route++)
        for (int row = 0; row < API_MEMBERS; row++) {
            const char *name = api_members[row].name;
            char body[256];
            if (!api_among(route->requires, name, strlen(name))) continue;
            assert_true(api_among(route->members, name, strlen(name)));
            write_others(route, name, body, sizeof body);
            refused(route, "application/json", body, strlen(body), name, "missing");
            missed++;
        }
    assert_true(missed >= 11);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_value_is_told_at_its_name),
        cmocka_unit_test(a_number_beyond_its_range_is_told),
        cmocka_unit_test(a_wrong_value_in_a_query_is_told),
        cmocka_unit_test(a_missing_member_is_told_by_name),
    };
    return cmocka_run_group_tests_name("members", tests, setup, teardown);
}
