/* The file of tokens, read and read again; what is wrong with its text is tests/api/access.c's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../server/tokens.h"
#include "../support/service.h"

static char path[] = "/tmp/gradd-tokens-XXXXXX";

static void write_file(const char *text) {
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int ask(struct test_service *service, const char *token) {
    char bearer[64];
    snprintf(bearer, sizeof bearer, "Bearer %s", token);
    struct test_answer answer = test_request(
        service, &(struct test_request){.method = "GET", .path = "/models", .authorization = bearer});
    int status = answer.status;
    test_answer_free(&answer);
    return status;
}

static void a_bad_file_changes_nothing(void **state) {
    (void)state;
    struct test_service service;
    struct nn_error err = {0};
    test_service_start(&service, NULL, 0);
    write_file("first\n");
    assert_int_equal(srv_tokens_load(service.api, path, &err), NN_OK);
    assert_int_equal(ask(&service, "first"), 200);
    assert_int_equal(ask(&service, "second"), 401);

    static const char *const bad[] = {"", "name admin secret\n", "second\nthird\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        err = (struct nn_error){0};
        write_file(bad[i]);
        assert_int_equal(srv_tokens_load(service.api, path, &err), NN_E_VALUE);
        assert_memory_equal(err.text, path, sizeof path - 1);
        assert_null(strstr(err.text, "sec"));
        assert_int_equal(ask(&service, "first"), 200);
        assert_int_equal(ask(&service, "second"), 401);
    }
    unlink(path);
    err = (struct nn_error){0};
    assert_int_equal(srv_tokens_load(service.api, path, &err), NN_E_NOT_FOUND);
    assert_int_equal(ask(&service, "first"), 200);

    write_file("second\r\n");
    srv_tokens_reload(service.api, path);
    assert_int_equal(ask(&service, "first"), 401);
    assert_int_equal(ask(&service, "second"), 200);
    test_service_stop(&service);
}

static void a_folder_is_no_file(void **state) {
    (void)state;
    struct test_service service;
    struct nn_error err = {0};
    test_service_start(&service, NULL, 0);
    assert_int_equal(srv_tokens_load(service.api, "/tmp", &err), NN_E_NOT_FOUND);
    assert_string_equal(err.text, "/tmp: Is a directory");
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
    };
    return cmocka_run_group_tests_name("tokens", tests, make_file, remove_file);
}
