/* watch.c - see watch.h. */
#include "watch.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define OVERDUE INT64_MIN

struct srv_watched {
    struct srv_watched *next, *previous;
    int fd;
    atomic_int_fast64_t deadline_ms; /* OVERDUE from when it was found overdue */
    atomic_bool answered;
};

void srv_watch_init(struct srv_watch *watch, const char *last_word) {
    *watch = (struct srv_watch){.last_word = last_word};
    pthread_mutex_init(&watch->mutex, NULL);
}

void srv_watch_fini(struct srv_watch *watch) { pthread_mutex_destroy(&watch->mutex); }

struct srv_watched *srv_watch_add(struct srv_watch *watch, int fd, int64_t deadline_ms) {
    struct srv_watched *watched = calloc(1, sizeof *watched);
    if (!watched) return NULL;
    watched->fd = fd;
    atomic_init(&watched->deadline_ms, deadline_ms);
    pthread_mutex_lock(&watch->mutex);
    watched->next = watch->first;
    if (watch->first) watch->first->previous = watched;
    watch->first = watched;
    pthread_mutex_unlock(&watch->mutex);
    return watched;
}

void srv_watch_remove(struct srv_watch *watch, struct srv_watched *watched) {
    if (!watched) return;
    pthread_mutex_lock(&watch->mutex);
    *(watched->previous ? &watched->previous->next : &watch->first) = watched->next;
    if (watched->next) watched->next->previous = watched->previous;
    pthread_mutex_unlock(&watch->mutex);
    free(watched);
}

/* Only the thread that serves the connection sets deadlines. Only the sweep declares a connection overdue, and it stays
 * so. */
bool srv_watched_set(struct srv_watched *watched, int64_t deadline_ms, bool answered) {
    int_fast64_t before = atomic_load(&watched->deadline_ms);
    atomic_store(&watched->answered, answered);
    return before != OVERDUE && atomic_compare_exchange_strong(&watched->deadline_ms, &before, deadline_ms);
}

bool srv_watched_hasten(struct srv_watched *watched, int64_t deadline_ms) {
    int64_t before = atomic_load(&watched->deadline_ms);
    return srv_watched_set(watched, before < deadline_ms ? before : deadline_ms, false);
}

bool srv_watched_is_overdue(const struct srv_watched *watched) {
    return atomic_load(&watched->deadline_ms) == OVERDUE;
}

static void end(const struct srv_watch *watch, struct srv_watched *watched) {
    if (watch->last_word && !atomic_load(&watched->answered))
        send(watched->fd, watch->last_word, strlen(watch->last_word), MSG_DONTWAIT | MSG_NOSIGNAL);
    shutdown(watched->fd, SHUT_RDWR);
}

void srv_watch_sweep(struct srv_watch *watch, int64_t now_ms) {
    pthread_mutex_lock(&watch->mutex);
    for (struct srv_watched *at = watch->first; at; at = at->next) {
        int_fast64_t deadline = atomic_load(&at->deadline_ms);
        bool late = deadline != OVERDUE && deadline < now_ms;
        if (late && atomic_compare_exchange_strong(&at->deadline_ms, &deadline, OVERDUE)) end(watch, at);
    }
    pthread_mutex_unlock(&watch->mutex);
}
