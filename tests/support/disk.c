/* disk.c - the disk's calls, each of which is noted. See disk.h; what a crash leaves is in disk_crash.c. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk_state.h"

static void enter(struct test_disk *disk) {
    if (disk->watch) disk->watch(true);
    pthread_mutex_lock(&disk->lock);
}

static void leave(struct test_disk *disk) {
    pthread_mutex_unlock(&disk->lock);
    if (disk->watch) disk->watch(false);
}

/* --- failures ---------------------------------------------------------------------------------------- */

void test_disk_fail(struct test_disk *disk, enum test_disk_kind kind, long n, int error, bool all) {
    enter(disk);
    disk->failures[kind] = (struct test_failure){.armed = true, .all = all, .left = n, .error = error};
    leave(disk);
}

bool test_disk_work(struct test_disk *disk) {
    enter(disk);
    bool failed = disk->failed;
    memset(disk->failures, 0, sizeof disk->failures);
    disk->failed = false;
    leave(disk);
    return failed;
}

bool test_disk_failed(const struct test_disk *disk) { return disk->failed; }

/* 0, or a negative errno. */
static int fate(struct test_disk *disk, enum test_disk_kind kind) {
    struct test_failure *failure = &disk->failures[kind];
    if (!failure->armed || failure->left-- > 0) return 0;
    if (!failure->all) failure->armed = false;
    disk->failed = true;
    return -failure->error;
}

void test_disk_on_create(struct test_disk *disk, void (*call)(void *arg, const char *name), void *arg) {
    disk->on_create = call;
    disk->arg = arg;
}

void test_disk_watch(struct test_disk *disk, void (*watch)(bool inside)) { disk->watch = watch; }

/* --- operations -------------------------------------------------------------------------------------- */

static void note(struct test_disk *disk, const struct test_operation *operation) {
    disk->operations = test_grown(disk->operations, disk->n_operations, sizeof *disk->operations);
    disk->operations[disk->n_operations++] = *operation;
    if (!operation->failed) test_state_apply(&disk->now, operation);
}

/* A name that does not fit is a programmer's error. */
static void set_text(char text[TEST_DISK_NAME], const char *name) {
    if (strlen(name) >= TEST_DISK_NAME) abort();
    snprintf(text, TEST_DISK_NAME, "%s", name);
}

static int take_handle(struct test_disk *disk, int node) {
    for (int i = 0; i < TEST_DISK_OPEN; i++)
        if (disk->open[i] < 0) return disk->open[i] = node, i;
    return -EMFILE;
}

static int node_of(const struct test_disk *disk, int file) {
    if (file < 0 || file >= TEST_DISK_OPEN || disk->open[file] < 0) abort();
    return disk->open[file];
}

static int open_file(void *self, const char *name) {
    struct test_disk *disk = self;
    enter(disk);
    const struct test_name *found = test_state_find(&disk->now, name);
    int file = found ? take_handle(disk, found->node) : -ENOENT;
    leave(disk);
    return file;
}

static int create_file(void *self, const char *name) {
    struct test_disk *disk = self;
    struct test_operation operation = {.kind = TEST_DISK_CREATE};
    set_text(operation.name, name);
    if (disk->on_create) disk->on_create(disk->arg, name);
    enter(disk);
    int code = test_state_find(&disk->now, name) ? -EEXIST : fate(disk, TEST_DISK_CREATE);
    if (!code) {
        operation.node = (int)disk->now.n_nodes;
        note(disk, &operation);
        code = take_handle(disk, operation.node);
    }
    leave(disk);
    return code;
}

static void close_file(void *self, int file) {
    struct test_disk *disk = self;
    enter(disk);
    (void)node_of(disk, file);
    disk->open[file] = -1;
    leave(disk);
}

static int64_t size_of_file(void *self, int file) {
    struct test_disk *disk = self;
    enter(disk);
    int64_t size = (int64_t)disk->now.nodes[node_of(disk, file)].size;
    leave(disk);
    return size;
}

static int64_t read_file(void *self, int file, void *buffer, size_t size, uint64_t offset) {
    struct test_disk *disk = self;
    enter(disk);
    const struct test_node *node = &disk->now.nodes[node_of(disk, file)];
    size_t left = offset < node->size ? node->size - offset : 0;
    if (size > left) size = left;
    if (size) memcpy(buffer, node->bytes + offset, size);
    leave(disk);
    return (int64_t)size;
}

static int64_t end_of_data(void *self, int file) {
    struct test_disk *disk = self;
    enter(disk);
    const struct test_node *node = &disk->now.nodes[node_of(disk, file)];
    size_t end = node->size;
    while (end > 0 && node->bytes[end - 1] == 0) end--;
    leave(disk);
    return (int64_t)end;
}

static int write_file(void *self, int file, const struct iovec *parts, int n, uint64_t offset) {
    struct test_disk *disk = self;
    struct test_operation operation = {.kind = TEST_DISK_WRITE, .offset = offset};
    enter(disk);
    for (int i = 0; i < n; i++) operation.size += parts[i].iov_len;
    operation.bytes = test_must(malloc(operation.size + 1));
    for (size_t i = 0, at = 0; i < (size_t)n; at += parts[i++].iov_len)
        if (parts[i].iov_len) memcpy(operation.bytes + at, parts[i].iov_base, parts[i].iov_len);
    int code = fate(disk, TEST_DISK_WRITE);
    if (code) operation.size /= 2;
    operation.node = node_of(disk, file);
    note(disk, &operation);
    leave(disk);
    return code;
}

/* What concerns one open file and has no bytes. */
static int change_file(struct test_disk *disk, enum test_disk_kind kind, int file, uint64_t size) {
    enter(disk);
    int code = fate(disk, kind);
    struct test_operation operation = {
        .kind = kind, .node = node_of(disk, file), .offset = size, .failed = code != 0};
    if (!code || kind == TEST_DISK_SYNC) note(disk, &operation);
    leave(disk);
    return code;
}

static int reserve_file(void *self, int file, uint64_t size) {
    return change_file(self, TEST_DISK_RESERVE, file, size);
}

static int truncate_file(void *self, int file, uint64_t size) {
    return change_file(self, TEST_DISK_TRUNCATE, file, size);
}

static int sync_file(void *self, int file) { return change_file(self, TEST_DISK_SYNC, file, 0); }

static void apply_all(struct test_state *state, const struct test_disk *disk) {
    for (size_t i = 0; i < disk->n_operations; i++)
        if (!disk->operations[i].failed) test_state_apply(state, &disk->operations[i]);
}

/* What a failed sync was to bring home is gone then. */
static void forget_file(void *self, int file) {
    struct test_disk *disk = self;
    enter(disk);
    size_t lost = 0;
    for (size_t i = 0; i < disk->n_operations; i++) {
        struct test_operation *operation = &disk->operations[i];
        if (operation->node != node_of(disk, file) || operation->failed || !test_is_lost(disk, i)) continue;
        operation->failed = true;
        lost++;
    }
    if (lost) {
        test_state_fini(&disk->now);
        disk->now = (struct test_state){0};
        test_state_copy(&disk->now, &disk->first);
        apply_all(&disk->now, disk);
    }
    leave(disk);
}

static int sync_directory(void *self) {
    struct test_disk *disk = self;
    enter(disk);
    int code = fate(disk, TEST_DISK_SYNC_DIRECTORY);
    note(disk, &(struct test_operation){.kind = TEST_DISK_SYNC_DIRECTORY, .node = -1, .failed = code != 0});
    leave(disk);
    return code;
}

static int rename_file(void *self, const char *from, const char *to) {
    struct test_disk *disk = self;
    struct test_operation operation = {.kind = TEST_DISK_RENAME};
    set_text(operation.from, from);
    set_text(operation.name, to);
    enter(disk);
    const struct test_name *found = test_state_find(&disk->now, from);
    int code = found ? fate(disk, TEST_DISK_RENAME) : -ENOENT;
    if (!code) {
        operation.node = found->node;
        note(disk, &operation);
    }
    leave(disk);
    return code;
}

static int remove_file(void *self, const char *name) {
    struct test_disk *disk = self;
    struct test_operation operation = {.kind = TEST_DISK_REMOVE, .node = -1};
    set_text(operation.name, name);
    enter(disk);
    int code = test_state_find(&disk->now, name) ? fate(disk, TEST_DISK_REMOVE) : -ENOENT;
    if (!code) note(disk, &operation);
    leave(disk);
    return code;
}

/* `each` may call the disk, and change names. */
static int list_files(void *self, void (*each)(void *arg, const char *name), void *arg) {
    struct test_disk *disk = self;
    enter(disk);
    size_t n = disk->now.n_names;
    struct test_name *names = test_copy(disk->now.names, n * sizeof *names);
    leave(disk);
    for (size_t i = 0; i < n; i++) each(arg, names[i].text);
    free(names);
    return 0;
}

/* --- its life ---------------------------------------------------------------------------------------- */

struct test_disk *test_disk_new(void) {
    struct test_disk *disk = test_must(calloc(1, sizeof *disk));
    disk->io = (struct srv_io){.self = disk,
                               .open = open_file,
                               .create = create_file,
                               .close = close_file,
                               .size = size_of_file,
                               .read = read_file,
                               .end_of_data = end_of_data,
                               .write = write_file,
                               .reserve = reserve_file,
                               .truncate = truncate_file,
                               .sync = sync_file,
                               .forget = forget_file,
                               .sync_directory = sync_directory,
                               .rename = rename_file,
                               .remove = remove_file,
                               .list = list_files};
    if (pthread_mutex_init(&disk->lock, NULL)) abort();
    for (int i = 0; i < TEST_DISK_OPEN; i++) disk->open[i] = -1;
    return disk;
}

void test_disk_free(struct test_disk *disk) {
    if (!disk) return;
    for (size_t i = 0; i < disk->n_operations; i++) free(disk->operations[i].bytes);
    free(disk->operations);
    test_state_fini(&disk->first);
    test_state_fini(&disk->now);
    pthread_mutex_destroy(&disk->lock);
    free(disk);
}

const struct srv_io *test_disk_io(const struct test_disk *disk) { return &disk->io; }

int test_disk_open_files(const struct test_disk *disk) {
    int n = 0;
    for (int i = 0; i < TEST_DISK_OPEN; i++) n += disk->open[i] >= 0;
    return n;
}

unsigned char *test_disk_bytes(const struct test_disk *disk, const char *name, size_t *size) {
    static unsigned char nothing[1];
    const struct test_name *found = test_state_find(&disk->now, name);
    if (!found) return NULL;
    const struct test_node *node = &disk->now.nodes[found->node];
    *size = node->size;
    return node->size ? node->bytes : nothing;
}

/* --- what there was ---------------------------------------------------------------------------------- */

size_t test_disk_operations(const struct test_disk *disk) { return disk->n_operations; }

enum test_disk_kind test_disk_operation(const struct test_disk *disk, size_t n, char text[128]) {
    static const char *const words[TEST_DISK_KINDS] = {"create",  "rename",   "remove", "write",
                                                       "reserve", "truncate", "sync",   "sync_directory"};
    const struct test_operation *operation = &disk->operations[n];
    const char *name = operation->name;
    /* a file's first name: it may have had others, or none, when this happened */
    for (size_t i = 0; !*name && operation->node >= 0 && i < n; i++)
        if (disk->operations[i].kind <= TEST_DISK_RENAME && disk->operations[i].node == operation->node)
            name = disk->operations[i].name;
    snprintf(text, 128, "%s%s %.60s, %llu + %zu", words[operation->kind],
             operation->failed ? " (failed)" : "", name, (unsigned long long)operation->offset,
             operation->size);
    return operation->kind;
}
