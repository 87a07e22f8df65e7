/* alloc.c - arenas, freed all at once, and aligned blocks. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "nn.h"

#define CHUNK 4096 /* bytes, its head included */

struct chunk {
    struct chunk *next;
    size_t used, size; /* of data */
    _Alignas(max_align_t) unsigned char data[];
};

struct nn_arena {
    struct chunk *first; /* the one being filled */
    bool (*take)(void *self, size_t bytes);
    void *self;
    size_t left; /* may still be taken unasked; without `take`, anything may */
};

struct nn_arena *nn_arena_new(void) {
    return calloc(1, sizeof(struct nn_arena));
}

void nn_arena_free(struct nn_arena *arena) {
    if (!arena) return;
    for (struct chunk *c = arena->first, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(arena);
}

void nn_arena_bound(struct nn_arena *arena, size_t unasked, bool (*take)(void *self, size_t bytes),
                    void *self) {
    arena->left = unasked;
    arena->take = take;
    arena->self = self;
}

bool nn_arena_count(struct nn_arena *arena, size_t bytes) {
    if (!arena->take) return true;
    if (bytes > arena->left) {
        size_t asked;
        if (__builtin_add_overflow(bytes - arena->left, CHUNK - 1, &asked)) asked = SIZE_MAX;
        asked -= asked % CHUNK; /* so that what is small is not asked for one by one */
        if (!arena->take(arena->self, asked)) return false;
        arena->left += asked;
    }
    arena->left -= bytes;
    return true;
}

void *nn_arena_alloc(struct nn_arena *arena, size_t n, size_t size) {
    size_t bytes, align = _Alignof(max_align_t);
    if (__builtin_mul_overflow(n, size, &bytes) || __builtin_add_overflow(bytes, align - 1, &bytes))
        return NULL;
    bytes &= ~(align - 1);
    struct chunk *c = arena->first;
    if (!c || c->size - c->used < bytes) {
        size_t room = bytes > CHUNK - sizeof *c ? bytes : CHUNK - sizeof *c, whole;
        if (__builtin_add_overflow(room, sizeof *c, &whole) || !nn_arena_count(arena, whole)) return NULL;
        if (!(c = calloc(1, whole))) return NULL;
        *c = (struct chunk){.next = arena->first, .size = room};
        arena->first = c;
    }
    void *p = c->data + c->used;
    c->used += bytes;
    return p;
}

char *nn_arena_strdup(struct nn_arena *arena, const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = nn_arena_alloc(arena, size, 1);
    return copy ? memcpy(copy, text, size) : NULL;
}

#define LARGE     ((size_t)4 << 20) /* bytes of a block that is worth large pages */
#define PAGE_SIZE ((uintptr_t)2 << 20)

/* One page fault in place of 512 where memory is touched first, and fewer misses of the address cache. It is a wish:
 * where the kernel does not grant it, nothing is lost. */
static void want_large_pages(void *block, size_t bytes) {
#ifdef MADV_HUGEPAGE
    uintptr_t begin = ((uintptr_t)block + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
    uintptr_t end = ((uintptr_t)block + bytes) & ~(PAGE_SIZE - 1);
    if (begin < end) (void)madvise((void *)begin, end - begin, MADV_HUGEPAGE);
#else
    (void)block, (void)bytes;
#endif
}

void *nn_block_new(size_t bytes) {
    size_t rounded;
    if (__builtin_add_overflow(bytes, (size_t)63, &rounded)) return NULL;
    rounded &= ~(size_t)63;
    void *block = aligned_alloc(64, rounded ? rounded : 64);
    if (block && rounded >= LARGE) want_large_pages(block, rounded);
    return block;
}

void *nn_block_zeros(size_t bytes) {
    void *block = nn_block_new(bytes);
    return block ? memset(block, 0, bytes) : NULL;
}

void nn_block_free(void *block) { free(block); }
