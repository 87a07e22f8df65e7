/* disk_state.h - inside the disk in memory (disk.h): its operations, and what they make of names and bytes. */
#ifndef TEST_DISK_STATE_H
#define TEST_DISK_STATE_H

#include <pthread.h>

#include "disk.h"

enum { TEST_SECTOR = 512, TEST_DISK_NAME = 128, TEST_DISK_OPEN = 256 };

/* One operation. Files are meant by number, whatever they are called by then. */
struct test_operation {
    enum test_disk_kind kind;
    bool failed; /* of syncs; of others, which leave no trace when they fail: found lost with a failed sync */
    int node;    /* the file; -1 of a directory's sync and a removal */
    char name[TEST_DISK_NAME], from[TEST_DISK_NAME]; /* of names; `from` of a rename alone */
    uint64_t offset;                                 /* of a write; otherwise the size */
    unsigned char *bytes;                            /* of a write */
    size_t size;
};

/* Files outlive their names. */
struct test_node {
    unsigned char *bytes;
    size_t size, room;
};
struct test_name {
    char text[TEST_DISK_NAME];
    int node;
};
struct test_state {
    struct test_node *nodes;
    size_t n_nodes;
    struct test_name *names;
    size_t n_names;
};

struct test_failure {
    bool armed, all;
    long left;
    int error;
};

struct test_disk {
    struct srv_io io;
    pthread_mutex_t lock;
    struct test_state first, now; /* before all operations, and behind them */
    struct test_operation *operations;
    size_t n_operations;
    struct test_failure failures[TEST_DISK_KINDS];
    bool failed;
    void (*on_create)(void *arg, const char *name);
    void *arg;
    void (*watch)(bool inside);
    int open[TEST_DISK_OPEN]; /* numbers of files; -1: free */
};

/* Memory that is there. */
void *test_must(void *memory);
void *test_copy(const void *bytes, size_t size);
/* Of n items of `size` bytes, room for one more. */
void *test_grown(void *items, size_t n, size_t size);

bool test_is_name(const struct test_operation *operation);
bool test_is_sync(const struct test_operation *operation);

/* Whether the i-th, of a file's bytes, went with a sync that failed. */
bool test_is_lost(const struct test_disk *disk, size_t i);

struct test_name *test_state_find(const struct test_state *state, const char *name);
/* So that the file of this number is there, empty and without a name unless it was there before. */
void test_state_room(struct test_state *state, int node);
void test_state_put(struct test_node *node, uint64_t offset, const void *bytes, size_t size);
void test_state_apply(struct test_state *state, const struct test_operation *operation);
/* Into an empty one. */
void test_state_copy(struct test_state *to, const struct test_state *from);
void test_state_fini(struct test_state *state);

#endif
