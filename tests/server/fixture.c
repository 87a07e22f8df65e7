/* What other releases stored. Data directories that earlier ones wrote are started on, as they were left by a clean stop
 * and by kill -9: see tests/fixtures. What a later one wrote is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <math.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <cmocka.h>

#include "../../server/store/io.h"
#include "../../server/tokens.h"
#include "../support/process.h"

#define FIXTURE "tests/fixtures/data-0e1bd17"

/* A copy of one of its directories, in a place that goes with it. */
struct copy {
    char place[32];
    struct srv_directory *directory;
    json_t *expected; /* what expected.json says of it */
};

static void run(const char *format, ...) {
    char command[256];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    if (system(command) != 0) fail_msg("%s", command); /* NOLINT(cert-env33-c): of this file's own words */
}

static void unpack(struct copy *copy, const char *name) {
    char path[64];
    struct nn_error err = {0};
    json_error_t error;
    snprintf(copy->place, sizeof copy->place, "/tmp/gradd-fixture-XXXXXX");
    assert_non_null(mkdtemp(copy->place));
    run("tar -xzf " FIXTURE "/%s.tar.gz -C %s", name, copy->place);
    snprintf(path, sizeof path, "%s/%s", copy->place, name);
    copy->directory = srv_directory_open(path, false, &err);
    if (!copy->directory) fail_msg("%s", err.text);
    json_t *all = json_load_file(FIXTURE "/expected.json", 0, &error);
    if (!all) fail_msg("%s", error.text);
    copy->expected = json_incref(json_object_get(all, name));
    assert_non_null(copy->expected);
    json_decref(all);
}

static void discard(struct copy *copy) {
    srv_directory_close(copy->directory);
    json_decref(copy->expected);
    run("rm -r %s", copy->place);
}

static int start(struct process *process, struct copy *copy, bool other_numbers, struct nn_error *err) {
    struct srv_store_options options = process_usual;
    options.other_numbers = other_numbers;
    return process_start_on(process, srv_directory_io(copy->directory), &options, false, err);
}

/* --- answers --------------------------------------------------------------------------------------------- */

static bool is_near(const json_t *found, const json_t *expected) {
    if (json_is_number(expected) && json_is_number(found)) {
        double a = json_number_value(found), b = json_number_value(expected);
        return fabs(a - b) <= 1e-5 * fmax(1, fabs(b));
    }
    if (!json_is_array(expected) || json_array_size(found) != json_array_size(expected))
        return json_equal(found, expected);
    for (size_t i = 0; i < json_array_size(expected); i++)
        if (!is_near(json_array_get(found, i), json_array_get(expected, i))) return false;
    return true;
}

/* Each member that is expected, but for some; there may be more, of a later release. `without` is of names between
 * commas. */
static void check_members(const char *what, const json_t *found, const json_t *expected,
                          const char *without) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)expected, name, value) {
        char listed[128];
        snprintf(listed, sizeof listed, ",%s,", name);
        if (strstr(without, listed)) continue;
        const json_t *own = json_object_get(found, name);
        if (json_is_object(value) && json_is_object(own))
            check_members(what, own, value, without);
        else if (!is_near(own, value))
            fail_msg("%s: \"%s\": %s instead of %s", what, name, json_dumps(own, JSON_ENCODE_ANY),
                     json_dumps(value, JSON_ENCODE_ANY));
    }
}

static void check_answer(struct process *process, const struct copy *copy, const char *request,
                         const char *without) {
    const json_t *expected = json_object_get(json_object_get(copy->expected, "answers"), request);
    assert_non_null(expected);
    json_t *found = test_call(&process->service, 200, request, NULL);
    check_members(request, found, expected, without);
    json_decref(found);
}

/* All that was asked of a model, but for some members. */
static void check_model(struct process *process, const struct copy *copy, const char *model,
                        const char *without) {
    static const char *const parts[] = {"", "/parameters", "/optimizer", "/gradients"};
    size_t asked = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        char request[128];
        snprintf(request, sizeof request, "GET /models/%s%s", model, parts[i]);
        if (!json_object_get(json_object_get(copy->expected, "answers"), request)) continue;
        check_answer(process, copy, request, without);
        asked++;
    }
    assert_true(asked >= 2);
}

static json_int_t at(struct process *process, const char *request, const char *member) {
    json_t *found = test_call(&process->service, 200, request, NULL);
    json_int_t value = json_integer_value(json_object_get(found, member));
    json_decref(found);
    return value;
}

/* --- keys ------------------------------------------------------------------------------------------------ */

/* A token is the SHA-256 of its name. */
static void bearer(const char *name, char header[96]) {
    struct sha256_ctx context;
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_init(&context);
    sha256_update(&context, strlen(name), (const uint8_t *)name);
    sha256_digest(&context, sizeof digest, digest);
    int length = snprintf(header, 96, "Bearer ");
    for (size_t i = 0; i < sizeof digest; i++)
        length += snprintf(header + length, 96 - (size_t)length, "%02x", digest[i]);
}

/* A request that comes again with its key is answered as it was, tensors aside, and has no effect. */
static void repeat(struct process *process, const json_t *keyed) {
    const char *request = json_string_value(json_object_get(keyed, "request")),
               *token = json_string_value(json_object_get(keyed, "token")),
               *body = json_string_value(json_object_get(keyed, "body"));
    char authorization[96], method[16];
    const char *path = strchr(request, ' ');
    snprintf(method, sizeof method, "%.*s", (int)(path - request), request);
    if (token) bearer(token, authorization);
    struct test_request whole = {.method = method,
                                 .path = path + 1,
                                 .authorization = token ? authorization : NULL,
                                 .content_type = "application/json",
                                 .idempotency_key = json_string_value(json_object_get(keyed, "key")),
                                 .body = body,
                                 .size = strlen(body)};
    struct test_answer answer = test_request(&process->service, &whole);
    json_t *found = json_loadb(answer.body, answer.size, 0, NULL);
    if (answer.status != json_integer_value(json_object_get(keyed, "status")) ||
        !json_is_true(json_object_get(found, "replayed")))
        fail_msg("%s with the key %s: %d, %s", request, whole.idempotency_key, answer.status, answer.body);
    json_object_del(found, "replayed");
    check_members(request, json_object_get(keyed, "answer"), found, "");
    json_decref(found);
    test_answer_free(&answer);
}

/* First those who had no token, while none is asked for. Returns how many there were. */
static size_t repeat_all(struct process *process, const struct copy *copy) {
    struct nn_error err = {0};
    const json_t *keyed = json_object_get(copy->expected, "keyed"), *one;
    size_t i, n = 0;
    for (int with = 0; with < 2; with++) {
        if (with &&
            srv_tokens_load(process->service.api, &(struct srv_token_file){.path = FIXTURE "/tokens"}, &err))
            fail_msg("%s", err.text);
        json_array_foreach((json_t *)keyed, i, one) {
            if (json_is_string(json_object_get(one, "token")) != (with == 1)) continue;
            repeat(process, one);
            n++;
        }
    }
    return n;
}

/* --- starts ---------------------------------------------------------------------------------------------- */

static const char *const models[] = {"adam", "momentum",  "adagrad", "rmsprop",
                                     "late", "untouched", "plain",   "stopped"};
/* What a stop changes of an answer; and a crash, after which incarnations are drawn anew. */
#define AFTER_A_STOP  ",snapshots,durable_version,"
#define AFTER_A_CRASH AFTER_A_STOP "incarnation,"
#define N_MODELS      (sizeof models / sizeof models[0])

static void a_clean_stop(void **state) {
    (void)state;
    struct copy copy;
    struct process process;
    struct nn_error err;
    unpack(&copy, "clean");
    if (start(&process, &copy, false, &err)) fail_msg("%s", err.text);
    assert_non_null(strstr(process_said, "records behind it: 0; the stop was clean"));
    assert_false(srv_store_damaged(process.store));
    for (size_t i = 0; i < N_MODELS; i++) check_model(&process, &copy, models[i], AFTER_A_STOP);
    process_finish(&process);

    /* And once more, on what this release has written. */
    if (start(&process, &copy, false, &err)) fail_msg("%s", err.text);
    assert_non_null(strstr(process_said, "the stop was clean"));
    for (size_t i = 0; i < N_MODELS; i++) check_model(&process, &copy, models[i], AFTER_A_STOP);
    process_stop(&process);
    discard(&copy);
}

static void keys_after_a_clean_stop(void **state) {
    (void)state;
    struct copy copy;
    struct process process;
    struct nn_error err;
    unpack(&copy, "clean");
    if (start(&process, &copy, false, &err)) fail_msg("%s", err.text);
    assert_int_equal(repeat_all(&process, &copy), 14);
    process_stop(&process);
    if (start(&process, &copy, false, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < N_MODELS; i++) check_model(&process, &copy, models[i], AFTER_A_CRASH);
    process_finish(&process);

    /* And once more, on what this release has written. */
    if (start(&process, &copy, false, &err)) fail_msg("%s", err.text);
    assert_int_equal(repeat_all(&process, &copy), 14);
    process_stop(&process);
    discard(&copy);
}

/* Records are another build's, and so are carried out because this start asks for it. Of partial gradients other rules hold since,
 * so that "adagrad" is at the same version, and no more than that. */
static void a_crash(void **state) {
    (void)state;
    struct copy copy;
    struct process process;
    struct nn_error err;
    unpack(&copy, "killed");
    if (start(&process, &copy, true, &err)) fail_msg("%s", err.text);
    assert_false(srv_store_damaged(process.store));
    for (size_t i = 0; i < N_MODELS; i++)
        if (strcmp(models[i], "adagrad") != 0) check_model(&process, &copy, models[i], AFTER_A_CRASH);
    check_model(&process, &copy, "created", AFTER_A_CRASH "gradients,"); /* of the bias alone now */
    assert_int_equal(at(&process, "GET /models/adagrad", "version"), 8);
    assert_int_equal(repeat_all(&process, &copy), 17);
    process_finish(&process);
    discard(&copy);
}

/* --- later releases -------------------------------------------------------------------------------------- */

static char *find(void *bytes, size_t size, const char *text) {
    char *found = memmem(bytes, size, text, strlen(text));
    assert_non_null(found);
    return found;
}

/* The newest file of this kind; there are two, a digit apart. */
static char *bytes_of(struct test_disk *disk, const char *prefix, size_t *size) {
    char name[128];
    snprintf(name, sizeof name, "%s%020d", prefix, 2);
    char *bytes = (char *)test_disk_bytes(disk, name, size);
    assert_non_null(bytes);
    return bytes;
}

/* In the checkpoint's text, the sum of `bytes`, which was `before`; and its own. */
static void set_sums(struct test_disk *disk, uint64_t before, const void *bytes, size_t size) {
    char old[32], new[32];
    size_t text_size;
    char *text = bytes_of(disk, "checkpoint-", &text_size), *last = text + text_size - 21;
    if (bytes) {
        snprintf(old, sizeof old, " %016llx\n", (unsigned long long)before);
        snprintf(new, sizeof new, " %016llx\n", (unsigned long long)XXH3_64bits(bytes, size));
        memcpy(find(text, text_size, old), new, strlen(new));
    }
    assert_memory_equal(last, "sum ", 4);
    snprintf(new, sizeof new, "%016llx", (unsigned long long)XXH3_64bits(text, text_size - 21));
    memcpy(last + 4, new, 16);
}

/* It is no damage: nothing older comes in its place, not even for who accepts a loss. */
static void refuse(struct test_disk *disk, const char *text) {
    struct process process;
    struct nn_error err;
    struct srv_store_options options = process_usual;
    options.accept_loss = options.other_numbers = true;
    size_t files = process_files_of(disk).n;
    assert_int_equal(process_start_as(&process, disk, &options, false, &err), NN_E_STORE);
    if (!strstr(err.text, text)) fail_msg("%s", err.text);
    assert_int_equal(process_files_of(disk).n, files);
    process_end(&process, disk);
}

static void a_later_release_is_told_by_its_number(void **state) {
    (void)state;
    struct process_numbers m, n;
    size_t size;
    struct test_disk *disk = process_life(&m, &n);
    char *text = bytes_of(disk, "checkpoint-", &size);
    *(find(text, size, "gradd-checkpoint 1") + 17) = '2';
    set_sums(disk, 0, NULL, 0);
    refuse(disk, "checkpoint-00000000000000000002 is of format 2: a later release wrote it");

    disk = process_life(&m, &n);
    char *snapshot = bytes_of(disk, "snapshot-m-", &size);
    uint64_t before = XXH3_64bits(snapshot, size);
    *(find(snapshot, size, "\\\"format\\\":1") + 11) = '2';
    set_sums(disk, before, snapshot, size);
    refuse(disk, "a snapshot of format 2: a later release wrote it");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_clean_stop),
        cmocka_unit_test(keys_after_a_clean_stop),
        cmocka_unit_test(a_crash),
        cmocka_unit_test(a_later_release_is_told_by_its_number),
    };
    return cmocka_run_group_tests_name("fixture", tests, NULL, NULL);
}
