/* Which hosts and origins a request may come by. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../server/http/guard.h"

static void hosts(void **state) {
    (void)state;
    static const struct {
        struct srv_guard guard;
        const char *host;
        bool ours;
    } cases[] = {
        {{0}, NULL, true},
        {{0}, "localhost", true},
        {{0}, "LocalHost:8080", true},
        {{0}, "127.0.0.1:8080", true},
        {{0}, "192.0.2.7", true},
        {{0}, "[::1]", true},
        {{0}, "[2001:db8::1]:8080", true},
        {{0}, "", false},
        {{0}, ":8080", false},
        {{0}, "evil.example", false},
        {{0}, "localhost.evil.example", false},
        {{0}, "evil.example:80", false},
        {{0}, "127.0.0.1.evil.example", false},
        {{0}, "localhost:80@evil.example", false},
        {{0}, "localhost:http", false},
        {{0}, "::1", false},
        {{0}, "[127.0.0.1]", false},
        {{0}, "[::1]x", false},
        {{0}, "[::1", false},
        {{0}, "[]", false},
        {{0}, "localhost evil.example", false},
        {{.listen = "gpu.lan:8080"}, "GPU.lan:9", true},
        {{.listen = "gpu.lan:8080"}, "gpu.la", false},
        {{.listen = "gpu.lan:8080"}, "gpu.lan.evil.example", false},
        {{.hosts = "gradd, models.example"}, "gradd:8080", true},
        {{.hosts = "gradd, models.example"}, "Models.Example", true},
        {{.hosts = "gradd, models.example"}, "models", false},
        {{.hosts = "gradd, models.example"}, "a.models.example", false},
        {{.hosts = "gradd, models.example"}, "gradd,", false},
        {{.hosts = "*"}, "evil.example", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if ((srv_guard_fault(&cases[i].guard, cases[i].host, NULL) == NULL) != cases[i].ours)
            fail_msg("case %zu: %s", i, cases[i].host);
}

static void origins(void **state) {
    (void)state;
    static const struct {
        const char *origins, *origin;
        bool allowed;
    } cases[] = {
        {NULL, "https://example.org", false},
        {NULL, "http://localhost:8080", false}, /* gradd has no pages of its own */
        {NULL, "null", false},
        {NULL, "", false},
        {"https://example.org https://a.example:8443", "https://example.org", true},
        {"https://example.org https://a.example:8443", "https://a.example:8443", true},
        {"https://example.org https://a.example:8443", "https://a.example", false},
        {"https://example.org", "http://example.org", false},
        {"https://example.org", "https://example.org.evil.example", false},
        {"https://example.org", "https://example.or", false},
        {"https://example.org", "null", false},
        {"https://example.org", "", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct srv_guard guard = {.origins = cases[i].origins};
        if ((srv_guard_fault(&guard, "localhost", cases[i].origin) == NULL) != cases[i].allowed)
            fail_msg("case %zu: %s", i, cases[i].origin);
    }
    assert_null(srv_guard_fault(&(struct srv_guard){0}, "localhost", NULL));
}

static void settings(void **state) {
    (void)state;
    static const struct {
        struct srv_guard guard;
        const char *error;
    } cases[] = {
        {{0}, ""},
        {{.hosts = "*", .origins = "https://example.org,http://localhost:3000"}, ""},
        {{.hosts = "a http://b"}, "allowed-hosts: \"http://b\" is no name: without scheme, port and path"},
        {{.hosts = "a:80"}, "allowed-hosts: \"a:80\" is no name: without scheme, port and path"},
        {{.origins = "example.org"},
         "allowed-origins: \"example.org\" is not SCHEME://HOST, perhaps with :PORT"},
        {{.origins = "https://a.b https://a.b/"},
         "allowed-origins: \"https://a.b/\" is not SCHEME://HOST, perhaps with :PORT"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nn_error err = {0};
        srv_guard_check(&cases[i].guard, &err);
        assert_string_equal(err.text, cases[i].error);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts),
        cmocka_unit_test(origins),
        cmocka_unit_test(settings),
    };
    return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
