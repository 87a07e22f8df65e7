/* Settings: every source, their precedence, and errors that say where the fault is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../server/config.h"

/* A file of this text, named into `path`. */
static void write_file(char path[32], const char *text) {
    snprintf(path, 32, "/tmp/gradd-config-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

struct loaded {
    struct srv_settings settings;
    enum srv_wish wish;
    struct nn_error err;
    int code;
};

/* Flags and environment as space-separated words; a %s in either is `path`. */
static struct loaded load(const char *flags, const char *environment, const char *path) {
    char texts[2][512], *words[2][16];
    int n[2] = {0};
    for (int i = 0; i < 2; i++) {
        const char *from = i ? environment : flags, *hole = strstr(from, "%s");
        if (hole)
            snprintf(texts[i], sizeof texts[i], "%.*s%s%s", (int)(hole - from), from, path, hole + 2);
        else
            snprintf(texts[i], sizeof texts[i], "%s", from);
        if (i == 0) words[i][n[i]++] = "gradd";
        char *rest = texts[i], *word;
        while ((word = strsep(&rest, " ")))
            if (*word) words[i][n[i]++] = word;
        words[i][n[i]] = NULL;
    }
    struct loaded loaded = {0};
    loaded.code = srv_settings_load(&loaded.settings, n[0], words[0], words[1], &loaded.wish, &loaded.err);
    assert_int_equal(loaded.code, loaded.err.code);
    return loaded;
}

static void defaults_come_from_the_table(void **state) {
    (void)state;
    struct loaded l = load("", "", NULL);
    assert_int_equal(l.code, NN_OK);
    assert_int_equal(l.wish, SRV_RUN);
    assert_string_equal(l.settings.listen, "127.0.0.1:8080");
    assert_null(l.settings.token);
    assert_true(l.settings.compute_threads >= 1);
    assert_true(l.settings.memory > 1 << 20);
    assert_int_equal(l.settings.max_body, 256 << 20);
    assert_int_equal(l.settings.max_work, l.settings.compute_threads * INT64_C(6000000000000));
    assert_int_equal(l.settings.context_ttl, 600);
    assert_int_equal(l.settings.max_rank, NN_MAX_RANK);
    assert_int_equal(l.settings.max_name, NN_MAX_NAME);
    assert_int_equal(l.settings.max_json_depth, API_JSON_DEPTH);
    assert_int_equal(l.settings.max_head, 16384);
    assert_int_equal(l.settings.log, SRV_LOG_REQUESTS);
    srv_settings_fini(&l.settings);
}

static void flags_beat_environment_beats_file(void **state) {
    (void)state;
    char path[32];
    write_file(path, "# all of it\n"
                     "listen = 127.0.0.1:1   # a port\n"
                     "\n"
                     "  queue=7\n"
                     "io-threads =\t3\r\n"
                     "max-body = 2M\n"
                     "log = off\n"
                     "end # of it\n"
                     "# and this is no setting\n");
    struct loaded l =
        load("--config %s --queue 9 --listen=127.0.0.1:3", "HOME=/ GRADD_QUEUE=8 GRADD_IO_THREADS=4", path);
    assert_string_equal(l.err.text, "");
    assert_string_equal(l.settings.listen, "127.0.0.1:3");
    assert_int_equal(l.settings.queue, 9);
    assert_int_equal(l.settings.io_threads, 4);
    assert_int_equal(l.settings.max_body, 2 << 20);
    assert_int_equal(l.settings.log, SRV_LOG_OFF);
    srv_settings_fini(&l.settings);
    l = load("", "GRADD_CONFIG=%s", path);
    assert_int_equal(l.settings.queue, 7);
    srv_settings_fini(&l.settings);
    unlink(path);
}

static void numbers_take_suffixes(void **state) {
    (void)state;
    struct loaded l = load(
        "--memory 3g --context-ttl 2h --idle-timeout 90s --drain-timeout 0 --compute-threads auto", "", NULL);
    assert_string_equal(l.err.text, "");
    assert_int_equal(l.settings.memory, INT64_C(3) << 30);
    assert_int_equal(l.settings.context_ttl, 7200);
    assert_int_equal(l.settings.idle_timeout, 90);
    assert_int_equal(l.settings.drain_timeout, 0);
    assert_true(l.settings.compute_threads >= 1);
    srv_settings_fini(&l.settings);
}

static void work_is_a_number_of_operations(void **state) {
    (void)state;
    static const struct {
        const char *flags;
        int64_t work;
    } cases[] = {{"--max-work 2e12", INT64_C(2000000000000)},
                 {"--max-work 1.5e+3", 1500},
                 {"--max-work 7", 7},
                 {"--max-work 0", 0},
                 {"--max-work auto --compute-threads 3", INT64_C(18000000000000)},
                 {"--compute-threads 1", INT64_C(6000000000000)}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loaded l = load(cases[i].flags, "", NULL);
        assert_string_equal(l.err.text, "");
        assert_int_equal(l.settings.max_work, cases[i].work);
        srv_settings_fini(&l.settings);
    }
}
#define SEVERAL "of GRADD_TOKEN, a token file and a secret file more than one is given; which is meant?"

static void errors_say_where(void **state) {
    (void)state;
    static const struct {
        const char *flags, *environment, *file, *text; /* %s in the text is the file's name */
        enum nn_code code;
    } cases[] = {
        {"--quue 1", "", "", "--quue: there is no such flag; see --help", NN_E_UNKNOWN_MEMBER},
        {"queue", "", "", "queue: there is no such flag; see --help", NN_E_UNKNOWN_MEMBER},
        {"--max_body 1M", "", "", "--max_body: there is no such flag; see --help", NN_E_UNKNOWN_MEMBER},
        {"--queue", "", "", "--queue: N is missing", NN_E_VALUE},
        {"--queue 0", "", "", "--queue: 0 is out of range: 1 to 1000000", NN_E_VALUE},
        {"--queue 99999999999999999999", "", "",
         "--queue: 99999999999999999999 is out of range: 1 to 1000000", NN_E_VALUE},
        {"--memory 9000000T", "", "", "--memory: 9000000T is out of range: 1048576 to 4611686018427387903",
         NN_E_VALUE},
        {"--queue 3K", "", "", "--queue: \"3K\" is not a whole number", NN_E_VALUE},
        {"--queue -3", "", "", "--queue: \"-3\" is not a whole number", NN_E_VALUE},
        {"--queue auto", "", "", "--queue: \"auto\" is not a whole number", NN_E_VALUE},
        {"--queue=", "", "", "--queue: \"\" is not a whole number", NN_E_VALUE},
        {"--max-body 1.5M", "", "",
         "--max-body: \"1.5M\" is not a whole number of bytes, with K, M, G or T behind it", NN_E_VALUE},
        {"--idle-timeout 1d", "", "",
         "--idle-timeout: \"1d\" is not a whole number of seconds, or with m or h behind it", NN_E_VALUE},
        {"--max-work 2e12x", "", "", "--max-work: \"2e12x\" is not a number of operations, such as 2e12",
         NN_E_VALUE},
        {"--max-work -1", "", "", "--max-work: \"-1\" is not a number of operations, such as 2e12",
         NN_E_VALUE},
        {"--max-work 0x10", "", "", "--max-work: \"0x10\" is not a number of operations, such as 2e12",
         NN_E_VALUE},
        {"--max-work 1e", "", "", "--max-work: \"1e\" is not a number of operations, such as 2e12",
         NN_E_VALUE},
        {"--max-work 1e99", "", "", "--max-work: 1e99 is out of range: 0 to 1000000000000000000", NN_E_VALUE},
        {"--log all", "", "", "--log: \"all\" is not one of off|requests", NN_E_VALUE},
        {"--log off|requests", "", "", "--log: \"off|requests\" is not one of off|requests", NN_E_VALUE},
        {"--socket-mode 680", "", "",
         "--socket-mode: \"680\" is not the mode of a file in octal digits, such as 660", NN_E_VALUE},
        {"--socket-mode 1777", "", "",
         "--socket-mode: \"1777\" is not the mode of a file in octal digits, such as 660", NN_E_VALUE},
        {"--socket-mode rw", "", "",
         "--socket-mode: \"rw\" is not the mode of a file in octal digits, such as 660", NN_E_VALUE},
        {"--listen=", "", "", "--listen: the value is empty", NN_E_VALUE},
        {"", "GRADD_QUEUE=x", "", "GRADD_QUEUE: \"x\" is not a whole number", NN_E_VALUE},
        {"", "GRADD_TOKEN=", "", "GRADD_TOKEN: the value is empty", NN_E_VALUE},
        {"", "GRADD_TOKEN=caf\xc3\xa9", "",
         "GRADD_TOKEN: a token is made of visible ASCII characters, without spaces", NN_E_VALUE},
        {"--config %s", "", "\nqueue 5\n", "%s:2: a line is `name = value`, and the last one `end`",
         NN_E_VALUE},
        {"--config %s", "", "quue = 5\n", "%s:1: there is no setting \"quue\"", NN_E_UNKNOWN_MEMBER},
        {"--config %s --queue 5", "", "#\n#\nqueue = x\n", "%s:3: \"x\" is not a whole number", NN_E_VALUE},
        {"--config %s", "", "token = abc\n", "%s:1: token cannot be set in a file", NN_E_VALUE},
        {"--config %s", "", "config = abc\n", "%s:1: config cannot be set in a file", NN_E_VALUE},
        {"--config /nowhere/at-all", "", "", "/nowhere/at-all: No such file or directory", NN_E_NOT_FOUND},
        {"--config %s", "", "end\nqueue = 3\n", "%s:2: a setting stands behind the line `end`", NN_E_VALUE},
        {"--config %s", "", "queue = 3\n", "%s: its last line is not `end`: it may be cut off", NN_E_VALUE},
        {"--config %s", "", "queue = 3\nend", "%s:2: the line has no end: it may be cut off", NN_E_VALUE},
        {"--config %s", "", "", "%s: its last line is not `end`: it may be cut off", NN_E_VALUE},
        {"--token-file %s", "GRADD_TOKEN=a", "", SEVERAL, NN_E_VALUE},
        {"--secret-file %s", "GRADD_TOKEN=a", "", SEVERAL, NN_E_VALUE},
        {"--token-file a --secret-file %s", "", "", SEVERAL, NN_E_VALUE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[32], expected[256];
        write_file(path, cases[i].file);
        const char *hole = strstr(cases[i].text, "%s");
        snprintf(expected, sizeof expected, "%s%s", hole ? path : "", hole ? hole + 2 : cases[i].text);
        struct loaded l = load(cases[i].flags, cases[i].environment, path);
        assert_string_equal(l.err.text, expected);
        assert_int_equal(l.code, cases[i].code);
        srv_settings_fini(&l.settings);
        unlink(path);
    }
}

/* What a file that was cut off asks for is less than the whole does: other machines' addresses, a certificate, a token. */
static void a_file_that_is_cut_off_is_refused(void **state) {
    (void)state;
    static const char text[] = "# of a service that others reach\n"
                               "socket-mode = 600\n"
                               "allowed-origins = https://a.example https://b.example # two\n"
                               "\n"
                               "tls-client-ca = /etc/gradd/clients.pem\n"
                               "token-file = /etc/gradd/tokens\n"
                               "end\n";
    for (size_t size = 0; size < sizeof text; size++) {
        char path[32], part[sizeof text];
        snprintf(part, size + 1, "%s", text);
        write_file(path, part);
        struct loaded l = load("--config %s", "", path);
        if ((l.code == NN_OK) != (size == sizeof text - 1))
            fail_msg("cut at byte %zu: %s", size, l.code ? l.err.text : "it is taken");
        srv_settings_fini(&l.settings);
        unlink(path);
    }
}

static void a_zero_is_no_text(void **state) {
    (void)state;
    static const char text[] = "queue = 3\0 # and more\nend\n";
    char path[32];
    write_file(path, "");
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, sizeof text - 1, file), sizeof text - 1);
    assert_int_equal(fclose(file), 0);
    struct loaded l = load("--config %s", "", path);
    assert_int_equal(l.code, NN_E_VALUE);
    assert_non_null(strstr(l.err.text, ":1: it is no text"));
    srv_settings_fini(&l.settings);
    unlink(path);
}

static void the_token_is_no_flag(void **state) {
    (void)state;
    struct loaded l = load("--token hidden", "", NULL);
    assert_int_equal(l.code, NN_E_VALUE);
    assert_null(l.settings.token);
    assert_null(strstr(l.err.text, "hidden"));
    srv_settings_fini(&l.settings);
}

static void the_token_comes_from_the_environment(void **state) {
    (void)state;
    struct loaded l = load("", "GRADD_TOKEN=abc GRADD_UNHEARD_OF=1", NULL);
    assert_string_equal(l.settings.token, "abc");
    srv_settings_fini(&l.settings);
}

static void help_names_every_setting(void **state) {
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    srv_settings_help(out);
    fclose(out);
    static const char *const names[] = {
#define SRV_SETTING(name, kind, by_default, least, most, unit, prose) #name,
#include "../../server/config.def"
#undef SRV_SETTING
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char flag[64];
        bool is_token = strcmp(names[i], "token") == 0;
        snprintf(flag, sizeof flag, is_token ? "  GRADD_TOKEN=" : "  --%s ", names[i]);
        for (char *c = flag; *c && !is_token; c++)
            if (*c == '_') *c = '-';
        assert_non_null(strstr(text, flag));
    }
    free(text);
    struct loaded l = load("--help --nonsense", "", NULL);
    assert_int_equal(l.wish, SRV_HELP);
    srv_settings_fini(&l.settings);
}

static void wishes_come_first(void **state) {
    (void)state;
    struct loaded l = load("--queue 3 --version", "GRADD_QUEUE=nonsense", NULL);
    assert_int_equal(l.code, NN_OK);
    assert_int_equal(l.wish, SRV_VERSION);
    srv_settings_fini(&l.settings);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_come_from_the_table),
        cmocka_unit_test(flags_beat_environment_beats_file),
        cmocka_unit_test(numbers_take_suffixes),
        cmocka_unit_test(work_is_a_number_of_operations),
        cmocka_unit_test(errors_say_where),
        cmocka_unit_test(a_file_that_is_cut_off_is_refused),
        cmocka_unit_test(a_zero_is_no_text),
        cmocka_unit_test(the_token_is_no_flag),
        cmocka_unit_test(the_token_comes_from_the_environment),
        cmocka_unit_test(help_names_every_setting),
        cmocka_unit_test(wishes_come_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
