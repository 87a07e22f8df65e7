/* trace.h - the trace that a request belongs to: the header traceparent (W3C Trace Context, section 3.2).
 *
 * gradd makes no spans and calls no other service. It writes the header's fields to its log, and sends them nowhere. */
#ifndef SRV_TRACE_H
#define SRV_TRACE_H

#include <stdbool.h>

/* In hexadecimal; "": none. */
struct srv_trace {
    char trace_id[33];
    char span_id[17]; /* the caller's span: traceparent's parent-id */
};

/* False, with `trace` unchanged: the header is malformed and must be ignored. */
bool srv_trace_parse(const char *traceparent, struct srv_trace *trace);

#endif
