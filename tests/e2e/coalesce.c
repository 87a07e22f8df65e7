/* Many clients' forwards, computed together: each gets the bytes that it got alone, over HTTP. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../support/e2e.h"

enum { CLIENTS = 16, REPEATS = 40, FEATURES = 200, MOST_ROWS = 5 };

struct asker {
    pthread_t thread;
    struct http_client *http;
    struct http_request request;
    struct http_answer alone;
    int wrong;
};

static float x[MOST_ROWS * FEATURES];

static void prepare(struct asker *asker, int number) {
    struct test_writer writer = {0};
    int rows = 1 + number % MOST_ROWS;
    for (int i = 0; i < MOST_ROWS * FEATURES; i++) x[i] = (float)((i * 37 + number * 11) % 101 - 50) / 49;
    test_write_text(&writer, "model", "m");
    test_write_text(&writer, "seed", "3");
    test_write_f32(&writer, "inputs/x", SHAPE(rows, FEATURES), x);
    asker->request = (struct http_request){.method = "POST",
                                           .path = "/forward",
                                           .type = FILE_TYPE,
                                           .accept = number % 2 ? FILE_TYPE : JSON_TYPE};
    asker->request.body = service_keep(test_write_end(&writer, &asker->request.size));
    asker->http = http_client_new(service.url);
    assert_non_null(asker->http);
    assert_true(http_call(asker->http, &asker->request, &asker->alone));
    assert_int_equal(asker->alone.status, 200);
}

static void *repeat(void *arg) {
    struct asker *asker = arg;
    for (int i = 0; i < REPEATS; i++) {
        struct http_answer answer;
        bool same = http_call(asker->http, &asker->request, &answer) && answer.status == 200 &&
                    answer.size == asker->alone.size &&
                    memcmp(answer.body, asker->alone.body, answer.size) == 0;
        asker->wrong += !same;
        http_answer_fini(&answer);
    }
    return NULL;
}

static void in_company_as_alone(void **state) {
    (void)state;
    static struct asker clients[CLIENTS];
    service_start((const char *const[]){"--compute-threads", "2", "--batch-max", "32", "--batch-window-us",
                                        "1000", NULL},
                  NULL);
    ask(201, "POST", "/models",
        "{'name': 'm', 'seed': 1, 'coalesce': true, 'inputs': {'x': {'shape': [200]}}, 'layers': "
        "[{'op': 'linear', 'out_features': 3000}, {'op': 'tanh'}, {'op': 'linear', 'out_features': 41}]}");
    for (int i = 0; i < CLIENTS; i++) prepare(&clients[i], i);
    for (int i = 0; i < CLIENTS; i++)
        assert_int_equal(pthread_create(&clients[i].thread, NULL, repeat, &clients[i]), 0);
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
        http_answer_fini(&clients[i].alone);
        http_client_free(clients[i].http);
        assert_int_equal(clients[i].wrong, 0);
    }
    const json_t *coalescing = json_object_get(ask(200, "GET", "/models/m", NULL), "coalescing");
    json_int_t requests = json_integer_value(json_object_get(coalescing, "requests"));
    assert_int_equal(requests, CLIENTS * (REPEATS + 1));
    assert_true(json_integer_value(json_object_get(coalescing, "batches")) < requests);
    service_stop();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(in_company_as_alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
