/* brief.c - requests that are served before their submission returns, and those that another thread is handed;
 * which is which is known by their cost, and a thread that has to be brief takes over nobody's work. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../api/api.h"

/* --- a service whose other threads are a list of jobs ---------------------------------------------- */

static struct job {
    void (*run)(void *arg);
    void *arg;
    uint64_t cost;
} jobs[8];
static int n_jobs;
static bool full;             /* no more are taken */
static void (*in_loop)(void); /* called once, from within the next loop that is spread */

static int64_t now_ms(void *self) { return *(int *)self; }

static bool entropy(void *self, void *buffer, size_t size) {
    memset(buffer, ++*(int *)self, size);
    return true;
}

static bool execute(void *self, void (*job)(void *arg), void *arg, uint64_t cost) {
    (void)self;
    if (full) return false;
    assert_true(n_jobs < 8);
    jobs[n_jobs++] = (struct job){job, arg, cost};
    return true;
}

static void parallel(void *pool, size_t n, void (*task)(void *arg, size_t i), void *arg) {
    void (*then)(void) = in_loop;
    (void)pool;
    in_loop = NULL;
    for (size_t i = 0; i < n; i++) task(arg, i);
    if (then) then();
}

/* The oldest job. */
static void run_job(void) {
    assert_true(n_jobs > 0);
    struct job job = jobs[0];
    memmove(jobs, jobs + 1, (size_t)--n_jobs * sizeof *jobs);
    job.run(job.arg);
}

struct client {
    bool answered;
    int status;
    char body[4096];
};

static void reply(void *context, struct api_response *response) {
    struct client *client = context;
    size_t at = 0;
    assert_non_null(response);
    for (size_t i = 0; i < response->n_segments; i++) {
        assert_true(at + response->segments[i].size < sizeof client->body);
        memcpy(client->body + at, response->segments[i].data, response->segments[i].size);
        at += response->segments[i].size;
    }
    client->body[at] = '\0';
    client->status = response->status;
    client->answered = true;
    api_response_free(response);
}

static struct api *api;

static void submit(struct client *client, const char *method, const char *target, const char *body) {
    size_t size = body ? strlen(body) : 0;
    char path[64], *query;
    snprintf(path, sizeof path, "%s", target);
    if ((query = strchr(path, '?'))) *query++ = '\0';
    struct api_head head = {.method = method, .path = path, .query = query, .content_length = (int64_t)size};
    struct api_admission admission = api_admit(api, &head);
    assert_non_null(admission.request);
    *client = (struct client){.answered = false};
    api_submit_take(admission.request, body ? strdup(body) : NULL, size, reply, client);
}

static int start(void **state) {
    static int counter;
    struct api_settings settings = {.limits = api_default_limits, .version = "0"};
    struct api_env env = {.self = &counter,
                          .now_ms = now_ms,
                          .entropy = entropy,
                          .execute = execute,
                          .parallel = {.run = parallel}};
    struct nn_error err = {0};
    (void)state;
    api = api_new(&settings, &env, &err);
    return api ? 0 : -1;
}

static int stop(void **state) {
    (void)state;
    assert_int_equal(n_jobs, 0);
    api_free(api);
    return 0;
}

/* A perceptron of these widths, named by its number of features. */
static void create(int features, int width) {
    struct client client;
    char body[512];
    snprintf(
        body, sizeof body,
        "{\"name\": \"m%d\", \"seed\": 1, \"inputs\": {\"x\": {\"shape\": [%d]}}, \"layers\":"
        " [{\"op\": \"linear\", \"out_features\": %d}, {\"op\": \"linear\", \"out_features\": 2}],"
        " \"loss\": {\"op\": \"cross_entropy\"}, \"optimizer\": {\"op\": \"sgd\", \"clip_grad_norm\": 1}}",
        features, features, width);
    submit(&client, "POST", "/models", body);
    run_job();
    assert_int_equal(client.status, 201);
}

/* A step with as many rows; the caller's to free. */
static char *step_body(int features, int rows, const char *wish) {
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    assert_non_null(f);
    fprintf(f, "{\"model\": \"m%d\", %s \"inputs\": {\"x\": [", features, wish);
    for (int i = 0; i < rows; i++) {
        fputs(i ? ",[0" : "[0", f);
        for (int k = 1; k < features; k++) fputs(",1", f);
        fputs("]", f);
    }
    fputs("]}, \"targets\": {\"y\": [0", f);
    for (int i = 1; i < rows; i++) fputs(",1", f);
    fputs("]}}", f);
    fclose(f);
    return text;
}

/* --- tests ----------------------------------------------------------------------------------------- */

static void small_requests_are_answered_at_once(void **state) {
    (void)state;
    static const struct {
        const char *method, *path, *body;
        int status;
    } requests[] = {
        {"GET", "/models/m4", NULL, 200},
        {"GET", "/models/m4/parameters", NULL, 200},
        {"POST", "/backward",
         "{\"model\": \"m4\", \"apply\": true, \"inputs\": {\"x\": [[1, 2, 3, 4]]}, \"targets\": {\"y\": "
         "[1]}}",
         200},
        {"POST", "/forward", "{\"model\": \"m4\", \"inputs\": {\"x\": [[1, 2, 3, 4]]}}", 200},
        {"PUT", "/models/m4/parameters?partial=true", "{\"parameters\": {\"1.bias\": [1, 2]}}", 200},
        {"POST", "/forward", "{\"model\": \"m4\", \"inputs\": {\"x\": [[1, 2, 3]]}}", 422},
        {"POST", "/forward", "{\"model\":", 400},
        {"POST", "/forward", "{\"model\": \"m4\", \"nonsense\": 1}", 422},
    };
    struct client client;
    create(4, 8);
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        submit(&client, requests[i].method, requests[i].path, requests[i].body);
        assert_true(client.answered);
        assert_int_equal(client.status, requests[i].status);
        assert_int_equal(n_jobs, 0);
    }
}

/* By their body, by their model, or by what their answer would hold. */
static void others_are_queued_at_their_cost(void **state) {
    (void)state;
    struct client client;
    create(8, 16);
    create(250, 4000);
    char *large = step_body(8, 2000, "\"apply\": true,"), *wide = step_body(250, 1, "\"apply\": true,");
    const struct {
        const char *method, *path, *body;
        uint64_t least;
    } requests[] = {
        {"POST", "/backward", large, UINT64_C(5000000)},
        {"POST", "/backward", wide, UINT64_C(3) * 2 * 250 * 4000},
        {"GET", "/models", NULL, 0},
    };
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        submit(&client, requests[i].method, requests[i].path, requests[i].body);
        assert_false(client.answered);
        assert_int_equal(n_jobs, 1);
        assert_true(jobs[0].cost >= requests[i].least);
        run_job();
        assert_int_equal(client.status, 200);
    }
    /* A million numbers as text; the model is gone before somebody writes them. */
    struct client other;
    submit(&client, "GET", "/models/m250/parameters", NULL);
    assert_false(client.answered);
    assert_true(jobs[0].cost >= UINT64_C(250) * 4000 * 1000);
    submit(&other, "DELETE", "/models/m250", NULL);
    jobs[2] = jobs[0];
    jobs[0] = jobs[1];
    jobs[1] = jobs[2];
    run_job();
    assert_int_equal(other.status, 200);
    run_job();
    assert_int_equal(client.status, 404);
    free(large);
    free(wide);
}

static struct client second;

static void submit_second(void) {
    submit(&second, "POST", "/models/m364/parameters", "{\"from\": \"m364\", \"tau\": 0.5}");
    run_job(); /* on another thread, as it were; its change finds the first one's turn, and waits */
    assert_false(second.answered);
}

static void changes_behind_its_own_are_left_to_another(void **state) {
    (void)state;
    struct client first, shown;
    char incarnation[17] = "", body[1024];
    create(364, 364);
    submit(&shown, "GET", "/models/m364", NULL);
    assert_int_equal(shown.status, 200);
    const char *at = strstr(shown.body, "\"incarnation\":\"");
    assert_non_null(at);
    memcpy(incarnation, at + strlen("\"incarnation\":\""), 16);
    snprintf(
        body, sizeof body,
        "{\"incarnation\": \"%s\", \"version\": 0, \"apply\": true, \"gradients\": {\"1.bias\": [1, 2]}}",
        incarnation);
    in_loop = submit_second; /* the norm of the gradient is a loop, and is taken in the turn */
    submit(&first, "POST", "/models/m364/gradients", body);
    assert_null(in_loop);
    assert_true(first.answered);
    assert_int_equal(first.status, 200);
    assert_false(second.answered);
    run_job();
    assert_true(second.answered);
    assert_int_equal(second.status, 200);
}

/* What finds no place in it is refused, and what is brief needs none. */
static void a_full_queue(void **state) {
    (void)state;
    struct client client;
    create(4, 4);
    size_t before = api_memory_in_use(api);
    full = true;
    submit(&client, "POST", "/models", "{\"name\": \"n\"}");
    full = false;
    assert_true(client.answered);
    assert_int_equal(client.status, 503);
    assert_non_null(strstr(client.body, API_PROBLEM_TYPE "busy"));
    assert_non_null(strstr(client.body, "the queue is full"));
    assert_int_equal(api_memory_in_use(api), before);
    assert_int_equal(api_in_flight(api), 0);
    full = true;
    submit(&client, "GET", "/models/m4", NULL);
    full = false;
    assert_true(client.answered);
    assert_int_equal(client.status, 200);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_full_queue, start, stop),
        cmocka_unit_test_setup_teardown(small_requests_are_answered_at_once, start, stop),
        cmocka_unit_test_setup_teardown(others_are_queued_at_their_cost, start, stop),
        cmocka_unit_test_setup_teardown(changes_behind_its_own_are_left_to_another, start, stop),
    };
    nn_blas_init();
    return cmocka_run_group_tests_name("brief requests", tests, NULL, NULL);
}
