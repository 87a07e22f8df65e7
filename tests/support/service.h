/* service.h - the service of api/ for tests, without sockets: a clock that the test moves, numbers that are
 * random and always the same, threads of its own; and requests as text. */
#ifndef TEST_SERVICE_H
#define TEST_SERVICE_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

#include "../../api/api.h"

#define TEST_MAX_WORKERS 16
#define TEST_MAX_QUEUE   256

struct test_job {
    void (*run)(void *arg);
    void *arg;
};

struct test_service {
    struct api *api;
    atomic_llong now_ms;
    atomic_llong wall_set_ms; /* by how much the clock on the wall has been set */
    atomic_ullong drawn;      /* how many random numbers */
    void (*watch)(bool on);   /* NULL, or called before the service begins a request and after it answered */

    pthread_t worker[TEST_MAX_WORKERS];
    int n_workers; /* 0: jobs run on the caller's thread */
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct test_job queue[TEST_MAX_QUEUE];
    size_t first, n_jobs;
    bool stopping;
};

/* With api_default_limits where `settings` is NULL. Fails the test when it cannot. */
void test_service_start(struct test_service *service, const struct api_settings *settings, int workers);
/* The same, with a store. */
void test_service_start_stored(struct test_service *service, const struct api_settings *settings, int workers,
                               const struct api_store *store);
/* All requests answered, all responses freed. */
void test_service_stop(struct test_service *service);

struct test_request {
    const char *method, *path; /* the path with its query */
    const char *authorization, *content_type, *accept;
    const char *if_match, *if_none_match, *idempotency_key, *content_encoding;
    const void *body;
    size_t size;
    bool (*left)(void *pending); /* of test_submit: see api_request_peer */
};

/* A copy of an answer, independent of the service. */
struct test_answer {
    int status; /* 0: there was no memory for any answer */
    struct api_header headers[8];
    int n_headers;
    char *body; /* `size` bytes, and a NUL */
    size_t size;
};

/* The response itself: NULL if there was no memory for one. */
struct api_response *test_respond(struct test_service *service, const struct test_request *request);
struct test_answer test_copy_answer(const struct api_response *response);
struct test_answer test_request(struct test_service *service, const struct test_request *request);
void test_answer_free(struct test_answer *answer);
/* NULL if there is no such header. */
const char *test_answer_header(const struct test_answer *answer, const char *name);

/* A request whose answer may be long in coming. */
struct test_pending {
    atomic_bool done;
    struct api_response *response; /* once it is done */
};
/* Submits it: `pending` stays where it is until it is done. */
void test_submit(struct test_service *service, struct test_pending *pending,
                 const struct test_request *request);
/* Waits; the answer is the caller's. */
struct test_answer test_take(struct test_pending *pending);

/* "POST /models" with a body in JSON (NULL: none); fails the test if the status is another. The answer's
 * document, which is the caller's; status 0 skips that check. */
json_t *test_call(struct test_service *service, int status, const char *request, const char *body);
/* As test_call, for an answer that nobody looks at. */
void test_do(struct test_service *service, int status, const char *request, const char *body);

/* As test_call; the body (NULL: none) is a format in which ' stands for ". `headers` NULL: none; of them,
 * only those that bear conditions and keys are looked at. */
json_t *test_ask(struct test_service *service, int status, const char *request,
                 const struct test_request *headers, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

#endif
