/* malloc.h - malloc's family for a test program, to be included by its one file: counts what lives, and fails
 * when it is told to. All that the program and its libraries allocate comes by here, and is passed on to the
 * next functions of these names: the C library's, or a sanitizer's. */
#ifndef TEST_MALLOC_H
#define TEST_MALLOC_H

#include <dlfcn.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static atomic_long test_live; /* allocations not yet freed, */
static atomic_long
    test_bytes; /* and their size, once there is a test: a sanitizer that begins is not asked */
static atomic_bool test_counts_bytes;

static atomic_long until; /* how many more succeed; only while armed */
static atomic_bool armed, all_from_there, failed;

static bool fails(void) {
    if (!atomic_load(&armed)) return false;
    long left = atomic_fetch_sub(&until, 1);
    bool now = all_from_there ? left <= 0 : left == 0;
    if (now) atomic_store(&failed, true);
    return now;
}

/* dlsym itself may allocate, before there is anything to allocate with. */
static _Alignas(64) char first_bytes[4096];
static size_t first_used;

static void *first_alloc(size_t size) {
    void *p = first_bytes + first_used;
    first_used += (size + 63) & ~(size_t)63;
    return first_used <= sizeof first_bytes ? p : NULL;
}

static bool is_first(const void *p) {
    return (uintptr_t)p >= (uintptr_t)first_bytes &&
           (uintptr_t)p < (uintptr_t)first_bytes + sizeof first_bytes;
}

static void *(*next_malloc)(size_t), *(*next_calloc)(size_t, size_t), *(*next_realloc)(void *, size_t),
    *(*next_aligned)(size_t, size_t);
static void (*next_free)(void *);

static bool resolve(void) {
    static bool busy;
    if (next_free) return true;
    if (busy) return false;
    busy = true;
    *(void **)&next_malloc = dlsym(RTLD_NEXT, "malloc");
    *(void **)&next_calloc = dlsym(RTLD_NEXT, "calloc");
    *(void **)&next_realloc = dlsym(RTLD_NEXT, "realloc");
    *(void **)&next_aligned = dlsym(RTLD_NEXT, "aligned_alloc");
    *(void **)&next_free = dlsym(RTLD_NEXT, "free");
    busy = false;
    return true;
}

static long size_of(void *p) { return atomic_load(&test_counts_bytes) ? (long)malloc_usable_size(p) : 0; }

static atomic_long test_peak;  /* the most that test_bytes has come to, */
static atomic_long test_calls; /* and how many allocations there were */

/* Of one thread: tests that look at the peak have no more. */
static void count_bytes(long more) {
    long bytes = atomic_fetch_add(&test_bytes, more) + more;
    if (bytes > atomic_load(&test_peak)) atomic_store(&test_peak, bytes);
}

static void *count(void *p) {
    if (!p) return NULL;
    atomic_fetch_add(&test_live, 1);
    atomic_fetch_add(&test_calls, 1);
    count_bytes(size_of(p));
    return p;
}

void *malloc(size_t size) {
    if (!resolve()) return first_alloc(size);
    return fails() ? NULL : count(next_malloc(size));
}

void *calloc(size_t nmemb, size_t size) {
    if (!resolve()) return first_alloc(nmemb * size);
    return fails() ? NULL : count(next_calloc(nmemb, size));
}

void *realloc(void *ptr, size_t size) {
    if (!ptr) return malloc(size);
    if (!resolve() || fails()) return NULL;
    long before = size_of(ptr);
    void *moved = next_realloc(ptr, size);
    if (moved) count_bytes(size_of(moved) - before);
    return moved;
}

void *aligned_alloc(size_t alignment, size_t size) {
    if (!resolve()) return NULL;
    return fails() ? NULL : count(next_aligned(alignment, size));
}

char *strdup(const char *s) { /* a sanitizer's own would not come by here */
    size_t size = strlen(s) + 1;
    char *copy = malloc(size);
    return copy ? memcpy(copy, s, size) : NULL;
}

void free(void *ptr) {
    if (!ptr || is_first(ptr)) return;
    atomic_fetch_sub(&test_live, 1);
    atomic_fetch_sub(&test_bytes, size_of(ptr));
    next_free(ptr);
}

/* The n-th allocation from now on fails, counted from 0; or it and all that follow. */
static inline void test_malloc_fail(long n, bool all) {
    atomic_store(&until, n);
    atomic_store(&all_from_there, all);
    atomic_store(&failed, false);
    atomic_store(&armed, true);
}

/* Whether one has failed since. */
static inline bool test_malloc_work(void) {
    atomic_store(&armed, false);
    return atomic_load(&failed);
}

#endif
