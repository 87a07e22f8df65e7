/* log.h - the log of requests: one JSON line each on standard error. */
#ifndef SRV_LOG_H
#define SRV_LOG_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct srv_log_entry {
    struct timespec time; /* of the request's beginning, CLOCK_REALTIME */
    uint64_t id;
    const char *method, *path, *peer;
    int status;                   /* 0: the peer got no answer */
    uint64_t bytes_in, bytes_out; /* of bodies */
    uint64_t microseconds;
    const char *trace_id, *span_id; /* in hexadecimal; NULL or "": none */
};

#define SRV_LOG_LINE 4096 /* at most; what a pipe takes in one piece */

/* The line with its end of line, and no NUL behind it; long methods and paths are cut. Its length. */
size_t srv_log_format(char line[SRV_LOG_LINE], const struct srv_log_entry *entry);
/* In one write, so that lines of several threads never mix. */
void srv_log_write(const struct srv_log_entry *entry);

#endif
