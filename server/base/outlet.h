/* outlet.h - writes lines to a descriptor whose reader may be slow, or may never read.
 *
 * Writing to a full pipe waits for its reader. So lines are put into a bounded queue, which never waits, and a thread
 * of the outlet writes them. A line that does not fit, or cannot be written, is dropped and counted; when lines pass
 * again, a line tells how many are missing at its place. */
#ifndef SRV_OUTLET_H
#define SRV_OUTLET_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The greatest length of a line, with its newline: a pipe takes so much in one piece. A longer line is cut. */
#define SRV_OUTLET_LINE 4096

/* Begins as zeros but for `fd`. Until srv_outlet_begin, the thread that puts a line writes it. */
struct srv_outlet {
    int fd;
    bool begun;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards the members below */
    pthread_cond_t work, over;
    char *ring;
    size_t room, first, used;
    bool closed, ended;       /* no line is taken any more; all lines are written */
    bool overflowing;         /* lines are being dropped until the queue is half empty */
    bool failing;             /* the last write failed */
    uint64_t dropped, untold; /* dropped lines: all of them, and those that no line has told of */
};

/* Starts the thread, with a queue of `room` bytes. To be called before there are other threads. False: there is no
 * memory, or no thread. */
bool srv_outlet_begin(struct srv_outlet *outlet, size_t room);
/* Puts a line with its newline. Lines never mix. From any thread, but not from a signal handler. */
void srv_outlet_put(struct srv_outlet *outlet, const char *line, size_t size);
uint64_t srv_outlet_dropped(struct srv_outlet *outlet);
/* Ends the outlet: writes the queued lines, and drops later ones. Returns when all is written, or after `most_ms`. The
 * outlet must stay in place until the process ends, because its thread may still write. */
void srv_outlet_end(struct srv_outlet *outlet, int64_t most_ms);

#endif
