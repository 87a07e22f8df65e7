/* problem.c - errors as RFC 9457 problem documents. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_text.h"
#include "request.h"

/* A shape as a list; a dimension that may be any is null. */
static json_t *shape_json(const struct nn_shape *shape) {
    json_t *list = json_array();
    for (int i = 0; i < shape->rank; i++)
        json_array_append_new(list, shape->dim[i] < 0 ? json_null() : json_integer(shape->dim[i]));
    return list;
}

static json_t *problem_json(const struct api_request *request) {
    const struct nn_error *err = &request->err;
    const struct nn_code_info *info = nn_code_info(err->code);
    char type[96];
    snprintf(type, sizeof type, "urn:gradd:problem:%s", info->slug);
    json_t *problem = json_pack("{s:s, s:s, s:i, s:s}", "type", type, "title", info->title, "status",
                                info->status, "detail", err->text);
    if (!problem && err->text[0]) /* not UTF-8: a name that came in as such */
        problem = json_pack("{s:s, s:s, s:i}", "type", type, "title", info->title, "status", info->status);
    if (!problem) return NULL;
    if (request->pointer.text[0]) json_object_set_new(problem, "pointer", json_string(request->pointer.text));
    if (err->has_shapes) {
        json_object_set_new(problem, "expected", shape_json(&err->expected));
        json_object_set_new(problem, "actual", shape_json(&err->actual));
    }
    return problem;
}

/* Headers that a status asks for. */
static void add_headers(struct api_response *response, const struct api_request *request) {
    static const struct {
        int status;
        const char *name, *value;
    } table[] = {{401, "WWW-Authenticate", "Bearer realm=\"gradd\""},
                 {429, "Retry-After", "1"},
                 {503, "Retry-After", "1"}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].status != response->status) continue;
        struct api_header *header = &response->headers[response->n_headers++];
        snprintf(header->name, sizeof header->name, "%s", table[i].name);
        snprintf(header->value, sizeof header->value, "%s", table[i].value);
    }
    if (response->status == 405) {
        struct api_header *header = &response->headers[response->n_headers++];
        snprintf(header->name, sizeof header->name, "Allow");
        snprintf(header->value, sizeof header->value, "%s", request->allow);
    }
}

struct api_response *api_problem(struct api_request *request) {
    json_t *problem = problem_json(request);
    char *text = problem ? api_json_text(problem) : NULL;
    json_decref(problem);
    struct api_response *response = text ? api_response_of_text(request, text) : NULL;
    if (!response) {
        free(text);
        return NULL;
    }
    response->status = nn_code_info(request->err.code)->status;
    snprintf(response->headers[0].value, sizeof response->headers[0].value, "application/problem+json");
    add_headers(response, request);
    return response;
}
