/* trace.h - whose trace a request belongs to: the header traceparent (W3C Trace Context, section 3.2).
 *
 * gradd makes no spans of its own and calls nobody, so it takes the header for its log alone, and passes nothing on,
 * nor back. */
#ifndef SRV_TRACE_H
#define SRV_TRACE_H

#include <stdbool.h>

/* In hexadecimal; "" where there is none. */
struct srv_trace {
    char trace_id[33];
    char span_id[17]; /* the caller's, who sent the request: traceparent's parent-id */
};

/* False, and `trace` untouched: the header is not as it should be, and is to be ignored. */
bool srv_trace_parse(const char *traceparent, struct srv_trace *trace);

#endif
