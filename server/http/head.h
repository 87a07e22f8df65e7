/* head.h - whether the head of a request says in one way only where the request ends.
 *
 * libmicrohttpd lets some heads pass that another server on the way may read differently (RFC 9112, sections
 * 3.2, 5.1, 6.1 and 6.3). Whoever disagrees about the end of a request can be made to see another one there. */
#ifndef SRV_HEAD_H
#define SRV_HEAD_H

#include <stdbool.h>
#include <stddef.h>

/* What the headers come to; begins as zeros. */
struct srv_head {
    int hosts, lengths, codings, origins;
    size_t size;        /* of its lines so far, as far as they were understood */
    bool chunked;       /* the last coding is */
    bool bad_name;      /* a header's name is not a token */
    bool bad_value;     /* a header's value has a control character */
    bool continues;     /* Expect: 100-continue */
    const char *length; /* Content-Length; borrowed */
    int traces;
    const char *traceparent; /* the last one; borrowed */
};

/* `blanks` stand between the colon and the value. */
void srv_head_add(struct srv_head *head, const char *name, size_t blanks, const char *value);
/* Why the request is to be refused, a sentence; NULL: no reason. `version` as in "HTTP/1.1". */
const char *srv_head_fault(const struct srv_head *head, const char *method, const char *version);

#endif
