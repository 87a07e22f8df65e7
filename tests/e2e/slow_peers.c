/* Peers that take their time. Heads, bodies and the taking of answers have to come to their end; those that go on
 * well are left alone, however long they take. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "../support/e2e.h"
#include "../support/prometheus.h"

#define FLAGS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define FORWARD    "{\"model\": \"m\", \"inputs\": {\"x\": [[1, 2]]}}"
#define HEAD       "POST /forward HTTP/1.1\r\nHost: localhost\r\nContent-Type: " JSON_TYPE "\r\n"

static void start(const char *const *flags) {
    service_start(flags, NULL);
    ask(201, "POST", "/models",
        "{'name': 'm', 'seed': 1, 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear', "
        "'out_features': 1}]}");
}

static int connected(void) {
    int fd = raw_connect(service.port);
    assert_int_not_equal(fd, -1);
    return fd;
}

static double reserved_bytes(void) {
    const struct http_answer *page = ask_bytes(200, "GET", "/metrics", NULL);
    struct test_metrics metrics = test_metrics_read((const char *)page->body);
    double bytes = test_metric(&metrics, "gradd_memory_reserved_bytes");
    test_metrics_fini(&metrics);
    return bytes;
}

/* Until no more than this is held. */
static void await_memory(double bytes) {
    for (int i = 0; reserved_bytes() > bytes; i++) {
        if (i == 5000) fail_msg("memory stays reserved");
        service_forget(NULL);
        test_pause();
    }
}

/* Drips `text` again and again behind `first`, until the daemon has had enough; its answer. */
static void drip(const char *first, const char *text, char answer[4096]) {
    int fd = connected();
    assert_true(raw_send_text(fd, first));
    for (const char *c = text;; c = c[1] ? c + 1 : text) {
        test_pause();
        if (!raw_send(fd, c, 1)) break;
    }
    raw_receive(fd, answer, 4096);
    close(fd);
}

static void check_timeout(const char *answer) {
    assert_int_equal(raw_status(answer), 408);
    assert_non_null(strstr(answer, "Connection: close\r\n"));
    assert_non_null(strstr(answer, PROBLEM));
    assert_non_null(strstr(answer, "urn:gradd:problem:request-timeout"));
}

/* Peers that send this, and then nothing more. */
static void begin_and_wait(const char *const *begins, size_t n) {
    int fds[8];
    assert_in_range(n, 1, 8);
    for (size_t i = 0; i < n; i++) {
        fds[i] = connected();
        assert_true(raw_send_text(fds[i], begins[i]));
    }
    for (size_t i = 0; i < n; i++) {
        char answer[4096];
        raw_receive(fds[i], answer, sizeof answer);
        close(fds[i]);
        check_timeout(answer);
    }
}

/* Whoever drips may find the connection reset, and what was said lost with it. */
static void check_dripped(const char *answer) {
    if (answer[0]) check_timeout(answer);
}

static void heads(void **state) {
    (void)state;
    static const char *const begins[] = {"", "GET /he", HEAD, HEAD "Accept: a/b\r\nX",
                                         HEAD "Content-Length: 5\r\n"};
    char answer[4096];
    start(FLAGS("--header-timeout", "1"));
    begin_and_wait(begins, sizeof begins / sizeof *begins);
    drip("", "x", answer);
    check_dripped(answer);
    drip(HEAD, "X-More: 1\r\n", answer);
    check_dripped(answer);
    service_is_alive();
    service_stop();
}

/* The next head of a connection that stays open has its time too, from its own first line. */
static void second_heads(void **state) {
    (void)state;
    char answer[4096];
    start(FLAGS("--header-timeout", "1"));
    int fd = connected();
    assert_true(raw_send_text(fd, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    sleep(2); /* between requests there is more */
    assert_true(raw_send_text(fd, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n" HEAD));
    raw_receive(fd, answer, sizeof answer);
    close(fd);
    assert_int_equal(raw_status(answer), 200);
    const char *second = strstr(answer + 1, "HTTP/1.1 ");
    assert_non_null(second);
    assert_int_equal(raw_status(second), 200);
    const char *third = strstr(second + 1, "HTTP/1.1 ");
    assert_non_null(third);
    check_timeout(third);
    service_stop();
}

static void bodies(void **state) {
    (void)state;
    static const char *const begins[] = {HEAD "Content-Length: 4000000\r\n\r\n{",
                                         HEAD "Content-Length: 4000000\r\n\r\n",
                                         HEAD "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
                                         HEAD "Transfer-Encoding: chunked\r\n\r\n10000\r\n{"};
    char answer[4096];
    start(FLAGS("--body-timeout", "1", "--body-rate", "1M"));
    double before = reserved_bytes();
    begin_and_wait(begins, sizeof begins / sizeof *begins);
    drip(HEAD "Content-Length: 4000000\r\n\r\n", " ", answer);
    check_dripped(answer);
    drip(HEAD "Transfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n", answer);
    check_dripped(answer);
    /* of a refused request too */
    drip("POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n", " ", answer);
    await_memory(before);
    service_is_alive();
    service_stop();
}

/* A second for every KiB: what came at once pays for a pause that is longer than the time without it. */
static void honest_bodies(void **state) {
    (void)state;
    enum { SIZE = 64 << 10 };
    char head[256], answer[4096], *body = service_keep(malloc(SIZE));
    memset(body, ' ', SIZE);
    memcpy(body, FORWARD, sizeof FORWARD - 1);
    start(FLAGS("--body-timeout", "1", "--body-rate", "1K"));
    for (int chunked = 0; chunked < 2; chunked++) {
        int fd = connected();
        snprintf(head, sizeof head, HEAD "Connection: close\r\n%s\r\n\r\n",
                 chunked ? "Transfer-Encoding: chunked" : "Content-Length: 65536");
        assert_true(raw_send_text(fd, head));
        if (chunked) assert_true(raw_send_text(fd, "10000\r\n"));
        assert_true(raw_send(fd, body, SIZE - 1000));
        sleep(3);
        assert_true(raw_send(fd, body + SIZE - 1000, 1000));
        if (chunked) assert_true(raw_send_text(fd, "\r\n0\r\n\r\n"));
        raw_receive(fd, answer, sizeof answer);
        close(fd);
        assert_int_equal(raw_status(answer), 200);
    }
    service_stop();
}

#define WIDE                                                                                                 \
    "{'name': 'wide', 'seed': 1, 'inputs': {'x': {'shape': [4096]}}, 'layers': [{'op': 'linear', "           \
    "'out_features': 4096}]}"
#define PULL "GET /models/wide/parameters HTTP/1.1\r\nHost: localhost\r\nAccept: " FILE_TYPE "\r\n\r\n"

/* 64 MB that nobody takes, or byte by byte: what the answer holds is given back. */
static void answers(void **state) {
    (void)state;
    start(FLAGS("--body-timeout", "1", "--body-rate", "1G"));
    double before = reserved_bytes();
    for (int dripping = 0; dripping < 2; dripping++) {
        ask(201, "POST", "/models", WIDE);
        int fd = raw_connect_from(NULL, 4096, service.port);
        char begin[13];
        assert_true(raw_send_text(fd, PULL));
        raw_receive(fd, begin, sizeof begin);
        assert_int_equal(raw_status(begin), 200);
        ask(200, "DELETE", "/models/wide", NULL);
        for (int i = 0; reserved_bytes() > before; i++) {
            if (i == 5000) fail_msg("the answer is held still");
            if (dripping) raw_receive(fd, (char[2]){0}, 2);
            service_forget(NULL);
            test_pause();
        }
        close(fd);
    }
    service_is_alive();
    service_stop();
}

/* Who takes an answer slowly, but fast enough, gets all of it. */
static void honest_readers(void **state) {
    (void)state;
    start(FLAGS("--body-timeout", "1", "--body-rate", "1M")); /* 64 seconds more */
    ask(201, "POST", "/models", WIDE);
    int fd = raw_connect_from(NULL, 4096, service.port);
    enum { ROOM = 80 << 20 };
    char *all = service_keep(malloc(ROOM));
    assert_true(raw_send_text(fd, PULL));
    size_t got = raw_receive(fd, all, 1 << 16);
    sleep(3);
    assert_true(raw_send_text(fd, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
    got += raw_receive(fd, all + got, ROOM - got);
    close(fd);
    assert_true(got > (size_t)64 << 20);
    assert_int_equal(raw_status(all), 200);
    service_stop();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        service_test(heads),         service_test(second_heads), service_test(bodies),
        service_test(honest_bodies), service_test(answers),      service_test(honest_readers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
