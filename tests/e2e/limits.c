/* What is beyond a limit: bodies, memory, models, contexts. Refused at once, and possible again as soon as
 * there is room. */
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

#define FLAGS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define MODEL      "'seed': 1, 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear', 'out_features': 1}]"
#define FORWARD    "{\"model\": \"m\", \"inputs\": {\"x\": [[1, 2]]}}"

static const char *busy(const struct http_answer *answer) {
    static char after[256];
    check_problem(answer, 503, "busy", NULL);
    assert_true(strtol(http_header(answer, "Retry-After", after), NULL, 10) > 0);
    return after;
}

/* A forward padded with spaces to this size. */
static const struct http_answer *post_sized(int status, size_t size, bool chunked) {
    char *body = service_keep(malloc(size));
    memset(body, ' ', size);
    memcpy(body, FORWARD, sizeof FORWARD - 1);
    return service_call(status, &(struct http_request){.method = "POST",
                                                       .path = "/forward",
                                                       .type = JSON_TYPE,
                                                       .body = body,
                                                       .size = size,
                                                       .chunked = chunked});
}

static void bodies(void **state) {
    (void)state;
    static const size_t limit = 65536;
    service_start(FLAGS("--max-body", "64K"), NULL);
    ask(201, "POST", "/models", "{'name': 'm', " MODEL "}");
    for (int chunked = 0; chunked < 2; chunked++) {
        post_sized(200, limit, chunked);
        check_problem(post_sized(413, limit + 1, chunked), 413, "too-large", NULL);
        check_problem(post_sized(413, 4 * limit, chunked), 413, "too-large", NULL);
        check_problem(post_sized(413, 100 * limit, chunked), 413, "too-large", NULL);
        post_sized(200, sizeof FORWARD - 1, chunked);
    }
    /* a GET has no body */
    check_problem(
        service_call(413,
                     &(struct http_request){.method = "GET", .path = "/models", .body = "{}", .size = 2}),
        413, "too-large", NULL);
    service_is_alive();
    service_stop();
}

/* A length that nobody will send is refused without waiting for it. */
static void lengths(void **state) {
    (void)state;
    static const char *const told[] = {"65537",
                                       "1000000000000",
                                       "9223372036854775807",
                                       "9223372036854775808",
                                       "18446744073709551615",
                                       "18446744073709551616",
                                       "99999999999999999999999999"};
    service_start(FLAGS("--max-body", "64K"), NULL);
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
        char head[256], answer[4096];
        int fd = raw_connect(service.port);
        assert_int_not_equal(fd, -1);
        snprintf(head, sizeof head,
                 "POST /forward HTTP/1.1\r\nHost: localhost\r\nContent-Type: " JSON_TYPE
                 "\r\nExpect: 100-continue\r\nContent-Length: %s\r\n\r\n",
                 told[i]);
        assert_true(raw_send_text(fd, head));
        raw_receive(fd, answer, sizeof answer);
        close(fd);
        if (raw_status(answer) != 413 && (i < 3 || raw_status(answer) != 400))
            fail_msg("%s answers %.200s", told[i], answer);
    }
    service_is_alive();
    service_stop();
}

static void memory(void **state) {
    (void)state;
    service_start(FLAGS("--memory", "16M", "--max-body", "4M"), NULL);
    /* never */
    refused(
        413, "too-large", NULL, "POST", "/models",
        "{'name': 'huge', 'inputs': {'x': {'shape': [4096]}}, 'layers': [{'op': 'linear', 'out_features': "
        "4096}]}");
    /* not now */
    ask(201, "POST", "/models",
        "{'name': 'big', 'inputs': {'x': {'shape': [1024]}}, 'layers': [{'op': 'linear', 'out_features': "
        "2048}]}");
    for (int i = 0; i < 3; i++)
        busy(ask_bytes(503, "POST", "/models",
                       "{'name': 'second', 'inputs': {'x': {'shape': [1024]}}, 'layers': [{'op': 'linear', "
                       "'out_features': 2048}]}"));
    ask(404, "GET", "/models/second", NULL);
    ask(200, "DELETE", "/models/big", NULL);
    ask(201, "POST", "/models",
        "{'name': 'second', 'inputs': {'x': {'shape': [1024]}}, 'layers': [{'op': 'linear', 'out_features': "
        "2048}]}");
    ask(200, "DELETE", "/models/second", NULL);
    service_stop();
}

/* Tapes fill the memory; letting one go makes room for the next. */
static void memory_of_contexts(void **state) {
    (void)state;
    static const char body[] = "{'model': 'wide', 'inputs': {'x': [[1, 2]]}, 'retain': true}";
    const char *last = NULL;
    int kept = 0;
    service_start(FLAGS("--memory", "16M"), NULL);
    ask(201, "POST", "/models",
        "{'name': 'wide', 'seed': 1, 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear', "
        "'out_features': 100000, 'bias': false}, {'op': 'tanh'}, {'op': 'tanh', 'name': 't'}, {'op': "
        "'linear', 'out_features': 1}]}");
    for (;; kept++) {
        struct http_answer answer;
        const char *text = quoted(body);
        struct http_request request = {
            .method = "POST", .path = "/forward", .type = JSON_TYPE, .body = text, .size = strlen(text)};
        http_call(client, &request, &answer);
        if (answer.status != 200) {
            busy(&answer);
            http_answer_fini(&answer);
            break;
        }
        json_t *json = json_loadb((char *)answer.body, answer.size, 0, NULL);
        last = quoted(text_at(json, "context"));
        json_decref(json);
        http_answer_fini(&answer);
        assert_in_range(kept, 0, 100);
    }
    assert_in_range(kept, 2, 40);
    assert_int_equal(json_array_size(at(ask(200, "GET", "/contexts", NULL), "contexts")), kept);
    char path[64];
    snprintf(path, sizeof path, "/contexts/%s", last);
    ask(200, "DELETE", path, NULL);
    ask(200, "POST", "/forward", body);
    busy(ask_bytes(503, "POST", "/forward", body));
    service_stop();
}

static void models(void **state) {
    (void)state;
    service_start(FLAGS("--max-models", "2"), NULL);
    ask(201, "POST", "/models", "{'name': 'a', " MODEL "}");
    ask(201, "POST", "/models", "{'name': 'b', " MODEL "}");
    busy(ask_bytes(503, "POST", "/models", "{'name': 'c', " MODEL "}"));
    refused(409, "name-taken", "/name", "POST", "/models", "{'name': 'b', " MODEL "}");
    ask(200, "DELETE", "/models/a", NULL);
    ask(201, "POST", "/models", "{'name': 'c', " MODEL "}");
    service_stop();
}

static void contexts(void **state) {
    (void)state;
    service_start(FLAGS("--max-contexts", "1"), NULL);
    ask(201, "POST", "/models", "{'name': 'm', " MODEL "}");
    ask(200, "POST", "/forward", "{'model': 'm', 'inputs': {'x': [[1, 2]]}, 'retain': true}");
    busy(ask_bytes(503, "POST", "/forward", "{'model': 'm', 'inputs': {'x': [[1, 2]]}, 'retain': true}"));
    ask(200, "POST", "/forward", "{'model': 'm', 'inputs': {'x': [[1, 2]]}}");
    service_stop();
}

/* Sends a GET whose head has `size` bytes; the answer. */
static void get_with_head(size_t size, char answer[4096]) {
    static const char begin[] = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: ";
    char *head = service_keep(malloc(size));
    memset(head, 'a', size);
    memcpy(head, begin, sizeof begin - 1);
    memcpy(head + size - 4, "\r\n\r\n", 4);
    int fd = raw_connect(service.port);
    assert_int_not_equal(fd, -1);
    assert_true(raw_send(fd, head, size));
    raw_receive(fd, answer, 4096);
    close(fd);
}

static void heads(void **state) {
    (void)state;
    static const size_t limits[] = {1024, 16384, 32768};
    static const char *const told[] = {"1K", "16K", "32K"};
    for (size_t i = 0; i < 3; i++) {
        char answer[4096];
        service_start(FLAGS("--max-head", told[i]), NULL);
        get_with_head(limits[i], answer);
        assert_int_equal(raw_status(answer), 200);
        get_with_head(limits[i] + 1, answer);
        assert_int_equal(raw_status(answer), 431);
        assert_non_null(strstr(answer, "urn:gradd:problem:head-too-large"));
        service_is_alive();
        service_stop();
    }
}

static bool is_served(int fd) {
    char answer[4096];
    return raw_send_text(fd, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") &&
           recv(fd, answer, sizeof answer, 0) > 0;
}

/* One address has its own limit, and others are served beside it. */
static void addresses(void **state) {
    (void)state;
    enum { LIMIT = 3 };
    int fds[LIMIT];
    service_start(FLAGS("--address-connections", "3", "--connections", "100"), NULL);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < LIMIT; i++) {
            fds[i] = raw_connect_from("127.0.0.2", 0, service.port);
            for (int tries = 0; !is_served(fds[i]);
                 tries++) { /* those of the last round end a moment later */
                close(fds[i]);
                assert_in_range(tries, 0, 2000);
                test_pause();
                fds[i] = raw_connect_from("127.0.0.2", 0, service.port);
            }
        }
        int beyond = raw_connect_from("127.0.0.2", 0, service.port);
        assert_int_not_equal(beyond, -1);
        assert_false(is_served(beyond));
        close(beyond);
        int other = raw_connect_from("127.0.0.3", 0, service.port);
        assert_true(is_served(other));
        close(other);
        for (int i = 0; i < LIMIT; i++) {
            assert_true(is_served(fds[i]));
            close(fds[i]);
        }
    }
    service_is_alive();
    service_stop();
}

static void keys(void **state) {
    (void)state;
    static const char *const keys[] = {"first", "first", "second"};
    static const int statuses[] = {201, 201, 503};
    const char *body = quoted("{'name': 'm', " MODEL "}");
    service_start(FLAGS("--max-keys", "1"), NULL);
    for (int i = 0; i < 3; i++) {
        const struct http_answer *answer =
            service_call(statuses[i], &(struct http_request){.method = "POST",
                                                             .path = "/models",
                                                             .type = JSON_TYPE,
                                                             .key = keys[i],
                                                             .body = body,
                                                             .size = strlen(body)});
        if (statuses[i] == 503) busy(answer);
    }
    service_stop();
}

/* The flags reach what they limit; tests/api/cases/limits.json has each limit, and one beyond. */
static void documents(void **state) {
    (void)state;
    service_start(FLAGS("--max-layers", "1", "--max-rank", "2", "--max-name", "4", "--max-tensors", "1",
                        "--max-json-depth", "8", "--max-json-values", "100"),
                  NULL);
    ask(201, "POST", "/models", "{'name': 'm', " MODEL "}");
    ask(200, "POST", "/forward", "{'model': 'm', 'inputs': {'x': [[1, 2]]}}");
    refused(413, "too-large", "/layers", "POST", "/models",
            "{'name': 'n', 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'relu'}, {'op': 'relu'}]}");
    refused(422, "size-overflow", "/inputs/x/shape", "POST", "/models",
            "{'name': 'n', 'inputs': {'x': {'shape': [2, 2]}}, 'layers': [{'op': 'relu'}]}");
    refused(422, "invalid-name", "/name", "POST", "/models", "{'name': 'horse', " MODEL "}");
    refused(413, "too-large", NULL, "POST", "/forward",
            "{'model': 'm', 'inputs': {'x': [[1, 2]], 'y': [[1, 2]]}}");
    refused(400, "malformed", NULL, "POST", "/step", "{'model': [[[[[[[[]]]]]]]]}");
    char many[400];
    memset(many, '0', sizeof many);
    for (size_t i = 1; i < sizeof many; i += 2) many[i] = ',';
    refused(413, "too-large", NULL, "POST", "/step", "{'model': [%.*s]}", (int)sizeof many - 1, many);
    service_stop();
}

#define DRAWN(layers)                                                                                        \
    "{'model': {'seed': 1, 'inputs': {'x': {'shape': [1]}}, 'layers': [" layers "]}, 'inputs': {'x': "       \
    "[[1]]}}"
#define WIDE "{'op': 'linear', 'out_features': 2116000000}, {'op': 'reshape', 'shape': [46000, 46000]}"
#define DEEP "{'op': 'linear', 'out_features': 46000}"

/* A limit that is told, none, and the machine's own, beyond which is what would take a day. */
static void work(void **state) {
    (void)state;
    service_start(FLAGS("--max-work", "1e6"), NULL);
    ask(200, "POST", "/forward", DRAWN("{'op': 'linear', 'out_features': 100}"));
    refused(422, "too-much-work", NULL, "POST", "/forward", DRAWN("{'op': 'linear', 'out_features': 1000}"));
    service_stop();
    service_start(FLAGS("--max-work", "0", "--memory", "64M"), NULL);
    refused(413, "too-large", NULL, "POST", "/forward", DRAWN(WIDE ", " DEEP));
    service_stop();
    service_start(FLAGS("--memory", "64M", "--compute-threads", "2"), NULL);
    refused(422, "too-much-work", NULL, "POST", "/forward", DRAWN(WIDE ", " DEEP));
    service_stop();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        service_test(bodies),    service_test(lengths),
        service_test(memory),    service_test(memory_of_contexts),
        service_test(models),    service_test(contexts),
        service_test(documents), service_test(heads),
        service_test(addresses), service_test(keys),
        service_test(work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
