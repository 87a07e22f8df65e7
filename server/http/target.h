/* target.h - the target of a request line, cut into path and query. */
#ifndef SRV_TARGET_H
#define SRV_TARGET_H

#include <stdbool.h>

/* Both lie in the text that was parsed. */
struct srv_target {
    char *path;        /* percent-decoded, begins with '/' */
    const char *query; /* as it came, behind '?'; NULL: none */
};

/* Works in place. Takes "/path?query" and "http://host/path?query". False, with `text` as it was, if it is
 * neither, holds a blank or control character, or its path a broken escape or an encoded NUL. */
bool srv_target_parse(char *text, struct srv_target *target);

#endif
