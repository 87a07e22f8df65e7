/* http_exchange.c - the life of an exchange: its beginning, its deadlines, and its line in the log. */
#include "http_exchange.h"

#include <stdlib.h>
#include <string.h>

#include "../base/log.h"

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

int64_t srv_exchange_note_activity(struct srv_http *http) {
    int64_t now = srv_exchange_now_ms();
    atomic_store_explicit(&http->last_read_ms, now, memory_order_relaxed);
    return now;
}

bool srv_exchange_allow(struct srv_exchange *x, int64_t since_ms, uint64_t bytes, bool answered) {
    const struct srv_http_options *options = &x->http->options;
    int64_t earned_ms = (int64_t)((double)bytes * 1000 / (double)options->body_rate);
    return srv_watched_set(x->watched, since_ms + options->body_timeout_ms + earned_ms, answered);
}

static void exchange_free(struct srv_exchange *x) {
    api_request_free(x->request);
    api_response_free(x->response);
    free(x->body);
    free(x->raw_target);
    srv_head_fini(&x->head);
    free(x);
}

struct srv_exchange *srv_exchange_new(struct srv_connection *context, struct MHD_Connection *connection,
                                      const char *target) {
    struct srv_http *http = context->http;
    struct srv_exchange *x = calloc(1, sizeof *x);
    char *copy = strdup(target);
    int64_t now = srv_exchange_note_activity(http);
    if (!x || !copy || !srv_watched_hasten(context->watched, now + http->options.header_timeout_ms) ||
        !srv_exchange_count_in(http, 1, 0, 0)) {
        free(x);
        free(copy);
        return NULL;
    }
    x->http = http;
    x->watched = context->watched;
    x->connection = connection;
    x->raw_target = copy;
    x->id = atomic_fetch_add(&http->next_id, 1);
    clock_gettime(CLOCK_REALTIME, &x->began);
    clock_gettime(CLOCK_MONOTONIC, &x->began_monotonic);
    return x;
}

const struct sockaddr *srv_exchange_address(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    return info ? info->client_addr : NULL;
}

/* The path without query, and without scheme and host. A refused head has no parsed target. */
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
        status = (int)queued->http_status; /* libmicrohttpd refused the request itself */
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
        .token = x->token,
        .problem = too_slow ? nn_code_info(NN_E_TIMEOUT)->slug
                   : status ? x->problem
                            : NULL,
        .trace_id = x->trace.trace_id,
        .span_id = x->trace.span_id,
    });
}

void srv_exchange_end(struct srv_exchange *x, bool whole) {
    struct srv_http *http = x->http;
    if (http->options.log) log_exchange(x, whole);
    count_out(http, x->stage >= WAITING);
    exchange_free(x);
}
