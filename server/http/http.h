/* http.h - HTTP around the API. The only user of libmicrohttpd. */
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
    int connections, address_connections; /* at a time: in all, and from one address */
    int64_t header_timeout_ms, body_timeout_ms, idle_timeout_ms;
    int64_t body_rate; /* bytes a second: a body, or an answer, gets more time as it goes on */
    size_t max_head;
    bool log;
    struct srv_guard guard; /* the texts of guard and tls live as long as the daemon */
    struct srv_tls tls;
};

/* Serves `api` on `listener`; both are borrowed. NN_E_INTERNAL, NN_E_NOMEM. */
struct srv_http *srv_http_new(struct api *api, struct srv_listener *listener,
                              const struct srv_http_options *options, struct nn_error *err);

/* To be called about ten times a second. Ends the connections of peers that take too long. */
void srv_http_tick(struct srv_http *http);

/* A graceful stop has five steps. (1) Stops accepting connections; open ones close behind their next answer. */
void srv_http_drain(struct srv_http *http);
/* (2) True once no request is being answered or read. From then on none is taken. */
bool srv_http_finished(struct srv_http *http);
/* (3) If that takes too long: takes no more requests from now on. True once the API has none, though some may be half
 * read, and answers half sent. */
bool srv_http_close(struct srv_http *http);
/* (4) The caller ends the threads that reply. (5) Ends the connections. */
void srv_http_free(struct srv_http *http);

#endif
