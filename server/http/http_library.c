/* http_library.c - the functions of libmicrohttpd that http_replaced.c replaces, and the length in a 304.
 *
 * libmicrohttpd writes "Content-Length: 0" into a 304, and has no option against it. It sends by calling send and
 * gnutls_record_send. The dynamic linker resolves these calls to the functions of the same names here, because the
 * program defines them, with default visibility whatever the build hides. */
#include <dlfcn.h>
#include <gnutls/gnutls.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "http_exchange.h"

typedef enum MHD_Result queue_fn(struct MHD_Connection *, unsigned, struct MHD_Response *);
typedef enum MHD_Result keep_fn(struct MHD_Connection *, enum MHD_ValueKind, const char *, size_t,
                                const char *, size_t);

#define MARK "X-No-Length"

/* The library's functions; and the end of the head of a 304, with a header whose random value only this process
 * knows. */
static struct {
    queue_fn *queue;
    keep_fn *keep;
    char mark[32 + 1];
    char tail[sizeof "\r\n" MARK ": \r\nContent-Length: 0\r\n\r\n" + 32];
} library;

static void find(const char *name, void *function) {
    void *found = dlsym(RTLD_NEXT, name);
    memcpy(function, &found, sizeof found);
}

static void find_all(void) {
    find("MHD_queue_response", (void *)&library.queue);
    find("MHD_set_connection_value_n", (void *)&library.keep);
    uint64_t drawn[2];
    if (getrandom(drawn, sizeof drawn, 0) != sizeof drawn) return;
    snprintf(library.mark, sizeof library.mark, "%016" PRIx64 "%016" PRIx64, drawn[0], drawn[1]);
    snprintf(library.tail, sizeof library.tail, "\r\n" MARK ": %s\r\nContent-Length: 0\r\n\r\n",
             library.mark);
}

bool srv_library_find(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_all);
    return library.queue && library.keep && library.mark[0];
}

enum MHD_Result srv_library_queue(struct MHD_Connection *connection, unsigned status,
                                  struct MHD_Response *response) {
    if (status == 304) MHD_add_response_header(response, MARK, library.mark);
    return library.queue(connection, status, response);
}

enum MHD_Result srv_library_keep(struct MHD_Connection *connection, const char *name, size_t name_size,
                                 const char *value, size_t size) {
    return library.keep(connection, MHD_HEADER_KIND, name, name_size, value, size);
}

/* --- a 304's length ------------------------------------------------------------------------------- */

/* Replaces the length in a 304 by blanks behind the value before it, which mean nothing (RFC 9110, section 5.6.3). A
 * 304 may tell only the length of the answer 200, which was not made (section 8.6). The head is in the library's own
 * buffer, which may be changed. But over TLS the library sends bodies by the same calls, directly out of models, and a
 * client may have chosen their bytes. So the end of such a head is recognised by a header with a random value, which is
 * blanked too. */
static void blank_length(const void *data, size_t size) {
    static const char status[] = "HTTP/1.1 304 ";
    size_t status_size = sizeof status - 1, tail_size = sizeof library.tail - 1;
    if (size < status_size + tail_size || memcmp(data, status, status_size) != 0) return;
    char *tail = (char *)(uintptr_t)data + size - tail_size;
    if (memcmp(tail, library.tail, tail_size) == 0) memset(tail, ' ', tail_size - strlen("\r\n\r\n"));
}

#pragma GCC visibility push(default)

/* The declaration has the C library's own names of parameters.
 * NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name) */
ssize_t send(int fd, const void *data, size_t size, int flags) {
    blank_length(data, size);
    return sendto(fd, data, size, flags, NULL, 0);
}

ssize_t gnutls_record_send(gnutls_session_t session, const void *data, size_t size) {
    blank_length(data, size);
    return gnutls_record_send2(session, data, size, 0, 0);
}

#pragma GCC visibility pop
