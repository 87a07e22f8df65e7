/* process.c - see process.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "process.h"

/* --- a process with a store -------------------------------------------------------------------------------- */

char process_said[4096];

static void hear(const char *line) {
    size_t length = strlen(process_said);
    snprintf(process_said + length, sizeof process_said - length, "%s\n", line);
}

static int64_t now_ms(void) { return INT64_C(1700000000000); }

const struct srv_store_options process_usual = {
    .segment_bytes = 4096,
    .checkpoint_bytes = UINT64_MAX,
    .checkpoint_ms = 1000000000,
    .snapshots = 2,
    .threads = true,
    .now_ms = now_ms,
    .log = hear,
};

size_t process_memory;

int process_start_on(struct process *process, const struct srv_io *io,
                     const struct srv_store_options *options, bool read_only, struct nn_error *err) {
    static int starts;
    *process_said = '\0';
    *err = (struct nn_error){0};
    process->store = srv_store_new(io, options, err);
    assert_non_null(process->store);
    struct api_settings settings = {.limits = api_default_limits, .version = "0.0.0-test", .tile = {4, 4}};
    if (process_memory) settings.limits.memory = process_memory;
    test_service_start_stored(&process->service, &settings, 0, srv_store_api(process->store));
    atomic_store(&process->service.drawn, (unsigned long long)++starts * 1000000);
    api_set_starting(process->service.api, true);
    int code = srv_store_recover(process->store, process->service.api, read_only, err);
    if (!code) api_set_starting(process->service.api, false);
    return code;
}

int process_start_as(struct process *process, struct test_disk *disk, const struct srv_store_options *options,
                     bool read_only, struct nn_error *err) {
    return process_start_on(process, test_disk_io(disk), options, read_only, err);
}

void process_start(struct process *process, struct test_disk *disk) {
    struct nn_error err;
    if (process_start_as(process, disk, &process_usual, false, &err)) fail_msg("%s", err.text);
}

void process_stop(struct process *process) {
    srv_store_free(process->store);
    test_service_stop(&process->service);
}

void process_end(struct process *process, struct test_disk *disk) {
    process_stop(process);
    test_disk_free(disk);
}

void process_finish(struct process *process) {
    struct nn_error err = {0};
    if (srv_store_finish(process->store, &err)) fail_msg("%s", err.text);
    process_stop(process);
}

void process_checkpoint(struct process *process) {
    struct nn_error err = {0};
    if (srv_store_checkpoint(process->store, &err)) fail_msg("%s", err.text);
}

void process_wait_for_checkpoints(const struct process *process, uint64_t n) {
    const struct api_store *store = srv_store_api(process->store);
    struct api_store_status status = {0};
    do store->status(store->self, &status);
    while (status.checkpoints < n);
}

/* --- what it is asked --------------------------------------------------------------------------------------- */

void process_create(struct process *process, const char *name, const char *durability) {
    json_decref(
        test_ask(&process->service, 201, "POST /models", NULL,
                 "{'name': '%s', 'seed': 5, 'durability': '%s', 'inputs': {'x': {'shape': [3]}}, 'layers': "
                 "[{'op': 'linear', 'out_features': 40}, {'op': 'linear', 'out_features': 2}], 'loss': "
                 "{'op': 'mse'}, 'optimizer': {'op': 'adam', 'lr': 0.01}}",
                 name, durability));
}

void process_step(struct process *process, int status, const char *name) {
    json_decref(test_ask(
        &process->service, status, "POST /backward", NULL,
        "{'model': '%s', 'apply': true, 'inputs': {'x': [[1, 2, 3]]}, 'targets': {'y': [[0, 1]]}}", name));
}

void process_steps(struct process *process, const char *name, int n) {
    for (int i = 0; i < n; i++) process_step(process, 200, name);
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

void process_look(struct process *process, const char *name, struct process_numbers *numbers) {
    char *half = numbers->text + sizeof numbers->text / 2;
    text_of(process, name, "/parameters", numbers->text, sizeof numbers->text / 2);
    text_of(process, name, "/optimizer", half, sizeof numbers->text / 2);
}

void process_is_as(struct process *process, const char *name, const struct process_numbers *expected) {
    struct process_numbers found;
    process_look(process, name, &found);
    assert_string_equal(found.text, expected->text);
    assert_string_equal(found.text + sizeof found.text / 2, expected->text + sizeof found.text / 2);
}

void process_survives(struct process *process, struct test_disk *disk) {
    struct process_numbers numbers;
    process_look(process, "m", &numbers);
    process_stop(process);
    process_start(process, disk);
    process_is_as(process, "m", &numbers);
}

static json_t *describe(struct process *process, const char *name) {
    char request[128];
    snprintf(request, sizeof request, "GET /models/%s", name);
    return test_call(&process->service, 200, request, NULL);
}

json_int_t process_version_of(struct process *process, const char *name) {
    json_t *json = describe(process, name);
    json_int_t version = json_integer_value(json_object_get(json, "version"));
    json_decref(json);
    return version;
}

void process_incarnation_of(struct process *process, const char *name, char incarnation[32]) {
    json_t *json = describe(process, name);
    snprintf(incarnation, 32, "%s", json_string_value(json_object_get(json, "incarnation")));
    json_decref(json);
}

/* --- its files ---------------------------------------------------------------------------------------------- */

static void note_file(void *arg, const char *name) {
    struct process_files *files = arg;
    assert_true(files->n < 64);
    snprintf(files->names[files->n++], sizeof files->names[0], "%s", name);
}

struct process_files process_files_of(const struct test_disk *disk) {
    struct process_files files = {.n = 0};
    const struct srv_io *io = test_disk_io(disk);
    assert_int_equal(io->list(io->self, note_file, &files), 0);
    return files;
}

size_t process_count_files(const struct test_disk *disk, const char *prefix) {
    struct process_files files = process_files_of(disk);
    size_t n = 0;
    for (size_t i = 0; i < files.n; i++) n += strncmp(files.names[i], prefix, strlen(prefix)) == 0;
    return n;
}

void process_newest_file(const struct test_disk *disk, const char *prefix, int back, char name[128]) {
    struct process_files files = process_files_of(disk);
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

struct test_disk *process_copy_of(const struct test_disk *disk) {
    char text[256];
    return test_disk_image(disk, test_disk_operations(disk), 0, text);
}

void process_cut(struct test_disk *disk, const char *name, uint64_t size) {
    const struct srv_io *io = test_disk_io(disk);
    int file = io->open(io->self, name);
    assert_true(file >= 0);
    assert_int_equal(io->truncate(io->self, file, size), 0);
    io->close(io->self, file);
}

/* --- damage ------------------------------------------------------------------------------------------------ */

void process_changed_nothing(const struct test_disk *disk, size_t before) {
    char text[128];
    for (size_t i = before; i < test_disk_operations(disk); i++) {
        enum test_disk_kind kind = test_disk_operation(disk, i, text);
        if (kind != TEST_DISK_SYNC && kind != TEST_DISK_SYNC_DIRECTORY) fail_msg("%s", text);
    }
}

void process_refuse(struct test_disk *disk, const char *names) {
    struct process process;
    struct nn_error err;
    size_t before = test_disk_operations(disk);
    assert_int_equal(process_start_as(&process, disk, &process_usual, false, &err), NN_E_CORRUPT);
    assert_non_null(strstr(err.text, names));
    process_stop(&process);
    process_changed_nothing(disk, before);
}

void process_accept(struct process *process, struct test_disk *disk) {
    struct nn_error err;
    struct srv_store_options options = process_usual;
    options.accept_loss = true;
    if (process_start_as(process, disk, &options, false, &err)) fail_msg("%s", err.text);
    assert_true(srv_store_damaged(process->store));
}

/* --- a life ------------------------------------------------------------------------------------------------- */

struct test_disk *process_life(struct process_numbers *journalled, struct process_numbers *plain) {
    struct test_disk *disk = test_disk_new();
    struct process process;
    process_start(&process, disk);
    process_create(&process, "m", "journal");
    process_create(&process, "n", "snapshot");
    process_steps(&process, "m", 3);
    process_steps(&process, "n", 3);
    process_checkpoint(&process);
    process_steps(&process, "m", 4);
    process_steps(&process, "n", 2);
    process_checkpoint(&process);
    process_look(&process, "n", plain);
    process_steps(&process, "n", 2);
    process_steps(&process, "m", 5);
    process_look(&process, "m", journalled);
    process_stop(&process);
    return disk;
}

static struct process *to_change; /* NULL: nobody changes anything */

static int rename_amid_changes(void *self, const char *from, const char *to) {
    struct test_disk *disk = self;
    if (to_change && strncmp(to, "snapshot-a", 10) == 0) {
        process_steps(to_change, "m", 2);
        json_decref(test_call(&to_change->service, 0, "DELETE /models/gone", NULL));
    }
    return test_disk_io(disk)->rename(test_disk_io(disk)->self, from, to);
}

void process_start_amid_changes(struct process *process, struct test_disk *disk, struct srv_io *io) {
    struct nn_error err;
    *io = *test_disk_io(disk);
    assert_ptr_equal(io->self, disk);
    io->rename = rename_amid_changes;
    if (process_start_on(process, io, &process_usual, false, &err)) fail_msg("%s", err.text);
}

void process_checkpoint_amid_changes(struct process *process) {
    to_change = process;
    process_checkpoint(process);
    to_change = NULL;
}
