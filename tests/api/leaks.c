/* What many requests leave behind: nothing, neither of the allocator's bytes nor of the service's budget. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/malloc.h"
#include "../support/service.h"

#define LAYERS                                                                                               \
    "\"inputs\": {\"x\": {\"shape\": [8]}},"                                                                 \
    " \"layers\": [{\"op\": \"linear\", \"out_features\": 16}, {\"op\": \"relu\"}, {\"op\": \"dropout\"},"   \
    "              {\"op\": \"linear\", \"out_features\": 4}],"                                              \
    " \"loss\": {\"op\": \"cross_entropy\"}, \"optimizer\": {\"op\": \"adam\"}}"
#define INPUTS  "\"inputs\": {\"x\": [[1, 2, 3, 4, 5, 6, 7, 8]]}"
#define TARGETS "\"targets\": {\"y\": [3]}"

/* Calls fn some times, for what is allocated once, and then `times` times, which leave nothing. */
static void repeat(struct test_service *service, int times, void (*fn)(struct test_service *service, int i)) {
    for (int i = 0; i < 10; i++) fn(service, i);
    long live = atomic_load(&test_live), bytes = atomic_load(&test_bytes);
    size_t reserved = api_memory_in_use(service->api);
    for (int i = 0; i < times; i++) fn(service, i);
    assert_int_equal(api_memory_in_use(service->api), reserved);
    assert_int_equal(atomic_load(&test_live), live);
    /* a block may be larger than asked for, where the rest would be too small for another */
    assert_true(labs(atomic_load(&test_bytes) - bytes) <= 32 * live);
}

static void create_and_delete(struct test_service *service, int i) {
    char body[600], request[64];
    snprintf(body, sizeof body, "{\"name\": \"m%d\", %s", i, LAYERS);
    snprintf(request, sizeof request, "DELETE /models/m%d", i);
    test_do(service, 201, "POST /models", body);
    test_do(service, 200, request, NULL);
}

static void models(void **state) {
    (void)state;
    struct test_service service;
    test_service_start(&service, NULL, 0);
    repeat(&service, 10000, create_and_delete);
    test_service_stop(&service);
}

/* A model that has lived: versions, an accumulated gradient, contexts that go with it. */
static void live_and_die(struct test_service *service, int i) {
    (void)i;
    test_do(service, 201, "POST /models", "{\"name\": \"m\", " LAYERS);
    test_do(service, 200, "POST /forward", "{\"model\": \"m\", \"retain\": true, " INPUTS "}");
    test_do(service, 200, "POST /backward", "{\"model\": \"m\", \"apply\": true, " INPUTS ", " TARGETS "}");
    test_do(service, 200, "POST /backward",
            "{\"model\": \"m\", \"accumulate\": true, " INPUTS ", " TARGETS "}");
    test_do(service, 200, "PATCH /models/m", "{\"optimizer\": {\"op\": \"sgd\", \"momentum\": 0.5}}");
    test_do(service, 200, "DELETE /models/m", NULL);
}

static void lives(void **state) {
    (void)state;
    struct test_service service;
    test_service_start(&service, NULL, 0);
    repeat(&service, 500, live_and_die);
    test_service_stop(&service);
}

static void train(struct test_service *service, int i) {
    char body[256];
    test_do(service, 200, "POST /forward", "{\"model\": \"m\", " INPUTS "}");
    json_t *kept =
        test_call(service, 200, "POST /forward", "{\"model\": \"m\", \"retain\": true, " INPUTS "}");
    snprintf(body, sizeof body, "{\"context\": \"%s\", \"apply\": %s, %s}",
             json_string_value(json_object_get(kept, "context")), i % 2 ? "true" : "false", TARGETS);
    json_decref(kept);
    test_do(service, 200, "POST /backward", body);
    test_do(service, 404, "POST /backward", body);
    test_do(service, 200, "POST /backward",
            "{\"model\": \"m\", \"accumulate\": true, " INPUTS ", " TARGETS "}");
    test_do(service, 200, "POST /step", "{\"model\": \"m\"}");
}

static void cycles(void **state) {
    (void)state;
    struct test_service service;
    test_service_start(&service, NULL, 0);
    test_do(&service, 201, "POST /models", "{\"name\": \"m\", " LAYERS);
    repeat(&service, 1000, train);
    test_service_stop(&service);
}

/* From one optimizer to another and back. */
static void patch(struct test_service *service, int i) {
    (void)i;
    test_do(service, 200, "PATCH /models/m", "{\"optimizer\": {\"op\": \"sgd\", \"momentum\": 0.5}}");
    test_do(service, 200, "PATCH /models/m", "{\"optimizer\": null}");
    test_do(service, 200, "PATCH /models/m", "{\"optimizer\": {\"op\": \"sgd\"}}");
    test_do(service, 200, "PATCH /models/m", "{\"optimizer\": {\"momentum\": 0.9}}");
    test_do(service, 200, "PATCH /models/m", "{\"optimizer\": {\"op\": \"adam\", \"momentum\": null}}");
}

static void optimizers(void **state) {
    (void)state;
    struct test_service service;
    test_service_start(&service, NULL, 0);
    test_do(&service, 201, "POST /models", "{\"name\": \"m\", " LAYERS);
    repeat(&service, 500, patch);
    test_service_stop(&service);
}

/* Contexts that nobody comes back for. */
static void keep(struct test_service *service, int i) {
    (void)i;
    test_do(service, 200, "POST /forward", "{\"model\": \"m\", \"retain\": true, " INPUTS "}");
    atomic_fetch_add(&service->now_ms, api_default_limits.context_ttl_ms + 1);
    json_decref(test_call(service, 200, "GET /contexts", NULL));
}

static void contexts(void **state) {
    (void)state;
    struct test_service service;
    test_service_start(&service, NULL, 0);
    test_do(&service, 201, "POST /models", "{\"name\": \"m\", " LAYERS);
    repeat(&service, 1000, keep);
    test_service_stop(&service);
}

/* Readers of old versions hold their memory, eight versions at the most, and no longer than they read. */
static void versions(void **state) {
    (void)state;
    enum { READERS = 7 };
    static const char change[] = "{\"parameters\": {\"3.bias\": [1, 2, 3, 4]}}";
    struct test_service service;
    struct api_response *held[READERS];
    test_service_start(&service, NULL, 0);
    test_do(&service, 201, "POST /models", "{\"name\": \"m\", " LAYERS);
    test_do(&service, 200, "PUT /models/m/parameters?partial=true", change);
    size_t reserved = api_memory_in_use(service.api);
    for (int i = 0; i < READERS; i++) {
        held[i] = test_respond(&service, &(struct test_request){.method = "GET",
                                                                .path = "/models/m/parameters",
                                                                .accept = "application/safetensors"});
        assert_non_null(held[i]);
        test_do(&service, 200, "PUT /models/m/parameters?partial=true", change);
    }
    test_do(&service, 503, "PUT /models/m/parameters?partial=true", change);
    for (int i = 0; i < READERS; i++) api_response_free(held[i]);
    size_t one = (api_memory_in_use(service.api) - reserved) / (READERS + 1 - 2); /* there were two before */
    assert_true(one > 0);
    test_do(&service, 200, "PUT /models/m/parameters?partial=true", change);
    assert_true(api_memory_in_use(service.api) <= reserved + one);
    json_t *model = test_call(&service, 200, "GET /models/m", NULL);
    assert_int_equal(json_integer_value(json_object_get(model, "version")), READERS + 2);
    json_decref(model);
    test_service_stop(&service);
}

/* An id that is taken is not given again, were entropy to repeat itself. */
static void ids(void **state) {
    (void)state;
    static const char keep_it[] = "{\"model\": \"m\", \"retain\": true, \"seed\": 1, " INPUTS "}";
    struct test_service service;
    test_service_start(&service, NULL, 0);
    test_do(&service, 201, "POST /models", "{\"name\": \"m\", " LAYERS);
    unsigned long long drawn = atomic_load(&service.drawn);
    test_do(&service, 200, "POST /forward", keep_it);
    size_t reserved = api_memory_in_use(service.api);
    atomic_store(&service.drawn, drawn);
    test_do(&service, 503, "POST /forward", keep_it);
    assert_int_equal(api_memory_in_use(service.api), reserved);
    test_do(&service, 200, "POST /forward", keep_it);
    test_service_stop(&service);
}

static void refuse(struct test_service *service, int i) {
    static const char *const bodies[] = {"{\"model\": \"m\", \"inputs\": {\"x\": [[1, 2], [3]]}}",
                                         "{\"model\": \"m\", \"inputs\": {\"x\": [[1, 2]]}}",
                                         "{\"model\": \"m\", \"inputs\": {\"x\": ",
                                         "{\"model\": \"m\", \"retain\": true, \"retain\": true}",
                                         "{\"model\": {\"inputs\": {}, \"layers\": [{\"op\": \"relu\"}]}}",
                                         "{\"model\": \"nobody\", \"inputs\": {\"x\": [[1]]}}"};
    test_do(service, 0, "POST /forward", bodies[i % 6]);
    test_do(service, 0, "POST /models", bodies[i % 6]);
    test_do(service, 0, "POST /backward", bodies[i % 6]);
}

static void refusals(void **state) {
    (void)state;
    struct test_service service;
    test_service_start(&service, NULL, 0);
    test_do(&service, 201, "POST /models", "{\"name\": \"m\", " LAYERS);
    repeat(&service, 3000, refuse);
    test_service_stop(&service);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models),     cmocka_unit_test(lives),    cmocka_unit_test(cycles),
        cmocka_unit_test(optimizers), cmocka_unit_test(contexts), cmocka_unit_test(refusals),
        cmocka_unit_test(versions),   cmocka_unit_test(ids),
    };
    atomic_store(&test_counts_bytes, true);
    nn_blas_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
