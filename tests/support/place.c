/* place.c - see place.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../core/nn.h"
#include "place.h"

static int place_reserve(void *self, int file, uint64_t size) {
    struct place *place = self;
    return place->fail_reserve ? -place->fail_reserve : place->real->reserve(place->real->self, file, size);
}
static int place_write(void *self, int file, const struct iovec *parts, int n, uint64_t offset) {
    struct place *place = self;
    return place->fail_write ? -place->fail_write
                             : place->real->write(place->real->self, file, parts, n, offset);
}
static int place_sync(void *self, int file) {
    const struct place *place = self;
    (void)file;
    return -place->fail_sync;
}
static int place_open(void *self, const char *name) {
    struct place *place = self;
    return place->real->open(place->real->self, name);
}
static int place_create(void *self, const char *name) {
    struct place *place = self;
    return place->real->create(place->real->self, name);
}
static void place_close(void *self, int file) {
    struct place *place = self;
    place->real->close(place->real->self, file);
}
static int64_t place_size(void *self, int file) {
    struct place *place = self;
    return place->real->size(place->real->self, file);
}
static int64_t place_read(void *self, int file, void *buffer, size_t size, uint64_t offset) {
    struct place *place = self;
    return place->real->read(place->real->self, file, buffer, size, offset);
}
static void place_forget(void *self, int file) {
    const struct place *place = self;
    place->real->forget(place->real->self, file);
}
static int64_t place_end_of_data(void *self, int file) {
    const struct place *place = self;
    return place->real->end_of_data(place->real->self, file);
}
static int place_sync_directory(void *self) {
    (void)self;
    return 0;
}
static int place_rename(void *self, const char *from, const char *to) {
    struct place *place = self;
    return place->real->rename(place->real->self, from, to);
}
static int place_remove(void *self, const char *name) {
    struct place *place = self;
    return place->real->remove(place->real->self, name);
}
static int place_list(void *self, void (*each)(void *arg, const char *name), void *arg) {
    struct place *place = self;
    return place->real->list(place->real->self, each, arg);
}

void place_init(struct place *place) {
    struct nn_error err = {0};
    *place = (struct place){.path = "/tmp/gradd-journal-XXXXXX"};
    assert_non_null(mkdtemp(place->path));
    place->directory = srv_directory_open(place->path, 0, &err);
    assert_non_null(place->directory);
    place->real = srv_directory_io(place->directory);
    place->io = (struct srv_io){
        .self = place,
        .open = place_open,
        .create = place_create,
        .close = place_close,
        .size = place_size,
        .read = place_read,
        .end_of_data = place_end_of_data,
        .write = place_write,
        .reserve = place_reserve,
        .sync = place_sync,
        .forget = place_forget,
        .sync_directory = place_sync_directory,
        .rename = place_rename,
        .remove = place_remove,
        .list = place_list,
    };
}

static void remove_file(void *arg, const char *name) {
    const struct place *place = arg;
    assert_int_equal(place->real->remove(place->real->self, name), 0);
}

void place_fini(struct place *place) {
    place->real->list(place->real->self, remove_file, place);
    srv_directory_close(place->directory);
    assert_int_equal(rmdir(place->path), 0);
}
