/* Base64: the vectors of RFC 4648, all lengths, and what is not base64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../api/wire/tensor.h"

static void vectors(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", ""},
        {"Zg==", "f"},
        {"Zm8=", "fo"},
        {"Zm9v", "foo"},
        {"Zm9vYg==", "foob"},
        {"Zm9vYmE=", "fooba"},
        {"Zm9vYmFy", "foobar"},
        {"+/+/", "\xfb\xff\xbf"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char out[16];
        size_t size = strlen(cases[i][1]);
        assert_int_equal(api_base64_decode(cases[i][0], strlen(cases[i][0]), out, size), (int64_t)size);
        assert_memory_equal(out, cases[i][1], size);
        if (size) assert_int_equal(api_base64_decode(cases[i][0], strlen(cases[i][0]), out, size - 1), -1);
    }
}

static void refusals(void **state) {
    (void)state;
    static const char *const cases[] = {
        "Z",    "Zg",      "Zg=",  "Zm9",      "=",        "==",     "===",       "====",     "Z===",
        "=Zg=", "Zg=a",    "Z=g=", "Zm8=Zg==", "Zg==Zm9v", "Zm9v\n", "Zm9v Zm9v", "Zm 9v===", "Zm-v",
        "Zm_v", "Zm9\xff", "Zh==", "Zm9=",     "Zv==",     "Zm9v=",  "Zm9v====",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char out[16];
        if (api_base64_decode(cases[i], strlen(cases[i]), out, sizeof out) != -1) fail_msg("%s", cases[i]);
    }
    unsigned char out[4];
    assert_int_equal(api_base64_decode("Zm\0v", 4, out, sizeof out), -1);
}

static size_t encode(const unsigned char *in, size_t n, char *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t size = 0;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t bits = (uint32_t)in[i] << 16 | (i + 1 < n ? (uint32_t)in[i + 1] << 8 : 0) |
                        (i + 2 < n ? (uint32_t)in[i + 2] : 0);
        for (unsigned d = 0; d < 4; d++) out[size++] = i + d > n ? '=' : digits[bits >> (18 - 6 * d) & 63];
    }
    return size;
}

/* Buffers of just the right size, so that a sanitizer sees a byte too far. */
static void all_lengths(void **state) {
    (void)state;
    unsigned char in[200];
    for (size_t i = 0; i < sizeof in; i++) in[i] = (unsigned char)(i * 151 + 7);
    for (size_t n = 1; n < sizeof in; n++) {
        size_t size = (n + 2) / 3 * 4;
        char *text = malloc(size);
        unsigned char *out = malloc(n);
        assert_true(text && out);
        assert_int_equal(encode(in, n, text), size);
        assert_int_equal(api_base64_decode(text, size, out, n), (int64_t)n);
        assert_memory_equal(in, out, n);
        free(text);
        free(out);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors),
        cmocka_unit_test(refusals),
        cmocka_unit_test(all_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
