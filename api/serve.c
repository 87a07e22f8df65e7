/* serve.c - a request's way from its body to its handler, on this thread or another one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "change/commit.h"
#include "change/effect.h"
#include "change/finish.h"
#include "cost.h"
#include "life.h"
#include "request/metrics.h"
#include "request/service.h"

/* Reads the document, and then the members of document and query into request->ask. */
static int read_request(struct api_request *request) {
    const struct api_route *route = request->route;
    if (request->read) return (int)request->err.code;
    request->read = true;
    if (API_HAS_BODY(route->body)) {
        char call[64];
        snprintf(call, sizeof call, "%s %s", route->method, route->path);
        const struct api_known known = {route->members, call};
        if (request->size == 0) return nn_fail(&request->err, NN_E_MALFORMED, "the body is empty");
        if (api_document_read(&request->doc, request->in, route->body, &known, request->body, request->size,
                              &request->api->settings.limits, request->arena, &request->pointer,
                              &request->err))
            return (int)request->err.code;
    }
    return api_ask_read(request);
}

static void serve(void *arg) {
    struct api_request *request = arg;
    int code = read_request(request);
    bool replayed = false;
    request->wait = request->ask.wait != NULL;
    if (code == NN_OK) code = api_effect_begin(request, &replayed);
    if (code == NN_OK && !replayed) code = request->route->handler(request);
    if (code != API_LATER) api_finish(request, code);
}

void api_serve(struct api_request *request) { serve(request); }

/* Serves a request that has waited in the queue. A read that nobody waits for is given up; a change is made all the
 * same, because its client may not need the answer. */
static void serve_late(void *arg) {
    struct api_request *request = arg;
    if (request->route->effect == API_READS && !api_is_wanted(request))
        api_finish(request, api_give_up(request));
    else
        serve(request);
}

/* The cost of a body that was not read yet: as if its bytes were a batch of floats, each of which takes part in some
 * thousands of products. */
static uint64_t guess_cost(size_t body) { return (uint64_t)body / 4 * 4096; }

/* Serves a brief request on this thread, and queues any other. */
static void serve_or_queue(struct api_request *request) {
    const struct api_env *env = &request->api->env;
    uint64_t cost = guess_cost(request->size), known;
    if (api_brief_to_read(request)) {
        int code = read_request(request);
        known = code ? 0 : api_cost(request);
        request->brief = known <= API_BRIEF;
        if (known < UINT64_MAX) cost = known;
    }
    if (request->brief)
        serve(request);
    else if (!env->execute(env->self, serve_late, request, cost))
        api_finish(request, nn_fail(&request->err, NN_E_BUSY, "the queue is full"));
}

void api_submit_take(struct api_request *request, void *body, size_t size, api_reply_fn *reply,
                     void *context) {
    struct api *api = request->api;
    request->body = body;
    request->size = size;
    request->reply = reply;
    request->reply_context = context;
    atomic_fetch_add(&api->in_flight, 1);
    if (size) api_count_body(api, size);
    if (!api_request_room(request, size)) {
        api_finish(request, (int)request->err.code);
    } else if (!api->env.execute || request->route->scope == API_SCOPE_ANYONE ||
               request->route->body == API_PLAIN_TEXT) {
        serve(request); /* probes and metrics are answered however full the queue is */
    } else {
        serve_or_queue(request);
    }
}

/* --- waiting for an answer ------------------------------------------------------------------------- */

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t answered;
    bool done;
    struct api_response *response;
};

static void wake(void *context, struct api_response *response) {
    struct waiter *waiter = context;
    pthread_mutex_lock(&waiter->lock);
    waiter->response = response;
    waiter->done = true;
    pthread_cond_signal(&waiter->answered);
    pthread_mutex_unlock(&waiter->lock);
}

struct api_response *api_handle(struct api *api, const struct api_head *head, const void *body, size_t size) {
    struct api_admission admission = api_admit(api, head);
    if (!admission.request) return admission.refusal;
    if (!api_request_room(admission.request, size)) return api_refuse_take(admission.request);
    void *copy = size ? malloc(size) : NULL;
    if (size && !copy) {
        api_request_free(admission.request);
        return NULL;
    }
    if (size) memcpy(copy, body, size);
    struct waiter waiter = {.lock = PTHREAD_MUTEX_INITIALIZER, .answered = PTHREAD_COND_INITIALIZER};
    api_submit_take(admission.request, copy, size, wake, &waiter);
    pthread_mutex_lock(&waiter.lock);
    while (!waiter.done) pthread_cond_wait(&waiter.answered, &waiter.lock);
    pthread_mutex_unlock(&waiter.lock);
    return waiter.response;
}
