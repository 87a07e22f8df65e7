/* io.h - the disk, as a table of functions. A store does everything through it, so that tests can have a disk that is
 * full, fails, or loses what was not synced.
 *
 * Names are of files in the store's directory, without a path. A failure returns a negative errno. */
#ifndef SRV_IO_H
#define SRV_IO_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct srv_io {
    void *self;
    int (*open)(void *self, const char *name);   /* for reading; returns a file's number, 0 or more */
    int (*create)(void *self, const char *name); /* for writing and reading; -EEXIST if the file exists */
    void (*close)(void *self, int file);
    int64_t (*size)(void *self, int file);
    /* Returns the number of bytes; fewer than `size` only at the end of the file. */
    int64_t (*read)(void *self, int file, void *buffer, size_t size, uint64_t offset);
    /* A place behind which the file has only zeros. Best called before anything of the file was read. */
    int64_t (*end_of_data)(void *self, int file);
    int (*write)(void *self, int file, const struct iovec *parts, int n,
                 uint64_t offset); /* all, or an error */
    int (*reserve)(void *self, int file,
                   uint64_t size); /* the file gets `size` bytes, zeros, with room on the disk */
    int (*truncate)(void *self, int file, uint64_t size);
    int (*sync)(void *self, int file); /* the contents and the size */
    /* After a sync: makes later reads see what the disk has. Where an earlier sync failed, memory may show more than
     * that; those bytes count as written from then on. */
    void (*forget)(void *self, int file);
    int (*sync_directory)(void *self); /* the names that were created, renamed or removed */
    int (*rename)(void *self, const char *from, const char *to); /* replaces an existing file */
    int (*remove)(void *self, const char *name);
    int (*list)(void *self, void (*each)(void *arg, const char *name), void *arg);
};

/* True for an error that means loss or absence. Other errors mean that the data cannot be had now. */
static inline bool srv_io_is_lost(int64_t code) {
    return code == -ENOENT || code == -EIO || code == -EBADMSG || code == -EUCLEAN;
}

/* True for an error that means that the disk is full. Nothing is lost, and the write may succeed later. */
static inline bool srv_io_is_full(int64_t code) { return code == -ENOSPC || code == -EDQUOT; }

/* Opens a directory, made if it is missing, and locks it until it is closed. NN_E_BUSY: another process has it.
 * `read_only`: neither makes nor locks it. */
struct nn_error;
struct srv_directory;
struct srv_directory *srv_directory_open(const char *path, int read_only, struct nn_error *err);
void srv_directory_close(struct srv_directory *directory);
const struct srv_io *srv_directory_io(const struct srv_directory *directory);

#endif
