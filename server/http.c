/* http.c - see http.h.
 *
 * libmicrohttpd calls `handle` at the head of a request, for each piece of its body, at its end, and again
 * when the connection has been resumed. The exchange remembers which of these is due:
 *
 *     HEAD     is the head sound, is the request admitted?
 *     LOOKING  the connection is suspended for a moment: has the peer left?
 *     BODY     copied into one buffer; of a refused request thrown away
 *     WAITING  the request is the API's, and the connection suspended, unless the reply came at once
 *     DONE     the answer is queued
 *
 * A reply may come on this thread before the request's submission returns: then it is sent right away. Or it
 * comes from another thread, perhaps just while the connection is being suspended: who comes second of the two
 * resumes it. */
#include "http.h"

#include <inttypes.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "head.h"
#include "log.h"
#include "peer.h"
#include "target.h"
#include "trace.h"

/* Half of it is the buffer that bodies are read through. All of it is cleared after every request, so that more
 * makes small requests slower, and large ones no faster. */
#define CONNECTION_MEMORY ((size_t)64 * 1024)

/* A refused request's body is read and thrown away up to here, so that the peer reads the answer rather
 * than losing it to a reset connection; beyond, the connection is closed. */
#define MOST_DISCARDED (UINT64_C(16) << 20)

/* How long a stop waits for the rest of a request that is not whole: its peer may be gone (see peer_left). */
#define LONGEST_SILENCE_MS 1000

/* A stop's first moments, in which requests may be on their way on connections that are open. */
#define SETTLING_MS 100

#define TLS_VERSIONS "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

#define FIRST_CHUNKED_BUFFER ((size_t)64 * 1024)

struct srv_http {
    struct api *api;
    struct srv_listener *listener;
    struct srv_http_options options;
    struct MHD_Daemon *daemon;
    atomic_uint_fast64_t next_id;
    atomic_bool draining;
    atomic_int_fast64_t last_read_ms; /* when a piece of any request came */
    pthread_mutex_t mutex;            /* of what follows */
    int reading, answering;           /* exchanges: before and after their request is whole or refused */
    bool closed;                      /* no more begin, and none goes on to be answered */
};

struct exchange {
    struct srv_http *http;
    struct MHD_Connection *connection;
    enum { HEAD, LOOKING, BODY, WAITING, DONE } stage;

    char *raw_target; /* owned; `target` points into it */
    struct srv_target target;

    struct api_request *request;   /* until it is submitted or refused */
    struct api_response *response; /* until it is queued; NULL then means that memory is out */
    atomic_int reply;
    bool chunked;
    char *body;
    size_t size, capacity;
    uint64_t discarded;

    uint64_t id;
    struct srv_trace trace;
    char method[32];
    int status;
    uint64_t bytes_in, bytes_out;
    struct timespec began, began_monotonic;
};

/* --- an exchange's life -------------------------------------------------------------------------- */

/* Counts one more exchange as being read, or one of those as being answered. False: too late, the daemon
 * is about to be stopped. */
static bool count_in(struct srv_http *http, int reading, int answering) {
    pthread_mutex_lock(&http->mutex);
    bool counted = !http->closed;
    if (counted) {
        http->reading += reading;
        http->answering += answering;
    }
    pthread_mutex_unlock(&http->mutex);
    return counted;
}

static void count_out(struct srv_http *http, bool answering) {
    pthread_mutex_lock(&http->mutex);
    *(answering ? &http->answering : &http->reading) -= 1;
    pthread_mutex_unlock(&http->mutex);
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static void note_activity(struct srv_http *http) {
    atomic_store_explicit(&http->last_read_ms, now_ms(), memory_order_relaxed);
}

static void drop_body(struct exchange *x) {
    free(x->body);
    x->body = NULL;
    x->capacity = 0;
}

static void exchange_free(struct exchange *x) {
    api_request_free(x->request);
    api_response_free(x->response);
    free(x->body);
    free(x->raw_target);
    free(x);
}

/* At a request line, before libmicrohttpd takes its target apart. NULL, and `handle` closes the connection. */
static void *begin(void *self, const char *target, struct MHD_Connection *connection) {
    struct srv_http *http = self;
    struct exchange *x = calloc(1, sizeof *x);
    char *copy = strdup(target ? target : ""); /* a request line may have none */
    if (!x || !copy || !count_in(http, 1, 0)) {
        free(x);
        free(copy);
        return NULL;
    }
    note_activity(http);
    x->http = http;
    x->connection = connection;
    x->raw_target = copy;
    x->id = atomic_fetch_add(&http->next_id, 1);
    clock_gettime(CLOCK_REALTIME, &x->began);
    clock_gettime(CLOCK_MONOTONIC, &x->began_monotonic);
    return x;
}

static const struct sockaddr *address_of(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    return info ? info->client_addr : NULL;
}

static void log_exchange(const struct exchange *x, bool whole) {
    char peer[SRV_PEER_NAME];
    struct timespec now;
    srv_peer_name(address_of(x->connection), peer);
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t us = (now.tv_sec - x->began_monotonic.tv_sec) * INT64_C(1000000) +
                 (now.tv_nsec - x->began_monotonic.tv_nsec) / 1000;
    int status = x->status;
    const union MHD_ConnectionInfo *queued;
    if (!status && (queued = MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_HTTP_STATUS)))
        status = (int)queued->http_status; /* libmicrohttpd refused by itself, and `handle` never knew */
    else if (!whole)
        status = 0;
    srv_log_write(&(struct srv_log_entry){
        .time = x->began,
        .id = x->id,
        .method = x->method,
        .path = x->target.path ? x->target.path : x->raw_target,
        .peer = peer,
        .status = status,
        .bytes_in = x->bytes_in,
        .bytes_out = x->bytes_out,
        .microseconds = (uint64_t)us,
        .trace_id = x->trace.trace_id,
        .span_id = x->trace.span_id,
    });
}

static void completed(void *self, struct MHD_Connection *connection, void **context,
                      enum MHD_RequestTerminationCode how) {
    (void)connection;
    struct srv_http *http = self;
    struct exchange *x = *context;
    if (!x) return;
    *context = NULL;
    if (http->options.log) log_exchange(x, how == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    count_out(http, x->stage >= WAITING);
    exchange_free(x);
}

/* --- answers ------------------------------------------------------------------------------------- */

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

/* A problem document of our own, for what the API cannot answer. `detail` needs no escapes. */
static struct MHD_Response *problem(enum nn_code code, const char *detail, int *status, uint64_t *size) {
    const struct nn_code_info *info = nn_code_info(code);
    char text[512];
    int length =
        snprintf(text, sizeof text,
                 "{\"type\":\"" API_PROBLEM_TYPE "%s\",\"title\":\"%s\",\"status\":%d,\"detail\":\"%s\"}\n",
                 info->slug, info->title, info->status, detail);
    *status = info->status;
    *size = (uint64_t)length;
    struct MHD_Response *response =
        MHD_create_response_from_buffer((size_t)length, text, MHD_RESPMEM_MUST_COPY);
    if (!response) return NULL;
    MHD_add_response_header(response, "Content-Type", "application/problem+json");
    if (info->status == 503) MHD_add_response_header(response, "Retry-After", "1");
    return response;
}

static const char *header(const struct exchange *x, const char *name) {
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

/* Lets the page that called read the answer, where it may call at all. */
static void add_origin(const struct exchange *x, struct MHD_Response *response) {
    const char *origin = header(x, "Origin");
    if (!x->http->options.guard.origins) return;
    MHD_add_response_header(response, "Vary", "Origin");
    if (!origin || !srv_guard_allows(&x->http->options.guard, origin)) return;
    MHD_add_response_header(response, "Access-Control-Allow-Origin", origin);
    MHD_add_response_header(response, "Access-Control-Expose-Headers",
                            "ETag, Location, Retry-After, WWW-Authenticate, X-Request-Id");
}

static enum MHD_Result queue_take(struct exchange *x, struct MHD_Response *response) {
    if (!response) return MHD_NO;
    if (x->stage < WAITING && !count_in(x->http, -1, 1)) {
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

static enum MHD_Result refuse_head(struct exchange *x, enum nn_code code, const char *detail) {
    return queue_take(x, problem(code, detail, &x->status, &x->bytes_out));
}

/* What a browser asks before it lets a page of another site call. It bears no token. */
static bool is_preflight(const struct exchange *x) {
    return strcmp(x->method, "OPTIONS") == 0 && header(x, "Origin") &&
           header(x, "Access-Control-Request-Method");
}

static enum MHD_Result answer_preflight(struct exchange *x) {
    struct MHD_Response *response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (!response) return MHD_NO;
    MHD_add_response_header(response, "Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE");
    MHD_add_response_header(response, "Access-Control-Allow-Headers",
                            "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match");
    MHD_add_response_header(response, "Access-Control-Max-Age", "600");
    x->status = 204;
    return queue_take(x, response);
}

/* With what the API said; before the body is whole, this closes the connection behind it. */
static enum MHD_Result answer(struct exchange *x) {
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
    return queue_take(x, wrapped);
}

/* --- the head ------------------------------------------------------------------------------------ */

static enum MHD_Result add_header(void *self, enum MHD_ValueKind kind, const char *name, const char *value) {
    (void)kind;
    srv_head_add(self, name, value ? value : "");
    return MHD_YES;
}

static void admit(struct exchange *x, int64_t length) {
    char host[INET6_ADDRSTRLEN], port[8];
    srv_peer_address(address_of(x->connection), host, port);
    struct api_head head = {
        /* Of an answer to HEAD, libmicrohttpd sends the head alone. */
        .method = strcmp(x->method, "HEAD") == 0 ? "GET" : x->method,
        .path = x->target.path,
        .query = x->target.query,
        .authorization = header(x, "Authorization"),
        .content_type = header(x, "Content-Type"),
        .accept = header(x, "Accept"),
        .client = host,
        .if_match = header(x, "If-Match"),
        .if_none_match = header(x, "If-None-Match"),
        .idempotency_key = header(x, "Idempotency-Key"),
        .content_length = length,
    };
    struct api_admission admission = api_admit(x->http->api, &head);
    x->request = admission.request;
    x->response = admission.refusal;
}

static void refuse_body(struct exchange *x) {
    x->response = api_refuse_take(x->request);
    x->request = NULL;
    drop_body(x);
}

static void give_up_for_memory(struct exchange *x) {
    api_request_free(x->request);
    x->request = NULL;
    drop_body(x);
}

/* libmicrohttpd overlooks the end of a connection that came together with the last bytes, and would keep
 * the request, and its memory, until the idle timeout. */
static bool peer_left(const struct exchange *x) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    char next;
    return info && recv(info->connect_fd, &next, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* Where libmicrohttpd may still hold bytes of the request that it has not handed over: resumed, it takes
 * those first and then asks the system about the connection anew. */
static bool look_again_if_peer_left(const struct exchange *x) {
    if (!peer_left(x)) return false;
    MHD_suspend_connection(x->connection);
    MHD_resume_connection(x->connection);
    return true;
}

/* A client without a certificate gets as far as here: libmicrohttpd asks for one, and does not insist. */
static bool is_from_known_client(const struct exchange *x) {
    if (!x->http->options.tls.client_ca) return true;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    return info && srv_tls_peer_is_good(info->tls_session);
}

static enum MHD_Result take_head(struct exchange *x, const char *method, const char *version) {
    struct srv_head head = {0};
    snprintf(x->method, sizeof x->method, "%s", method);
    MHD_get_connection_values(x->connection, MHD_HEADER_KIND, add_header, &head);
    if (head.traces == 1) srv_trace_parse(head.traceparent, &x->trace);
    if (!is_from_known_client(x))
        return refuse_head(x, NN_E_FORBIDDEN,
                           "This service takes clients with a certificate that it trusts.");
    const char *fault = srv_head_fault(&head, x->method, version);
    if (fault) return refuse_head(x, NN_E_MALFORMED, fault);
    fault = srv_guard_fault(&x->http->options.guard, header(x, "Host"), header(x, "Origin"));
    if (fault) return refuse_head(x, NN_E_FORBIDDEN, fault);
    if (is_preflight(x)) return answer_preflight(x);
    if (!srv_target_parse(x->raw_target, &x->target))
        return refuse_head(x, NN_E_MALFORMED, "The target of the request is not a path.");

    /* libmicrohttpd has seen that it is a number; one too large saturates. */
    int64_t length = head.codings ? -1 : head.length ? strtoll(head.length, NULL, 10) : 0;
    x->stage = BODY;
    x->chunked = length < 0;
    admit(x, length);
    if (x->request && length > 0) {
        x->capacity = (size_t)length;
        x->body = malloc(x->capacity);
        if (!x->body) give_up_for_memory(x);
    }
    bool has_body = length != 0;
    bool answers_now = has_body && (head.continues || length > (int64_t)MOST_DISCARDED);
    if (!x->request && answers_now) return answer(x);
    if (has_body && look_again_if_peer_left(x)) x->stage = LOOKING;
    return MHD_YES;
}

/* --- the body ------------------------------------------------------------------------------------ */

/* Only a chunked body outgrows the buffer that its head had made. */
static bool grow(struct exchange *x, size_t need) {
    size_t capacity = x->capacity < FIRST_CHUNKED_BUFFER ? FIRST_CHUNKED_BUFFER : x->capacity;
    while (capacity < need) capacity *= 2; /* far below overflow: `need` is within the limit of bodies */
    char *body = realloc(x->body, capacity);
    if (!body) return false;
    x->body = body;
    x->capacity = capacity;
    return true;
}

/* libmicrohttpd queues no answer in the middle of a body, so a refused one is read on. False: enough. */
static bool discard(struct exchange *x, size_t size) {
    x->discarded += size;
    return x->discarded <= MOST_DISCARDED;
}

static bool take_body(struct exchange *x, const char *data, size_t size) {
    note_activity(x->http);
    x->bytes_in += size;
    if (x->request && !api_request_room(x->request, x->size + size)) refuse_body(x);
    if (x->request && size > x->capacity - x->size && !grow(x, x->size + size)) give_up_for_memory(x);
    if (!x->request) return discard(x, size);
    memcpy(x->body + x->size, data, size);
    x->size += size;
    if (x->chunked) look_again_if_peer_left(x);
    return x->chunked || x->size == x->capacity || !peer_left(x);
}

/* --- the request as a whole ---------------------------------------------------------------------- */

enum { AWAITED, SUSPENDED, CAME }; /* of exchange.reply */

/* From any thread, perhaps within api_submit_take. From then on the exchange is the I/O thread's. */
static void reply(void *self, struct api_response *response) {
    struct exchange *x = self;
    struct MHD_Connection *connection = x->connection;
    x->response = response;
    if (atomic_exchange(&x->reply, CAME) == SUSPENDED) MHD_resume_connection(connection);
}

static enum MHD_Result submit(struct exchange *x) {
    if (!count_in(x->http, -1, 1)) return MHD_NO;
    struct api_request *request = x->request;
    void *body = x->body;
    if (x->size == 0) {
        free(body);
        body = NULL;
    }
    x->stage = WAITING;
    x->request = NULL;
    x->body = NULL;
    api_submit_take(request, body, x->size, reply, x);
    if (atomic_load(&x->reply) == CAME) return answer(x);
    MHD_suspend_connection(x->connection);
    if (atomic_exchange(&x->reply, SUSPENDED) == CAME) MHD_resume_connection(x->connection);
    return MHD_YES;
}

static enum MHD_Result handle(void *self, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data, size_t *size,
                              void **context) {
    (void)self, (void)connection, (void)url;
    struct exchange *x = *context;
    if (!x) return MHD_NO;
    if (x->stage == HEAD) return take_head(x, method, version);
    if (x->stage == LOOKING) { /* the call at the head of the request, repeated */
        x->stage = BODY;
        return MHD_YES;
    }
    if (*size > 0) {
        bool going_on = take_body(x, data, *size);
        *size = 0;
        return going_on ? MHD_YES : MHD_NO;
    }
    return x->stage == BODY && x->request ? submit(x) : answer(x);
}

/* --- connections --------------------------------------------------------------------------------- */

/* libmicrohttpd closes the socket if it cannot take it. */
static void accepted(void *self, int fd, const struct sockaddr *address, socklen_t length) {
    struct srv_http *http = self;
    MHD_add_connection(http->daemon, fd, address, length);
}

static void connection_changed(void *self, struct MHD_Connection *connection, void **context,
                               enum MHD_ConnectionNotificationCode what) {
    (void)connection, (void)context;
    struct srv_http *http = self;
    if (what == MHD_CONNECTION_NOTIFY_STARTED)
        srv_listener_opened(http->listener);
    else
        srv_listener_closed(http->listener);
}

static struct MHD_Daemon *start_daemon(struct srv_http *http) {
    const struct srv_http_options *options = &http->options;
    /* The listener holds connections back at the limit; libmicrohttpd would close them, so its own limit
     * lies beyond. */
    unsigned limit = 2 * (unsigned)options->connections + 64;
    struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_MEM_CERT, 0, options->tls.cert},
                                   {MHD_OPTION_HTTPS_MEM_KEY, 0, options->tls.key},
                                   {MHD_OPTION_HTTPS_PRIORITIES, 0, (char *)(uintptr_t)TLS_VERSIONS},
                                   {MHD_OPTION_HTTPS_MEM_TRUST, 0, options->tls.client_ca},
                                   {MHD_OPTION_END, 0, NULL}};
    if (!options->tls.client_ca) tls[3].option = MHD_OPTION_END;
    if (!options->tls.cert) tls[0].option = MHD_OPTION_END;
    return MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC |
                                MHD_USE_NO_LISTEN_SOCKET | (options->tls.cert ? MHD_USE_TLS : 0),
                            0, NULL, NULL, handle, http,                            //
                            MHD_OPTION_URI_LOG_CALLBACK, begin, http,               //
                            MHD_OPTION_NOTIFY_COMPLETED, completed, http,           //
                            MHD_OPTION_NOTIFY_CONNECTION, connection_changed, http, //
                            MHD_OPTION_THREAD_POOL_SIZE, options->io_threads,       //
                            MHD_OPTION_CONNECTION_LIMIT, limit,                     //
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY,  //
                            MHD_OPTION_CONNECTION_TIMEOUT, options->idle_timeout,   //
                            MHD_OPTION_ARRAY, tls,                                  //
                            MHD_OPTION_END);
}

struct srv_http *srv_http_new(struct api *api, struct srv_listener *listener,
                              const struct srv_http_options *options, struct nn_error *err) {
    struct srv_http *http = calloc(1, sizeof *http);
    uint64_t first_id = 0;
    if (!http) {
        nn_fail(err, NN_E_NOMEM, "no memory to serve HTTP");
        return NULL;
    }
    http->api = api;
    http->listener = listener;
    http->options = *options;
    pthread_mutex_init(&http->mutex, NULL);
    if (getrandom(&first_id, sizeof first_id, 0) < 0) first_id = 0;
    atomic_init(&http->next_id, first_id);
    http->daemon = start_daemon(http);
    if (!http->daemon)
        nn_fail(err, NN_E_INTERNAL, "the threads that serve HTTP cannot be started");
    else if (!srv_listener_start(listener, options->connections, accepted, http, err))
        return http;
    srv_http_free(http);
    return NULL;
}

void srv_http_drain(struct srv_http *http) {
    atomic_store(&http->draining, true);
    srv_listener_stop(http->listener);
    note_activity(http);
}

bool srv_http_finished(struct srv_http *http) {
    int64_t silence = now_ms() - atomic_load_explicit(&http->last_read_ms, memory_order_relaxed);
    pthread_mutex_lock(&http->mutex);
    int64_t enough = http->reading ? LONGEST_SILENCE_MS : SETTLING_MS;
    http->closed = http->answering == 0 && silence >= enough;
    bool finished = http->closed;
    pthread_mutex_unlock(&http->mutex);
    return finished;
}

void srv_http_free(struct srv_http *http) {
    if (!http) return;
    srv_listener_stop(http->listener);
    if (http->daemon) MHD_stop_daemon(http->daemon);
    pthread_mutex_destroy(&http->mutex);
    free(http);
}
