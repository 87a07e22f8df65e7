/* listen.c - see listen.h.
 *
 * Accepting has a thread of its own, because libmicrohttpd cannot stop accepting under load: up to 1.0,
 * MHD_quiesce_daemon races its own threads to take the socket out of their epoll sets, and the loser aborts. So this
 * thread also holds back at the limit of connections. */
#include "listen.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../base/log.h"

struct srv_listener {
    int fd;
    int wake; /* an eventfd that wakes the thread */
    char *url;
    char *path; /* of a Unix socket */
    struct stat file;
    bool running; /* the thread runs */
    atomic_bool stopping;
    atomic_int open;
    int connections;
    int last_file; /* the highest descriptor that a connection may have; higher ones are for files */
    atomic_bool short_of_files;
    srv_accept_fn *accepted;
    void *self;
    pthread_t thread;
};

/* --- addresses ---------------------------------------------------------------------------------- */

static bool is_loopback(const struct sockaddr *address) {
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)address;
        return ntohl(in->sin_addr.s_addr) >> 24 == 127;
    }
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)address;
        return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr) ||
               (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr) && in6->sin6_addr.s6_addr[12] == 127);
    }
    return false;
}

/* Splits "HOST:PORT" or "[HOST]:PORT". */
static bool split(const char *address, char host[256], char port[6]) {
    const char *colon = strrchr(address, ':');
    if (!colon) return false;
    const char *begin = address, *end = colon;
    bool brackets = *begin == '[';
    if (brackets) {
        if (end - begin < 3 || end[-1] != ']') return false;
        begin++, end--;
    }
    size_t length = (size_t)(end - begin), digits = strlen(colon + 1);
    if (length == 0 || length > 255 || (!brackets && memchr(begin, ':', length))) return false;
    if (digits == 0 || digits > 5 || strspn(colon + 1, "0123456789") != digits) return false;
    memcpy(host, begin, length);
    host[length] = 0;
    memcpy(port, colon + 1, digits + 1);
    return strtol(port, NULL, 10) <= 65535;
}

static int fail_system(struct nn_error *err, const char *address) {
    return nn_fail(err, NN_E_BUSY, "cannot listen on %s: %s", address, strerror(errno));
}

static int open_socket(struct srv_listener *listener, const struct sockaddr *address, socklen_t length) {
    listener->fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener->fd < 0) return -1;
    int on = 1;
    if (address->sa_family != AF_UNIX) setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener->fd, address, length) == 0) return 0;
    int error = errno;
    close(listener->fd);
    listener->fd = -1;
    errno = error;
    return -1;
}

/* --- TCP ---------------------------------------------------------------------------------------- */

static char *url_of(int fd) {
    struct sockaddr_storage bound = {0};
    socklen_t length = sizeof bound;
    char host[256], port[16], *url;
    if (getsockname(fd, (struct sockaddr *)&bound, &length) != 0 ||
        getnameinfo((struct sockaddr *)&bound, length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return NULL;
    const char *form = bound.ss_family == AF_INET6 ? "http://[%s]:%s" : "http://%s:%s";
    return asprintf(&url, form, host, port) < 0 ? NULL : url;
}

static int open_tcp(struct srv_listener *listener, const char *address, bool may_be_public,
                    struct nn_error *err) {
    char host[256], port[6];
    if (!split(address, host, port))
        return nn_fail(err, NN_E_VALUE, "listen: \"%s\" is not HOST:PORT, [HOST]:PORT or unix:PATH", address);
    struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    int failure = getaddrinfo(host, port, &hints, &found);
    if (failure) return nn_fail(err, NN_E_VALUE, "listen: \"%s\": %s", host, gai_strerror(failure));
    int code = NN_OK;
    if (!may_be_public && !is_loopback(found->ai_addr))
        code = nn_fail(err, NN_E_FORBIDDEN,
                       "listen: %s can be reached from other machines, and there is no token: give one "
                       "(--token-file, --secret-file or GRADD_TOKEN), or listen on 127.0.0.1",
                       address);
    else if (open_socket(listener, found->ai_addr, found->ai_addrlen) != 0 ||
             !(listener->url = url_of(listener->fd)))
        code = fail_system(err, address);
    freeaddrinfo(found);
    return code;
}

/* --- Unix sockets ------------------------------------------------------------------------------- */

/* True if the file is a socket on which nobody listens. */
static bool is_left_over(const struct sockaddr_un *address) {
    struct stat file;
    if (lstat(address->sun_path, &file) != 0 || !S_ISSOCK(file.st_mode)) return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                    0); /* not blocking, because the other's queue may be full */
    bool refused = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 &&
                   errno == ECONNREFUSED;
    if (fd >= 0) close(fd);
    return refused;
}

static int open_unix(struct srv_listener *listener, const char *address, mode_t mode, struct nn_error *err) {
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    const char *path = strchr(address, ':') + 1;
    if (!*path || strlen(path) >= sizeof un.sun_path)
        return nn_fail(err, NN_E_VALUE, "listen: a Unix socket's path has 1 to %zu bytes",
                       sizeof un.sun_path - 1);
    memcpy(un.sun_path, path, strlen(path));
    int opened = open_socket(listener, (struct sockaddr *)&un, sizeof un);
    if (opened != 0 && errno == EADDRINUSE && is_left_over(&un) && unlink(path) == 0)
        opened = open_socket(listener, (struct sockaddr *)&un, sizeof un);
    if (opened != 0) return fail_system(err, address);
    listener->url = strdup(address);
    listener->path = strdup(path);
    /* Nobody can connect before listen, so the file never has another mode. */
    if (!listener->url || !listener->path || chmod(path, mode) != 0 || lstat(path, &listener->file) != 0)
        return fail_system(err, address);
    return NN_OK;
}

static void remove_file(const struct srv_listener *listener) {
    struct stat now;
    if (listener->path && lstat(listener->path, &now) == 0 && now.st_ino == listener->file.st_ino &&
        now.st_dev == listener->file.st_dev)
        unlink(listener->path);
}

/* --- the listener ------------------------------------------------------------------------------- */

struct srv_listener *srv_listener_new(const char *address, bool may_be_public, mode_t mode,
                                      struct nn_error *err) {
    struct srv_listener *listener = calloc(1, sizeof *listener);
    if (!listener) {
        nn_fail(err, NN_E_NOMEM, "no memory to listen");
        return NULL;
    }
    listener->fd = -1;
    listener->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int code = strncmp(address, "unix:", 5) == 0 ? open_unix(listener, address, mode, err)
                                                 : open_tcp(listener, address, may_be_public, err);
    if (!code && (listener->wake < 0 || listen(listener->fd, SOMAXCONN) != 0))
        code = fail_system(err, address);
    if (!code) return listener;
    srv_listener_free(listener);
    return NULL;
}

void srv_listener_free(struct srv_listener *listener) {
    if (!listener) return;
    srv_listener_stop(listener);
    if (listener->wake >= 0) close(listener->wake);
    free(listener->url);
    free(listener->path);
    free(listener);
}

const char *srv_listener_url(const struct srv_listener *listener) { return listener->url; }

/* Accepts a connection. False: none was waiting. */
static bool accept_one(struct srv_listener *listener) {
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int fd = accept4(listener->fd, (struct sockaddr *)&peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        listener->accepted(listener->self, fd, (struct sockaddr *)&peer, length);
        return true;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        /* The connection stays in the queue, and poll would report it again at once. */
        struct pollfd wake = {.fd = listener->wake, .events = POLLIN};
        poll(&wake, 1, 100);
    }
    return false;
}

/* The lowest free descriptor. INT_MAX: there is none. */
static int lowest_free(const struct srv_listener *listener) {
    int lowest = fcntl(listener->wake, F_DUPFD_CLOEXEC, 0);
    if (lowest < 0) return INT_MAX;
    close(lowest);
    return lowest;
}

/* True if another connection may be accepted. A new descriptor gets the lowest free number, so that number tells which
 * one the connection would get. The count of open connections does not tell: a connection is counted when its serving
 * begins, and others end meanwhile. */
static bool has_room(struct srv_listener *listener) {
    listener->short_of_files = lowest_free(listener) > listener->last_file;
    return !listener->short_of_files && atomic_load(&listener->open) < listener->connections;
}

#define SHORT_MS   50 /* pause before descriptors are counted again */
#define FILES_KEPT 16 /* descriptors that connections leave to the rest of the process */

/* Sets the limit of descriptors, and logs it where the system's limit is below the settings. */
static int divide_files(struct srv_listener *listener, struct nn_error *err) {
    struct rlimit files;
    listener->last_file = INT_MAX;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur > INT_MAX) return NN_OK;
    int limit = (int)files.rlim_cur, lowest = lowest_free(listener);
    listener->last_file = limit - 1 - FILES_KEPT;
    int room = listener->last_file + 1 - lowest;
    if (lowest > listener->last_file)
        return nn_fail(err, NN_E_INTERNAL,
                       "the limit of open files (ulimit -n) is %d: too low for any connection", limit);
    if (room < listener->connections)
        srv_log_say("the limit of open files (ulimit -n) is %d: %d connections at a time, and not %d", limit,
                    room, listener->connections);
    return NN_OK;
}

static void *accept_all(void *self) {
    struct srv_listener *listener = self;
    pthread_setname_np(pthread_self(), "gradd-accept");
    while (!atomic_load(&listener->stopping)) {
        struct pollfd fds[] = {{.fd = listener->wake, .events = POLLIN},
                               {.fd = has_room(listener) ? listener->fd : -1, .events = POLLIN}};
        /* Nobody reports that a file, or the descriptor of an ended connection, was closed: look again after a
         * while. */
        poll(fds, 2, listener->short_of_files ? SHORT_MS : -1);
        eventfd_t count;
        if (fds[0].revents) eventfd_read(listener->wake, &count);
        if (fds[1].revents && has_room(listener)) accept_one(listener);
    }
    return NULL;
}

int srv_listener_start(struct srv_listener *listener, int connections, srv_accept_fn *accepted, void *self,
                       struct nn_error *err) {
    listener->connections = connections;
    listener->accepted = accepted;
    listener->self = self;
    if (divide_files(listener, err)) return (int)err->code;
    if (pthread_create(&listener->thread, NULL, accept_all, listener) != 0)
        return nn_fail(err, NN_E_INTERNAL, "the thread that accepts connections cannot be started");
    listener->running = true;
    return NN_OK;
}

void srv_listener_opened(struct srv_listener *listener) { atomic_fetch_add(&listener->open, 1); }

void srv_listener_closed(struct srv_listener *listener) {
    if (atomic_fetch_sub(&listener->open, 1) >= listener->connections ||
        atomic_load(&listener->short_of_files))
        eventfd_write(listener->wake, 1);
}

void srv_listener_stop(struct srv_listener *listener) {
    if (listener->running) {
        atomic_store(&listener->stopping, true);
        eventfd_write(listener->wake, 1);
        pthread_join(listener->thread, NULL);
        listener->running = false;
        /* Accepts the waiting connections, which closing the socket would reset. */
        while (has_room(listener) && accept_one(listener)) continue;
    }
    if (listener->fd < 0) return;
    remove_file(listener);
    close(listener->fd);
    listener->fd = -1;
}
