/* head.h - the headers of a request, and whether they say unambiguously where the request ends.
 *
 * libmicrohttpd accepts some heads that another server on the way may read differently (RFC 9112, sections 3.2, 5.1,
 * 6.1 and 6.3). If two servers disagree about the end of a request, one of them can be made to see a second request. */
#ifndef SRV_HEAD_H
#define SRV_HEAD_H

#include <stdbool.h>
#include <stddef.h>

enum srv_header {
#define SRV_HEADER(identifier, name, kind, sender) SRV_##identifier,
#include "headers.def"
#undef SRV_HEADER
    SRV_HEADERS
};

/* The lines of a header. Empty lines of a list are left out. */
struct srv_lines {
    int count;
    const char *value; /* the value of all lines; NULL: none. Borrowed, or `joined` */
    char *joined;      /* owned: the lines of a list */
    size_t size, room; /* of `joined` */
};

/* What is known of the headers. It begins as zeros. */
struct srv_head {
    struct srv_lines of[SRV_HEADERS];
    size_t size;    /* bytes of the lines so far */
    bool bad_name;  /* a header's name is not a token */
    bool bad_value; /* a header's value has a control character */
    bool no_memory; /* a list lacks lines, because memory was out */
};

/* Adds a line. `blanks` stand around the value and are not part of it. The value is borrowed. */
void srv_head_add(struct srv_head *head, const char *name, size_t blanks, const char *value);
void srv_head_fini(struct srv_head *head);

/* The value of a header. NULL: it is absent. */
const char *srv_head_value(const struct srv_head *head, enum srv_header header);
/* True if the body comes in chunks. */
bool srv_head_is_chunked(const struct srv_head *head);
/* Why the request must be refused, as a sentence; NULL: it need not. `version` is as in "HTTP/1.1". */
const char *srv_head_fault(const struct srv_head *head, const char *method, const char *version);

/* The headers that pages may send, for Access-Control-Allow-Headers. */
const char *srv_head_of_pages(void);

#endif
