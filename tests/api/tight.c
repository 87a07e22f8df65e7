/* A budget that a model nearly fills: what takes no memory of its own goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "../support/service.h"

enum { WIDE = 300, BYTES = (WIDE + 1) * WIDE * 4 };

static struct test_service service;

static size_t patched(const char *members) {
    char body[256];
    snprintf(body, sizeof body, "{\"optimizer\": {%s}}", members);
    test_do(&service, 200, "PATCH /models/m", body);
    return api_memory_in_use(service.api);
}

/* Hyper-parameters are other numbers for the same state; a slot that they need comes, and one that they do not goes. */
static void hyper_parameters_change(void **state) {
    (void)state;
    struct api_settings tight = {.limits = api_default_limits};
    tight.limits.memory = 3 * BYTES + BYTES / 2; /* parameters, and a state of up to two slots */
    test_service_start(&service, &tight, 0);
    json_decref(test_ask(&service, 201, "POST /models", NULL,
                         "{'name': 'm', 'inputs': {'x': {'shape': [%d]}}, 'layers': [{'op': 'linear', "
                         "'out_features': %d}], 'optimizer': {'op': 'rmsprop', 'lr': 0.1}}",
                         WIDE, WIDE));
    size_t one = api_memory_in_use(service.api), two = patched("\"momentum\": 0.9");
    assert_in_range(two - one, BYTES, BYTES + 4096);
    assert_int_equal(patched("\"lr\": 0.2"), two);
    assert_int_equal(patched("\"momentum\": 0"), one);
    test_do(&service, 503, "PATCH /models/m",
            "{\"optimizer\": {\"op\": \"adam\", \"momentum\": null}}"); /* beside the old one */
    assert_int_equal(api_memory_in_use(service.api), one);
    test_do(&service, 200, "DELETE /models/m", NULL);
    assert_int_equal(api_memory_in_use(service.api), 0);
    test_service_stop(&service);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(hyper_parameters_change)};
    nn_blas_init();
    return cmocka_run_group_tests_name("a tight budget", tests, NULL, NULL);
}
