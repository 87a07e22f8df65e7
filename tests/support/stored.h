/* stored.h - the service of api/ with the store of server/ on a disk in memory, on one thread: what is appended is
 * durable when the test says so. For the programs of tests/server. */
#ifndef TEST_STORED_H
#define TEST_STORED_H

#include "../../server/store/store.h"
#include "disk.h"
#include "service.h"

struct test_stored {
    struct test_service service;
    struct srv_store *store;
    struct api_store wrapped;                 /* that the service sees: the store's, but for append, */
    void (*once)(struct test_stored *stored); /* in which this is called, once, before the record is there */
    void *arg;                                /* for that one */
};

/* What stores of tests are like, unless they say otherwise: small segments, two snapshots, no threads. */
extern const struct srv_store_options test_store_options;

/* Called before the store is at work, and when it has been; NULL: nobody looks. */
extern void (*test_stored_watch)(bool on);

/* On what is on the disk, which outlives it; `life` tells the random numbers of one start from those of others.
 * NN_OK; or NN_E_CORRUPT, NN_E_STORE and the like, and there is nothing to stop. */
int test_stored_start(struct test_stored *stored, struct test_disk *disk, int life,
                      const struct srv_store_options *options, struct nn_error *err);
/* Makes durable what was appended, and has a checkpoint taken if a request waits for one still. */
void test_stored_settle(struct test_stored *stored, const struct test_pending *pending);
/* The same; false: it is not answered yet, for there is no room on the disk. */
bool test_stored_settles(struct test_stored *stored, const struct test_pending *pending);
/* A request, answered. */
struct test_answer test_stored_request(struct test_stored *stored, const struct test_request *request);
/* A clean stop; what fails then. */
int test_stored_finish(struct test_stored *stored, struct nn_error *err);
/* The end of the process, as it stands: without a finish before, as after kill -9. */
void test_stored_stop(struct test_stored *stored);

#endif
