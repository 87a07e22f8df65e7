/* watch.h - how long peers may take: every connection has a deadline, and ends when it is overdue.
 *
 * libmicrohttpd ends a connection that is silent. One that sends a byte now and then would stay, and with it what its
 * request has reserved. So the threads that serve a connection set its deadline as its request goes on, and somebody
 * else looks now and then who is overdue. */
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
    const char *last_word; /* to peers that are owed an answer; NULL: none. Borrowed */
};

void srv_watch_init(struct srv_watch *watch, const char *last_word);
/* No connection may be watched any more. */
void srv_watch_fini(struct srv_watch *watch);

/* The socket stays the caller's, and open until srv_watch_remove. NULL: no memory. */
struct srv_watched *srv_watch_add(struct srv_watch *watch, int fd, int64_t deadline_ms);
void srv_watch_remove(struct srv_watch *watch, struct srv_watched *watched); /* NULL: nothing */

#define SRV_NO_DEADLINE INT64_MAX

/* Sets a new deadline. `answered`: an answer has begun, and nothing else may be sent from now on; else a last word
 * may. False: too late, the connection is being ended, and no more is to be sent. By the thread that serves it. */
bool srv_watched_set(struct srv_watched *watched, int64_t deadline_ms, bool answered);
/* The same, if it is earlier than the one before. */
bool srv_watched_hasten(struct srv_watched *watched, int64_t deadline_ms);
/* Whether it was ended. */
bool srv_watched_is_overdue(const struct srv_watched *watched);

/* Ends connections whose deadline is before `now_ms`: shuts their sockets down, which whoever serves them sees. */
void srv_watch_sweep(struct srv_watch *watch, int64_t now_ms);

#endif
