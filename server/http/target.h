/* target.h - the target of a request line, cut into host, path and query (RFC 9112, section 3.2). */
#ifndef SRV_TARGET_H
#define SRV_TARGET_H

#include <stdbool.h>

/* All point into the text that was parsed. */
struct srv_target {
    const char *host;  /* the host of an absolute form, with its port; NULL: it is another form */
    char *path;        /* begins with '/'. Percent-decoded, except for %2F and %25, which keep names apart */
    const char *query; /* the raw text behind '?'; NULL: none */
    bool is_of_all;    /* the target is "*", or an absolute form without path and query */
};

/* Parses in place: "/path?query", "http://host/path?query", with `secure` also "https://…", and "*". False, with `text`
 * unchanged: the target has another form, a blank or a control character, an empty host, a broken escape or an encoded
 * NUL. */
bool srv_target_parse(char *text, bool secure, struct srv_target *target);

#endif
