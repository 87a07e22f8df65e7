/* http_head.c - reads the head of a request: checks it, and has the API admit the request. */
#include "http_exchange.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "peer.h"

/* more than the API has parameters */
#define MOST_PARAMETERS 1000

/* True for the request by which a browser asks whether a page of another site may call. It has no token. */
static bool is_preflight(const struct srv_exchange *x) {
    return strcmp(x->method, "OPTIONS") == 0 && srv_head_value(&x->head, SRV_ORIGIN) &&
           srv_head_value(&x->head, SRV_METHOD_ASKED);
}

static enum MHD_Result answer_preflight(struct srv_exchange *x) {
    struct MHD_Response *response = srv_exchange_no_content();
    if (!response) return MHD_NO;
    MHD_add_response_header(response, "Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE");
    MHD_add_response_header(response, "Access-Control-Allow-Headers", srv_head_of_pages());
    MHD_add_response_header(response, "Access-Control-Max-Age", "600");
    x->status = 204;
    return srv_exchange_queue_take(x, response);
}

/* Answers "OPTIONS *", a ping, with the methods that any path takes (RFC 9110, section 9.3.7). */
static enum MHD_Result answer_options_of_all(struct srv_exchange *x) {
    struct MHD_Response *response = srv_exchange_no_content();
    if (!response) return MHD_NO;
    MHD_add_response_header(response, "Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    x->status = 204;
    return srv_exchange_queue_take(x, response);
}

/* NN_E_MALFORMED: it is no number. NN_E_TOO_LARGE: it does not fit 64 bits. */
static enum nn_code read_length(const char *text, uint64_t *length) {
    *length = 0;
    if (!*text || text[strspn(text, "0123456789")]) return NN_E_MALFORMED;
    for (; *text; text++)
        if (__builtin_mul_overflow(*length, 10, length) ||
            __builtin_add_overflow(*length, (uint64_t)(*text - '0'), length))
            return NN_E_TOO_LARGE;
    return NN_OK;
}

/* The number of blanks between a header's colon and its value; SIZE_MAX: there are other characters. */
static size_t blanks_between(const char *name, const char *value) {
    uintptr_t colon = (uintptr_t)name + strlen(name), begin = (uintptr_t)value;
    if (begin <= colon || begin - colon > CONNECTION_MEMORY) return SIZE_MAX;
    size_t n = begin - colon - 1;
    return strspn(value - n, " \t") >= n ? n : SIZE_MAX;
}

/* True if libmicrohttpd itself reads the header. It would answer a malformed length a second time. */
static bool is_for_the_library(const char *name, const char *value) {
    static const char *const names[] = {"Connection", "Content-Length", "Expect", "Transfer-Encoding"};
    uint64_t length;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcasecmp(name, names[i]) == 0) return i != 1 || read_length(value, &length) == NN_OK;
    return false;
}

bool srv_exchange_add_header(struct srv_exchange *x, const char *name, const char *value, size_t behind) {
    size_t blanks = blanks_between(name, value);
    if (blanks == SIZE_MAX) x->folded = true;
    srv_head_add(&x->head, name, behind + (x->folded ? 0 : blanks), value);
    return is_for_the_library(name, value);
}

/* True if the lines of the head are the bytes that came. libmicrohttpd takes LF alone for a line end, drops everything
 * behind a NUL, and appends a continuation line to the name of the header before it: "Content: 5" and " -Length" become
 * a length. It reports none of these, but the text is then not contiguous any more, and an extended name stands
 * elsewhere in memory. */
static bool is_read_as_it_came(const struct srv_exchange *x) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    return !x->folded && info && info->header_size == x->head.size;
}

static bool has_too_many_parameters(const char *query) {
    int n = 1;
    for (; query && (query = strchr(query, '&')); query++) n++;
    return n > MOST_PARAMETERS;
}

static void admit(struct srv_exchange *x) {
    const struct srv_head *headers = &x->head;
    char host[INET6_ADDRSTRLEN], port[8];
    srv_peer_address(srv_exchange_address(x->connection), host, port);
    struct api_head head = {
        /* libmicrohttpd sends only the head of an answer to HEAD. */
        .method = strcmp(x->method, "HEAD") == 0 ? "GET" : x->method,
        .path = x->target.path,
        .query = x->target.query,
        .authorization = srv_head_value(headers, SRV_AUTHORIZATION),
        .content_type = srv_head_value(headers, SRV_CONTENT_TYPE),
        .content_encoding = srv_head_value(headers, SRV_CONTENT_ENCODING),
        .accept = srv_head_value(headers, SRV_ACCEPT),
        .client = host,
        .if_match = srv_head_value(headers, SRV_IF_MATCH),
        .if_none_match = srv_head_value(headers, SRV_IF_NONE_MATCH),
        .idempotency_key = srv_head_value(headers, SRV_IDEMPOTENCY_KEY),
        .content_length = x->length,
    };
    struct api_admission admission = api_admit(x->http->api, &head);
    x->request = admission.request;
    x->response = admission.refusal;
    memcpy(x->token, admission.token, sizeof x->token);
}

/* libmicrohttpd asks for a client's certificate, but lets clients without one come this far. */
static bool is_from_known_client(const struct srv_exchange *x) {
    if (!x->http->options.tls.client_ca) return true;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    return info && srv_tls_peer_is_good(info->tls_session);
}

/* Why the head must be refused, as a sentence, with the error's code. NULL: it need not. */
static const char *find_fault(struct srv_exchange *x, const char *version, enum nn_code *code) {
    const struct srv_http_options *options = &x->http->options;
    const char *fault, *length = srv_head_value(&x->head, SRV_CONTENT_LENGTH);
    *code = NN_E_FORBIDDEN;
    if (!is_from_known_client(x)) return "This service takes clients with a certificate that it trusts.";
    *code = NN_E_HEAD;
    if (x->head.size > options->max_head) return "The head of the request is longer than this service takes.";
    *code = NN_E_MALFORMED;
    if ((fault = srv_head_fault(&x->head, x->method, version))) return fault;
    uint64_t told;
    if (length && (*code = read_length(length, &told)) != NN_OK)
        return *code == NN_E_TOO_LARGE ? "Content-Length is beyond what can be told."
                                       : "Content-Length is no number.";
    *code = NN_E_MALFORMED;
    if (!is_read_as_it_came(x)) return "The lines of a head end in CRLF, and none goes on in the next.";
    if (!srv_target_parse(x->raw_target, options->tls.cert != NULL, &x->target))
        return "The target of the request is not a path.";
    *code = NN_E_FORBIDDEN;
    const char *host = x->target.host ? x->target.host : srv_head_value(&x->head, SRV_HOST);
    if ((fault = srv_guard_fault(&options->guard, host, srv_head_value(&x->head, SRV_ORIGIN)))) return fault;
    *code = NN_E_HEAD;
    if (has_too_many_parameters(x->target.query))
        return "The query has more parameters than this service takes.";
    *code = NN_E_MALFORMED;
    if (*x->target.path != '/' && strcmp(x->method, "OPTIONS") != 0)
        return "OPTIONS alone is asked of the service as a whole.";
    *code = NN_E_NOMEM;
    return x->head.no_memory ? "There is no memory for this request now." : NULL;
}

enum MHD_Result srv_exchange_read_head(struct srv_exchange *x, const char *method, const char *version) {
    const struct srv_head *head = &x->head;
    const char *trace = srv_head_value(head, SRV_TRACEPARENT),
               *length = srv_head_value(head, SRV_CONTENT_LENGTH);
    const char *expected = srv_head_value(head, SRV_EXPECT);
    enum nn_code code;
    snprintf(x->method, sizeof x->method, "%s", method);
    x->head.size += strlen(method) + strlen(x->raw_target) + strlen(version) + strlen("  \r\n\r\n");
    if (trace && head->of[SRV_TRACEPARENT].count == 1) srv_trace_parse(trace, &x->trace);
    const char *fault = find_fault(x, version, &code);
    if (fault) return srv_exchange_refuse(x, code, fault);
    if (is_preflight(x)) return answer_preflight(x);
    if (x->target.is_of_all && strcmp(x->method, "OPTIONS") == 0) return answer_options_of_all(x);

    /* A length that does not fit 64 bits stays 0: so many bytes never come. */
    uint64_t told = 0;
    if (length) read_length(length, &told);
    x->length = srv_head_is_chunked(head) ? -1 : told > INT64_MAX ? INT64_MAX : (int64_t)told;
    x->presence.knows_1xx = strcmp(version, "HTTP/1.0") != 0;
    x->continues = expected && strcasecmp(expected, "100-continue") == 0;
    x->stage = BODY;
    admit(x);
    return MHD_YES;
}
