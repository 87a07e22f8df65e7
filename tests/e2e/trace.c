/* The log: one JSON line a request, with the caller's trace where there is one. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../support/check.h"
#include "../support/e2e.h"

#define ID          "0af7651916cd43dd8448eb211c80319c"
#define SPAN        "b7ad6b7169203331"
#define TRACEPARENT "00-" ID "-" SPAN "-01"

/* Headers as they are sent, and whether the log tells of the trace. */
static const struct {
    const char *headers;
    bool traced;
} cases[] = {
    {"", false},
    {"traceparent: " TRACEPARENT "\r\n", true},
    {"TraceParent:\t" TRACEPARENT "  \r\n", true},
    {"traceparent: 00-" ID "-" SPAN "-00\r\ntracestate: a=b,c=d\r\n", true},
    {"traceparent: 01-" ID "-" SPAN "-ff-more\r\n", true},
    {"traceparent: cc-" ID "-" SPAN "-01\r\n", true},
    {"traceparent: 01-" ID "-" SPAN "-01more\r\n", false},
    {"traceparent: 00-" ID "-" SPAN "-01-more\r\n", false},
    {"traceparent: 00-" ID "-" SPAN "-0\r\n", false},
    {"traceparent: 00-" ID "-" SPAN "-001\r\n", false},
    {"traceparent: 00-" ID "-" SPAN "-0A\r\n", false},
    {"traceparent: 00-" ID "-" SPAN "\r\n", false},
    {"traceparent: ff-" ID "-" SPAN "-01\r\n", false},
    {"traceparent: 0-" ID "-" SPAN "-01\r\n", false},
    {"traceparent: 0x-" ID "-" SPAN "-01\r\n", false},
    {"traceparent: 00-0AF7651916CD43DD8448EB211C80319C-" SPAN "-01\r\n", false},
    {"traceparent: 00-" ID "-B7AD6B7169203331-01\r\n", false},
    {"traceparent: 00-00000000000000000000000000000000-" SPAN "-01\r\n", false},
    {"traceparent: 00-" ID "-0000000000000000-01\r\n", false},
    {"traceparent: 00-" ID "0-" SPAN "-01\r\n", false},
    {"traceparent: 00-" ID "-" SPAN "0-01\r\n", false},
    {"traceparent: 00_" ID "-" SPAN "-01\r\n", false},
    {"traceparent: 00-" ID "\"-" SPAN "-01\r\n", false},
    {"traceparent: \r\n", false},
    {"traceparent: " TRACEPARENT "\r\ntraceparent: " TRACEPARENT "\r\n", false}, /* whose is it? */
};
enum { CASES = sizeof cases / sizeof cases[0], TWICE = CASES - 1 }; /* the last is refused */

/* A daemon whose log goes into a file in memory, which is returned. */
static int start_with_log(const char *tokens) {
    int log = memfd_create("log", MFD_CLOEXEC), own = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    assert_true(log >= 0 && own >= 0);
    dup2(log, STDERR_FILENO);
    service_start((const char *const[]){"--log", "requests", tokens ? "--token-file" : NULL, tokens, NULL},
                  NULL);
    dup2(own, STDERR_FILENO);
    close(own);
    return log;
}

static void send_all(void) {
    char text[1024];
    for (int i = 0; i < CASES; i++) {
        int fd = raw_connect(service.port);
        assert_true(fd >= 0);
        snprintf(text, sizeof text, "GET /case/%d HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n",
                 i, cases[i].headers);
        assert_true(raw_send_text(fd, text));
        raw_receive(fd, text, sizeof text);
        assert_int_equal(raw_status(text), i == TWICE ? 400 : 404);
        assert_null(strcasestr(text, "\r\ntraceparent:"));
        assert_null(strcasestr(text, "\r\ntraceresponse:"));
        close(fd);
    }
}

/* A line is written a little after its answer has come, so the daemon is stopped first. */
static void is_logged(void **state) {
    (void)state;
    static char text[CASES * 1024];
    int log = start_with_log(NULL), lines = 0;
    send_all();
    service_stop();
    ssize_t size = pread(log, text, sizeof text - 1, 0);
    assert_true(size > 0 && size < (ssize_t)sizeof text - 1);
    close(log);
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1, lines++) {
        *end = '\0';
        const json_t *entry = service_json(line);
        const char *path = text_at(entry, "path");
        assert_memory_equal(path, "/case/", 6);
        long i = strtol(path + 6, NULL, 10);
        assert_in_range(i, 0, CASES - 1);
        assert_int_equal(integer_at(entry, "status"), i == TWICE ? 400 : 404);
        assert_string_equal(text_at(entry, "problem"), i == TWICE ? "malformed" : "not-found");
        if (json_object_size(entry) != (cases[i].traced ? 12 : 10))
            fail_msg("%s is logged as %s", cases[i].headers, line);
        if (!cases[i].traced) continue;
        assert_string_equal(text_at(entry, "trace_id"), ID);
        assert_string_equal(text_at(entry, "span_id"), SPAN);
    }
    assert_int_equal(lines, CASES);
}

/* Nor is anything but a path where the head was refused before it was taken apart. */
static void queries_are_not_logged(void **state) {
    (void)state;
    static const char *const heads[] = {
        "GET /models?secret HTTP/1.1\r\nHost: localhost\r\n",
        "GET /models?secret HTTP/1.1\r\nHost: evil.example\r\n",
        "GET http://secret@localhost/models?secret HTTP/1.1\r\nHost: localhost\r\nOrigin: https://x\r\n",
        "GET http://localhost?secret HTTP/1.1\r\nHost: localhost\r\nOrigin: https://x\r\n",
        "GET models?next=https://h/secret HTTP/1.1\r\nHost: localhost\r\n",
        "GET /models?secret HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n",
        "GET /models?secret HTTP/3.0\r\nHost: localhost\r\n",
        "GET /models?secret HTTP/1.1\r\nno colon\r\n"};
    static char text[8192];
    int log = start_with_log(NULL);
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        int fd = raw_connect(service.port);
        assert_true(fd >= 0 && raw_send_text(fd, heads[i]) && raw_send_text(fd, "Connection: close\r\n\r\n"));
        raw_receive(fd, text, sizeof text);
        close(fd);
    }
    service_stop();
    ssize_t size = pread(log, text, sizeof text - 1, 0);
    assert_true(size > 0);
    text[size] = '\0';
    close(log);
    if (strstr(text, "secret")) fail_msg("%s", text);
    if (!strstr(text, "/models\"")) fail_msg("%s", text);
    if (!strstr(text, "\"status\": 505")) fail_msg("%s", text); /* also of a first line that does not parse */
}

/* Who asked, by the name of the token, and what was wrong. */
static void tokens_and_problems_are_logged(void **state) {
    (void)state;
    static const char file[] =
        "reader read 3d0941964aa3ebdcb00ccef58b1bb399f9f898465e9886d5aec7f31090a0fb30\n" /* of "reader" */
        "b.1 admin b93006774cbdd4b299389a03ac3d88c3a76b460d538795bc12718011a909fba5\n",  /* of "writer" */
        as_reader[] = "Host: localhost\r\nAuthorization: Bearer reader\r\n",
                      as_writer[] = "Host: localhost\r\nAuthorization: Bearer writer\r\n";
    static const struct {
        const char *line, *headers, *token, *problem; /* NULL: is not told */
        int status;
    } requests[] = {
        {"GET /models", as_reader, "reader", NULL, 200},
        {"DELETE /models/m", as_reader, "reader", "insufficient-scope", 403},
        {"DELETE /models/m", as_writer, "b.1", "not-found", 404},
        {"GET /models", "Host: localhost\r\nAuthorization: Bearer b.1\r\n", NULL, "unauthorized", 401},
        {"GET /models", "Host: localhost\r\n", NULL, "unauthorized", 401},
        {"GET /healthz", as_writer, NULL, NULL, 200},
        {"GET /models", "Host: evil.example\r\nAuthorization: Bearer writer\r\n", NULL, "forbidden", 403},
        {"POST /models", "Host: localhost\r\nAuthorization: Bearer writer\r\nContent-Length: 2\r\n", "b.1",
         "invalid-value", 422},
        {"POST /models",
         "Host: localhost\r\nAuthorization: Bearer writer\r\nContent-Length: 999999999999\r\n", "b.1",
         "too-large", 413},
    };
    static char text[8192];
    char path[] = "/tmp/gradd-tokens-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, file, sizeof file - 1), sizeof file - 1);
    close(fd);
    int log = start_with_log(path);
    unlink(path);
    enum { N = sizeof requests / sizeof requests[0] };
    char ids[N][17];
    int lines = 0;
    for (int i = 0; i < N; i++) {
        fd = raw_connect(service.port);
        assert_true(fd >= 0);
        snprintf(text, sizeof text, "%s HTTP/1.1\r\n%sConnection: close\r\n\r\n{}", requests[i].line,
                 requests[i].headers);
        assert_true(raw_send_text(fd, text));
        raw_receive(fd, text, sizeof text);
        assert_int_equal(raw_status(text), requests[i].status);
        const char *id = strcasestr(text, "\r\nX-Request-Id: ");
        assert_non_null(id);
        snprintf(ids[i], sizeof ids[i], "%.16s", id + 16);
        close(fd);
    }
    service_stop();
    ssize_t size = pread(log, text, sizeof text - 1, 0);
    assert_true(size > 0);
    text[size] = '\0';
    close(log);
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1, lines++) {
        *end = '\0';
        const json_t *entry = service_json(line), *token = json_object_get(entry, "token"),
                     *problem = json_object_get(entry, "problem");
        int i = 0;
        while (i < N - 1 && strcmp(ids[i], text_at(entry, "id")) != 0) i++;
        assert_string_equal(ids[i], text_at(entry, "id"));
        assert_int_equal(integer_at(entry, "status"), requests[i].status);
        if (requests[i].token ? !token || strcmp(json_string_value(token), requests[i].token) != 0 : !!token)
            fail_msg("%s", line);
        if (requests[i].problem ? !problem || strcmp(json_string_value(problem), requests[i].problem) != 0
                                : !!problem)
            fail_msg("%s", line);
        assert_null(strstr(line, "writer"));
    }
    assert_int_equal(lines, N);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        service_test(is_logged),
        service_test(queries_are_not_logged),
        service_test(tokens_and_problems_are_logged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
