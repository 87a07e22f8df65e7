/* The store, with the real service on it: what comes back after a crash and after a clean stop, when checkpoints are
 * taken, and disks that fail. What is damaged is in store_damage.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../support/process.h"

static void what_was_answered_survives_a_crash(void **state) {
    (void)state;
    struct process_numbers m, n;
    struct process process;
    struct test_disk *disk = process_life(&m, &n);
    process_start(&process, disk);
    process_is_as(&process, "m", &m);
    process_is_as(&process, "n", &n);
    assert_non_null(strstr(process_said, "recovered from checkpoint 2: models: 2, records behind it: 5"));
    process_steps(&process, "m", 1);
    process_survives(&process, disk);
    process_end(&process, disk);
}

/* A disk under which somebody asks for a change whenever names are synced. */
static struct process *to_ask;
static int asked;

static int sync_amid_requests(void *self) {
    struct test_disk *disk = self;
    test_do(&to_ask->service, 503, "GET /readyz", NULL);
    test_do(&to_ask->service, 200, "GET /healthz", NULL);
    process_step(to_ask, 503, "m");
    asked++;
    return test_disk_io(disk)->sync_directory(disk);
}

/* The journal that a start has read is not one that can be appended to, until the start is over. */
static void nobody_is_served_before_changes_can_be_stored(void **state) {
    (void)state;
    struct process_numbers m, n;
    struct nn_error err;
    struct process process;
    struct test_disk *disk = process_life(&m, &n);
    struct srv_io io = *test_disk_io(disk);
    struct srv_store_options options = process_usual;
    options.threads = false;
    io.sync_directory = sync_amid_requests;
    to_ask = &process;
    if (process_start_on(&process, &io, &options, false, &err)) fail_msg("%s", err.text);
    assert_true(asked > 0);
    process_is_as(&process, "m", &m);
    process_stop(&process);
    process_start(&process, disk);
    process_is_as(&process, "m", &m);
    process_end(&process, disk);
}

static void a_clean_stop_keeps_the_incarnation(void **state) {
    (void)state;
    struct process_numbers m, n;
    struct process process;
    char before[32], after[32];
    struct test_disk *disk = process_life(&m, &n);
    process_start(&process, disk);
    process_steps(&process, "n", 2);
    process_incarnation_of(&process, "n", before);
    process_look(&process, "n", &n);
    process_finish(&process);
    assert_int_equal(process_count_files(disk, "clean-"), 1);

    for (int i = 0; i < 2; i++) { /* and so does one at which there is nothing to write */
        process_start(&process, disk);
        assert_int_equal(process_count_files(disk, "clean-"), 0);
        process_incarnation_of(&process, "n", after);
        assert_string_equal(after, before);
        process_is_as(&process, "n", &n);
        assert_non_null(strstr(process_said, "the stop was clean"));
        process_finish(&process);
    }
    /* Changes that nothing tells of, and a crash: whoever saw them must see that they are gone. */
    process_start(&process, disk);
    process_step(&process, 200, "n");
    process_stop(&process);
    process_start(&process, disk);
    process_incarnation_of(&process, "n", after);
    assert_string_not_equal(after, before);
    process_is_as(&process, "n", &n);
    process_end(&process, disk);
}

#define WIDE       200
#define WIDE_BYTES ((size_t)(WIDE + 1) * WIDE * 4) /* of parameters */

static void create_wide(struct process *process, const char *name, const char *members) {
    json_decref(test_ask(&process->service, 201, "POST /models", NULL,
                         "{'name': '%s', %s, 'inputs': {'x': {'shape': [%d]}}, 'layers': [{'op': 'linear', "
                         "'out_features': %d}]}",
                         name, members, WIDE, WIDE));
}

/* What the last snapshot of a model says was told by the process before: it is not to pass for what this one tells
 * because there was no memory for another at first. */
static void a_model_without_room_is_no_better_known(void **state) {
    (void)state;
    struct process process;
    struct nn_error err = {0};
    char lost[32], before[32], after[32];
    struct test_disk *disk = test_disk_new();
    process_start(&process, disk);
    create_wide(&process, "n",
                "'durability': 'snapshot', 'optimizer': {'op': 'sgd', 'lr': 0.1, 'momentum': 0.9}");
    process_checkpoint(&process);
    process_incarnation_of(&process, "n", lost);
    process_memory = api_memory_in_use(process.service.api) + 2 * WIDE_BYTES; /* a snapshot copies one */
    process_stop(&process);

    process_start(&process, disk);
    process_incarnation_of(&process, "n", before);
    assert_string_not_equal(before, lost);
    create_wide(&process, "in-the-way", "'durability': 'none'");
    assert_int_equal(srv_store_checkpoint(process.store, &err), NN_E_BUSY);
    test_do(&process.service, 200, "DELETE /models/in-the-way", NULL);
    process_finish(&process);

    process_start(&process, disk);
    assert_non_null(strstr(process_said, "the stop was clean"));
    process_incarnation_of(&process, "n", after);
    assert_string_equal(after, before);
    process_memory = 0;
    process_end(&process, disk);
}

/* A copy for which there is no memory may wait for the next checkpoint, and no longer; and a stop has no next one. */
static void a_model_is_not_missed_for_ever(void **state) {
    (void)state;
    for (int stop = 0; stop < 2; stop++) {
        struct process process;
        struct nn_error err = {0};
        struct test_disk *disk = test_disk_new();
        process_start(&process, disk);
        create_wide(&process, "n",
                    "'durability': 'snapshot', 'optimizer': {'op': 'sgd', 'lr': 0.1, 'momentum': 0.9}");
        process_memory = api_memory_in_use(process.service.api) + WIDE_BYTES + WIDE_BYTES / 2;
        process_finish(&process);

        process_start(&process, disk);
        test_do(&process.service, 200, "PATCH /models/n", "{\"max_staleness\": 3}");
        create_wide(&process, "in-the-way", "'durability': 'none'");
        if (!stop) assert_int_equal(srv_store_checkpoint(process.store, &err), NN_E_BUSY);
        if (!stop) process_checkpoint(&process);
        api_set_draining(process.service.api, stop);
        process_finish(&process);

        process_start(&process, disk);
        assert_non_null(strstr(process_said, "the stop was clean"));
        process_memory = 0;
        process_end(&process, disk);
    }
}

static void a_stop_right_behind_a_checkpoint_is_clean(void **state) {
    (void)state;
    struct process process;
    struct process_numbers m;
    char before[32], after[32];
    struct test_disk *disk = test_disk_new();
    struct srv_io io;
    process_start_amid_changes(&process, disk, &io);
    process_create(&process, "a", "snapshot");
    process_create(&process, "m", "journal");
    process_checkpoint_amid_changes(&process);
    process_incarnation_of(&process, "m", before);
    process_look(&process, "m", &m);
    process_finish(&process);

    process_start(&process, disk);
    assert_non_null(strstr(process_said, "the stop was clean"));
    process_incarnation_of(&process, "m", after);
    assert_string_equal(after, before);
    process_is_as(&process, "m", &m);
    process_end(&process, disk);
}

/* Its size. */
static int read_it(void *arg, struct api_source *source, struct nn_error *err) {
    uint64_t *size = arg;
    char bytes[100];
    *size = source->size;
    while (source->size > 0) {
        size_t piece = source->size < sizeof bytes ? (size_t)source->size : sizeof bytes;
        if (source->read(source, bytes, piece, err)) return (int)err->code;
    }
    return NN_OK;
}

static void what_nobody_needs_is_removed(void **state) {
    (void)state;
    struct process process;
    struct nn_error err = {0};
    struct test_disk *disk = test_disk_new();
    process_start(&process, disk);
    process_create(&process, "m", "journal");
    process_create(&process, "idle", "journal");
    for (int i = 0; i < 10; i++) {
        process_steps(&process, "m", 6);
        process_checkpoint(&process);
    }
    assert_int_equal(process_count_files(disk, "checkpoint-"), 2);
    assert_int_equal(process_count_files(disk, "snapshot-idle-"), 1); /* it has not changed */
    assert_int_equal(process_count_files(disk, "snapshot-m-"),
                     3); /* two, and the older checkpoint's second */
    assert_in_range(process_count_files(disk, "journal-"), 1, 4);
    assert_int_equal(process_count_files(disk, ""), process_files_of(disk).n);

    char birth[32];
    const struct api_store *store = srv_store_api(process.store);
    struct api_stored stored[4];
    process_incarnation_of(&process, "m", birth); /* it is its first */
    assert_int_equal(store->list(store->self, "m", birth, stored, 4), 2);
    assert_int_equal(stored[0].version, 60);
    assert_int_equal(stored[1].version, 54);
    for (int i = 0; i < 3; i++) {
        int64_t version = i == 2 ? -1 : (int64_t)stored[i].version;
        uint64_t size = 0;
        assert_int_equal(store->read(store->self, "m", birth, version, read_it, &size, &err), NN_OK);
        assert_true(size > 1000);
    }
    assert_int_equal(store->read(store->self, "m", birth, 48, read_it, NULL, &err), NN_E_NOT_FOUND);
    test_do(&process.service, 200, "DELETE /models/m", NULL);
    process_checkpoint(&process);
    process_checkpoint(&process);
    assert_int_equal(process_count_files(disk, "snapshot-m-"), 0);
    process_stop(&process);

    process_start(&process, disk);
    assert_int_equal(process_version_of(&process, "idle"), 0);
    test_do(&process.service, 404, "GET /models/m", NULL);
    process_end(&process, disk);
}

static json_t *restore(struct process *process, int status, const char *which) {
    return test_ask(&process->service, status, "POST /models/m/restore", NULL, "%s", which);
}

static size_t count_snapshots(struct process *process) {
    json_t *json = test_call(&process->service, 200, "GET /models/m", NULL);
    size_t n = json_array_size(json_object_get(json, "snapshots"));
    json_decref(json);
    return n;
}

/* Whoever has the name of a model that is gone has none of its snapshots, a start or not; and keeps its own over one. */
static void snapshots_are_of_a_model_and_not_of_its_name(void **state) {
    (void)state;
    struct process process;
    struct test_disk *disk = test_disk_new();
    process_start(&process, disk);
    process_create(&process, "m", "journal");
    process_steps(&process, "m", 2);
    process_checkpoint(&process);
    assert_int_equal(count_snapshots(&process), 1);
    test_do(&process.service, 200, "DELETE /models/m", NULL);
    process_create(&process, "m", "journal");
    for (int starts = 0; starts < 2; starts++) {
        assert_int_equal(count_snapshots(&process), 0);
        json_decref(restore(&process, 404, "{'version': 2}"));
        json_t *problem = restore(&process, 404, "{}");
        assert_string_equal(json_string_value(json_object_get(problem, "detail")),
                            "there is no snapshot of \"m\" yet");
        json_decref(problem);
        if (starts) break;
        process_stop(&process);
        struct nn_error err;
        struct srv_store_options options = process_usual;
        options.threads = false; /* which would take a checkpoint at once */
        if (process_start_as(&process, disk, &options, false, &err)) fail_msg("%s", err.text);
    }
    process_checkpoint(&process);
    process_stop(&process);
    process_start(&process, disk);
    assert_int_equal(count_snapshots(&process), 1);
    process_steps(&process, "m", 3);
    json_decref(restore(&process, 200, "{}"));
    assert_int_equal(process_version_of(&process, "m"), 0);
    process_end(&process, disk);
}

/* --- disks that fail ---------------------------------------------------------------------------------------- */

/* Whatever fails of a checkpoint: what it left goes, changes are taken, and the next one is well. */
static void a_checkpoint_that_fails_harms_nothing(void **state) {
    (void)state;
    static const enum test_disk_kind kinds[] = {TEST_DISK_CREATE, TEST_DISK_WRITE, TEST_DISK_SYNC,
                                                TEST_DISK_RENAME, TEST_DISK_SYNC_DIRECTORY};
    struct test_disk *disk = test_disk_new();
    struct process process;
    process_start(&process, disk);
    process_create(&process, "m", "journal");
    process_create(&process, "n", "snapshot");
    process_checkpoint(&process);
    int failures = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        bool failed = true;
        for (int nth = 0; failed; nth++) {
            struct nn_error err = {0};
            process_step(&process, 200, "n");
            process_step(&process, 200, "m");
            test_disk_fail(disk, kinds[i], nth, ENOSPC, false);
            int code = srv_store_checkpoint(process.store, &err);
            failed = test_disk_work(disk);
            if (code) {
                failures++;
                assert_int_equal(code, NN_E_STORE);
                assert_non_null(strstr(err.text, "No space left"));
            }
            assert_int_equal(process_count_files(disk, "snapshot-n-") <= 4, 1);
            process_step(&process, 200, "m");
            process_checkpoint(&process);
        }
    }
    assert_true(failures >= 12);
    struct process_files files = process_files_of(disk);
    for (size_t i = 0; i < files.n; i++) assert_null(strchr(files.names[i], '~'));
    process_survives(&process, disk);
    assert_false(srv_store_damaged(process.store));
    process_end(&process, disk);
}

static void a_journal_that_fails_refuses_changes(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    struct process process;
    struct nn_error err = {0};
    process_start(&process, disk);
    process_create(&process, "m", "journal");
    process_create(&process, "free", "none");
    process_steps(&process, "m", 3);
    process_checkpoint(&process);
    process_steps(&process, "m", 3);
    test_disk_fail(disk, TEST_DISK_SYNC, 0, EIO, true);
    process_step(&process, 503, "m");
    test_disk_work(disk);
    process_step(&process, 503, "m"); /* for good */
    assert_non_null(strstr(process_said, "the store has failed"));
    assert_non_null(strstr(process_said, "Input/output error"));
    test_do(&process.service, 200, "GET /models/m/parameters", NULL);
    process_step(&process, 200, "free");
    assert_int_equal(srv_store_checkpoint(process.store, &err), NN_E_STORE);
    assert_int_equal(srv_store_finish(process.store, &err), NN_E_STORE);
    process_stop(&process);

    process_start(&process, disk);
    assert_in_range(process_version_of(&process, "m"), 6, 7); /* of the one that failed nobody knows */
    process_steps(&process, "m", 2);
    process_survives(&process, disk);
    process_end(&process, disk);
}

static void a_full_disk_refuses_changes_until_there_is_room(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    struct process process;
    process_start(&process, disk);
    process_create(&process, "m", "journal");
    test_disk_fail(disk, TEST_DISK_RESERVE, 0, ENOSPC, true);
    int taken = 0, status = 200;
    for (; status == 200 && taken < 100; taken++) {
        json_t *json =
            test_ask(&process.service, 0, "POST /backward", NULL,
                     "{'model': 'm', 'apply': true, 'inputs': {'x': [[1, 2, 3]]}, 'targets': {'y': [[0, "
                     "1]]}}");
        const json_t *problem = json_object_get(json, "status");
        if (problem) status = (int)json_integer_value(problem);
        json_decref(json);
    }
    assert_int_equal(status, 503);
    json_int_t version = process_version_of(&process, "m");
    assert_int_equal(version, taken - 1); /* refused is not made */
    test_disk_work(disk);
    process_steps(&process, "m", 2);
    assert_int_equal(process_version_of(&process, "m"), version + 2);
    process_survives(&process, disk);
    process_end(&process, disk);
}

/* --- when checkpoints are taken ------------------------------------------------------------------------------ */

static void checkpoints_come_by_bytes_by_time_and_when_wanted(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    struct process process;
    struct nn_error err;
    struct srv_store_options options = process_usual;
    options.checkpoint_bytes = 2000;
    if (process_start_as(&process, disk, &options, false, &err)) fail_msg("%s", err.text);
    process_create(&process, "m", "journal");
    process_steps(&process, "m", 20);
    process_wait_for_checkpoints(&process, 1);
    process_stop(&process);

    process_start(&process, disk);
    srv_store_api(process.store)->want_checkpoint(srv_store_api(process.store)->self);
    process_wait_for_checkpoints(&process, 1);
    process_stop(&process);

    options = process_usual;
    options.checkpoint_ms = 1;
    if (process_start_as(&process, disk, &options, false, &err)) fail_msg("%s", err.text);
    process_steps(&process, "m", 1);
    process_wait_for_checkpoints(&process, 1);
    process_end(&process, disk);
}

/* Whether a keyed step of "m" was made before. */
static bool is_repeated(struct process *process) {
    json_t *json =
        test_ask(&process->service, 200, "POST /backward", &(struct test_request){.idempotency_key = "k"},
                 "{'model': 'm', 'apply': true, 'inputs': {'x': [[1, 2, 3]]}, 'targets': {'y': [[0, 1]]}}");
    bool replayed = json_is_true(json_object_get(json, "replayed"));
    json_decref(json);
    return replayed;
}

/* Though nothing else has happened since the last checkpoint. */
static void a_clean_stop_tells_how_old_keys_are(void **state) {
    (void)state;
    const int64_t ttl = api_default_limits.key_ttl_ms;
    for (int64_t left = 1; left >= 0; left--) {
        struct test_disk *disk = test_disk_new();
        struct process process;
        process_start(&process, disk);
        process_create(&process, "m", "journal");
        assert_false(is_repeated(&process));
        process_checkpoint(&process);
        atomic_fetch_add(&process.service.now_ms, ttl - 10);
        process_finish(&process);
        process_start(&process, disk);
        atomic_fetch_add(&process.service.now_ms, 10 - left);
        assert_int_equal(is_repeated(&process), left);
        process_end(&process, disk);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_answered_survives_a_crash),
        cmocka_unit_test(nobody_is_served_before_changes_can_be_stored),
        cmocka_unit_test(a_clean_stop_keeps_the_incarnation),
        cmocka_unit_test(a_clean_stop_tells_how_old_keys_are),
        cmocka_unit_test(a_model_without_room_is_no_better_known),
        cmocka_unit_test(a_model_is_not_missed_for_ever),
        cmocka_unit_test(a_stop_right_behind_a_checkpoint_is_clean),
        cmocka_unit_test(what_nobody_needs_is_removed),
        cmocka_unit_test(snapshots_are_of_a_model_and_not_of_its_name),
        cmocka_unit_test(a_checkpoint_that_fails_harms_nothing),
        cmocka_unit_test(a_journal_that_fails_refuses_changes),
        cmocka_unit_test(a_full_disk_refuses_changes_until_there_is_room),
        cmocka_unit_test(checkpoints_come_by_bytes_by_time_and_when_wanted),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
