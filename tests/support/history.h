/* history.h - some fifty changes of four models that are stored in different ways, with checkpoints, a clean stop and a
 * kill between them, on a disk in memory; what the service was like after each; and whether what comes out of a crash
 * fits that. */
#ifndef TEST_HISTORY_H
#define TEST_HISTORY_H

#include "stored.h"

#define TEST_MODELS 4
#define TEST_STEPS  64

/* A model as it was after a step: JSON; NULL: there was none. */
struct test_model_state {
    char *how;     /* specification: how it learns, and how it is stored */
    char *numbers; /* version, parameters, optimizer, buffer: all else that does not change with a start */
    char incarnation[17];
};

/* A step, when it has been taken. */
struct test_taken {
    size_t begun, acked; /* operations of the disk by then */
    char *path, *body;   /* as sent; NULL: none */
    int status;          /* of the answer; 0: it was no request */
    struct test_model_state after[TEST_MODELS];
};

struct test_history {
    struct test_disk *disk;
    struct test_taken taken[TEST_STEPS];
    int n;
    bool older_will_do; /* of what is stored by snapshots alone, any of them: files have gone bad */
};

/* All of it. */
void test_history_make(struct test_history *history);
/* With an operation of the disk that fails, until the next start; where there is no room, until the next checkpoint: whoever
 * has made a change then waits, or is answered at the end of the process. What is refused is told as it should be, and
 * readers go on. False: there was no such operation. */
struct test_fault {
    enum test_disk_kind kind;
    long n;   /* the n-th, from 0, */
    bool all; /* and those that follow */
    int error;
};
bool test_history_make_failing(struct test_history *history, const struct test_fault *fault);
void test_history_free(struct test_history *history);

/* How much is tried, out of GRADD_TEST_CRASHES: `few` for a build that is slow, `all`, or what takes a moment. */
enum test_crashes { TEST_CRASHES_FEW, TEST_CRASHES_SOME, TEST_CRASHES_ALL };
enum test_crashes test_crashes(void);

int test_history_steps(void);
/* "3: POST /backward" */
const char *test_history_step(int step, char text[128]);

/* What is there of the history. */
struct test_prefix {
    int step; /* the last one; -1: nothing */
    uint64_t
        lost; /* a bit for each step up to there with a key whose change is not there: it was not written down */
};
/* Finds out what the service has: all that had been told as durable after `n` operations of the disk, and nothing that
 * had not begun. Keys replay what is there. Fails the test, with `what`, if the history never was like that. */
struct test_prefix test_history_check(const struct test_history *history, size_t n,
                                      struct test_stored *stored, const char *what);
/* After `n` operations of the disk the daemon is killed and started again, and then the machine crashes. What a start has
 * found, it tells, and so it has to last: though it was another process that wrote it, and did not come to sync it, or
 * was told that it could not. */
void test_history_kill_and_crash(const struct test_history *history, size_t n, const char *what);
/* That it goes on: the next change, with the key that it had; lost ones, whose keys replay nothing; a clean stop, and a
 * clean start, in which nothing is lost. The service is stopped then. */
void test_history_go_on(const struct test_history *history, const struct test_prefix *prefix,
                        struct test_disk *disk, struct test_stored *stored, const char *what);

#endif
