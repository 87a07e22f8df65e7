/* HTTP over real sockets, byte by byte: heads that two servers could read differently, bodies that are
 * refused, peers that leave, and a graceful stop. The API behind it is the real one. */
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../server/http/http.h"
#include "../../server/pool.h"

#define BODY_LIMIT 100000

struct service {
    struct srv_pool *pool;
    struct api *api;
    struct srv_listener *listener;
    struct srv_http *http;
};

static int64_t now_ms(void *self) {
    (void)self;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static bool entropy(void *self, void *buffer, size_t size) {
    (void)self;
    memset(buffer, 7, size);
    return true;
}

static bool execute(void *self, void (*job)(void *arg), void *arg, uint64_t cost) {
    return srv_pool_execute(self, job, arg, cost);
}

static struct service start(const char *address, int connections) {
    struct nn_error err = {0};
    struct service service = {.pool = srv_pool_new(2, 16, &err)};
    assert_non_null(service.pool);
    struct api_settings settings = {.limits = api_default_limits, .version = "test"};
    settings.limits.body = BODY_LIMIT;
    struct api_env env = {.self = service.pool,
                          .now_ms = now_ms,
                          .entropy = entropy,
                          .execute = execute,
                          .parallel = {.run = srv_pool_parallel, .pool = service.pool}};
    service.api = api_new(&settings, &env, &err);
    assert_non_null(service.api);
    service.listener = srv_listener_new(address, false, 0600, &err);
    assert_string_equal(err.text, "");
    struct srv_http_options options = {.io_threads = 2,
                                       .connections = connections,
                                       .address_connections = 1000,
                                       .header_timeout_ms = 60000,
                                       .body_timeout_ms = 60000,
                                       .idle_timeout_ms = 60000,
                                       .body_rate = 1024,
                                       .max_head = 16384};
    service.http = srv_http_new(service.api, service.listener, &options, &err);
    assert_non_null(service.http);
    return service;
}

static void await_end(struct service *service) {
    srv_http_drain(service->http);
    while (!srv_http_finished(service->http)) usleep(1000);
}

/* Everything that requests held is let go. */
static void stop(struct service *service) {
    await_end(service);
    srv_pool_free(service->pool);
    srv_http_free(service->http);
    assert_int_equal(api_in_flight(service->api), 0);
    assert_int_equal(api_memory_in_use(service->api), 0);
    api_free(service->api);
    srv_listener_free(service->listener);
}

/* --- a peer ----------------------------------------------------------------------------------------- */

static int dial(const struct service *service) {
    const char *url = srv_listener_url(service->listener);
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    bool is_unix = strncmp(url, "unix:", 5) == 0;
    if (is_unix)
        snprintf(un.sun_path, sizeof un.sun_path, "%s", url + 5);
    else
        in.sin_port = htons((uint16_t)strtol(strrchr(url, ':') + 1, NULL, 10));
    int fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    int failed = is_unix ? connect(fd, (struct sockaddr *)&un, sizeof un)
                         : connect(fd, (struct sockaddr *)&in, sizeof in);
    if (!failed) return fd;
    close(fd);
    return -1;
}

/* As much as the server takes: it may close before it has read all. */
static void say_bytes(int fd, const char *text, size_t size) {
    while (size > 0) {
        ssize_t sent = send(fd, text, size, MSG_NOSIGNAL);
        if (sent <= 0) return;
        text += sent;
        size -= (size_t)sent;
    }
}

static void say(int fd, const char *text) { say_bytes(fd, text, strlen(text)); }

/* One answer, head and body, into `answer`; its status, or 0 if the connection ended without one. */
static int hear(int fd, char answer[4096]) {
    size_t size = 0, whole = 4095;
    answer[0] = 0;
    while (size < whole) {
        ssize_t got = recv(fd, answer + size, 1, 0);
        if (got <= 0) break;
        answer[++size] = 0;
        const char *length = size >= 4 && strcmp(answer + size - 4, "\r\n\r\n") == 0
                                 ? strcasestr(answer, "\r\nContent-Length: ")
                                 : NULL;
        if (length) whole = size + strtoul(length + 18, NULL, 10);
    }
    return size > 12 ? (int)strtol(answer + 9, NULL, 10) : 0;
}

static bool is_closed(int fd) {
    char byte;
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&poll_fd, 1, 10000), 1);
    return recv(fd, &byte, 1, 0) <= 0;
}

#define GET    "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
#define CREATE "POST /models HTTP/1.1\r\nHost: localhost\r\n"

/* --- heads ------------------------------------------------------------------------------------------ */

static void ambiguous_heads_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *head;
        int status; /* and the connection is closed, unless it is 200 */
    } cases[] = {
        {GET, 200},
        {"GET http://localhost/healthz?x=%41 HTTP/1.1\r\nHost: elsewhere\r\n\r\n", 200},
        {"GET http://elsewhere/healthz?x=%41 HTTP/1.1\r\nHost: localhost\r\n\r\n", 403},
        {"GET /health%7A HTTP/1.1\r\nhOST: localhost\r\n\r\n", 200},
        {CREATE "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400},
        {CREATE "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
        {CREATE "Transfer-Encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n", 400},
        {CREATE "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400},
        {CREATE "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
        {CREATE "Transfer-Encoding: identity\r\n\r\n", 400},
        {CREATE "Content-Length : 2\r\n\r\n{}", 400},
        {CREATE "Content-Length: 2x\r\n\r\n{}", 400},
        {CREATE "Content-Length: -2\r\n\r\n{}", 400},
        {CREATE "Content-Length: 2, 2\r\n\r\n{}", 400},
        {CREATE "Content-Length: 99999999999999999999999\r\n\r\n{}", 413},
        {CREATE "Content-Length: 18446744073709551615\r\n\r\n{}", 413},
        {CREATE "Content-Length: 9223372036854775807\r\n\r\n{}", 413},
        {"POST /models HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: y\r\n\r\n", 400},
        {"GET /healthz%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
        {"GET /health%7 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
        {"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
        {"GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
        {"G\"T /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
        {"GET\r\n\r\n", 0},
        {"GET /healthz HTTP/1.1\r\nHost:localhost\r\nX:\r\nY: \r\nZ:\t 1 \t\r\nCookie: a=b; c\r\n\r\n", 200},
        {"GET /healthz HTTP/1.1\nHost: localhost\n\n", 400},
        {"GET /healthz HTTP/1.1\r\nHost: localhost\nX: 1\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: 1\rY: 2\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: 1\r\n 2\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX:1\r\n\t\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: \x7f\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1\r\nHost: localhost\r\n: 1\r\n\r\n", 400},
        {CREATE "Content: 2\r\n -Length\r\n\r\n{}", 400},
        {CREATE "Transfer: chunked\r\n -Encoding\r\n\r\n0\r\n\r\n", 400},
    };
    struct service service = start("127.0.0.1:0", 100);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char answer[4096];
        int fd = dial(&service);
        say(fd, cases[i].head);
        int status = hear(fd, answer);
        if (status != cases[i].status) print_error("case %zu: %s", i, cases[i].head);
        assert_int_equal(status, cases[i].status);
        if (status == 200) {
            say(fd, GET);
            assert_int_equal(hear(fd, answer), 200);
        } else {
            if (!is_closed(fd)) fail_msg("case %zu: %s", i, cases[i].head);
        }
        close(fd);
    }
    stop(&service);
}

static void refusals_are_problem_documents(void **state) {
    (void)state;
    struct service service = start("127.0.0.1:0", 100);
    char answer[4096];
    int fd = dial(&service);
    say(fd, "GET /healthz HTTP/1.1\r\n\r\n");
    assert_int_equal(hear(fd, answer), 400);
    assert_non_null(strstr(answer, "Content-Type: application/problem+json\r\n"));
    assert_non_null(strstr(answer, "{\"type\":\"urn:gradd:problem:malformed\",\"title\":"));
    close(fd);
    stop(&service);
}

static void answers_to_head_have_no_body(void **state) {
    (void)state;
    struct service service = start("127.0.0.1:0", 100);
    int fd = dial(&service);
    say(fd, "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    char answer[4096];
    assert_int_equal(hear(fd, answer), 200); /* to the end of the connection */
    assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\n");
    close(fd);
    stop(&service);
}

/* --- bodies ----------------------------------------------------------------------------------------- */

/* A specification padded with blanks to `size` bytes, and the head that goes before it. */
static char *specification(const char *name, size_t size) {
    char *body = malloc(size + 1);
    assert_non_null(body);
    int written =
        snprintf(body, size + 1,
                 "{\"name\":\"%s\",\"inputs\":{\"x\":{\"shape\":[2]}},\"layers\":[{\"op\":\"relu\"}]}", name);
    memset(body + written, ' ', size - (size_t)written);
    body[size] = 0;
    return body;
}

static void say_length(int fd, const char *target, const char *more, size_t size) {
    char head[256];
    snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %zu\r\n\r\n",
             target, more, size);
    say(fd, head);
}

static void bodies_come_whole_or_in_pieces(void **state) {
    (void)state;
    struct service service = start("127.0.0.1:0", 100);
    char answer[4096], head[64], *body = specification("a", BODY_LIMIT);
    int fd = dial(&service);
    say_length(fd, "/models", "", BODY_LIMIT);
    say(fd, body);
    assert_int_equal(hear(fd, answer), 201);
    free(body);

    body = specification("b", BODY_LIMIT);
    say(fd, CREATE "Transfer-Encoding: chunked\r\n\r\n");
    for (size_t at = 0, piece = 1; at < BODY_LIMIT; at += piece, piece = piece * 3 + 1) {
        if (piece > BODY_LIMIT - at) piece = BODY_LIMIT - at;
        snprintf(head, sizeof head, "%zx\r\n", piece);
        say(fd, head);
        say_bytes(fd, body + at, piece);
        say(fd, "\r\n");
    }
    say(fd, "0\r\n\r\n");
    assert_int_equal(hear(fd, answer), 201);
    free(body);

    body = specification("c", 5000);
    say_length(fd, "/models", "Expect: 100-continue\r\n", 5000);
    for (const char *c = "HTTP/1.1 100 Continue\r\n\r\n"; *c; c++) {
        char byte;
        assert_int_equal(recv(fd, &byte, 1, 0), 1);
        assert_int_equal(byte, *c);
    }
    say(fd, body);
    assert_int_equal(hear(fd, answer), 201);
    free(body);
    close(fd);

    fd = dial(&service);
    for (const char *name = "abc"; *name; name++) {
        snprintf(answer, sizeof answer, "DELETE /models/%c HTTP/1.1\r\nHost: localhost\r\n\r\n", *name);
        say(fd, answer);
        assert_int_equal(hear(fd, answer) / 100, 2);
    }
    close(fd);
    stop(&service);
}

static void long_bodies_are_refused(void **state) {
    (void)state;
    struct service service = start("127.0.0.1:0", 100);
    char answer[4096], *body = specification("a", BODY_LIMIT + 1);

    int fd = dial(&service); /* the answer comes although the body is sent, and the connection lives on */
    say_length(fd, "/models", "", BODY_LIMIT + 1);
    say(fd, body);
    assert_int_equal(hear(fd, answer), 413);
    say(fd, CREATE "Transfer-Encoding: chunked\r\n\r\n186a1\r\n");
    say(fd, body);
    say(fd, "\r\n0\r\n\r\n");
    assert_int_equal(hear(fd, answer), 413);
    say(fd, GET);
    assert_int_equal(hear(fd, answer), 200);
    close(fd);

    fd = dial(&service); /* asked first, so that no byte of it is sent */
    say_length(fd, "/models", "Expect: 100-continue\r\n", BODY_LIMIT + 1);
    assert_int_equal(hear(fd, answer), 413);
    assert_true(is_closed(fd));
    close(fd);

    fd = dial(&service); /* too long to be read and thrown away */
    say_length(fd, "/models", "", (size_t)1 << 40);
    assert_int_equal(hear(fd, answer), 413);
    assert_true(is_closed(fd));
    close(fd);

    fd = dial(&service); /* a body for what does not exist */
    say_length(fd, "/nowhere", "", BODY_LIMIT);
    say_bytes(fd, body, BODY_LIMIT);
    assert_int_equal(hear(fd, answer), 404);
    say(fd, GET);
    assert_int_equal(hear(fd, answer), 200);
    close(fd);
    free(body);
    stop(&service);
}

static void endless_chunks_are_cut_off(void **state) {
    (void)state;
    struct service service = start("127.0.0.1:0", 100);
    char answer[4096], *chunk = specification("a", 1 << 20);
    int fd = dial(&service);
    say(fd, CREATE "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 64; i++) {
        say(fd, "100000\r\n");
        say_bytes(fd, chunk, 1 << 20);
        say(fd, "\r\n");
    }
    assert_int_equal(hear(fd, answer), 0);
    close(fd);
    free(chunk);
    stop(&service);
}

/* The service's end of a connection, which is in this process too. */
static int other_end(int fd) {
    struct sockaddr_in ours, peer = {0};
    socklen_t length = sizeof ours;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&ours, &length), 0);
    for (int other = 0; other < 1024; other++) {
        length = sizeof peer;
        if (getpeername(other, (struct sockaddr *)&peer, &length) == 0 && length == sizeof peer &&
            peer.sin_family == AF_INET && peer.sin_port == ours.sin_port)
            return other;
    }
    fail_msg("a connection has no other end");
    return -1;
}

/* Whether the system acknowledges at once what comes, rather than together with an answer. */
static bool acknowledges_at_once(int fd) {
    int at_once = -1;
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &at_once, &(socklen_t){sizeof at_once}), 0);
    return at_once;
}

static unsigned packets_sent(int fd) {
    struct tcp_info info;
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &(socklen_t){sizeof info}), 0);
    return info.tcpi_segs_out;
}

/* A client may keep a body back until its head is acknowledged, for which the system waits until there is an answer to
 * send it with. So one packet more than the answer goes out, also where the body came along. */
static void heads_are_acknowledged_while_a_body_is_due(void **state) {
    (void)state;
    enum { CALLS = 50 };
    static const char *const calls[] = {CREATE "Content-Length: 2\r\n\r\n{}",
                                        CREATE "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"};
    struct service service = start("127.0.0.1:0", 100);
    char answer[4096];
    for (size_t k = 0; k < 2; k++) {
        int fd = dial(&service), other = -1;
        do {
            say(fd, GET);
            assert_int_equal(hear(fd, answer), 200);
            other = other_end(fd);
        } while (acknowledges_at_once(other));
        unsigned before = packets_sent(other);
        for (int i = 0; i < CALLS; i++) {
            say(fd, calls[k]);
            assert_int_equal(hear(fd, answer), 422);
        }
        assert_true(packets_sent(other) - before >= 2 * CALLS);
        close(fd);
    }
    stop(&service);
}

/* --- peers that leave ------------------------------------------------------------------------------- */

static void await_no_memory_in_use(const struct service *service) {
    for (int i = 0; i < 10000 && api_memory_in_use(service->api) > 0; i++) usleep(1000);
    assert_int_equal(api_memory_in_use(service->api), 0);
}

static void peers_may_leave_half_way(void **state) {
    (void)state;
    static const char *const beginnings[] = {
        "G",
        "GET /healthz HTTP/1.1\r\n",
        "GET /healthz HTTP/1.1\r\nHos",
        CREATE "Content-Length: 50000\r\n\r\n{",
        CREATE "Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        GET,
        GET GET GET,
    };
    struct service service = start("127.0.0.1:0", 100);
    for (int how = 0; how < 2; how++)
        for (size_t i = 0; i < sizeof beginnings / sizeof beginnings[0]; i++) {
            int fd = dial(&service);
            struct linger reset = {.l_onoff = how};
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            say(fd, beginnings[i]);
            close(fd);
        }
    await_no_memory_in_use(&service);
    stop(&service);
}

static void a_half_closed_peer_is_answered(void **state) {
    (void)state;
    struct service service = start("127.0.0.1:0", 100);
    char answer[4096];
    int fd = dial(&service);
    say(fd, GET GET);
    shutdown(fd, SHUT_WR);
    assert_int_equal(hear(fd, answer), 200);
    close(fd);
    stop(&service);
}

/* --- connections ------------------------------------------------------------------------------------ */

static void connections_beyond_the_limit_wait(void **state) {
    (void)state;
    struct service service = start("127.0.0.1:0", 2);
    char answer[4096];
    int first[2], more;
    for (int i = 0; i < 2; i++) {
        first[i] = dial(&service);
        say(first[i], GET);
        assert_int_equal(hear(first[i], answer), 200);
    }
    more = dial(&service);
    say(more, GET);
    struct pollfd silent = {.fd = more, .events = POLLIN};
    assert_int_equal(poll(&silent, 1, 50), 0);
    close(first[0]);
    assert_int_equal(hear(more, answer), 200);
    close(first[1]);
    close(more);
    stop(&service);
}

static void a_stop_refuses_connections_and_closes_others(void **state) {
    (void)state;
    struct service service = start("127.0.0.1:0", 100);
    char answer[4096], *body = specification("a", 3000);
    int idle = dial(&service), busy = dial(&service);
    say(idle, GET);
    assert_int_equal(hear(idle, answer), 200);
    say_length(busy, "/models", "", 3000);
    say_bytes(busy, body, 1000);
    while (api_memory_in_use(service.api) == 0) usleep(1000);

    srv_http_drain(service.http);
    assert_int_equal(dial(&service), -1);
    assert_false(srv_http_finished(service.http));
    say_bytes(busy, body + 1000, 2000);
    assert_int_equal(hear(busy, answer), 201);
    assert_non_null(strstr(answer, "\r\nConnection: close\r\n"));
    assert_true(is_closed(busy));
    while (!srv_http_finished(service.http)) usleep(1000);
    say(idle, GET); /* too late */
    assert_int_equal(hear(idle, answer), 0);
    close(idle);
    close(busy);
    free(body);

    srv_pool_free(service.pool);
    srv_http_free(service.http);
    api_free(service.api);
    srv_listener_free(service.listener);
}

/* --- addresses -------------------------------------------------------------------------------------- */

static void unix_sockets_are_replaced_only_when_stale(void **state) {
    (void)state;
    char folder[] = "/tmp/gradd-http-XXXXXX", address[64], answer[4096];
    assert_non_null(mkdtemp(folder));
    snprintf(address, sizeof address, "unix:%s/socket", folder);
    struct service service = start(address, 10);
    int fd = dial(&service);
    say(fd, GET);
    assert_int_equal(hear(fd, answer), 200);
    close(fd);

    struct nn_error err = {0};
    assert_null(srv_listener_new(address, false, 0600, &err));
    assert_int_equal(err.code, NN_E_BUSY);
    stop(&service);
    assert_int_not_equal(access(address + 5, F_OK), 0);

    struct sockaddr_un un = {.sun_family = AF_UNIX}; /* what a daemon that was killed leaves behind */
    snprintf(un.sun_path, sizeof un.sun_path, "%s", address + 5);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    close(fd);
    service = start(address, 10);
    stop(&service);

    FILE *file = fopen(address + 5, "w"); /* not a socket: left alone */
    assert_non_null(file);
    fclose(file);
    err = (struct nn_error){0};
    assert_null(srv_listener_new(address, false, 0600, &err));
    assert_int_equal(access(address + 5, F_OK), 0);
    unlink(address + 5);
    rmdir(folder);
}

static void a_sockets_mode_is_as_told(void **state) {
    (void)state;
    static const mode_t modes[] = {0600, 0660, 0666, 0};
    char folder[] = "/tmp/gradd-http-XXXXXX", address[64];
    assert_non_null(mkdtemp(folder));
    snprintf(address, sizeof address, "unix:%s/socket", folder);
    mode_t mask = umask(027);
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        struct nn_error err = {0};
        struct stat file;
        struct srv_listener *listener = srv_listener_new(address, false, modes[i], &err);
        assert_non_null(listener);
        assert_int_equal(stat(address + 5, &file), 0);
        assert_int_equal(file.st_mode & 0777, modes[i]);
        srv_listener_free(listener);
    }
    umask(mask);
    rmdir(folder);
}

static void addresses_are_checked(void **state) {
    (void)state;
    static const struct {
        const char *address;
        enum nn_code code;
    } cases[] = {
        {"127.0.0.1:0", NN_OK},
        {"127.9.9.9:0", NN_OK},
        {"localhost:0", NN_OK},
        {"0.0.0.0:0", NN_E_FORBIDDEN},
        {"[::]:0", NN_E_FORBIDDEN},
        {"8080", NN_E_VALUE},
        {":8080", NN_E_VALUE},
        {"127.0.0.1", NN_E_VALUE},
        {"127.0.0.1:", NN_E_VALUE},
        {"127.0.0.1:65536", NN_E_VALUE},
        {"127.0.0.1:http", NN_E_VALUE},
        {"::1:80", NN_E_VALUE},
        {"[::1]80", NN_E_VALUE},
        {"[]:80", NN_E_VALUE},
        {"unix:", NN_E_VALUE},
        {"no.such.host.invalid:1", NN_E_VALUE},
        {"unix:/nowhere/at/all", NN_E_BUSY},
        {"192.0.2.1:0", NN_E_FORBIDDEN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nn_error err = {0};
        struct srv_listener *listener = srv_listener_new(cases[i].address, false, 0600, &err);
        if (err.code != cases[i].code) print_error("%s: %s\n", cases[i].address, err.text);
        assert_int_equal(err.code, cases[i].code);
        assert_int_equal(listener != NULL, cases[i].code == NN_OK);
        srv_listener_free(listener);
    }
    struct nn_error err = {0};
    struct srv_listener *listener = srv_listener_new("0.0.0.0:0", true, 0600, &err); /* with a token it may */
    assert_non_null(listener);
    srv_listener_free(listener);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ambiguous_heads_are_refused),
        cmocka_unit_test(refusals_are_problem_documents),
        cmocka_unit_test(answers_to_head_have_no_body),
        cmocka_unit_test(bodies_come_whole_or_in_pieces),
        cmocka_unit_test(long_bodies_are_refused),
        cmocka_unit_test(endless_chunks_are_cut_off),
        cmocka_unit_test(heads_are_acknowledged_while_a_body_is_due),
        cmocka_unit_test(peers_may_leave_half_way),
        cmocka_unit_test(a_half_closed_peer_is_answered),
        cmocka_unit_test(connections_beyond_the_limit_wait),
        cmocka_unit_test(a_stop_refuses_connections_and_closes_others),
        cmocka_unit_test(unix_sockets_are_replaced_only_when_stale),
        cmocka_unit_test(a_sockets_mode_is_as_told),
        cmocka_unit_test(addresses_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
