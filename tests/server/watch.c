/* Deadlines of connections, by a clock of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../server/http/watch.h"

#define WORD "that is all"

static struct srv_watch watch;

struct pair {
    int ours, theirs;
    struct srv_watched *watched;
};

static struct pair connect_until(int64_t deadline_ms) {
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    struct pair pair = {fds[0], fds[1], srv_watch_add(&watch, fds[0], deadline_ms)};
    assert_non_null(pair.watched);
    return pair;
}

static void finish(struct pair *pair) {
    srv_watch_remove(&watch, pair->watched);
    close(pair->ours);
    close(pair->theirs);
}

/* What has come: "" at the end of the connection, NULL while there is neither. */
static const char *heard(const struct pair *pair) {
    static char text[64];
    ssize_t size = recv(pair->theirs, text, sizeof text - 1, MSG_DONTWAIT);
    if (size < 0) return NULL;
    text[size] = '\0';
    return text;
}

static int setup(void **state) {
    (void)state;
    srv_watch_init(&watch, WORD);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    assert_null(watch.first);
    srv_watch_fini(&watch);
    return 0;
}

static void the_overdue_end(void **state) {
    (void)state;
    struct pair a = connect_until(100), b = connect_until(200), c = connect_until(SRV_NO_DEADLINE);
    srv_watch_sweep(&watch, 100);
    assert_null(heard(&a));
    assert_false(srv_watched_is_overdue(a.watched));
    srv_watch_sweep(&watch, 101);
    assert_string_equal(heard(&a), WORD);
    assert_string_equal(heard(&a), "");
    assert_true(srv_watched_is_overdue(a.watched));
    assert_null(heard(&b));
    srv_watch_sweep(&watch, INT64_MAX - 1);
    assert_string_equal(heard(&b), WORD);
    assert_null(heard(&c));
    finish(&b);
    finish(&a);
    finish(&c);
}

/* Said once, and never into an answer that has begun. */
static void the_last_word(void **state) {
    (void)state;
    struct pair a = connect_until(100), b = connect_until(100);
    assert_true(srv_watched_set(b.watched, 100, true));
    for (int i = 0; i < 3; i++) srv_watch_sweep(&watch, 101);
    assert_string_equal(heard(&a), WORD);
    assert_string_equal(heard(&a), "");
    assert_string_equal(heard(&b), "");
    finish(&a);
    finish(&b);
    watch.last_word = NULL;
    a = connect_until(100);
    srv_watch_sweep(&watch, 101);
    assert_string_equal(heard(&a), "");
    finish(&a);
}

static void deadlines_move(void **state) {
    (void)state;
    struct pair a = connect_until(100);
    assert_true(srv_watched_set(a.watched, 300, false));
    srv_watch_sweep(&watch, 200);
    assert_null(heard(&a));
    assert_true(srv_watched_hasten(a.watched, 400)); /* later: no matter */
    assert_true(srv_watched_hasten(a.watched, 250));
    srv_watch_sweep(&watch, 251);
    assert_string_equal(heard(&a), WORD);
    /* too late, from now on and for good */
    assert_false(srv_watched_set(a.watched, 1000, false));
    assert_false(srv_watched_hasten(a.watched, 1000));
    assert_true(srv_watched_is_overdue(a.watched));
    finish(&a);
}

/* The list holds together wherever one is taken out. */
static void any_may_leave(void **state) {
    (void)state;
    for (int gone = 0; gone < 3; gone++) {
        struct pair pairs[3];
        for (int i = 0; i < 3; i++) pairs[i] = connect_until(100);
        finish(&pairs[gone]);
        srv_watch_sweep(&watch, 101);
        for (int i = 0; i < 3; i++) {
            if (i == gone) continue;
            assert_string_equal(heard(&pairs[i]), WORD);
            finish(&pairs[i]);
        }
        srv_watch_sweep(&watch, 102);
    }
    srv_watch_remove(&watch, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_overdue_end, setup, teardown),
        cmocka_unit_test_setup_teardown(the_last_word, setup, teardown),
        cmocka_unit_test_setup_teardown(deadlines_move, setup, teardown),
        cmocka_unit_test_setup_teardown(any_may_leave, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
