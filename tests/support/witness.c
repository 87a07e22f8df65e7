/* witness.c - see witness.h. */
#include "witness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "daemon.h"
#include "http.h"

/* After how many calls it takes a new connection, and how many it makes when all is over. */
enum { CALLS_A_CONNECTION = 20, LAST_CALLS = 50 };

#define JSON_TYPE "application/json"
#define CREATE                                                                                               \
    "{\"name\": \"witness\", \"seed\": 1, \"inputs\": {\"x\": {\"shape\": [2]}}, "                           \
    "\"layers\": [{\"op\": \"linear\", \"out_features\": 3}]}"
#define FORWARD "{\"model\": \"witness\", \"inputs\": {\"x\": [[1, 2]]}, \"seed\": 1}"

static struct {
    pthread_t thread;
    const char *url;
    atomic_bool stopping;
    int calls;
    char failure[512]; /* the first; "" if there was none */
} witness;

static bool call(struct http_client *client, const char *path, const char *body, int status,
                 char first[512]) {
    struct http_answer answer;
    const struct http_request request = {
        .method = "POST", .path = path, .type = JSON_TYPE, .body = body, .size = strlen(body)};
    http_call(client, &request, &answer);
    const char *text = (const char *)answer.body;
    bool good = answer.status == status && (!first[0] || strncmp(first, text, 511) == 0);
    if (good && !first[0]) snprintf(first, 512, "%s", text);
    if (!good)
        snprintf(witness.failure, sizeof witness.failure, "call %d, %s answers %d: %.300s", witness.calls,
                 path, answer.status, text);
    http_answer_fini(&answer);
    return good;
}

static void *work(void *self) {
    (void)self;
    char first[512] = "", created[512] = "";
    struct http_client *client = http_client_new(witness.url);
    bool good = client && call(client, "/models", CREATE, 201, created);
    for (int left = LAST_CALLS; good && left > 0; witness.calls++) {
        if (atomic_load(&witness.stopping)) left--;
        if (witness.calls % CALLS_A_CONNECTION == CALLS_A_CONNECTION - 1) {
            http_client_free(client);
            client = http_client_new(witness.url);
        }
        good = client && call(client, "/forward", FORWARD, 200, first);
    }
    http_client_free(client);
    return NULL;
}

void test_witness_start(const char *url) {
    witness.url = url;
    witness.calls = 0;
    witness.failure[0] = '\0';
    atomic_store(&witness.stopping, false);
    assert_int_equal(pthread_create(&witness.thread, NULL, work, NULL), 0);
}

void test_witness_stop(void) {
    atomic_store(&witness.stopping, true);
    pthread_join(witness.thread, NULL);
    if (witness.failure[0]) fail_msg("beside it, %s", witness.failure);
    assert_in_range(witness.calls, LAST_CALLS, INT32_MAX);
}
