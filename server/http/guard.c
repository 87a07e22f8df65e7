/* guard.c - see guard.h. */
#include "guard.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

static const char separators[] = ", \t";

/* The next entry of a list, and its length; 0 at the end. */
static size_t next_entry(const char **list) {
    if (!*list) return 0;
    *list += strspn(*list, separators);
    return strcspn(*list, separators);
}

static bool is_among(const char *list, const char *value, size_t length) {
    for (size_t n; (n = next_entry(&list)); list += n)
        if (n == length && strncasecmp(list, value, n) == 0) return true;
    return false;
}

/* The length of the host in "HOST", "HOST:PORT" or "[HOST]:PORT", with its brackets. */
static size_t host_length(const char *host) {
    const char *end = *host == '[' ? strchr(host, ']') : NULL;
    return end ? (size_t)(end + 1 - host) : strcspn(host, ":");
}

static bool is_address(const char *host, size_t length) {
    char text[INET6_ADDRSTRLEN];
    unsigned char address[16];
    bool brackets = length >= 2 && host[0] == '[' && host[length - 1] == ']';
    if (brackets) host++, length -= 2;
    if (length == 0 || length >= sizeof text) return false;
    memcpy(text, host, length);
    text[length] = '\0';
    return inet_pton(brackets ? AF_INET6 : AF_INET, text, address) == 1;
}

static bool is_ours(const struct srv_guard *guard, const char *host) {
    size_t length = host_length(host);
    const char *rest = host + length;
    if (*rest && (*rest != ':' || strspn(rest + 1, "0123456789") != strlen(rest + 1))) return false;
    if (is_address(host, length) || is_among("localhost", host, length)) return true;
    if (is_among(guard->hosts, "*", 1) || is_among(guard->hosts, host, length)) return true;
    return guard->listen && host_length(guard->listen) == length && length > 0 &&
           strncasecmp(guard->listen, host, length) == 0;
}

bool srv_guard_allows(const struct srv_guard *guard, const char *origin) {
    return is_among(guard->origins, origin, strlen(origin));
}

const char *srv_guard_fault(const struct srv_guard *guard, const char *host, const char *origin) {
    if (host && !is_ours(guard, host))
        return "Host is neither an address nor a name of this service: see --allowed-hosts.";
    if (origin && !srv_guard_allows(guard, origin))
        return "Pages of this Origin may not call: see --allowed-origins.";
    return NULL;
}

int srv_guard_check(const struct srv_guard *guard, struct nn_error *err) {
    const char *list = guard->hosts;
    for (size_t n; (n = next_entry(&list)); list += n)
        if (strcspn(list, ":/[]") < n)
            return nn_fail(err, NN_E_VALUE,
                           "allowed-hosts: \"%.*s\" is no name: without scheme, port and path", (int)n, list);
    list = guard->origins;
    for (size_t n; (n = next_entry(&list)); list += n) {
        const char *name = memmem(list, n, "://", 3);
        if (!name || memchr(name + 3, '/', (size_t)(list + n - name - 3)))
            return nn_fail(err, NN_E_VALUE,
                           "allowed-origins: \"%.*s\" is not SCHEME://HOST, perhaps with :PORT", (int)n,
                           list);
    }
    return NN_OK;
}
