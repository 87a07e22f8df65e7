/* http_answer.c - answers on their way to libmicrohttpd. */
#include "http_exchange.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void free_response(void *response) { api_response_free(response); }

/* Without a copy: the segments are sent from where they lie, and let go when they have been. */
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

/* A problem document of our own, for what the API cannot answer. `detail` needs no escapes. Its length. */
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

static struct MHD_Response *problem(enum nn_code code, const char *detail, int *status, uint64_t *size) {
    const struct nn_code_info *info = nn_code_info(code);
    char text[512];
    int length = write_problem(text, sizeof text, code, detail);
    *status = info->status;
    *size = (uint64_t)length;
    struct MHD_Response *response =
        MHD_create_response_from_buffer((size_t)length, text, MHD_RESPMEM_MUST_COPY);
    if (!response) return NULL;
    MHD_add_response_header(response, "Content-Type", "application/problem+json");
    if (info->status == 503) MHD_add_response_header(response, "Retry-After", "1");
    return response;
}

const char *srv_exchange_header(const struct srv_exchange *x, const char *name) {
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

/* Lets the page that called read the answer, where it may call at all. */
static void add_origin(const struct srv_exchange *x, struct MHD_Response *response) {
    const char *origin = srv_exchange_header(x, "Origin");
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
    enum MHD_Result queued = MHD_queue_response(x->connection, (unsigned)x->status, response);
    MHD_destroy_response(response);
    return queued;
}

enum MHD_Result srv_exchange_refuse(struct srv_exchange *x, enum nn_code code, const char *detail) {
    return srv_exchange_queue_take(x, problem(code, detail, &x->status, &x->bytes_out));
}

enum MHD_Result srv_exchange_answer(struct srv_exchange *x) {
    struct api_response *response = x->response;
    struct MHD_Response *wrapped = NULL;
    x->response = NULL;
    if (response) {
        x->status = response->status;
        x->bytes_out = strcmp(x->method, "HEAD") == 0 ? 0 : response->size;
        wrapped = wrap_take(response);
    }
    if (!wrapped)
        wrapped = problem(NN_E_NOMEM, "There is no memory for this request now.", &x->status, &x->bytes_out);
    return srv_exchange_queue_take(x, wrapped);
}
