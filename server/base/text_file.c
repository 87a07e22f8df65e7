/* text_file.c - see text_file.h. */
#include "text_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_BYTES ((size_t)16 << 20) /* a pipe may have no end */

static int fail(struct nn_error *err, const char *path, const char *why) {
    return nn_fail(err, NN_E_NOT_FOUND, "%s: %s", path, why);
}

/* Opening a pipe would wait for its other end: O_NONBLOCK avoids that. */
static int open_file(const char *path, bool regular, struct nn_error *err) {
    struct stat status;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (regular ? O_NONBLOCK : 0));
    if (file < 0) {
        fail(err, path, strerror(errno));
    } else if (regular && (fstat(file, &status) != 0 || !S_ISREG(status.st_mode))) {
        fail(err, path, "not a regular file");
        close(file);
        file = -1;
    }
    return file;
}

/* Reads up to the end of the file, the first NUL, or the limit. */
static char *read_text(int file, size_t *size) {
    size_t room = 4096;
    char *text = malloc(room + 1);
    for (*size = 0; text;) {
        ssize_t got = read(file, text + *size, room - *size);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) break;
        const char *zero = memchr(text + *size, '\0', (size_t)got);
        *size = zero ? (size_t)(zero + 1 - text) : *size + (size_t)got;
        if (got == 0 || zero || *size > MOST_BYTES) {
            text[*size] = '\0';
            return text;
        }
        if (*size < room) continue;
        char *more = malloc(2 * room + 1); /* not realloc, which may leave a copy of a secret behind */
        if (more) memcpy(more, text, *size);
        explicit_bzero(text, *size);
        free(text);
        text = more;
        room *= 2;
    }
    if (text) explicit_bzero(text, *size);
    free(text);
    return NULL;
}

char *srv_text_file(const char *path, bool regular, size_t *size, struct nn_error *err) {
    int file = open_file(path, regular, err);
    if (file < 0) return NULL;
    errno = 0;
    char *text = read_text(file, size);
    int error = errno;
    close(file);
    if (!text) {
        fail(err, path, strerror(error ? error : ENOMEM));
    } else if (*size > MOST_BYTES) {
        fail(err, path, "longer than any such file is");
        explicit_bzero(text, *size);
        free(text);
        text = NULL;
    }
    return text;
}
