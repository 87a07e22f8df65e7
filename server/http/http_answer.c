/* http_answer.c - hands answers to libmicrohttpd. */
#include "http_exchange.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct MHD_Response *srv_exchange_no_content(void) {
    return MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
}

static void free_response(void *response) { api_response_free(response); }

/* Wraps a response without a copy: its segments are sent from where they are, and then freed. */
static struct MHD_Response *wrap_take(struct api_response *response) {
    struct MHD_IoVec *pieces = calloc(response->n_segments + 1, sizeof *pieces);
    struct MHD_Response *wrapped = NULL;
    if (pieces) {
        for (size_t i = 0; i < response->n_segments; i++)
            pieces[i] = (struct MHD_IoVec){response->segments[i].data, response->segments[i].size};
        wrapped =
            MHD_create_response_from_iovec(pieces, (unsigned)response->n_segments, free_response, response);
        free(pieces);
    }
    if (!wrapped) {
        api_response_free(response);
        return NULL;
    }
    for (int i = 0; i < response->n_headers; i++)
        MHD_add_response_header(wrapped, response->headers[i].name, response->headers[i].value);
    return wrapped;
}

/* Writes a problem document of the server's own. `detail` needs no escapes. Returns its length. */
static int write_problem(char *text, size_t room, enum nn_code code, const char *detail) {
    const struct nn_code_info *info = nn_code_info(code);
    return snprintf(text, room,
                    "{\"type\":\"" API_PROBLEM_TYPE
                    "%s\",\"title\":\"%s\",\"status\":%d,\"detail\":\"%s\"}\n",
                    info->slug, info->title, info->status, detail);
}

void srv_http_last_word(char *text, size_t room, enum nn_code code, const char *detail) {
    char document[400];
    int length = write_problem(document, sizeof document, code, detail);
    snprintf(text, room,
             "HTTP/1.1 %d \r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n"
             "Connection: close\r\n\r\n%s",
             nn_code_info(code)->status, length, document);
}

static struct MHD_Response *problem(struct srv_exchange *x, enum nn_code code, const char *detail) {
    const struct nn_code_info *info = nn_code_info(code);
    char text[512];
    int length = write_problem(text, sizeof text, code, detail);
    x->status = info->status;
    x->problem = info->slug;
    x->bytes_out = (uint64_t)length;
    struct MHD_Response *response =
        MHD_create_response_from_buffer((size_t)length, text, MHD_RESPMEM_MUST_COPY);
    if (!response) return NULL;
    MHD_add_response_header(response, "Content-Type", "application/problem+json");
    if (info->status == 503) MHD_add_response_header(response, "Retry-After", "1");
    return response;
}

/* Lets the page that called read the answer, if pages of its site may call. */
static void add_origin(const struct srv_exchange *x, struct MHD_Response *response) {
    const char *origin = srv_head_value(&x->head, SRV_ORIGIN);
    if (!x->http->options.guard.origins) return;
    MHD_add_response_header(response, "Vary", "Origin");
    if (!origin || !srv_guard_allows(&x->http->options.guard, origin)) return;
    MHD_add_response_header(response, "Access-Control-Allow-Origin", origin);
    MHD_add_response_header(response, "Access-Control-Expose-Headers",
                            "ETag, Location, Retry-After, WWW-Authenticate, X-Request-Id");
}

enum MHD_Result srv_exchange_queue_take(struct srv_exchange *x, struct MHD_Response *response) {
    if (!response) return MHD_NO;
    if (!srv_exchange_allow(x, srv_exchange_now_ms(), x->bytes_out, true) ||
        (x->stage < WAITING && !srv_exchange_count_in(x->http, -1, 1, 0))) {
        MHD_destroy_response(response);
        return MHD_NO;
    }
    char id[24];
    snprintf(id, sizeof id, "%016" PRIx64, x->id);
    MHD_add_response_header(response, "X-Request-Id", id);
    add_origin(x, response);
    if (atomic_load(&x->http->draining)) MHD_add_response_header(response, "Connection", "close");
    x->stage = DONE;
    enum MHD_Result queued = srv_library_queue(x->connection, (unsigned)x->status, response);
    MHD_destroy_response(response);
    return queued;
}

enum MHD_Result srv_exchange_refuse(struct srv_exchange *x, enum nn_code code, const char *detail) {
    return srv_exchange_queue_take(x, problem(x, code, detail));
}

enum MHD_Result srv_exchange_answer(struct srv_exchange *x) {
    struct api_response *response = x->response;
    struct MHD_Response *wrapped = NULL;
    x->response = NULL;
    if (response) {
        x->status = response->status;
        x->problem = response->problem;
        x->bytes_out = strcmp(x->method, "HEAD") == 0 ? 0 : response->size;
        wrapped = wrap_take(response);
    }
    if (!wrapped) wrapped = problem(x, NN_E_NOMEM, "There is no memory for this request now.");
    return srv_exchange_queue_take(x, wrapped);
}
