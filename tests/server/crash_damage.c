/* Files that went bad: a bit turned over in every block of each, each cut short, each gone. Either a start says so and names
 * the file, or what it comes to is right all the same, for there is an older snapshot, and the journal from there on. It
 * is never another state. GRADD_TEST_CRASHES=all: each block; otherwise some, or few. */
#include <stdio.h>
#include <string.h>

#include "../support/check.h"
#include "../support/history.h"

enum { BLOCK = 64 };

static struct test_history history;
static char said[8192]; /* lines of the store's log */

static void hear(const char *line) {
    size_t used = strlen(said);
    snprintf(said + used, sizeof said - used, "%s\n", line);
}

static int make(void **state) {
    (void)state;
    test_history_make(&history);
    history.older_will_do = true;
    return 0;
}

static int drop(void **state) {
    (void)state;
    test_history_free(&history);
    return 0;
}

/* --- one start --------------------------------------------------------------------------------------- */

enum outcome { RIGHT, REFUSED };

/* On a disk, which it frees, on which this file is bad; `n` operations are what it has to show for. */
static enum outcome check_damaged_take(struct test_disk *disk, size_t n, const char *file,
                                       bool may_be_refused, const char *what) {
    struct test_stored stored;
    struct nn_error err = {0};
    struct srv_store_options options = test_store_options;
    options.log = hear;
    said[0] = '\0';
    int code = test_stored_start(&stored, disk, 80, &options, &err);
    if (code) {
        if (!may_be_refused) fail_msg("%s: refused, and there was another to go on from: %s", what, err.text);
        if (code != NN_E_CORRUPT) fail_msg("%s: refused, but as %s", what, err.text);
        if (!strstr(err.text, file) && !strstr(said, file)) fail_msg("%s: not named: %s", what, err.text);
        assert_int_equal(test_disk_open_files(disk), 0);
    } else {
        struct test_prefix prefix = test_history_check(&history, n, &stored, what);
        test_history_go_on(&history, &prefix, disk, &stored, what);
    }
    test_disk_free(disk);
    return code ? REFUSED : RIGHT;
}

/* Steps at which there are one and two checkpoints, models that were deleted, and records behind. */
static const char *const moments[] = {"a10", "a13", "a17"};

static int step_of(const char *key) {
    for (int i = 0; i < history.n; i++) {
        char text[128], end[16];
        size_t length = (size_t)snprintf(end, sizeof end, " %s", key);
        test_history_step(i, text);
        if (strlen(text) > length && strcmp(text + strlen(text) - length, end) == 0) return i;
    }
    fail_msg("no step has the key %s", key);
    return -1;
}

/* Whether there is another that does: once there are two checkpoints, for all files but the journal's and the only
 * snapshot of a model that was created since the older one. */
static bool is_twofold(const char *file, int step) {
    return strncmp(file, "journal-", 8) != 0 && strncmp(file, "snapshot-t-", 11) != 0 &&
           step != step_of(moments[0]);
}

/* --- every block of every file ------------------------------------------------------------------------ */

struct names {
    char name[64][80];
    int n;
};

static void note(void *arg, const char *name) {
    struct names *names = arg;
    assert_true(names->n < 64);
    snprintf(names->name[names->n++], sizeof names->name[0], "%s", name);
}

static struct names list(size_t n) {
    char text[256];
    struct names names = {.n = 0};
    struct test_disk *disk = test_disk_image(history.disk, n, 0, text);
    const struct srv_io *io = test_disk_io(disk);
    io->list(io->self, note, &names);
    test_disk_free(disk);
    return names;
}

/* Where the last step's record begins in this file, if it does. Whoever finds that one bad cannot know whether it was ever
 * durable: nothing behind it says so. */
static size_t last_record(const char *file, int step) {
    char text[256];
    size_t at = 0, size[2] = {0};
    struct test_disk *before = test_disk_image(history.disk, history.taken[step].begun, 0, text),
                     *after = test_disk_image(history.disk, history.taken[step].acked, 0, text);
    const unsigned char *a = test_disk_bytes(before, file, &size[0]),
                        *b = test_disk_bytes(after, file, &size[1]);
    while (a && b && at < size[0] && at < size[1] && a[at] == b[at]) at++;
    test_disk_free(before);
    test_disk_free(after);
    return a ? at : 0;
}

static void flip_blocks(const char *file, int step, size_t every, int counts[2]) {
    size_t n = history.taken[step].acked, last = last_record(file, step), size = 1;
    for (size_t at = 0, k = strlen(file); at < size; at += BLOCK, k++) {
        char text[256];
        struct test_disk *disk = test_disk_image(history.disk, n, 0, text);
        unsigned char *bytes = test_disk_bytes(disk, file, &size);
        size_t bit = 8 * at + k * 37 % ((size_t)8 * BLOCK);
        bool is_torn = strncmp(file, "journal-", 8) == 0 && bit / 8 >= last;
        if (k % every || bit / 8 >= size) {
            test_disk_free(disk);
            continue;
        }
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        char *what =
            test_format("after step %d, bit %zu of byte %zu of %s turned", step, bit % 8, bit / 8, file);
        counts[check_damaged_take(disk, is_torn ? history.taken[step].begun + 1 : n, file,
                                  !is_twofold(file, step), what)]++;
        free(what);
    }
}

/* One block of so many is tried. */
static const size_t every[] = {[TEST_CRASHES_FEW] = 21, [TEST_CRASHES_SOME] = 7, [TEST_CRASHES_ALL] = 1};

static void a_bit_of_each_block(void **state) {
    (void)state;
    int counts[2] = {0};
    for (size_t m = 0; m < sizeof moments / sizeof moments[0]; m++) {
        int step = step_of(moments[m]);
        struct names names = list(history.taken[step].acked);
        for (int i = 0; i < names.n; i++) flip_blocks(names.name[i], step, every[test_crashes()], counts);
    }
    print_message("%d right all the same, %d refused\n", counts[RIGHT], counts[REFUSED]);
    assert_true(counts[RIGHT] > 0 && counts[REFUSED] > 0);
}

/* --- files that are cut short, or gone ----------------------------------------------------------------- */

static void cut(struct test_disk *disk, const char *file, int quarters) {
    const struct srv_io *io = test_disk_io(disk);
    int handle = io->open(io->self, file);
    assert_true(handle >= 0);
    int64_t size = io->size(io->self, handle);
    assert_int_equal(io->truncate(io->self, handle, (uint64_t)size * (uint64_t)quarters / 4), 0);
    io->close(io->self, handle);
}

static bool is_newest_journal(const struct names *names, const char *file) {
    if (strncmp(file, "journal-", 8) != 0) return false;
    for (int i = 0; i < names->n; i++)
        if (strncmp(names->name[i], "journal-", 8) == 0 && strcmp(names->name[i], file) > 0) return false;
    return true;
}

/* A checkpoint that is gone is not missed: what it alone told of is lost, and the one before it is not. Of the journal the
 * newest file is, as all of its bytes are, where they may have held records. */
static void files_cut_and_gone(void **state) {
    (void)state;
    int counts[2] = {0};
    for (size_t m = 0; m < sizeof moments / sizeof moments[0]; m++) {
        int step = step_of(moments[m]);
        size_t n = history.taken[step].acked;
        struct names names = list(n);
        for (int i = 0; i < names.n; i++)
            for (int quarters = -1; quarters < 4; quarters++) {
                char text[256];
                const char *file = names.name[i];
                bool newest = is_newest_journal(&names, file),
                     older = !newest && strncmp(file, "journal-", 8) == 0;
                if (quarters < 0 && older) continue;
                struct test_disk *disk = test_disk_image(history.disk, n, 0, text);
                const struct srv_io *io = test_disk_io(disk);
                bool gone = quarters < 0;
                if (gone)
                    assert_int_equal(io->remove(io->self, file), 0);
                else
                    cut(disk, file, quarters);
                char *what = test_format("after step %d, %s %s", step, file, gone ? "gone" : "cut short");
                enum outcome outcome = check_damaged_take(disk, n, file, !is_twofold(file, step), what);
                if (newest && outcome != REFUSED) fail_msg("%s, and nobody says so", what);
                counts[outcome]++;
                free(what);
            }
    }
    print_message("%d right all the same, %d refused\n", counts[RIGHT], counts[REFUSED]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bit_of_each_block),
        cmocka_unit_test(files_cut_and_gone),
    };
    nn_blas_init();
    return cmocka_run_group_tests(tests, make, drop);
}
