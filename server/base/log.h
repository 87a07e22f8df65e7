/* log.h - the log on standard error: a JSON line for each request, and lines of the process. */
#ifndef SRV_LOG_H
#define SRV_LOG_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "../../api/api.h"

struct srv_log_entry {
    struct timespec time; /* when the request began, by CLOCK_REALTIME */
    uint64_t id;
    const char *method, *path, *peer;
    int status;                   /* 0: the peer got no answer */
    uint64_t bytes_in, bytes_out; /* of the bodies */
    uint64_t microseconds;
    const char *token;              /* the token's name; NULL or "": none */
    const char *problem;            /* the answer's slug; NULL: no problem */
    const char *trace_id, *span_id; /* in hexadecimal; NULL or "": none */
};

#define SRV_LOG_LINE 4096 /* the greatest length, which a pipe takes in one piece */

/* Writes the line with its newline, and without a NUL. Long methods and paths are cut. Returns its length. */
size_t srv_log_format(char line[SRV_LOG_LINE], const struct srv_log_entry *entry);
void srv_log_write(const struct srv_log_entry *entry);

/* Logs a line of the process: "gradd: " and this text, cut where it is too long. */
void srv_log_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* From here to srv_log_end a thread writes the lines: nobody waits for the log's reader, and lines that do not fit the
 * queue are dropped (outlet.h). Before, lines are written at once. NN_E_INTERNAL. */
int srv_log_begin(struct nn_error *err);
/* Ends the log. Returns when all lines are written, or after a second. */
void srv_log_end(void);
/* The number of dropped lines. */
uint64_t srv_log_dropped(void);

#endif
