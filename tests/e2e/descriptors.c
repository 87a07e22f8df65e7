/* Descriptors that the daemon finds closed, or has few of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "../support/e2e.h"

#define FLAGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static char parent[] = "/tmp/gradd-files-XXXXXX";
static char data[64], address[64];

static int setup(void **state) {
    (void)state;
    memcpy(parent + sizeof parent - 7, "XXXXXX", 6);
    if (!mkdtemp(parent)) return -1;
    snprintf(data, sizeof data, "%s/data", parent);
    snprintf(address, sizeof address, "unix:%s/socket", parent);
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
    unlink(strchr(address, ':') + 1); /* which a stop before it is ready leaves */
    return rmdir(parent);
}

/* --- none ------------------------------------------------------------------------------------------------------- */

static void close_standard_files(void) {
    for (int fd = 0; fd <= 2; fd++) close(fd);
}

static bool is_null(pid_t pid, int fd) {
    char link[64], target[256];
    snprintf(link, sizeof link, "/proc/%d/fd/%d", (int)pid, fd);
    ssize_t n = readlink(link, target, sizeof target - 1);
    target[n < 0 ? 0 : n] = '\0';
    return strcmp(target, "/dev/null") == 0;
}

/* What is written to standard error reaches neither a socket nor the journal. */
static void standard_files_that_are_closed(void **state) {
    (void)state;
    const char *socket_file = strchr(address, ':') + 1;
    test_daemon_prepare = close_standard_files;
    test_daemon_launch(&service, FLAGS("--listen", address, "--data", data));
    test_daemon_prepare = NULL;
    for (int i = 0; access(socket_file, F_OK) != 0; i++) {
        if (i == 5000) fail_msg("it does not listen");
        test_pause();
    }
    for (int fd = 0; fd <= 2; fd++)
        if (!is_null(service.pid, fd)) fail_msg("descriptor %d is something else", fd);
    test_daemon_signal(&service, SIGTERM);
    assert_int_equal(test_daemon_wait(&service), 0);
}

/* --- few -------------------------------------------------------------------------------------------------------- */

enum { FEW = 64, PEERS = 100 };

static void allow_few(void) {
    const struct rlimit few = {FEW, FEW};
    setrlimit(RLIMIT_NOFILE, &few);
}

static bool is_served(int fd, int flags) {
    char answer[4096];
    return recv(fd, answer, sizeof answer, flags) > 0;
}

/* Peers take all the connections that there can be; models are stored all the same. */
static void few_descriptors(void **state) {
    (void)state;
    int peers[PEERS], served = 0;
    test_daemon_prepare = allow_few;
    service_start(FLAGS("--data", data, "--checkpoint-interval", "1h", "--io-threads", "1"), NULL);
    test_daemon_prepare = NULL;
    ask(201, "POST", "/models",
        "{'name': 'm', 'durability': 'snapshot', 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': "
        "'linear', "
        "'out_features': 1}], 'loss': {'op': 'mse'}, 'optimizer': {'op': 'sgd', 'lr': 0.1}}");
    for (int i = 0; i < PEERS; i++) {
        peers[i] = raw_connect(service.port);
        assert_int_not_equal(peers[i], -1);
        assert_true(raw_send_text(peers[i], "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }
    for (int i = 0; i < 5; i++)
        ask(200, "POST", "/backward",
            "{'model': 'm', 'apply': true, 'wait': 'durable', 'inputs': {'x': [[1, 2]]}, 'targets': {'y': "
            "[[3]]}}");
    for (int i = 0; i < PEERS; i++) served += is_served(peers[i], MSG_DONTWAIT);
    assert_in_range(served, 10, FEW);
    /* Those that waited come to their turn as others go. */
    for (int i = 0; i < PEERS; i++) {
        if (i >= served) assert_true(is_served(peers[i], 0));
        close(peers[i]);
    }
    service_is_alive();
    service_stop();
}

static int count_files(void) {
    char path[64];
    int n = -2; /* . and .. */
    snprintf(path, sizeof path, "/proc/%d/fd", (int)service.pid);
    DIR *files = opendir(path);
    assert_non_null(files);
    while (readdir(files)) n++;
    closedir(files);
    return n;
}

/* A connection that is served comes after all that were waiting when it was made. */
static void await_turn(void) {
    int fd = raw_connect(service.port);
    assert_int_not_equal(fd, -1);
    assert_true(raw_send_text(fd, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert_true(is_served(fd, 0));
    close(fd);
}

/* Peers that come faster than they are begun to be served leave as many. */
static void few_descriptors_at_once(void **state) {
    (void)state;
    int peers[PEERS];
    test_daemon_prepare = allow_few;
    service_start(FLAGS("--io-threads", "1"), NULL);
    test_daemon_prepare = NULL;
    int before = count_files();
    for (int burst = 0; burst < 20; burst++) {
        for (int i = 0; i < PEERS; i++) assert_int_not_equal(peers[i] = raw_connect(service.port), -1);
        for (int i = 0; count_files() < FEW - 16 && i < 5000; i++) test_pause();
        for (int i = 0; i < 10; i++, test_pause()) assert_in_range(count_files(), FEW - 16, FEW - 12);
        for (int i = 0; i < PEERS; i++) close(peers[i]);
        /* Those that still wait are begun and ended too: the next burst finds none of them. */
        await_turn();
        for (int i = 0; count_files() > before && i < 5000; i++) test_pause();
        assert_in_range(count_files(), 0, before);
    }
    service_is_alive();
    service_stop();
}

static void allow_too_few(void) {
    const struct rlimit few = {16, 16};
    setrlimit(RLIMIT_NOFILE, &few);
}

/* Too few for any connection at all: told at the start. */
static void too_few_descriptors(void **state) {
    (void)state;
    static struct test_run run;
    test_daemon_prepare = allow_too_few;
    test_gradd_run(&run, FLAGS("--listen", "127.0.0.1:0"), NULL);
    test_daemon_prepare = NULL;
    assert_int_equal(run.status, 1);
    assert_non_null(strstr(run.err, "the limit of open files (ulimit -n) is 16"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(standard_files_that_are_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(few_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(few_descriptors_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(too_few_descriptors, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
