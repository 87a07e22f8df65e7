/* watch.h - deadlines of connections: an overdue connection is ended.
 *
 * libmicrohttpd ends connections that are silent. A peer that sends a byte now and then would keep its connection, and
 * the memory that its request has reserved. So the threads that serve connections set deadlines, and another thread
 * sweeps for overdue ones. */
#ifndef SRV_WATCH_H
#define SRV_WATCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct srv_watched; /* a connection */

struct srv_watch {
    pthread_mutex_t mutex;
    struct srv_watched *first;
    const char *last_word; /* sent to peers that are owed an answer; NULL: nothing. Borrowed */
};

void srv_watch_init(struct srv_watch *watch, const char *last_word);
/* No connection may be watched any more. */
void srv_watch_fini(struct srv_watch *watch);

/* The socket stays the caller's, and open until srv_watch_remove. NULL: memory is out. */
struct srv_watched *srv_watch_add(struct srv_watch *watch, int fd, int64_t deadline_ms);
void srv_watch_remove(struct srv_watch *watch, struct srv_watched *watched); /* NULL does nothing */

#define SRV_NO_DEADLINE INT64_MAX

/* Sets a new deadline, on the thread that serves the connection. `answered`: an answer has begun, so no last word may
 * be sent. False: the connection is being ended, and nothing may be sent any more. */
bool srv_watched_set(struct srv_watched *watched, int64_t deadline_ms, bool answered);
/* The same, if the new deadline is earlier. */
bool srv_watched_hasten(struct srv_watched *watched, int64_t deadline_ms);
/* True if the connection was ended. */
bool srv_watched_is_overdue(const struct srv_watched *watched);

/* Ends connections whose deadline is before `now_ms`, by shutting their sockets down. The threads that serve them
 * notice. */
void srv_watch_sweep(struct srv_watch *watch, int64_t now_ms);

#endif
