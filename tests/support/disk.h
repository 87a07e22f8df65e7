/* disk.h - a disk in memory, for the store: it remembers every operation, can show what a crash after any of
 * them may have left, and fails when it is told to.
 *
 * It is as cruel as a disk may be. What was not synced may be there or not, each operation by itself: a write
 * behind a lost one, a name without the bytes, bytes without the name. A file's sync says nothing of its name. A
 * rename is atomic, a write is not: sectors of 512 bytes go one by one. What a failed sync was to bring home is
 * not brought home by the next one. */
#ifndef TEST_DISK_H
#define TEST_DISK_H

#include <stdbool.h>

#include "../../server/store/io.h"

enum test_disk_kind {
    TEST_DISK_CREATE,
    TEST_DISK_RENAME,
    TEST_DISK_REMOVE,
    TEST_DISK_WRITE,
    TEST_DISK_RESERVE,
    TEST_DISK_TRUNCATE,
    TEST_DISK_SYNC,
    TEST_DISK_SYNC_DIRECTORY,
    TEST_DISK_KINDS
};

/* Of any thread. Running out of memory ends the program. */
struct test_disk;
struct test_disk *test_disk_new(void);
void test_disk_free(struct test_disk *disk);
const struct srv_io *test_disk_io(const struct test_disk *disk);

/* How many operations there were, reads aside; and the n-th of them, from 0, in words. */
size_t test_disk_operations(const struct test_disk *disk);
enum test_disk_kind test_disk_operation(const struct test_disk *disk, size_t n, char text[128]);

/* In how many ways a crash after the first n operations may have left the disk, as far as they are tried: with
 * all that was not synced (the first image), with none of it, with names alone or bytes alone, with each
 * operation alone lost or alone kept, with half of all names and sectors, with the last write torn. */
size_t test_disk_images(const struct test_disk *disk, size_t n);
/* The i-th of them, as a disk of its own; `text` says in words what became of it. */
struct test_disk *test_disk_image(const struct test_disk *disk, size_t n, size_t i, char text[256]);

/* As it was after the first n operations, which a crash may still undo: a process was killed, and the machine goes on. */
struct test_disk *test_disk_prefix(const struct test_disk *disk, size_t n);

/* The n-th operation of a kind from now on (from 0) fails with `error`, an errno; or it and all of this kind that
 * follow. A write that fails has written half. Kinds are armed one by one. */
void test_disk_fail(struct test_disk *disk, enum test_disk_kind kind, long n, int error, bool all);
/* It works again. Whether an operation failed since it last did. */
bool test_disk_work(struct test_disk *disk);
bool test_disk_failed(const struct test_disk *disk);

/* Called before a file is created, with its name; it may do anything, things of this disk too. */
void test_disk_on_create(struct test_disk *disk, void (*call)(void *arg, const char *name), void *arg);

/* Called when the disk begins to work, and when it has: so that a test which counts allocations can leave it out. */
void test_disk_watch(struct test_disk *disk, void (*watch)(bool inside));

/* Names now, which `each` may not change; and a file's bytes, to be looked at or spoilt. NULL: there is none. */
unsigned char *test_disk_bytes(const struct test_disk *disk, const char *name, size_t *size);
/* Files that were opened and not closed. */
int test_disk_open_files(const struct test_disk *disk);

#endif
