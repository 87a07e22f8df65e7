/* target.c - see target.h. RFC 9112 section 3.2; RFC 3986 section 2.1. */
#include "target.h"

#include <string.h>
#include <strings.h>

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The byte that the escape at `c` stands for; 0 if it is none that a path may hold. */
static char escaped(const char *c) {
    int high = hex(c[1]), low = high < 0 ? -1 : hex(c[2]);
    return low < 0 ? 0 : (char)(high * 16 + low);
}

bool srv_target_parse(char *text, struct srv_target *target) {
    static const char scheme[] = "http://";
    char *path = text;
    if (strncasecmp(text, scheme, sizeof scheme - 1) == 0) {
        path += sizeof scheme - 1;
        path += strcspn(path, "/?#"); /* any of which ends the host: what follows '?' is no path */
    }
    if (*path != '/') return false;
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 0x7f) return false;
    char *end = strchrnul(path, '?');
    for (const char *c = path; c < end; c++)
        if (*c == '%' && !escaped(c)) return false;

    *target = (struct srv_target){path, *end ? end + 1 : NULL};
    char *to = path;
    for (const char *c = path; c < end; c++) {
        bool escape = *c == '%';
        *to++ = escape ? escaped(c) : *c;
        if (escape) c += 2;
    }
    *to = 0;
    return true;
}
