/* A log that nobody reads, or that cannot be written: it holds nothing up, neither requests nor a stop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "../support/e2e.h"
#include "../support/prometheus.h"

#define FLAGS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Lines that are more than any pipe and any queue takes: some thousand bytes each. */
enum { MANY = 2000, LONG = 150 };

static char *long_path(void) {
    char *path = service_keep(malloc(3 * LONG + 1));
    for (size_t i = 0; i < LONG; i++) memcpy(path + 3 * i, i ? "%80" : "/80", 4);
    return path;
}

static void ask_often(int times) {
    const char *path = long_path();
    for (int i = 0; i < times; i++) {
        struct http_answer answer;
        if (!http_call(client, &(struct http_request){.method = "GET", .path = path}, &answer))
            fail_msg("request %d: %s", i, (char *)answer.body);
        http_answer_fini(&answer);
    }
}

static double dropped(void) {
    const struct http_answer *page = ask_bytes(200, "GET", "/metrics", NULL);
    struct test_metrics metrics = test_metrics_read((const char *)page->body);
    double lines = test_metric(&metrics, "gradd_log_lines_dropped_total");
    test_metrics_fini(&metrics);
    return lines;
}

static void await_dropped(double lines) {
    for (int i = 0; dropped() < lines; i++) {
        if (i == 5000) fail_msg("fewer than %g lines are counted", lines);
        test_pause();
    }
}

/* --- descriptors that the child finds ------------------------------------------------------------------------ */

static int log_fd = -1, out_fd = -1;

static void prepare(void) {
    if (log_fd >= 0) dup2(log_fd, STDERR_FILENO);
    if (out_fd >= 0) dup2(out_fd, STDOUT_FILENO);
}

static void start(int log) {
    log_fd = log;
    test_daemon_prepare = prepare;
    service_start(FLAGS("--log", "requests"), NULL);
    test_daemon_prepare = NULL;
    log_fd = -1;
    close(log);
}

static void make_pipe(int ends[2]) {
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_true(fcntl(ends[1], F_SETPIPE_SZ, 4096) > 0);
}

/* So that the next write waits. */
static void fill(int fd) {
    static const char zeros[4096];
    int flags = fcntl(fd, F_GETFL);
    assert_int_equal(fcntl(fd, F_SETFL, flags | O_NONBLOCK), 0);
    while (write(fd, zeros, sizeof zeros) > 0) continue;
    assert_int_equal(fcntl(fd, F_SETFL, flags), 0);
}

/* --- the log ------------------------------------------------------------------------------------------------- */

static void a_reader_that_stands_still(void **state) {
    (void)state;
    int ends[2];
    make_pipe(ends);
    start(ends[1]);
    ask_often(MANY);
    service_is_alive();
    assert_true(dropped() > 0);
    service_stop();
    close(ends[0]);
}

struct reader {
    pthread_t thread;
    int fd;
    atomic_int lines;   /* of requests */
    atomic_int missing; /* as lines of the log tell */
    bool wrong;
};

static void *read_lines(void *arg) {
    struct reader *reader = arg;
    FILE *file = fdopen(reader->fd, "r");
    char *line = NULL;
    size_t size = 0;
    while (file && getline(&line, &size, file) > 0) {
        static const char gap[] = "gradd: ", what[] = " lines are missing here";
        char *end = line;
        long missing = strncmp(line, gap, sizeof gap - 1) == 0 ? strtol(line + sizeof gap - 1, &end, 10) : 0;
        if (strncmp(end, what, sizeof what - 1) == 0) {
            atomic_fetch_add(&reader->missing, (int)missing);
            continue;
        }
        json_t *json = json_loads(line, 0, NULL);
        reader->wrong |= !json;
        json_decref(json);
        atomic_fetch_add(&reader->lines, 1);
    }
    free(line);
    if (file) fclose(file);
    return NULL;
}

/* Every request has its line, or is counted in one that tells what is missing. */
static void what_is_missing_is_told(void **state) {
    (void)state;
    int ends[2];
    struct reader reader = {0};
    make_pipe(ends);
    start(ends[1]);
    ask_often(MANY);
    double missing = dropped();
    assert_true(missing > 0);
    reader.fd = ends[0];
    assert_int_equal(pthread_create(&reader.thread, NULL, read_lines, &reader), 0);
    service_stop();
    pthread_join(reader.thread, NULL);
    assert_false(reader.wrong);
    /* /metrics has a line too, which may be among the missing itself */
    assert_in_range(atomic_load(&reader.missing), (int)missing, (int)missing + 1);
    assert_int_equal(atomic_load(&reader.lines) + atomic_load(&reader.missing), MANY + 1);
}

static void a_reader_that_left(void **state) {
    (void)state;
    int ends[2];
    make_pipe(ends);
    start(ends[1]);
    close(ends[0]);
    ask_often(20);
    await_dropped(20);
    service_stop();
}

static void a_full_disk(void **state) {
    (void)state;
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_int_not_equal(full, -1);
    start(full);
    ask_often(20);
    await_dropped(20);
    service_stop();
}

/* A signal comes while the daemon is at its start, and nobody reads what it says. */
static void a_stop_before_it_is_ready(void **state) {
    (void)state;
    char folder[] = "/tmp/gradd-log-XXXXXX", fifo[64];
    int ends[2];
    assert_non_null(mkdtemp(folder));
    snprintf(fifo, sizeof fifo, "%s/tokens", folder);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    make_pipe(ends);
    fill(ends[1]);
    log_fd = ends[1];
    test_daemon_prepare = prepare;
    test_daemon_launch(&service, FLAGS("--listen", "127.0.0.1:0", "--token-file", fifo));
    test_daemon_prepare = NULL;
    log_fd = -1;
    int writer; /* as soon as there is a reader, which is then left without a word */
    for (int i = 0; (writer = open(fifo, O_WRONLY | O_NONBLOCK | O_CLOEXEC)) < 0 && i < 5000; i++)
        test_pause();
    test_daemon_signal(&service, SIGTERM);
    assert_int_equal(test_daemon_wait(&service), 0);
    close(writer);
    close(ends[0]);
    close(ends[1]);
    unlink(fifo);
    rmdir(folder);
}

/* --- standard output ------------------------------------------------------------------------------------------ */

static bool answers(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char answer[4096] = "";
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool connected = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (connected) {
        raw_send_text(fd, "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        raw_receive(fd, answer, sizeof answer);
    }
    if (fd >= 0) close(fd);
    return raw_status(answer) == 200;
}

/* The line that says where it listens is on a pipe that nobody empties. */
static void an_output_that_nobody_reads(void **state) {
    (void)state;
    char folder[] = "/tmp/gradd-log-XXXXXX", address[64];
    int ends[2];
    assert_non_null(mkdtemp(folder));
    snprintf(address, sizeof address, "unix:%s/socket", folder);
    make_pipe(ends);
    fill(ends[1]);
    out_fd = ends[1];
    test_daemon_prepare = prepare;
    test_daemon_launch(&service, FLAGS("--listen", address, "--log", "off"));
    test_daemon_prepare = NULL;
    out_fd = -1;
    for (int i = 0; !answers(strchr(address, ':') + 1); i++) {
        if (i == 5000) fail_msg("it does not serve");
        test_pause();
    }
    test_daemon_signal(&service, SIGTERM);
    assert_int_equal(test_daemon_wait(&service), 0);
    close(ends[0]);
    close(ends[1]);
    rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        service_test(a_reader_that_stands_still), service_test(what_is_missing_is_told),
        service_test(a_reader_that_left),         service_test(a_full_disk),
        service_test(a_stop_before_it_is_ready),  service_test(an_output_that_nobody_reads),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
