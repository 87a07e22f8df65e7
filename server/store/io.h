/* io.h - the files of a store: all that it does with a disk goes through this table, so that tests can have a
 * disk that fills, fails, or loses what was not synced.
 *
 * Names are of files in the store's own directory, without a path. What fails returns a negative errno. */
#ifndef SRV_IO_H
#define SRV_IO_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct srv_io {
    void *self;
    int (*open)(void *self, const char *name);   /* to read; a file's number, 0 or more */
    int (*create)(void *self, const char *name); /* to write and read; -EEXIST if it is there */
    void (*close)(void *self, int file);
    int64_t (*size)(void *self, int file);
    /* How many bytes came: fewer only at the file's end. */
    int64_t (*read)(void *self, int file, void *buffer, size_t size, uint64_t offset);
    /* A place behind which there are only zeros, up to the size; best told before anything of the file is read. */
    int64_t (*end_of_data)(void *self, int file);
    int (*write)(void *self, int file, const struct iovec *parts, int n,
                 uint64_t offset); /* all, or an error */
    int (*reserve)(void *self, int file,
                   uint64_t size); /* the file has `size` bytes, zeros, with room on the disk */
    int (*truncate)(void *self, int file, uint64_t size);
    int (*sync)(void *self, int file); /* what was written, and the size */
    /* After a sync: what is read next is what the disk has. Memory may show more, where an earlier sync failed: what that
     * was to bring home counts as written from then on. */
    void (*forget)(void *self, int file);
    int (*sync_directory)(void *self); /* names: of what was created, renamed or removed */
    int (*rename)(void *self, const char *from, const char *to); /* in place of what was there */
    int (*remove)(void *self, const char *name);
    int (*list)(void *self, void (*each)(void *arg, const char *name), void *arg);
};

/* Whether an error says that the disk has lost something, or it is not there: and not that it cannot be had now. */
static inline bool srv_io_is_lost(int64_t code) {
    return code == -ENOENT || code == -EIO || code == -EBADMSG || code == -EUCLEAN;
}

/* The files of a directory, which is made if it is not there, and locked as long as this is open: NN_E_BUSY if
 * another process has it. `read_only`: neither made nor locked. */
struct nn_error;
struct srv_directory;
struct srv_directory *srv_directory_open(const char *path, int read_only, struct nn_error *err);
void srv_directory_close(struct srv_directory *directory);
const struct srv_io *srv_directory_io(const struct srv_directory *directory);

#endif
