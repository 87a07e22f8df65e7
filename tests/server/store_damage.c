/* Damaged files of a store, which are named, and made good where an older one can; and records that were written
 * elsewhere. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../../server/store/frame.h"
#include "../support/process.h"

static void spoil_at(struct test_disk *disk, const char *name, size_t at) {
    size_t size;
    unsigned char *bytes = test_disk_bytes(disk, name, &size);
    assert_non_null(bytes);
    bytes[at < size ? at : size / 2] ^= 0x40;
}

static void spoil(struct test_disk *disk, const char *name) { spoil_at(disk, name, SIZE_MAX); }

/* One file of each kind that went bad costs nothing that was journalled, and is named. */
static void a_damaged_file_is_named_and_made_good(void **state) {
    (void)state;
    static const char *const kinds[] = {"checkpoint-", "snapshot-m-", "snapshot-n-"};
    struct process_numbers m, n;
    struct test_disk *disk = process_life(&m, &n);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        for (int missing = 0; missing < 2; missing++)
            for (int back = 0; back < 2; back++) {
                struct process process;
                char name[128];
                struct test_disk *bad = process_copy_of(disk);
                process_newest_file(bad, kinds[i], back, name);
                if (missing)
                    test_disk_io(bad)->remove(test_disk_io(bad)->self, name);
                else
                    spoil(bad, name);
                process_start(&process, bad);
                process_is_as(&process, "m", &m);
                /* A checkpoint that is not there leaves no trace; what is not needed is not looked at. */
                bool seen = back == 0 ? !(missing && i == 0) : i == 0 && !missing;
                if (seen) assert_non_null(strstr(process_said, name));
                assert_int_equal(srv_store_damaged(process.store), seen);
                assert_int_equal(process_version_of(&process, "n"), back == 0 && i != 1 ? 3 : 5);
                process_checkpoint(&process);
                process_stop(&process);
                process_start(&process, bad);
                process_is_as(&process, "m", &m);
                assert_false(srv_store_damaged(process.store));
                process_stop(&process);
                test_disk_free(bad);
            }
    test_disk_free(disk);
}

/* Where one snapshot is kept of a model, the checkpoint before the newest has another. */
static void the_only_snapshot_has_one_behind_it(void **state) {
    (void)state;
    static const char *const models[] = {"m", "n", "again"};
    struct process_numbers numbers[3];
    struct process process;
    struct nn_error err;
    struct srv_store_options options = process_usual;
    options.snapshots = 1;
    struct test_disk *disk = test_disk_new();
    if (process_start_as(&process, disk, &options, false, &err)) fail_msg("%s", err.text);
    process_create(&process, "m", "journal");
    process_create(&process, "n", "snapshot");
    process_create(&process, "again", "journal");
    process_steps(&process, "n", 2);
    process_steps(&process, "again", 2);
    process_checkpoint(&process);
    process_look(&process, "n", &numbers[1]);
    test_do(&process.service, 200, "DELETE /models/again", NULL);
    process_create(&process, "again", "journal"); /* another one, under that name */
    for (int i = 0; i < 3; i++) process_steps(&process, models[i], 3);
    process_checkpoint(&process);
    process_steps(&process, "m", 3);
    process_steps(&process, "again", 3);
    process_look(&process, "m", &numbers[0]);
    process_look(&process, "again", &numbers[2]);
    process_stop(&process);

    for (int i = 0; i < 3; i++) {
        char prefix[32], name[128];
        struct test_disk *bad = process_copy_of(disk);
        snprintf(prefix, sizeof prefix, "snapshot-%s-", models[i]);
        process_newest_file(bad, prefix, 0, name);
        spoil(bad, name);
        if (process_start_as(&process, bad, &options, false, &err)) fail_msg("%s", err.text);
        assert_non_null(strstr(process_said, name));
        assert_true(srv_store_damaged(process.store));
        process_is_as(&process, models[i], &numbers[i]);
        process_is_as(&process, "m", &numbers[0]);
        process_stop(&process);
        test_disk_free(bad);
    }
    test_disk_free(disk);
}

static void a_model_without_a_good_snapshot_is_refused(void **state) {
    (void)state;
    struct process_numbers m, n;
    struct test_disk *disk = process_life(&m, &n);
    struct process process;
    char name[128];
    for (int back = 0; back < 2; back++) {
        process_newest_file(disk, "snapshot-n-", back, name);
        spoil(disk, name);
    }
    process_newest_file(disk, "snapshot-n-", 0, name);
    process_refuse(disk, name);
    process_accept(&process, disk);
    test_do(&process.service, 404, "GET /models/n", NULL);
    process_is_as(&process, "m", &m);
    process_stop(&process);
    process_start(&process, disk); /* it is over */
    process_is_as(&process, "m", &m);
    assert_false(srv_store_damaged(process.store));
    process_end(&process, disk);
}

/* A model that is new has all of its life in the journal still. */
static void a_new_model_comes_from_the_journal(void **state) {
    (void)state;
    struct process_numbers m, n, young;
    struct test_disk *disk = process_life(&m, &n);
    struct process process;
    char name[128];
    process_start(&process, disk);
    process_wait_for_checkpoints(&process, 1); /* which follows a crash by itself */
    process_create(&process, "young", "journal");
    process_steps(&process, "young", 3);
    process_checkpoint(&process);
    process_steps(&process, "young", 3);
    process_look(&process, "young", &young);
    process_stop(&process);
    process_newest_file(disk, "snapshot-young-", 0, name);
    spoil(disk, name);
    process_start(&process, disk);
    process_is_as(&process, "young", &young);
    process_is_as(&process, "m", &m);
    assert_non_null(strstr(process_said, name));
    process_end(&process, disk);
}

/* A disk that does not open one file now. */
static char shut[128];

static int open_others(void *self, const char *name) {
    struct test_disk *disk = self;
    return strcmp(name, shut) == 0 ? -EACCES : test_disk_io(disk)->open(self, name);
}

/* What cannot be read now may be good: to go on from an older one would throw it away. */
static void a_file_that_may_not_be_read_is_not_damaged(void **state) {
    (void)state;
    static const char *const kinds[] = {"checkpoint-", "snapshot-n-", "keys-", "journal-"};
    struct process_numbers m, n;
    struct test_disk *disk = process_life(&m, &n);
    struct process process;
    struct nn_error err;
    struct srv_io io = *test_disk_io(disk);
    io.open = open_others;
    process_start(&process, disk);
    json_decref(test_ask(&process.service, 200, "POST /backward",
                         &(struct test_request){.idempotency_key = "k"},
                         "{'model': 'n', 'apply': true, 'inputs': {'x': [[1, 2, 3]]}, 'targets': "
                         "{'y': [[0, 1]]}}"));
    process_finish(&process);
    size_t before = test_disk_operations(disk);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct srv_store_options options = process_usual;
        options.accept_loss = true; /* it is none */
        process_newest_file(disk, kinds[i], 0, shut);
        process.store = srv_store_new(&io, &options, &(struct nn_error){0});
        if (process.store) {
            srv_store_free(process.store);
            assert_int_equal(process_start_on(&process, &io, &options, false, &err), NN_E_STORE);
            assert_non_null(strstr(err.text, shut));
            process_stop(&process);
        }
        assert_int_equal(test_disk_operations(disk), before);
    }
    process_start(&process, disk);
    assert_int_equal(process_version_of(&process, "n"), 6);
    assert_non_null(strstr(process_said, "the stop was clean"));
    process_stop(&process);
    test_disk_free(disk);
}

static void without_a_checkpoint_nothing_is_thrown_away(void **state) {
    (void)state;
    struct process_numbers m, n;
    struct test_disk *disk = process_life(&m, &n);
    struct process process;
    struct nn_error err;
    struct srv_store_options options = process_usual;
    char name[128];
    options.accept_loss = true;
    for (int back = 0; back < 2; back++) {
        process_newest_file(disk, "checkpoint-", back, name);
        spoil(disk, name);
    }
    process_refuse(disk, "checkpoint-");
    size_t before = test_disk_operations(disk);
    assert_int_equal(process_start_as(&process, disk, &options, false, &err), NN_E_CORRUPT);
    assert_int_equal(test_disk_operations(disk), before);
    process_end(&process, disk);
}

/* The byte at which record `seq` begins in the file that has it. */
static size_t find_record(const struct test_disk *disk, uint64_t seq, char name[128]) {
    struct process_files files = process_files_of(disk);
    for (size_t i = 0; i < files.n; i++) {
        size_t size;
        if (strncmp(files.names[i], "journal-", 8) != 0) continue;
        const unsigned char *bytes =
            test_disk_bytes((struct test_disk *)(uintptr_t)disk, files.names[i], &size);
        struct srv_journal_header header;
        memcpy(&header, bytes, sizeof header);
        for (size_t at = SRV_JOURNAL_HEADER; at + sizeof(struct srv_frame) <= size;) {
            struct srv_frame frame;
            memcpy(&frame, bytes + at, sizeof frame);
            if (!srv_frame_good(&frame, header.salt)) break;
            if (frame.seq == seq) {
                snprintf(name, 128, "%s", files.names[i]);
                return at;
            }
            at += srv_frame_room(frame.size);
        }
    }
    fail_msg("no record %d", (int)seq);
    return 0;
}

static void a_damaged_record_is_refused(void **state) {
    (void)state;
    struct process_numbers m, n;
    struct process process;
    struct test_disk *disk = process_life(&m, &n);
    struct nn_error err;
    if (process_start_as(&process, disk, &process_usual, true, &err)) fail_msg("%s", err.text);
    uint64_t last = srv_store_api(process.store)->last(srv_store_api(process.store)->self);
    json_int_t version = process_version_of(&process, "m");
    process_stop(&process);
    char name[128], where[192];
    size_t at = find_record(disk, last - 2, name);
    spoil_at(disk, name, at + sizeof(struct srv_frame) + 5);
    snprintf(where, sizeof where, "%s is damaged at byte %zu: record %d", name, at, (int)last - 2);
    process_refuse(disk, where);
    process_accept(&process, disk);
    assert_int_equal(process_version_of(&process, "m"), version - 3);
    process_steps(&process, "m", 1);
    process_survives(&process, disk);
    process_end(&process, disk);
}

#define KEYED_STEP "{'model': 'm', 'apply': true, 'inputs': {'x': [[1, 2, 3]]}, 'targets': {'y': [[0, 1]]}}"

static json_t *keyed_step(struct process *process) {
    return test_ask(&process->service, 200, "POST /backward", &(struct test_request){.idempotency_key = "k"},
                    KEYED_STEP);
}

/* Three checkpoints of a model, the last of them with a key; of its snapshots the newest `spoilt` are damaged. `young`,
 * unless it is NULL: another one then had its name, and these numbers. */
static struct test_disk *three_checkpoints(int spoilt, struct process_numbers *young) {
    struct test_disk *disk = test_disk_new();
    struct process process;
    struct nn_error err;
    struct srv_store_options options = process_usual;
    char name[128];
    options.snapshots = 3;
    if (process_start_as(&process, disk, &options, false, &err)) fail_msg("%s", err.text);
    process_create(&process, "m", "journal");
    for (int i = 0; i < 3; i++) {
        process_steps(&process, "m", 20);
        if (i == 2) json_decref(keyed_step(&process));
        process_checkpoint(&process);
    }
    process_steps(&process, "m", 1);
    if (young) {
        test_do(&process.service, 200, "DELETE /models/m", NULL);
        process_create(&process, "m", "journal");
        process_steps(&process, "m", 2);
        process_look(&process, "m", young);
    }
    process_stop(&process);
    for (int back = 0; back < spoilt; back++) {
        process_newest_file(disk, "snapshot-m-", back, name);
        spoil(disk, name);
    }
    return disk;
}

/* A model that stays behind, as records are missing that its last good snapshot needs, or of which nothing is left: the
 * keys of what it has lost are free. */
static void keys_of_what_is_gone(void **state) {
    (void)state;
    for (int spoilt = 2; spoilt <= 3; spoilt++) {
        struct process process;
        struct test_disk *disk = three_checkpoints(spoilt, NULL);
        process_refuse(disk, "snapshot-m-");
        process_accept(&process, disk);
        if (spoilt == 3) process_create(&process, "m", "journal");
        json_int_t version = process_version_of(&process, "m");
        assert_int_equal(version, spoilt == 3 ? 0 : 20);
        json_t *answer = keyed_step(&process);
        assert_null(json_object_get(answer, "replayed"));
        assert_int_equal(json_integer_value(json_object_get(answer, "applied_version")), version + 1);
        json_decref(answer);
        process_end(&process, disk);
    }
}

/* And with its deletion it ends: who takes the name then is whole. */
static void a_name_taken_anew_is_whole(void **state) {
    (void)state;
    struct process process;
    struct process_numbers young;
    struct test_disk *disk = three_checkpoints(2, &young);
    process_refuse(disk, "snapshot-m-");
    process_accept(&process, disk);
    process_is_as(&process, "m", &young);
    process_end(&process, disk);
}

static void step_meanwhile(void *arg, const char *name) {
    if (strncmp(name, "snapshot-n-", 11) == 0) json_decref(keyed_step(arg));
}

/* A change that came while a checkpoint was taken: its key is in the checkpoint, and itself in the journal alone. */
static void a_key_goes_with_its_record(void **state) {
    (void)state;
    struct process_numbers m, n;
    struct test_disk *disk = process_life(&m, &n);
    struct process process;
    char name[128];
    process_start(&process, disk);
    process_wait_for_checkpoints(&process, 1);
    process_steps(&process, "n", 1);
    test_disk_on_create(disk, step_meanwhile, &process);
    process_checkpoint(&process);
    test_disk_on_create(disk, NULL, NULL);
    uint64_t last = srv_store_api(process.store)->last(srv_store_api(process.store)->self);
    json_int_t version = process_version_of(&process, "m");
    process_stop(&process);

    struct test_disk *whole = process_copy_of(disk);
    process_start(&process, whole);
    json_t *answer = keyed_step(&process);
    assert_true(json_is_true(json_object_get(answer, "replayed")));
    json_decref(answer);
    process_end(&process, whole);

    size_t at = find_record(disk, last, name);
    spoil_at(disk, name, at + sizeof(struct srv_frame) + 5);
    process_accept(&process, disk);
    assert_int_equal(process_version_of(&process, "m"), version - 1);
    answer = keyed_step(&process);
    assert_null(json_object_get(answer, "replayed"));
    assert_int_equal(json_integer_value(json_object_get(answer, "applied_version")), version);
    json_decref(answer);
    process_end(&process, disk);
}

/* A disk that cannot read one sector of a file any more. */
static struct {
    char name[128];
    uint64_t sector;
    bool open[256];
} bad_sector;

static int open_and_note(void *self, const char *name) {
    struct test_disk *disk = self;
    int file = test_disk_io(disk)->open(self, name);
    if (file >= 0) bad_sector.open[file] = strcmp(name, bad_sector.name) == 0;
    return file;
}

static int64_t read_good_sectors(void *self, int file, void *buffer, size_t size, uint64_t offset) {
    struct test_disk *disk = self;
    uint64_t begin = bad_sector.sector * 512;
    if (bad_sector.open[file] && offset < begin + 512 && offset + size > begin) return -EIO;
    return test_disk_io(disk)->read(self, file, buffer, size, offset);
}

/* It is as bad as one with other bytes in it: where a record is that had been durable, the start is refused, and where
 * there was none, nothing is lost. */
static void a_sector_that_cannot_be_read(void **state) {
    (void)state;
    struct process_numbers m, n;
    struct process process;
    struct nn_error err;
    struct test_disk *disk = process_life(&m, &n);
    struct srv_io io = *test_disk_io(disk);
    io.open = open_and_note;
    io.read = read_good_sectors;
    if (process_start_as(&process, disk, &process_usual, true, &err)) fail_msg("%s", err.text);
    uint64_t last = srv_store_api(process.store)->last(srv_store_api(process.store)->self);
    process_stop(&process);
    bad_sector.sector = find_record(disk, last - 2, bad_sector.name) / 512;
    assert_int_equal(process_start_on(&process, &io, &process_usual, false, &err), NN_E_CORRUPT);
    assert_non_null(strstr(err.text, bad_sector.name));
    process_stop(&process);
    bad_sector.sector =
        find_record(disk, last, bad_sector.name) / 512; /* of which nothing says that it was durable */
    assert_int_equal(process_start_on(&process, &io, &process_usual, false, &err), NN_E_CORRUPT);
    process_stop(&process);
    bad_sector.sector += 2;
    if (process_start_on(&process, &io, &process_usual, false, &err)) fail_msg("%s", err.text);
    process_is_as(&process, "m", &m);
    process_end(&process, disk);
}

/* As if all of it had been written elsewhere. */
static void move_to_another_machine(struct test_disk *disk) {
    struct process_files files = process_files_of(disk);
    for (size_t i = 0; i < files.n; i++) {
        size_t size;
        unsigned char *bytes = test_disk_bytes(disk, files.names[i], &size);
        struct srv_journal_header header;
        if (strncmp(files.names[i], "journal-", 8) != 0) continue;
        memcpy(&header, bytes, sizeof header);
        srv_journal_header_init(&header, header.first, header.salt, header.size, "another machine");
        memcpy(bytes, &header, sizeof header);
    }
}

/* Records of another build are replayed by who says so alone. */
static void other_numbers_are_not_replayed_unasked(void **state) {
    (void)state;
    struct process_numbers m, n;
    struct process process;
    struct nn_error err;
    struct test_disk *disk = process_life(&m, &n), *other = process_copy_of(disk);
    move_to_another_machine(disk);
    move_to_another_machine(other);
    process_refuse(disk, "written by another build");
    struct srv_store_options options = process_usual;
    options.other_numbers = true;
    if (process_start_as(&process, disk, &options, false, &err)) fail_msg("%s", err.text);
    process_is_as(&process, "m", &m);
    process_end(&process, disk);

    process_accept(&process, other);
    assert_int_equal(process_version_of(&process, "m"), 7);
    process_stop(&process);
    process_start(&process, other); /* it is over */
    assert_int_equal(process_version_of(&process, "m"), 7);
    assert_false(srv_store_damaged(process.store));
    process_steps(&process, "m", 1);
    process_look(&process, "m", &m);
    process_stop(&process);
    process_start(&process, other);
    process_is_as(&process, "m", &m);
    process_stop(&process);
    test_disk_free(other);
}

/* What the snapshots have is not carried out again, and so may have been written anywhere. */
static void other_numbers_that_snapshots_have_are_no_matter(void **state) {
    (void)state;
    struct process process;
    struct srv_io io;
    struct process_numbers m;
    struct test_disk *disk = test_disk_new();
    process_start_amid_changes(&process, disk, &io);
    process_create(&process, "a", "snapshot");
    process_create(&process, "m", "journal");
    process_create(&process, "gone", "journal");
    process_checkpoint_amid_changes(&process);
    process_look(&process, "m", &m);
    process_stop(&process);
    struct test_disk *later = process_copy_of(disk);
    move_to_another_machine(disk);
    process_start(&process, disk);
    assert_non_null(strstr(process_said, "records behind it: 3"));
    assert_false(srv_store_damaged(process.store));
    process_is_as(&process, "m", &m);
    process_steps(&process, "m", 1);
    process_survives(&process, disk);
    process_end(&process, disk);

    /* The first change that they lack is one too many, whichever model's it is. */
    process_start(&process, later);
    process_wait_for_checkpoints(&process, 1); /* which follows a crash by itself */
    test_do(&process.service, 200, "DELETE /models/a", NULL);
    process_stop(&process);
    move_to_another_machine(later);
    process_refuse(later, "written by another build");
    test_disk_free(later);
}

static void verify_changes_nothing(void **state) {
    (void)state;
    struct process_numbers m, n;
    struct process process;
    struct nn_error err;
    struct test_disk *disk = process_life(&m, &n);
    size_t before = test_disk_operations(disk);
    if (process_start_as(&process, disk, &process_usual, true, &err)) fail_msg("%s", err.text);
    process_is_as(&process, "m", &m);
    assert_false(srv_store_damaged(process.store));
    process_stop(&process);
    assert_int_equal(test_disk_operations(disk), before);
    test_disk_free(disk);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_damaged_file_is_named_and_made_good),
        cmocka_unit_test(the_only_snapshot_has_one_behind_it),
        cmocka_unit_test(a_model_without_a_good_snapshot_is_refused),
        cmocka_unit_test(a_new_model_comes_from_the_journal),
        cmocka_unit_test(a_file_that_may_not_be_read_is_not_damaged),
        cmocka_unit_test(without_a_checkpoint_nothing_is_thrown_away),
        cmocka_unit_test(a_damaged_record_is_refused),
        cmocka_unit_test(keys_of_what_is_gone),
        cmocka_unit_test(a_name_taken_anew_is_whole),
        cmocka_unit_test(a_sector_that_cannot_be_read),
        cmocka_unit_test(a_key_goes_with_its_record),
        cmocka_unit_test(other_numbers_are_not_replayed_unasked),
        cmocka_unit_test(other_numbers_that_snapshots_have_are_no_matter),
        cmocka_unit_test(verify_changes_nothing),
    };
    return cmocka_run_group_tests_name("store_damage", tests, NULL, NULL);
}
