/* Files that are written once: what was written comes back piece by piece, however it is asked for, into memory of which
 * another thread touches the pages meanwhile. */
#include <stdlib.h>
#include <string.h>

#include "../../server/store/files.h"
#include "../support/check.h"
#include "../support/disk.h"

enum { SIZE = 9 << 20, MARGIN = 5000 };

static unsigned char byte_at(size_t i) { return (unsigned char)(i * 2654435761u >> 13); }

/* What is asked for, one after the other; the last is what is left. */
static const size_t asked[] = {1, 8, 4095, (size_t)3 << 20, 7, ((size_t)2 << 20) + 123};

static void read_part(struct api_source *source, size_t at, size_t size) {
    struct nn_error err = {0};
    unsigned char *room = malloc(size + MARGIN + MARGIN), *to = room + MARGIN;
    assert_non_null(room);
    memset(room, 0xA5, MARGIN);
    memset(to + size, 0xA5, MARGIN);
    assert_int_equal(source->read(source, to, size, &err), NN_OK);
    for (size_t i = 0; i < size; i++)
        if (to[i] != byte_at(at + i)) fail_msg("byte %zu is another one", at + i);
    for (size_t i = 0; i < MARGIN; i++)
        if (room[i] != 0xA5 || to[size + i] != 0xA5) fail_msg("memory beside it was written to");
    free(room);
}

static int take_all(void *arg, struct api_source *source, struct nn_error *err) {
    (void)arg, (void)err;
    size_t at = 0;
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; at += asked[i++]) read_part(source, at, asked[i]);
    read_part(source, at, SIZE - at);
    assert_int_equal(source->size, 0);
    return NN_OK;
}

static int take_too_much(void *arg, struct api_source *source, struct nn_error *err) {
    char *room = arg;
    assert_int_equal(source->read(source, room, SIZE, err), NN_E_CORRUPT);
    return (int)err->code;
}

static void pieces(void **state) {
    (void)state;
    struct test_disk *disk = test_disk_new();
    const struct srv_io *io = test_disk_io(disk);
    struct nn_error err = {0};
    struct srv_file_sum sum;
    size_t size;
    unsigned char *bytes = malloc(SIZE);
    assert_non_null(bytes);
    for (size_t i = 0; i < SIZE; i++) bytes[i] = byte_at(i);
    const struct api_segment segments[] = {{bytes, 100}, {bytes + 100, 0}, {bytes + 100, SIZE - 100}};
    assert_int_equal(srv_file_write(io, "a", segments, 3, &sum, &err), NN_OK);
    assert_int_equal(sum.size, SIZE);
    if (srv_file_show(io, "a", &sum, take_all, NULL, &err)) fail_msg("%s", err.text);

    /* A bit in what comes last. */
    test_disk_bytes(disk, "a", &size)[SIZE - 1] ^= 1;
    assert_int_equal(srv_file_show(io, "a", &sum, take_too_much, bytes, &err), NN_E_CORRUPT);
    assert_non_null(strstr(err.text, "checksum"));
    free(bytes);
    assert_int_equal(test_disk_open_files(disk), 0);
    test_disk_free(disk);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(pieces)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
