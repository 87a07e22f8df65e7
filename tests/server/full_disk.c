/* A disk that does not keep the room which it had given, as those that copy on write do: what was taken into the journal
 * waits until there is some, what comes meanwhile is refused, and nothing has to be started again. */
#include "../support/check.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "../../server/store/journal.h"
#include "../support/history.h"
#include "../support/place.h"
#include "../support/process.h"

/* --- the journal by itself ------------------------------------------------------------------------------- */

enum { RECORDS = 9, BYTES = 1000, SEGMENT = 4096 }; /* three to a file */

struct told {
    _Atomic int yes, no;
};

static void count_done(void *arg, bool durable) {
    struct told *told = arg;
    atomic_fetch_add(durable ? &told->yes : &told->no, 1);
}

static void is_never_called(void *arg, const struct nn_error *err) {
    (void)arg;
    fail_msg("it has failed: %s", err->text);
}

static struct srv_journal *open_journal(const struct srv_io *io) {
    struct nn_error err = {0};
    const struct srv_journal_options options = {SEGMENT, "here", is_never_called, NULL};
    struct srv_journal *journal = srv_journal_new(io, &options, &err);
    assert_non_null(journal);
    return journal;
}

static int append(struct srv_journal *journal, struct told *told, struct nn_error *err) {
    static const unsigned char zeros[BYTES];
    static const struct api_segment part = {zeros, BYTES};
    uint64_t seq;
    *err = (struct nn_error){0};
    return srv_journal_append(journal, &part, 1, count_done, told, &seq, err);
}

static int count_record(void *arg, const struct srv_record *record, struct nn_error *err) {
    (void)err;
    assert_int_equal(record->size, BYTES);
    assert_int_equal(record->seq, ++*(uint64_t *)arg);
    return NN_OK;
}

/* A group of records that goes to several files: the n-th operation has no room, once or until the disk has some. False:
 * there is no n-th one. */
static bool fill_up(enum test_disk_kind kind, long n, bool all, int error) {
    struct test_disk *disk = test_disk_new();
    struct nn_error err = {0};
    struct told told = {0};
    struct srv_journal_found found;
    uint64_t read = 0;
    struct srv_journal *journal = open_journal(test_disk_io(disk));
    assert_int_equal(srv_journal_begin(journal, 0, false, &err), NN_OK);
    for (int i = 0; i < RECORDS; i++) assert_int_equal(append(journal, &told, &err), NN_OK);
    test_disk_fail(disk, kind, n, error, all);
    bool failed = !srv_journal_commit(journal);
    if (failed) {
        struct api_store_status status = {0};
        assert_true(told.yes == 0 && told.no == 0);
        assert_int_equal(append(journal, &told, &err), NN_E_STORE);
        assert_non_null(strstr(err.text, strerror(error)));
        assert_int_equal(srv_journal_last(journal), RECORDS);
        srv_journal_status(journal, &status);
        assert_false(status.failed);
        assert_int_equal(status.waiting, RECORDS);
        if (all) assert_int_equal(srv_journal_wait(journal, RECORDS, &err), NN_E_STORE);
        if (all) assert_false(srv_journal_commit(journal));
    }
    test_disk_work(disk);
    assert_int_equal(srv_journal_commit(journal), failed);
    assert_true(told.yes == RECORDS && told.no == 0);
    assert_int_equal(append(journal, &told, &err), NN_OK);
    assert_int_equal(srv_journal_wait(journal, RECORDS + 1, &err), NN_OK);
    srv_journal_free(journal);
    journal = open_journal(test_disk_io(disk));
    assert_int_equal(srv_journal_read(journal, 0, RECORDS + 1, count_record, &read, &found, &err), NN_OK);
    assert_int_equal(read, RECORDS + 1);
    srv_journal_free(journal);
    assert_int_equal(test_disk_open_files(disk), 0);
    test_disk_free(disk);
    return failed;
}

static void what_was_appended_waits(void **state) {
    (void)state;
    static const enum test_disk_kind kinds[] = {TEST_DISK_WRITE, TEST_DISK_CREATE, TEST_DISK_RENAME};
    static const long least[] = {6, 1,
                                 2}; /* headers and records of three files; and the name of what was begun */
    for (size_t k = 0; k < 3; k++)
        for (int all = 0; all < 2; all++) {
            long n = 0;
            while (fill_up(kinds[k], n, all, n % 2 ? EDQUOT : ENOSPC)) n++;
            assert_true(n >= least[k]);
        }
}

static void note_failure(void *arg, const struct nn_error *err) { *(struct nn_error *)arg = *err; }

/* Of what a sync was to bring home nobody knows then what is there. */
static void a_sync_without_room_is_for_good(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    struct nn_error err = {0}, failure = {0};
    struct told told = {0};
    const struct srv_journal_options options = {SEGMENT, "here", note_failure, &failure};
    struct srv_journal *journal = srv_journal_new(test_disk_io(disk), &options, &err);
    assert_non_null(journal);
    assert_int_equal(srv_journal_begin(journal, 0, false, &err), NN_OK);
    assert_int_equal(append(journal, &told, &err), NN_OK);
    test_disk_fail(disk, TEST_DISK_SYNC, 1, ENOSPC, false);
    assert_true(srv_journal_commit(journal));
    assert_int_equal(told.no, 1);
    assert_int_equal(failure.code, NN_E_STORE);
    assert_int_equal(append(journal, &told, &err), NN_E_STORE);
    srv_journal_free(journal);
    test_disk_free(disk);
}

/* The thread tries again by itself, and at once for whoever waits. */
static void the_thread_tries_again(void **state) {
    (void)state;
    struct place place;
    struct nn_error err = {0};
    struct told told = {0};
    place_init(&place);
    struct srv_journal *journal = open_journal(&place.io);
    assert_int_equal(srv_journal_begin(journal, 0, false, &err), NN_OK);
    assert_int_equal(srv_journal_start(journal, &err), NN_OK);
    for (uint64_t i = 0; i < 3; i++) {
        atomic_store(&place.fail_write, ENOSPC);
        assert_int_equal(append(journal, &told, &err), NN_OK);
        assert_int_equal(srv_journal_wait(journal, i + 1, &err), NN_E_STORE);
        assert_int_equal(append(journal, &told, &err), NN_E_STORE);
        assert_int_equal(told.yes, i);
        atomic_store(&place.fail_write, 0);
        err = (struct nn_error){0};
        if (i == 1) assert_int_equal(srv_journal_wait(journal, i + 1, &err), NN_OK);
        while (told.yes == (int)i) continue;
    }
    atomic_store(&place.fail_write, ENOSPC);
    assert_int_equal(append(journal, &told, &err), NN_OK);
    srv_journal_free(journal); /* at the end of the process there is no more to wait for */
    assert_true(told.yes == 3 && told.no == 1);
    place_fini(&place);
}

/* --- what a client sees ---------------------------------------------------------------------------------- */

#define BATCH "'inputs': {'x': [[1, 2]]}, 'targets': {'y': [[3]]}"
#define STEP  "{'model': 'm', 'apply': true, " BATCH "}"

static const char model[] =
    "{'name': 'm', 'inputs': {'x': {'shape': [2]}}, 'layers': [{'op': 'linear',"
    " 'out_features': 1}], 'loss': {'op': 'mse'}, 'optimizer': {'op': 'sgd', 'lr': 0.1},"
    " 'durability': 'journal'%s}";

static char *quoted(const char *text) {
    char *body = strdup(text);
    assert_non_null(body);
    for (char *c = body; *c; c++)
        if (*c == '\'') *c = '"';
    return body;
}

static void send(struct test_service *service, struct test_pending *pending, const char *path,
                 const char *key, const char *text) {
    char *body = quoted(text);
    test_submit(
        service, pending,
        &(struct test_request){
            .method = "POST", .path = path, .idempotency_key = key, .body = body, .size = strlen(body)});
    free(body);
}

static void is_answered(struct test_pending *pending, int status, const char *says) {
    assert_true(atomic_load(&pending->done));
    struct test_answer answer = test_take(pending);
    if (answer.status != status || !strstr(answer.body, says)) fail_msg("%d: %s", answer.status, answer.body);
    test_answer_free(&answer);
}

static void start(struct test_stored *stored, struct test_disk *disk, const char *members) {
    struct nn_error err = {0};
    struct test_pending pending;
    char text[512];
    test_ok(test_stored_start(stored, disk, 0, NULL, &err), &err, "a start");
    snprintf(text, sizeof text, model, members);
    send(&stored->service, &pending, "/models", NULL, text);
    test_stored_settle(stored, &pending);
    is_answered(&pending, 201, "");
}

static json_int_t member(struct test_service *service, const char *name) {
    json_t *json = test_call(service, 200, "GET /models/m", NULL);
    json_int_t value = json_integer_value(json_object_get(json, name));
    json_decref(json);
    return value;
}

/* One change waits; those behind it are refused, and have changed nothing; readers go on. */
static void changes_are_refused_until_there_is_room(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    struct test_stored stored;
    struct nn_error err = {0};
    struct test_pending waiting, second, again;
    start(&stored, disk, "");
    test_disk_fail(disk, TEST_DISK_WRITE, 0, ENOSPC, true);
    send(&stored.service, &waiting, "/backward", "k0", STEP);
    assert_false(test_stored_settles(&stored, &waiting));
    for (int i = 0; i < 2; i++) {
        send(&stored.service, &second, "/backward", "k1", STEP);
        is_answered(&second, 503, "No space left on device");
    }
    assert_int_equal(member(&stored.service, "version"), 1); /* of the one that waits */
    assert_int_equal(member(&stored.service, "durable_version"), 0);
    test_do(&stored.service, 200, "GET /models/m/parameters", NULL);
    assert_int_equal(srv_store_checkpoint(stored.store, &err), NN_E_STORE);
    assert_false(atomic_load(&waiting.done));
    err = (struct nn_error){0};

    assert_true(test_disk_work(disk));
    test_stored_settle(&stored, &waiting);
    is_answered(&waiting, 200, "\"applied_version\":1");
    send(&stored.service, &second, "/backward", "k1", STEP); /* which was freed */
    test_stored_settle(&stored, &second);
    is_answered(&second, 200, "\"applied_version\":2");
    test_stored_stop(&stored);

    test_ok(test_stored_start(&stored, disk, 1, NULL, &err), &err, "a start");
    assert_int_equal(member(&stored.service, "version"), 2);
    send(&stored.service, &again, "/backward", "k0", STEP);
    test_stored_settle(&stored, &again);
    is_answered(&again, 200, "\"replayed\":true");
    test_stored_stop(&stored);
    test_disk_free(disk);
}

/* Both of a round wait for its record, and those of the next are refused. */
static void a_round_waits_too(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    struct test_stored stored;
    struct test_pending round[2], next[2];
    static const char *const steps[] = {"{'model': 'm', 'apply': true, 'worker': 'a', " BATCH "}",
                                        "{'model': 'm', 'apply': true, 'worker': 'b', " BATCH "}"};
    start(&stored, disk, ", 'aggregation': {'mode': 'sync', 'workers': 2}");
    test_disk_fail(disk, TEST_DISK_WRITE, 0, ENOSPC, true);
    for (int i = 0; i < 2; i++) send(&stored.service, &round[i], "/backward", NULL, steps[i]);
    assert_false(test_stored_settles(&stored, &round[0]));
    for (int i = 0; i < 2; i++) send(&stored.service, &next[i], "/backward", NULL, steps[i]);
    for (int i = 0; i < 2; i++) is_answered(&next[i], 503, "No space left on device");
    assert_false(atomic_load(&round[0].done) || atomic_load(&round[1].done));
    test_disk_work(disk);
    test_stored_settle(&stored, &round[0]);
    for (int i = 0; i < 2; i++) is_answered(&round[i], 200, "\"applied_version\":1");
    test_stored_stop(&stored);
    test_disk_free(disk);
}

/* A stop does not wait for room: whoever was not answered learns that the change may be gone. */
static void a_stop_says_what_waits(void **state) {
    (void)state;
    for (int room = 0; room < 2; room++) {
        struct test_disk *disk = test_disk_new();
        struct process process;
        struct test_pending pending;
        struct nn_error err = {0};
        process_start(&process, disk);
        process_create(&process, "m", "journal");
        process_steps(&process, "m", 2);
        test_disk_fail(disk, TEST_DISK_WRITE, 0, ENOSPC, true);
        send(&process.service, &pending, "/backward", NULL,
             "{'model': 'm', 'apply': true, 'inputs': {'x': [[1, 2, 3]]}, 'targets': {'y': [[0, 1]]}}");
        if (room) test_disk_work(disk);
        assert_int_equal(srv_store_finish(process.store, &err), room ? NN_OK : NN_E_STORE);
        if (!room) assert_non_null(strstr(err.text, "No space left on device"));
        srv_store_free(process.store);
        is_answered(&pending, room ? 200 : 503, room ? "" : "the change was made, but");
        test_service_stop(&process.service);

        test_disk_work(disk);
        process_start(&process, disk);
        assert_int_equal(strstr(process_said, "the stop was clean") != NULL, room);
        assert_in_range(process_version_of(&process, "m"), 2 + room, 3);
        process_end(&process, disk);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_appended_waits), cmocka_unit_test(a_sync_without_room_is_for_good),
        cmocka_unit_test(the_thread_tries_again),  cmocka_unit_test(changes_are_refused_until_there_is_room),
        cmocka_unit_test(a_round_waits_too),       cmocka_unit_test(a_stop_says_what_waits),
    };
    nn_blas_init();
    return cmocka_run_group_tests_name("full_disk", tests, NULL, NULL);
}
