/* daemon.h - the real gradd as a child of a test.
 *
 * The program is what GRADD in the environment names, or build/gradd beside the tests. A daemon never
 * outlives its test: it is killed when the test program ends, in whichever way. */
#ifndef TEST_DAEMON_H
#define TEST_DAEMON_H

#include <sys/types.h>

struct test_daemon {
    pid_t pid; /* 0: not running */
    int port;
    char url[64]; /* "http://127.0.0.1:PORT" */
};

/* Called in the child just before gradd begins, for what it is to find: descriptors, limits. NULL: nothing is. */
extern void (*test_daemon_prepare)(void);

/* Starts gradd on a free port of loopback and waits until it listens; fails the test if it does not.
 * `flags` and `environment` ("NAME=value") end with NULL, or are NULL. Its standard error is the test's,
 * without a request log unless flags ask for one. Variables GRADD_... of the test are not handed on. */
void test_daemon_start(struct test_daemon *daemon, const char *const *flags, const char *const *environment);
/* The same with these flags alone, and without waiting: `daemon` has neither port nor URL. */
void test_daemon_launch(struct test_daemon *daemon, const char *const *flags);
void test_daemon_signal(const struct test_daemon *daemon, int signal_number);
/* Waits for its end; the exit status, or 128 and the signal that killed it. */
int test_daemon_wait(struct test_daemon *daemon);
/* SIGTERM, and its exit status. 0 if it was not running. */
int test_daemon_stop(struct test_daemon *daemon);

/* A run of gradd to its end, which comes by itself or fails the test. */
struct test_run {
    int status; /* as from test_daemon_wait */
    char out[16384], err[4096];
};
void test_gradd_run(struct test_run *run, const char *const *flags, const char *const *environment);

/* The same, with a signal that comes as soon as there is a file of this name. */
void test_gradd_run_until(struct test_run *run, const char *const *flags, const char *file,
                          int signal_number);

/* Some milliseconds, between two looks at what is to come. */
void test_pause(void);

#endif
