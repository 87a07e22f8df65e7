/* A disk that fails: each operation of the history in turn, once or from then on, with an error or for lack of room. What
 * cannot be stored is refused, and readers go on; and what a start finds then is, as after any crash, a state that the
 * history had, with all that was told as durable. GRADD_TEST_CRASHES=all: each of them; otherwise some, or few. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "../support/check.h"
#include "../support/history.h"

static void check_image(const struct test_history *history, size_t n, size_t i, const char *fault) {
    char image[256];
    struct test_stored stored;
    struct nn_error err = {0};
    if (i >= test_disk_images(history->disk, n)) return;
    struct test_disk *disk = test_disk_image(history->disk, n, i, image);
    char *what = test_format("%s; then a crash after operation %zu, %s", fault, n, image);
    test_ok(test_stored_start(&stored, disk, 80, NULL, &err), &err, "%s", what);
    struct test_prefix prefix = test_history_check(history, n, &stored, what);
    test_history_go_on(history, &prefix, disk, &stored, what);
    test_disk_free(disk);
    free(what);
}

/* Operations until the first change was refused. */
static size_t first_refusal(const struct test_history *history) {
    for (int i = 0; i < history->n; i++)
        if (history->taken[i].status >= 400) return history->taken[i].acked;
    return 0;
}

/* False: there is no n-th one. */
static bool fail_one(const struct test_fault *fault) {
    static const char *const kinds[TEST_DISK_KINDS] = {
        "creation", "renaming", "removal", "write", "reserve", "truncate", "sync", "sync of the directory"};
    struct test_history history;
    bool failed = test_history_make_failing(&history, fault);
    char *what = test_format("%s %ld%s fails with %s", kinds[fault->kind], fault->n,
                             fault->all ? ", and all behind it," : "", strerror(fault->error));
    size_t refused = first_refusal(&history), n = test_disk_operations(history.disk);
    for (size_t i = 0; failed && i < 2; i++) {
        check_image(&history, n, i, what);
        if (refused) check_image(&history, refused, i, what);
    }
    if (failed && refused) test_history_kill_and_crash(&history, refused, what);
    free(what);
    test_history_free(&history);
    return failed;
}

static void fail_each(enum test_disk_kind kind, int error) {
    static const long steps[] = {[TEST_CRASHES_FEW] = 9, [TEST_CRASHES_SOME] = 3, [TEST_CRASHES_ALL] = 1};
    const long step = steps[test_crashes()];
    long n = 0;
    for (int all = 0; all < 2; all++)
        for (n = all; fail_one(&(struct test_fault){kind, n, all, error}); n += step) continue;
}

#define TEST_OF(name, kind, error)                                                                           \
    static void name(void **state) {                                                                         \
        (void)state;                                                                                         \
        fail_each(kind, error);                                                                              \
    }
TEST_OF(creations, TEST_DISK_CREATE, EIO)
TEST_OF(renamings, TEST_DISK_RENAME, EIO)
TEST_OF(removals, TEST_DISK_REMOVE, EIO)
TEST_OF(writes, TEST_DISK_WRITE, EIO)
TEST_OF(syncs, TEST_DISK_SYNC, EIO)
TEST_OF(syncs_of_the_directory, TEST_DISK_SYNC_DIRECTORY, EIO)
TEST_OF(reserves, TEST_DISK_RESERVE, EIO)
TEST_OF(no_room_to_create, TEST_DISK_CREATE, ENOSPC)
TEST_OF(no_room_to_write, TEST_DISK_WRITE, ENOSPC)
TEST_OF(no_room_to_reserve, TEST_DISK_RESERVE, ENOSPC)

/* --- what a client sees ------------------------------------------------------------------------------- */

#define BATCH "'inputs': {'x': [[1, 2]]}, 'targets': {'y': [[3]]}"

static struct test_answer ask(struct test_stored *stored, const char *request, const char *key,
                              const char *body) {
    char method[8], *text = strdup(body ? body : "");
    assert_non_null(text);
    for (char *c = text; *c; c++)
        if (*c == '\'') *c = '"';
    snprintf(method, sizeof method, "%.*s", (int)strcspn(request, " "), request);
    const struct test_request whole = {.method = method,
                                       .path = strchr(request, ' ') + 1,
                                       .idempotency_key = key,
                                       .body = text,
                                       .size = strlen(text)};
    struct test_answer answer = test_stored_request(stored, &whole);
    free(text);
    return answer;
}

static int status_of(struct test_stored *stored, const char *request, const char *key, const char *body) {
    struct test_answer answer = ask(stored, request, key, body);
    int status = answer.status;
    test_answer_free(&answer);
    return status;
}

static void start_with_model(struct test_stored *stored, struct test_disk *disk) {
    struct nn_error err = {0};
    test_ok(test_stored_start(stored, disk, 0, NULL, &err), &err, "a start");
    assert_int_equal(
        status_of(stored, "POST /models", NULL,
                  "{'name': 'm', 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear',"
                  " 'out_features': 1}], 'loss': {'op': 'mse'}, 'optimizer': {'op': 'sgd', 'lr': 0.1},"
                  " 'durability': 'journal'}"),
        201);
}

/* Until one is refused; its number. The answer says why. */
static int update_until_refused(struct test_stored *stored, const char *why) {
    for (int i = 0; i < 1000; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        struct test_answer answer =
            ask(stored, "POST /backward", key, "{'model': 'm', 'apply': true, " BATCH "}");
        if (answer.status != 200) {
            assert_int_equal(answer.status, 503);
            if (!strstr(answer.body, why)) fail_msg("not because of \"%s\": %s", why, answer.body);
            test_answer_free(&answer);
            return i;
        }
        test_answer_free(&answer);
    }
    fail_msg("nothing was ever refused");
    return -1;
}

static void room_comes_back(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    struct test_stored stored;
    start_with_model(&stored, disk);
    test_disk_fail(disk, TEST_DISK_RESERVE, 0, ENOSPC, true);
    int refused = update_until_refused(&stored, "No space left on device");
    assert_true(refused > 0);
    assert_int_equal(status_of(&stored, "GET /models/m", NULL, NULL), 200);
    assert_int_equal(status_of(&stored, "POST /forward", NULL, "{'model': 'm', 'inputs': {'x': [[1, 2]]}}"),
                     200);
    assert_true(test_disk_work(disk));
    char key[16];
    snprintf(key, sizeof key, "k%d", refused); /* which was freed */
    struct test_answer answer =
        ask(&stored, "POST /backward", key, "{'model': 'm', 'apply': true, " BATCH "}");
    assert_int_equal(answer.status, 200);
    assert_null(strstr(answer.body, "replayed"));
    test_answer_free(&answer);
    test_stored_stop(&stored);
    test_disk_free(disk);
}

/* It is not known then what is on the disk: only a start finds out. */
static void a_failed_sync_is_for_good(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    struct test_stored stored;
    static const char step[] = "{'model': 's', 'apply': true, " BATCH "}";
    start_with_model(&stored, disk);
    assert_int_equal(
        status_of(&stored, "POST /models", NULL,
                  "{'name': 's', 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear',"
                  " 'out_features': 1}], 'loss': {'op': 'mse'}, 'optimizer': {'op': 'sgd', 'lr': 0.1},"
                  " 'durability': 'snapshot'}"),
        201);
    assert_int_equal(status_of(&stored, "POST /backward", NULL, step), 200);
    test_disk_fail(disk, TEST_DISK_SYNC, 3, EIO, false);
    assert_int_equal(update_until_refused(&stored, "the change was made, but"), 3);
    assert_true(test_disk_work(disk));
    assert_int_equal(update_until_refused(&stored, "Input/output error"),
                     3); /* the first three are replayed */
    /* No snapshot will ever be taken of it. */
    assert_int_equal(status_of(&stored, "POST /backward", NULL, step), 503);
    assert_int_equal(status_of(&stored, "GET /models/m/parameters", NULL, NULL), 200);
    assert_int_equal(status_of(&stored, "POST /models/m/restore", NULL, "{}"), 404);
    struct nn_error err = {0};
    assert_int_not_equal(test_stored_finish(&stored, &err), NN_OK);
    test_stored_stop(&stored);
    test_disk_free(disk);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(room_comes_back),
        cmocka_unit_test(a_failed_sync_is_for_good),
        cmocka_unit_test(creations),
        cmocka_unit_test(renamings),
        cmocka_unit_test(removals),
        cmocka_unit_test(writes),
        cmocka_unit_test(syncs),
        cmocka_unit_test(syncs_of_the_directory),
        cmocka_unit_test(reserves),
        cmocka_unit_test(no_room_to_create),
        cmocka_unit_test(no_room_to_write),
        cmocka_unit_test(no_room_to_reserve),
    };
    nn_blas_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
