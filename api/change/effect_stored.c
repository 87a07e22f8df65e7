/* effect_stored.c - keys beyond the process: in the records of their changes, in a checkpoint's file, and back. */
#include "effect_inside.h"

#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../wire/json_read.h"
#include "../wire/json_text.h"
#include "../model/model.h"
#include "../wire/record.h"
#include "../request/service.h"

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
    bool good = json_is_object(object) && api_effect_is_key(api_record_text(json, "key")) &&
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
    bool known = whole && tfind(effect, &api->effects, api_effect_by_key);
    if (whole && !known && tsearch(effect, &api->effects, api_effect_by_key)) {
        added = true;
        api->n_effects++;
        api_effect_append(api, effect);
    }
    pthread_mutex_unlock(&api->lock);
    if (added) return NN_OK;
    api_effect_unref(api, effect);
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
    api_effect_unref(api, effect);
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
