/* effect.c - the table of keys, and the queue in which they expire. */
#include "effect_inside.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "../wire/json_read.h"
#include "../wire/json_text.h"
#include "../model/model.h"
#include "../request/service.h"

#define MAX_KEY 128

int api_effect_by_key(const void *a, const void *b) {
    return strcmp(((const struct api_effect *)a)->key, ((const struct api_effect *)b)->key);
}

void api_effect_unref(struct api *api, struct api_effect *effect) {
    if (!effect || atomic_fetch_sub(&effect->refs, 1) != 1) return;
    api_release(api, effect->reserved);
    free(effect->members);
    free(effect->location);
    free(effect);
}

/* --- the table; the lock is held ------------------------------------------------------------------ */

/* Takes out what has expired; the caller frees the list. */
static struct api_effect *take_expired(struct api *api, int64_t now) {
    struct api_effect *first = api->first_effect, **last = &first;
    while (*last && (*last)->expires_ms <= now) {
        tdelete(*last, &api->effects, api_effect_by_key);
        api->n_effects--;
        last = &(*last)->next;
    }
    api->first_effect = *last;
    if (!*last) api->last_effect = NULL;
    *last = NULL;
    return first;
}

void api_effect_append(struct api *api, struct api_effect *effect) {
    effect->next = NULL;
    if (api->last_effect)
        api->last_effect->next = effect;
    else
        api->first_effect = effect;
    api->last_effect = effect;
}

/* --- a request -------------------------------------------------------------------------------------- */

static bool is_asked(const json_t *value) { return value && !json_is_false(value); }

/* Whether the request, if it succeeds, has changed something. */
static bool changes(const struct api_request *request) {
    const json_t *members = request->doc.members;
    if (request->route->effect != API_IF_ASKED) return request->route->effect == API_CHANGES;
    return is_asked(json_object_get(members, "apply")) || is_asked(json_object_get(members, "accumulate"));
}

bool api_effect_is_key(const char *key) {
    size_t length = strlen(key);
    for (size_t i = 0; i < length; i++)
        if (key[i] < '!' || key[i] > '~') return false;
    return length >= 1 && length <= MAX_KEY;
}

static struct api_effect *effect_new(struct api_request *request) {
    const char *query = request->query ? request->query : "";
    const char *parts[] = {request->route->method, request->route->path, request->name, query};
    const char *token = api_token_name(request->token);
    size_t key_size = strlen(request->idempotency_key) + 1 + strlen(token) + 1;
    size_t size = sizeof(struct api_effect) + key_size, reserved = size + A_NODE;
    if (api_reserve(request, reserved)) return NULL;
    struct api_effect *effect = calloc(1, size);
    if (!effect) return nn_fail(&request->err, NN_E_NOMEM, "memory is out"), NULL;
    atomic_init(&effect->refs, 1);
    api_reserve_move(request, reserved);
    effect->reserved = reserved;
    snprintf(effect->key, key_size, "%s\n%s", request->idempotency_key, token);
    effect->body = XXH3_128bits(request->body, request->size);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) /* with its end, which keeps parts apart */
        effect->head = XXH3_64bits_withSeed(parts[i], strlen(parts[i]) + 1, effect->head);
    return effect;
}

/* A key's first request that is done. */
struct repetition {
    struct api_effect *first; /* held; NULL: there is none */
    bool late;
    int64_t durable_version;
};

/* The answer of the first request, but for its tensors. */
static int replay(struct api_request *request, const struct repetition *repetition) {
    const struct api_effect *first = repetition->first;
    json_t *json = api_json_read(first->members, strlen(first->members), request->arena, &request->err);
    if (!json) return (int)request->err.code;
    json_decref(request->answer.members);
    request->answer.members = json;
    request->answer.status = first->status;
    if (first->location)
        snprintf(request->answer.location, sizeof request->answer.location, "%s", first->location);
    int64_t durable = repetition->durable_version;
    if (repetition->late &&
        api_add(request, "durable_version", durable < 0 ? json_null() : json_integer(durable)))
        return (int)request->err.code;
    return api_add(request, "replayed", json_true());
}

/* What the table says of a key that another request had first. With the lock held. */
static int found(struct api_request *request, struct api_effect *first, const struct api_effect *effect,
                 struct repetition *repetition) {
    if (!XXH128_isEqual(first->body, effect->body) || first->head != effect->head)
        return nn_fail(&request->err, NN_E_KEY_REUSED, "\"%s\" came with another request before",
                       request->idempotency_key);
    if (!first->done)
        return nn_fail(&request->err, NN_E_IN_FLIGHT, "the first request with \"%s\" is not answered yet",
                       request->idempotency_key);
    *repetition = (struct repetition){first, first->late, first->durable_version};
    atomic_fetch_add(&first->refs, 1);
    return NN_OK;
}

int api_effect_begin(struct api_request *request, bool *replayed) {
    struct api *api = request->api;
    struct repetition repetition = {0};
    *replayed = false;
    if (!request->idempotency_key || !changes(request)) return NN_OK;
    if (!api_effect_is_key(request->idempotency_key))
        return nn_fail(&request->err, NN_E_VALUE, "an Idempotency-Key is 1 to %d visible characters",
                       MAX_KEY);
    struct api_effect *effect = effect_new(request);
    if (!effect) return (int)request->err.code;
    api_effects_expire(api);
    pthread_mutex_lock(&api->lock);
    void *node = tfind(effect, &api->effects, api_effect_by_key);
    if (node) {
        found(request, *(struct api_effect **)node, effect, &repetition);
    } else if (api->n_effects >= api->settings.limits.keys) {
        nn_fail(&request->err, NN_E_BUSY, "%d keys are remembered, and may be no more", api->n_effects);
    } else if (tsearch(effect, &api->effects, api_effect_by_key)) {
        api->n_effects++;
        request->effect = effect;
    } else {
        nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    }
    pthread_mutex_unlock(&api->lock);
    if (request->effect) return NN_OK;
    api_effect_unref(api, effect);
    *replayed = repetition.first != NULL;
    if (repetition.first) replay(request, &repetition);
    api_effect_unref(api, repetition.first);
    return (int)request->err.code;
}

int api_effect_note(struct api_request *request) {
    struct api_effect *effect = request->effect;
    if (!effect || effect->members) return NN_OK;
    const struct api_answer *answer = &request->answer;
    size_t bound = 2 * api_json_text_bound(answer->members) + sizeof answer->location;
    if (api_reserve(request, bound)) return (int)request->err.code;
    effect->members = answer->members ? api_json_text(answer->members) : strdup("{}");
    if (answer->location[0]) effect->location = strdup(answer->location);
    if (!effect->members || (answer->location[0] && !effect->location))
        return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    effect->status = answer->status;
    size_t bytes = strlen(effect->members) + 1;
    if (effect->location) bytes += strlen(effect->location) + 1;
    api_reserve_move(request, bound);
    api_release(request->api, bound - bytes);
    effect->reserved += bytes;
    return NN_OK;
}

void api_effect_end(struct api_request *request, bool succeeded) {
    struct api *api = request->api;
    struct api_effect *effect = request->effect;
    if (!effect) return;
    request->effect = NULL;
    int64_t now = api_now_ms(api);
    pthread_mutex_lock(&api->lock);
    if (succeeded) {
        effect->done = true;
        effect->expires_ms = now + api->settings.limits.key_ttl_ms;
        api_effect_append(api, effect);
    } else {
        tdelete(effect, &api->effects, api_effect_by_key);
        api->n_effects--;
    }
    pthread_mutex_unlock(&api->lock);
    if (!succeeded) api_effect_unref(api, effect);
}

void api_effects_keep(struct api_request *request) {
    struct api *api = request->api;
    for (; request; request = request->followers) {
        if (!request->effect) continue;
        pthread_mutex_lock(&api->lock);
        request->effect->late = true;
        request->effect->durable_version = request->model->durable_version;
        pthread_mutex_unlock(&api->lock);
        api_effect_end(request, true);
    }
}

void api_effects_expire(struct api *api) {
    int64_t now = api_now_ms(api);
    pthread_mutex_lock(&api->lock);
    struct api_effect *expired = take_expired(api, now);
    pthread_mutex_unlock(&api->lock);
    for (struct api_effect *next; expired; expired = next) {
        next = expired->next;
        api_effect_unref(api, expired);
    }
}

void api_effects_clear(struct api *api) {
    while (api->effects) {
        struct api_effect *effect = *(struct api_effect **)api->effects;
        tdelete(effect, &api->effects, api_effect_by_key);
        api_effect_unref(api, effect);
    }
    api->first_effect = api->last_effect = NULL;
    api->n_effects = 0;
}

/* --- beyond the process ------------------------------------------------------------------------------- */

void api_effects_commit(struct api_request *request, const struct api_model *model, uint64_t seq) {
    struct api *api = request->api;
    pthread_mutex_lock(&api->lock);
    for (; request; request = request->followers) {
        struct api_effect *effect = request->effect;
        if (!effect) continue;
        effect->committed = true;
        effect->change = model->changes;
        effect->seq = seq;
        memcpy(effect->birth, model->birth, sizeof effect->birth);
    }
    pthread_mutex_unlock(&api->lock);
}

void api_effects_revoke(struct api_request *request) {
    struct api *api = request->api;
    pthread_mutex_lock(&api->lock);
    for (; request; request = request->followers)
        if (request->effect) request->effect->committed = false;
    pthread_mutex_unlock(&api->lock);
}
