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

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "http_exchange.h"
#include "../base/log.h"
#include "peer.h"

/* A refused request's body is read and thrown away up to here, so that the peer reads the answer rather
 * than losing it to a reset connection; beyond, the connection is closed. */
#define MOST_DISCARDED (UINT64_C(16) << 20)

/* How long a stop waits for the rest of a request that is not whole: its peer may be gone (see peer_left). */
#define LONGEST_SILENCE_MS 1000

/* A stop's first moments, in which requests may be on their way on connections that are open. */
#define SETTLING_MS 100

/* Bytes of an answer that the system takes ahead of what is on its way: a thread serves others in between, and a peer
 * who reads nothing holds no more of the system's memory. */
#define MOST_UNSENT (256 * 1024)

#define TLS_VERSIONS "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

#define FIRST_CHUNKED_BUFFER ((size_t)64 * 1024)

/* --- an exchange's life -------------------------------------------------------------------------- */

bool srv_exchange_count_in(struct srv_http *http, int reading, int answering, int serving) {
    pthread_mutex_lock(&http->mutex);
    bool counted = !http->closed;
    if (counted) {
        http->reading += reading;
        http->answering += answering;
        atomic_fetch_add(&http->serving, serving);
    }
    pthread_mutex_unlock(&http->mutex);
    return counted;
}

static void count_out(struct srv_http *http, bool answering) {
    pthread_mutex_lock(&http->mutex);
    *(answering ? &http->answering : &http->reading) -= 1;
    pthread_mutex_unlock(&http->mutex);
}

int64_t srv_exchange_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static int64_t note_activity(struct srv_http *http) {
    int64_t now = srv_exchange_now_ms();
    atomic_store_explicit(&http->last_read_ms, now, memory_order_relaxed);
    return now;
}

bool srv_exchange_allow(struct srv_exchange *x, int64_t since_ms, uint64_t bytes, bool answered) {
    const struct srv_http_options *options = &x->http->options;
    int64_t earned_ms = (int64_t)((double)bytes * 1000 / (double)options->body_rate);
    return srv_watched_set(x->watched, since_ms + options->body_timeout_ms + earned_ms, answered);
}

static void drop_body(struct srv_exchange *x) {
    free(x->body);
    x->body = NULL;
    x->capacity = 0;
}

static void exchange_free(struct srv_exchange *x) {
    api_request_free(x->request);
    api_response_free(x->response);
    free(x->body);
    free(x->raw_target);
    free(x);
}

/* At a request line, before libmicrohttpd takes its target apart. NULL, and `handle` closes the connection. */
static void *begin(void *self, const char *target, struct MHD_Connection *connection) {
    struct srv_http *http = self;
    struct srv_exchange *x = calloc(1, sizeof *x);
    char *copy = strdup(target ? target : ""); /* a request line may have none */
    struct srv_watched *watched =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    int64_t now = note_activity(http);
    if (!x || !copy || !watched || !srv_watched_hasten(watched, now + http->options.header_timeout_ms) ||
        !srv_exchange_count_in(http, 1, 0, 0)) {
        free(x);
        free(copy);
        return NULL;
    }
    x->http = http;
    x->watched = watched;
    x->connection = connection;
    x->raw_target = copy;
    x->id = atomic_fetch_add(&http->next_id, 1);
    clock_gettime(CLOCK_REALTIME, &x->began);
    clock_gettime(CLOCK_MONOTONIC, &x->began_monotonic);
    return x;
}

/* Without the query, and without what an absolute form has before its path: a head that was refused is not taken apart. */
static const char *path_of(const struct srv_exchange *x) {
    if (x->target.path) return x->target.path;
    char *target = x->raw_target;
    target[strcspn(target, "?#")] = '\0';
    const char *authority = strstr(target, "://");
    if (!authority || *target == '/') return target;
    const char *path = strchr(authority + 3, '/');
    return path ? path : "";
}

static void log_exchange(const struct srv_exchange *x, bool whole) {
    char peer[SRV_PEER_NAME];
    struct timespec now;
    bool too_slow = x->stage < WAITING && srv_watched_is_overdue(x->watched);
    srv_peer_name(srv_exchange_address(x->connection), peer);
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t us = (now.tv_sec - x->began_monotonic.tv_sec) * INT64_C(1000000) +
                 (now.tv_nsec - x->began_monotonic.tv_nsec) / 1000;
    int status = too_slow ? nn_code_info(NN_E_TIMEOUT)->status : x->status;
    const union MHD_ConnectionInfo *queued;
    if (!status && (queued = MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_HTTP_STATUS)))
        status = (int)queued->http_status; /* libmicrohttpd refused by itself, and `handle` never knew */
    else if (!whole && !too_slow)
        status = 0;
    srv_log_write(&(struct srv_log_entry){
        .time = x->began,
        .id = x->id,
        .method = x->method,
        .path = path_of(x),
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
    struct srv_exchange *x = *context;
    if (!x) return;
    *context = NULL;
    if (http->options.log) log_exchange(x, how == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    count_out(http, x->stage >= WAITING);
    srv_watched_set(x->watched,
                    srv_exchange_now_ms() + http->options.idle_timeout_ms + http->options.header_timeout_ms,
                    false);
    exchange_free(x);
}

/* --- the body ------------------------------------------------------------------------------------ */

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

/* libmicrohttpd overlooks the end of a connection that came together with the last bytes, and would keep
 * the request, and its memory, until the idle timeout. */
static bool peer_left(const struct srv_exchange *x) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (!info) return false;
    /* Nearly always poll is enough; and unlike recv, it takes no lock from those who bring the next bytes. */
    struct pollfd end = {.fd = info->connect_fd, .events = POLLRDHUP};
    char next;
    return poll(&end, 1, 0) > 0 && recv(end.fd, &next, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* Where libmicrohttpd may still hold bytes of the request that it has not handed over: resumed, it takes
 * those first and then asks the system about the connection anew. */
static bool look_again_if_peer_left(const struct srv_exchange *x) {
    if (!peer_left(x)) return false;
    MHD_suspend_connection(x->connection);
    MHD_resume_connection(x->connection);
    return true;
}

/* What comes behind a head that was admitted, or refused by the API. */
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
    if (has_body && look_again_if_peer_left(x)) x->stage = LOOKING;
    return MHD_YES;
}

static enum MHD_Result take_head(struct srv_exchange *x, const char *method, const char *version) {
    enum MHD_Result result = srv_exchange_read_head(x, method, version);
    return result == MHD_YES && x->stage == BODY ? begin_body(x) : result;
}

/* Only a chunked body outgrows the buffer that its head had made. */
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

/* libmicrohttpd queues no answer in the middle of a body, so a refused one is read on. False: enough. */
static bool discard(struct srv_exchange *x, size_t size) {
    x->discarded += size;
    return x->discarded <= MOST_DISCARDED;
}

static bool take_body(struct srv_exchange *x, const char *data, size_t size) {
    note_activity(x->http);
    x->bytes_in += size;
    if (!srv_exchange_allow(x, x->body_began_ms, x->bytes_in, false)) return false;
    if (x->request && size > x->capacity - x->size) grow(x, x->size + size);
    if (!x->request) return discard(x, size);
    memcpy(x->body + x->size, data, size);
    x->size += size;
    if (x->length < 0) look_again_if_peer_left(x);
    return x->length < 0 || x->size == x->capacity || !peer_left(x);
}

/* --- the request as a whole ---------------------------------------------------------------------- */

enum { AWAITED, SUSPENDED, CAME }; /* of exchange.reply */

/* From any thread, perhaps within api_submit_take. From then on the exchange is the I/O thread's. */
static void reply(void *self, struct api_response *response) {
    struct srv_exchange *x = self;
    struct MHD_Connection *connection = x->connection;
    struct srv_http *http = x->http;
    x->response = response;
    if (atomic_exchange(&x->reply, CAME) == SUSPENDED) MHD_resume_connection(connection);
    atomic_fetch_sub(&http->serving, 1);
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
    if (x->stage == LOOKING) { /* the call at the head of the request, repeated */
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

static void connection_changed(void *self, struct MHD_Connection *connection, void **context,
                               enum MHD_ConnectionNotificationCode what) {
    struct srv_http *http = self;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        int fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        *context = srv_watch_add(&http->watch, fd, srv_exchange_now_ms() + http->options.header_timeout_ms);
        if (!*context) shutdown(fd, SHUT_RDWR);
        setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &(int){MOST_UNSENT},
                   sizeof(int)); /* not of a Unix socket */
        srv_listener_opened(http->listener);
    } else {
        srv_watch_remove(&http->watch, *context);
        srv_listener_closed(http->listener);
    }
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
    http->daemon = start_daemon(http);
    if (!http->daemon)
        nn_fail(err, NN_E_INTERNAL, "the threads that serve HTTP cannot be started");
    else if (!srv_listener_start(listener, options->connections, accepted, http, err))
        return http;
    srv_http_free(http);
    return NULL;
}

void srv_http_tick(struct srv_http *http) { srv_watch_sweep(&http->watch, srv_exchange_now_ms()); }

void srv_http_drain(struct srv_http *http) {
    atomic_store(&http->draining, true);
    srv_listener_stop(http->listener);
    note_activity(http);
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
