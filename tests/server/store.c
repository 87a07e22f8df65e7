/* The store, with the real service on it: what comes back after a crash and after a clean stop; damaged files, which
 * are named, and made good where an older one can; disks that fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../../server/frame.h"
#include "../../server/store.h"
#include "../support/disk.h"
#include "../support/service.h"

/* --- a process with a store -------------------------------------------------------------------------------- */

struct process {
    struct test_service service;
    struct srv_store *store;
};

static char said[4096]; /* by stores since the last start */

static void hear(const char *line) {
    size_t length = strlen(said);
    snprintf(said + length, sizeof said - length, "%s\n", line);
}

static int64_t now_ms(void) { return INT64_C(1700000000000); }

static const struct srv_store_options usual = {
    .segment_bytes = 4096,
    .checkpoint_bytes = UINT64_MAX,
    .checkpoint_ms = 1000000000,
    .snapshots = 2,
    .threads = true,
    .now_ms = now_ms,
    .log = hear,
};

static int start_on(struct process *process, const struct srv_io *io, const struct srv_store_options *options,
                    bool read_only, struct nn_error *err) {
    static int starts;
    *said = '\0';
    *err = (struct nn_error){0};
    process->store = srv_store_new(io, options, err);
    assert_non_null(process->store);
    test_service_start_stored(&process->service, NULL, 0, srv_store_api(process->store));
    atomic_store(&process->service.drawn, (unsigned long long)++starts * 1000000);
    api_set_starting(process->service.api, true);
    int code = srv_store_recover(process->store, process->service.api, read_only, err);
    if (!code) api_set_starting(process->service.api, false);
    return code;
}

static int start_as(struct process *process, struct test_disk *disk, const struct srv_store_options *options,
                    bool read_only, struct nn_error *err) {
    return start_on(process, test_disk_io(disk), options, read_only, err);
}

static void start(struct process *process, struct test_disk *disk) {
    struct nn_error err;
    if (start_as(process, disk, &usual, false, &err)) fail_msg("%s", err.text);
}

/* As kill -9 ends it. */
static void stop(struct process *process) {
    srv_store_free(process->store);
    test_service_stop(&process->service);
}

static void finish(struct process *process) {
    struct nn_error err = {0};
    if (srv_store_finish(process->store, &err)) fail_msg("%s", err.text);
    stop(process);
}

static void checkpoint(struct process *process) {
    struct nn_error err = {0};
    if (srv_store_checkpoint(process->store, &err)) fail_msg("%s", err.text);
}

static void wait_for_checkpoints(const struct process *process, uint64_t n) {
    const struct api_store *store = srv_store_api(process->store);
    struct api_store_status status = {0};
    do store->status(store->self, &status);
    while (status.checkpoints < n);
}

/* --- what it is asked --------------------------------------------------------------------------------------- */

static void create(struct process *process, const char *name, const char *durability) {
    json_decref(
        test_ask(&process->service, 201, "POST /models", NULL,
                 "{'name': '%s', 'seed': 5, 'durability': '%s', 'inputs': {'x': {'shape': [3]}}, 'layers': "
                 "[{'op': 'linear', 'out_features': 40}, {'op': 'linear', 'out_features': 2}], 'loss': "
                 "{'op': 'mse'}, 'optimizer': {'op': 'adam', 'lr': 0.01}}",
                 name, durability));
}

static void step(struct process *process, int status, const char *name) {
    json_decref(test_ask(
        &process->service, status, "POST /backward", NULL,
        "{'model': '%s', 'apply': true, 'inputs': {'x': [[1, 2, 3]]}, 'targets': {'y': [[0, 1]]}}", name));
}

static void steps(struct process *process, const char *name, int n) {
    for (int i = 0; i < n; i++) step(process, 200, name);
}

static void text_of(struct process *process, const char *name, const char *part, char *text, size_t size) {
    char request[128];
    snprintf(request, sizeof request, "GET /models/%s%s", name, part);
    json_t *json = test_call(&process->service, 0, request, NULL);
    json_object_del(json, "incarnation");
    char *dump = json_dumps(json, JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    assert_true(strlen(dump) < size);
    snprintf(text, size, "%s", dump);
    free(dump);
    json_decref(json);
}

/* A model's numbers, the optimizer's among them. */
struct numbers {
    char text[32768];
};

static void look(struct process *process, const char *name, struct numbers *numbers) {
    char *half = numbers->text + sizeof numbers->text / 2;
    text_of(process, name, "/parameters", numbers->text, sizeof numbers->text / 2);
    text_of(process, name, "/optimizer", half, sizeof numbers->text / 2);
}

static void assert_same(struct process *process, const char *name, const struct numbers *expected) {
    struct numbers found;
    look(process, name, &found);
    assert_string_equal(found.text, expected->text);
    assert_string_equal(found.text + sizeof found.text / 2, expected->text + sizeof found.text / 2);
}

static json_int_t version_of(struct process *process, const char *name) {
    char request[128];
    snprintf(request, sizeof request, "GET /models/%s", name);
    json_t *json = test_call(&process->service, 200, request, NULL);
    json_int_t version = json_integer_value(json_object_get(json, "version"));
    json_decref(json);
    return version;
}

static void incarnation_of(struct process *process, const char *name, char incarnation[32]) {
    char request[128];
    snprintf(request, sizeof request, "GET /models/%s", name);
    json_t *json = test_call(&process->service, 200, request, NULL);
    snprintf(incarnation, 32, "%s", json_string_value(json_object_get(json, "incarnation")));
    json_decref(json);
}

/* --- its files ---------------------------------------------------------------------------------------------- */

struct files {
    char names[64][128];
    size_t n;
};

static void note_file(void *arg, const char *name) {
    struct files *files = arg;
    assert_true(files->n < 64);
    snprintf(files->names[files->n++], sizeof files->names[0], "%s", name);
}

static struct files files_of(const struct test_disk *disk) {
    struct files files = {.n = 0};
    const struct srv_io *io = test_disk_io(disk);
    assert_int_equal(io->list(io->self, note_file, &files), 0);
    return files;
}

static size_t count_files(const struct test_disk *disk, const char *prefix) {
    struct files files = files_of(disk);
    size_t n = 0;
    for (size_t i = 0; i < files.n; i++) n += strncmp(files.names[i], prefix, strlen(prefix)) == 0;
    return n;
}

/* The one of these with the highest number, or `back` files before that. */
static void newest_file(const struct test_disk *disk, const char *prefix, int back, char name[128]) {
    struct files files = files_of(disk);
    char below[128] = "~";
    for (; back >= 0; back--) {
        *name = '\0';
        for (size_t i = 0; i < files.n; i++)
            if (strncmp(files.names[i], prefix, strlen(prefix)) == 0 && strcmp(files.names[i], name) > 0 &&
                strcmp(files.names[i], below) < 0)
                snprintf(name, 128, "%s", files.names[i]);
        snprintf(below, sizeof below, "%s", name);
    }
    assert_true(*name);
}

static void spoil_at(struct test_disk *disk, const char *name, size_t at) {
    size_t size;
    unsigned char *bytes = test_disk_bytes(disk, name, &size);
    assert_non_null(bytes);
    bytes[at < size ? at : size / 2] ^= 0x40;
}

static void spoil(struct test_disk *disk, const char *name) { spoil_at(disk, name, SIZE_MAX); }

static struct test_disk *copy(const struct test_disk *disk) {
    char text[256];
    return test_disk_image(disk, test_disk_operations(disk), 0, text);
}

/* --- a life ------------------------------------------------------------------------------------------------- */

/* Two checkpoints, changes behind each, and a crash. */
static struct test_disk *a_life(struct numbers *journalled, struct numbers *plain) {
    struct test_disk *disk = test_disk_new();
    struct process process;
    start(&process, disk);
    create(&process, "m", "journal");
    create(&process, "n", "snapshot");
    steps(&process, "m", 3);
    steps(&process, "n", 3);
    checkpoint(&process);
    steps(&process, "m", 4);
    steps(&process, "n", 2);
    checkpoint(&process);
    look(&process, "n", plain);
    steps(&process, "n", 2);
    steps(&process, "m", 5);
    look(&process, "m", journalled);
    stop(&process);
    return disk;
}

static void what_was_answered_survives_a_crash(void **state) {
    (void)state;
    struct numbers m, n;
    struct process process;
    struct test_disk *disk = a_life(&m, &n);
    start(&process, disk);
    assert_same(&process, "m", &m);
    assert_same(&process, "n", &n);
    assert_non_null(strstr(said, "recovered from checkpoint 2: models: 2, records behind it: 5"));
    steps(&process, "m", 1);
    look(&process, "m", &m);
    stop(&process);
    start(&process, disk);
    assert_same(&process, "m", &m);
    stop(&process);
    test_disk_free(disk);
}

/* A disk under which somebody asks for a change whenever names are synced. */
static struct process *to_ask;
static int asked;

static int sync_amid_requests(void *self) {
    struct test_disk *disk = self;
    test_do(&to_ask->service, 503, "GET /readyz", NULL);
    test_do(&to_ask->service, 200, "GET /healthz", NULL);
    step(to_ask, 503, "m");
    asked++;
    return test_disk_io(disk)->sync_directory(disk);
}

/* The journal that a start has read is not one that can be appended to, until the start is over. */
static void nobody_is_served_before_changes_can_be_stored(void **state) {
    (void)state;
    struct numbers m, n;
    struct nn_error err;
    struct process process;
    struct test_disk *disk = a_life(&m, &n);
    struct srv_io io = *test_disk_io(disk);
    struct srv_store_options options = usual;
    options.threads = false;
    io.sync_directory = sync_amid_requests;
    to_ask = &process;
    if (start_on(&process, &io, &options, false, &err)) fail_msg("%s", err.text);
    assert_true(asked > 0);
    assert_same(&process, "m", &m);
    stop(&process);
    start(&process, disk);
    assert_same(&process, "m", &m);
    stop(&process);
    test_disk_free(disk);
}

static void a_clean_stop_keeps_the_incarnation(void **state) {
    (void)state;
    struct numbers m, n;
    struct process process;
    char before[32], after[32];
    struct test_disk *disk = a_life(&m, &n);
    start(&process, disk);
    steps(&process, "n", 2);
    incarnation_of(&process, "n", before);
    look(&process, "n", &n);
    finish(&process);
    assert_int_equal(count_files(disk, "clean-"), 1);

    for (int i = 0; i < 2; i++) { /* and so does one at which there is nothing to write */
        start(&process, disk);
        assert_int_equal(count_files(disk, "clean-"), 0);
        incarnation_of(&process, "n", after);
        assert_string_equal(after, before);
        assert_same(&process, "n", &n);
        assert_non_null(strstr(said, "the stop was clean"));
        finish(&process);
    }
    /* Changes that nothing tells of, and a crash: whoever saw them must see that they are gone. */
    start(&process, disk);
    step(&process, 200, "n");
    stop(&process);
    start(&process, disk);
    incarnation_of(&process, "n", after);
    assert_string_not_equal(after, before);
    assert_same(&process, "n", &n);
    stop(&process);
    test_disk_free(disk);
}

/* A disk under which somebody changes "m" as soon as the snapshot of "a", the first of a checkpoint, is written, and
 * does away with "gone" where that is there. */
static struct process *to_change;

static int rename_amid_changes(void *self, const char *from, const char *to) {
    struct test_disk *disk = self;
    if (to_change && strncmp(to, "snapshot-a", 10) == 0) {
        steps(to_change, "m", 2);
        json_decref(test_call(&to_change->service, 0, "DELETE /models/gone", NULL));
    }
    return test_disk_io(disk)->rename(test_disk_io(disk)->self, from, to);
}

static void start_amid_changes(struct process *process, struct test_disk *disk, struct srv_io *io) {
    struct nn_error err;
    *io = *test_disk_io(disk);
    assert_ptr_equal(io->self, disk);
    io->rename = rename_amid_changes;
    if (start_on(process, io, &usual, false, &err)) fail_msg("%s", err.text);
}

static void checkpoint_amid_changes(struct process *process) {
    to_change = process;
    checkpoint(process);
    to_change = NULL;
}

static void a_stop_right_behind_a_checkpoint_is_clean(void **state) {
    (void)state;
    struct process process;
    struct numbers m;
    char before[32], after[32];
    struct test_disk *disk = test_disk_new();
    struct srv_io io;
    start_amid_changes(&process, disk, &io);
    create(&process, "a", "snapshot");
    create(&process, "m", "journal");
    checkpoint_amid_changes(&process);
    incarnation_of(&process, "m", before);
    look(&process, "m", &m);
    finish(&process);

    start(&process, disk);
    assert_non_null(strstr(said, "the stop was clean"));
    incarnation_of(&process, "m", after);
    assert_string_equal(after, before);
    assert_same(&process, "m", &m);
    stop(&process);
    test_disk_free(disk);
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
    start(&process, disk);
    create(&process, "m", "journal");
    create(&process, "idle", "journal");
    for (int i = 0; i < 10; i++) {
        steps(&process, "m", 6);
        checkpoint(&process);
    }
    assert_int_equal(count_files(disk, "checkpoint-"), 2);
    assert_int_equal(count_files(disk, "snapshot-idle-"), 1); /* it has not changed */
    assert_int_equal(count_files(disk, "snapshot-m-"), 3);    /* two, and the older checkpoint's second */
    assert_in_range(count_files(disk, "journal-"), 1, 4);
    assert_int_equal(count_files(disk, ""), files_of(disk).n);

    char birth[32];
    const struct api_store *store = srv_store_api(process.store);
    struct api_stored stored[4];
    incarnation_of(&process, "m", birth); /* it is its first */
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
    checkpoint(&process);
    checkpoint(&process);
    assert_int_equal(count_files(disk, "snapshot-m-"), 0);
    stop(&process);

    start(&process, disk);
    assert_int_equal(version_of(&process, "idle"), 0);
    test_do(&process.service, 404, "GET /models/m", NULL);
    stop(&process);
    test_disk_free(disk);
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
    start(&process, disk);
    create(&process, "m", "journal");
    steps(&process, "m", 2);
    checkpoint(&process);
    assert_int_equal(count_snapshots(&process), 1);
    test_do(&process.service, 200, "DELETE /models/m", NULL);
    create(&process, "m", "journal");
    for (int starts = 0; starts < 2; starts++) {
        assert_int_equal(count_snapshots(&process), 0);
        json_decref(restore(&process, 404, "{'version': 2}"));
        json_t *problem = restore(&process, 404, "{}");
        assert_string_equal(json_string_value(json_object_get(problem, "detail")),
                            "there is no snapshot of \"m\" yet");
        json_decref(problem);
        if (starts) break;
        stop(&process);
        struct nn_error err;
        struct srv_store_options options = usual;
        options.threads = false; /* which would take a checkpoint at once */
        if (start_as(&process, disk, &options, false, &err)) fail_msg("%s", err.text);
    }
    checkpoint(&process);
    stop(&process);
    start(&process, disk);
    assert_int_equal(count_snapshots(&process), 1);
    steps(&process, "m", 3);
    json_decref(restore(&process, 200, "{}"));
    assert_int_equal(version_of(&process, "m"), 0);
    stop(&process);
    test_disk_free(disk);
}

/* --- damage ------------------------------------------------------------------------------------------------- */

/* One file of each kind that went bad costs nothing that was journalled, and is named. */
static void a_damaged_file_is_named_and_made_good(void **state) {
    (void)state;
    static const char *const kinds[] = {"checkpoint-", "snapshot-m-", "snapshot-n-"};
    struct numbers m, n;
    struct test_disk *disk = a_life(&m, &n);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        for (int missing = 0; missing < 2; missing++)
            for (int back = 0; back < 2; back++) {
                struct process process;
                char name[128];
                struct test_disk *bad = copy(disk);
                newest_file(bad, kinds[i], back, name);
                if (missing)
                    test_disk_io(bad)->remove(test_disk_io(bad)->self, name);
                else
                    spoil(bad, name);
                start(&process, bad);
                assert_same(&process, "m", &m);
                /* A checkpoint that is not there leaves no trace; what is not needed is not looked at. */
                bool seen = back == 0 ? !(missing && i == 0) : i == 0 && !missing;
                if (seen) assert_non_null(strstr(said, name));
                assert_int_equal(srv_store_damaged(process.store), seen);
                assert_int_equal(version_of(&process, "n"), back == 0 && i != 1 ? 3 : 5);
                checkpoint(&process);
                stop(&process);
                start(&process, bad);
                assert_same(&process, "m", &m);
                assert_false(srv_store_damaged(process.store));
                stop(&process);
                test_disk_free(bad);
            }
    test_disk_free(disk);
}

/* Where one snapshot is kept of a model, the checkpoint before the newest has another. */
static void the_only_snapshot_has_one_behind_it(void **state) {
    (void)state;
    static const char *const models[] = {"m", "n", "again"};
    struct numbers numbers[3];
    struct process process;
    struct nn_error err;
    struct srv_store_options options = usual;
    options.snapshots = 1;
    struct test_disk *disk = test_disk_new();
    if (start_as(&process, disk, &options, false, &err)) fail_msg("%s", err.text);
    create(&process, "m", "journal");
    create(&process, "n", "snapshot");
    create(&process, "again", "journal");
    steps(&process, "n", 2);
    steps(&process, "again", 2);
    checkpoint(&process);
    look(&process, "n", &numbers[1]);
    test_do(&process.service, 200, "DELETE /models/again", NULL);
    create(&process, "again", "journal"); /* another one, under that name */
    for (int i = 0; i < 3; i++) steps(&process, models[i], 3);
    checkpoint(&process);
    steps(&process, "m", 3);
    steps(&process, "again", 3);
    look(&process, "m", &numbers[0]);
    look(&process, "again", &numbers[2]);
    stop(&process);

    for (int i = 0; i < 3; i++) {
        char prefix[32], name[128];
        struct test_disk *bad = copy(disk);
        snprintf(prefix, sizeof prefix, "snapshot-%s-", models[i]);
        newest_file(bad, prefix, 0, name);
        spoil(bad, name);
        if (start_as(&process, bad, &options, false, &err)) fail_msg("%s", err.text);
        assert_non_null(strstr(said, name));
        assert_true(srv_store_damaged(process.store));
        assert_same(&process, models[i], &numbers[i]);
        assert_same(&process, "m", &numbers[0]);
        stop(&process);
        test_disk_free(bad);
    }
    test_disk_free(disk);
}

static void refuse(struct test_disk *disk, const char *names) {
    struct process process;
    struct nn_error err;
    size_t before = test_disk_operations(disk);
    assert_int_equal(start_as(&process, disk, &usual, false, &err), NN_E_CORRUPT);
    assert_non_null(strstr(err.text, names));
    stop(&process);
    assert_int_equal(test_disk_operations(disk), before); /* nothing was changed */
}

static void accept(struct process *process, struct test_disk *disk) {
    struct nn_error err;
    struct srv_store_options options = usual;
    options.accept_loss = true;
    if (start_as(process, disk, &options, false, &err)) fail_msg("%s", err.text);
    assert_true(srv_store_damaged(process->store));
}

static void a_model_without_a_good_snapshot_is_refused(void **state) {
    (void)state;
    struct numbers m, n;
    struct test_disk *disk = a_life(&m, &n);
    struct process process;
    char name[128];
    for (int back = 0; back < 2; back++) {
        newest_file(disk, "snapshot-n-", back, name);
        spoil(disk, name);
    }
    newest_file(disk, "snapshot-n-", 0, name);
    refuse(disk, name);
    accept(&process, disk);
    test_do(&process.service, 404, "GET /models/n", NULL);
    assert_same(&process, "m", &m);
    stop(&process);
    start(&process, disk); /* it is over */
    assert_same(&process, "m", &m);
    assert_false(srv_store_damaged(process.store));
    stop(&process);
    test_disk_free(disk);
}

/* A model that is new has all of its life in the journal still. */
static void a_new_model_comes_from_the_journal(void **state) {
    (void)state;
    struct numbers m, n, young;
    struct test_disk *disk = a_life(&m, &n);
    struct process process;
    char name[128];
    start(&process, disk);
    wait_for_checkpoints(&process, 1); /* which follows a crash by itself */
    create(&process, "young", "journal");
    steps(&process, "young", 3);
    checkpoint(&process);
    steps(&process, "young", 3);
    look(&process, "young", &young);
    stop(&process);
    newest_file(disk, "snapshot-young-", 0, name);
    spoil(disk, name);
    start(&process, disk);
    assert_same(&process, "young", &young);
    assert_same(&process, "m", &m);
    assert_non_null(strstr(said, name));
    stop(&process);
    test_disk_free(disk);
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
    struct numbers m, n;
    struct test_disk *disk = a_life(&m, &n);
    struct process process;
    struct nn_error err;
    struct srv_io io = *test_disk_io(disk);
    io.open = open_others;
    start(&process, disk);
    json_decref(test_ask(&process.service, 200, "POST /backward",
                         &(struct test_request){.idempotency_key = "k"},
                         "{'model': 'n', 'apply': true, 'inputs': {'x': [[1, 2, 3]]}, 'targets': "
                         "{'y': [[0, 1]]}}"));
    finish(&process);
    size_t before = test_disk_operations(disk);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct srv_store_options options = usual;
        options.accept_loss = true; /* it is none */
        newest_file(disk, kinds[i], 0, shut);
        process.store = srv_store_new(&io, &options, &(struct nn_error){0});
        if (process.store) {
            srv_store_free(process.store);
            assert_int_equal(start_on(&process, &io, &options, false, &err), NN_E_STORE);
            assert_non_null(strstr(err.text, shut));
            stop(&process);
        }
        assert_int_equal(test_disk_operations(disk), before);
    }
    start(&process, disk);
    assert_int_equal(version_of(&process, "n"), 6);
    assert_non_null(strstr(said, "the stop was clean"));
    stop(&process);
    test_disk_free(disk);
}

static void without_a_checkpoint_nothing_is_thrown_away(void **state) {
    (void)state;
    struct numbers m, n;
    struct test_disk *disk = a_life(&m, &n);
    struct process process;
    struct nn_error err;
    struct srv_store_options options = usual;
    char name[128];
    options.accept_loss = true;
    for (int back = 0; back < 2; back++) {
        newest_file(disk, "checkpoint-", back, name);
        spoil(disk, name);
    }
    refuse(disk, "checkpoint-");
    size_t before = test_disk_operations(disk);
    assert_int_equal(start_as(&process, disk, &options, false, &err), NN_E_CORRUPT);
    assert_int_equal(test_disk_operations(disk), before);
    stop(&process);
    test_disk_free(disk);
}

/* The byte at which record `seq` begins in the file that has it. */
static size_t find_record(const struct test_disk *disk, uint64_t seq, char name[128]) {
    struct files files = files_of(disk);
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
    struct numbers m, n;
    struct process process;
    struct test_disk *disk = a_life(&m, &n);
    struct nn_error err;
    if (start_as(&process, disk, &usual, true, &err)) fail_msg("%s", err.text);
    uint64_t last = srv_store_api(process.store)->last(srv_store_api(process.store)->self);
    json_int_t version = version_of(&process, "m");
    stop(&process);
    char name[128], where[192];
    size_t at = find_record(disk, last - 2, name);
    spoil_at(disk, name, at + sizeof(struct srv_frame) + 5);
    snprintf(where, sizeof where, "%s is damaged at byte %zu: record %d", name, at, (int)last - 2);
    refuse(disk, where);
    accept(&process, disk);
    assert_int_equal(version_of(&process, "m"), version - 3);
    steps(&process, "m", 1);
    look(&process, "m", &m);
    stop(&process);
    start(&process, disk);
    assert_same(&process, "m", &m);
    stop(&process);
    test_disk_free(disk);
}

/* As if all of it had been written elsewhere. */
static void move_to_another_machine(struct test_disk *disk) {
    struct files files = files_of(disk);
    for (size_t i = 0; i < files.n; i++) {
        size_t size;
        unsigned char *bytes = test_disk_bytes(disk, files.names[i], &size);
        struct srv_journal_header header;
        if (strncmp(files.names[i], "journal-", 8) != 0) continue;
        memcpy(&header, bytes, sizeof header);
        srv_journal_header_init(&header, header.first, header.salt, "another machine");
        memcpy(bytes, &header, sizeof header);
    }
}

/* Records of another build are replayed by who says so alone. */
static void other_numbers_are_not_replayed_unasked(void **state) {
    (void)state;
    struct numbers m, n;
    struct process process;
    struct nn_error err;
    struct test_disk *disk = a_life(&m, &n), *other = copy(disk);
    move_to_another_machine(disk);
    move_to_another_machine(other);
    refuse(disk, "written by another build");
    struct srv_store_options options = usual;
    options.other_numbers = true;
    if (start_as(&process, disk, &options, false, &err)) fail_msg("%s", err.text);
    assert_same(&process, "m", &m);
    stop(&process);
    test_disk_free(disk);

    accept(&process, other);
    assert_int_equal(version_of(&process, "m"), 7);
    stop(&process);
    start(&process, other); /* it is over */
    assert_int_equal(version_of(&process, "m"), 7);
    assert_false(srv_store_damaged(process.store));
    steps(&process, "m", 1);
    look(&process, "m", &m);
    stop(&process);
    start(&process, other);
    assert_same(&process, "m", &m);
    stop(&process);
    test_disk_free(other);
}

/* What the snapshots have is not carried out again, and so may have been written anywhere. */
static void other_numbers_that_snapshots_have_are_no_matter(void **state) {
    (void)state;
    struct process process;
    struct srv_io io;
    struct numbers m;
    struct test_disk *disk = test_disk_new();
    start_amid_changes(&process, disk, &io);
    create(&process, "a", "snapshot");
    create(&process, "m", "journal");
    create(&process, "gone", "journal");
    checkpoint_amid_changes(&process);
    look(&process, "m", &m);
    stop(&process);
    struct test_disk *later = copy(disk);
    move_to_another_machine(disk);
    start(&process, disk);
    assert_non_null(strstr(said, "records behind it: 3"));
    assert_false(srv_store_damaged(process.store));
    assert_same(&process, "m", &m);
    steps(&process, "m", 1);
    look(&process, "m", &m);
    stop(&process);
    start(&process, disk);
    assert_same(&process, "m", &m);
    stop(&process);
    test_disk_free(disk);

    /* The first change that they lack is one too many, whichever model's it is. */
    start(&process, later);
    wait_for_checkpoints(&process, 1); /* which follows a crash by itself */
    test_do(&process.service, 200, "DELETE /models/a", NULL);
    stop(&process);
    move_to_another_machine(later);
    refuse(later, "written by another build");
    test_disk_free(later);
}

static void verify_changes_nothing(void **state) {
    (void)state;
    struct numbers m, n;
    struct process process;
    struct nn_error err;
    struct test_disk *disk = a_life(&m, &n);
    size_t before = test_disk_operations(disk);
    if (start_as(&process, disk, &usual, true, &err)) fail_msg("%s", err.text);
    assert_same(&process, "m", &m);
    assert_false(srv_store_damaged(process.store));
    stop(&process);
    assert_int_equal(test_disk_operations(disk), before);
    test_disk_free(disk);
}

/* --- disks that fail ---------------------------------------------------------------------------------------- */

/* Whatever fails of a checkpoint: what it left goes, changes are taken, and the next one is well. */
static void a_checkpoint_that_fails_harms_nothing(void **state) {
    (void)state;
    static const enum test_disk_kind kinds[] = {TEST_DISK_CREATE, TEST_DISK_WRITE, TEST_DISK_SYNC,
                                                TEST_DISK_RENAME, TEST_DISK_SYNC_DIRECTORY};
    struct test_disk *disk = test_disk_new();
    struct process process;
    struct numbers m;
    start(&process, disk);
    create(&process, "m", "journal");
    create(&process, "n", "snapshot");
    checkpoint(&process);
    int failures = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        bool failed = true;
        for (int nth = 0; failed; nth++) {
            struct nn_error err = {0};
            step(&process, 200, "n");
            step(&process, 200, "m");
            test_disk_fail(disk, kinds[i], nth, ENOSPC, false);
            int code = srv_store_checkpoint(process.store, &err);
            failed = test_disk_work(disk);
            if (code) {
                failures++;
                assert_int_equal(code, NN_E_STORE);
                assert_non_null(strstr(err.text, "No space left"));
            }
            assert_int_equal(count_files(disk, "snapshot-n-") <= 4, 1);
            step(&process, 200, "m");
            checkpoint(&process);
        }
    }
    assert_true(failures >= 12);
    struct files files = files_of(disk);
    for (size_t i = 0; i < files.n; i++) assert_null(strchr(files.names[i], '~'));
    look(&process, "m", &m);
    stop(&process);
    start(&process, disk);
    assert_same(&process, "m", &m);
    assert_false(srv_store_damaged(process.store));
    stop(&process);
    test_disk_free(disk);
}

static void a_journal_that_fails_refuses_changes(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    struct process process;
    struct numbers m;
    struct nn_error err = {0};
    start(&process, disk);
    create(&process, "m", "journal");
    create(&process, "free", "none");
    steps(&process, "m", 3);
    checkpoint(&process);
    steps(&process, "m", 3);
    test_disk_fail(disk, TEST_DISK_SYNC, 0, EIO, true);
    step(&process, 503, "m");
    test_disk_work(disk);
    step(&process, 503, "m"); /* for good */
    assert_non_null(strstr(said, "the store has failed"));
    assert_non_null(strstr(said, "Input/output error"));
    test_do(&process.service, 200, "GET /models/m/parameters", NULL);
    step(&process, 200, "free");
    assert_int_equal(srv_store_checkpoint(process.store, &err), NN_E_STORE);
    assert_int_equal(srv_store_finish(process.store, &err), NN_E_STORE);
    stop(&process);

    start(&process, disk);
    assert_in_range(version_of(&process, "m"), 6, 7); /* of the one that failed nobody knows */
    steps(&process, "m", 2);
    look(&process, "m", &m);
    stop(&process);
    start(&process, disk);
    assert_same(&process, "m", &m);
    stop(&process);
    test_disk_free(disk);
}

static void a_full_disk_refuses_changes_until_there_is_room(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    struct process process;
    struct numbers m;
    start(&process, disk);
    create(&process, "m", "journal");
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
    json_int_t version = version_of(&process, "m");
    assert_int_equal(version, taken - 1); /* refused is not made */
    test_disk_work(disk);
    steps(&process, "m", 2);
    assert_int_equal(version_of(&process, "m"), version + 2);
    look(&process, "m", &m);
    stop(&process);
    start(&process, disk);
    assert_same(&process, "m", &m);
    stop(&process);
    test_disk_free(disk);
}

/* --- when checkpoints are taken ------------------------------------------------------------------------------ */

static void checkpoints_come_by_bytes_by_time_and_when_wanted(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    struct process process;
    struct nn_error err;
    struct srv_store_options options = usual;
    options.checkpoint_bytes = 2000;
    if (start_as(&process, disk, &options, false, &err)) fail_msg("%s", err.text);
    create(&process, "m", "journal");
    steps(&process, "m", 20);
    wait_for_checkpoints(&process, 1);
    stop(&process);

    start(&process, disk);
    srv_store_api(process.store)->want_checkpoint(srv_store_api(process.store)->self);
    wait_for_checkpoints(&process, 1);
    stop(&process);

    options = usual;
    options.checkpoint_ms = 1;
    if (start_as(&process, disk, &options, false, &err)) fail_msg("%s", err.text);
    steps(&process, "m", 1);
    wait_for_checkpoints(&process, 1);
    stop(&process);
    test_disk_free(disk);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_answered_survives_a_crash),
        cmocka_unit_test(nobody_is_served_before_changes_can_be_stored),
        cmocka_unit_test(a_clean_stop_keeps_the_incarnation),
        cmocka_unit_test(a_stop_right_behind_a_checkpoint_is_clean),
        cmocka_unit_test(what_nobody_needs_is_removed),
        cmocka_unit_test(snapshots_are_of_a_model_and_not_of_its_name),
        cmocka_unit_test(a_damaged_file_is_named_and_made_good),
        cmocka_unit_test(the_only_snapshot_has_one_behind_it),
        cmocka_unit_test(a_model_without_a_good_snapshot_is_refused),
        cmocka_unit_test(a_new_model_comes_from_the_journal),
        cmocka_unit_test(a_file_that_may_not_be_read_is_not_damaged),
        cmocka_unit_test(without_a_checkpoint_nothing_is_thrown_away),
        cmocka_unit_test(a_damaged_record_is_refused),
        cmocka_unit_test(other_numbers_are_not_replayed_unasked),
        cmocka_unit_test(other_numbers_that_snapshots_have_are_no_matter),
        cmocka_unit_test(verify_changes_nothing),
        cmocka_unit_test(a_checkpoint_that_fails_harms_nothing),
        cmocka_unit_test(a_journal_that_fails_refuses_changes),
        cmocka_unit_test(a_full_disk_refuses_changes_until_there_is_room),
        cmocka_unit_test(checkpoints_come_by_bytes_by_time_and_when_wanted),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
