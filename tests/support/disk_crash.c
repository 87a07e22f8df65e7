/* disk_crash.c - what a crash leaves of the disk in memory: its operations once more, without some. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk_state.h"

/* The sync that is to bring the i-th of n home: the first one behind it; NULL: there was none. */
static const struct test_operation *sync_of(const struct test_disk *disk, size_t n, size_t i) {
    const struct test_operation *it = &disk->operations[i];
    for (size_t k = i + 1; k < n; k++) {
        const struct test_operation *sync = &disk->operations[k];
        if (test_is_name(it) ? sync->kind == TEST_DISK_SYNC_DIRECTORY
                             : sync->kind == TEST_DISK_SYNC && sync->node == it->node)
            return sync;
    }
    return NULL;
}

static bool is_synced(const struct test_disk *disk, size_t n, size_t i) {
    const struct test_operation *sync = sync_of(disk, n, i);
    return sync && !sync->failed;
}

bool test_is_lost(const struct test_disk *disk, size_t i) {
    const struct test_operation *operation = &disk->operations[i],
                                *sync = sync_of(disk, disk->n_operations, i);
    return !test_is_name(operation) && !test_is_sync(operation) && sync && sync->failed;
}

/* The operations of the first n that may be lost; how many. */
static size_t open_ones(const struct test_disk *disk, size_t n, size_t *list) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        if (!disk->operations[i].failed && !test_is_sync(&disk->operations[i]) && !is_synced(disk, n, i))
            list[count++] = i;
    return count;
}

/* What is behind the cut of a torn write, or in the sector that is lost out of its middle. */
enum tear { OLD, ZEROS, GARBAGE, HOLE, TEARS };

/* Where a write may be torn: at some sector's boundary, or anywhere. */
static size_t cuts_of(const struct test_operation *write, size_t cuts[4]) {
    size_t n = 0, sector = TEST_SECTOR - write->offset % TEST_SECTOR; /* the first boundary within */
    if (write->size < 2) return 0;
    cuts[n++] = write->size / 2;
    if (sector < write->size) cuts[n++] = sector;
    size_t behind = (write->offset + write->size) % TEST_SECTOR, last = write->size - behind;
    if (behind < write->size && last > sector && last < write->size) cuts[n++] = last;
    cuts[n++] = write->size - 1;
    return n;
}

static const struct test_operation *last_write(const struct test_disk *disk, const size_t *list, size_t n) {
    while (n--)
        if (disk->operations[list[n]].kind == TEST_DISK_WRITE) return &disk->operations[list[n]];
    return NULL;
}

static void tear(struct test_state *state, const struct test_operation *write, size_t cut, enum tear how) {
    unsigned char *bytes = test_copy(write->bytes, write->size);
    struct test_node *node = &state->nodes[write->node];
    size_t end = how == HOLE && write->size - cut > TEST_SECTOR ? cut + TEST_SECTOR : write->size;
    if (how == OLD || how == HOLE) {
        test_state_put(node, write->offset, bytes, cut);
        test_state_put(node, write->offset + end, bytes + end, write->size - end);
    } else {
        for (size_t i = cut; i < end; i++) bytes[i] = how == ZEROS ? 0 : (unsigned char)(i * 167 + 13);
        test_state_put(node, write->offset, bytes, write->size);
    }
    free(bytes);
}

/* Draws whether something of an operation is there: half of all is. */
enum { SCATTERINGS = 2 };
static bool is_drawn(size_t seed, size_t operation, size_t part) {
    uint64_t bits = (seed * 1000003 + operation) * 1000033 + part + 1;
    for (int i = 0; i < 2; i++) bits = (bits ^ bits >> 31) * UINT64_C(0x9e3779b97f4a7c15);
    return bits >> 63;
}

/* The sectors of a write that are drawn. */
static void scatter(struct test_state *state, const struct test_operation *write, size_t seed, size_t n) {
    struct test_node *node = &state->nodes[write->node];
    for (size_t at = 0, size; at < write->size; at += size) {
        size = TEST_SECTOR - (write->offset + at) % TEST_SECTOR;
        if (size > write->size - at) size = write->size - at;
        if (is_drawn(seed, n, 1 + at)) test_state_put(node, write->offset + at, write->bytes + at, size);
    }
}

/* What becomes of those that are open: `which` is one of them, or a cut. */
enum fortune { ALL, NONE, NAMES, BYTES, ALONE_LOST, ALONE_KEPT, TORN, SCATTERED };
struct image {
    enum fortune fortune;
    size_t which;
    enum tear tear;
};

struct images {
    struct image *list; /* NULL: they are only counted */
    size_t n;
};

static void add_image(struct images *images, enum fortune fortune, size_t which, enum tear tear) {
    if (images->list) images->list[images->n] = (struct image){fortune, which, tear};
    images->n++;
}

/* Those that differ, of the operations `open`. */
static void enumerate(const struct test_disk *disk, const size_t *open, size_t n, struct images *images) {
    size_t names = 0, cuts[4];
    for (size_t i = 0; i < n; i++) names += test_is_name(&disk->operations[open[i]]);
    add_image(images, ALL, 0, OLD);
    if (n) add_image(images, NONE, 0, OLD);
    if (names && names < n) {
        add_image(images, NAMES, 0, OLD);
        add_image(images, BYTES, 0, OLD);
    }
    for (size_t i = 0; n > 1 && i < n; i++) add_image(images, ALONE_LOST, i, OLD);
    for (size_t i = 0; n > 2 && i < n; i++) add_image(images, ALONE_KEPT, i, OLD);
    const struct test_operation *write = last_write(disk, open, n);
    size_t n_cuts = write ? cuts_of(write, cuts) : 0;
    bool parts = n > 1 || (write && write->size > TEST_SECTOR);
    for (size_t i = 0; parts && i < SCATTERINGS; i++) add_image(images, SCATTERED, i, OLD);
    for (size_t cut = 0; cut < n_cuts; cut++)
        for (int tear = 0; tear < TEARS; tear++) add_image(images, TORN, cut, (enum tear)tear);
}

static bool survives(const struct image *image, const struct test_operation *operation, size_t which) {
    switch (image->fortune) {
    case ALL:
    case TORN:
        return true;
    case NONE:
        return false;
    case NAMES:
        return test_is_name(operation);
    case BYTES:
        return !test_is_name(operation);
    case ALONE_LOST:
        return which != image->which;
    case ALONE_KEPT:
        return which == image->which;
    case SCATTERED:
        return is_drawn(image->which, which, 0);
    }
    return false;
}

static void tell(const struct test_disk *disk, const struct image *image, const size_t *open, size_t n,
                 char text[256]) {
    static const char *const fortunes[] = {"all is there",
                                           "nothing is there",
                                           "names alone are there",
                                           "bytes alone are there",
                                           "lost alone: ",
                                           "kept alone: ",
                                           "torn: ",
                                           "half of all sectors and names are there"};
    static const char *const tears[TEARS] = {"what was there before", "zeros", "garbage", "a sector missing"};
    char operation[128] = "";
    size_t cuts[4], cut = 0;
    const struct test_operation *write = last_write(disk, open, n);
    if (image->fortune == ALONE_LOST || image->fortune == ALONE_KEPT)
        test_disk_operation(disk, open[image->which], operation);
    if (image->fortune == TORN) {
        cuts_of(write, cuts);
        cut = cuts[image->which];
        test_disk_operation(disk, (size_t)(write - disk->operations), operation);
    }
    snprintf(text, 256, "%s%s", fortunes[image->fortune], operation);
    if (image->fortune == TORN)
        snprintf(text + strlen(text), 256 - strlen(text), " at %zu, and then %s", cut, tears[image->tear]);
}

static void build(struct test_state *state, const struct test_disk *disk, size_t n, const struct image *image,
                  const size_t *open, size_t n_open) {
    const struct test_operation *torn = image->fortune == TORN ? last_write(disk, open, n_open) : NULL;
    size_t cuts[4] = {0};
    if (torn) cuts_of(torn, cuts);
    test_state_copy(state, &disk->first);
    for (size_t i = 0, k = 0; i < n; i++) {
        const struct test_operation *operation = &disk->operations[i];
        bool is_open = k < n_open && open[k] == i;
        if (operation->failed || test_is_sync(operation)) continue;
        if (operation == torn)
            tear(state, operation, cuts[image->which], image->tear);
        else if (is_open && image->fortune == SCATTERED && operation->kind == TEST_DISK_WRITE)
            scatter(state, operation, image->which, i);
        else if (!is_open || survives(image, operation, k))
            test_state_apply(state, operation);
        else
            test_state_room(state, operation->node);
        k += is_open;
    }
}

size_t test_disk_images(const struct test_disk *disk, size_t n) {
    struct images images = {0};
    size_t *open = test_must(malloc((n + 1) * sizeof *open));
    enumerate(disk, open, open_ones(disk, n, open), &images);
    free(open);
    return images.n;
}

struct test_disk *test_disk_image(const struct test_disk *disk, size_t n, size_t i, char text[256]) {
    struct images images = {0};
    size_t *open = test_must(malloc((n + 1) * sizeof *open)), n_open = open_ones(disk, n, open);
    enumerate(disk, open, n_open, &images);
    if (i >= images.n) abort();
    images.list = test_must(malloc(images.n * sizeof *images.list));
    images.n = 0;
    enumerate(disk, open, n_open, &images);
    struct test_disk *made = test_disk_new();
    build(&made->first, disk, n, &images.list[i], open, n_open);
    test_state_copy(&made->now, &made->first);
    tell(disk, &images.list[i], open, n_open, text);
    free(images.list);
    free(open);
    return made;
}

struct test_disk *test_disk_prefix(const struct test_disk *disk, size_t n) {
    struct test_disk *made = test_disk_new();
    test_state_copy(&made->first, &disk->first);
    test_state_copy(&made->now, &disk->first);
    for (size_t i = 0; i < n; i++) {
        made->operations = test_grown(made->operations, i, sizeof *made->operations);
        made->operations[i] = disk->operations[i];
        if (disk->operations[i].bytes)
            made->operations[i].bytes = test_copy(disk->operations[i].bytes, disk->operations[i].size);
        made->n_operations++;
        if (!disk->operations[i].failed) test_state_apply(&made->now, &disk->operations[i]);
    }
    return made;
}
