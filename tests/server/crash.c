/* The machine stops after any operation of the disk, and anything that was not synced may be lost: what comes out of it
 * is some state that the history had, with all that had been told as durable, and it goes on from there.
 *
 * Every prefix of the operations is tried, and of each as many images of the disk as take a moment; with
 * GRADD_TEST_CRASHES=all, all of them, and for each a second crash during the start; with few, every fourth prefix. */
#include <string.h>

#include "../support/check.h"
#include "../support/history.h"

static struct test_history history;

static int make(void **state) {
    (void)state;
    test_history_make(&history);
    return 0;
}

static int drop(void **state) {
    (void)state;
    test_history_free(&history);
    return 0;
}

/* Starts on an image. */
static void start(struct test_stored *stored, struct test_disk *disk, const char *what) {
    struct nn_error err = {0};
    test_ok(test_stored_start(stored, disk, 80, NULL, &err), &err, "%s", what);
}

static char *describe(size_t n, const char *image) {
    char operation[128] = "the beginning";
    if (n) test_disk_operation(history.disk, n - 1, operation);
    return test_format("a crash after operation %zu (%s), %s", n, operation, image);
}

static void crash(size_t n, size_t i) {
    char image[256];
    struct test_stored stored;
    struct test_disk *disk = test_disk_image(history.disk, n, i, image);
    char *what = describe(n, image);
    start(&stored, disk, what);
    struct test_prefix prefix = test_history_check(&history, n, &stored, what);
    test_history_go_on(&history, &prefix, disk, &stored, what);
    test_disk_free(disk);
    free(what);
}

/* From one prefix that is tried to the next. */
static size_t step(void) { return test_crashes() == TEST_CRASHES_FEW ? 4 : 1; }

/* The first images are the plainest, and are always among them. */
static void every_prefix(void **state) {
    (void)state;
    size_t tried = 0, all = 0, n = test_disk_operations(history.disk);
    for (size_t k = 0; k <= n; k += step()) {
        size_t images = test_disk_images(history.disk, k);
        all += images;
        for (size_t i = 0; i < images; i++) {
            if (i > 1 && (i + k) % 4 && test_crashes() != TEST_CRASHES_ALL) continue;
            crash(k, i);
            tried++;
        }
    }
    print_message("%zu of %zu images of %zu prefixes\n", tried, all, n + 1);
}

/* A start writes too. */
static void crash_twice(size_t n, size_t i) {
    char image[256], again[256];
    struct test_stored stored;
    struct test_disk *disk = test_disk_image(history.disk, n, i, image);
    char *what = describe(n, image);
    start(&stored, disk, what);
    test_stored_stop(&stored);
    for (size_t k = 1; k <= test_disk_operations(disk); k++)
        for (size_t j = 0; j < 2 && j < test_disk_images(disk, k); j++) {
            struct test_disk *second = test_disk_image(disk, k, j, again);
            char *both = test_format("%s; then one of the start's operation %zu, %s", what, k, again);
            start(&stored, second, both);
            struct test_prefix prefix = test_history_check(&history, n, &stored, both);
            test_history_go_on(&history, &prefix, second, &stored, both);
            test_disk_free(second);
            free(both);
        }
    test_disk_free(disk);
    free(what);
}

static void during_a_start(void **state) {
    (void)state;
    size_t n = test_disk_operations(history.disk);
    for (size_t k = 0; k <= n; k += step())
        for (size_t i = 0; i < test_disk_images(history.disk, k); i++)
            if ((i + 3 * k) % 40 == 0 || test_crashes() == TEST_CRASHES_ALL) crash_twice(k, i);
}

static void killed_and_then_crashed(void **state) {
    (void)state;
    for (size_t k = 0; k <= test_disk_operations(history.disk); k += step()) {
        char *what = test_format("killed after operation %zu", k);
        test_history_kill_and_crash(&history, k, what);
        free(what);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_prefix),
        cmocka_unit_test(during_a_start),
        cmocka_unit_test(killed_and_then_crashed),
    };
    nn_blas_init();
    return cmocka_run_group_tests(tests, make, drop);
}
