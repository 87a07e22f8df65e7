/* text_file.c - see text_file.h. */
#include "text_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *srv_text_file(const char *path, size_t *size, struct nn_error *err) {
    char *text = NULL;
    size_t room = 0;
    FILE *file = fopen(path, "re");
    ssize_t length = file ? getdelim(&text, &room, '\0', file) : -1;
    bool failed = !file || ferror(file);
    if (failed) {
        nn_fail(err, NN_E_NOT_FOUND, "%s: %s", path, strerror(errno));
        free(text);
        text = NULL;
    } else if (length < 0) { /* an empty file */
        text[0] = '\0';
        length = 0;
    }
    if (file) fclose(file);
    *size = (size_t)length;
    return text;
}
