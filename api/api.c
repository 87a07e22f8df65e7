/* api.c - the service's life, and a request's way from its body to its answer. */
#include "api.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "change/commit.h"
#include "model/context.h"
#include "cost.h"
#include "change/effect.h"
#include "request/metrics.h"
#include "model/model.h"
#include "request/request.h"
#include "request/service.h"

const struct api_limits api_default_limits = {
    .memory = (size_t)4 << 30,
    .body = (size_t)256 << 20,
    .models = 1024,
    .contexts = 256,
    .context_ttl_ms = (int64_t)600 * 1000,
    .layers = 1024,
    .rank = NN_MAX_RANK,
    .name = NN_MAX_NAME,
    .tensors = 10000,
    .json_depth = API_JSON_DEPTH,
    .json_values = 200000,
    .client_requests = 256,
    .keys = 1000000,
    .key_ttl_ms = (int64_t)300 * 1000,
    .batch_max = 64,
    .batch_window_us = 200,
};

struct api *api_new(const struct api_settings *settings, const struct api_env *env, struct nn_error *err) {
    struct api *api = calloc(1, sizeof *api);
    if (!api) goto no_memory;
    api->settings = *settings;
    api->env = *env;
    if (settings->token && !(api->tokens = api_tokens_of(settings->token, err))) goto no_memory;
    api->settings.token = NULL;
    if (settings->version && !(api->settings.version = api->version = strdup(settings->version)))
        goto no_memory;
    if (!(api->metrics = api_metrics_new())) goto no_memory;
    if (pthread_mutex_init(&api->lock, NULL)) goto no_memory;
    return api;
no_memory:
    nn_fail(err, NN_E_NOMEM, "memory is out");
    if (api) {
        api_tokens_unref(api->tokens);
        api_metrics_free(api->metrics);
        free(api->version);
        free(api);
    }
    return NULL;
}

void api_free(struct api *api) {
    if (!api) return;
    assert(atomic_load(&api->in_flight) == 0);
    api_contexts_clear(api);
    api_models_clear(api);
    api_effects_clear(api);
    assert(atomic_load(&api->memory) == 0);
    pthread_mutex_destroy(&api->lock);
    api_tokens_unref(api->tokens);
    api_metrics_free(api->metrics);
    free(api->failed);
    free(api->version);
    free(api);
}

void api_set_starting(struct api *api, bool starting) { atomic_store(&api->starting, starting); }

void api_set_draining(struct api *api, bool draining) { atomic_store(&api->draining, draining); }

void api_set_tokens_take(struct api *api, struct api_tokens *tokens) {
    pthread_mutex_lock(&api->lock);
    struct api_tokens *old = api->tokens;
    api->tokens = tokens;
    pthread_mutex_unlock(&api->lock);
    api_tokens_unref(old);
}

void api_tick(struct api *api) {
    api_contexts_expire(api);
    api_effects_expire(api);
    api_models_tick(api);
}

int api_in_flight(const struct api *api) { return atomic_load(&((struct api *)api)->in_flight); }
size_t api_memory_in_use(const struct api *api) { return atomic_load(&((struct api *)api)->memory); }

/* --- a request ------------------------------------------------------------------------------------- */

/* One request, without those that follow it. */
static void answer(struct api_request *request, int code) {
    struct api *api = request->api;
    api_reply_fn *reply = request->reply;
    void *context = request->reply_context;
    struct api_response *response;
    if (code == NN_OK && !request->ready) code = api_answer_ready(request);
    if (code == NN_OK) {
        api_context_settle(request);
        api_effect_end(request, true);
        response = request->ready;
        request->ready = NULL;
    } else {
        assert(request->err.code);
        api_context_unclaim(request); /* a failed request uses nothing up */
        api_effect_end(request, false);
        api_answer_drop(request);
        response = api_problem(request);
    }
    api_count_answer(request, response);
    if (response)
        api_response_detach(response);
    else
        api_request_free(request);
    reply(context, response);
    atomic_fetch_sub(&api->in_flight, 1);
}

/* One that nobody is to read an answer of. */
static void end_quietly(struct api_request *request, int code) {
    api_reply_fn *reply = request->reply;
    void *context = request->reply_context;
    if (request->replay) request->replay->code = code;
    if (request->replay && code) request->replay->err = request->err;
    api_request_free(request);
    reply(context, NULL);
}

void api_finish_now(struct api_request *request, int code) {
    struct nn_error err = request->err;
    for (struct api_request *next; request; request = next) {
        next = request->followers;
        if (code) request->err = err;
        if (request->quiet)
            end_quietly(request, code);
        else
            answer(request, code);
    }
}

void api_finish(struct api_request *request, int code) {
    assert(code != API_LATER);
    if (code) api_effects_revoke(request);
    if (!api_commit_over(request, &code)) return;
    if (code == NN_OK && api_wait_for_checkpoint(request)) return;
    api_finish_now(request, code);
}

static void reply_nobody(void *context, struct api_response *response) {
    (void)context;
    (void)response;
}

struct api_request *api_request_quiet(struct api *api, api_reply_fn *reply, void *context) {
    struct api_request *request = calloc(1, sizeof *request);
    if (!request) return NULL;
    request->api = api;
    request->quiet = true;
    request->out = API_SAFETENSORS; /* which takes no memory until it is encoded */
    request->lr = NAN;
    request->scale = 1;
    request->max_staleness = -1;
    request->reply = reply ? reply : reply_nobody;
    request->reply_context = context;
    request->arena = nn_arena_new();
    if (request->arena) return api_request_bound(request), request;
    free(request);
    return NULL;
}

static int check_members(struct api_request *request) {
    const char *name;
    json_t *value;
    json_object_foreach(request->doc.members, name, value) {
        if (api_among(request->route->members, name, strlen(name))) continue;
        nn_fail(&request->err, NN_E_UNKNOWN_MEMBER, "%s %s takes: %s", request->route->method,
                request->route->path, request->route->members);
        return api_point(request, name, NULL);
    }
    for (size_t i = 0; i < request->doc.n_maps; i++) {
        name = request->doc.maps[i];
        if (api_among(request->route->members, name, strlen(name))) continue;
        nn_fail(&request->err, NN_E_UNKNOWN_MEMBER, "%s %s takes: %s", request->route->method,
                request->route->path, request->route->members);
        return api_point(request, name, NULL);
    }
    return NN_OK;
}

static int read_document(struct api_request *request) {
    if (request->read) return (int)request->err.code;
    request->read = true;
    if (!API_HAS_BODY(request->route->body)) return NN_OK;
    if (request->size == 0) return nn_fail(&request->err, NN_E_MALFORMED, "the body is empty");
    if (api_document_read(&request->doc, request->in, request->route->body, request->body, request->size,
                          &request->api->settings.limits, request->arena, &request->pointer, &request->err))
        return (int)request->err.code;
    return check_members(request);
}

static void serve(void *arg) {
    struct api_request *request = arg;
    int code = read_document(request);
    bool replayed = false;
    if (code == NN_OK) code = api_read_wait(request);
    if (code == NN_OK) code = api_effect_begin(request, &replayed);
    if (code == NN_OK && !replayed) code = request->route->handler(request);
    if (code != API_LATER) api_finish(request, code);
}

void api_serve(struct api_request *request) { serve(request); }

/* What a body may cost, before anybody has looked into it: its bytes are a batch of floats, and each takes
 * part in some thousands of products. */
static uint64_t guess_cost(size_t body) { return (uint64_t)body / 4 * 4096; }

/* Serves the request here if that is brief, or has another thread do it. */
static void serve_or_queue(struct api_request *request) {
    const struct api_env *env = &request->api->env;
    uint64_t cost = guess_cost(request->size), known;
    if (api_brief_to_read(request)) {
        int code = read_document(request);
        known = code ? 0 : api_cost(request);
        request->brief = known <= API_BRIEF;
        if (known < UINT64_MAX) cost = known;
    }
    if (request->brief)
        serve(request);
    else if (!env->execute(env->self, serve, request, cost))
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
        serve(request); /* how the process is can be told however full the queue is */
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
