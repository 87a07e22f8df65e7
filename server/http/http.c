/* http.c - see http.h.
 *
 * libmicrohttpd calls `handle` at the head of a request, for each piece of its body, at its end, and again when the
 * connection was resumed. The exchange's stage says what comes next:
 *
 *   HEAD     check the head, and have the API admit the request
 *   LOOKING  the connection is suspended for a moment, to find out whether the peer has left
 *   BODY     copy the body into one buffer; discard it if the request was refused
 *   WAITING  the API has the request; the connection is suspended, unless the reply came at once
 *   DONE     the answer is queued
 *
 * A reply on this thread, before the submission returns, is sent right away. A reply from another thread may come while
 * the connection is being suspended: of the two threads, the one that comes second resumes it. */
#include "http.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "../base/log.h"
#include "http_exchange.h"
#include "peer.h"

/* The body of a refused request is read and discarded up to this size, so that the peer reads the answer before the
 * connection is reset. A longer body ends the connection. */
#define MOST_DISCARDED (UINT64_C(16) << 20)

/* How long a stop waits for the rest of an incomplete request: its peer may be gone (see peer_left). */
#define LONGEST_SILENCE_MS 1000

/* The first moments of a stop, in which requests may still arrive on open connections. */
#define SETTLING_MS 100

/* Bytes of an answer that the system may hold unsent. The bound lets a thread serve other connections in between, and
 * limits the memory that a peer who reads nothing can hold. */
#define MOST_UNSENT (256 * 1024)

/* Key exchange by RSA is off: its private key would open every connection that anybody has recorded. */
#define TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-RSA"

#define FIRST_CHUNKED_BUFFER ((size_t)64 * 1024)

/* --- a request line, and the end ------------------------------------------------------------------ */

/* Called at a request line, before libmicrohttpd parses its target. NULL: `handle` closes the connection. */
static void *begin(void *self, const char *target, struct MHD_Connection *connection) {
    (void)self;
    struct srv_connection *context =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    if (!context) return NULL;
    context->exchange =
        srv_exchange_new(context, connection, target ? target : ""); /* the line may have no target */
    return context->exchange;
}

static void completed(void *self, struct MHD_Connection *connection, void **context,
                      enum MHD_RequestTerminationCode how) {
    struct srv_http *http = self;
    struct srv_exchange *x = *context;
    if (!x) return;
    *context = NULL;
    struct srv_connection *its =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    its->exchange = NULL;
    srv_exchange_end(x, how == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    srv_watched_set(its->watched,
                    srv_exchange_now_ms() + http->options.idle_timeout_ms + http->options.header_timeout_ms,
                    false);
}

/* --- the body ------------------------------------------------------------------------------------ */

static void drop_body(struct srv_exchange *x) {
    free(x->body);
    x->body = NULL;
    x->capacity = 0;
}

static void refuse_body(struct srv_exchange *x) {
    x->response = api_refuse_take(x->request);
    x->request = NULL;
    drop_body(x);
}

static void give_up_for_memory(struct srv_exchange *x) {
    api_request_free(x->request);
    x->request = NULL;
    drop_body(x);
}

/* libmicrohttpd overlooks that a connection has ended if the end came together with the last bytes. It would keep the
 * request and its memory until the idle timeout. */
static bool peer_left(const struct srv_exchange *x) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (!info) return false;
    /* Nearly always poll is enough. Unlike recv, it takes no lock that the next bytes need. */
    struct pollfd end = {.fd = info->connect_fd, .events = POLLRDHUP};
    char next;
    return poll(&end, 1, 0) > 0 && recv(end.fd, &next, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* libmicrohttpd may still hold bytes of the request. A resumed connection hands over those first, and then asks the
 * system anew. */
static bool look_again_if_peer_left(const struct srv_exchange *x) {
    if (!peer_left(x)) return false;
    MHD_suspend_connection(x->connection);
    MHD_resume_connection(x->connection);
    return true;
}

/* Acknowledges the bytes that have come, and the next ones, at once. Otherwise the system waits some 40 ms for an
 * answer to send the acknowledgement with, and a client that sends small pieces waits with the next piece (Nagle's
 * algorithm). */
static void acknowledge(const struct srv_exchange *x) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info)
        setsockopt(info->connect_fd, IPPROTO_TCP, TCP_QUICKACK, &(int){1},
                   sizeof(int)); /* fails for a Unix socket, harmlessly */
}

/* Begins the body behind a head that the API admitted or refused. */
static enum MHD_Result begin_body(struct srv_exchange *x) {
    x->body_began_ms = srv_exchange_now_ms();
    if (!srv_exchange_allow(x, x->body_began_ms, 0, false)) return MHD_NO;
    if (x->request && x->length > 0) {
        x->capacity = (size_t)x->length;
        x->body = malloc(x->capacity);
        if (!x->body) give_up_for_memory(x);
    }
    bool has_body = x->length != 0;
    bool answers_now = has_body && (x->continues || x->length > (int64_t)MOST_DISCARDED);
    if (!x->request && answers_now) return srv_exchange_answer(x);
    if (has_body) acknowledge(x);
    if (has_body && look_again_if_peer_left(x)) x->stage = LOOKING;
    return MHD_YES;
}

static enum MHD_Result take_head(struct srv_exchange *x, const char *method, const char *version) {
    enum MHD_Result result = srv_exchange_read_head(x, method, version);
    return result == MHD_YES && x->stage == BODY ? begin_body(x) : result;
}

/* Makes the buffer of a chunked body larger: other bodies have their whole buffer from the start. */
static void grow(struct srv_exchange *x, size_t need) {
    size_t wish = x->capacity < FIRST_CHUNKED_BUFFER ? FIRST_CHUNKED_BUFFER : 2 * x->capacity;
    size_t capacity = api_request_buffer(x->request, need, wish);
    if (!capacity) {
        refuse_body(x);
        return;
    }
    char *body = realloc(x->body, capacity);
    if (!body) {
        give_up_for_memory(x);
        return;
    }
    x->body = body;
    x->capacity = capacity;
}

/* libmicrohttpd queues no answer in the middle of a body, so the rest of a refused body is discarded. False: it is too
 * long. */
static bool discard(struct srv_exchange *x, size_t size) {
    x->discarded += size;
    return x->discarded <= MOST_DISCARDED;
}

static bool take_body(struct srv_exchange *x, const char *data, size_t size) {
    srv_exchange_note_activity(x->http);
    x->bytes_in += size;
    if (x->length < 0 || x->bytes_in < (uint64_t)x->length) acknowledge(x);
    if (!srv_exchange_allow(x, x->body_began_ms, x->bytes_in, false)) return false;
    if (x->request && size > x->capacity - x->size) grow(x, x->size + size);
    if (!x->request) return discard(x, size);
    memcpy(x->body + x->size, data, size);
    x->size += size;
    if (x->length < 0) look_again_if_peer_left(x);
    return x->length < 0 || x->size == x->capacity || !peer_left(x);
}

/* --- the request as a whole ---------------------------------------------------------------------- */

enum { AWAITED, SUSPENDED, CAME }; /* values of exchange.reply */

/* Called from any thread, perhaps within api_submit_take. Afterwards the exchange belongs to the I/O thread. */
static void reply(void *self, struct api_response *response) {
    struct srv_exchange *x = self;
    struct MHD_Connection *connection = x->connection;
    struct srv_http *http = x->http;
    x->response = response;
    if (atomic_exchange(&x->reply, CAME) == SUSPENDED) MHD_resume_connection(connection);
    atomic_fetch_sub(&http->serving, 1);
}

/* Called by the thread that works on the request, while the connection is suspended. */
static bool has_left(void *self) {
    struct srv_exchange *x = self;
    return srv_presence_ended(&x->presence, srv_exchange_now_ms());
}

static enum MHD_Result submit(struct srv_exchange *x) {
    if (!srv_watched_set(x->watched, SRV_NO_DEADLINE, false) || !srv_exchange_count_in(x->http, -1, 1, 1))
        return MHD_NO;
    struct api_request *request = x->request;
    void *body = x->body;
    if (x->size == 0) {
        free(body);
        body = NULL;
    }
    x->stage = WAITING;
    x->request = NULL;
    x->body = NULL;
    x->presence.fd = MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    x->presence.looked_ms = srv_exchange_now_ms();
    x->presence.encrypted = x->http->options.tls.cert != NULL;
    api_request_peer(request, has_left);
    api_submit_take(request, body, x->size, reply, x);
    if (atomic_load(&x->reply) == CAME) return srv_exchange_answer(x);
    MHD_suspend_connection(x->connection);
    if (atomic_exchange(&x->reply, SUSPENDED) == CAME) MHD_resume_connection(x->connection);
    return MHD_YES;
}

static enum MHD_Result handle(void *self, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data, size_t *size,
                              void **context) {
    (void)self, (void)connection, (void)url;
    struct srv_exchange *x = *context;
    if (!x) return MHD_NO;
    if (x->stage == HEAD) return take_head(x, method, version);
    if (x->stage == LOOKING) { /* the call at the head, repeated */
        x->stage = BODY;
        return MHD_YES;
    }
    if (*size > 0) {
        bool going_on = take_body(x, data, *size);
        *size = 0;
        return going_on ? MHD_YES : MHD_NO;
    }
    return x->stage == BODY && x->request ? submit(x) : srv_exchange_answer(x);
}

/* --- connections --------------------------------------------------------------------------------- */

/* libmicrohttpd closes the socket if it cannot take it. */
static void accepted(void *self, int fd, const struct sockaddr *address, socklen_t length) {
    struct srv_http *http = self;
    MHD_add_connection(http->daemon, fd, address, length);
}

/* NULL: memory is out. */
static struct srv_connection *connection_new(struct srv_http *http, int fd) {
    struct srv_connection *context = calloc(1, sizeof *context);
    if (!context) return NULL;
    context->http = http;
    context->watched =
        srv_watch_add(&http->watch, fd, srv_exchange_now_ms() + http->options.header_timeout_ms);
    if (context->watched) return context;
    free(context);
    return NULL;
}

static void connection_free(struct srv_connection *context) {
    if (!context) return;
    srv_watch_remove(&context->http->watch, context->watched);
    free(context);
}

static void connection_changed(void *self, struct MHD_Connection *connection, void **context,
                               enum MHD_ConnectionNotificationCode what) {
    struct srv_http *http = self;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        int fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        *context = connection_new(http, fd);
        if (!*context) shutdown(fd, SHUT_RDWR);
        setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &(int){MOST_UNSENT},
                   sizeof(int)); /* fails for a Unix socket, harmlessly */
        srv_listener_opened(http->listener);
    } else {
        connection_free(*context);
        srv_listener_closed(http->listener);
    }
}

static struct MHD_Daemon *start_daemon(struct srv_http *http) {
    const struct srv_http_options *options = &http->options;
    /* At the limit, the listener holds connections back. libmicrohttpd would close them, so its own limit is higher. */
    unsigned limit = 2 * (unsigned)options->connections + 64;
    struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_MEM_CERT, 0, options->tls.cert},
                                   {MHD_OPTION_HTTPS_MEM_KEY, 0, options->tls.key},
                                   {MHD_OPTION_HTTPS_PRIORITIES, 0, (char *)(uintptr_t)TLS_PRIORITIES},
                                   {MHD_OPTION_HTTPS_MEM_TRUST, 0, options->tls.client_ca},
                                   {MHD_OPTION_END, 0, NULL}};
    if (!options->tls.client_ca) tls[3].option = MHD_OPTION_END;
    if (!options->tls.cert) tls[0].option = MHD_OPTION_END;
    return MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC |
                                MHD_USE_NO_LISTEN_SOCKET | (options->tls.cert ? MHD_USE_TLS : 0),
                            0, NULL, NULL, handle, http,                                                //
                            MHD_OPTION_URI_LOG_CALLBACK, begin, http,                                   //
                            MHD_OPTION_NOTIFY_COMPLETED, completed, http,                               //
                            MHD_OPTION_NOTIFY_CONNECTION, connection_changed, http,                     //
                            MHD_OPTION_THREAD_POOL_SIZE, options->io_threads,                           //
                            MHD_OPTION_CONNECTION_LIMIT, limit,                                         //
                            MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)options->address_connections, //
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY,                      //
                            MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)(options->idle_timeout_ms / 1000), //
                            MHD_OPTION_ARRAY, tls,                                                      //
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
    srv_http_last_word(http->last_word, sizeof http->last_word, NN_E_TIMEOUT,
                       "The head or the body of the request took too long.");
    srv_watch_init(&http->watch, options->tls.cert ? NULL : http->last_word);
    if (getrandom(&first_id, sizeof first_id, 0) < 0) first_id = 0;
    atomic_init(&http->next_id, first_id);
    http->daemon = srv_replaced_check() ? start_daemon(http) : NULL;
    if (!http->daemon)
        nn_fail(err, NN_E_INTERNAL, "libmicrohttpd %s does not start as one of 0.9 does", MHD_get_version());
    else if (!srv_listener_start(listener, options->connections, accepted, http, err))
        return http;
    srv_http_free(http);
    return NULL;
}

void srv_http_tick(struct srv_http *http) { srv_watch_sweep(&http->watch, srv_exchange_now_ms()); }

void srv_http_drain(struct srv_http *http) {
    atomic_store(&http->draining, true);
    srv_listener_stop(http->listener);
    srv_exchange_note_activity(http);
}

bool srv_http_finished(struct srv_http *http) {
    int64_t silence = srv_exchange_now_ms() - atomic_load_explicit(&http->last_read_ms, memory_order_relaxed);
    pthread_mutex_lock(&http->mutex);
    int64_t enough = http->reading ? LONGEST_SILENCE_MS : SETTLING_MS;
    http->closed = http->answering == 0 && silence >= enough;
    bool finished = http->closed;
    pthread_mutex_unlock(&http->mutex);
    return finished;
}

bool srv_http_close(struct srv_http *http) {
    pthread_mutex_lock(&http->mutex);
    http->closed = true;
    bool none = atomic_load(&http->serving) == 0;
    pthread_mutex_unlock(&http->mutex);
    return none;
}

void srv_http_free(struct srv_http *http) {
    if (!http) return;
    srv_listener_stop(http->listener);
    if (http->daemon) MHD_stop_daemon(http->daemon);
    srv_watch_fini(&http->watch);
    pthread_mutex_destroy(&http->mutex);
    free(http);
}
