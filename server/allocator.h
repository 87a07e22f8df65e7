/* allocator.h - how the process allocates: jemalloc, told to keep what requests give back for the next ones.
 *
 * A request takes blocks of megabytes and gives them back a moment later. The C library's malloc returns such
 * blocks to the system at once, and the next request pays for it with a page fault for every 4 KiB. */
#ifndef SRV_ALLOCATOR_H
#define SRV_ALLOCATOR_H

#define SRV_TRIM_MS 5000

/* Gives what is free now back to the system. To be called every SRV_TRIM_MS, so that an idle process holds
 * little beside its models, and a busy one faults each page in anew that seldom. */
void srv_allocator_trim(void);

#endif
