/* repeat.h - a thread that repeats a step while another thread is busy. */
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

/* Calls step(arg) until it returns false. If no thread can be started, the step is not made: it must be one that can be
 * missed. */
void srv_repeat_begin(struct srv_repeat *repeat, bool (*step)(void *arg), void *arg);
/* Returns when no step runs any more. */
void srv_repeat_end(struct srv_repeat *repeat);

#endif
