/* text_file.h - a file that holds a text, secrets among them. */
#ifndef SRV_TEXT_FILE_H
#define SRV_TEXT_FILE_H

#include <stddef.h>

#include "../../api/api.h"

/* Its bytes, malloc'ed, with a zero behind them, and their number. A file that holds a zero ends there, and the zero is
 * counted. NULL: NN_E_NOT_FOUND, it cannot be read. */
char *srv_text_file(const char *path, size_t *size, struct nn_error *err);

#endif
