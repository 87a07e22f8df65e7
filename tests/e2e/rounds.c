/* Workers that wait for each other over real sockets, leave while they wait, or wait when the daemon is told
 * to stop; and the headers that bear conditions and keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "../support/e2e.h"

enum { MANY = 20 };

static int setup(void **state) {
    (void)state;
    service_start((const char *const[]){"--compute-threads", "1", "--io-threads", "1", NULL}, NULL);
    return 0;
}

static void make(const char *name, const char *aggregation) {
    ask(201, "POST", "/models",
        "{'name': '%s', 'seed': 1, 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear', "
        "'out_features': 1}], 'loss': {'op': 'mse'}, 'optimizer': {'op': 'sgd', 'lr': 0.1}, "
        "'aggregation': %s}",
        name, aggregation);
}

/* A worker on a connection of its own, whose answer is to come. */
static int contribute(const char *model, const char *worker) {
    char body[300], head[300];
    int fd = raw_connect(service.port);
    assert_int_not_equal(fd, -1);
    int size = snprintf(body, sizeof body,
                        "{\"model\": \"%s\", \"apply\": true, \"worker\": \"%s\","
                        " \"inputs\": {\"x\": [[1, 2]]}, \"targets\": {\"y\": [[1]]}}",
                        model, worker);
    snprintf(head, sizeof head,
             "POST /backward HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: " JSON_TYPE
             "\r\nContent-Length: %d\r\n\r\n",
             size);
    assert_true(raw_send_text(fd, head) && raw_send_text(fd, body));
    return fd;
}

static void check_answer(int fd, int status, const char *text) {
    char answer[4096];
    raw_receive(fd, answer, sizeof answer);
    close(fd);
    assert_int_equal(raw_status(answer), status);
    assert_non_null(strstr(answer, text));
}

static const json_t *described(const char *model) {
    char path[100];
    snprintf(path, sizeof path, "/models/%s", model);
    return ask(200, "GET", path, NULL);
}

/* Until so many are in. */
static void wait_for(const char *model, size_t workers) {
    while (json_array_size(at(described(model), "round/workers")) < workers) test_pause();
}

/* One compute thread and one for the sockets serve twenty who wait, and others beside. */
static void twenty_wait(void **state) {
    (void)state;
    int fd[MANY];
    char worker[16];
    make("m", "{'mode': 'sync', 'workers': 21}");
    for (int i = 0; i < MANY; i++) {
        snprintf(worker, sizeof worker, "w%d", i);
        fd[i] = contribute("m", worker);
    }
    wait_for("m", MANY);
    ask(200, "POST", "/forward", "{'model': 'm', 'inputs': {'x': [[1, 2]]}}");
    assert_int_equal(integer_at(described("m"), "round/missing"), 1);
    check_answer(contribute("m", "last"), 200, "\"contributions\":21");
    for (int i = 0; i < MANY; i++) check_answer(fd[i], 200, "\"applied_version\":1");
    ask(200, "DELETE", "/models/m", NULL);
}

/* Whoever has contributed and left is in the round all the same, and blocks nobody. */
static void one_leaves(void **state) {
    (void)state;
    make("m", "{'mode': 'sync', 'workers': 2}");
    for (int round = 1; round <= 20; round++) {
        int gone = contribute("m", "gone");
        wait_for("m", 1);
        close(gone);
        check_answer(contribute("m", "stays"), 200, "\"contributions\":2");
        assert_int_equal(integer_at(described("m"), "version"), round);
    }
    ask(200, "DELETE", "/models/m", NULL);
    service_is_alive();
}

static void time_is_up(void **state) {
    (void)state;
    make("few", "{'mode': 'sync', 'workers': 3, 'quorum': 2, 'timeout_ms': 20}");
    check_answer(contribute("few", "a"), 409, "round-failed");
    make("enough", "{'mode': 'sync', 'workers': 3, 'quorum': 1, 'timeout_ms': 20}");
    check_answer(contribute("enough", "a"), 200, "\"contributions\":1");
    ask(200, "DELETE", "/models/few", NULL);
    ask(200, "DELETE", "/models/enough", NULL);
}

static void the_model_goes(void **state) {
    (void)state;
    make("m", "{'mode': 'sync', 'workers': 2}");
    int fd = contribute("m", "a");
    wait_for("m", 1);
    ask(200, "DELETE", "/models/m", NULL);
    check_answer(fd, 404, "not-found");
}

/* --- conditions and keys -------------------------------------------------------------------------------- */

static void conditions(void **state) {
    (void)state;
    char tag[256];
    make("m", "{'mode': 'async'}");
    const struct http_answer *answer =
        service_call(200, &(struct http_request){.method = "GET", .path = "/models/m/parameters"});
    http_header(answer, "ETag", tag);
    assert_int_equal(tag[0], '"');
    answer = service_call(
        304, &(struct http_request){.method = "GET", .path = "/models/m/parameters", .if_none_match = tag});
    assert_int_equal(answer->size, 0);
    struct http_request set = {.method = "PUT",
                               .path = "/models/m/parameters?partial=true",
                               .type = JSON_TYPE,
                               .if_match = tag,
                               .key = "once",
                               .body = "{\"parameters\": {\"0.bias\": [0]}}",
                               .size = 31};
    service_call(200, &set);
    service_call(200, &set); /* the same request again: no longer a match, but answered */
    set.key = "twice";
    check_problem(service_call(412, &set), 412, "stale", NULL);
    assert_int_equal(integer_at(described("m"), "version"), 1);
    service_call(
        200, &(struct http_request){.method = "GET", .path = "/models/m/parameters", .if_none_match = tag});
    ask(200, "DELETE", "/models/m", NULL);
}

/* --- stopping: the last test, for it ends the daemon ------------------------------------------------------ */

static void told_to_stop(void **state) {
    (void)state;
    make("enough", "{'mode': 'sync', 'workers': 3, 'quorum': 2, 'timeout_ms': 3600000}");
    make("few", "{'mode': 'sync', 'workers': 3, 'timeout_ms': 3600000}");
    int enough[] = {contribute("enough", "a"), contribute("enough", "b")}, few = contribute("few", "a");
    wait_for("enough", 2);
    wait_for("few", 1);
    test_daemon_signal(&service, SIGTERM);
    for (int i = 0; i < 2; i++) check_answer(enough[i], 200, "\"contributions\":2");
    check_answer(few, 409, "round-failed");
    assert_int_equal(test_daemon_wait(&service), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        service_test(twenty_wait),    service_test(one_leaves), service_test(time_is_up),
        service_test(the_model_goes), service_test(conditions), service_test(told_to_stop),
    };
    return cmocka_run_group_tests(tests, setup, service_teardown);
}
