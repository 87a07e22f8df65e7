/* http_exchange.h - an exchange: one request and its answer. The files of a stair share it; each uses only those below:
 *
 *   http.c           the daemon, its connections, and the stages of an exchange
 *   http_replaced.c  functions of libmicrohttpd that ours replace: its own refusals, and headers as they come
 *   http_head.c      the head: is it sound, and admitted?
 *   http_answer.c    the answer, on its way to libmicrohttpd
 *   http_exchange.c  the life of an exchange, its deadlines, its line in the log
 *   http_library.c   the functions of libmicrohttpd that are replaced, and the length in a 304 */
#ifndef SRV_HTTP_EXCHANGE_H
#define SRV_HTTP_EXCHANGE_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "head.h"
#include "http.h"
#include "peer.h"
#include "target.h"
#include "trace.h"
#include "watch.h"

/* Memory of a connection. Half of it is the buffer through which bodies are read: as large as the segments of a fast
 * connection. With half as much, receiving a large body took up to twice as long. It is cleared after every request, so
 * more would make small requests slower, and large ones no faster. */
#define CONNECTION_MEMORY ((size_t)128 * 1024)

struct srv_http {
    struct api *api;
    struct srv_listener *listener;
    struct srv_http_options options;
    struct MHD_Daemon *daemon;
    struct srv_watch watch;
    char last_word[512]; /* of `watch` */
    atomic_uint_fast64_t next_id;
    atomic_bool draining;
    atomic_int_fast64_t last_read_ms; /* when a part of any request came */
    atomic_int serving;               /* requests that the API has not answered yet */
    pthread_mutex_t mutex;            /* guards the members below */
    int reading, answering;           /* exchanges whose request is incomplete; exchanges behind that */
    bool closed;                      /* no exchange may begin, or go on to its answer */
};

/* The data of a connection. */
struct srv_connection {
    struct srv_http *http;
    struct srv_watched *watched;
    struct srv_exchange
        *exchange; /* the present exchange, from its first line until its answer was sent; NULL: none */
};

struct srv_exchange {
    struct srv_http *http;
    struct MHD_Connection *connection;
    struct srv_watched *watched; /* the connection's */
    enum { HEAD, LOOKING, BODY, WAITING, DONE } stage;
    bool folded;    /* a line of the head was continued on the next line */
    bool continues; /* the peer waits for "100 Continue" before it sends the body */

    char *raw_target; /* owned; `target` points into it */
    struct srv_target target;
    struct srv_head head;

    struct api_request *request;   /* until it is submitted or refused */
    struct api_response *response; /* until it is queued; NULL: memory was out */
    atomic_int reply;
    struct srv_presence presence; /* of the peer, while the API has the request */
    int64_t length;               /* of the body; -1: chunked */
    char *body;
    size_t size, capacity;
    uint64_t discarded;
    int64_t body_began_ms;

    uint64_t id;
    struct srv_trace trace;
    char method[32];
    char token[API_TOKEN_NAME + 1]; /* the name of the request's token, for the log; "": none */
    const char *problem;            /* the slug of its answer, for the log; NULL: it is no problem */
    int status;
    uint64_t bytes_in, bytes_out;
    struct timespec began, began_monotonic;
};

/* Makes an exchange when its first line has come. NULL: memory is out, or the daemon is about to stop. */
struct srv_exchange *srv_exchange_new(struct srv_connection *context, struct MHD_Connection *connection,
                                      const char *target);
/* Logs an exchange and frees it. `whole`: all of its answer was sent. */
void srv_exchange_end(struct srv_exchange *x, bool whole);

/* Counts an exchange as being read, or moves one to those that are being answered. False: the daemon is about to stop,
 * and the exchange must not go on. */
bool srv_exchange_count_in(struct srv_http *http, int reading, int answering, int serving);

/* Sets the deadline of a body, or of an answer, that began at `since_ms` and has this many bytes; `answered` as in
 * watch.h. False: the time is over, and the connection is being ended. */
bool srv_exchange_allow(struct srv_exchange *x, int64_t since_ms, uint64_t bytes, bool answered);
int64_t srv_exchange_now_ms(void); /* monotonic */
/* Notes that a part of a request has come. Returns the time. */
int64_t srv_exchange_note_activity(struct srv_http *http);

/* The peer's address; NULL: it has none. */
const struct sockaddr *srv_exchange_address(struct MHD_Connection *connection);

/* Adds a header, with `behind` blanks behind its value. True: libmicrohttpd needs it too. */
bool srv_exchange_add_header(struct srv_exchange *x, const char *name, const char *value, size_t behind);

/* `handle` returns the result of these functions. Afterwards the stage is DONE if an answer is queued, and BODY if the
 * request goes on behind its head. */
enum MHD_Result srv_exchange_read_head(struct srv_exchange *x, const char *method, const char *version);
/* Queues the API's response. If the body is incomplete, the connection closes behind the answer. */
enum MHD_Result srv_exchange_answer(struct srv_exchange *x);
/* Queues a problem document of the server's own. */
enum MHD_Result srv_exchange_refuse(struct srv_exchange *x, enum nn_code code, const char *detail);
/* A response without a body. NULL: memory is out. */
struct MHD_Response *srv_exchange_no_content(void);
enum MHD_Result srv_exchange_queue_take(struct srv_exchange *x, struct MHD_Response *response);

/* Checks that the libraries' calls of the replaced functions reach http_replaced.c and http_library.c. */
bool srv_replaced_check(void);

/* Finds the functions that are replaced. False: the library does not have them. */
bool srv_library_find(void);
/* Has libmicrohttpd keep a header: its own MHD_set_connection_value_n. */
enum MHD_Result srv_library_keep(struct MHD_Connection *connection, const char *name, size_t name_size,
                                 const char *value, size_t size);
enum MHD_Result srv_library_queue(struct MHD_Connection *connection, unsigned status,
                                  struct MHD_Response *response);

/* A complete HTTP answer with a problem document, for a connection on which libmicrohttpd cannot answer any more. */
void srv_http_last_word(char *text, size_t room, enum nn_code code, const char *detail);

#endif
