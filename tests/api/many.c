/* Sixty-four clients at one service: they pull, push, compute, keep contexts, wait for each other in rounds,
 * retry, and delete the models under each other. Every answer is a success or a problem that the
 * documentation names for that request; what was applied is counted once; and in the end nothing is held
 * but what is to be remembered. GRADD_TEST_SECONDS says how long; a few by default. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "../support/service.h"

enum { CLIENTS = 64, WORKERS = 4, SHARED = 3 };

#define MODEL                                                                                                \
    "\"seed\": 1, \"inputs\": {\"x\": {\"shape\": [4]}},"                                                    \
    " \"layers\": [{\"op\": \"linear\", \"out_features\": 8}, {\"op\": \"relu\"}, {\"op\": \"dropout\"},"    \
    "              {\"op\": \"linear\", \"out_features\": 2}],"                                              \
    " \"loss\": {\"op\": \"mse\"}, \"optimizer\": {\"op\": \"sgd\", \"lr\": 0.001}"
#define INPUTS  "\"inputs\": {\"x\": [[1, 2, 3, 4], [5, 6, 7, 8]]}"
#define TARGETS "\"targets\": {\"y\": [[0, 1], [1, 0]]}"

static struct test_service service;
static atomic_bool stop;
static atomic_int unexpected;
static atomic_llong applied, applied_to_m0, answered, rounds_joined;

/* A client knows of one model what it last pulled. */
struct client {
    pthread_t thread;
    int number;
    uint64_t random;
    char model[16], incarnation[20];
    json_int_t version;
    char key[40]; /* of the request before it retries */
    int keys;
    struct api_response *held; /* a slow reader's */
};

static unsigned roll(struct client *client, unsigned n) {
    client->random = client->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(client->random >> 33) % n;
}

static json_int_t integer(const json_t *json, const char *name) {
    return json_integer_value(json_object_get(json, name));
}

static void hold(struct client *client, struct api_response *response) {
    struct api_response *last = client->held;
    bool slow = roll(client, 4) == 0;
    if (slow) client->held = response;
    api_response_free(slow ? last : response);
}

/* Sends `request` ("POST /step"), of which the slugs in `allowed` may come back as well as a success. The
 * answer's document where that is a success of JSON; else NULL. */
static json_t *ask(struct client *client, const char *allowed, const char *request,
                   const struct test_request *headers, const char *body) {
    char method[8];
    struct test_request whole = headers ? *headers : (struct test_request){0};
    snprintf(method, sizeof method, "%.*s", (int)strcspn(request, " "), request);
    whole.method = method;
    whole.path = strchr(request, ' ') + 1;
    whole.body = body;
    whole.size = body ? strlen(body) : 0;
    struct api_response *response = test_respond(&service, &whole);
    struct test_answer answer = test_copy_answer(response);
    hold(client, response);
    atomic_fetch_add(&answered, 1);
    bool success = answer.status >= 200 && answer.status < 400;
    json_t *json =
        answer.size && !(success && whole.accept) ? json_loadb(answer.body, answer.size, 0, NULL) : NULL;
    const char *type = json_string_value(json_object_get(json, "type"));
    size_t prefix = strlen(API_PROBLEM_TYPE);
    bool problem = type && strncmp(type, API_PROBLEM_TYPE, prefix) == 0 &&
                   integer(json, "status") == answer.status && strstr(allowed, type + prefix);
    if (!success && !problem) {
        print_error("%s %s: %d %s\n", request, body ? body : "", answer.status,
                    answer.body ? answer.body : "nothing");
        atomic_fetch_add(&unexpected, 1);
    }
    test_answer_free(&answer);
    if (success) return json;
    json_decref(json);
    return NULL;
}

/* Counts an update; a replay is none. */
static void count(const json_t *json) {
    if (!json || !json_object_get(json, "applied_version") || json_object_get(json, "replayed")) return;
    atomic_fetch_add(&applied, 1);
    if (strcmp(json_string_value(json_object_get(json, "model")), "m0") == 0)
        atomic_fetch_add(&applied_to_m0, 1);
}

#define GONE "not-found busy out-of-memory "

/* --- what clients do -------------------------------------------------------------------------------- */

static void pull(struct client *client) {
    char request[100];
    snprintf(client->model, sizeof client->model, "m%u", roll(client, SHARED));
    snprintf(request, sizeof request, "GET /models/%s/parameters", client->model);
    json_t *json = ask(client, GONE, request, NULL, NULL);
    const char *incarnation = json_string_value(json_object_get(json, "incarnation"));
    snprintf(client->incarnation, sizeof client->incarnation, "%s", incarnation ? incarnation : "");
    client->version = integer(json, "version");
    json_decref(json);
}

static void pull_file(struct client *client) {
    char request[100], tag[80];
    snprintf(request, sizeof request, "GET /models/m%u/parameters?names=0.bias&dtype=F16",
             roll(client, SHARED));
    snprintf(tag, sizeof tag, "\"%s-%lld-safetensors-F16\"", client->incarnation, (long long)client->version);
    json_decref(ask(client, GONE, request,
                    &(struct test_request){.accept = "application/safetensors", .if_none_match = tag}, NULL));
}

/* Once, or the same again with its key, which has to have one effect. */
static void change(struct client *client, const char *allowed, const char *request, const char *body,
                   const char *if_match) {
    char slugs[200];
    bool keyed = roll(client, 2) == 0;
    if (keyed) snprintf(client->key, sizeof client->key, "c%d-%d", client->number, client->keys++);
    struct test_request headers = {.if_match = if_match, .idempotency_key = keyed ? client->key : NULL};
    snprintf(slugs, sizeof slugs, "%s %s", GONE, allowed);
    json_t *json = ask(client, slugs, request, &headers, body);
    count(json);
    if (keyed && json && roll(client, 2)) {
        json_t *again = ask(client, GONE, request, &headers, body); /* busy: too many requests */
        if (again && (!json_is_true(json_object_get(again, "replayed")) ||
                      integer(again, "applied_version") != integer(json, "applied_version")))
            atomic_fetch_add(&unexpected, 1);
        json_decref(again);
    }
    json_decref(json);
}

static void push(struct client *client) {
    char request[100], body[300], tag[64];
    snprintf(request, sizeof request, "POST /models/%s/gradients", client->model);
    snprintf(body, sizeof body,
             "{\"incarnation\": \"%s\", \"version\": %lld, \"gradients\": {\"0.bias\": [1, 2, 3, 4, 5, 6, 7, "
             "8]}%s%s}",
             client->incarnation, (long long)client->version, roll(client, 3) ? "" : ", \"accumulate\": true",
             roll(client, 3) ? "" : ", \"max_staleness\": 2");
    snprintf(tag, sizeof tag, "\"%s-%lld\"", client->incarnation, (long long)client->version);
    if (client->incarnation[0])
        change(client, "stale invalid-value", request, body, roll(client, 4) ? NULL : tag);
}

static void backward(struct client *client) {
    char body[400];
    snprintf(body, sizeof body, "{\"model\": \"m%u\", \"%s\": true, " INPUTS ", " TARGETS "%s}",
             roll(client, SHARED), roll(client, 3) ? "apply" : "accumulate",
             roll(client, 3) ? "" : ", \"return\": [\"parameters\"]");
    change(client, "", "POST /backward", body, NULL);
}

static void only_backward(struct client *client) {
    char body[400];
    snprintf(body, sizeof body, "{\"model\": \"m%u\", " INPUTS ", " TARGETS "}", roll(client, SHARED));
    json_decref(ask(client, GONE, "POST /backward",
                    &(struct test_request){.accept = "application/safetensors"}, body));
}

static void step(struct client *client) {
    char body[100];
    snprintf(body, sizeof body, "{\"model\": \"m%u\", \"mean\": true}", roll(client, SHARED));
    change(client, "nothing-accumulated", "POST /step", body, NULL);
}

static void contexts(struct client *client) {
    char body[300];
    snprintf(body, sizeof body, "{\"model\": \"m%u\", \"retain\": true, " INPUTS "}", roll(client, SHARED));
    json_t *json = ask(client, GONE, "POST /forward", NULL, body);
    const char *id = json_string_value(json_object_get(json, "context"));
    if (id && roll(client, 3) == 0) {
        snprintf(body, sizeof body, "DELETE /contexts/%s", id);
        json_decref(ask(client, GONE, body, NULL, NULL));
    } else if (id) {
        snprintf(body, sizeof body, "{\"context\": \"%s\", \"retain\": true, %s}", id, TARGETS);
        json_decref(ask(client, GONE, "POST /backward", NULL, body));
        snprintf(body, sizeof body, "{\"context\": \"%s\", \"apply\": true, %s}", id, TARGETS);
        change(client, "", "POST /backward", body, NULL);
    }
    json_decref(json);
}

static void set(struct client *client) {
    char request[100];
    snprintf(request, sizeof request, "PUT /models/m%u/parameters?partial=true", roll(client, SHARED));
    change(client, "", request, "{\"parameters\": {\"3.bias\": [0.5, -0.5]}}", NULL);
}

static void blend(struct client *client) {
    char request[100], body[80];
    snprintf(request, sizeof request, "POST /models/m%u/parameters", roll(client, SHARED));
    snprintf(body, sizeof body, "{\"from\": \"m%u\", \"tau\": 0.005}", roll(client, SHARED));
    change(client, "unknown-name", request, body, NULL);
}

static void look(struct client *client) {
    static const char *const paths[] = {"GET /models/m0", "GET /models/m1/optimizer",
                                        "GET /contexts",  "GET /models/m2/gradients",
                                        "GET /models",    "GET /models/r"};
    json_decref(ask(client, GONE "nothing-accumulated no-optimizer", paths[roll(client, 6)], NULL, NULL));
}

/* A model goes, with all that was applied to it, and another of its name comes. "m0" stays. */
static void replace(struct client *client) {
    char request[60], body[600];
    unsigned model = 1 + roll(client, SHARED);
    if (roll(client, 4)) return;
    const char *name = model == SHARED ? "r" : (const char *[]){"m0", "m1", "m2"}[model];
    snprintf(request, sizeof request, "DELETE /models/%s", name);
    change(client, "", request, NULL, NULL);
    snprintf(body, sizeof body, "{\"name\": \"%s\", " MODEL "%s}", name,
             model == SHARED ? ", \"aggregation\": {\"mode\": \"sync\", \"workers\": 4, \"quorum\": 2,"
                               " \"timeout_ms\": 5}"
                             : "");
    change(client, "name-taken", "POST /models", body, NULL);
}

static void clear(struct client *client) {
    char request[60];
    snprintf(request, sizeof request, "DELETE /models/m%u/gradients", roll(client, SHARED));
    change(client, "", request, NULL, NULL);
}

/* Of a round, every contribution that is accepted tells of the same change: they are not counted. */
static void join(struct client *client) {
    char body[400];
    snprintf(body, sizeof body,
             "{\"model\": \"r\", \"apply\": true, \"worker\": \"w%u\", " INPUTS ", " TARGETS "}",
             roll(client, 6));
    json_t *json = ask(client, GONE "stale round-failed round-twice", "POST /backward", NULL, body);
    if (json) atomic_fetch_add(&rounds_joined, 1);
    if (json && !json_object_get(json, "round")) atomic_fetch_add(&unexpected, 1);
    json_decref(json);
}

static void *run(void *arg) {
    static void (*const acts[])(struct client * client) = {pull,          pull_file, push,     push, backward,
                                                           only_backward, step,      contexts, set,  blend,
                                                           look,          replace,   clear,    join};
    struct client *client = arg;
    while (!atomic_load(&stop)) acts[roll(client, sizeof acts / sizeof acts[0])](client);
    api_response_free(client->held);
    return NULL;
}

/* --- the test --------------------------------------------------------------------------------------- */

static long seconds(void) {
    const char *text = getenv("GRADD_TEST_SECONDS");
    long n = text ? strtol(text, NULL, 10) : 2;
    return n > 0 ? n : 2;
}

static void tick(void) {
    static const struct timespec moment = {.tv_nsec = 1000000};
    nanosleep(&moment, NULL);
    atomic_fetch_add(&service.now_ms, 1);
    api_tick(service.api);
}

static void sixty_four(void **state) {
    (void)state;
    static struct client clients[CLIENTS];
    struct api_settings settings = {.limits = api_default_limits};
    settings.limits.contexts = 32;
    settings.limits.memory = (size_t)64 << 20;
    settings.limits.keys = 1000000;
    test_service_start(&service, &settings, WORKERS);
    test_do(&service, 201, "POST /models", "{\"name\": \"m0\", " MODEL "}");
    for (int i = 0; i < CLIENTS; i++) {
        clients[i].number = i;
        clients[i].random = (uint64_t)i + 1;
        assert_int_equal(pthread_create(&clients[i].thread, NULL, run, &clients[i]), 0);
    }
    struct timespec until, now;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += seconds();
    do {
        tick();
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < until.tv_sec || (now.tv_sec == until.tv_sec && now.tv_nsec < until.tv_nsec));
    atomic_store(&stop, true);
    while (api_in_flight(service.api) > 0) tick();
    for (int i = 0; i < CLIENTS; i++) {
        while (pthread_tryjoin_np(clients[i].thread, NULL)) tick(); /* one may just have joined a round */
    }
    assert_int_equal(atomic_load(&unexpected), 0);
    assert_true(atomic_load(&applied) > 0 && atomic_load(&rounds_joined) > 0);

    json_t *model = test_call(&service, 200, "GET /models/m0", NULL);
    assert_int_equal(integer(model, "version"), atomic_load(&applied_to_m0));
    json_decref(model);
    static const char *const names[] = {"m0", "m1", "m2", "r"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char request[60];
        snprintf(request, sizeof request, "DELETE /models/%s", names[i]);
        test_do(&service, 0, request, NULL);
    }
    json_t *list = test_call(&service, 200, "GET /contexts", NULL);
    assert_int_equal(json_array_size(json_object_get(list, "contexts")), 0);
    json_decref(list);
    atomic_fetch_add(&service.now_ms, settings.limits.key_ttl_ms);
    api_tick(service.api); /* and what was remembered is forgotten */
    assert_int_equal(api_memory_in_use(service.api), 0);
    test_service_stop(&service);
    print_message("%lld answers, %lld updates\n", atomic_load(&answered), atomic_load(&applied));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sixty_four),
    };
    nn_blas_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
