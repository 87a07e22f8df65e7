/* allocator.h - how the process allocates: by jemalloc, set to keep freed blocks for later requests.
 *
 * A request takes blocks of megabytes and frees them a moment later. The C library's malloc returns such blocks to the
 * system at once, and the next request pays for that with a page fault for every 4 KiB. */
#ifndef SRV_ALLOCATOR_H
#define SRV_ALLOCATOR_H

#define SRV_TRIM_MS 5000

/* Returns free memory to the system. To be called every SRV_TRIM_MS: then an idle process holds little beside its
 * models, and a busy one faults pages in only that often. */
void srv_allocator_trim(void);

#endif
