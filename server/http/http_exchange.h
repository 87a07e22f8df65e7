/* http_exchange.h - one request and its answer, as the files of http.h share them: http.c takes it through its
 * stages, http_head.c reads its head, http_answer.c sends its answer. */
#ifndef SRV_HTTP_EXCHANGE_H
#define SRV_HTTP_EXCHANGE_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "http.h"
#include "target.h"
#include "trace.h"
#include "watch.h"

/* Half of it is the buffer that bodies are read through: as large as the segments of a fast connection. With half
 * of that, to receive a large body took up to twice as long. All of it is cleared after every request, so that more
 * makes small requests slower, and large ones no faster. */
#define CONNECTION_MEMORY ((size_t)128 * 1024)

struct srv_http {
    struct api *api;
    struct srv_listener *listener;
    struct srv_http_options options;
    struct MHD_Daemon *daemon;
    struct srv_watch watch;
    char last_word[512]; /* of it */
    atomic_uint_fast64_t next_id;
    atomic_bool draining;
    atomic_int_fast64_t last_read_ms; /* when a piece of any request came */
    atomic_int serving;               /* requests that the API has, and has not answered */
    pthread_mutex_t mutex;            /* of what follows */
    int reading, answering;           /* exchanges: before and after their request is whole or refused */
    bool closed;                      /* no more begin, and none goes on to be answered */
};

struct srv_exchange {
    struct srv_http *http;
    struct MHD_Connection *connection;
    struct srv_watched *watched; /* the connection's */
    enum { HEAD, LOOKING, BODY, WAITING, DONE } stage;

    char *raw_target; /* owned; `target` points into it */
    struct srv_target target;

    struct api_request *request;   /* until it is submitted or refused */
    struct api_response *response; /* until it is queued; NULL then means that memory is out */
    atomic_int reply;
    int64_t length; /* of the body as told; -1: chunked */
    bool continues; /* its peer waits for a word before it sends the body */
    char *body;
    size_t size, capacity;
    uint64_t discarded;
    int64_t body_began_ms;

    uint64_t id;
    struct srv_trace trace;
    char method[32];
    int status;
    uint64_t bytes_in, bytes_out;
    struct timespec began, began_monotonic;
};

/* Counts one more exchange as being read, or one of those as being answered. False: too late, the daemon
 * is about to be stopped. */
bool srv_exchange_count_in(struct srv_http *http, int reading, int answering, int serving);

/* Gives the peer the time that a body or an answer of so many bytes may take since then; `answered` as in watch.h.
 * False: it has had too long, and its connection is being ended. */
bool srv_exchange_allow(struct srv_exchange *x, int64_t since_ms, uint64_t bytes, bool answered);
int64_t srv_exchange_now_ms(void); /* monotonic */

/* A header's value, or NULL. */
const char *srv_exchange_header(const struct srv_exchange *x, const char *name);
/* Of the peer; NULL if it has none. */
const struct sockaddr *srv_exchange_address(struct MHD_Connection *connection);

/* What these return, `handle` is to return. The stage is DONE once an answer is queued, and BODY if the request
 * goes on behind its head. */
enum MHD_Result srv_exchange_read_head(struct srv_exchange *x, const char *method, const char *version);
/* With what the API said; before the body is whole, this closes the connection behind it. */
enum MHD_Result srv_exchange_answer(struct srv_exchange *x);
/* With a problem document of our own. */
enum MHD_Result srv_exchange_refuse(struct srv_exchange *x, enum nn_code code, const char *detail);
enum MHD_Result srv_exchange_queue_take(struct srv_exchange *x, struct MHD_Response *response);

/* A whole answer with a problem document, as it is sent to whom libmicrohttpd cannot answer. */
void srv_http_last_word(char *text, size_t room, enum nn_code code, const char *detail);

#endif
