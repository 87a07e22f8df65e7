/* store_inside.c - what all files of a store call. */
#include "store_inside.h"

#include <stdarg.h>
#include <stdio.h>

void srv_store_say(const struct srv_store *store, const char *format, ...) {
    char line[512];
    if (!store->options.log) return;
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    store->options.log(line);
}
