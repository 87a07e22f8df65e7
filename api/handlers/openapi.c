/* openapi.c - GET /openapi.json: the tables of routes, members and errors as an OpenAPI 3.1 document. What answers
 * hold, no table says. */
#include <stdio.h>
#include <string.h>

#include "../wire/json_build.h"
#include "../wire/json_text.h"
#include "../request/request.h"
#include "../request/service.h"

static const char *const handlers[API_ROUTES] = {
#define API_ROUTE(method, path, handler, ...) #handler,
#include "../request/routes.def"
#undef API_ROUTE
};

/* --- bodies ---------------------------------------------------------------------------------------- */

/* What JSON has in the place of a member's type. */
#define API_BARE_STRING    "string", NULL
#define API_NAME_OR_OBJECT "string", "object"
#define API_TENSORS        "object", NULL

/* A member that no row names may be anything. */
static json_t *schema_of_member(const char *name) {
    static const struct {
        const char *name, *type, *other;
    } rows[] = {
#define API_MEMBER(name, type) {name, type},
#include "../wire/members.def"
#undef API_MEMBER
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strcmp(rows[i].name, name) == 0)
            return rows[i].other ? json_pack("{s:[s, s]}", "type", rows[i].type, rows[i].other)
                                 : json_pack("{s:s}", "type", rows[i].type);
    return json_object();
}

static json_t *schema_of_members(const char *names) {
    json_t *properties = json_object();
    while (*names) {
        char name[32];
        int size = (int)strcspn(names, " ");
        snprintf(name, sizeof name, "%.*s", size, names);
        properties = api_json_with(properties, name, schema_of_member(name));
        names += size;
        names += *names == ' ';
    }
    return json_pack("{s:s, s:o, s:b}", "type", "object", "properties", properties, "additionalProperties",
                     0);
}

static json_t *body_of(const struct api_route *route) {
    return json_pack("{s:b, s:{s:{s:o}, s:{}}}", "required", 1, "content", "application/json", "schema",
                     schema_of_members(route->members), "application/safetensors");
}

/* --- operations ------------------------------------------------------------------------------------ */

static json_t *parameters_of(const struct api_route *route) {
    json_t *list = json_array();
    if (strchr(route->path, '{'))
        list = api_json_append(list, json_pack("{s:s, s:s, s:b, s:{s:s}}", "name", "name", "in", "path",
                                               "required", 1, "schema", "type", "string"));
    if (route->effect != API_READS)
        list = api_json_append(list, json_pack("{s:s, s:s, s:{s:s}}", "name", "Idempotency-Key", "in",
                                               "header", "schema", "type", "string"));
    return list;
}

static json_t *operation_of(const struct api_route *route, const char *handler) {
    json_t *operation =
        json_pack("{s:s, s:s, s:o, s:{s:{s:s}, s:{s:s}}}", "operationId", handler + strlen("api_"), "summary",
                  route->summary, "parameters", parameters_of(route), "responses", "2XX", "description",
                  "The answer", "default", "$ref", "#/components/responses/problem");
    if (API_HAS_BODY(route->body)) operation = api_json_with(operation, "requestBody", body_of(route));
    if (route->scope == API_SCOPE_ANYONE) operation = api_json_with(operation, "security", json_array());
    return operation;
}

/* "PUT" -> "put" */
static void lower(const char *method, char *text, size_t room) {
    snprintf(text, room, "%s", method);
    for (; *text; text++) *text |= 0x20;
}

/* "/models/{}" -> "/models/{name}" */
static void name_hole(const char *path, char *text, size_t room) {
    const char *hole = strstr(path, "{}");
    int before = hole ? (int)(hole - path) : (int)strlen(path);
    snprintf(text, room, "%.*s%s%s", before, path, hole ? "{name}" : "", hole ? hole + 2 : "");
}

static json_t *paths(void) {
    json_t *all = json_object();
    for (int i = 0; i < API_ROUTES; i++) {
        char path[64], method[8];
        name_hole(api_routes[i].path, path, sizeof path);
        lower(api_routes[i].method, method, sizeof method);
        json_t *operations = json_incref(json_object_get(all, path));
        if (!operations) operations = json_object();
        operations = api_json_with(operations, method, operation_of(&api_routes[i], handlers[i]));
        all = api_json_with(all, path, operations);
    }
    return all;
}

/* --- the document ---------------------------------------------------------------------------------- */

static json_t *problem_schema(void) {
    json_t *types = json_array();
    for (enum nn_code code = NN_OK + 1; code < NN_CODE_COUNT; code++)
        types = api_json_append(types, json_sprintf(API_PROBLEM_TYPE "%s", nn_code_info(code)->slug));
    return json_pack(
        "{s:s, s:[s, s, s, s], s:{s:{s:o}, s:{s:s}, s:{s:s}, s:{s:s}, s:{s:s}, s:{s:s}, s:{s:s}}}", "type",
        "object", "required", "type", "title", "status", "detail", "properties", "type", "enum", types,
        "title", "type", "string", "status", "type", "integer", "detail", "type", "string", "pointer", "type",
        "string", "expected", "type", "array", "actual", "type", "array");
}

static json_t *components(void) {
    return json_pack("{s:{s:{s:s, s:s}}, s:{s:{s:s, s:{s:{s:o}}}}}", "securitySchemes", "token", "type",
                     "http", "scheme", "bearer", "responses", "problem", "description",
                     "A problem document (RFC 9457)", "content", "application/problem+json", "schema",
                     problem_schema());
}

int api_get_openapi(struct api_request *request) {
    const char *version = request->api->settings.version;
    if (api_query_check(request, "")) return (int)request->err.code;
    json_t *document = json_pack("{s:s, s:{s:s, s:s}, s:[{s:[]}], s:o, s:o}", "openapi", "3.1.0", "info",
                                 "title", "gradd", "version", version ? version : "", "security", "token",
                                 "paths", paths(), "components", components());
    request->answer.page = document ? api_json_text(document) : NULL;
    request->answer.page_type = "application/json";
    json_decref(document);
    return request->answer.page ? NN_OK : nn_fail(&request->err, NN_E_NOMEM, "memory is out");
}
