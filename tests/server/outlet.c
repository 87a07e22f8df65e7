/* Lines to who reads slowly, not at all, or no more: nobody waits, lines are whole, and those that are missing are
 * told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../server/base/outlet.h"

enum { ROOM = 16384, LINES = 3000, WRITERS = 4 };

static void pause_briefly(void) {
    static const struct timespec moment = {.tv_nsec = 1000000};
    nanosleep(&moment, NULL);
}

static void await_dropped(struct srv_outlet *outlet, uint64_t lines) {
    for (int i = 0; srv_outlet_dropped(outlet) < lines; i++) {
        if (i == 60000) fail_msg("fewer than %" PRIu64 " lines are counted", lines);
        pause_briefly();
    }
}

static void put_number(struct srv_outlet *outlet, int writer, int number) {
    char line[64];
    int size = snprintf(line, sizeof line, "line %d of %d, and a few words\n", number, writer);
    srv_outlet_put(outlet, line, (size_t)size);
}

/* What is to be read, until its end: ordinary lines, in the order of each writer, and how many others tell of. */
struct seen {
    int lines, missing, last[WRITERS];
    bool wrong;
};

/* Behind `before`, a number, and then `after`; -1: it is another line. */
static long number_in(const char *line, const char *before, const char *after, const char **rest) {
    size_t length = strlen(before);
    char *end = NULL;
    if (strncmp(line, before, length) != 0) return -1;
    long number = strtol(line + length, &end, 10);
    if (strncmp(end, after, strlen(after)) != 0) return -1;
    *rest = end + strlen(after);
    return number;
}

static void look(struct seen *seen, const char *line) {
    const char *rest = "";
    long missing = number_in(line, "gradd: ", " lines are missing here", &rest);
    long number = number_in(line, "line ", " of", &rest);
    long writer = number < 0 ? -1 : number_in(rest, " ", ", and a few words\n", &rest);
    if (missing >= 0) {
        seen->missing += (int)missing;
    } else if (writer >= 0 && writer < WRITERS && !*rest) {
        seen->wrong |= number <= seen->last[writer];
        seen->last[writer] = (int)number;
        seen->lines++;
    } else {
        seen->wrong = true;
    }
}

static void *read_all(void *arg) {
    struct seen *seen = ((void **)arg)[0];
    FILE *file = ((void **)arg)[1];
    char line[8192];
    while (fgets(line, sizeof line, file)) look(seen, line);
    return NULL;
}

struct writer {
    pthread_t thread;
    struct srv_outlet *outlet;
    int number;
};

static void *write_many(void *arg) {
    struct writer *writer = arg;
    for (int i = 1; i <= LINES; i++) put_number(writer->outlet, writer->number, i);
    return NULL;
}

/* Several write at once, and there is not room for all: each line is there, or counted where it is missing. */
static void nothing_is_lost_untold(void **state) {
    (void)state;
    static struct srv_outlet outlet;
    struct writer writers[WRITERS];
    struct seen seen = {0};
    pthread_t reader;
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    outlet.fd = ends[1];
    assert_true(srv_outlet_begin(&outlet, ROOM));
    FILE *file = fdopen(ends[0], "r");
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.outlet = &outlet, .number = i};
        assert_int_equal(pthread_create(&writers[i].thread, NULL, write_many, &writers[i]), 0);
    }
    await_dropped(&outlet, 1); /* Together they put several times what the ring and the pipe hold. */
    assert_int_equal(pthread_create(&reader, NULL, read_all, (void *[]){&seen, file}), 0);
    for (int i = 0; i < WRITERS; i++) pthread_join(writers[i].thread, NULL);
    srv_outlet_end(&outlet, 60000);
    close(ends[1]);
    pthread_join(reader, NULL);
    fclose(file);
    assert_false(seen.wrong);
    assert_int_equal(seen.missing, (int)srv_outlet_dropped(&outlet));
    assert_true(seen.missing > 0);
    assert_int_equal(seen.lines + seen.missing, WRITERS * LINES);
    free(outlet.ring);
}

/* Nobody reads: what is put does not wait, nor does the end, for longer than it is told. */
static void nobody_reads(void **state) {
    (void)state;
    static struct srv_outlet outlet;
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    outlet.fd = ends[1];
    assert_true(srv_outlet_begin(&outlet, ROOM));
    for (int i = 0; i < 20 * LINES; i++) put_number(&outlet, 0, i);
    srv_outlet_end(&outlet, 10);
    uint64_t dropped = srv_outlet_dropped(&outlet);
    assert_true(dropped > 0);
    put_number(&outlet, 0, 1);
    assert_int_equal(srv_outlet_dropped(&outlet), dropped + 1);
    close(ends[0]); /* for its thread to end */
    for (bool ended = false; !ended; pause_briefly()) {
        pthread_mutex_lock(&outlet.mutex);
        ended = outlet.ended;
        pthread_mutex_unlock(&outlet.mutex);
    }
    pthread_join(outlet.thread, NULL);
    close(ends[1]);
    free(outlet.ring);
}

static void longer_than_a_line_may_be(void **state) {
    (void)state;
    static struct srv_outlet outlet;
    static char line[3 * SRV_OUTLET_LINE], got[3 * SRV_OUTLET_LINE];
    int ends[2];
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    for (int begun = 0; begun < 2; begun++) {
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        outlet = (struct srv_outlet){.fd = ends[1]};
        if (begun) assert_true(srv_outlet_begin(&outlet, ROOM));
        srv_outlet_put(&outlet, line, sizeof line);
        srv_outlet_end(&outlet, 60000);
        close(ends[1]);
        assert_int_equal(read(ends[0], got, sizeof got), SRV_OUTLET_LINE);
        assert_memory_equal(got, line, SRV_OUTLET_LINE - 1);
        assert_int_equal(got[SRV_OUTLET_LINE - 1], '\n');
        close(ends[0]);
        free(outlet.ring);
    }
}

/* A disk that is full in the middle of a line, and has room again later: the line after that begins on its own. */
static void a_full_disk(void **state) {
    (void)state;
    static struct srv_outlet outlet;
    struct rlimit limit;
    char path[] = "/tmp/gradd-outlet-XXXXXX", line[256];
    struct seen seen = {0};
    int fd = mkostemp(path, O_CLOEXEC | O_APPEND);
    assert_int_not_equal(fd, -1);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    const struct rlimit little = {100, limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
    outlet.fd = fd;
    assert_true(srv_outlet_begin(&outlet, ROOM));
    for (int i = 1; i <= 10; i++) put_number(&outlet, 0, i);
    await_dropped(&outlet, 7);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (int i = 11; i <= 20; i++) put_number(&outlet, 0, i);
    srv_outlet_end(&outlet, 60000);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    int torn = 0;
    while (fgets(line, sizeof line, file)) {
        struct seen before = seen;
        look(&seen, line);
        if (!seen.wrong) continue;
        torn++; /* what there was room for */
        seen = before;
    }
    assert_int_equal(torn, 1);
    assert_int_equal(seen.last[0], 20);
    assert_int_equal(seen.missing, (int)srv_outlet_dropped(&outlet));
    assert_int_equal(seen.lines + seen.missing, 20);
    fclose(file);
    close(fd);
    unlink(path);
    free(outlet.ring);
}

/* Somebody else has made the descriptor one that does not wait. */
static void it_does_not_wait(void **state) {
    (void)state;
    static struct srv_outlet outlet;
    struct seen seen = {0};
    pthread_t reader;
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    outlet.fd = ends[1];
    assert_true(srv_outlet_begin(&outlet, (size_t)1 << 20));
    for (int i = 1; i <= LINES; i++) put_number(&outlet, 0, i); /* more than a pipe takes */
    FILE *file = fdopen(ends[0], "r");
    assert_int_equal(pthread_create(&reader, NULL, read_all, (void *[]){&seen, file}), 0);
    srv_outlet_end(&outlet, 60000);
    close(ends[1]);
    pthread_join(reader, NULL);
    fclose(file);
    assert_false(seen.wrong);
    assert_int_equal(seen.lines, LINES);
    free(outlet.ring);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_untold),    cmocka_unit_test(nobody_reads),
        cmocka_unit_test(longer_than_a_line_may_be), cmocka_unit_test(a_full_disk),
        cmocka_unit_test(it_does_not_wait),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
