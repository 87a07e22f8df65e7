/* Tokens of a file, a daemon that is told to read it again, and pages that would call it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "../support/e2e.h"

#define FLAGS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Of "reader" and "writer". */
#define READER "3d0941964aa3ebdcb00ccef58b1bb399f9f898465e9886d5aec7f31090a0fb30"
#define WRITER "b93006774cbdd4b299389a03ac3d88c3a76b460d538795bc12718011a909fba5"

static void write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int status_of(const char *method, const char *token) {
    struct http_answer answer;
    struct http_client *own = http_client_new(service.url);
    assert_non_null(own);
    bool whole = http_call(
        own, &(struct http_request){.method = method, .path = "/models/nobody", .token = token}, &answer);
    int status = whole ? answer.status : 0;
    http_answer_fini(&answer);
    http_client_free(own);
    return status;
}

static void wait_until(int status, const char *method, const char *token) {
    for (int i = 0; i < 6000 && status_of(method, token) != status; i++) test_pause();
    assert_int_equal(status_of(method, token), status);
}

/* A daemon whose standard error goes into a file in memory, which is returned. */
static int start_with_words(const char *const *flags) {
    int words = memfd_create("words", MFD_CLOEXEC), own = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    assert_true(words >= 0 && own >= 0);
    dup2(words, STDERR_FILENO);
    service_start(flags, NULL);
    dup2(own, STDERR_FILENO);
    close(own);
    return words;
}

static bool has_said(int words, const char *text) {
    static char all[8192];
    ssize_t size = pread(words, all, sizeof all - 1, 0);
    assert_true(size >= 0);
    all[size] = '\0';
    return strstr(all, text) != NULL;
}

static void wait_until_said(int words, const char *text) {
    for (int i = 0; i < 6000 && !has_said(words, text); i++) test_pause();
    if (!has_said(words, text)) fail_msg("it never says \"%s\"", text);
}

static void hangup_reads_the_file_again(void **state) {
    (void)state;
    char path[] = "/tmp/gradd-tokens-XXXXXX";
    int fd = mkstemp(path);
    assert_int_not_equal(fd, -1);
    close(fd);
    write_file(path, "a read " READER "\n");
    int words = start_with_words(FLAGS("--token-file", path));
    assert_int_equal(status_of("GET", "reader"), 404);
    assert_int_equal(status_of("DELETE", "reader"), 403);
    assert_int_equal(status_of("DELETE", "writer"), 401);

    write_file(path, "a read " READER "\nb admin " WRITER "\n");
    test_daemon_signal(&service, SIGHUP);
    wait_until(404, "DELETE", "writer");
    assert_int_equal(status_of("DELETE", "reader"), 403);

    write_file(path, "nonsense after nonsense\n");
    assert_false(has_said(words, "the tokens are what they were"));
    test_daemon_signal(&service, SIGHUP);
    wait_until_said(words, "the tokens are what they were");
    assert_int_equal(status_of("DELETE", "reader"), 403);
    assert_int_equal(status_of("DELETE", "writer"), 404);

    write_file(path, "b admin " WRITER "\n");
    test_daemon_signal(&service, SIGHUP);
    wait_until(401, "GET", "reader");
    assert_int_equal(status_of("DELETE", "writer"), 404);
    unlink(path);
    close(words);
    service_stop();
}

/* Nobody writes to the pipe: the daemon has its deadlines all the same, reads the file when it is one again, and
 * stops. */
static void hangup_at_a_pipe(void **state) {
    (void)state;
    char path[] = "/tmp/gradd-tokens-XXXXXX", answer[4096];
    int fd = mkstemp(path);
    assert_int_not_equal(fd, -1);
    close(fd);
    write_file(path, "a read " READER "\n");
    service_start(FLAGS("--token-file", path, "--header-timeout", "1"), NULL);
    for (int i = 0; i < 2; i++) {
        unlink(path);
        assert_int_equal(mkfifo(path, 0600), 0);
        test_daemon_signal(&service, SIGHUP);
        usleep(200000); /* it has seen it, or will not see what comes */
        int slow = raw_connect(service.port);
        raw_receive(slow, answer, sizeof answer);
        close(slow);
        assert_int_equal(raw_status(answer), 408);
        if (i == 1) break;
        unlink(path);
        write_file(path, "b admin " WRITER "\n");
        test_daemon_signal(&service, SIGHUP);
        wait_until(401, "GET", "reader");
        assert_int_equal(status_of("DELETE", "writer"), 404);
    }
    service_stop();
    unlink(path);
}

static void hangup_without_a_file(void **state) {
    (void)state;
    service_start(NULL, NULL);
    test_daemon_signal(&service, SIGHUP);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(status_of("GET", NULL), 404);
        test_pause();
    }
    service_stop();
}

static void wrong_files(void **state) {
    (void)state;
    static struct test_run run;
    char path[] = "/tmp/gradd-tokens-XXXXXX", expected[128];
    int fd = mkstemp(path);
    assert_int_not_equal(fd, -1);
    close(fd);
    write_file(path, "# name scope hash\na read 0123\n");
    test_gradd_run(&run, FLAGS("--token-file", path, "--listen", "127.0.0.1:0"), NULL);
    assert_int_equal(run.status, 2);
    snprintf(expected, sizeof expected,
             "gradd: %s:2: a hash is the token's SHA-256 in 64 hexadecimal digits\n", path);
    assert_string_equal(run.err, expected);
    unlink(path);
}

/* --- browsers ---------------------------------------------------------------------------------------- */

/* The whole answer to a request with these headers, each ended; its status. */
static int say(const char *method, const char *path, const char *headers, char answer[4096]) {
    char request[1024];
    int fd = raw_connect(service.port);
    assert_int_not_equal(fd, -1);
    snprintf(request, sizeof request, "%s %s HTTP/1.1\r\n%sConnection: close\r\n\r\n", method, path, headers);
    assert_true(raw_send_text(fd, request));
    raw_receive(fd, answer, 4096);
    close(fd);
    return raw_status(answer);
}

static void every_method_is_looked_at(void **state) {
    (void)state;
    static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"};
    static const char *const strange[] = {"Host: evil.example\r\n", "Host: localhost\r\nOrigin: null\r\n",
                                          "Host: localhost\r\nOrigin: https://evil.example\r\n"};
    char answer[4096];
    service_start(NULL, FLAGS("GRADD_TOKEN=secret"));
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        for (size_t k = 0; k < sizeof strange / sizeof *strange; k++) {
            assert_int_equal(say(methods[i], "/healthz", strange[k], answer), 403);
            assert_null(strstr(answer, "Access-Control"));
        }
        assert_int_not_equal(say(methods[i], "/healthz", "Host: localhost\r\n", answer), 403);
    }
    assert_int_equal(say("GET", "/healthz", "Host: gradd\r\n", answer), 403);
    assert_int_equal(say("GET", "/healthz", "Host: localhost\r\nOrigin: a\r\nOrigin: a\r\n", answer), 400);
    service_stop();
}

static void pages_that_may_call(void **state) {
    (void)state;
    static const char page[] = "Host: gradd:80\r\nOrigin: https://a.example\r\n",
                      asks[] = "Host: gradd\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: "
                               "PUT\r\n",
                      allowed[] = "Access-Control-Allow-Origin: https://a.example\r\n";
    char answer[4096];
    service_start(
        FLAGS("--allowed-hosts", "gradd", "--allowed-origins", "https://a.example https://b.example"),
        FLAGS("GRADD_TOKEN=secret"));
    assert_int_equal(say("OPTIONS", "/models/m/parameters", asks, answer), 204);
    assert_non_null(strstr(answer, allowed));
    assert_non_null(strstr(answer, "Access-Control-Allow-Headers: Accept, Authorization,"));
    assert_non_null(strstr(answer, "Vary: Origin\r\n"));
    assert_int_equal(say("GET", "/healthz", page, answer), 200);
    assert_non_null(strstr(answer, allowed));
    assert_int_equal(say("GET", "/models", page, answer), 401); /* and the page may read why */
    assert_non_null(strstr(answer, allowed));
    assert_int_equal(say("GET", "/healthz", "Host: gradd\r\n", answer), 200);
    assert_null(strstr(answer, "Access-Control"));
    assert_non_null(strstr(answer, "Vary: Origin\r\n"));
    assert_int_equal(say("GET", "/healthz", "Host: gradd\r\nOrigin: https://c.example\r\n", answer), 403);
    assert_null(strstr(answer, "Access-Control"));
    service_stop();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        service_test(hangup_reads_the_file_again), service_test(hangup_at_a_pipe),
        service_test(hangup_without_a_file),       service_test(wrong_files),
        service_test(every_method_is_looked_at),   service_test(pages_that_may_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
