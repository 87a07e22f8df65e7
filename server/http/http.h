/* http.h - HTTP around the API: the sole user of libmicrohttpd. */
#ifndef SRV_HTTP_H
#define SRV_HTTP_H

#include <stdbool.h>

#include "../../api/api.h"
#include "guard.h"
#include "listen.h"
#include "tls.h"

struct srv_http;

struct srv_http_options {
    unsigned io_threads;
    int connections, address_connections; /* at a time: all, and of one address */
    int64_t header_timeout_ms, body_timeout_ms, idle_timeout_ms;
    int64_t body_rate; /* bytes a second by which a body, or an answer, earns more time */
    size_t max_head;
    bool log;
    struct srv_guard guard; /* what this and the next point to lives as long as the daemon */
    struct srv_tls tls;
};

/* Serves `api` on `listener`; both are borrowed. NN_E_INTERNAL, NN_E_NOMEM. */
struct srv_http *srv_http_new(struct api *api, struct srv_listener *listener,
                              const struct srv_http_options *options, struct nn_error *err);

/* To be called some ten times a second: ends the connections of peers that take too long. */
void srv_http_tick(struct srv_http *http);

/* A graceful stop has five steps. Stops accepting connections, and has those that are open close behind
 * their next answer; */
void srv_http_drain(struct srv_http *http);
/* true as soon as no request is being answered, or read, and none is taken from then on; */
bool srv_http_finished(struct srv_http *http);
/* or, when that takes too long, from now on: whether no request is at the API, though some may be half read, and answers
 * half sent; */
bool srv_http_close(struct srv_http *http);
/* the threads that reply are to be ended; and at last the connections. */
void srv_http_free(struct srv_http *http);

#endif
