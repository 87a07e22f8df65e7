/* Hostile clients on real sockets. Whatever they send, the daemon lives on, gives back what they took, and an
 * ordinary client beside them is answered as always. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "../support/e2e.h"
#include "../support/witness.h"

#define HOST    "Host: localhost\r\n"
#define GET     "GET /healthz HTTP/1.1\r\n"
#define POST    "POST /forward HTTP/1.1\r\n" HOST "Content-Type: " JSON_TYPE "\r\n"
#define HIDDEN  "GET /smuggled HTTP/1.1\r\n" HOST "\r\n"
#define FORWARD "{\"model\": \"m\", \"inputs\": {\"x\": [[1, 2]]}}"

enum { CONNECTIONS = 1000, ADDRESS_CONNECTIONS = 400, BODY = 4 << 20 };

static int setup(void **state) {
    (void)state;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    service_start((const char *const[]){"--memory", "256M", "--max-body", "4M", "--connections", "1000",
                                        "--address-connections", "400", "--header-timeout", "2",
                                        "--body-timeout", "2", NULL},
                  NULL);
    ask(201, "POST", "/models",
        "{'name': 'm', 'seed': 1, 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear', "
        "'out_features': 1}]}");
    return 0;
}

/* Of a test: attacks come from other addresses than the witness. */
static int begin(void **state) {
    (void)state;
    test_witness_start(service.url);
    return 0;
}

static int end(void **state) {
    test_witness_stop();
    ask(200, "DELETE", "/models/witness", NULL);
    service_is_alive();
    return service_forget(state);
}

static int connected(const char *address) {
    int fd = raw_connect_from(address, 0, service.port);
    assert_int_not_equal(fd, -1);
    return fd;
}

/* Sends this and no more, and reads until the daemon closes. */
static const char *exchange(const void *data, size_t size, bool half_close) {
    static char answer[65536];
    int fd = connected("127.0.0.2");
    raw_send(fd, data, size); /* may be cut short: the daemon has seen enough */
    if (half_close) shutdown(fd, SHUT_WR);
    raw_receive(fd, answer, sizeof answer);
    close(fd);
    return answer;
}

/* Whether all that was answered are refusals, and none is of what was hidden: that would be 404. */
static bool is_refused(const char *text) {
    for (; (text = strstr(text, "HTTP/1.1 ")); text++)
        if (raw_status(text) < 400 || raw_status(text) == 404) return false;
    return true;
}

/* --- requests within requests ----------------------------------------------------------------------- */

/* What hides behind a head that is read in two ways must never be answered: a refusal, and the end. */
static void smuggling(void **state) {
    (void)state;
    static const char *const cases[] = {
        /* two lengths */
        POST "Content-Length: 0\r\nContent-Length: 46\r\n\r\n" HIDDEN,
        POST "Content-Length: 46\r\nContent-Length: 0\r\n\r\n" HIDDEN,
        POST "Content-Length: 0\r\ncontent-length: 0\r\n\r\n" HIDDEN,
        POST "Content-Length: 0, 0\r\n\r\n" HIDDEN,
        POST "Content-Length: +0\r\n\r\n" HIDDEN,
        POST "Content-Length: 0x0\r\n\r\n" HIDDEN,
        POST "Content-Length: 0 0\r\n\r\n" HIDDEN,
        /* a length, and chunks */
        POST "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" HIDDEN,
        POST "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" HIDDEN,
        POST "Content-Length: 4\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" HIDDEN,
        /* codings that some overlook */
        POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" HIDDEN,
        POST "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" HIDDEN,
        POST "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n" HIDDEN,
        POST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n" HIDDEN,
        POST "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n" HIDDEN,
        POST "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n" HIDDEN,
        POST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" HIDDEN,
        POST "Transfer-Encoding:\r\n\r\n0\r\n\r\n" HIDDEN,
        POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" HIDDEN,
        /* sizes of chunks that some read otherwise */
        POST "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" HIDDEN,
        POST "Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n" HIDDEN,
        POST "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" HIDDEN,
        POST "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n" HIDDEN,
        POST "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n" HIDDEN,
        /* lines that end otherwise, and those that go on */
        POST "Content: 46\r\n -Length\r\n\r\n" HIDDEN,
        POST "Transfer: chunked\r\n -Encoding\r\n\r\n0\r\n\r\n" HIDDEN,
        POST "X: 1\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" HIDDEN,
        POST "X: 1\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" HIDDEN,
        GET HOST "\n" HIDDEN,
        GET HOST "X: 1\r\n Content-Length: 46\r\n\tY\r\nHost : y\r\n\r\n" HIDDEN,
        GET HOST " Host: folded\r\nHost: localhost\r\n\r\n" HIDDEN,
        GET HOST "Content Length: 46\r\n\r\n" HIDDEN,
        GET HOST ": empty\r\n\r\n" HIDDEN,
        GET HOST "No colon\r\n\r\n" HIDDEN,
        /* more than one place to go to */
        GET "Host: localhost\r\nHost: localhost\r\n\r\n" HIDDEN,
        GET "\r\n" HIDDEN,
        "GET healthz HTTP/1.1\r\n" HOST "\r\n" HIDDEN,
        "GET //localhost@evil:1/ HTTP/3.9\r\n" HOST "\r\n" HIDDEN,
        "CONNECT localhost:1 HTTP/1.1\r\n" HOST "\r\n" HIDDEN,
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *answer = exchange(cases[i], strlen(cases[i]), false);
        if (!is_refused(answer) || strstr(answer, "smuggled")) fail_msg("%s\nanswers %s", cases[i], answer);
    }
    /* bytes that no text has */
    static const char zero[] = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: \0\r\n\r\n" HIDDEN;
    static const char zero_name[] = "GET /healthz HTTP/1.1\r\nHo\0st: localhost\r\n\r\n" HIDDEN;
    static const char zero_path[] = "GET /healthz\0/../models HTTP/1.1\r\nHost: localhost\r\n\r\n" HIDDEN;
    const struct {
        const char *data;
        size_t size;
    } binary[] = {
        {zero, sizeof zero - 1}, {zero_name, sizeof zero_name - 1}, {zero_path, sizeof zero_path - 1}};
    for (size_t i = 0; i < sizeof binary / sizeof *binary; i++) {
        const char *answer = exchange(binary[i].data, binary[i].size, false);
        if (raw_status(answer) == 200) fail_msg("binary %zu answers %s", i, answer);
    }
}

/* --- promises that nobody keeps ---------------------------------------------------------------------- */

/* Lengths that are told, and bodies that never come. */
static void giant_lengths(void **state) {
    (void)state;
    static const char *const told[] = {"4194305",
                                       "4294967296",
                                       "9223372036854775807",
                                       "9223372036854775808",
                                       "18446744073709551615",
                                       "18446744073709551616",
                                       "340282366920938463463374607431768211456"};
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
        char head[256];
        snprintf(head, sizeof head, POST "Content-Length: %s\r\n\r\n{}", told[i]);
        int status = raw_status(exchange(head, strlen(head), false));
        if (status != 413 && status != 400 && status != 408) fail_msg("%s answers %d", told[i], status);
    }
    int fds[40]; /* together less than the memory, so that there is some for others */
    for (size_t i = 0; i < 40; i++) {
        fds[i] = connected("127.0.0.2");
        raw_send_text(fds[i], POST "Content-Length: 4194304\r\n\r\n{");
    }
    for (size_t i = 0; i < 40; i++) {
        char answer[4096];
        raw_receive(fds[i], answer, sizeof answer); /* until its time is up */
        close(fds[i]);
        assert_int_equal(raw_status(answer), 408);
    }
}

static int post_file(const void *data, size_t size) {
    char head[256];
    int n = snprintf(head, sizeof head,
                     "POST /forward HTTP/1.1\r\n" HOST "Connection: close\r\nContent-Type: " FILE_TYPE
                     "\r\nContent-Length: %zu\r\n\r\n",
                     size);
    char *all = malloc((size_t)n + size);
    assert_non_null(all);
    memcpy(all, head, (size_t)n);
    if (size) memcpy(all + n, data, size);
    int status = raw_status(exchange(all, (size_t)n + size, false));
    free(all);
    return status;
}

/* Files whose header tells of more than there is, or less. */
static void broken_files(void **state) {
    (void)state;
    static const uint64_t told[] = {
        0,         1,          UINT64_C(1) << 31, UINT64_C(1) << 32, UINT64_C(1) << 60,
        INT64_MAX, UINT64_MAX, UINT64_MAX - 7,    UINT64_MAX - 8};
    const float x[2] = {1, 2};
    struct test_writer writer = {0};
    size_t size;
    test_write_f32(&writer, "inputs/x", SHAPE(1, 2), x);
    test_write_text(&writer, "model", "m");
    unsigned char *file = service_keep(test_write_end(&writer, &size));
    assert_int_equal(post_file(file, size), 200);
    for (size_t cut = 0; cut < size; cut++) {
        int status = post_file(file, cut);
        if (status != 400) fail_msg("cut at %zu of %zu: %d", cut, size, status);
    }
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
        unsigned char copy[4096];
        assert_in_range(size, 8, sizeof copy);
        memcpy(copy, file, size);
        memcpy(copy, &told[i], 8);
        assert_int_equal(post_file(copy, size), 400);
    }
}

/* A body of `size` bytes, whose length is told. */
static int post_json(const char *path, const char *body, size_t size) {
    char head[256];
    int n = snprintf(head, sizeof head,
                     "POST %s HTTP/1.1\r\n" HOST "Connection: close\r\nContent-Type: " JSON_TYPE
                     "\r\nContent-Length: %zu\r\n\r\n",
                     path, size);
    char *all = malloc((size_t)n + size);
    assert_non_null(all);
    memcpy(all, head, (size_t)n);
    memcpy(all + n, body, size);
    int status = raw_status(exchange(all, (size_t)n + size, false));
    free(all);
    return status;
}

/* Fills a body with `piece` behind `begin`. */
static char *body_of(const char *begin, const char *piece, size_t size) {
    char *body = malloc(size);
    size_t n = strlen(piece), used = strlen(begin);
    assert_non_null(body);
    memcpy(body, begin, used);
    for (size_t i = 0; used < size; i++) body[used++] = piece[i % n];
    return body;
}

/* JSON that is deep, or takes a hundred times its length once it is read. */
static void deep_json(void **state) {
    (void)state;
    static const struct {
        const char *begin, *piece;
    } cases[] = {{"", "["},
                 {"", "{\"a\":"},
                 {"{\"model\": ", "["},
                 {"{\"model\": ", "[{\"a\":"},
                 {"{\"model\": \"m\", \"inputs\": {\"x\": ", "["},
                 {"{\"model\": [", "{},"},
                 {"{\"model\": [", "[],"},
                 {"{\"model\": [", "0,"},
                 {"{\"inputs\": {\"x\": [", "1,"},
                 {"{\"model\": \"", "\\u00e9"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *body = service_keep(body_of(cases[i].begin, cases[i].piece, BODY));
        int status = post_json("/forward", body, BODY);
        if (status < 400 || status >= 500)
            fail_msg("%s%s... answers %d", cases[i].begin, cases[i].piece, status);
    }
}

/* --- too much of it ----------------------------------------------------------------------------------- */

/* Requests without end, whose answers nobody reads. */
static void endless_pipeline(void **state) {
    (void)state;
    enum { PEERS = 8 };
    char request[512];
    int n = snprintf(request, sizeof request, POST "Content-Length: %zu\r\n\r\n" FORWARD, sizeof FORWARD - 1);
    int fds[PEERS];
    for (int i = 0; i < PEERS; i++) {
        fds[i] = raw_connect_from("127.0.0.2", 4096, service.port);
        struct timeval patience = {.tv_usec = 200000};
        setsockopt(fds[i], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        for (int k = 0; k < 10000 && raw_send(fds[i], request, (size_t)n); k++) continue;
    }
    for (int i = 0; i < PEERS; i++) { /* what came of it are whole answers, in order, and then the end */
        char *answers = service_keep(malloc(1 << 16));
        raw_receive(fds[i], answers, 1 << 16);
        close(fds[i]);
        assert_int_equal(raw_status(answers), 200);
    }
}

static void half_closed(void **state) {
    (void)state;
    static const char *const begins[] = {"", "GET", GET, POST "Content-Length: 4194304\r\n\r\n",
                                         POST "Transfer-Encoding: chunked\r\n\r\n5\r\n"};
    int fds[200];
    for (size_t i = 0; i < 200; i++) {
        const char *sent = begins[i % (sizeof begins / sizeof *begins)];
        fds[i] = connected("127.0.0.2");
        raw_send_text(fds[i], sent);
        shutdown(fds[i], SHUT_WR);
    }
    for (size_t i = 0; i < 200; i++) {
        char answer[4096];
        raw_receive(fds[i], answer, sizeof answer);
        close(fds[i]);
        assert_true(answer[0] == '\0' || raw_status(answer) >= 400);
    }
}

/* Twice as many connections as there may be, which say nothing or too little. The witness has one among them, and
 * gets new ones, as they end. */
static void many_connections(void **state) {
    (void)state;
    enum { ADDRESSES = 5, MOST = 2 * CONNECTIONS / ADDRESSES };
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    int each = (int)(files.rlim_cur < 2 * CONNECTIONS + 200 ? (files.rlim_cur - 200) / ADDRESSES : MOST);
    int *fds = service_keep(calloc((size_t)each * ADDRESSES, sizeof *fds));
    for (int round = 0; round < 2; round++) {
        int n = 0, ended = 0;
        for (int a = 0; a < ADDRESSES; a++)
            for (int i = 0; i < each; i++) {
                char address[32];
                snprintf(address, sizeof address, "127.0.0.%d", 2 + a);
                int fd = raw_connect_from(address, 0, service.port);
                if (fd < 0) continue; /* the system's queue is full */
                raw_send_text(fd, i % 2 ? "GET /he" : "");
                fds[n++] = fd;
            }
        for (int i = 0; i < n; i++) { /* every one is ended, sooner or later, by the daemon */
            char answer[1024];
            raw_receive(fds[i], answer, sizeof answer);
            ended += answer[0] == '\0' || raw_status(answer) == 408;
            close(fds[i]);
        }
        assert_int_equal(ended, n);
    }
}

int main(void) {
#define ATTACK(function) cmocka_unit_test_setup_teardown(function, begin, end)
    const struct CMUnitTest tests[] = {
        ATTACK(smuggling),        ATTACK(giant_lengths), ATTACK(broken_files),     ATTACK(deep_json),
        ATTACK(endless_pipeline), ATTACK(half_closed),   ATTACK(many_connections),
    };
    return cmocka_run_group_tests(tests, setup, service_teardown);
}
