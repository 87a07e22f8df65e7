/* describe.c - a record in one line, for people. */
#include <stdio.h>
#include <string.h>

#include "store.h"
#include "wire/record.h"

char *api_record_describe(const void *bytes, size_t size) {
    struct nn_error err = {0};
    struct api_record record;
    char line[320];
    struct nn_arena *arena = nn_arena_new();
    if (!arena) return NULL;
    if (api_record_read(bytes, size, arena, &record, &err))
        snprintf(line, sizeof line, "%.200s", err.text);
    else
        snprintf(line, sizeof line, "%.16s %.64s version %lld %.8s %.64s",
                 api_record_text(record.head, "kind"), api_record_text(record.head, "model"),
                 (long long)api_record_integer(record.head, "version"),
                 api_record_text(record.head, "method"), api_record_text(record.head, "path"));
    api_record_fini(&record);
    nn_arena_free(arena);
    return strdup(line);
}
