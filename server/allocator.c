/* allocator.c - how the process allocates: jemalloc, told to keep what requests give back for the next ones.
 *
 * A request takes blocks of megabytes and gives them back a moment later. The C library's malloc returns such
 * blocks to the system at once, and the next request pays for it with a page fault for every 4 KiB. */

/* Read by jemalloc when the process begins; MALLOC_CONF in the environment comes after it. Blocks of any size
 * are kept, and pages that nobody took again within seconds go back to the system, by a thread of
 * jemalloc's own, so that an idle daemon holds its models and little else. */
extern const char *malloc_conf;
const char *malloc_conf = "oversize_threshold:0,dirty_decay_ms:5000,muzzy_decay_ms:0,background_thread:true";
