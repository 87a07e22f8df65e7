/* journal.h - a store in memory for tests of api/: records and snapshots as bytes, durable when the test says so. */
#ifndef TEST_JOURNAL_H
#define TEST_JOURNAL_H

#include <pthread.h>

#include "../../api/store.h"
#include "service.h"

#define TEST_MAX_RECORDS 1024

struct test_record {
    char *bytes;
    size_t size;
    void (*done)(void *arg, bool durable); /* NULL: it was called */
    void *arg;
};

struct test_saved {
    char model[API_MAX_MODEL_NAME + 1], birth[17];
    uint64_t seq, changes, version;
    char *bytes;
    size_t size;
};

struct test_journal {
    struct api_store store;
    pthread_mutex_t lock;
    struct test_record records[TEST_MAX_RECORDS];
    size_t n, durable;           /* records, and how many of them are durable */
    bool hold;                   /* they become durable by test_journal_sync alone */
    bool refuse;                 /* there is no room for more */
    bool fail;                   /* they never become durable */
    int wanted;                  /* checkpoints that somebody asked for */
    struct test_saved saved[64]; /* in the order of checkpoints */
    size_t n_saved;
    void *keys;
    size_t keys_size;
};

void test_journal_init(struct test_journal *journal);
void test_journal_fini(struct test_journal *journal);
/* All records that are held become durable. */
void test_journal_sync(struct test_journal *journal);
void test_journal_checkpoint(struct test_journal *journal, struct api *api);
/* Of the first `n` records, and of the snapshots where `snapshots`; NN_OK, or the error. */
int test_journal_recover(struct test_journal *journal, struct api *api, bool snapshots, size_t n,
                         struct nn_error *err);

/* Another service, as it starts after a crash, and the journal that it goes on with. */
struct test_recovered {
    struct test_service service;
    struct test_journal journal;
};
/* At `before`'s moment, with the first `n` records of `journal`, and its snapshots where `snapshots`. */
void test_recovered_start(struct test_recovered *recovered, struct test_journal *journal,
                          struct test_service *before, bool snapshots, size_t n);
void test_recovered_stop(struct test_recovered *recovered);

#endif
