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
    api_text_quote(text, value); /* replaces bytes that are not UTF-8 */
}

/* Adds a shape as a list. A dimension that may have any size is null. */
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

static void add_number(struct api_text *text, const char *name, double number) {
    char digits[32];
    snprintf(digits, sizeof digits, "%.17g", number);
    add_member(text, name);
    api_text_puts(text, digits);
}

/* The document, malloc'ed. NULL: memory is out. */
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
    if (err->code == NN_E_WORK) {
        add_number(&text, "work", request->work);
        add_number(&text, "limit", request->work_limit);
    }
    api_text_add(&text, "}\n", 3); /* with the NUL of a C string */
    if (!text.failed) return text.data;
    api_text_free(&text);
    return NULL;
}

/* Adds WWW-Authenticate for a token that lacks a scope (RFC 6750, section 3.1). */
static void add_challenge(struct api_response *response, enum api_scope missing) {
    char value[96];
    snprintf(value, sizeof value, "Bearer realm=\"gradd\", error=\"insufficient_scope\", scope=\"%s\"",
             api_scope_name(missing));
    api_response_add(response, "WWW-Authenticate", value);
}

/* Adds the headers that belong to a status or an error. */
static void add_headers(struct api_response *response, const struct api_request *request) {
    static const struct {
        int status;
        enum nn_code code;
        const char *name, *value;
    } table[] = {{401, NN_OK, "WWW-Authenticate", "Bearer realm=\"gradd\""},
                 {429, NN_OK, "Retry-After", "1"},
                 {503, NN_OK, "Retry-After", "1"},
                 {0, NN_E_IN_FLIGHT, "Retry-After", "1"},
                 {0, NN_E_CODING, "Accept-Encoding", "identity"}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].status == response->status || table[i].code == request->err.code)
            api_response_add(response, table[i].name, table[i].value);
    if (request->missing) add_challenge(response, request->missing);
    if (response->status == 405) api_response_add(response, "Allow", request->allow);
    api_response_add_caching(response, request);
}

struct api_response *api_problem(struct api_request *request) {
    char *text = problem_text(request);
    struct api_response *response = text ? api_response_of_text(request, text) : NULL;
    if (!response) {
        free(text);
        return NULL;
    }
    response->status = nn_code_info(request->err.code)->status;
    response->problem = nn_code_info(request->err.code)->slug;
    snprintf(response->headers[0].value, sizeof response->headers[0].value, "application/problem+json");
    add_headers(response, request);
    return response;
}
