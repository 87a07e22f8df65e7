/* ahead.c - see ahead.h. */
#include "ahead.h"

static void *run(void *arg) {
    struct srv_ahead *ahead = arg;
    while (!atomic_load(&ahead->stop) && ahead->step(ahead->arg)) continue;
    return NULL;
}

void srv_ahead_begin(struct srv_ahead *ahead, bool (*step)(void *arg), void *arg) {
    ahead->step = step;
    ahead->arg = arg;
    atomic_init(&ahead->stop, false);
    ahead->begun = pthread_create(&ahead->thread, NULL, run, ahead) == 0;
}

void srv_ahead_end(struct srv_ahead *ahead) {
    if (!ahead->begun) return;
    atomic_store(&ahead->stop, true);
    pthread_join(ahead->thread, NULL);
    ahead->begun = false;
}
