/* Memory that runs out, one allocation at a time, while the store is at work: a change, its writing down, a checkpoint, a
 * start. What was refused has changed nothing and left nothing behind, and the disk has what was told. */
#include "../support/check.h"

#include <stdio.h>
#include <string.h>

#include "../support/history.h"
#include "../support/malloc.h"

static long next_n = -1; /* that fails; -1: none */
static bool all, had_failure;
static bool armed_now;

static void watch(bool on) {
    if (next_n < 0) return;
    if (on) test_malloc_fail(next_n, all);
    if (!on) had_failure |= test_malloc_work();
    armed_now = on;
}

/* The disk's own allocations are no part of it. */
static void pause(bool inside) {
    if (armed_now) atomic_store(&armed, !inside);
}

/* Each allocation at first, and then one in ever more; with GRADD_TEST_CRASHES=all, each. */
static long after(long n) {
    static const long at_first[] = {[TEST_CRASHES_FEW] = 12, [TEST_CRASHES_SOME] = 24};
    return n + 1 + (test_crashes() == TEST_CRASHES_ALL ? 0 : n / at_first[test_crashes()]);
}

/* --- a start ------------------------------------------------------------------------------------------ */

static void starts(void **state) {
    (void)state;
    static struct test_history history;
    long tried = 0;
    test_history_make(&history);
    size_t n = test_disk_operations(history.disk);
    test_stored_watch = watch;
    for (int every = 0; every < 2; every++)
        for (long k = 0, more = 1; more; k = after(k), tried++) {
            char text[256];
            struct test_stored stored;
            struct nn_error err = {0};
            struct test_disk *disk = test_disk_image(history.disk, n, 0, text);
            long before = atomic_load(&test_live);
            test_disk_watch(disk, pause);
            next_n = k;
            all = every;
            had_failure = false;
            int code = test_stored_start(&stored, disk, 80, NULL, &err);
            next_n = -1;
            more = had_failure;
            if (code && (code != NN_E_NOMEM || !more)) fail_msg("allocation %ld: %d %s", k, code, err.text);
            if (!code) test_stored_stop(&stored);
            assert_int_equal(test_disk_open_files(disk), 0);
            if (code && atomic_load(&test_live) > before + (long)test_disk_operations(disk) + 64)
                fail_msg("allocation %ld: %ld more are left", k, atomic_load(&test_live) - before);
            err = (struct nn_error){0};
            test_ok(test_stored_start(&stored, disk, 81, NULL, &err), &err, "after allocation %ld", k);
            test_history_check(&history, n, &stored, "a start without memory");
            test_stored_stop(&stored);
            test_disk_free(disk);
        }
    test_stored_watch = NULL;
    print_message("%ld starts\n", tried);
    test_history_free(&history);
}

/* --- a change ----------------------------------------------------------------------------------------- */

static struct test_answer ask(struct test_stored *stored, const char *method, const char *path,
                              const char *body) {
    const struct test_request request = {.method = method,
                                         .path = path,
                                         .idempotency_key = "key",
                                         .body = body,
                                         .size = body ? strlen(body) : 0};
    return test_stored_request(stored, &request);
}

static int status_of(struct test_stored *stored, const char *method, const char *path, const char *body) {
    struct test_answer answer = ask(stored, method, path, body);
    int status = answer.status;
    test_answer_free(&answer);
    return status;
}

static json_int_t version_of(struct test_stored *stored) {
    json_t *json = test_call(&stored->service, 200, "GET /models/m", NULL);
    json_int_t version = json_integer_value(json_object_get(json, "version"));
    json_decref(json);
    return version;
}

/* With the k-th allocation of its own, and of its writing down, failing. False: it has not so many. */
static bool change(long k, bool every) {
    static const char model[] =
        "{\"name\": \"m\", \"inputs\": {\"x\": {\"shape\": [2]}}, \"layers\": [{\"op\": \"linear\","
        " \"out_features\": 1}], \"loss\": {\"op\": \"mse\"}, \"optimizer\": {\"op\": \"sgd\", \"lr\": 0.1},"
        " \"durability\": \"journal\"}";
    static const char update[] = "{\"model\": \"m\", \"apply\": true, \"inputs\": {\"x\": [[1, 2]]},"
                                 " \"targets\": {\"y\": [[3]]}}";
    struct test_stored stored;
    struct nn_error err = {0};
    struct test_disk *disk = test_disk_new();
    test_ok(test_stored_start(&stored, disk, 1, NULL, &err), &err, "a start");
    struct test_pending pending;
    const struct test_request create = {
        .method = "POST", .path = "/models", .body = model, .size = strlen(model)};
    test_submit(&stored.service, &pending, &create);
    test_stored_settle(&stored, &pending);
    struct test_answer created = test_take(&pending);
    assert_int_equal(created.status, 201);
    test_answer_free(&created);

    test_disk_watch(disk, pause);
    stored.service.watch = watch;
    next_n = k;
    all = every;
    had_failure = false;
    struct test_answer answer = ask(&stored, "POST", "/backward", update);
    next_n = -1;
    bool more = had_failure, made = answer.status == 200,
         told = answer.status == 503 && strstr(answer.body, "the change was made");
    if (!made && answer.status != 503 && answer.status != 0)
        fail_msg("allocation %ld: %d %s", k, answer.status, answer.body);
    test_answer_free(&answer);
    assert_int_equal(version_of(&stored), made || told);
    if (!told) {
        assert_int_equal(status_of(&stored, "POST", "/backward", update), 200);
        assert_int_equal(version_of(&stored), 1);
    }
    test_stored_stop(&stored);
    test_ok(test_stored_start(&stored, disk, 2, NULL, &err), &err, "after allocation %ld", k);
    if (!told) assert_int_equal(version_of(&stored), 1);
    test_stored_stop(&stored);
    test_disk_free(disk);
    return more;
}

static void changes(void **state) {
    (void)state;
    long tried = 0;
    test_stored_watch = watch;
    for (int every = 0; every < 2; every++)
        for (long k = 0; change(k, every); k++) tried++;
    test_stored_watch = NULL;
    print_message("%ld changes\n", tried);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(starts),
        cmocka_unit_test(changes),
    };
    nn_blas_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
