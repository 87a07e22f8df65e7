/* Request targets and log lines: text from a peer that may hold anything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../server/base/log.h"
#include "../../server/http/target.h"

static void targets_are_cut_and_decoded(void **state) {
    (void)state;
    static const struct {
        const char *text, *path, *query, *host; /* path NULL: refused */
        bool of_all, secure;
    } cases[] = {
        {"/", .path = "/"},
        {"/models/a%20b%2Fc", .path = "/models/a b%2Fc"},
        {"/models/a%2fb%25%252F%61", .path = "/models/a%2fb%25%252Fa"},
        {"/a?", .path = "/a", .query = ""},
        {"/a?x=%41+1?&&", .path = "/a", .query = "x=%41+1?&&"},
        {"/%e2%82%AC?b", .path = "/\xe2\x82\xac", .query = "b"},
        {"http://host:1/p?q", .path = "/p", .query = "q", .host = "host:1"},
        {"HTTP://host/", .path = "/", .host = "host"},
        {"http://h", .path = "/", .host = "h", .of_all = true},
        {"http://host:1", .path = "/", .host = "host:1", .of_all = true},
        {"http://h?", .path = "/", .query = "", .host = "h"},
        {"http://host?x/y", .path = "/", .query = "x/y",
         .host = "host"}, /* an empty path: "/y" is the query's */
        {"http://u@host//%41", .path = "//A", .host = "u@host"},
        {"https://host/p", .path = NULL},
        {"https://host/p", .path = "/p", .host = "host", .secure = true},
        {"HTTPS://host?q", .path = "/", .query = "q", .host = "host", .secure = true},
        {"http://host/p", .path = "/p", .host = "host", .secure = true},
        {"http:///p", .path = NULL},
        {"http://?q", .path = NULL},
        {"http://", .path = NULL},
        {"http://host#f", .path = NULL},
        {"ftp://host/p", .path = NULL},
        {"http://ho\x01st/", .path = NULL},
        {"http://host/%", .path = NULL},
        {"", .path = NULL},
        {"*", .path = "*", .of_all = true},
        {"**", .path = NULL},
        {"*?", .path = NULL},
        {"p", .path = NULL},
        {"/a%", .path = NULL},
        {"/a%4", .path = NULL},
        {"/a%4?1", .path = NULL},
        {"/a%g0", .path = NULL},
        {"/a%00b", .path = NULL},
        {"/a b", .path = NULL},
        {"/a?b c", .path = NULL},
        {"/a\tb", .path = NULL},
        {"/a?%zz", .path = "/a", .query = "%zz"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[64];
        struct srv_target target = {0};
        snprintf(text, sizeof text, "%s", cases[i].text);
        assert_int_equal(srv_target_parse(text, cases[i].secure, &target), cases[i].path != NULL);
        if (!cases[i].path) {
            assert_string_equal(text, cases[i].text);
            continue;
        }
        assert_string_equal(target.path, cases[i].path);
        assert_string_equal(target.query ? target.query : "none", cases[i].query ? cases[i].query : "none");
        assert_string_equal(target.host ? target.host : "none", cases[i].host ? cases[i].host : "none");
        assert_int_equal(target.is_of_all, cases[i].of_all);
    }
}

static void log_lines_are_json(void **state) {
    (void)state;
    char line[SRV_LOG_LINE];
    size_t length = srv_log_format(line, &(struct srv_log_entry){
                                             .time = {1700000000, 1234567},
                                             .id = 0xabc,
                                             .method = "GET",
                                             .path = "/a\"\\\n\x7f\xff",
                                             .peer = "[::1]:5",
                                             .status = 200,
                                             .bytes_in = 1,
                                             .bytes_out = UINT64_MAX,
                                             .microseconds = 7,
                                         });
    static const char expected[] =
        "{\"time\": \"2023-11-14T22:13:20.001234Z\", \"id\": \"0000000000000abc\", \"method\": \"GET\", "
        "\"path\": \"/a\\u0022\\u005c\\u000a\\u007f\\u00ff\", \"status\": 200, \"bytes_in\": 1, "
        "\"bytes_out\": 18446744073709551615, \"us\": 7, \"peer\": \"[::1]:5\"}\n";
    assert_int_equal(length, sizeof expected - 1);
    assert_memory_equal(line, expected, length);
}

/* Who asked, and what was wrong, where there is anything to say. */
static void tokens_and_problems_have_names(void **state) {
    (void)state;
    static const struct {
        const char *token, *problem, *end;
    } cases[] = {
        {NULL, NULL, "\"peer\": \"unix\"}\n"},
        {"", NULL, "\"peer\": \"unix\"}\n"},
        {"worker-1", NULL, "\"peer\": \"unix\", \"token\": \"worker-1\"}\n"},
        {"", "not-found", "\"peer\": \"unix\", \"problem\": \"not-found\"}\n"},
        {"a", "busy", "\"peer\": \"unix\", \"token\": \"a\", \"problem\": \"busy\"}\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char line[SRV_LOG_LINE];
        size_t length = srv_log_format(line, &(struct srv_log_entry){.method = "GET",
                                                                     .path = "/",
                                                                     .peer = "unix",
                                                                     .token = cases[i].token,
                                                                     .problem = cases[i].problem});
        size_t size = strlen(cases[i].end);
        assert_true(length > size);
        assert_memory_equal(line + length - size, cases[i].end, size);
    }
}

static void long_texts_are_cut(void **state) {
    (void)state;
    char line[SRV_LOG_LINE], endless[10000];
    memset(endless, '\x01', sizeof endless);
    endless[sizeof endless - 1] = 0;
    size_t length = srv_log_format(line, &(struct srv_log_entry){
                                             .id = UINT64_MAX,
                                             .method = endless,
                                             .path = endless,
                                             .peer = "[0000:0000:0000:0000:0000:0000:255.255.255.255]:65535",
                                             .status = 200,
                                             .bytes_in = UINT64_MAX,
                                             .bytes_out = UINT64_MAX,
                                             .microseconds = UINT64_MAX,
                                             .token = endless,
                                             .problem = endless,
                                             .trace_id = endless,
                                             .span_id = endless,
                                         });
    assert_true(length < SRV_LOG_LINE);
    assert_int_equal(line[length - 1], '\n');
    assert_int_equal(line[length - 2], '}');
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets_are_cut_and_decoded),
        cmocka_unit_test(log_lines_are_json),
        cmocka_unit_test(tokens_and_problems_have_names),
        cmocka_unit_test(long_texts_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
