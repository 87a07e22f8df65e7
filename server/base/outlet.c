/* outlet.c - see outlet.h.
 *
 * The queue is a ring of bytes: for each line a head and its text. A line stays until it is written, so that after a
 * partial write the writer knows which lines came through. */
#include "outlet.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct head {
    uint32_t size;
    uint32_t tells; /* for a line about dropped lines: how many; 0: an ordinary line */
};

/* Writes everything. Returns the number of bytes that could not be written. */
static size_t write_all(int fd, const char *bytes, size_t size) {
    while (size > 0) {
        ssize_t put = write(fd, bytes, size);
        if (put < 0 && errno == EAGAIN) poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
        if (put < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (put <= 0) break;
        bytes += put;
        size -= (size_t)put;
    }
    return size;
}

/* --- the queue; the mutex is held ------------------------------------------------------------------------- */

static void copy_in(struct srv_outlet *outlet, const void *bytes, size_t size) {
    size_t end = (outlet->first + outlet->used) % outlet->room;
    size_t ahead = outlet->room - end < size ? outlet->room - end : size;
    memcpy(outlet->ring + end, bytes, ahead);
    memcpy(outlet->ring, (const char *)bytes + ahead, size - ahead);
    outlet->used += size;
}

/* Copies bytes that stand `behind` bytes behind the queue's beginning. */
static void copy_out(const struct srv_outlet *outlet, size_t behind, void *bytes, size_t size) {
    size_t begin = (outlet->first + behind) % outlet->room;
    size_t ahead = outlet->room - begin < size ? outlet->room - begin : size;
    memcpy(bytes, outlet->ring + begin, ahead);
    memcpy((char *)bytes + ahead, outlet->ring, size - ahead);
}

static bool push(struct srv_outlet *outlet, const char *line, size_t size, uint64_t tells) {
    struct head head = {(uint32_t)size, tells > UINT32_MAX ? UINT32_MAX : (uint32_t)tells};
    if (outlet->room - outlet->used < sizeof head + size) return false;
    copy_in(outlet, &head, sizeof head);
    copy_in(outlet, line, size);
    return true;
}

static void tell_dropped(struct srv_outlet *outlet) {
    char line[128];
    int size =
        snprintf(line, sizeof line,
                 "gradd: %" PRIu64 " lines are missing here: they were not read, or could not be written\n",
                 outlet->untold);
    if (!push(outlet, line, (size_t)size, outlet->untold)) return;
    outlet->untold = 0;
    outlet->overflowing = false;
}

static void drop(struct srv_outlet *outlet) {
    outlet->dropped++;
    outlet->untold++;
    outlet->overflowing = true;
}

/* After an overflow the queue takes no line until it is half empty: so lines are missing in few places, and not between
 * any two. */
static void queue(struct srv_outlet *outlet, const char *line, size_t size) {
    if (outlet->overflowing && outlet->used <= outlet->room / 2) tell_dropped(outlet);
    if (outlet->overflowing || !push(outlet, line, size, 0))
        drop(outlet);
    else
        pthread_cond_signal(&outlet->work);
}

/* --- the writer ------------------------------------------------------------------------------------------- */

/* Copies whole lines from the queue's beginning, as many as one write takes. Returns their bytes. */
static size_t gather(const struct srv_outlet *outlet, char chunk[SRV_OUTLET_LINE]) {
    size_t size = 0;
    struct head head;
    for (size_t at = 0; at < outlet->used; at += sizeof head + head.size) {
        copy_out(outlet, at, &head, sizeof head);
        if (size + head.size > SRV_OUTLET_LINE) break;
        copy_out(outlet, at + sizeof head, chunk + size, head.size);
        size += head.size;
    }
    return size;
}

/* Removes the lines of `size` bytes from the queue; `written` bytes of them came through. */
static void settle(struct srv_outlet *outlet, size_t size, size_t written) {
    struct head head;
    for (size_t end = 0; end < size;) {
        copy_out(outlet, 0, &head, sizeof head);
        outlet->first = (outlet->first + sizeof head + head.size) % outlet->room;
        outlet->used -= sizeof head + head.size;
        end += head.size;
        if (end <= written) continue;
        if (head.tells) {
            outlet->untold += head.tells;
            outlet->overflowing = true;
        } else {
            drop(outlet);
        }
    }
    outlet->failing = written < size;
}

static void *write_lines(void *self) {
    struct srv_outlet *outlet = self;
    char chunk[1 + SRV_OUTLET_LINE] = "\n";
    bool torn = false; /* a line was written in part, and must be ended before the next line */
    pthread_setname_np(pthread_self(), "gradd-log");
    pthread_mutex_lock(&outlet->mutex);
    for (;;) {
        if (!outlet->used && outlet->overflowing && !outlet->failing) tell_dropped(outlet);
        size_t size = gather(outlet, chunk + 1);
        if (!size && outlet->closed) break;
        if (!size) {
            pthread_cond_wait(&outlet->work, &outlet->mutex);
            continue;
        }
        pthread_mutex_unlock(&outlet->mutex);
        size_t missing = write_all(outlet->fd, torn ? chunk : chunk + 1, torn ? size + 1 : size);
        size_t written = missing < size ? size - missing : 0;
        torn = written > 0 ? chunk[written] != '\n' : torn;
        pthread_mutex_lock(&outlet->mutex);
        settle(outlet, size, written);
    }
    outlet->ended = true;
    pthread_cond_signal(&outlet->over);
    pthread_mutex_unlock(&outlet->mutex);
    return NULL;
}

/* --- from outside ------------------------------------------------------------------------------------------ */

static void cond_init(pthread_cond_t *cond) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attributes);
    pthread_condattr_destroy(&attributes);
}

bool srv_outlet_begin(struct srv_outlet *outlet, size_t room) {
    *outlet = (struct srv_outlet){.fd = outlet->fd, .room = room, .ring = malloc(room)};
    if (!outlet->ring) return false;
    pthread_mutex_init(&outlet->mutex, NULL);
    cond_init(&outlet->work);
    cond_init(&outlet->over);
    outlet->begun = pthread_create(&outlet->thread, NULL, write_lines, outlet) == 0;
    if (!outlet->begun) free(outlet->ring);
    return outlet->begun;
}

void srv_outlet_put(struct srv_outlet *outlet, const char *line, size_t size) {
    char cut[SRV_OUTLET_LINE];
    if (size > sizeof cut) {
        size = sizeof cut;
        memcpy(cut, line, size - 1);
        cut[size - 1] = '\n';
        line = cut;
    }
    if (!outlet->begun) {
        write_all(outlet->fd, line, size);
        return;
    }
    pthread_mutex_lock(&outlet->mutex);
    if (outlet->closed)
        drop(outlet);
    else
        queue(outlet, line, size);
    pthread_mutex_unlock(&outlet->mutex);
}

uint64_t srv_outlet_dropped(struct srv_outlet *outlet) {
    if (!outlet->begun) return 0;
    pthread_mutex_lock(&outlet->mutex);
    uint64_t dropped = outlet->dropped;
    pthread_mutex_unlock(&outlet->mutex);
    return dropped;
}

void srv_outlet_end(struct srv_outlet *outlet, int64_t most_ms) {
    struct timespec until;
    if (!outlet->begun || outlet->closed) return;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += most_ms / 1000;
    until.tv_nsec += most_ms % 1000 * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&outlet->mutex);
    outlet->closed = true;
    pthread_cond_signal(&outlet->work);
    while (!outlet->ended && pthread_cond_timedwait(&outlet->over, &outlet->mutex, &until) == 0) continue;
    bool ended = outlet->ended;
    pthread_mutex_unlock(&outlet->mutex);
    if (ended) pthread_join(outlet->thread, NULL);
}
