/* api.c - the life of the service. */
#include "api.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "change/commit.h"
#include "change/effect.h"
#include "change/turns.h"
#include "model/context.h"
#include "model/model.h"
#include "model/registry.h"
#include "request/metrics.h"
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
    api->make_room = api_contexts_expire;
    api->began_ms = api_now_ms(api);
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

void api_set_ending(struct api *api) { atomic_store(&api->ending, true); }

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
