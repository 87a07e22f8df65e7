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
        const char *text, *path, *query; /* path NULL: refused */
    } cases[] = {
        {"/", "/", NULL},
        {"/models/a%20b%2Fc", "/models/a b/c", NULL},
        {"/a?", "/a", ""},
        {"/a?x=%41+1?&&", "/a", "x=%41+1?&&"},
        {"/%e2%82%AC?b", "/\xe2\x82\xac", "b"},
        {"http://host:1/p?q", "/p", "q"},
        {"HTTP://host/", "/", NULL},
        {"http://host", NULL, NULL},
        {"http://host?x/y", NULL, NULL}, /* an empty path: "/y" is the query's */
        {"http://ho\x01st/", NULL, NULL},
        {"", NULL, NULL},
        {"*", NULL, NULL},
        {"p", NULL, NULL},
        {"/a%", NULL, NULL},
        {"/a%4", NULL, NULL},
        {"/a%4?1", NULL, NULL},
        {"/a%g0", NULL, NULL},
        {"/a%00b", NULL, NULL},
        {"/a b", NULL, NULL},
        {"/a?b c", NULL, NULL},
        {"/a\tb", NULL, NULL},
        {"/a?%zz", "/a", "%zz"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[64];
        struct srv_target target = {0};
        snprintf(text, sizeof text, "%s", cases[i].text);
        assert_int_equal(srv_target_parse(text, &target), cases[i].path != NULL);
        if (!cases[i].path) {
            assert_string_equal(text, cases[i].text);
            continue;
        }
        assert_string_equal(target.path, cases[i].path);
        if (cases[i].query)
            assert_string_equal(target.query, cases[i].query);
        else
            assert_null(target.query);
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
        cmocka_unit_test(long_texts_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
