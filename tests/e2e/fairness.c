/* One client among others: a bound on what it has in flight, and small requests beside its large ones. */
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

enum { LIMIT = 4, LARGE = 12, ROWS = 1000, FEATURES = 100 };

static int setup_bounded(void **state) {
    (void)state;
    service_start((const char *const[]){"--client-requests", "4", NULL}, NULL);
    return 0;
}

static int setup_two_threads(void **state) {
    (void)state;
    service_start((const char *const[]){"--compute-threads", "2", NULL}, NULL);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    service_stop();
    return 0;
}

/* A request on a connection of its own, whose answer is to come. */
static int post(const char *path, const char *body) {
    char head[256];
    int fd = raw_connect(service.port);
    assert_int_not_equal(fd, -1);
    snprintf(head, sizeof head,
             "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: " JSON_TYPE
             "\r\nContent-Length: %zu\r\n\r\n",
             path, strlen(body));
    assert_true(raw_send_text(fd, head) && raw_send_text(fd, body));
    return fd;
}

static void check_answer(int fd, int status) {
    static char answer[1 << 16];
    raw_receive(fd, answer, sizeof answer);
    close(fd);
    assert_int_equal(raw_status(answer), status);
}

/* --- a bound on what is in flight -------------------------------------------------------------------- */

/* Six of a client's requests come to wait in a round: four are let in, and two refused by their heads. The
 * health check is not counted; when the round's time is up, there is room again. */
static void one_too_many(void **state) {
    (void)state;
    static char answer[4096];
    char body[256];
    int fd[LIMIT + 2], refused_ones = 0;
    ask(201, "POST", "/models",
        "{'name': 'm', 'seed': 1, 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear', "
        "'out_features': 1}], 'loss': {'op': 'mse'}, 'optimizer': {'op': 'sgd', 'lr': 0.1}, "
        "'aggregation': {'mode': 'sync', 'workers': 9, 'quorum': 1, 'timeout_ms': 3000}}");
    for (int i = 0; i < LIMIT + 2; i++) {
        snprintf(body, sizeof body,
                 "{\"model\": \"m\", \"apply\": true, \"worker\": \"w%d\", \"inputs\": {\"x\": [[1, 2]]}, "
                 "\"targets\": {\"y\": [[1]]}}",
                 i);
        fd[i] = post("/backward", body);
    }
    ask(200, "GET", "/healthz", NULL);
    for (int i = 0; i < LIMIT + 2; i++) {
        raw_receive(fd[i], answer, sizeof answer);
        close(fd[i]);
        if (raw_status(answer) == 200) continue;
        assert_int_equal(raw_status(answer), 429);
        assert_non_null(strstr(answer, "Retry-After: 1"));
        assert_non_null(strstr(answer, "urn:gradd:problem:too-many-requests"));
        refused_ones++;
    }
    assert_int_equal(refused_ones, 2);
    ask(200, "DELETE", "/models/m", NULL);
}

/* --- large ones and small ones ----------------------------------------------------------------------- */

/* A batch for some hundred milliseconds of work; malloc'ed. */
static char *large_body(void) {
    char *body = NULL;
    size_t size;
    FILE *f = open_memstream(&body, &size);
    assert_non_null(f);
    fputs("{\"model\": \"wide\", \"apply\": true, \"inputs\": {\"x\": [", f);
    for (int i = 0; i < ROWS * FEATURES; i++) fputs(i == 0 ? "[0.5" : i % FEATURES ? ",0.5" : "],[0.5", f);
    fputs("]]}, \"upstream\": {\"out\": [", f);
    for (int i = 0; i < ROWS; i++) fputs(i ? ",[1]" : "[1]", f);
    fputs("]}}", f);
    fclose(f);
    assert_non_null(body);
    return body;
}

static bool is_answered(int fd) {
    char byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0;
}

static int count_answered(const int fd[LARGE]) {
    int n = 0;
    for (int i = 0; i < LARGE; i++) n += is_answered(fd[i]);
    return n;
}

/* Twelve large requests wait for two threads, and one client goes on asking small things: served in the order
 * of their coming, it would get about one answer for each large one that is done, and none at first. */
static void small_beside_large(void **state) {
    (void)state;
    int fd[LARGE], small = 0;
    char *body = large_body();
    ask(201, "POST", "/models",
        "{'name': 'wide', 'seed': 1, 'inputs': {'x': {'shape': [%d]}}, 'layers': [{'op': 'linear', "
        "'out_features': 1024}, {'op': 'relu'}, {'op': 'linear', 'out_features': 1024}, {'op': 'relu'}, "
        "{'op': 'linear', 'out_features': 1, 'name': 'out'}], 'optimizer': {'op': 'sgd', 'lr': 0}}",
        FEATURES);
    ask(201, "POST", "/models",
        "{'name': 'small', 'seed': 1, 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'tanh'}]}");
    for (int i = 0; i < LARGE; i++) fd[i] = post("/backward", body);
    while (count_answered(fd) < LARGE) {
        ask(200, "POST", "/forward", "{'model': 'small', 'inputs': {'x': [[1, 2]]}}");
        small++;
    }
    for (int i = 0; i < LARGE; i++) check_answer(fd[i], 200);
    free(body);
    assert_true(small > 2 * LARGE);
}

int main(void) {
    const struct CMUnitTest bounded[] = {service_test(one_too_many)};
    const struct CMUnitTest two_threads[] = {service_test(small_beside_large)};
    return cmocka_run_group_tests(bounded, setup_bounded, teardown) +
           cmocka_run_group_tests(two_threads, setup_two_threads, teardown);
}
