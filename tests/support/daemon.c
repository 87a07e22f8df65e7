/* daemon.c - see daemon.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon.h"

enum { MOST_ARGUMENTS = 64, MOST_RUNNING = 16, PATIENCE_S = 60 };

void (*test_daemon_prepare)(void);

/* Children that still run, killed at the program's end. */
static pid_t running[MOST_RUNNING];

static void kill_running(void) {
    for (int i = 0; i < MOST_RUNNING; i++)
        if (running[i]) kill(running[i], SIGKILL);
}

static void note_running(pid_t pid) {
    static int registered;
    if (!registered++) atexit(kill_running);
    for (int i = 0; i < MOST_RUNNING; i++)
        if (!running[i]) {
            running[i] = pid;
            return;
        }
    fail_msg("more than %d daemons at a time", MOST_RUNNING);
}

static void forget_running(pid_t pid) {
    for (int i = 0; i < MOST_RUNNING; i++)
        if (running[i] == pid) running[i] = 0;
}

/* build/tests/e2e/x -> build/gradd */
static const char *program(void) {
    static char path[4096 + 16];
    const char *given = getenv("GRADD");
    if (given && *given) return given;
    ssize_t n = readlink("/proc/self/exe", path, 4096);
    assert_in_range(n, 1, 4095);
    path[n] = '\0';
    for (int i = 0; i < 3 && strrchr(path, '/'); i++) *strrchr(path, '/') = '\0';
    strncat(path, "/gradd", sizeof path - strlen(path) - 1);
    return path;
}

/* What the child sees: ours without GRADD_..., then `more`. */
static char **environment_with(const char *const *more) {
    size_t n = 0, m = 0;
    while (environ[n]) n++;
    while (more && more[m]) m++;
    char **all = calloc(n + m + 1, sizeof *all);
    assert_non_null(all);
    size_t used = 0;
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], "GRADD_", 6) != 0) all[used++] = environ[i];
    for (size_t i = 0; i < m; i++) all[used++] = (char *)(uintptr_t)more[i];
    return all;
}

static pid_t start(const char *const *first, const char *const *flags, const char *const *environment,
                   int out, int err) {
    const char *argv[MOST_ARGUMENTS + 1] = {program()};
    size_t n = 1;
    for (; *first; first++) argv[n++] = *first;
    for (; flags && *flags && n < MOST_ARGUMENTS; flags++) argv[n++] = *flags;
    char **envp = environment_with(environment);
    pid_t parent = getpid(), pid = fork();
    assert_int_not_equal(pid, -1);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(127); /* it died before that was set */
        if (out >= 0) dup2(out, STDOUT_FILENO);
        if (err >= 0) dup2(err, STDERR_FILENO);
        if (test_daemon_prepare) test_daemon_prepare();
        execve(argv[0], (char *const *)(uintptr_t)argv, envp);
        fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    free(envp);
    note_running(pid);
    return pid;
}

void test_pause(void) {
    static const struct timespec tick = {.tv_nsec = 5000000};
    nanosleep(&tick, NULL);
}

static int wait_for(pid_t pid) {
    int status;
    for (int i = 0; i < PATIENCE_S * 200; i++) {
        pid_t ended = waitpid(pid, &status, WNOHANG);
        assert_int_not_equal(ended, -1);
        if (ended == pid) {
            forget_running(pid);
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        test_pause();
    }
    fail_msg("process %d does not end", (int)pid);
    return -1;
}

/* The first line that comes out of fd, without its end. */
static void read_line(int fd, char *line, size_t size) {
    size_t used = 0;
    while (used + 1 < size) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (poll(&ready, 1, PATIENCE_S * 1000) <= 0 || read(fd, line + used, 1) != 1) break;
        if (line[used] == '\n') break;
        used++;
    }
    line[used] = '\0';
}

void test_daemon_start(struct test_daemon *daemon, const char *const *flags, const char *const *environment) {
    static const char *const first[] = {"--listen", "127.0.0.1:0", "--log", "off", NULL};
    static const char before[] = "listening on http://127.0.0.1:";
    char line[256], *end = line;
    int out[2];
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    *daemon = (struct test_daemon){.pid = start(first, flags, environment, out[1], -1)};
    close(out[1]);
    read_line(out[0], line, sizeof line);
    close(out[0]);
    if (strncmp(line, before, sizeof before - 1) == 0)
        daemon->port = (int)strtol(line + sizeof before - 1, &end, 10);
    if (!daemon->port || *end) fail_msg("gradd does not say that it listens, but \"%s\"", line);
    snprintf(daemon->url, sizeof daemon->url, "http://127.0.0.1:%d", daemon->port);
}

void test_daemon_launch(struct test_daemon *daemon, const char *const *flags) {
    static const char *const none[] = {NULL};
    *daemon = (struct test_daemon){.pid = start(none, flags, NULL, -1, -1)};
}

void test_daemon_signal(const struct test_daemon *daemon, int signal_number) {
    assert_int_equal(kill(daemon->pid, signal_number), 0);
}

int test_daemon_wait(struct test_daemon *daemon) {
    int status = wait_for(daemon->pid);
    daemon->pid = 0;
    return status;
}

int test_daemon_stop(struct test_daemon *daemon) {
    if (!daemon->pid) return 0;
    test_daemon_signal(daemon, SIGTERM);
    return test_daemon_wait(daemon);
}

static int memory_file(void) {
    int fd = memfd_create("output", MFD_CLOEXEC);
    assert_int_not_equal(fd, -1);
    return fd;
}

static void read_back_take(int fd, char *text, size_t size) {
    ssize_t n = pread(fd, text, size - 1, 0);
    assert_int_not_equal(n, -1);
    text[n] = '\0';
    close(fd);
}

static void run_until(struct test_run *run, const char *const *flags, const char *const *environment,
                      const char *file, int signal_number) {
    static const char *const none[] = {NULL};
    int out = memory_file(), err = memory_file();
    pid_t pid = start(none, flags, environment, out, err);
    for (int i = 0; file && access(file, F_OK) != 0 && i < PATIENCE_S * 200; i++) test_pause();
    if (file) assert_int_equal(kill(pid, signal_number), 0);
    run->status = wait_for(pid);
    read_back_take(out, run->out, sizeof run->out);
    read_back_take(err, run->err, sizeof run->err);
}

void test_gradd_run(struct test_run *run, const char *const *flags, const char *const *environment) {
    run_until(run, flags, environment, NULL, 0);
}

void test_gradd_run_until(struct test_run *run, const char *const *flags, const char *file,
                          int signal_number) {
    run_until(run, flags, NULL, file, signal_number);
}
