/* text_file.h - reads a file that holds a text, perhaps a secret. */
#ifndef SRV_TEXT_FILE_H
#define SRV_TEXT_FILE_H

#include <stddef.h>

#include "../../api/api.h"

/* The file's bytes, malloc'ed, with a NUL behind them; *size is their number. At a NUL in the file the text ends, and
 * the NUL is counted. `regular`: the file must be a regular one, because a pipe may never end. NULL: NN_E_NOT_FOUND (it
 * cannot be read, or is too long for a text), NN_E_NOMEM. */
char *srv_text_file(const char *path, bool regular, size_t *size, struct nn_error *err);

#endif
