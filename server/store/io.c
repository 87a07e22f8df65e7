/* io.c - see io.h. All files are opened beneath one descriptor, by names that cannot lead out of it. */
#include "io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../api/api.h"

struct srv_directory {
    struct srv_io io;
    int fd, lock; /* lock: -1 if the directory is not locked */
};

static int descriptor(const void *self) { return ((const struct srv_directory *)self)->fd; }

static bool is_name(const char *name) {
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-";
    return *name && *name != '.' && name[strspn(name, allowed)] == '\0';
}

/* --- files -------------------------------------------------------------------------------------------- */

static int open_beneath(void *self, const char *name, int flags) {
    if (!is_name(name)) return -EINVAL;
    int file;
    do file = openat(descriptor(self), name, flags | O_NOFOLLOW | O_CLOEXEC, 0600);
    while (file < 0 && errno == EINTR);
    return file < 0 ? -errno : file;
}

static int io_open(void *self, const char *name) { return open_beneath(self, name, O_RDONLY); }
static int io_create(void *self, const char *name) {
    return open_beneath(self, name, O_RDWR | O_CREAT | O_EXCL);
}

static void io_close(void *self, int file) {
    (void)self;
    close(file);
}

static int64_t io_size(void *self, int file) {
    (void)self;
    struct stat status;
    return fstat(file, &status) < 0 ? -errno : (int64_t)status.st_size;
}

static int64_t io_read(void *self, int file, void *buffer, size_t size, uint64_t offset) {
    (void)self;
    size_t done = 0;
    while (done < size) {
        ssize_t got = pread(file, (char *)buffer + done, size - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -errno;
        if (got == 0) break;
        done += (size_t)got;
    }
    return (int64_t)done;
}

/* Linux reports preallocated bytes that were never written as a hole, except where it has read ahead. */
static int64_t io_end_of_data(void *self, int file) {
    off_t end = 0, data;
    while ((data = lseek(file, end, SEEK_DATA)) >= 0 && (end = lseek(file, data, SEEK_HOLE)) >= 0) continue;
    bool known = data < 0 && errno == ENXIO;
    return known ? (int64_t)end : io_size(self, file);
}

/* Writes the rest of a buffer, of which `written` bytes may have been written. */
static int write_rest(int file, const struct iovec *part, size_t written, uint64_t offset) {
    while (written < part->iov_len) {
        ssize_t put = pwrite(file, (const char *)part->iov_base + written, part->iov_len - written,
                             (off_t)(offset + written));
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return -errno;
        if (put == 0) return -EIO;
        written += (size_t)put;
    }
    return 0;
}

static int io_write(void *self, int file, const struct iovec *parts, int n, uint64_t offset) {
    (void)self;
    while (n > 0) {
        ssize_t put = pwritev(file, parts, n < IOV_MAX ? n : IOV_MAX, (off_t)offset);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return -errno;
        size_t written = (size_t)put;
        for (; n > 0 && written >= parts->iov_len; n--, parts++) {
            written -= parts->iov_len;
            offset += parts->iov_len;
        }
        if (written == 0) continue;
        int code = write_rest(file, parts, written, offset);
        if (code) return code;
        offset += parts->iov_len;
        n--, parts++;
    }
    return 0;
}

static int write_zeros(int file, uint64_t from, uint64_t to) {
    static const char zeros[1 << 16];
    while (from < to) {
        uint64_t left = to - from;
        struct iovec part = {(void *)(uintptr_t)zeros, left < sizeof zeros ? (size_t)left : sizeof zeros};
        int code = write_rest(file, &part, 0, from);
        if (code) return code;
        from += part.iov_len;
    }
    return 0;
}

static int io_reserve(void *self, int file, uint64_t size) {
    if (size > INT64_MAX) return -EFBIG;
    int code;
    do code = fallocate(file, 0, 0, (off_t)size);
    while (code < 0 && errno == EINTR);
    if (code == 0) return 0;
    if (errno != EOPNOTSUPP && errno != ENOSYS) return -errno;
    int64_t now = io_size(self, file);
    return now < 0 ? (int)now : write_zeros(file, (uint64_t)now, size);
}

static int io_truncate(void *self, int file, uint64_t size) {
    (void)self;
    int code;
    do code = ftruncate(file, (off_t)size);
    while (code < 0 && errno == EINTR);
    return code < 0 ? -errno : 0;
}

/* A failed sync is not tried again: the second call would report success. */
static int io_sync(void *self, int file) {
    (void)self;
    return fdatasync(file) < 0 ? -errno : 0;
}

static void io_forget(void *self, int file) {
    (void)self;
    (void)posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
}

/* --- names -------------------------------------------------------------------------------------------- */

static int io_sync_directory(void *self) { return fsync(descriptor(self)) < 0 ? -errno : 0; }

static int io_rename(void *self, const char *from, const char *to) {
    if (!is_name(from) || !is_name(to)) return -EINVAL;
    return renameat(descriptor(self), from, descriptor(self), to) < 0 ? -errno : 0;
}

static int io_remove(void *self, const char *name) {
    if (!is_name(name)) return -EINVAL;
    return unlinkat(descriptor(self), name, 0) < 0 ? -errno : 0;
}

static int io_list(void *self, void (*each)(void *arg, const char *name), void *arg) {
    int fd = openat(descriptor(self), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = fd < 0 ? NULL : fdopendir(fd);
    if (!listing) {
        int code = -errno;
        if (fd >= 0) close(fd);
        return code;
    }
    const struct dirent *entry;
    for (errno = 0; (entry = readdir(listing)); errno = 0)
        if (is_name(entry->d_name)) each(arg, entry->d_name);
    int code = -errno;
    closedir(listing);
    return code;
}

/* --- the directory ------------------------------------------------------------------------------------ */

/* The lock is on a file, and ends with its process, however that ends. */
static int lock(struct srv_directory *directory, const char *path, struct nn_error *err) {
    directory->lock = openat(directory->fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (directory->lock < 0)
        return nn_fail(err, NN_E_STORE, "%s: cannot make the file \"lock\": %s", path, strerror(errno));
    if (flock(directory->lock, LOCK_EX | LOCK_NB) == 0) return NN_OK;
    if (errno == EWOULDBLOCK) return nn_fail(err, NN_E_BUSY, "another process has %s", path);
    return nn_fail(err, NN_E_STORE, "%s: cannot be locked: %s", path, strerror(errno));
}

/* Syncs the directory's own name, which this process, or one that was cut short, may just have made. If the parent
 * cannot be read, the name becomes durable later. */
static void sync_parent(int fd) {
    int parent = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0) return;
    fsync(parent);
    close(parent);
}

struct srv_directory *srv_directory_open(const char *path, int read_only, struct nn_error *err) {
    struct srv_directory *directory = malloc(sizeof *directory);
    if (!directory) {
        nn_fail(err, NN_E_NOMEM, "no memory for a directory");
        return NULL;
    }
    *directory = (struct srv_directory){
        .io = {directory, io_open, io_create, io_close, io_size, io_read, io_end_of_data, io_write,
               io_reserve, io_truncate, io_sync, io_forget, io_sync_directory, io_rename, io_remove, io_list},
        .lock = -1,
    };
    bool made = !read_only && mkdir(path, 0700) == 0;
    directory->fd =
        made || read_only || errno == EEXIST ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (directory->fd < 0) {
        nn_fail(err, NN_E_STORE, "%s: %s", path, strerror(errno));
    } else if (read_only || lock(directory, path, err) == NN_OK) {
        if (!read_only) sync_parent(directory->fd);
        return directory;
    }
    srv_directory_close(directory);
    return NULL;
}

void srv_directory_close(struct srv_directory *directory) {
    if (!directory) return;
    if (directory->lock >= 0) close(directory->lock);
    if (directory->fd >= 0) close(directory->fd);
    free(directory);
}

const struct srv_io *srv_directory_io(const struct srv_directory *directory) { return &directory->io; }
