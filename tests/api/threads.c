/* Many threads at one service with threads of its own: models change, are read, kept, patched and deleted
 * under each other. Every answer is a success or a problem that the documentation names; a model's version
 * is the number of its changes that succeeded; and in the end nothing is held. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/service.h"

enum { CLIENTS = 8, WORKERS = 4, ROUNDS = 400 };

#define MODEL                                                                                                \
    "\"seed\": 1, \"inputs\": {\"x\": {\"shape\": [4]}},"                                                    \
    " \"layers\": [{\"op\": \"linear\", \"out_features\": 8}, {\"op\": \"relu\"}, {\"op\": \"dropout\"},"    \
    "              {\"op\": \"linear\", \"out_features\": 2}],"                                              \
    " \"loss\": {\"op\": \"mse\"}, \"optimizer\": {\"op\": \"sgd\", \"lr\": 0.001}}"
#define INPUTS  "\"inputs\": {\"x\": [[1, 2, 3, 4], [5, 6, 7, 8]]}"
#define TARGETS "\"targets\": {\"y\": [[0, 1], [1, 0]]}"

static struct test_service service;
static atomic_int changes, contributions, stepped, unexpected;

/* Reads before version 0 is wrong, and a version never goes back for one who waits for its answers. */
struct client {
    pthread_t thread;
    uint64_t random;
    json_int_t seen; /* the newest version of "shared" */
    struct api_response *held;
};

static unsigned roll(struct client *client, unsigned n) {
    client->random = client->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(client->random >> 33) % n;
}

static json_int_t integer(const json_t *json, const char *name) {
    return json_integer_value(json_object_get(json, name));
}

/* A request, of which the statuses in `allowed` are expected: "200 404 503". */
static json_t *ask(struct client *client, const char *allowed, const char *request, const char *body,
                   int *status) {
    char text[8], method[8];
    snprintf(method, sizeof method, "%.*s", (int)strcspn(request, " "), request);
    struct api_response *response =
        test_respond(&service, &(struct test_request){.method = method,
                                                      .path = strchr(request, ' ') + 1,
                                                      .body = body,
                                                      .size = body ? strlen(body) : 0});
    struct test_answer answer = test_copy_answer(response);
    if (roll(client, 4) == 0) { /* a slow reader */
        struct api_response *last = client->held;
        client->held = response;
        response = last;
    }
    api_response_free(response);
    *status = answer.status;
    snprintf(text, sizeof text, "%d", answer.status);
    json_t *json = answer.body ? json_loadb(answer.body, answer.size, 0, NULL) : NULL;
    if (!strstr(allowed, text) || !json) {
        print_error("%s %s: %s\n", request, body ? body : "", answer.body ? answer.body : "nothing");
        atomic_fetch_add(&unexpected, 1);
    }
    test_answer_free(&answer);
    return json;
}

static void see(struct client *client, const json_t *json) {
    json_int_t applied = integer(json, "applied_version"), version = integer(json, "version");
    if (version < client->seen) atomic_fetch_add(&unexpected, 1);
    if (version > client->seen) client->seen = version;
    if (applied > client->seen) client->seen = applied;
}

/* --- what clients do -------------------------------------------------------------------------------- */

#define BUSY " 503"

static void apply(struct client *client) {
    int status;
    json_t *json = ask(client, "200" BUSY, "POST /backward",
                       "{\"model\": \"shared\", \"apply\": true, " INPUTS ", " TARGETS "}", &status);
    if (status == 200) {
        atomic_fetch_add(&changes, 1);
        if (integer(json, "applied_version") <= integer(json, "version")) atomic_fetch_add(&unexpected, 1);
        see(client, json);
    }
    json_decref(json);
}

static void accumulate(struct client *client) {
    int status;
    json_decref(ask(client, "200" BUSY, "POST /backward",
                    "{\"model\": \"shared\", \"accumulate\": true, " INPUTS ", " TARGETS "}", &status));
    if (status == 200) atomic_fetch_add(&contributions, 1);
}

static void step(struct client *client) {
    int status;
    json_t *json =
        ask(client, "200 409" BUSY, "POST /step", "{\"model\": \"shared\", \"mean\": true}", &status);
    if (status == 200) {
        atomic_fetch_add(&changes, 1);
        atomic_fetch_add(&stepped, (int)integer(json, "contributions"));
        see(client, json);
    }
    json_decref(json);
}

static void pull(struct client *client) {
    int status;
    json_t *json = ask(client, "200", "GET /models/shared/parameters", NULL, &status);
    see(client, json);
    json_decref(json);
    if (roll(client, 2)) return;
    struct api_response *last = client->held; /* of tensors where they are: a reader of their version */
    client->held = test_respond(&service, &(struct test_request){.method = "GET",
                                                                 .path = "/models/shared/parameters",
                                                                 .accept = "application/safetensors"});
    if (!client->held || client->held->status != 200) atomic_fetch_add(&unexpected, 1);
    api_response_free(last);
}

static void set(struct client *client) {
    int status;
    json_t *json = ask(client, "200" BUSY, "PUT /models/shared/parameters?partial=true",
                       "{\"parameters\": {\"3.bias\": [0.5, -0.5]}}", &status);
    if (status == 200) atomic_fetch_add(&changes, 1);
    json_decref(json);
}

/* A forward pass that is kept, and two clients' worth of backward passes over it. */
static void keep(struct client *client) {
    int status;
    char body[300];
    json_t *json = ask(client, "200" BUSY, "POST /forward",
                       "{\"model\": \"shared\", \"retain\": true, " INPUTS "}", &status);
    const char *id = json_string_value(json_object_get(json, "context"));
    if (status == 200 && id) {
        see(client, json);
        snprintf(body, sizeof body, "{\"context\": \"%s\", \"retain\": true, %s}", id, TARGETS);
        json_decref(ask(client, "200", "POST /backward", body, &status));
        snprintf(body, sizeof body, "{\"context\": \"%s\", \"apply\": true, %s}", id, TARGETS);
        json_decref(ask(client, "200" BUSY, "POST /backward", body, &status));
        if (status == 200) atomic_fetch_add(&changes, 1);
        json_decref(ask(client, "404 200" BUSY, "POST /backward", body, &status));
        if (status == 200) atomic_fetch_add(&changes, 1); /* the first was turned away */
    }
    json_decref(json);
}

static void patch(struct client *client) {
    static const char *const bodies[] = {"{\"optimizer\": {\"lr\": 0.002}}",
                                         "{\"optimizer\": {\"momentum\": 0.5}}",
                                         "{\"optimizer\": {\"momentum\": null}}"};
    int status;
    json_decref(ask(client, "200", "PATCH /models/shared", bodies[roll(client, 3)], &status));
}

static void look(struct client *client) {
    static const char *const paths[] = {"GET /models", "GET /models/shared", "GET /models/shared/optimizer",
                                        "GET /contexts", "GET /ops"};
    int status;
    json_decref(ask(client, "200", paths[roll(client, 5)], NULL, &status));
}

/* A model of a name that all fight over. */
static void fight(struct client *client) {
    int status;
    json_decref(ask(client, "201 409", "POST /models", "{\"name\": \"fought\", " MODEL, &status));
    json_decref(ask(client, "200 404" BUSY, "POST /backward",
                    "{\"model\": \"fought\", \"apply\": true, " INPUTS ", " TARGETS "}", &status));
    json_decref(ask(client, "200 404" BUSY, "POST /forward",
                    "{\"model\": \"fought\", \"retain\": true, " INPUTS "}", &status));
    json_decref(ask(client, "200 404 409" BUSY, "PATCH /models/fought",
                    "{\"optimizer\": {\"op\": \"adam\", \"momentum\": null}}", &status));
    json_decref(ask(client, "200 404", "DELETE /models/fought", NULL, &status));
}

static void *run(void *arg) {
    static void (*const acts[])(struct client * client) = {apply, apply, accumulate, step, pull,
                                                           set,   keep,  patch,      look, fight};
    struct client *client = arg;
    for (int i = 0; i < ROUNDS; i++) acts[roll(client, sizeof acts / sizeof acts[0])](client);
    api_response_free(client->held);
    return NULL;
}

/* --- the test --------------------------------------------------------------------------------------- */

static void fight_it_out(int workers) {
    struct client clients[CLIENTS] = {0};
    struct api_settings settings = {.limits = api_default_limits};
    settings.limits.contexts = 16;
    test_service_start(&service, &settings, workers);
    atomic_store(&changes, 0);
    atomic_store(&contributions, 0);
    atomic_store(&stepped, 0);
    test_do(&service, 201, "POST /models", "{\"name\": \"shared\", " MODEL);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i].random = (uint64_t)i + 1;
        assert_int_equal(pthread_create(&clients[i].thread, NULL, run, &clients[i]), 0);
    }
    for (int i = 0; i < CLIENTS; i++) pthread_join(clients[i].thread, NULL);

    json_t *model = test_call(&service, 200, "GET /models/shared", NULL);
    assert_int_equal(integer(model, "version"), atomic_load(&changes));
    assert_int_equal(integer(model, "accumulated"), atomic_load(&contributions) - atomic_load(&stepped));
    assert_true(atomic_load(&changes) > 0);
    json_decref(model);
    test_do(&service, 0, "DELETE /models/fought", NULL);
    test_do(&service, 200, "DELETE /models/shared", NULL);
    json_t *list = test_call(&service, 200, "GET /contexts", NULL);
    assert_int_equal(json_array_size(json_object_get(list, "contexts")), 0);
    json_decref(list);
    assert_int_equal(atomic_load(&unexpected), 0);
    assert_int_equal(api_memory_in_use(service.api), 0);
    test_service_stop(&service);
}

static void on_the_services_threads(void **state) {
    (void)state;
    fight_it_out(WORKERS);
}

static void on_the_clients_threads(void **state) {
    (void)state;
    fight_it_out(0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_the_services_threads),
        cmocka_unit_test(on_the_clients_threads),
    };
    nn_blas_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
