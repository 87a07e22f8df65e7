/* log.c - see log.h. */
#include "log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../../api/api.h"
#include "outlet.h"

#define LONGEST 512 /* bytes of one text in a line; escaped, each may take six */

/* Escapes a text for a JSON string, in ASCII. Bytes beyond ASCII appear as U+0080 to U+00FF, so that the line is valid
 * whatever a peer sent. */
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
    char token[API_TOKEN_NAME + sizeof ", \"token\": \"\""] = "", problem[64] = "", trace[80] = "";
    if (entry->token && *entry->token)
        snprintf(token, sizeof token, ", \"token\": \"%.*s\"", API_TOKEN_NAME, entry->token);
    if (entry->problem) snprintf(problem, sizeof problem, ", \"problem\": \"%.40s\"", entry->problem);
    if (entry->trace_id && *entry->trace_id)
        snprintf(trace, sizeof trace, ", \"trace_id\": \"%.32s\", \"span_id\": \"%.16s\"", entry->trace_id,
                 entry->span_id);
    int length =
        snprintf(line, SRV_LOG_LINE,
                 "{\"time\": \"%s.%06ldZ\", \"id\": \"%016" PRIx64 "\", \"method\": \"%s\", "
                 "\"path\": \"%s\", \"status\": %d, \"bytes_in\": %" PRIu64 ", \"bytes_out\": %" PRIu64
                 ", \"us\": %" PRIu64 ", \"peer\": \"%s\"%s%s%s}\n",
                 when, entry->time.tv_nsec / 1000, entry->id, method, path, entry->status, entry->bytes_in,
                 entry->bytes_out, entry->microseconds, entry->peer, token, problem, trace);
    return (size_t)length;
}

/* --- the queue --------------------------------------------------------------------------------------------- */

#define ROOM           ((size_t)1 << 20) /* bytes of lines in the queue */
#define LONGEST_END_MS 1000              /* how long a stop waits for the reader of the log */

static struct srv_outlet outlet = {.fd = STDERR_FILENO};

int srv_log_begin(struct nn_error *err) {
    if (srv_outlet_begin(&outlet, ROOM)) return NN_OK;
    return nn_fail(err, NN_E_INTERNAL, "the thread that writes the log cannot be started");
}

void srv_log_end(void) { srv_outlet_end(&outlet, LONGEST_END_MS); }

uint64_t srv_log_dropped(void) { return srv_outlet_dropped(&outlet); }

void srv_log_write(const struct srv_log_entry *entry) {
    char line[SRV_LOG_LINE];
    size_t length = srv_log_format(line, entry);
    srv_outlet_put(&outlet, line, length);
}

void srv_log_say(const char *format, ...) {
    char line[SRV_LOG_LINE] = "gradd: ";
    const size_t begin = sizeof "gradd: " - 1;
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line + begin, sizeof line - begin - 1, format, args);
    va_end(args);
    if (length < 0) return;
    size_t end =
        begin + ((size_t)length < sizeof line - begin - 1 ? (size_t)length : sizeof line - begin - 2);
    line[end] = '\n';
    srv_outlet_put(&outlet, line, end + 1);
}
