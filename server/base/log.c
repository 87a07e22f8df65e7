/* log.c - see log.h. */
#include "log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LONGEST 512 /* bytes of any one text; escaped, each may take six */

/* Text as a JSON string's inside, in ASCII: bytes beyond it appear as U+0080 to U+00FF, so that the line
 * is valid whatever a peer sent. */
static void escape(char out[6 * LONGEST + 1], const char *text, size_t longest) {
    char *to = out;
    for (size_t i = 0; i < longest && text[i]; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < ' ' || c > '~' || c == '"' || c == '\\')
            to += snprintf(to, 7, "\\u%04x", c);
        else
            *to++ = (char)c;
    }
    *to = 0;
}

size_t srv_log_format(char line[SRV_LOG_LINE], const struct srv_log_entry *entry) {
    char method[6 * LONGEST + 1], path[6 * LONGEST + 1], when[32];
    struct tm utc;
    gmtime_r(&entry->time.tv_sec, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc);
    escape(method, entry->method, 32);
    escape(path, entry->path, LONGEST);
    char trace[80] = "";
    if (entry->trace_id && *entry->trace_id)
        snprintf(trace, sizeof trace, ", \"trace_id\": \"%.32s\", \"span_id\": \"%.16s\"", entry->trace_id,
                 entry->span_id);
    int length = snprintf(line, SRV_LOG_LINE,
                          "{\"time\": \"%s.%06ldZ\", \"id\": \"%016" PRIx64 "\", \"method\": \"%s\", "
                          "\"path\": \"%s\", \"status\": %d, \"bytes_in\": %" PRIu64
                          ", \"bytes_out\": %" PRIu64 ", \"us\": %" PRIu64 ", \"peer\": \"%s\"%s}\n",
                          when, entry->time.tv_nsec / 1000, entry->id, method, path, entry->status,
                          entry->bytes_in, entry->bytes_out, entry->microseconds, entry->peer, trace);
    return (size_t)length;
}

void srv_log_write(const struct srv_log_entry *entry) {
    char line[SRV_LOG_LINE];
    size_t length = srv_log_format(line, entry);
    /* A log that cannot be written has nowhere to say so. */
    ssize_t written = write(STDERR_FILENO, line, length);
    (void)written;
}
