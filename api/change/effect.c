/* effect.c - the table of keys, and the list in which they expire. */
#include "effect_inside.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "../model/model.h"
#include "../request/service.h"
#include "../wire/json_read.h"
#include "../wire/json_text.h"

#define MAX_KEY 128
#define A_NODE  64 /* bytes of the tree for a key */

int api_effect_by_key(const void *a, const void *b) {
    return strcmp(((const struct api_effect *)a)->key, ((const struct api_effect *)b)->key);
}

void api_effect_unref(struct api *api, struct api_effect *effect) {
    if (!effect || atomic_fetch_sub(&effect->refs, 1) != 1) return;
    api_release(api, effect->reserved);
    free(effect->members);
    free(effect->location);
    free(effect->model);
    free(effect);
}

static size_t effect_bytes(const char *key, const char *owner) {
    return sizeof(struct api_effect) + strlen(key) + 1 + strlen(owner) + 1 + A_NODE;
}

struct api_effect *api_effect_new(const char *key, const char *owner) {
    size_t size = strlen(key) + 1 + strlen(owner) + 1;
    struct api_effect *effect = calloc(1, sizeof *effect + size);
    if (!effect) return NULL;
    atomic_init(&effect->refs, 1);
    effect->reserved = effect_bytes(key, owner);
    snprintf((char *)(effect + 1), size, "%s\n%s", key, owner);
    effect->key = (const char *)(effect + 1);
    return effect;
}

/* --- the table; the lock is held ------------------------------------------------------------------ */

int64_t api_effects_now(struct api *api) {
    return atomic_load(&api->recovering) ? api->recovered_ms : api_now_ms(api);
}

/* Takes the expired effects out of the list. The caller frees them. */
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

/* True if the request changes something when it succeeds. */
static bool changes(const struct api_request *request) {
    if (request->route->effect != API_IF_ASKED) return request->route->effect == API_CHANGES;
    return request->ask.apply.on || request->ask.accumulate.on;
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
    char owner[API_OWNER + 1];
    api_token_owner(request->token, owner);
    if (api_reserve(request, effect_bytes(request->idempotency_key, owner))) return NULL;
    struct api_effect *effect = api_effect_new(request->idempotency_key, owner);
    if (!effect) return nn_fail(&request->err, NN_E_NOMEM, "memory is out"), NULL;
    api_reserve_move(request, effect->reserved);
    effect->body = XXH3_128bits(request->body, request->size);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) /* each with its NUL, as a separator */
        effect->head = XXH3_64bits_withSeed(parts[i], strlen(parts[i]) + 1, effect->head);
    return effect;
}

/* --- what a token may learn -------------------------------------------------------------------------- */

static bool sees(const struct api_request *request, const char *name) {
    return !name || api_token_sees(request->token, name);
}

static bool is_of_context(const struct api_request *request) {
    return strncmp(request->route->path, "/contexts/", 10) == 0 || request->ask.context;
}

/* True if the token sees the models that the request names. If it does not, its key is not looked up: the handler will
 * say that they do not exist. */
static bool sees_what_it_names(const struct api_request *request) {
    if (strncmp(request->route->path, "/models/{}", 10) == 0)
        return sees(request, request->name) && sees(request, request->ask.from);
    return sees(request, api_asked_model(request)) && sees(request, request->ask.name);
}

/* True if the token sees the model that the first request changed. Keys of format 0 may not know the model (""). Then
 * sees_what_it_names has checked the models that the request names; but a request with a context names none. */
static bool sees_changed(const struct api_request *request, const struct api_effect *first) {
    if (!first->done) return true;
    if (*first->model || is_of_context(request)) return api_token_sees(request->token, first->model);
    return true;
}

/* What the answer to a repetition needs of the first request with its key. */
struct repetition {
    struct api_effect *first; /* a reference; NULL: this request is no repetition of one that succeeded */
    bool late;
    int64_t durable_version;
};

/* Gives the request the answer that the first request got, without its tensors. */
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

static bool is_same(const struct api_effect *first, const struct api_effect *effect) {
    return XXH128_isEqual(first->body, effect->body) && first->head == effect->head;
}

/* With the lock held: the effect of that key and owner, or NULL. */
static struct api_effect *find_of(struct api_request *request, const char *owner) {
    char key[MAX_KEY + 1 + API_OWNER + 1];
    snprintf(key, sizeof key, "%s\n%s", request->idempotency_key, owner);
    const struct api_effect probe = {.key = key};
    void *node = tfind(&probe, &request->api->effects, api_effect_by_key);
    return node ? *(struct api_effect **)node : NULL;
}

/* With the lock held: the first request with this key, or NULL. The key is looked up under the token's secret; then
 * under the token's name, because format 0 stored only names; then under no owner, because the service may have asked
 * for no token then. The last counts only if both requests are the same. */
static struct api_effect *find_first(struct api_request *request, const struct api_effect *effect) {
    char owner[API_OWNER + 1];
    api_token_owner(request->token, owner);
    struct api_effect *first = find_of(request, owner);
    if (first || !request->token) return first;
    api_token_owner_by_name(api_token_name(request->token), owner);
    if ((first = find_of(request, owner))) return first;
    first = find_of(request, "");
    return first && is_same(first, effect) ? first : NULL;
}

/* With the lock held: compares a request with the first one of its key. NN_OK: it is a repetition, described in
 * *repetition. NN_E_KEY_REUSED: the requests differ. NN_E_IN_FLIGHT: the first one is not answered yet. */
static int found(struct api_request *request, struct api_effect *first, const struct api_effect *effect,
                 struct repetition *repetition) {
    if (!is_same(first, effect))
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
    if (!request->idempotency_key || !changes(request) || !sees_what_it_names(request)) return NN_OK;
    if (!api_effect_is_key(request->idempotency_key))
        return nn_fail(&request->err, NN_E_VALUE, "an Idempotency-Key is 1 to %d visible characters",
                       MAX_KEY);
    struct api_effect *effect = effect_new(request);
    if (!effect) return (int)request->err.code;
    api_effects_expire(api);
    pthread_mutex_lock(&api->lock);
    struct api_effect *first = find_first(request, effect);
    if (first && !sees_changed(request, first)) {
        /* The handler answers. If this repeats the first request, its context is gone or of a model that the token does
         * not see, so the handler does not find it. */
    } else if (first) {
        found(request, first, effect, &repetition);
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
    size_t bound =
        2 * api_json_text_bound(answer->members) + sizeof answer->location + API_MAX_MODEL_NAME + 1;
    if (api_reserve(request, bound)) return (int)request->err.code;
    effect->members = answer->members ? api_json_text(answer->members) : strdup("{}");
    if (answer->location[0]) effect->location = strdup(answer->location);
    effect->model = strdup(request->model ? request->model->name : "");
    if (!effect->members || !effect->model || (answer->location[0] && !effect->location))
        return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    effect->status = answer->status;
    size_t bytes = strlen(effect->members) + 1 + strlen(effect->model) + 1;
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
    int64_t now = api_effects_now(api);
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
