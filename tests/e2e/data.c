/* The daemon with a directory: models that outlive it, who else may have it, and `gradd verify`. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "../support/e2e.h"

#define FLAGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static char parent[] = "/tmp/gradd-data-XXXXXX";
static char data[64]; /* a folder that the daemon makes */

static int setup(void **state) {
    (void)state;
    memcpy(parent + sizeof parent - 7, "XXXXXX", 6);
    if (!mkdtemp(parent)) return -1;
    snprintf(data, sizeof data, "%s/data", parent);
    return 0;
}

static int teardown(void **state) {
    service_forget(state);
    DIR *folder = opendir(data);
    const struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", data, entry->d_name);
        if (*entry->d_name != '.') unlink(path);
    }
    if (folder) closedir(folder);
    rmdir(data);
    return rmdir(parent);
}

static void start(void) { service_start(FLAGS("--data", data, "--checkpoint-interval", "1h"), NULL); }

static void kill_it(void) {
    test_daemon_signal(&service, SIGKILL);
    assert_int_equal(test_daemon_wait(&service), 128 + SIGKILL);
    service_stop();
}

static void create(void) {
    ask(201, "POST", "/models",
        "{'name': 'm', 'durability': 'journal', 'inputs': {'x': {'shape': [2]}},"
        " 'layers': [{'op': 'linear', 'out_features': 1}], 'loss': {'op': 'mse'}, 'optimizer': {'op': 'sgd', "
        "'lr': 0.1}}");
}

static void steps(int n) {
    for (int i = 0; i < n; i++)
        ask(200, "POST", "/backward",
            "{'model': 'm', 'apply': true, 'inputs': {'x': [[1, 2]]}, 'targets': {'y': [[3]]}}");
}

static void spoil(const char *name, off_t at) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", data, name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    char byte;
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

/* What outlives the daemon that told it. */
static json_t *parameters(void) { return json_deep_copy(ask(200, "GET", "/models/m/parameters", NULL)); }

static void models_come_back(void **state) {
    (void)state;
    start();
    create();
    steps(3);
    json_t *before = parameters();
    service_stop();
    start();
    json_t *after = parameters();
    same_json(after, before); /* the incarnation too */
    steps(2);
    json_t *later = parameters();
    kill_it();
    start();
    json_t *last = parameters();
    same_json(at(last, "parameters"), at(later, "parameters"));
    assert_int_equal(integer_at(last, "version"), 5);
    assert_string_not_equal(text_at(last, "incarnation"), text_at(later, "incarnation"));
    json_decref(before);
    json_decref(after);
    json_decref(later);
    json_decref(last);
    struct stat status;
    assert_int_equal(stat(data, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    service_stop();
}

/* Who sends a body slowly, or takes an answer slowly, is waited for; but what was learned is not given up for them. */
static void slow_peers_cost_no_checkpoint(void **state) {
    (void)state;
    service_start(FLAGS("--data", data, "--checkpoint-interval", "1h", "--drain-timeout", "1"), NULL);
    create();
    ask(200, "PATCH", "/models/m", "{'durability': 'snapshot'}");
    ask(201, "POST", "/models",
        "{'name': 'wide', 'durability': 'none', 'inputs': {'x': {'shape': [4096]}}, 'layers': [{'op': "
        "'linear', "
        "'out_features': 4096}]}");
    steps(3);
    json_t *before = parameters();
    int reader = raw_connect_from(NULL, 4096, service.port), sender = raw_connect(service.port);
    char byte[2];
    assert_true(raw_send_text(
        reader, "GET /models/wide/parameters HTTP/1.1\r\nHost: localhost\r\nAccept: " FILE_TYPE "\r\n\r\n"));
    raw_receive(reader, byte, sizeof byte);
    assert_true(raw_send_text(sender, "POST /forward HTTP/1.1\r\nHost: localhost\r\nContent-Type: " JSON_TYPE
                                      "\r\nContent-Length: 100000\r\n\r\n"));
    test_daemon_signal(&service, SIGTERM);
    for (int i = 0; i < 15 && raw_send_text(sender, " "); i++) usleep(100000);
    assert_int_equal(test_daemon_wait(&service), 0);
    service_stop();
    close(reader);
    close(sender);
    start();
    json_t *after = parameters();
    same_json(after, before); /* the incarnation too: the stop was clean */
    json_decref(before);
    json_decref(after);
    service_stop();
}

/* By the way that a user would go whose training went astray. */
static void a_model_goes_back_to_a_snapshot(void **state) {
    (void)state;
    start();
    create();
    ask(200, "PATCH", "/models/m", "{'durability': 'snapshot'}");
    const json_t *step = ask(200, "POST", "/backward",
                             "{'model': 'm', 'apply': true, 'wait': 'durable', 'inputs': {'x': [[1, 2]]}, "
                             "'targets': {'y': [[3]]}}");
    assert_int_equal(integer_at(step, "durable_version"), 1);
    json_t *good = parameters();
    steps(3);
    const json_t *described = ask(200, "GET", "/models/m", NULL);
    assert_int_equal(integer_at(described, "version"), 4);
    assert_int_equal(integer_at(described, "durable_version"), 1);
    assert_int_equal(integer_at(described, "snapshots/0/version"), 1);
    refused(404, "not-found", NULL, "POST", "/models/m/restore", "{'version': 3}");
    refused(404, "not-found", NULL, "POST", "/models/n/restore", "{}");
    const json_t *restored = ask(200, "POST", "/models/m/restore", "{'version': 1}");
    assert_int_equal(integer_at(restored, "version"), 1);
    assert_string_not_equal(text_at(restored, "incarnation"), text_at(described, "incarnation"));
    json_t *back = parameters();
    same_json(json_object_get(good, "parameters"), json_object_get(back, "parameters"));
    steps(1);
    assert_int_equal(integer_at(ask(200, "GET", "/models/m", NULL), "version"), 2);
    json_decref(good);
    json_decref(back);
    service_stop();
}

static void two_daemons_are_one_too_many(void **state) {
    (void)state;
    static struct test_run run;
    start();
    test_gradd_run(&run, FLAGS("--listen", "127.0.0.1:0", "--data", data), NULL);
    assert_int_equal(run.status, 1);
    assert_non_null(strstr(run.err, "another process has"));
    assert_non_null(strstr(run.err, data));
    service_is_alive();
    service_stop();
    test_gradd_run(&run, FLAGS("--data", "/nowhere/at/all"), NULL);
    assert_int_equal(run.status, 1);
    assert_non_null(strstr(run.err, "/nowhere/at/all"));
}

static void verify(int status, const char *says) {
    static struct test_run run;
    test_gradd_run(&run, FLAGS("verify", data), NULL);
    if (run.status != status || !strstr(run.out, says))
        fail_msg("status %d, \"%s\", \"%s\"", run.status, run.out, run.err);
}

static void verify_tells_what_is_there(void **state) {
    (void)state;
    static struct test_run run;
    start();
    create();
    steps(3);
    verify(0, "m: version 3, as of record 4\n"); /* of a daemon that runs */
    service_stop();
    verify(0, "the stop was clean\nm: version 3, as of record 4\n");
    spoil("snapshot-m-00000000000000000001", 100);
    verify(1, "snapshot-m-00000000000000000001 is damaged: its checksum is not what it was\n");
    test_gradd_run(&run, FLAGS("verify"), NULL);
    assert_int_equal(run.status, 2);
    assert_non_null(strstr(run.err, "verify DIR"));
    test_gradd_run(&run, FLAGS("verify", "/nowhere/at/all"), NULL);
    assert_int_equal(run.status, 2); /* it is no damage */
    assert_non_null(strstr(run.err, "/nowhere/at/all"));
    test_gradd_run(&run, FLAGS("verify", "/dev/null"), NULL);
    assert_int_equal(run.status, 2);
}

static void damage_is_refused_until_it_is_accepted(void **state) {
    (void)state;
    static struct test_run run;
    start();
    create();
    steps(5);
    kill_it();
    spoil("journal-00000000000000000001", 600);
    test_gradd_run(&run, FLAGS("--listen", "127.0.0.1:0", "--data", data), NULL);
    assert_int_equal(run.status, 1);
    assert_string_equal(run.out, "");
    assert_non_null(strstr(run.err, "journal-00000000000000000001 is damaged at byte 512"));
    verify(1, "journal-00000000000000000001 is damaged at byte 512");
    service_start(FLAGS("--data", data, "--accept-loss", "yes"), NULL);
    ask(404, "GET", "/models/m", NULL);
    create();
    steps(2);
    kill_it();
    start();
    assert_int_equal(integer_at(ask(200, "GET", "/models/m", NULL), "version"), 2);
    service_stop();
}

/* What recovery may exceed, clients may not. */
static void limits_hold_beside_a_store(void **state) {
    (void)state;
    service_start(FLAGS("--data", data, "--max-layers", "1"), NULL);
    create();
    for (int starts = 0; starts < 2; starts++) {
        refused(413, "too-large", "/layers", "POST", "/models",
                "{'name': 'n', 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'relu'}, {'op': 'relu'}]}");
        kill_it();
        service_start(FLAGS("--data", data, "--max-layers", "1"), NULL);
    }
    steps(1);
    service_stop();
}

/* Told to stop while it carries out again what takes it long: it does so at once, and another start finds it all. */
static void a_stop_does_not_wait_for_recovery(void **state) {
    (void)state;
    static struct test_run run;
    char address[96];
    const char *socket = address + sizeof "unix:" - 1;
    snprintf(address, sizeof address, "unix:%s/socket", parent);
    start();
    ask(201, "POST", "/models",
        "{'name': 'm', 'durability': 'journal', 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear', "
        "'out_features': 1000}, {'op': 'linear', 'out_features': 1000}, {'op': 'linear', 'out_features': "
        "1}], "
        "'loss': {'op': 'mse'}, 'optimizer': {'op': 'adam', 'lr': 0.001}}");
    steps(80);
    json_t *output =
        json_deep_copy(ask(200, "POST", "/forward", "{'model': 'm', 'inputs': {'x': [[1, 2]]}}"));
    kill_it();
    for (int i = 0; i < 2; i++) {
        test_gradd_run_until(&run, FLAGS("--listen", address, "--data", data), socket, i ? SIGINT : SIGTERM);
        assert_int_equal(run.status, 0);
        assert_string_equal(run.out, ""); /* it never came to serve */
        assert_string_equal(run.err, "gradd: stopped before it was ready\n");
        assert_int_equal(unlink(socket), 0);
    }
    start();
    assert_int_equal(integer_at(ask(200, "GET", "/models/m", NULL), "version"), 80);
    const json_t *again = ask(200, "POST", "/forward", "{'model': 'm', 'inputs': {'x': [[1, 2]]}}");
    same_json(at(again, "outputs"), at(output, "outputs"));
    json_decref(output);
    service_stop();
}

static uint64_t size_of(const char *name) {
    char path[512];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", data, name);
    assert_int_equal(stat(path, &status), 0);
    return (uint64_t)status.st_size;
}

/* A file is a quarter of what the journal may take, however little that is, and no larger than need be. */
static void a_small_journal_takes_little_of_the_disk(void **state) {
    (void)state;
    service_start(FLAGS("--data", data, "--journal-size", "1M", "--checkpoint-interval", "1h"), NULL);
    create();
    assert_int_equal(size_of("journal-00000000000000000001"), 256 << 10);
    kill_it();
    start();
    steps(1);
    assert_int_equal(size_of("journal-00000000000000000002"), 64 << 20);
    service_stop();
}

#define data_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        data_test(models_come_back),
        data_test(slow_peers_cost_no_checkpoint),
        data_test(a_model_goes_back_to_a_snapshot),
        data_test(two_daemons_are_one_too_many),
        data_test(verify_tells_what_is_there),
        data_test(damage_is_refused_until_it_is_accepted),
        data_test(limits_hold_beside_a_store),
        data_test(a_stop_does_not_wait_for_recovery),
        data_test(a_small_journal_takes_little_of_the_disk),
    };
    return cmocka_run_group_tests_name("data", tests, NULL, NULL);
}
