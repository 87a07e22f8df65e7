/* effect.c - the table of keys, and the queue in which they expire. */
#include "effect.h"

#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "json_read.h"
#include "json_text.h"
#include "model.h"
#include "record.h"
#include "service.h"

#define MAX_KEY 128
#define A_NODE  64 /* bytes of the table's own for a key */

struct api_effect {
    atomic_int refs;
    XXH128_hash_t body; /* of the first request, */
    XXH64_hash_t head;  /* and of its method, path and query */
    size_t reserved;
    char *members; /* JSON; NULL until it is noted */
    int status;
    char *location; /* or NULL */

    /* Guarded by the registry's lock. */
    bool committed;  /* the change is about to be made, or made: */
    char birth[17];  /* of the model, */
    uint64_t change; /* which of its changes it is, */
    uint64_t seq;    /* and of which record; 0: of none */
    bool done;
    bool late;               /* who waited for a checkpoint with it got none, */
    int64_t durable_version; /* but this version was durable; -1: none */
    int64_t expires_ms;
    struct api_effect *next; /* the one that expires after it */
    char key[]; /* and behind it, on a line of its own, the name of the token, for each has its own keys */
};

static int by_key(const void *a, const void *b) {
    return strcmp(((const struct api_effect *)a)->key, ((const struct api_effect *)b)->key);
}

static void effect_unref(struct api *api, struct api_effect *effect) {
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
        tdelete(*last, &api->effects, by_key);
        api->n_effects--;
        last = &(*last)->next;
    }
    api->first_effect = *last;
    if (!*last) api->last_effect = NULL;
    *last = NULL;
    return first;
}

static void append(struct api *api, struct api_effect *effect) {
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

static bool is_key(const char *key) {
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
    if (!is_key(request->idempotency_key))
        return nn_fail(&request->err, NN_E_VALUE, "an Idempotency-Key is 1 to %d visible characters",
                       MAX_KEY);
    struct api_effect *effect = effect_new(request);
    if (!effect) return (int)request->err.code;
    api_effects_expire(api);
    pthread_mutex_lock(&api->lock);
    void *node = tfind(effect, &api->effects, by_key);
    if (node) {
        found(request, *(struct api_effect **)node, effect, &repetition);
    } else if (api->n_effects >= api->settings.limits.keys) {
        nn_fail(&request->err, NN_E_BUSY, "%d keys are remembered, and may be no more", api->n_effects);
    } else if (tsearch(effect, &api->effects, by_key)) {
        api->n_effects++;
        request->effect = effect;
    } else {
        nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    }
    pthread_mutex_unlock(&api->lock);
    if (request->effect) return NN_OK;
    effect_unref(api, effect);
    *replayed = repetition.first != NULL;
    if (repetition.first) replay(request, &repetition);
    effect_unref(api, repetition.first);
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
        append(api, effect);
    } else {
        tdelete(effect, &api->effects, by_key);
        api->n_effects--;
    }
    pthread_mutex_unlock(&api->lock);
    if (!succeeded) effect_unref(api, effect);
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
        effect_unref(api, expired);
    }
}

void api_effects_clear(struct api *api) {
    while (api->effects) {
        struct api_effect *effect = *(struct api_effect **)api->effects;
        tdelete(effect, &api->effects, by_key);
        effect_unref(api, effect);
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

/* Of what does not change any more once it is noted. */
static json_t *describe(const struct api_effect *effect) {
    size_t size = strcspn(effect->key, "\n");
    return json_pack("{s:s%, s:s, s:o, s:o, s:o, s:i, s:s, s:s*}", "key", effect->key, size, "token",
                     effect->key + size + 1, "body", api_record_hex(effect->body.high64), "body2",
                     api_record_hex(effect->body.low64), "head", api_record_hex(effect->head), "status",
                     effect->status, "members", effect->members ? effect->members : "{}", "location",
                     effect->location);
}

json_t *api_effects_json(const struct api_request *request) {
    json_t *list = json_array();
    for (; request; request = request->followers)
        if (request->effect && json_array_append_new(list, describe(request->effect))) {
            json_decref(list);
            return NULL;
        }
    return list;
}

/* Whether it could be the service's: what a repetition is answered with comes into headers. */
static bool is_effect(const json_t *json, struct nn_error *err) {
    const char *location = api_record_text(json, "location"), *members = api_record_text(json, "members");
    int64_t status = api_record_integer(json, "status");
    struct nn_arena *arena = nn_arena_new();
    if (!arena) return nn_fail(err, NN_E_NOMEM, "memory is out"), false;
    struct nn_error why = {0};
    json_t *object = api_json_read(members, strlen(members), arena, &why);
    bool good = json_is_object(object) && is_key(api_record_text(json, "key")) &&
                (status == 0 || (status >= 200 && status < 300));
    for (; *location && good; location++) good = *location > ' ' && *location <= '~';
    json_decref(object);
    nn_arena_free(arena);
    if (!good && why.code == NN_E_NOMEM)
        nn_fail(err, NN_E_NOMEM, "memory is out");
    else if (!good)
        nn_fail(err, NN_E_CORRUPT, "what stands for an Idempotency-Key is none");
    return good;
}

/* Remembers it as done; one that is there already stays. Whatever the budget says, for the promise was given. */
static int remember(struct api *api, const json_t *json, const char *birth, uint64_t seq, int64_t expires_ms,
                    struct nn_error *err) {
    const char *key = api_record_text(json, "key"), *token = api_record_text(json, "token"),
               *location = json_string_value(json_object_get(json, "location"));
    size_t key_size = strlen(key) + 1 + strlen(token) + 1, size = sizeof(struct api_effect) + key_size;
    struct api_effect *effect = is_effect(json, err) ? calloc(1, size) : NULL;
    if (!effect) return nn_fail(err, NN_E_NOMEM, "memory is out");
    atomic_init(&effect->refs, 1);
    snprintf(effect->key, key_size, "%s\n%s", key, token);
    effect->body.high64 = api_record_bits(json_object_get(json, "body"));
    effect->body.low64 = api_record_bits(json_object_get(json, "body2"));
    effect->head = api_record_bits(json_object_get(json, "head"));
    effect->status = (int)api_record_integer(json, "status");
    effect->members = strdup(api_record_text(json, "members"));
    effect->location = location ? strdup(location) : NULL;
    effect->change = (uint64_t)api_record_integer(json, "change");
    effect->seq = seq;
    snprintf(effect->birth, sizeof effect->birth, "%s", birth);
    effect->committed = effect->done = true;
    effect->expires_ms = expires_ms;
    effect->reserved = size + A_NODE + strlen(api_record_text(json, "members")) + 1;
    if (location) effect->reserved += strlen(location) + 1;
    atomic_fetch_add(&api->memory, effect->reserved);
    bool whole = effect->members && (effect->location || !location), added = false;
    pthread_mutex_lock(&api->lock);
    bool known = whole && tfind(effect, &api->effects, by_key);
    if (whole && !known && tsearch(effect, &api->effects, by_key)) {
        added = true;
        api->n_effects++;
        append(api, effect);
    }
    pthread_mutex_unlock(&api->lock);
    if (added) return NN_OK;
    effect_unref(api, effect);
    return known ? NN_OK : nn_fail(err, NN_E_NOMEM, "memory is out");
}

/* When a key that began to be kept at that time of the calendar expires, by the clock of the process. */
static int64_t expires(struct api *api, int64_t time_ms) {
    int64_t age = api->env.wall_ms(api->env.self) - (time_ms > 0 ? time_ms : 0);
    return api_now_ms(api) + api->settings.limits.key_ttl_ms - (age > 0 ? age : 0);
}

int api_effects_recover(struct api *api, const json_t *keys, const char *birth, uint64_t seq, int64_t time_ms,
                        struct nn_error *err) {
    size_t i;
    json_t *key;
    json_array_foreach((json_t *)keys, i, key) {
        const json_t *own = json_object_get(key, "time");
        int64_t until = expires(api, own ? json_integer_value(own) : time_ms);
        if (until <= api_now_ms(api)) continue;
        if (remember(api, key, birth, seq, until, err)) return (int)err->code;
    }
    return NN_OK;
}

struct collection {
    const struct api_model *model; /* whose changes without a record; NULL: all */
    struct api_effect **effects;
    size_t n;
};

/* Those whose change is made, or about to be. */
static void collect(const void *node, VISIT visit, void *closure) {
    struct collection *all = closure;
    struct api_effect *effect = *(struct api_effect *const *)node;
    if ((visit != postorder && visit != leaf) || !effect->committed) return;
    if (all->model && (effect->seq || strcmp(effect->birth, all->model->birth) != 0)) return;
    atomic_fetch_add(&effect->refs, 1);
    all->effects[all->n++] = effect;
}

/* As it is kept, with the time of the calendar at which that began. Lets go of the effect. */
static json_t *describe_take(struct api *api, struct api_effect *effect) {
    int64_t now = api_now_ms(api), wall = api->env.wall_ms(api->env.self),
            ttl = api->settings.limits.key_ttl_ms;
    pthread_mutex_lock(&api->lock);
    int64_t left = effect->done ? effect->expires_ms - now : ttl;
    pthread_mutex_unlock(&api->lock);
    json_t *json = describe(effect);
    json_t *of =
        json_pack("{s:I, s:s, s:I, s:I}", "time", (json_int_t)(wall + left - ttl), "birth", effect->birth,
                  "change", (json_int_t)effect->change, "seq", (json_int_t)effect->seq);
    int failed = json_object_update(json, of);
    json_decref(of);
    effect_unref(api, effect);
    if (!failed) return json;
    json_decref(json);
    return NULL;
}

/* Calls keep(arg, json) for each, which consumes it; NULL: memory was out. False: it is now. */
static bool each_kept(struct api *api, const struct api_model *model, void (*keep)(void *arg, json_t *json),
                      void *arg) {
    struct collection all = {.model = model};
    pthread_mutex_lock(&api->lock);
    all.effects = calloc((size_t)api->n_effects + 1, sizeof *all.effects);
    if (all.effects) twalk_r(api->effects, collect, &all);
    pthread_mutex_unlock(&api->lock);
    for (size_t i = 0; i < all.n; i++) keep(arg, describe_take(api, all.effects[i]));
    bool whole = all.effects != NULL;
    free(all.effects);
    return whole;
}

/* One a line. */
static void keep_line(void *arg, json_t *json) {
    struct api_text *text = arg;
    if (json)
        api_text_json(text, json);
    else
        text->failed = true;
    api_text_puts(text, "\n");
    json_decref(json);
}

int api_keys_save(struct api *api, void **bytes, size_t *size, struct nn_error *err) {
    struct api_text text = {0};
    api_text_puts(&text, "");
    if (!each_kept(api, NULL, keep_line, &text)) text.failed = true;
    *bytes = text.data;
    *size = text.size;
    if (!text.failed) return NN_OK;
    api_text_free(&text);
    return nn_fail(err, NN_E_NOMEM, "memory is out");
}

static void keep_item(void *arg, json_t *json) {
    json_t **list = arg;
    if (json_array_append_new(*list, json) == 0) return;
    json_decref(*list);
    *list = NULL;
}

json_t *api_effects_unrecorded(struct api *api, const struct api_model *model) {
    json_t *list = json_array();
    if (each_kept(api, model, keep_item, &list)) return list;
    json_decref(list);
    return NULL;
}

static bool is_gone(const struct api *api, const char *birth) {
    for (size_t i = 0; i < api->n_gone; i++)
        if (strcmp(api->gone[i], birth) == 0) return true;
    return false;
}

/* Whether the change that a key stands for was recovered: with its model, or, of one that was deleted since, as its record
 * was there. */
static bool is_recovered(struct api *api, const json_t *key, uint64_t last) {
    uint64_t seq = (uint64_t)api_record_integer(key, "seq");
    const char *birth = api_record_text(key, "birth");
    bool there;
    for (size_t i = 0; i < api->n_failed; i++)
        if (seq == api->failed[i]) return false;
    bool has = api_model_has(api, birth, (uint64_t)api_record_integer(key, "change"), seq, &there);
    return there ? has : seq && seq <= last && !is_gone(api, birth);
}

static int load(struct api *api, const char *line, size_t size, uint64_t last, struct nn_error *err) {
    struct nn_arena *arena = nn_arena_new();
    if (!arena) return nn_fail(err, NN_E_NOMEM, "memory is out");
    struct nn_error why = {0};
    json_t *key = api_json_read(line, size, arena, &why);
    int64_t until = key ? expires(api, api_record_integer(key, "time")) : 0;
    if (!key)
        nn_fail(err, why.code == NN_E_NOMEM ? NN_E_NOMEM : NN_E_CORRUPT, "a key: %.200s", why.text);
    else if (until > api_now_ms(api) && is_recovered(api, key, last))
        remember(api, key, api_record_text(key, "birth"), (uint64_t)api_record_integer(key, "seq"), until,
                 err);
    json_decref(key);
    nn_arena_free(arena);
    return (int)err->code;
}

int api_recover_keys(struct api *api, const void *bytes, size_t size, uint64_t last, struct nn_error *err) {
    for (const char *at = bytes, *end = at + size; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        if (!newline) return nn_fail(err, NN_E_CORRUPT, "a key that is cut off");
        if (load(api, at, (size_t)(newline - at), last, err)) return (int)err->code;
        at = newline + 1;
    }
    return NN_OK;
}
