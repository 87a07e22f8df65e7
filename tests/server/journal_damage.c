/* The newest file of a journal, cut off or gone: damage where that can be proved, to a start and to verify alike; and what
 * other releases wrote. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <string.h>
#include <xxhash.h>
#include <cmocka.h>

#include "../../server/store/frame.h"
#include "../support/process.h"

enum { CHANGES = 50 };

/* Changes that were all told durable, then a crash; with a checkpoint after the first so many, unless that is 0. */
static struct test_disk *fifty_changes(uint64_t segment_bytes, int checkpoint) {
    struct test_disk *disk = test_disk_new();
    struct process process;
    struct nn_error err;
    struct srv_store_options options = process_usual;
    options.segment_bytes = segment_bytes;
    if (process_start_as(&process, disk, &options, false, &err)) fail_msg("%s", err.text);
    process_create(&process, "m", "journal");
    process_steps(&process, "m", checkpoint);
    if (checkpoint) process_checkpoint(&process);
    process_steps(&process, "m", CHANGES - checkpoint);
    process_stop(&process);
    return disk;
}

static void take_away(struct test_disk *disk, const char *name) {
    assert_int_equal(test_disk_io(disk)->remove(test_disk_io(disk)->self, name), 0);
}

static bool verify_says_good(struct test_disk *disk) {
    struct process process;
    struct nn_error err;
    struct srv_store_options options = process_usual;
    options.accept_loss = true; /* as verify does */
    size_t before = test_disk_operations(disk);
    if (process_start_as(&process, disk, &options, true, &err)) fail_msg("%s", err.text);
    bool good = !srv_store_damaged(process.store);
    process_stop(&process);
    assert_int_equal(test_disk_operations(disk), before);
    return good;
}

/* A start refuses, and says which file it is, as verify does; whoever accepts it is asked once. */
static void is_damage(struct test_disk *disk, const char *name) {
    struct process process;
    assert_false(verify_says_good(disk));
    assert_non_null(strstr(process_said, name));
    process_refuse(disk, name);
    process_accept(&process, disk);
    json_t *model = test_call(&process.service, 0, "GET /models/m", NULL),
           *version = json_object_get(model, "version");
    if (!version) process_create(&process, "m", "journal"); /* its creation was cut off too */
    assert_in_range(json_integer_value(version), 0, CHANGES);
    json_decref(model);
    process_stop(&process);
    for (int starts = 0; starts < 2; starts++) {
        process_start(&process, disk);
        assert_false(srv_store_damaged(process.store));
        if (starts) process_steps(&process, "m", 1);
        process_survives(&process, disk);
        process_stop(&process);
    }
    assert_true(verify_says_good(disk));
}

static void the_newest_journal_cut_or_gone(void **state) {
    (void)state;
    for (int large = 0; large < 2; large++)
        for (int checkpoint = 0; checkpoint <= 40; checkpoint += 20) {
            char name[128];
            size_t size = 0, step = large ? 1999 : 97;
            /* all in one file; or in many, of which the newest is nearly empty, or full */
            struct test_disk *disk = fifty_changes(large ? 65536 : 4096, checkpoint);
            process_newest_file(disk, "journal-", 0, name);
            assert_true(verify_says_good(disk));
            assert_non_null(test_disk_bytes(disk, name, &size));
            for (size_t at = 0; at < size; at = at + step < size || at + 1 == size ? at + step : size - 1) {
                struct test_disk *bad = process_copy_of(disk);
                process_cut(bad, name, at);
                is_damage(bad, name);
                test_disk_free(bad);
            }
            take_away(disk, name);
            is_damage(disk, name);
            test_disk_free(disk);
        }
}

/* Each process has a file of its own: that it is gone is known though those before it are whole. */
static void the_file_of_the_last_process_gone(void **state) {
    (void)state;
    char name[128];
    struct process process;
    struct test_disk *disk = fifty_changes(65536, 20);
    process_start(&process, disk);
    process_wait_for_checkpoints(&process, 1);
    process_steps(&process, "m", 1);
    process_stop(&process);
    process_newest_file(disk, "journal-", 0, name);
    take_away(disk, name);
    process_refuse(disk, name);
    process_accept(&process, disk);
    assert_int_equal(process_version_of(&process, "m"), CHANGES);
    process_end(&process, disk);
}

/* A clean stop has all of it in snapshots: nothing of the journal is needed, nor missed. */
static void no_journal_is_missed_after_a_clean_stop(void **state) {
    (void)state;
    for (int gone = 0; gone < 2; gone++) {
        char name[128];
        struct process process;
        struct process_numbers numbers;
        struct test_disk *disk = fifty_changes(65536, 20);
        process_start(&process, disk);
        process_steps(&process, "m", 3);
        process_look(&process, "m", &numbers);
        process_finish(&process);
        process_newest_file(disk, "journal-", 0, name);
        if (gone)
            take_away(disk, name);
        else
            process_cut(disk, name, 1000);
        assert_true(verify_says_good(disk));
        process_start(&process, disk);
        assert_non_null(strstr(process_said, "the stop was clean"));
        assert_false(srv_store_damaged(process.store));
        process_is_as(&process, "m", &numbers);
        process_steps(&process, "m", 1);
        process_survives(&process, disk);
        process_end(&process, disk);
    }
}

/* As a release wrote it that noted neither sizes nor names of files that were begun: what cannot be known is no damage. */
static void journals_of_before_are_read(void **state) {
    (void)state;
    char name[128];
    struct process process;
    struct test_disk *disk = fifty_changes(65536, 0);
    process_newest_file(disk, "begun-", 0, name);
    take_away(disk, name);
    process_newest_file(disk, "journal-", 0, name);
    size_t size;
    unsigned char *bytes = test_disk_bytes(disk, name, &size);
    struct srv_journal_header header;
    memcpy(&header, bytes, sizeof header);
    assert_int_equal(header.size, size);
    char fingerprint[SRV_FINGERPRINT];
    memcpy(fingerprint, header.fingerprint, sizeof fingerprint);
    srv_journal_header_init(&header, header.first, header.salt, 0, fingerprint);
    memcpy(bytes, &header, sizeof header);
    struct test_disk *bad = process_copy_of(disk);
    process_start(&process, disk);
    assert_int_equal(process_version_of(&process, "m"), CHANGES);
    process_steps(&process, "m", 1);
    process_survives(&process, disk);
    process_end(&process, disk);

    process_cut(bad, name, 8000);
    assert_true(verify_says_good(bad));
    process_start(&process, bad);
    assert_in_range(process_version_of(&process, "m"), 1, CHANGES - 1);
    assert_null(strstr(process_said, "nobody was told"));
    process_end(&process, bad);
}

/* What a later release wrote is refused by its number, and not taken for damaged. */
static void a_later_format_is_refused_by_its_number(void **state) {
    (void)state;
    static const char *const files[] = {"journal-", "checkpoint-"};
    for (size_t i = 0; i < 2; i++) {
        char name[128];
        struct process process;
        struct nn_error err;
        struct srv_store_options options = process_usual;
        options.accept_loss = true;
        struct test_disk *disk = fifty_changes(65536, 20);
        process_newest_file(disk, files[i], 0, name);
        size_t size;
        unsigned char *bytes = test_disk_bytes(disk, name, &size);
        if (i == 0) {
            bytes[7] = '2';
            uint64_t check = XXH3_64bits(bytes, SRV_JOURNAL_HEADER - sizeof check);
            memcpy(bytes + SRV_JOURNAL_HEADER - sizeof check, &check, sizeof check);
        } else {
            char sum[32];
            const size_t line = sizeof "sum 0123456789abcdef\n" - 1;
            bytes[sizeof "gradd-checkpoint " - 1] = '2';
            snprintf(sum, sizeof sum, "sum %016llx\n", (unsigned long long)XXH3_64bits(bytes, size - line));
            memcpy(bytes + size - line, sum, line);
        }
        size_t before = test_disk_operations(disk);
        assert_int_equal(process_start_as(&process, disk, &options, false, &err), NN_E_STORE);
        assert_non_null(strstr(err.text, name));
        assert_non_null(strstr(err.text, "is of format 2"));
        process_stop(&process);
        process_changed_nothing(disk, before);
        test_disk_free(disk);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newest_journal_cut_or_gone),
        cmocka_unit_test(the_file_of_the_last_process_gone),
        cmocka_unit_test(no_journal_is_missed_after_a_clean_stop),
        cmocka_unit_test(journals_of_before_are_read),
        cmocka_unit_test(a_later_format_is_refused_by_its_number),
    };
    return cmocka_run_group_tests_name("journal_damage", tests, NULL, NULL);
}
