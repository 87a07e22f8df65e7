/* service.c - struct api with its outside world made of counters. */
#include "service.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* --- the outside world ----------------------------------------------------------------------------- */

static int64_t now_ms(void *self) { return atomic_load(&((struct test_service *)self)->now_ms); }

/* SplitMix64 (Steele, Lea and Flood, 2014), so that numbers differ in all their bits. */
static uint64_t draw(struct test_service *service) {
    uint64_t z = (atomic_fetch_add(&service->drawn, 1) + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static bool entropy(void *self, void *buffer, size_t size) {
    for (size_t done = 0; done < size; done += sizeof(uint64_t)) {
        uint64_t bits = draw(self);
        size_t part = size - done < sizeof bits ? size - done : sizeof bits;
        memcpy((char *)buffer + done, &bits, part);
    }
    return true;
}

static bool execute(void *self, void (*job)(void *arg), void *arg, uint64_t cost) {
    struct test_service *service = self;
    (void)cost;
    pthread_mutex_lock(&service->lock);
    bool room = service->n_jobs < TEST_MAX_QUEUE;
    if (room)
        service->queue[(service->first + service->n_jobs++) % TEST_MAX_QUEUE] = (struct test_job){job, arg};
    pthread_cond_signal(&service->more);
    pthread_mutex_unlock(&service->lock);
    return room;
}

static void *work(void *self) {
    struct test_service *service = self;
    pthread_mutex_lock(&service->lock);
    for (;;) {
        while (!service->n_jobs && !service->stopping) pthread_cond_wait(&service->more, &service->lock);
        if (!service->n_jobs) break;
        struct test_job job = service->queue[service->first];
        service->first = (service->first + 1) % TEST_MAX_QUEUE;
        service->n_jobs--;
        pthread_mutex_unlock(&service->lock);
        job.run(job.arg);
        pthread_mutex_lock(&service->lock);
    }
    pthread_mutex_unlock(&service->lock);
    return NULL;
}

/* --- its life -------------------------------------------------------------------------------------- */

static int64_t wall_ms(void *self) {
    const struct test_service *service = self;
    return INT64_C(1700000000000) + now_ms(self) + (int64_t)atomic_load(&service->wall_set_ms);
}

void test_service_start(struct test_service *service, const struct api_settings *settings, int workers) {
    test_service_start_stored(service, settings, workers, NULL);
}

void test_service_start_stored(struct test_service *service, const struct api_settings *settings, int workers,
                               const struct api_store *store) {
    struct api_settings defaults = {.limits = api_default_limits, .version = "0.0.0-test", .tile = {4, 4}};
    struct api_env env = {
        .self = service, .now_ms = now_ms, .entropy = entropy, .wall_ms = wall_ms, .store = store};
    struct nn_error err = {0};
    memset(service, 0, sizeof *service);
    if (workers) env.execute = execute;
    assert_true(workers <= TEST_MAX_WORKERS);
    assert_int_equal(pthread_mutex_init(&service->lock, NULL), 0);
    assert_int_equal(pthread_cond_init(&service->more, NULL), 0);
    service->api = api_new(settings ? settings : &defaults, &env, &err);
    assert_non_null(service->api);
    for (; service->n_workers < workers; service->n_workers++)
        assert_int_equal(pthread_create(&service->worker[service->n_workers], NULL, work, service), 0);
}

void test_service_stop(struct test_service *service) {
    pthread_mutex_lock(&service->lock);
    service->stopping = true;
    pthread_cond_broadcast(&service->more);
    pthread_mutex_unlock(&service->lock);
    for (int i = 0; i < service->n_workers; i++) pthread_join(service->worker[i], NULL);
    api_free(service->api);
    pthread_cond_destroy(&service->more);
    pthread_mutex_destroy(&service->lock);
}

/* --- requests -------------------------------------------------------------------------------------- */

enum { PATH = 512 };

/* `path` is room for that part of it. */
static struct api_head head_of(const struct test_request *request, char path[PATH]) {
    const char *query = strchr(request->path, '?');
    size_t size = query ? (size_t)(query - request->path) : strlen(request->path);
    assert_true(size < PATH);
    memcpy(path, request->path, size);
    path[size] = '\0';
    return (struct api_head){.method = request->method,
                             .path = path,
                             .query = query ? query + 1 : NULL,
                             .authorization = request->authorization,
                             .content_type = request->content_type,
                             .accept = request->accept,
                             .if_match = request->if_match,
                             .if_none_match = request->if_none_match,
                             .idempotency_key = request->idempotency_key,
                             .content_encoding = request->content_encoding,
                             .content_length = (int64_t)request->size};
}

struct api_response *test_respond(struct test_service *service, const struct test_request *request) {
    char path[PATH];
    struct api_head head = head_of(request, path);
    if (service->watch) service->watch(true);
    struct api_response *response = api_handle(service->api, &head, request->body, request->size);
    if (service->watch) service->watch(false);
    return response;
}

struct test_answer test_copy_answer(const struct api_response *response) {
    struct test_answer answer = {.status = response ? response->status : 0,
                                 .size = response ? response->size : 0};
    size_t at = 0;
    if (!response) return answer;
    answer.n_headers = response->n_headers;
    memcpy(answer.headers, response->headers, sizeof answer.headers);
    answer.body = malloc(response->size + 1);
    assert_non_null(answer.body);
    for (size_t i = 0; i < response->n_segments; i++) {
        assert_true(response->segments[i].size <= response->size - at);
        memcpy(answer.body + at, response->segments[i].data, response->segments[i].size);
        at += response->segments[i].size;
    }
    assert_int_equal(at, response->size);
    answer.body[at] = '\0';
    return answer;
}

struct test_answer test_request(struct test_service *service, const struct test_request *request) {
    struct api_response *response = test_respond(service, request);
    struct test_answer answer = test_copy_answer(response);
    api_response_free(response);
    return answer;
}

void test_answer_free(struct test_answer *answer) {
    free(answer->body);
    *answer = (struct test_answer){0};
}

const char *test_answer_header(const struct test_answer *answer, const char *name) {
    for (int i = 0; i < answer->n_headers; i++)
        if (strcmp(answer->headers[i].name, name) == 0) return answer->headers[i].value;
    return NULL;
}

static void answered(void *context, struct api_response *response) {
    struct test_pending *pending = context;
    pending->response = response;
    atomic_store(&pending->done, true);
}

void test_submit(struct test_service *service, struct test_pending *pending,
                 const struct test_request *request) {
    char path[PATH];
    struct api_head head = head_of(request, path);
    void *body = request->size ? malloc(request->size) : NULL;
    assert_true(body || !request->size);
    if (body) memcpy(body, request->body, request->size);
    atomic_init(&pending->done, false);
    if (service->watch) service->watch(true);
    struct api_admission admission = api_admit(service->api, &head);
    if (admission.request && request->left) api_request_peer(admission.request, request->left);
    if (admission.request)
        api_submit_take(admission.request, body, request->size, answered, pending);
    else
        answered(pending, admission.refusal);
    if (service->watch) service->watch(false);
    if (!admission.request) free(body);
}

struct test_answer test_take(struct test_pending *pending) {
    static const struct timespec moment = {.tv_nsec = 100000};
    while (!atomic_load(&pending->done)) nanosleep(&moment, NULL);
    struct test_answer answer = test_copy_answer(pending->response);
    api_response_free(pending->response);
    pending->response = NULL;
    return answer;
}

/* `headers` NULL: none. */
static json_t *call(struct test_service *service, int status, const char *request,
                    const struct test_request *headers, const char *body) {
    char method[16];
    const char *path = strchr(request, ' ');
    struct test_request whole = headers ? *headers : (struct test_request){0};
    json_error_t error;
    assert_non_null(path);
    snprintf(method, sizeof method, "%.*s", (int)(path - request), request);
    whole.method = method;
    whole.path = path + 1;
    whole.body = body;
    whole.size = body ? strlen(body) : 0;
    struct test_answer answer = test_request(service, &whole);
    if (status && answer.status != status)
        fail_msg("%s: %d instead of %d: %s", request, answer.status, status,
                 answer.body ? answer.body : "no memory");
    json_t *json = answer.size ? json_loadb(answer.body, answer.size, JSON_REJECT_DUPLICATES, &error) : NULL;
    if (answer.size && !json) fail_msg("%s: no JSON: %s: %s", request, error.text, answer.body);
    test_answer_free(&answer);
    return json;
}

json_t *test_call(struct test_service *service, int status, const char *request, const char *body) {
    return call(service, status, request, NULL, body);
}

json_t *test_ask(struct test_service *service, int status, const char *request,
                 const struct test_request *headers, const char *format, ...) {
    char *body = NULL;
    va_list args;
    if (format) {
        va_start(args, format);
        assert_true(vasprintf(&body, format, args) >= 0);
        va_end(args);
        for (char *c = body; *c; c++)
            if (*c == '\'') *c = '"';
    }
    json_t *json = call(service, status, request, headers, body);
    free(body);
    return json;
}

void test_do(struct test_service *service, int status, const char *request, const char *body) {
    json_decref(test_call(service, status, request, body));
}
