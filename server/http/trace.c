/* trace.c - see trace.h. */
#include "trace.h"

#include <string.h>

/* VERSION-TRACE_ID-PARENT_ID-FLAGS */
enum { VERSION = 2, TRACE_ID = 32, PARENT_ID = 16, FLAGS = 2 };
enum { SHORTEST = VERSION + 1 + TRACE_ID + 1 + PARENT_ID + 1 + FLAGS };

/* True if the text begins with exactly `size` lower-case hexadecimal digits. */
static bool is_field(const char *text, size_t size) { return strspn(text, "0123456789abcdef") == size; }

/* libmicrohttpd leaves blanks behind a header's value. */
static bool is_end(const char *text) { return !text[strspn(text, " \t")]; }

static bool is_zero(const char *text, size_t size) { return strspn(text, "0") >= size; }

bool srv_trace_parse(const char *traceparent, struct srv_trace *trace) {
    const char *trace_id = traceparent + VERSION + 1, *parent_id = trace_id + TRACE_ID + 1;
    const char *flags = parent_id + PARENT_ID + 1, *rest = flags + FLAGS;
    if (strlen(traceparent) < SHORTEST || !is_field(traceparent, VERSION) || trace_id[-1] != '-' ||
        !is_field(trace_id, TRACE_ID) || parent_id[-1] != '-' || !is_field(parent_id, PARENT_ID) ||
        flags[-1] != '-' || !is_field(flags, FLAGS))
        return false;
    /* Later versions may add fields behind those of this version. Version ff is invalid. */
    bool later = memcmp(traceparent, "00", VERSION) != 0;
    if (!is_end(rest) && !(later && *rest == '-')) return false;
    if (memcmp(traceparent, "ff", VERSION) == 0) return false;
    if (is_zero(trace_id, TRACE_ID) || is_zero(parent_id, PARENT_ID)) return false;
    memcpy(trace->trace_id, trace_id, TRACE_ID);
    memcpy(trace->span_id, parent_id, PARENT_ID);
    trace->trace_id[TRACE_ID] = trace->span_id[PARENT_ID] = '\0';
    return true;
}
