/* peak.c - what a request really allocates, held against what it reserved of the budget: the plan's figure is
 * the peak, and none is taken for each node or each number. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/file.h"
#include "../support/journal.h"
#include "../support/malloc.h"
#include "../support/service.h"

enum { WIDTH = 256, ROWS = 256, ACTIVATION = ROWS * WIDTH * 4 };

/* Beside what is reserved: the document, the plan, and what a block is larger than was asked for. */
enum { ASIDE = 128 * 1024 };

static void create(struct test_service *service, const char *name, int layers) {
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    assert_non_null(f);
    fprintf(f, "{\"name\": \"%s\", \"seed\": 1, \"inputs\": {\"x\": {\"shape\": [%d]}}, \"layers\": [", name,
            WIDTH);
    for (int i = 0; i < layers; i++) fprintf(f, "%s{\"op\": \"%s\"}", i ? "," : "", i % 2 ? "relu" : "tanh");
    fprintf(f,
            ", {\"op\": \"linear\", \"out_features\": %d}], \"loss\": {\"op\": \"mse\"},"
            " \"optimizer\": {\"op\": \"sgd\"}}",
            WIDTH);
    fclose(f);
    test_do(service, 201, "POST /models", text);
    free(text);
}

struct cost {
    size_t reserved; /* when the answer came */
    long peak, calls;
};

static struct cost cost_of(struct test_service *service, const char *path, const char *name, bool targets) {
    static float x[ROWS * WIDTH];
    struct test_writer writer = {0};
    size_t size, before = api_memory_in_use(service->api);
    for (int i = 0; i < ROWS * WIDTH; i++) x[i] = (float)(i % 17) / 16;
    test_write_text(&writer, "model", name);
    test_write_f32(&writer, "inputs/x", SHAPE(ROWS, WIDTH), x);
    if (targets) test_write_f32(&writer, "targets/y", SHAPE(ROWS, WIDTH), x);
    void *body = test_write_end(&writer, &size);
    long held = atomic_load(&test_bytes), calls = atomic_load(&test_calls);
    atomic_store(&test_peak, held);
    struct api_response *response =
        test_respond(service, &(struct test_request){.method = "POST",
                                                     .path = path,
                                                     .content_type = "application/safetensors",
                                                     .body = body,
                                                     .size = size});
    assert_non_null(response);
    assert_int_equal(response->status, 200);
    struct cost cost = {.reserved = api_memory_in_use(service->api) - before,
                        .peak = atomic_load(&test_peak) - held,
                        .calls = atomic_load(&test_calls) - calls};
    api_response_free(response);
    free(body);
    return cost;
}

static void peak_is_what_was_reserved(void **state) {
    (void)state;
    struct test_service service;
    static const struct {
        const char *path;
        bool targets;
    } requests[] = {{"/forward", false}, {"/backward", true}};
    test_service_start(&service, NULL, 0);
    create(&service, "shallow", 3);
    create(&service, "deep", 50);
    for (int i = 0; i < 2; i++)
        for (int deep = 0; deep < 2; deep++) {
            const char *name = deep ? "deep" : "shallow";
            cost_of(&service, requests[i].path, name, requests[i].targets); /* what is allocated once */
            struct cost cost = cost_of(&service, requests[i].path, name, requests[i].targets);
            if (cost.peak > (long)cost.reserved + ASIDE || cost.peak < (long)cost.reserved - ASIDE)
                fail_msg("%s %s reserved %zu bytes, and took %ld", requests[i].path, name, cost.reserved,
                         cost.peak);
        }
    test_service_stop(&service);
}

/* The body, and two activations: that which a layer reads, and that which it writes. */
static void deep_forward_takes_two_activations(void **state) {
    (void)state;
    struct test_service service;
    test_service_start(&service, NULL, 0);
    create(&service, "deep", 50);
    cost_of(&service, "/forward", "deep", false);
    assert_in_range(cost_of(&service, "/forward", "deep", false).peak, 3 * ACTIVATION,
                    3 * ACTIVATION + ASIDE);
    test_service_stop(&service);
}

/* Neither nodes nor numbers have allocations of their own: the arenas grow by whole chunks. */
static void few_allocations(void **state) {
    (void)state;
    struct test_service service;
    test_service_start(&service, NULL, 0);
    create(&service, "shallow", 2);
    create(&service, "deep", 202);
    for (int i = 0; i < 2; i++) {
        const char *path = i ? "/backward" : "/forward";
        cost_of(&service, path, "shallow", i);
        long few = cost_of(&service, path, "shallow", i).calls,
             many = cost_of(&service, path, "deep", i).calls;
        if (many > few + 20) fail_msg("%s: %ld allocations for 200 nodes more", path, many - few);
    }
    test_service_stop(&service);
}

/* A start takes what its models take, and no second time their size for the files. */
static void recovery_takes_the_models(void **state) {
    (void)state;
    static struct test_journal journal, empty;
    struct test_service service;
    struct nn_error err = {0};
    test_journal_init(&journal);
    test_service_start_stored(&service, NULL, 0, &journal.store);
    create(&service, "m", 2);
    test_journal_checkpoint(&journal, service.api);
    test_service_stop(&service);

    test_journal_init(&empty);
    test_service_start_stored(&service, NULL, 0, &empty.store);
    api_recover_begin(service.api);
    long held = atomic_load(&test_bytes);
    atomic_store(&test_peak, held);
    struct api_source source = api_source_of(journal.saved[0].bytes, journal.saved[0].size);
    assert_int_equal(api_recover_model(service.api, &source, 1, &err), NN_OK);
    assert_true(journal.saved[0].size > 2 * (size_t)ASIDE);
    assert_in_range(atomic_load(&test_peak) - held, 1, (long)api_memory_in_use(service.api) + ASIDE);
    assert_int_equal(api_recover_end(service.api, true, &err), NN_OK);
    test_service_stop(&service);
    test_journal_fini(&empty);
    test_journal_fini(&journal);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peak_is_what_was_reserved),
        cmocka_unit_test(deep_forward_takes_two_activations),
        cmocka_unit_test(few_allocations),
        cmocka_unit_test(recovery_takes_the_models),
    };
    nn_blas_init();
    atomic_store(&test_counts_bytes, true);
    return cmocka_run_group_tests_name("peak memory", tests, NULL, NULL);
}
