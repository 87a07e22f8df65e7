/* How the daemon ends while requests are in flight, or is told so more than once; and work that nobody waits for. */
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
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "../support/e2e.h"

#define FLAGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static char parent[] = "/tmp/gradd-stop-XXXXXX";
static char data[64];          /* a folder that the daemon makes */
static int said[2] = {-1, -1}; /* what it says on standard error, in a pipe */

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

static void prepare(void) {
    signal(SIGXFSZ, SIG_IGN);
    dup2(said[1], STDERR_FILENO);
}

static void start(const char *seconds) {
    assert_int_equal(pipe2(said, O_CLOEXEC), 0);
    test_daemon_prepare = prepare;
    service_start(FLAGS("--data", data, "--checkpoint-interval", "1h", "--compute-threads", "2", "--memory",
                        "2G", "--max-work", "0", "--drain-timeout", seconds),
                  NULL);
    test_daemon_prepare = NULL;
    close(said[1]);
}

/* It ends with this status, and has said that (NULL: whatever it was). */
static void end(int status, const char *what) {
    char text[8192] = "";
    assert_int_equal(test_daemon_wait(&service), status);
    for (size_t n = 0, got; n + 1 < sizeof text; n += got)
        if ((ssize_t)(got = (size_t)read(said[0], text + n, sizeof text - 1 - n)) <= 0) break;
    close(said[0]);
    if (what && !strstr(text, what)) fail_msg("it says: %s", text);
    service_stop();
}

static void stop(void) {
    test_daemon_signal(&service, SIGTERM);
    end(0, NULL);
}

/* A model whose changes are in its snapshots alone, after three steps. What it knows is the caller's. */
static json_t *learn(void) {
    ask(201, "POST", "/models",
        "{'name': 'm', 'durability': 'snapshot', 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': "
        "'linear', "
        "'out_features': 1}], 'loss': {'op': 'mse'}, 'optimizer': {'op': 'sgd', 'lr': 0.1}}");
    for (int i = 0; i < 3; i++)
        ask(200, "POST", "/backward",
            "{'model': 'm', 'apply': true, 'inputs': {'x': [[1, 2]]}, 'targets': {'y': [[3]]}}");
    return json_deep_copy(ask(200, "GET", "/models/m/parameters", NULL));
}

/* All that was learned is there, and the stop was clean: the incarnation too. */
static void is_all_there(json_t *before) {
    start("30");
    same_json(ask(200, "GET", "/models/m/parameters", NULL), before);
    json_decref(before);
    stop();
}

/* --- work that takes long ------------------------------------------------------------------------------------- */

/* Many layers, each of which takes a part of a second; all of them more than any test waits for. */
enum { LAYERS = 70, WIDE = 512, ROWS = 16384, ROWS_BACKWARD = 4096 };

static void make_deep(void) {
    char *text = NULL;
    size_t size;
    FILE *stream = open_memstream(&text, &size);
    assert_non_null(stream);
    fprintf(stream,
            "{'name': 'deep', 'durability': 'none', 'seed': 1, 'inputs': {'x': {'shape': [%d]}}, 'layers': [",
            WIDE);
    for (int i = 0; i < LAYERS; i++)
        fprintf(stream, "%s{'op': 'linear', 'out_features': %d}", i ? ", " : "", WIDE);
    fputs("], 'loss': {'op': 'mse'}, 'optimizer': {'op': 'sgd', 'lr': 0.1}}", stream);
    assert_int_equal(fclose(stream), 0);
    ask_bytes(201, "POST", "/models", service_keep(text));
}

/* A request for it, sent on a connection of its own. */
static int begin_rows(int64_t rows, const char *path, const char *version, const char *more) {
    struct test_writer writer = {0};
    size_t size;
    bool backward = strcmp(path, "/backward") == 0;
    float *x = service_keep(calloc((size_t)ROWS * WIDE, sizeof *x));
    test_write_text(&writer, "model", "deep");
    test_write_f32(&writer, "inputs/x", SHAPE(rows, WIDE), x);
    if (backward) {
        test_write_f32(&writer, "targets/y", SHAPE(rows, WIDE), x);
        test_write_text(&writer, "apply", "true");
    }
    const unsigned char *body = service_keep(test_write_end(&writer, &size));
    char head[512];
    int fd = raw_connect(service.port);
    assert_int_not_equal(fd, -1);
    snprintf(head, sizeof head,
             "POST %s %s\r\nHost: localhost\r\nContent-Type: " FILE_TYPE "\r\n%sContent-Length: %zu\r\n\r\n",
             path, version, more, size);
    assert_true(raw_send_text(fd, head));
    assert_true(raw_send(fd, body, size));
    return fd;
}

static int begin_work(const char *path, const char *more) {
    return begin_rows(strcmp(path, "/backward") == 0 ? ROWS_BACKWARD : ROWS, path, "HTTP/1.1", more);
}

/* Looked for as text: the whole page takes a sanitizer longer to read than the work may take. */
static double metric(const char *series) {
    const char *page = (const char *)ask_bytes(200, "GET", "/metrics", NULL)->body;
    char line[128];
    snprintf(line, sizeof line, "\n%s ", series);
    const char *found = strstr(page, line);
    double value = found ? strtod(found + strlen(line), NULL) : -1;
    if (!found) fail_msg("there is no %s", series);
    service_forget(NULL);
    return value;
}

static void await_metric(const char *series, double value) {
    for (int i = 0; metric(series) != value; i++) {
        if (i == 3000) fail_msg("%s does not become %g", series, value);
        test_pause();
    }
}

#define BUSY "gradd_compute_threads_busy"
#define LEFT "gradd_refusals_total{problem=\"client-left\"}"

static int status_of(int fd) {
    char answer[4096];
    raw_receive(fd, answer, sizeof answer);
    close(fd);
    return raw_status(answer);
}

/* Behind a 100, where there is one. */
static int last_status_of(int fd) {
    static const char going_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    char answer[4096];
    raw_receive(fd, answer, sizeof answer);
    close(fd);
    bool asked = strncmp(answer, going_on, sizeof going_on - 1) == 0;
    return raw_status(asked ? answer + sizeof going_on - 1 : answer);
}

/* --- peers that leave ------------------------------------------------------------------------------------------ */

static void work_that_nobody_waits_for(void **state) {
    (void)state;
    static const char *const paths[] = {"/forward", "/backward"};
    start("30");
    make_deep();
    for (int i = 0; i < 4; i++) {
        const struct linger hard = {.l_onoff = 1};
        int fd = begin_work(paths[i / 2], "Idempotency-Key: k1\r\n");
        await_metric(BUSY, 1);
        if (i % 2) setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard); /* a reset, not an end */
        close(fd);
        await_metric(LEFT, i + 1);
        await_metric(BUSY, 0);
    }
    assert_int_equal(integer_at(ask(200, "GET", "/models/deep", NULL), "version"), 0);
    stop();
}

/* Who has sent all may say so by closing that half, and waits: of HTTP/1.1 or 1.0, and however long it takes. */
static void work_that_is_waited_for(void **state) {
    (void)state;
    static const char *const paths[] = {"/forward", "/backward"};
    start("30");
    make_deep();
    for (int i = 0; i < 4; i++) {
        int fd = begin_rows(128, paths[i / 2], i % 2 ? "HTTP/1.0" : "HTTP/1.1", "Connection: close\r\n");
        shutdown(fd, SHUT_WR);
        assert_int_equal(last_status_of(fd), 200);
    }
    assert_int_equal(integer_at(ask(200, "GET", "/models/deep", NULL), "version"), 2);
    stop();
}

/* --- the end --------------------------------------------------------------------------------------------------- */

/* A token of scope read may do no more than that: its request does not cost others what they have taught. */
static void work_costs_no_checkpoint(void **state) {
    (void)state;
    static const char *const paths[] = {"/forward", "/backward"};
    for (int i = 0; i < 2; i++) {
        start("1");
        json_t *before = learn();
        make_deep();
        int fd = begin_work(paths[i], "");
        await_metric(BUSY, 1);
        test_daemon_signal(&service, SIGTERM);
        end(0, NULL);
        assert_int_not_equal(status_of(fd), 200);
        is_all_there(before);
        teardown(state);
        setup(state);
    }
}

/* As `timeout` and shells send them; of different kinds here, for two of a kind may come as one. */
static void two_signals_are_one(void **state) {
    (void)state;
    start("30");
    json_t *before = learn();
    test_daemon_signal(&service, SIGTERM);
    test_daemon_signal(&service, SIGINT);
    end(0, "");
    is_all_there(before);
}

/* It ends the wait for requests, and not the daemon. */
static void a_second_signal_later(void **state) {
    (void)state;
    start("1h");
    json_t *before = learn();
    make_deep();
    int fd = begin_work("/forward", "");
    await_metric(BUSY, 1);
    test_daemon_signal(&service, SIGTERM);
    sleep(2);
    test_daemon_signal(&service, SIGINT);
    end(0, NULL);
    assert_int_not_equal(status_of(fd), 200);
    is_all_there(before);
}

/* The disk takes no snapshot any more. */
static void what_is_lost_is_told(void **state) {
    (void)state;
    start("30");
    json_decref(learn());
    const struct rlimit little = {.rlim_cur = 16, .rlim_max = RLIM_INFINITY};
    assert_int_equal(prlimit(service.pid, RLIMIT_FSIZE, &little, NULL), 0);
    test_daemon_signal(&service, SIGTERM);
    end(1, "gradd: lost: m is at version 3, and stored as of 0\n");
}

/* Lets the daemon's main thread go on from one system call to the next, as a debugger does, until there is a file of
 * this name; there it stays. */
static void hold_at(const char *file, int signal_number) {
    int status, pass_on = 0;
    if (ptrace(PTRACE_SEIZE, service.pid, 0, 0) != 0 || ptrace(PTRACE_INTERRUPT, service.pid, 0, 0) != 0)
        fail_msg("a process may not trace its own child here, which this test has to");
    assert_int_equal(waitpid(service.pid, &status, __WALL), service.pid);
    test_daemon_signal(&service, signal_number);
    while (access(file, F_OK) != 0) {
        assert_int_equal(ptrace(PTRACE_SYSCALL, service.pid, 0, pass_on), 0);
        assert_int_equal(waitpid(service.pid, &status, __WALL), service.pid);
        assert_true(WIFSTOPPED(status));
        pass_on = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
    }
}

/* The last checkpoint takes long: a third signal ends the daemon without it. */
static void a_third_signal(void **state) {
    (void)state;
    char file[128];
    start("30");
    json_decref(learn());
    snprintf(file, sizeof file, "%s/snapshot-m-00000000000000000001~", data);
    hold_at(file, SIGTERM);
    test_daemon_signal(&service, SIGINT);
    sleep(2);
    assert_int_equal(kill(service.pid, 0), 0);
    test_daemon_signal(&service, SIGTERM);
    end(1, "gradd: lost: m is at version 3, and stored as of 0\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(work_that_nobody_waits_for, setup, teardown),
        cmocka_unit_test_setup_teardown(work_that_is_waited_for, setup, teardown),
        cmocka_unit_test_setup_teardown(work_costs_no_checkpoint, setup, teardown),
        cmocka_unit_test_setup_teardown(two_signals_are_one, setup, teardown),
        cmocka_unit_test_setup_teardown(a_second_signal_later, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_lost_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(a_third_signal, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
