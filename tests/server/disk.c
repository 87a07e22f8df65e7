/* The disk in memory that the store is tested on: what a crash may leave, and what fails. */
#include <errno.h>
#include <string.h>

#include "../support/check.h"
#include "../support/disk.h"

static void write_text(const struct srv_io *io, int file, const char *text, uint64_t offset) {
    const struct iovec part = {(char *)(uintptr_t)text, strlen(text)};
    assert_int_equal(io->write(io->self, file, &part, 1, offset), 0);
}

static int create(const struct srv_io *io, const char *name) {
    int file = io->create(io->self, name);
    assert_true(file >= 0);
    return file;
}

/* What a file holds; "-" if there is none. */
static const char *text_of(const struct test_disk *disk, const char *name) {
    static char text[4096];
    size_t size;
    const unsigned char *bytes = test_disk_bytes(disk, name, &size);
    if (!bytes) return "-";
    assert_true(size < sizeof text);
    memcpy(text, bytes, size);
    text[size] = '\0';
    return text;
}

static bool holds(const struct test_disk *disk, const char *name, const char *text) {
    return strcmp(text_of(disk, name), text) == 0;
}

/* How many of the images after n operations hold this text in this file. */
static size_t images_with(const struct test_disk *disk, size_t n, const char *name, const char *text) {
    size_t found = 0;
    char what[256];
    for (size_t i = 0; i < test_disk_images(disk, n); i++) {
        struct test_disk *image = test_disk_image(disk, n, i, what);
        found += holds(image, name, text);
        assert_true(what[0]);
        test_disk_free(image);
    }
    return found;
}

static void it_is_a_disk(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    const struct srv_io *io = test_disk_io(disk);
    char buffer[8] = "";
    assert_int_equal(io->open(io->self, "a"), -ENOENT);
    int file = create(io, "a");
    assert_int_equal(io->create(io->self, "a"), -EEXIST);
    struct iovec parts[] = {{"one", 3}, {"", 0}, {" two", 4}};
    assert_int_equal(io->write(io->self, file, parts, 3, 2), 0);
    assert_int_equal(io->size(io->self, file), 9);
    assert_int_equal(io->read(io->self, file, buffer, 8, 2), 7);
    assert_string_equal(buffer, "one two");
    assert_int_equal(io->read(io->self, file, buffer, 8, 9), 0);
    assert_int_equal(io->reserve(io->self, file, 20), 0);
    assert_int_equal(io->size(io->self, file), 20);
    assert_int_equal(io->reserve(io->self, file, 10), 0); /* takes nothing away */
    assert_int_equal(io->size(io->self, file), 20);
    assert_int_equal(io->truncate(io->self, file, 5), 0);
    assert_memory_equal(test_disk_bytes(disk, "a", &(size_t){0}), "\0\0one", 5);
    assert_int_equal(io->rename(io->self, "b", "c"), -ENOENT);
    io->close(io->self, create(io, "b"));
    assert_int_equal(io->rename(io->self, "a", "b"), 0);
    assert_true(holds(disk, "a", "-"));
    assert_int_equal(io->remove(io->self, "b"), 0);
    assert_int_equal(io->remove(io->self, "b"), -ENOENT);
    assert_int_equal(io->size(io->self, file), 5); /* open ones live on */
    assert_int_equal(test_disk_open_files(disk), 1);
    io->close(io->self, file);
    assert_int_equal(test_disk_open_files(disk), 0);
    test_disk_free(disk);
}

static void what_was_synced_stays(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    const struct srv_io *io = test_disk_io(disk);
    int file = create(io, "a");
    write_text(io, file, "text", 0);
    assert_int_equal(io->sync(io->self, file), 0);
    size_t n = test_disk_operations(disk);
    assert_int_equal(test_disk_images(disk, n), 2); /* the name may be lost */
    assert_int_equal(images_with(disk, n, "a", "-"), 1);
    assert_int_equal(images_with(disk, n, "a", "text"), 1);
    assert_int_equal(io->sync_directory(io->self), 0);
    assert_int_equal(test_disk_images(disk, n + 1), 1);
    assert_int_equal(images_with(disk, n + 1, "a", "text"), 1);
    io->close(io->self, file);
    test_disk_free(disk);
}

static void names_and_bytes_part(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    const struct srv_io *io = test_disk_io(disk);
    int old = create(io, "a");
    write_text(io, old, "old", 0);
    assert_int_equal(io->sync(io->self, old), 0);
    assert_int_equal(io->sync_directory(io->self), 0);
    int new = create(io, "a~");
    write_text(io, new, "new", 0);
    assert_int_equal(io->rename(io->self, "a~", "a"), 0);
    size_t n = test_disk_operations(disk);
    assert_true(images_with(disk, n, "a", "old") > 0);
    assert_true(images_with(disk, n, "a", "new") > 0);
    assert_true(images_with(disk, n, "a", "") > 0);      /* renamed, and never written */
    assert_int_equal(images_with(disk, n, "a", "-"), 0); /* a rename is atomic */
    assert_true(images_with(disk, n, "a~", "new") > 0);
    assert_true(images_with(disk, n, "a~", "") > 0);
    io->close(io->self, old);
    io->close(io->self, new);
    test_disk_free(disk);
}

static void writes_pass_each_other(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    const struct srv_io *io = test_disk_io(disk);
    int file = create(io, "a");
    assert_int_equal(io->reserve(io->self, file, 6), 0);
    assert_int_equal(io->sync(io->self, file), 0);
    assert_int_equal(io->sync_directory(io->self), 0);
    write_text(io, file, "ab", 0);
    write_text(io, file, "cd", 2);
    write_text(io, file, "ef", 4);
    size_t n = test_disk_operations(disk), size, first = 0, middle = 0, torn = 0;
    for (size_t i = 0; i < test_disk_images(disk, n); i++) {
        char what[256];
        struct test_disk *image = test_disk_image(disk, n, i, what);
        const unsigned char *bytes = test_disk_bytes(image, "a", &size);
        assert_int_equal(size, 6);
        first += memcmp(bytes, "\0\0cdef", 6) == 0;
        middle += memcmp(bytes, "\0\0cd\0\0", 6) == 0;
        torn += memcmp(bytes, "abcde\0", 6) == 0;
        test_disk_free(image);
    }
    assert_true(first > 0);
    assert_true(middle > 0);
    assert_true(torn > 0);
    io->close(io->self, file);
    test_disk_free(disk);
}

/* Of a write of 1500 bytes at 100. */
static void writes_tear_at_sectors(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    const struct srv_io *io = test_disk_io(disk);
    char text[1501] = "", what[256];
    memset(text, 'x', 1500);
    int file = create(io, "a");
    write_text(io, file, text, 100);
    size_t n = test_disk_operations(disk), size, at_first = 0, at_last = 0, holes = 0, garbage = 0;
    for (size_t i = 0; i < test_disk_images(disk, n); i++) {
        struct test_disk *image = test_disk_image(disk, n, i, what);
        const unsigned char *bytes = test_disk_bytes(image, "a", &size);
        at_first += bytes && size == 512;
        at_last += bytes && size == 1536;
        holes +=
            bytes && size == 1600 && bytes[511] == 'x' && !bytes[512] && !bytes[1023] && bytes[1024] == 'x';
        garbage += bytes && size == 1600 && bytes[511] == 'x' && bytes[512] && bytes[512] != 'x';
        test_disk_free(image);
    }
    assert_int_equal(at_first, 1);
    assert_true(at_last >= 1);
    assert_int_equal(holes, 1);
    assert_int_equal(garbage, 1);
    io->close(io->self, file);
    test_disk_free(disk);
}

/* Sectors go one by one, in any order: the first may be missing where a later one is there. */
static void sectors_pass_each_other(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    const struct srv_io *io = test_disk_io(disk);
    static char text[4 * 512 + 1];
    memset(text, 'x', sizeof text - 1);
    int file = create(io, "a");
    assert_int_equal(io->reserve(io->self, file, (uint64_t)4 * 512), 0);
    assert_int_equal(io->sync(io->self, file), 0);
    assert_int_equal(io->sync_directory(io->self), 0);
    write_text(io, file, text, 0);
    size_t n = test_disk_operations(disk), size, later_alone = 0;
    for (size_t i = 0; i < test_disk_images(disk, n); i++) {
        char what[256];
        struct test_disk *image = test_disk_image(disk, n, i, what);
        const unsigned char *bytes = test_disk_bytes(image, "a", &size);
        assert_int_equal(size, 4 * 512);
        later_alone += !bytes[0] && (bytes[512] || bytes[1024] || bytes[1536]);
        test_disk_free(image);
    }
    assert_true(later_alone > 0);
    io->close(io->self, file);
    test_disk_free(disk);
}

static void an_image_is_a_disk(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    const struct srv_io *io = test_disk_io(disk);
    char what[256];
    io->close(io->self, create(io, "a"));
    assert_int_equal(io->sync_directory(io->self), 0);
    struct test_disk *image = test_disk_image(disk, 2, 0, what);
    const struct srv_io *other = test_disk_io(image);
    int file = other->open(other->self, "a");
    assert_true(file >= 0);
    write_text(other, file, "more", 0);
    assert_true(holds(image, "a", "more"));
    assert_true(holds(disk, "a", ""));
    assert_int_equal(images_with(image, 1, "a", ""), 1); /* a crash again: the name stays */
    assert_int_equal(images_with(image, 1, "a", "-"), 0);
    other->close(other->self, file);
    test_disk_free(image);
    test_disk_free(disk);
}

static void it_fails_when_told(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    const struct srv_io *io = test_disk_io(disk);
    test_disk_fail(disk, TEST_DISK_CREATE, 1, ENOSPC, false);
    int file = create(io, "a");
    assert_int_equal(io->create(io->self, "b"), -ENOSPC);
    assert_true(holds(disk, "b", "-"));
    io->close(io->self, create(io, "b")); /* once */
    assert_true(test_disk_work(disk));
    assert_false(test_disk_work(disk));

    test_disk_fail(disk, TEST_DISK_WRITE, 0, EIO, true);
    test_disk_fail(disk, TEST_DISK_RESERVE, 0, ENOSPC, true);
    struct iovec part = {"text", 4};
    for (int i = 0; i < 2; i++) assert_int_equal(io->write(io->self, file, &part, 1, 0), -EIO);
    assert_true(holds(disk, "a", "te"));
    assert_int_equal(io->reserve(io->self, file, 100), -ENOSPC);
    assert_int_equal(io->size(io->self, file), 2);
    assert_true(test_disk_work(disk));
    write_text(io, file, "text", 0);

    test_disk_fail(disk, TEST_DISK_RENAME, 0, EIO, false);
    assert_int_equal(io->rename(io->self, "a", "b"), -EIO);
    assert_true(holds(disk, "a", "text"));
    io->close(io->self, file);
    test_disk_free(disk);
}

/* What a failed sync gave up stays given up; what came after it does not. */
static void a_failed_sync_is_final(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    const struct srv_io *io = test_disk_io(disk);
    int file = create(io, "a");
    assert_int_equal(io->reserve(io->self, file, 4), 0);
    assert_int_equal(io->sync(io->self, file), 0);
    assert_int_equal(io->sync_directory(io->self), 0);
    write_text(io, file, "ab", 0);
    test_disk_fail(disk, TEST_DISK_SYNC, 0, EIO, false);
    assert_int_equal(io->sync(io->self, file), -EIO);
    write_text(io, file, "cd", 2);
    assert_int_equal(io->sync(io->self, file), 0);
    size_t n = test_disk_operations(disk), size, lost = 0;
    for (size_t i = 0; i < test_disk_images(disk, n); i++) {
        char what[256];
        struct test_disk *image = test_disk_image(disk, n, i, what);
        const unsigned char *bytes = test_disk_bytes(image, "a", &size);
        assert_memory_equal(bytes + 2, "cd", 2);
        lost += bytes[0] == 0;
        test_disk_free(image);
    }
    assert_true(lost > 0);

    /* Memory shows it still; then nothing does. */
    assert_memory_equal(test_disk_bytes(disk, "a", &size), "abcd", 4);
    io->forget(io->self, file);
    assert_memory_equal(test_disk_bytes(disk, "a", &size), "\0\0cd", 4);
    assert_int_equal(test_disk_images(disk, n), 1);
    io->close(io->self, file);
    test_disk_free(disk);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_a_disk),           cmocka_unit_test(what_was_synced_stays),
        cmocka_unit_test(names_and_bytes_part),   cmocka_unit_test(writes_pass_each_other),
        cmocka_unit_test(writes_tear_at_sectors), cmocka_unit_test(sectors_pass_each_other),
        cmocka_unit_test(an_image_is_a_disk),     cmocka_unit_test(it_fails_when_told),
        cmocka_unit_test(a_failed_sync_is_final),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
