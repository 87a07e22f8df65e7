/* ahead.h - a thread that runs ahead of one that reads, and does what that would wait for. */
#ifndef SRV_AHEAD_H
#define SRV_AHEAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct srv_ahead {
    pthread_t thread;
    bool begun;
    atomic_bool stop;
    bool (*step)(void *arg);
    void *arg;
};

/* Calls step(arg) again and again until that is false. Without a thread to be had nothing is done, and who reads waits. */
void srv_ahead_begin(struct srv_ahead *ahead, bool (*step)(void *arg), void *arg);
/* No step is made any more when it returns. */
void srv_ahead_end(struct srv_ahead *ahead);

#endif
