/* target.c - see target.h. RFC 9112 section 3.2; RFC 3986 sections 2.1 and 2.2. */
#include "target.h"

#include <string.h>
#include <strings.h>

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The byte of the escape at `c`; 0 if a path may not have it. */
static char escaped(const char *c) {
    int high = hex(c[1]), low = high < 0 ? -1 : hex(c[2]);
    return low < 0 ? 0 : (char)(high * 16 + low);
}

/* Escapes of '/' stay, because such a slash does not separate segments; and so do escapes of '%', to tell them from
 * these. */
static void decode(char *path) {
    char *to = path;
    for (const char *c = path; *c; c++) {
        char byte = *c == '%' ? escaped(c) : 0;
        bool stays = byte == 0 || byte == '/' || byte == '%';
        *to++ = stays ? *c : byte;
        if (!stays) c += 2;
    }
    *to = '\0';
}

/* The host of an absolute form. NULL: it is another form. */
static char *find_host(char *text, bool secure) {
    if (strncasecmp(text, "http://", 7) == 0) return text + 7;
    if (secure && strncasecmp(text, "https://", 8) == 0) return text + 8;
    return NULL;
}

bool srv_target_parse(char *text, bool secure, struct srv_target *target) {
    char *host = find_host(text, secure);
    size_t size = host ? strcspn(host, "/?#") : 0; /* each of these ends the host: a '?' begins the query */
    char *path = host ? host + size : text;
    bool has_path = *path == '/', is_asterisk = !host && strcmp(text, "*") == 0;
    if (host && (size == 0 || *path == '#')) return false;
    if (!host && !has_path && !is_asterisk) return false;
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 0x7f) return false;
    char *end = strchrnul(path, '?');
    for (const char *c = path; c < end; c++)
        if (*c == '%' && !escaped(c)) return false;

    *target = (struct srv_target){.path = path, .query = *end ? end + 1 : NULL};
    target->is_of_all = is_asterisk || (host && !has_path && !target->query);
    *end = '\0';
    if (host) { /* the host moves two bytes to the left, over "//": that leaves room for its NUL, and for a path */
        host = memmove(host - 2, host, size);
        target->host = host;
        host[size] = '\0';
        if (!has_path) {
            host[size + 1] = '/';
            target->path = host + size + 1;
        }
    }
    decode(target->path);
    return true;
}
