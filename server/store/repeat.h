/* repeat.h - a thread that does one thing again and again, beside one that has something else to do. */
#ifndef SRV_REPEAT_H
#define SRV_REPEAT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct srv_repeat {
    pthread_t thread;
    bool begun;
    atomic_bool stop;
    bool (*step)(void *arg);
    void *arg;
};

/* Calls step(arg) until that is false. Without a thread to be had nothing is done: what is done here can be missed. */
void srv_repeat_begin(struct srv_repeat *repeat, bool (*step)(void *arg), void *arg);
/* No step is made any more when it returns. */
void srv_repeat_end(struct srv_repeat *repeat);

#endif
