/* allocator.c - see allocator.h. */
#include "allocator.h"

#include <stddef.h>

/* jemalloc reads it when the process begins; MALLOC_CONF in the environment takes precedence. Blocks of any size are
 * kept until they are purged. (jemalloc's own decay returns a large block whole as soon as slightly too much is kept:
 * with requests of many megabytes, that returns all blocks at once.) */
extern const char *malloc_conf;
const char *malloc_conf = "oversize_threshold:0,dirty_decay_ms:-1";

/* jemalloc's function; absent where a sanitizer's allocator takes its place. */
extern int mallctl(const char *name, void *old, size_t *old_size, void *new, size_t new_size)
    __attribute__((weak));

void srv_allocator_trim(void) {
    if (mallctl) mallctl("arena.4096.purge", NULL, NULL, NULL, 0); /* 4096: MALLCTL_ARENAS_ALL */
}
