/* problem.c - errors as RFC 9457 problem documents. */
#include <stdio.h>
#include <stdlib.h>

#include "request.h"

static void add_member(struct api_text *text, const char *name) {
    api_text_puts(text, text->size > 1 ? "," : "");
    api_text_quote(text, name);
    api_text_puts(text, ":");
}

static void add_string(struct api_text *text, const char *name, const char *value) {
    add_member(text, name);
    api_text_quote(text, value); /* repairs what is not UTF-8 */
}

/* A shape as a list; a dimension that may be any is null. */
static void add_shape(struct api_text *text, const char *name, const struct nn_shape *shape) {
    char number[24];
    add_member(text, name);
    api_text_puts(text, "[");
    for (int i = 0; i < shape->rank; i++) {
        snprintf(number, sizeof number, "%lld", (long long)shape->dim[i]);
        api_text_puts(text, i ? "," : "");
        api_text_puts(text, shape->dim[i] < 0 ? "null" : number);
    }
    api_text_puts(text, "]");
}

/* The document; malloc'ed, NULL when memory is out. */
static char *problem_text(const struct api_request *request) {
    const struct nn_error *err = &request->err;
    const struct nn_code_info *info = nn_code_info(err->code);
    struct api_text text = {0};
    char slug[96], status[16];
    snprintf(slug, sizeof slug, API_PROBLEM_TYPE "%s", info->slug);
    snprintf(status, sizeof status, "%d", info->status);
    api_text_puts(&text, "{");
    add_string(&text, "type", slug);
    add_string(&text, "title", info->title);
    add_member(&text, "status");
    api_text_puts(&text, status);
    add_string(&text, "detail", err->text);
    if (request->pointer.text[0]) add_string(&text, "pointer", request->pointer.text);
    if (err->has_shapes) {
        add_shape(&text, "expected", &err->expected);
        add_shape(&text, "actual", &err->actual);
    }
    api_text_add(&text, "}\n", 3); /* with the end of a C string */
    if (!text.failed) return text.data;
    api_text_free(&text);
    return NULL;
}

static void add_header(struct api_response *response, const char *name, const char *value) {
    struct api_header *header = &response->headers[response->n_headers++];
    snprintf(header->name, sizeof header->name, "%s", name);
    snprintf(header->value, sizeof header->value, "%s", value);
}

/* RFC 6750, section 3.1. */
static void add_challenge(struct api_response *response, enum api_scope missing) {
    char value[96];
    snprintf(value, sizeof value, "Bearer realm=\"gradd\", error=\"insufficient_scope\", scope=\"%s\"",
             api_scope_name(missing));
    add_header(response, "WWW-Authenticate", value);
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
        bool later = request->err.code == NN_E_IN_FLIGHT && table[i].status == 503;
        if (table[i].status == response->status || later) add_header(response, table[i].name, table[i].value);
    }
    if (request->missing) add_challenge(response, request->missing);
    if (response->status == 405) add_header(response, "Allow", request->allow);
}

struct api_response *api_problem(struct api_request *request) {
    char *text = problem_text(request);
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
