/* stored.c - see stored.h. */
#include "check.h"

#include <string.h>

#include "stored.h"

void (*test_stored_watch)(bool on);

static void watch(bool on) {
    if (test_stored_watch) test_stored_watch(on);
}

static int64_t now_ms(void) { return INT64_C(1700000000000); }

const struct srv_store_options test_store_options = {.segment_bytes = 16384,
                                                     .checkpoint_bytes = UINT64_C(1) << 40,
                                                     .checkpoint_ms = INT64_C(1) << 40,
                                                     .snapshots = 2,
                                                     .now_ms = now_ms};

static int append(void *self, const struct api_segment *segments, size_t n,
                  void (*done)(void *arg, bool durable), void *arg, uint64_t *seq, struct nn_error *err) {
    struct test_stored *stored = self;
    const struct api_store *store = srv_store_api(stored->store);
    void (*once)(struct test_stored *) = stored->once;
    stored->once = NULL;
    if (once) once(stored);
    return store->append(store->self, segments, n, done, arg, seq, err);
}

static const struct api_store *store_of(void *self) {
    return srv_store_api(((struct test_stored *)self)->store);
}

static uint64_t last(void *self) { return store_of(self)->last(store_of(self)->self); }

static void want_checkpoint(void *self) { store_of(self)->want_checkpoint(store_of(self)->self); }

static size_t list(void *self, const char *model, const char *birth, struct api_stored *found, size_t room) {
    return store_of(self)->list(store_of(self)->self, model, birth, found, room);
}

static int read_one(void *self, const char *model, const char *birth, int64_t version, api_source_fn *take,
                    void *arg, struct nn_error *err) {
    return store_of(self)->read(store_of(self)->self, model, birth, version, take, arg, err);
}

static void status(void *self, struct api_store_status *found) {
    store_of(self)->status(store_of(self)->self, found);
}

int test_stored_start(struct test_stored *stored, struct test_disk *disk, int life,
                      const struct srv_store_options *options, struct nn_error *err) {
    memset(stored, 0, sizeof *stored);
    stored->wrapped = (struct api_store){.self = stored,
                                         .append = append,
                                         .last = last,
                                         .want_checkpoint = want_checkpoint,
                                         .list = list,
                                         .read = read_one,
                                         .status = status};
    watch(true);
    stored->store = srv_store_new(test_disk_io(disk), options ? options : &test_store_options, err);
    watch(false);
    if (!stored->store) return (int)err->code;
    test_service_start_stored(&stored->service, NULL, 0, &stored->wrapped);
    atomic_store(&stored->service.drawn, 1000000 * (unsigned long long)life);
    watch(true);
    int code = srv_store_recover(stored->store, stored->service.api, false, err);
    watch(false);
    if (code == NN_OK) return NN_OK;
    test_stored_stop(stored);
    return (int)err->code;
}

bool test_stored_settles(struct test_stored *stored, const struct test_pending *pending) {
    struct nn_error err = {0};
    watch(true);
    for (int tries = 0; tries < 2; tries++)
        while (srv_store_commit(stored->store)) continue;
    watch(false);
    if (!atomic_load(&pending->done) && srv_store_checkpoint(stored->store, &err))
        api_checkpoint_failed(stored->service.api, &err);
    return atomic_load(&pending->done);
}

void test_stored_settle(struct test_stored *stored, const struct test_pending *pending) {
    if (!test_stored_settles(stored, pending)) fail_msg("a request is never answered");
}

struct test_answer test_stored_request(struct test_stored *stored, const struct test_request *request) {
    struct test_pending pending;
    test_submit(&stored->service, &pending, request);
    test_stored_settle(stored, &pending);
    return test_take(&pending);
}

int test_stored_finish(struct test_stored *stored, struct nn_error *err) {
    return srv_store_finish(stored->store, err);
}

void test_stored_stop(struct test_stored *stored) {
    srv_store_free(stored->store);
    test_service_stop(&stored->service);
}
