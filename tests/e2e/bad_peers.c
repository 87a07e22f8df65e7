/* Peers that leave half-way, dribble, or speak another HTTP: the daemon lives on, and gets back what their
 * requests had reserved. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "../support/e2e.h"

enum { MEMORY = 32 << 20, BODY = 4 << 20 };

/* So little memory that it runs out if a broken request keeps its part of it. */
static int setup(void **state) {
    (void)state;
    service_start((const char *const[]){"--memory", "32M", "--max-body", "4M", "--connections", "200", NULL},
                  NULL);
    ask(201, "POST", "/models",
        "{'name': 'm', 'seed': 1, 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear', "
        "'out_features': 1}]}");
    return 0;
}

#define FORWARD "{\"model\": \"m\", \"inputs\": {\"x\": [[1, 2]]}}"

/* The head of a POST /forward in JSON with a body of `size` bytes. */
static const char *head_of(size_t size, const char *more) {
    char *head = service_keep(malloc(512));
    snprintf(head, 512,
             "POST /forward HTTP/1.1\r\nHost: localhost\r\nContent-Type: " JSON_TYPE
             "\r\n%sContent-Length: %zu\r\n\r\n",
             more, size);
    return head;
}

static int connected(void) {
    int fd = raw_connect(service.port);
    assert_int_not_equal(fd, -1);
    return fd;
}

/* A request's reservation ends when the daemon sees that its peer has left: a moment later. */
static void all_memory_is_back(void) {
    struct http_request request = {.method = "POST", .path = "/forward", .type = JSON_TYPE, .size = BODY};
    char *body = service_keep(malloc(BODY));
    memset(body, ' ', BODY);
    memcpy(body, FORWARD, sizeof FORWARD - 1);
    request.body = body;
    for (int i = 0; i < 2000; i++) {
        struct http_answer answer;
        http_call(client, &request, &answer);
        int status = answer.status;
        http_answer_fini(&answer);
        if (status == 200) return;
        assert_int_equal(status, 503);
        test_pause();
    }
    fail_msg("memory stays reserved");
}

static void leave_half_way(void **state) {
    (void)state;
    char *half = service_keep(calloc(1, BODY / 2));
    for (int i = 0; i < 100; i++) {
        int fd = connected();
        raw_send_text(fd, head_of(BODY, ""));
        if (i % 4) raw_send(fd, half, i % 4 == 1 ? 1 : (size_t)BODY / 2); /* or none of it */
        if (i % 3 == 0) {                                                 /* a reset, not an end */
            struct linger hard = {.l_onoff = 1};
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        }
        close(fd);
    }
    all_memory_is_back();
    service_is_alive();
}

static void leave_within_the_head(void **state) {
    (void)state;
    const char *head = head_of(sizeof FORWARD - 1, "");
    for (size_t cut = 0; cut < strlen(head); cut++) {
        int fd = connected();
        raw_send(fd, head, cut);
        close(fd);
    }
    service_is_alive();
}

/* All is sent, and nobody waits for the answer. */
static void leave_before_the_answer(void **state) {
    (void)state;
    for (int i = 0; i < 100; i++) {
        int fd = connected();
        raw_send_text(fd, head_of(sizeof FORWARD - 1, ""));
        raw_send_text(fd, FORWARD);
        close(fd);
    }
    all_memory_is_back();
    service_is_alive();
}

static void leave_within_a_chunked_body(void **state) {
    (void)state;
    for (int i = 0; i < 50; i++) {
        int fd = connected();
        raw_send_text(fd, "POST /forward HTTP/1.1\r\nHost: localhost\r\nContent-Type: " JSON_TYPE
                          "\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"mod\r\n10000\r\n");
        raw_send_text(fd, FORWARD);
        close(fd);
    }
    all_memory_is_back();
    service_is_alive();
}

/* Who closes that half of the connection before all is said hears nothing. Who has said all may hear the
 * answer, as long as libmicrohttpd has not seen the end yet, which it takes for the peer's leaving. */
static void half_closed(void **state) {
    (void)state;
    char answer[4096];
    int fd = connected();
    raw_send_text(fd, head_of(sizeof FORWARD - 1, "Connection: close\r\n"));
    raw_send_text(fd, FORWARD);
    shutdown(fd, SHUT_WR);
    raw_receive(fd, answer, sizeof answer);
    close(fd);
    if (answer[0]) assert_int_equal(raw_status(answer), 200);

    fd = connected(); /* the other half of this body never comes */
    raw_send_text(fd, head_of(sizeof FORWARD - 1, ""));
    raw_send(fd, FORWARD, 10);
    shutdown(fd, SHUT_WR);
    raw_receive(fd, answer, sizeof answer);
    close(fd);
    assert_string_equal(answer, "");
    service_is_alive();
}

static void byte_by_byte(void **state) {
    (void)state;
    char answer[4096];
    const char *head = head_of(sizeof FORWARD - 1, "Connection: close\r\n");
    int fd = connected();
    for (const char *c = head; *c; c++) assert_true(raw_send(fd, c, 1));
    for (const char *c = FORWARD; *c; c++) assert_true(raw_send(fd, c, 1));
    raw_receive(fd, answer, sizeof answer);
    close(fd);
    assert_int_equal(raw_status(answer), 200);
}

static void pipelined(void **state) {
    (void)state;
    enum { REQUESTS = 20 };
    char *answers = service_keep(malloc(65536));
    int fd = connected(), found = 0;
    for (int i = 0; i < REQUESTS; i++) {
        raw_send_text(fd, head_of(sizeof FORWARD - 1, i == REQUESTS - 1 ? "Connection: close\r\n" : ""));
        raw_send_text(fd, FORWARD);
    }
    raw_receive(fd, answers, 65536);
    close(fd);
    for (const char *at_ = answers; (at_ = strstr(at_, "HTTP/1.1 200 ")); at_++) found++;
    assert_int_equal(found, REQUESTS);
}

#define GET  "GET /healthz HTTP/1.1\r\n"
#define POST "POST /forward HTTP/1.1\r\nHost: localhost\r\nContent-Type: " JSON_TYPE "\r\n"

/* What another server on the way might read as another request: refused, whatever follows. */
static void strange_heads(void **state) {
    (void)state;
    static const char *const cases[] = {
        GET "\r\n",
        GET "Host: localhost\r\nHost: y\r\n\r\n",
        "GET nothing HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /%zz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /models/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}   x",
        POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\n{}   ",
        POST "Content-Length: -5\r\n\r\n{}   ",
        POST "Content-Length: 5x\r\n\r\n{}   ",
        POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST "Transfer-Encoding: gzip\r\n\r\n{}",
        POST "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        POST "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        POST "Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n",
        POST "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        GET "Host: localhost\r\nBad Name: 1\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char answer[4096];
        int fd = connected();
        assert_true(raw_send_text(fd, cases[i]));
        shutdown(fd, SHUT_WR);
        raw_receive(fd, answer, sizeof answer);
        close(fd);
        int status = raw_status(answer); /* 0: closed without a word */
        if (status != 0 && status != 400 && status != 413) fail_msg("%s answers %.300s", cases[i], answer);
        if (status == 400 && strstr(answer, PROBLEM))
            assert_non_null(strstr(answer, "urn:gradd:problem:malformed"));
    }
    service_is_alive();
}

static void noise(void **state) {
    (void)state;
    uint32_t x = 1;
    for (int i = 0; i < 50; i++) {
        unsigned char bytes[700];
        for (size_t k = 0; k < sizeof bytes; k++)
            bytes[k] = (unsigned char)((x = x * 1664525 + 1013904223) >> 24);
        int fd = connected();
        raw_send(fd, bytes, sizeof bytes);
        raw_send_text(fd, "\r\n\r\n");
        shutdown(fd, SHUT_WR);
        char answer[4096];
        raw_receive(fd, answer, sizeof answer);
        close(fd);
        assert_int_not_equal(raw_status(answer), 200);
    }
    service_is_alive();
}

/* More header than any request needs. */
static void endless_head(void **state) {
    (void)state;
    enum { SIZE = 1 << 20 };
    char *answer = service_keep(malloc(65536)), *name = service_keep(malloc(SIZE));
    memset(name, 'a', SIZE);
    int fd = connected();
    raw_send_text(fd, GET "Host: localhost\r\n");
    raw_send(fd, name, SIZE); /* may be cut short: the daemon has seen enough */
    shutdown(fd, SHUT_WR);
    raw_receive(fd, answer, 65536);
    close(fd);
    int status = raw_status(answer);
    if (status != 0 && status != 400 && status != 413 && status != 431) fail_msg("answers %.200s", answer);
    service_is_alive();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        service_test(leave_half_way),
        service_test(leave_within_the_head),
        service_test(leave_before_the_answer),
        service_test(leave_within_a_chunked_body),
        service_test(half_closed),
        service_test(byte_by_byte),
        service_test(pipelined),
        service_test(strange_heads),
        service_test(noise),
        service_test(endless_head),
    };
    return cmocka_run_group_tests(tests, setup, service_teardown);
}
