/* The file of tokens, read and read again; what is wrong with its text is tests/api/access.c's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../server/tokens.h"
#include "../support/service.h"

/* Of "first" and "second". */
#define FIRST  "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e"
#define SECOND "16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4"

static char path[] = "/tmp/gradd-tokens-XXXXXX";

static void write_file(const char *text) {
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int ask(struct test_service *service, const char *token) {
    char bearer[80];
    snprintf(bearer, sizeof bearer, "Bearer %s", token);
    struct test_answer answer = test_request(
        service, &(struct test_request){.method = "GET", .path = "/models", .authorization = bearer});
    int status = answer.status;
    test_answer_free(&answer);
    return status;
}

/* As a daemon that was told to. */
static void read_again(struct test_service *service, const struct srv_token_file *of) {
    static const struct timespec pause = {.tv_nsec = 1000000};
    struct srv_token_file file = {.path = of->path, .secret = of->secret, .wanted = true};
    for (int i = 0; file.wanted || file.reading; i++) {
        if (i == 60000) fail_msg("%s is being read yet", of->path);
        srv_token_file_tick(&file, service->api);
        nanosleep(&pause, NULL);
    }
}

static void a_bad_file_changes_nothing(void **state) {
    (void)state;
    struct test_service service;
    struct nn_error err = {0};
    test_service_start(&service, NULL, 0);
    const struct srv_token_file lines = {.path = path}, secret = {.path = path, .secret = true};
    write_file("a admin " FIRST "\n");
    assert_int_equal(srv_tokens_load(service.api, &lines, &err), NN_OK);
    assert_int_equal(ask(&service, "first"), 200);
    assert_int_equal(ask(&service, "second"), 401);

    static const char alone[] = SECOND "\n";
    static const char *const bad[] = {"", "name admin secret\n", "second\n", "second\nthird\n", alone};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        err = (struct nn_error){0};
        write_file(bad[i]);
        assert_int_equal(srv_tokens_load(service.api, &lines, &err), NN_E_VALUE);
        assert_memory_equal(err.text, path, sizeof path - 1);
        assert_null(strstr(err.text, "second"));
        assert_null(strstr(err.text, " secret\n"));
        assert_int_equal(ask(&service, "first"), 200);
        assert_int_equal(ask(&service, "second"), 401);
    }
    unlink(path);
    err = (struct nn_error){0};
    assert_int_equal(srv_tokens_load(service.api, &lines, &err), NN_E_NOT_FOUND);
    assert_int_equal(ask(&service, "first"), 200);

    write_file("b read " SECOND "\r\n");
    read_again(&service, &lines);
    assert_int_equal(ask(&service, "first"), 401);
    assert_int_equal(ask(&service, "second"), 200);
    write_file(SECOND "\r\n");
    read_again(&service, &secret);
    assert_int_equal(ask(&service, "second"), 401);
    assert_int_equal(ask(&service, SECOND), 200);
    test_service_stop(&service);
}

static void a_folder_is_no_file(void **state) {
    (void)state;
    struct test_service service;
    struct nn_error err = {0};
    test_service_start(&service, NULL, 0);
    assert_int_equal(srv_tokens_load(service.api, &(struct srv_token_file){.path = "/tmp"}, &err),
                     NN_E_NOT_FOUND);
    assert_string_equal(err.text, "/tmp: Is a directory");
    test_service_stop(&service);
}

/* Nobody is at the other end of the pipe. */
static void what_is_no_regular_file_is_not_read_again(void **state) {
    (void)state;
    struct test_service service;
    struct nn_error err = {0};
    char fifo[sizeof path + 8];
    snprintf(fifo, sizeof fifo, "%s-fifo", path);
    test_service_start(&service, NULL, 0);
    write_file("a admin " FIRST "\n");
    assert_int_equal(srv_tokens_load(service.api, &(struct srv_token_file){.path = path}, &err), NN_OK);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    read_again(&service, &(struct srv_token_file){.path = fifo});
    read_again(&service, &(struct srv_token_file){.path = "/tmp"});
    read_again(&service, &(struct srv_token_file){.path = "/dev/zero"});
    unlink(fifo);
    assert_int_equal(ask(&service, "first"), 200);
    test_service_stop(&service);
}

static void *write_on(void *name) {
    int fd = open(name, O_WRONLY | O_CLOEXEC);
    while (fd >= 0 && write(fd, "# and so on\n", 12) > 0) continue;
    close(fd);
    return NULL;
}

/* At the start a pipe will do; but it has to end. */
static void a_pipe_without_an_end(void **state) {
    (void)state;
    struct test_service service;
    struct nn_error err = {0};
    pthread_t writer;
    char fifo[sizeof path + 8];
    snprintf(fifo, sizeof fifo, "%s-fifo", path);
    test_service_start(&service, NULL, 0);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(pthread_create(&writer, NULL, write_on, fifo), 0);
    assert_int_equal(srv_tokens_load(service.api, &(struct srv_token_file){.path = fifo}, &err),
                     NN_E_NOT_FOUND);
    pthread_join(writer, NULL);
    unlink(fifo);
    test_service_stop(&service);
}

static int make_file(void **state) {
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state) {
    (void)state;
    return unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_file_changes_nothing),
        cmocka_unit_test(a_folder_is_no_file),
        cmocka_unit_test(what_is_no_regular_file_is_not_read_again),
        cmocka_unit_test(a_pipe_without_an_end),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("tokens", tests, make_file, remove_file);
}
