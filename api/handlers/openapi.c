/* openapi.c - GET /openapi.json: the tables of routes, members and errors as an OpenAPI 3.1 document. No table
 * describes answers. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../change/condition.h"
#include "../request/request.h"
#include "../request/service.h"
#include "../wire/json_build.h"
#include "../wire/json_text.h"

static const char *const handlers[API_ROUTES] = {
#define API_ROUTE(method, path, handler, ...) #handler,
#include "../request/routes.def"
#undef API_ROUTE
};

/* --- bodies ---------------------------------------------------------------------------------------- */

static json_t *number(double value, bool whole) {
    return whole ? json_integer((json_int_t)value) : json_real(value);
}

/* The words as a JSON list. */
static json_t *list_of(const char *words) {
    json_t *list = json_array();
    for (; *words; words += strcspn(words, " "), words += *words == ' ')
        list = api_json_append(list, json_stringn(words, strcspn(words, " ")));
    return list;
}

/* A schema with the bounds that are finite. */
static json_t *number_schema(const struct api_member *member, const char *type) {
    const bool whole = member->kind == API_INTEGER;
    json_t *schema = json_pack("{s:s}", "type", type);
    if (isfinite(member->least)) schema = api_json_with(schema, "minimum", number(member->least, whole));
    if (isfinite(member->most)) schema = api_json_with(schema, "maximum", number(member->most, whole));
    if (member->absent >= member->least && member->absent <= member->most)
        schema = api_json_with(schema, "default", number(member->absent, whole));
    return schema;
}

/* The schema of a switch's number. */
static json_t *option_schema(const struct api_member *member) { return number_schema(member, "number"); }

static json_t *typed_schema(const struct api_member *member) {
    switch (member->kind) {
    case API_TEXT:
    case API_TEXTS:
    case API_NAME:
        return json_pack("{s:s}", "type", "string");
    case API_CHOICE:
        return json_pack("{s:s, s:o}", "type", "string", "enum", list_of(member->words));
    case API_CHOICES:
        return json_pack("{s:s, s:{s:s, s:o}}", "type", "array", "items", "type", "string", "enum",
                         list_of(member->words));
    case API_FLAG:
        return json_pack("{s:s, s:b}", "type", "boolean", "default", 0);
    case API_INTEGER:
        return number_schema(member, "integer");
    case API_REAL:
        return number_schema(member, "number");
    case API_SWITCH:
        return json_pack("{s:[s, s], s:b, s:{s:o}, s:[s], s:b}", "type", "boolean", "object", "default", 0,
                         "properties", member->words, option_schema(member), "required", member->words,
                         "additionalProperties", 0);
    case API_MODEL:
        return json_pack("{s:[s, s]}", "type", "string", "object");
    case API_TENSORS:
        return json_pack("{s:s}", "type", "object");
    case API_VALUE:
        break;
    }
    return json_object();
}

/* spec.c defines the members of a specification: only those that the route requires have a schema here. */
static json_t *schema_of_member(const struct api_route *route, const char *name, size_t size) {
    const struct api_member *member = api_member_find(name, size);
    if (!member) return json_object();
    if (route->body == API_SPECIFICATION && !api_among(route->requires, name, size)) return json_object();
    return api_json_with(typed_schema(member), "description", json_string(member->prose));
}

static json_t *schema_of_members(const struct api_route *route) {
    json_t *properties = json_object();
    for (const char *names = route->members; *names; names += *names == ' ') {
        char name[32];
        size_t size = strcspn(names, " ");
        snprintf(name, sizeof name, "%.*s", (int)size, names);
        properties = api_json_with(properties, name, schema_of_member(route, name, size));
        names += size;
    }
    json_t *schema =
        json_pack("{s:s, s:o, s:b}", "type", "object", "properties", properties, "additionalProperties", 0);
    return route->requires[0] ? api_json_with(schema, "required", list_of(route->requires)) : schema;
}

static json_t *body_of(const struct api_route *route) {
    return json_pack("{s:b, s:{s:{s:o}, s:{}}}", "required", 1, "content", "application/json", "schema",
                     schema_of_members(route), "application/safetensors");
}

/* --- operations ------------------------------------------------------------------------------------ */

static json_t *parameters_of(const struct api_route *route) {
    json_t *list = json_array();
    if (strchr(route->path, '{'))
        list = api_json_append(list, json_pack("{s:s, s:s, s:b, s:{s:s}}", "name", "name", "in", "path",
                                               "required", 1, "schema", "type", "string"));
    for (int row = 0; row < API_MEMBERS; row++) {
        const struct api_member *member = &api_members[row];
        if (api_among(route->query, member->name, strlen(member->name)))
            list = api_json_append(list,
                                   json_pack("{s:s, s:s, s:s, s:o}", "name", member->name, "in", "query",
                                             "description", member->prose, "schema", typed_schema(member)));
    }
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
    return json_pack("{s:s, s:[s, s, s, s], s:{s:{s:o}, s:{s:s}, s:{s:s}, s:{s:s}, s:{s:s}, s:{s:s}, "
                     "s:{s:s}, s:{s:s}, s:{s:s}}}",
                     "type", "object", "required", "type", "title", "status", "detail", "properties", "type",
                     "enum", types, "title", "type", "string", "status", "type", "integer", "detail", "type",
                     "string", "pointer", "type", "string", "expected", "type", "array", "actual", "type",
                     "array", "work", "type", "number", "limit", "type", "number");
}

static json_t *components(void) {
    return json_pack("{s:{s:{s:s, s:s}}, s:{s:{s:s, s:{s:{s:o}}}}}", "securitySchemes", "token", "type",
                     "http", "scheme", "bearer", "responses", "problem", "description",
                     "A problem document (RFC 9457)", "content", "application/problem+json", "schema",
                     problem_schema());
}

int api_get_openapi(struct api_request *request) {
    const char *version = request->api->settings.version;
    json_t *document = json_pack("{s:s, s:{s:s, s:s}, s:[{s:[]}], s:o, s:o}", "openapi", "3.1.0", "info",
                                 "title", "gradd", "version", version ? version : "", "security", "token",
                                 "paths", paths(), "components", components());
    request->answer.page = document ? api_json_text(document) : NULL;
    request->answer.page_type = "application/json";
    json_decref(document);
    if (!request->answer.page) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    return api_check_conditions(request, NULL, 0);
}
