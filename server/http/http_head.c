/* http_head.c - the head of a request: is it sound, may it come in, what does the API say to it? */
#include "http_exchange.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "head.h"
#include "peer.h"

/* What a browser asks before it lets a page of another site call. It bears no token. */
static bool is_preflight(const struct srv_exchange *x) {
    return strcmp(x->method, "OPTIONS") == 0 && srv_exchange_header(x, "Origin") &&
           srv_exchange_header(x, "Access-Control-Request-Method");
}

static enum MHD_Result answer_preflight(struct srv_exchange *x) {
    struct MHD_Response *response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (!response) return MHD_NO;
    MHD_add_response_header(response, "Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE");
    MHD_add_response_header(response, "Access-Control-Allow-Headers",
                            "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match");
    MHD_add_response_header(response, "Access-Control-Max-Age", "600");
    x->status = 204;
    return srv_exchange_queue_take(x, response);
}

const struct sockaddr *srv_exchange_address(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    return info ? info->client_addr : NULL;
}

/* How many blanks stand between a header's colon and its value; SIZE_MAX where something else does. */
static size_t blanks_between(const char *name, const char *value) {
    uintptr_t colon = (uintptr_t)name + strlen(name), begin = (uintptr_t)value;
    if (begin <= colon || begin - colon > CONNECTION_MEMORY) return SIZE_MAX;
    size_t n = begin - colon - 1;
    return strspn(value - n, " \t") >= n ? n : SIZE_MAX;
}

struct reading {
    struct srv_head head;
    bool folded;
};

static enum MHD_Result add_header(void *self, enum MHD_ValueKind kind, const char *name, const char *value) {
    (void)kind;
    struct reading *reading = self;
    size_t blanks = blanks_between(name, value);
    if (blanks == SIZE_MAX) reading->folded = true;
    srv_head_add(&reading->head, name, reading->folded ? 0 : blanks, value ? value : "");
    return MHD_YES;
}

/* libmicrohttpd takes LF alone for the end of a line, drops what stands behind a zero byte, and adds a line that goes
 * on from the one before to that one's name, so that "Content: 5", " -Length" becomes a length. It tells of none of
 * these, but then the lines are not the bytes that came; and a name that was added to stands elsewhere in memory. */
static bool is_read_as_it_came(const struct srv_exchange *x, const struct reading *reading) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    return !reading->folded && info && info->header_size == reading->head.size;
}

static void admit(struct srv_exchange *x) {
    char host[INET6_ADDRSTRLEN], port[8];
    srv_peer_address(srv_exchange_address(x->connection), host, port);
    struct api_head head = {
        /* Of an answer to HEAD, libmicrohttpd sends the head alone. */
        .method = strcmp(x->method, "HEAD") == 0 ? "GET" : x->method,
        .path = x->target.path,
        .query = x->target.query,
        .authorization = srv_exchange_header(x, "Authorization"),
        .content_type = srv_exchange_header(x, "Content-Type"),
        .accept = srv_exchange_header(x, "Accept"),
        .client = host,
        .if_match = srv_exchange_header(x, "If-Match"),
        .if_none_match = srv_exchange_header(x, "If-None-Match"),
        .idempotency_key = srv_exchange_header(x, "Idempotency-Key"),
        .content_length = x->length,
    };
    struct api_admission admission = api_admit(x->http->api, &head);
    x->request = admission.request;
    x->response = admission.refusal;
}

/* A client without a certificate gets as far as here: libmicrohttpd asks for one, and does not insist. */
static bool is_from_known_client(const struct srv_exchange *x) {
    if (!x->http->options.tls.client_ca) return true;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    return info && srv_tls_peer_is_good(info->tls_session);
}

enum MHD_Result srv_exchange_read_head(struct srv_exchange *x, const char *method, const char *version) {
    struct reading reading = {.head.size = strlen(method) + strlen(x->raw_target) + strlen(version) +
                                           strlen("  \r\n\r\n")};
    snprintf(x->method, sizeof x->method, "%s", method);
    MHD_get_connection_values(x->connection, MHD_HEADER_KIND, add_header, &reading);
    struct srv_head head = reading.head;
    if (head.traces == 1) srv_trace_parse(head.traceparent, &x->trace);
    if (!is_from_known_client(x))
        return srv_exchange_refuse(x, NN_E_FORBIDDEN,
                                   "This service takes clients with a certificate that it trusts.");
    if (head.size > x->http->options.max_head)
        return srv_exchange_refuse(x, NN_E_HEAD,
                                   "The head of the request is longer than this service takes.");
    const char *fault = srv_head_fault(&head, x->method, version);
    if (fault) return srv_exchange_refuse(x, NN_E_MALFORMED, fault);
    if (!is_read_as_it_came(x, &reading))
        return srv_exchange_refuse(x, NN_E_MALFORMED,
                                   "The lines of a head end in CRLF, and none goes on in the next.");
    fault = srv_guard_fault(&x->http->options.guard, srv_exchange_header(x, "Host"),
                            srv_exchange_header(x, "Origin"));
    if (fault) return srv_exchange_refuse(x, NN_E_FORBIDDEN, fault);
    if (is_preflight(x)) return answer_preflight(x);
    if (!srv_target_parse(x->raw_target, &x->target))
        return srv_exchange_refuse(x, NN_E_MALFORMED, "The target of the request is not a path.");

    /* libmicrohttpd has seen that it is a number; one too large saturates. */
    x->length = head.codings ? -1 : head.length ? strtoll(head.length, NULL, 10) : 0;
    x->continues = head.continues;
    x->stage = BODY;
    admit(x);
    return MHD_YES;
}
