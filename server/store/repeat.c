/* repeat.c - see repeat.h. */
#include "repeat.h"

static void *run(void *arg) {
    struct srv_repeat *repeat = arg;
    while (!atomic_load(&repeat->stop) && repeat->step(repeat->arg)) continue;
    return NULL;
}

void srv_repeat_begin(struct srv_repeat *repeat, bool (*step)(void *arg), void *arg) {
    repeat->step = step;
    repeat->arg = arg;
    atomic_init(&repeat->stop, false);
    repeat->begun = pthread_create(&repeat->thread, NULL, run, repeat) == 0;
}

void srv_repeat_end(struct srv_repeat *repeat) {
    if (!repeat->begun) return;
    atomic_store(&repeat->stop, true);
    pthread_join(repeat->thread, NULL);
    repeat->begun = false;
}
