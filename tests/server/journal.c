/* The journal by itself: what was committed comes back whatever its end looks like, what was damaged is named, and
 * a disk that is full or fails is told of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../server/store/frame.h"
#include "../../server/store/journal.h"
#include "../support/place.h"

#define SEGMENT 4096
#define RECORDS 9 /* which one file has room for */

/* --- what is written, and what is read --------------------------------------------------------------------- */

/* Record n is n % 7 * 100 bytes of its number, so that some are empty and no two in a row are alike. */
static size_t record_size(uint64_t seq) { return (size_t)(seq % 7 * 100); }

struct told {
    uint64_t yes, no;
};

static void count_done(void *arg, bool durable) {
    struct told *told = arg;
    *(durable ? &told->yes : &told->no) += 1;
}

static struct srv_journal *open_journal(struct place *place, const char *fingerprint) {
    struct nn_error err = {0};
    struct srv_journal_options options = {.segment_bytes = SEGMENT, .fingerprint = fingerprint};
    struct srv_journal *journal = srv_journal_new(&place->io, &options, &err);
    assert_non_null(journal);
    return journal;
}

/* The first process of a place. */
static struct srv_journal *begin(struct place *place, const char *fingerprint) {
    struct nn_error err = {0};
    place_init(place);
    struct srv_journal *journal = open_journal(place, fingerprint);
    assert_int_equal(srv_journal_begin(journal, 0, false, &err), NN_OK);
    return journal;
}

/* The next one, which has begun nothing yet. */
static struct srv_journal *reopen(struct place *place, struct srv_journal *journal) {
    srv_journal_free(journal);
    return open_journal(place, "here");
}

static void end(struct place *place, struct srv_journal *journal) {
    srv_journal_free(journal);
    place_fini(place);
}

static int append(struct srv_journal *journal, struct told *told, struct nn_error *err) {
    static unsigned char bytes[1024]; /* of the last record alone: each is committed before the next */
    static struct api_segment parts[3];
    uint64_t seq = srv_journal_last(journal) + 1, got = 0;
    size_t size = record_size(seq);
    memset(bytes, (int)seq, sizeof bytes);
    parts[0] = (struct api_segment){bytes, size / 3};
    parts[1] = (struct api_segment){bytes, 0};
    parts[2] = (struct api_segment){bytes, size - size / 3};
    int code = srv_journal_append(journal, parts, 3, count_done, told, &got, err);
    if (!code) assert_int_equal(got, seq);
    return code;
}

static void write_records(struct srv_journal *journal, uint64_t n) {
    struct told told = {0};
    struct nn_error err = {0};
    for (uint64_t i = 0; i < n; i++) {
        assert_int_equal(append(journal, &told, &err), NN_OK);
        assert_true(srv_journal_commit(journal));
    }
    assert_false(srv_journal_commit(journal));
    assert_int_equal(told.yes, n);
    assert_int_equal(told.no, 0);
}

static int check_record(void *arg, const struct srv_record *record, struct nn_error *err) {
    uint64_t *expected = arg;
    (void)err;
    assert_int_equal(record->seq, (*expected)++);
    assert_int_equal(record->size, record_size(record->seq));
    for (size_t i = 0; i < record->size; i++)
        assert_int_equal(((const unsigned char *)record->bytes)[i], record->seq);
    return NN_OK;
}

static int read_back(struct srv_journal *journal, uint64_t after, struct srv_journal_found *found,
                     struct nn_error *err) {
    uint64_t expected = after + 1;
    *err = (struct nn_error){0};
    int code = srv_journal_read(journal, after, 0, check_record, &expected, found, err);
    assert_int_equal(found->last, expected - 1);
    assert_int_equal(found->records, expected - 1 - after);
    return code;
}

/* A journal of RECORDS records in one process, as another finds it. */
static struct srv_journal *written(struct place *place) {
    struct srv_journal *journal = begin(place, "here");
    write_records(journal, RECORDS);
    return reopen(place, journal);
}

static uint64_t used_bytes(uint64_t records) {
    uint64_t used = SRV_JOURNAL_HEADER;
    for (uint64_t seq = 1; seq <= records; seq++) used += srv_frame_room(record_size(seq));
    return used;
}

static void path_of(const struct place *place, uint64_t first, char path[128]) {
    snprintf(path, 128, "%s/journal-%020llu", place->path, (unsigned long long)first);
}

/* --- tests ------------------------------------------------------------------------------------------------- */

static void what_was_committed_comes_back(void **state) {
    (void)state;
    struct place place;
    struct nn_error err;
    struct srv_journal_found found;
    struct srv_journal *journal = written(&place);
    for (uint64_t after = 0; after <= RECORDS; after++) {
        assert_int_equal(read_back(journal, after, &found, &err), NN_OK);
        assert_int_equal(found.last, RECORDS);
        assert_false(found.torn);
    }
    /* The next process goes on in a file of its own. */
    assert_int_equal(srv_journal_settle(journal, 0, 0, false, &err), NN_OK);
    assert_int_equal(srv_journal_begin(journal, found.last, false, &err), NN_OK);
    write_records(journal, RECORDS);
    journal = reopen(&place, journal);
    assert_int_equal(read_back(journal, 3, &found, &err), NN_OK);
    assert_int_equal(found.last, 2 * RECORDS);
    end(&place, journal);
}

static int note_fingerprint(void *arg, const struct srv_record *record, struct nn_error *err) {
    (void)err;
    snprintf(arg, 16, "%s", record->fingerprint);
    return NN_OK;
}

static void many_files_follow_one_another(void **state) {
    (void)state;
    struct place place;
    struct nn_error err = {0};
    struct srv_journal_found found;
    struct srv_journal *journal = begin(&place, "there");
    write_records(journal, 200);
    struct api_store_status status = {0};
    srv_journal_status(journal, &status);
    assert_true(status.journal_bytes > (uint64_t)10 * SEGMENT);
    assert_int_equal(status.records, 200);
    assert_int_equal(status.waiting, 0);
    srv_journal_forget(journal, 100);
    journal = reopen(&place, journal);
    assert_in_range(srv_journal_first(journal), 80, 101);
    assert_int_equal(read_back(journal, 100, &found, &err), NN_OK);
    assert_int_equal(found.last, 200);
    char fingerprint[16] = "";
    assert_int_equal(srv_journal_read(journal, 199, 0, note_fingerprint, fingerprint, &found, &err), NN_OK);
    assert_string_equal(fingerprint, "there");
    /* What was forgotten is missing for who wants it. */
    assert_int_equal(read_back(journal, 10, &found, &err), NN_E_CORRUPT);
    assert_int_equal(found.given_up, 11);
    end(&place, journal);
}

static void a_large_record_has_a_file_of_its_size(void **state) {
    (void)state;
    struct place place;
    struct nn_error err = {0};
    struct told told = {0};
    struct srv_journal *journal = begin(&place, "here");
    const size_t size = (size_t)3 * SEGMENT + 1;
    unsigned char *bytes = calloc(size, 1);
    struct api_segment parts[600];
    for (size_t i = 0; i < 600; i++) parts[i] = (struct api_segment){bytes, i < 599 ? 1 : size - 599};
    uint64_t seq;
    assert_int_equal(srv_journal_append(journal, parts, 600, count_done, &told, &seq, &err), NN_OK);
    assert_true(srv_journal_commit(journal));
    assert_int_equal(told.yes, 1);
    write_records(journal, 1);
    srv_journal_free(journal);
    free(bytes);
    char path[128];
    struct stat status;
    path_of(&place, 1, path);
    assert_int_equal(stat(path, &status), 0);
    assert_true((size_t)status.st_size >= size && (size_t)status.st_size < (size_t)4 * SEGMENT);
    path_of(&place, 2, path);
    assert_int_equal(stat(path, &status), 0);
    place_fini(&place);
}

/* Wherever what was written ends, the whole records before that are there, and no more; and what is written after that
 * comes back too. Where the file ends there, something has cut it off. */
static void every_prefix_is_a_torn_end(void **state) {
    (void)state;
    for (uint64_t cut = 0; cut <= used_bytes(RECORDS); cut += cut < 560 ? 9 : 41)
        for (int zeros = 0; zeros < 2; zeros++) {
            struct place place;
            struct nn_error err = {0};
            struct srv_journal_found found;
            srv_journal_free(written(&place));
            char path[128];
            path_of(&place, 1, path);
            assert_int_equal(truncate(path, (off_t)cut), 0);
            if (zeros) assert_int_equal(truncate(path, SEGMENT), 0);
            struct srv_journal *journal = open_journal(&place, "here");
            int code = read_back(journal, 0, &found, &err);
            assert_int_equal(code, zeros && cut >= SRV_JOURNAL_HEADER ? NN_OK : NN_E_CORRUPT);
            assert_true(!code || strstr(err.text, strrchr(path, '/') + 1));
            uint64_t whole = found.last;
            assert_true(cut < SRV_JOURNAL_HEADER ? whole == 0 : used_bytes(whole) <= cut);
            assert_true(cut < SRV_JOURNAL_HEADER || whole == RECORDS || used_bytes(whole + 1) > cut);

            assert_int_equal(srv_journal_begin(journal, whole, false, &err), NN_OK);
            write_records(journal, 3);
            journal = reopen(&place, journal);
            assert_int_equal(read_back(journal, 0, &found, &err), NN_OK);
            assert_int_equal(found.last, whole + 3);
            end(&place, journal);
        }
}

static void flip(const struct place *place, uint64_t first, uint64_t offset) {
    char path[128];
    unsigned char byte;
    path_of(place, first, path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

/* Any bit of a record with one behind it: the file and the place are named, and what came before is given. Of the
 * last record nothing tells that it was durable. */
static void a_flipped_bit_is_named(void **state) {
    (void)state;
    struct place place;
    struct nn_error err;
    struct srv_journal_found found;
    struct srv_journal *journal = written(&place);
    for (uint64_t offset = 0; offset < used_bytes(RECORDS); offset += offset % 3 + 1) {
        uint64_t hit = 1;
        while (used_bytes(hit) <= offset) hit++;
        uint64_t frame = offset < SRV_JOURNAL_HEADER ? 0 : used_bytes(hit - 1);
        bool padding = offset >= frame + sizeof(struct srv_frame) + record_size(hit) && frame > 0;
        flip(&place, 1, offset);
        int code = read_back(journal, 0, &found, &err);
        if (padding) {
            assert_int_equal(code, NN_OK);
            assert_int_equal(found.last, RECORDS);
        } else if (hit == RECORDS) {
            assert_int_equal(code, NN_OK);
            assert_int_equal(found.last, RECORDS - 1);
            assert_true(found.torn);
        } else {
            char where[96];
            snprintf(where, sizeof where, "journal-%020d is damaged at byte %llu:", 1,
                     (unsigned long long)frame);
            assert_int_equal(code, NN_E_CORRUPT);
            assert_memory_equal(err.text, where, strlen(where));
            assert_int_equal(found.last, hit - 1);
            assert_int_equal(found.given_up, hit);
        }
        /* Who needs only what comes behind it, has it; a header is needed by all. */
        if (frame > 0 && hit < RECORDS) {
            assert_int_equal(read_back(journal, hit, &found, &err), NN_OK);
            assert_int_equal(found.last, RECORDS);
        }
        flip(&place, 1, offset);
    }
    end(&place, journal);
}

/* A checkpoint may know of records that the journal has lost without a trace. */
static void what_is_known_to_have_been_durable_is_missed(void **state) {
    (void)state;
    struct place place;
    struct nn_error err = {0};
    struct srv_journal_found found;
    uint64_t expected = 1;
    struct srv_journal *journal = written(&place);
    assert_int_equal(srv_journal_read(journal, 0, RECORDS + 1, check_record, &expected, &found, &err),
                     NN_E_CORRUPT);
    assert_int_equal(found.last, RECORDS);
    end(&place, journal);

    place_init(&place);
    err = (struct nn_error){0};
    journal = open_journal(&place, "here");
    assert_int_equal(srv_journal_read(journal, 4, 4, check_record, &expected, &found, &err), NN_OK);
    assert_int_equal(srv_journal_read(journal, 4, 5, check_record, &expected, &found, &err), NN_E_CORRUPT);
    end(&place, journal);
}

/* A record in which a client has put what looks like a frame. */
static void the_inside_of_a_record_is_no_frame(void **state) {
    (void)state;
    struct place place;
    struct nn_error err = {0};
    struct told told = {0};
    struct srv_journal_found found;
    struct srv_journal *journal = begin(&place, "here");
    struct srv_frame frame = {.seq = 99, .durable = 98};
    srv_frame_seal(&frame, 0);
    uint64_t seq;
    assert_int_equal(srv_journal_append(journal, &(struct api_segment){&frame, sizeof frame}, 1, count_done,
                                        &told, &seq, &err),
                     NN_OK);
    srv_journal_commit(journal);
    srv_journal_free(journal);
    flip(&place, 1, SRV_JOURNAL_HEADER);
    journal = open_journal(&place, "here");
    assert_int_equal(read_back(journal, 0, &found, &err), NN_OK);
    assert_true(found.torn);
    assert_int_equal(found.last, 0);
    end(&place, journal);
}

/* A full disk refuses what needs room, and takes it again when there is some. */
static void a_full_disk_refuses_and_recovers(void **state) {
    (void)state;
    struct place place;
    struct nn_error err = {0};
    struct told told = {0};
    struct srv_journal_found found;
    struct srv_journal *journal = begin(&place, "here");
    write_records(journal, 3);
    place.fail_reserve = ENOSPC;
    uint64_t n = 0;
    while (append(journal, &told, &err) == NN_OK) {
        srv_journal_commit(journal);
        n++;
    }
    assert_true(n > 0);
    assert_int_equal(err.code, NN_E_STORE);
    assert_non_null(strstr(err.text, "No space left"));
    assert_int_equal(srv_journal_last(journal), 3 + n);
    place.fail_reserve = 0;
    write_records(journal, 5);
    journal = reopen(&place, journal);
    assert_int_equal(read_back(journal, 0, &found, &err), NN_OK);
    assert_int_equal(found.last, 3 + n + 5);
    end(&place, journal);
}

static void note_failure(void *arg, const struct nn_error *err) {
    struct nn_error *failure = arg;
    assert_int_equal(failure->code, NN_OK); /* told once */
    *failure = *err;
}

/* After a write or a sync that failed nothing is taken any more, even when the disk is well again. */
static void a_failed_disk_ends_it(void **state) {
    (void)state;
    for (int which = 0; which < 2; which++) {
        struct place place;
        struct nn_error err = {0}, failure = {0};
        struct told told = {0};
        struct srv_journal_found found;
        place_init(&place);
        struct srv_journal_options options = {SEGMENT, "here", note_failure, &failure};
        struct srv_journal *journal = srv_journal_new(&place.io, &options, &err);
        assert_non_null(journal);
        assert_int_equal(srv_journal_begin(journal, 0, false, &err), NN_OK);
        write_records(journal, 3);
        *(which ? &place.fail_write : &place.fail_sync) = EIO;
        assert_int_equal(append(journal, &told, &err), NN_OK);
        uint64_t last = srv_journal_last(journal);
        assert_int_equal(srv_journal_wait(journal, last - 1, &err), NN_OK);
        assert_int_equal(srv_journal_wait(journal, last, &err), NN_E_STORE);
        assert_int_equal(told.no, 1);
        assert_int_equal(failure.code, NN_E_STORE);
        assert_non_null(strstr(failure.text, "journal-"));
        assert_non_null(strstr(failure.text, "Input/output error"));

        place.fail_write = place.fail_sync = 0;
        err = (struct nn_error){0};
        assert_int_equal(append(journal, &told, &err), NN_E_STORE);
        struct api_store_status status = {0};
        srv_journal_status(journal, &status);
        assert_true(status.failed);
        assert_int_equal(told.yes, 0);
        journal = reopen(&place, journal);
        assert_int_equal(read_back(journal, 0, &found, &err), NN_OK);
        assert_int_equal(found.last, which ? 3 : 4); /* what was written may well be there */
        end(&place, journal);
    }
}

/* Records of several threads: each is told once, in order, and all are there. */
struct burst {
    struct srv_journal *journal;
    uint64_t seqs[200], told;
    pthread_mutex_t mutex;
};

static void check_order(void *arg, bool durable) {
    struct burst *burst = arg;
    assert_true(durable);
    pthread_mutex_lock(&burst->mutex);
    burst->told++;
    pthread_mutex_unlock(&burst->mutex);
}

static void *append_some(void *arg) {
    struct burst *burst = arg;
    for (int i = 0; i < 50; i++) {
        struct nn_error err = {0};
        uint64_t seq;
        assert_int_equal(srv_journal_append(burst->journal, NULL, 0, check_order, burst, &seq, &err), NN_OK);
        assert_in_range(seq, 1, 200);
        burst->seqs[seq - 1]++;
    }
    return NULL;
}

static void threads_append_beside_one_another(void **state) {
    (void)state;
    struct place place;
    struct nn_error err = {0};
    static struct burst burst;
    burst = (struct burst){.journal = begin(&place, "here"), .mutex = PTHREAD_MUTEX_INITIALIZER};
    assert_int_equal(srv_journal_start(burst.journal, &err), NN_OK);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, append_some, &burst), 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    assert_int_equal(srv_journal_wait(burst.journal, 200, &err), NN_OK);
    srv_journal_free(burst.journal);
    assert_int_equal(burst.told, 200);
    for (int i = 0; i < 200; i++) assert_int_equal(burst.seqs[i], 1);
    place_fini(&place);
}

static void one_process_has_a_directory(void **state) {
    (void)state;
    struct place place;
    struct nn_error err = {0};
    place_init(&place);
    assert_null(srv_directory_open(place.path, 0, &err));
    assert_int_equal(err.code, NN_E_BUSY);
    assert_non_null(strstr(err.text, "another process has /tmp/gradd-journal-"));
    err = (struct nn_error){0};
    struct srv_directory *reader = srv_directory_open(place.path, 1, &err);
    assert_non_null(reader);
    const struct srv_io *io = srv_directory_io(reader);
    static const char *const names[] = {"", ".", "..", "../x", "a/b", ".hidden", "a b", "/etc/passwd"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_int_equal(io->open(io->self, names[i]), -EINVAL);
    char link[128];
    snprintf(link, sizeof link, "%s/link", place.path);
    assert_int_equal(symlink("/etc/passwd", link), 0);
    assert_int_equal(io->open(io->self, "link"), -ELOOP);
    srv_directory_close(reader);
    place_fini(&place);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_committed_comes_back),
        cmocka_unit_test(many_files_follow_one_another),
        cmocka_unit_test(a_large_record_has_a_file_of_its_size),
        cmocka_unit_test(every_prefix_is_a_torn_end),
        cmocka_unit_test(a_flipped_bit_is_named),
        cmocka_unit_test(what_is_known_to_have_been_durable_is_missed),
        cmocka_unit_test(the_inside_of_a_record_is_no_frame),
        cmocka_unit_test(a_full_disk_refuses_and_recovers),
        cmocka_unit_test(a_failed_disk_ends_it),
        cmocka_unit_test(threads_append_beside_one_another),
        cmocka_unit_test(one_process_has_a_directory),
    };
    return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
