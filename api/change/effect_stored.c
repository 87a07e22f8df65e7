/* effect_stored.c - writes keys to records and to a checkpoint's file of keys, and reads them back.
 *
 * A stored key is a JSON object: key, owner (see ../request/token.h); body, body2 and head, hashes of the request;
 * status, members and location of the answer; and model, the model's name. Except in the record of its own change it
 * also has: age, in milliseconds; birth, of the model; change and seq (see struct api_effect). */
#include "effect_inside.h"

#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../model/model.h"
#include "../model/registry.h"
#include "../request/service.h"
#include "../wire/json_read.h"
#include "../wire/json_text.h"
#include "../wire/record.h"

/* The members of a key that stay as api_effect_note set them. */
static json_t *describe(const struct api_effect *effect) {
    size_t size = strcspn(effect->key, "\n");
    return json_pack("{s:s%, s:s, s:s, s:o, s:o, s:o, s:i, s:s, s:s*}", "key", effect->key, size, "owner",
                     effect->key + size + 1, "model", effect->model ? effect->model : "", "body",
                     api_record_hex(effect->body.high64), "body2", api_record_hex(effect->body.low64), "head",
                     api_record_hex(effect->head), "status", effect->status, "members",
                     effect->members ? effect->members : "{}", "location", effect->location);
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

/* The owner of a stored key. Format 0 has "token" in place of "owner": the token's name, or "" without a token. */
static void read_owner(const json_t *json, char owner[API_OWNER + 1]) {
    const char *own = json_string_value(json_object_get(json, "owner"));
    if (own)
        snprintf(owner, API_OWNER + 1, "%s", own);
    else
        api_token_owner_by_name(api_record_text(json, "token"), owner);
}

static bool has_owner(const json_t *json) {
    char owner[API_OWNER + 1];
    read_owner(json, owner);
    return api_token_is_owner(owner) && strlen(api_record_text(json, "owner")) <= API_OWNER;
}

/* True if the JSON may be a key that the service wrote. This must be checked, because the answer to a repetition has
 * texts of it in headers. False: NN_E_CORRUPT, NN_E_NOMEM. */
static bool is_effect(const json_t *json, struct nn_error *err) {
    const char *location = api_record_text(json, "location"), *members = api_record_text(json, "members");
    int64_t status = api_record_integer(json, "status");
    struct nn_arena *arena = nn_arena_new();
    if (!arena) return nn_fail(err, NN_E_NOMEM, "memory is out"), false;
    struct nn_error why = {0};
    json_t *object = api_json_read(members, strlen(members), arena, &why);
    bool good = json_is_object(object) && api_effect_is_key(api_record_text(json, "key")) &&
                has_owner(json) && (status == 0 || (status >= 200 && status < 300));
    for (; *location && good; location++) good = *location > ' ' && *location <= '~';
    json_decref(object);
    nn_arena_free(arena);
    if (!good && why.code == NN_E_NOMEM)
        nn_fail(err, NN_E_NOMEM, "memory is out");
    else if (!good)
        nn_fail(err, NN_E_CORRUPT, "a stored Idempotency-Key is malformed");
    return good;
}

/* Which change the keys in a record, or the key in a line of the file, belong to. */
struct origin {
    const char *model, *birth;
    uint64_t seq;
};

/* Adds a stored key to the table, unless the key is there. The memory budget cannot refuse it, because the service has
 * promised to remember it. */
static int remember(struct api *api, const json_t *json, const struct origin *origin, int64_t expires_ms,
                    struct nn_error *err) {
    const char *location = json_string_value(json_object_get(json, "location"));
    char owner[API_OWNER + 1];
    read_owner(json, owner);
    struct api_effect *effect =
        is_effect(json, err) ? api_effect_new(api_record_text(json, "key"), owner) : NULL;
    if (!effect) return nn_fail(err, NN_E_NOMEM, "memory is out");
    effect->body.high64 = api_record_bits(json_object_get(json, "body"));
    effect->body.low64 = api_record_bits(json_object_get(json, "body2"));
    effect->head = api_record_bits(json_object_get(json, "head"));
    effect->status = (int)api_record_integer(json, "status");
    effect->members = strdup(api_record_text(json, "members"));
    effect->location = location ? strdup(location) : NULL;
    effect->model = strdup(origin->model);
    effect->change = (uint64_t)api_record_integer(json, "change");
    effect->seq = origin->seq;
    snprintf(effect->birth, sizeof effect->birth, "%s", origin->birth);
    effect->committed = effect->done = true;
    effect->expires_ms = expires_ms;
    effect->reserved += strlen(api_record_text(json, "members")) + 1 + strlen(origin->model) + 1;
    if (location) effect->reserved += strlen(location) + 1;
    atomic_fetch_add(&api->memory, effect->reserved);
    bool whole = effect->members && effect->model && (effect->location || !location), added = false;
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

/* --- time ----------------------------------------------------------------------------------------------- */

/* Keys age only while the service serves. A record says which process wrote it ("life") and for how long that process
 * had served by then ("alive"), so recovery knows the time between two records of one process. The time after a
 * process's last record, and between two processes, does not count. The wall clock is not used, because it may have
 * been set. */
#define LONGEST (INT64_MAX / 4)

static int64_t bounded(int64_t ms) { return ms < 0 ? 0 : ms > LONGEST ? LONGEST : ms; }

/* The number that identifies this process in its records: that of the last record before its first one, plus 1. */
static uint64_t life(struct api *api) {
    const struct api_store *store = api->env.store;
    uint_fast64_t none = 0, own = atomic_load(&api->life);
    if (own) return own;
    own = store->last(store->self) + 1;
    return atomic_compare_exchange_strong(&api->life, &none, own) ? own : none;
}

json_t *api_effects_time(struct api *api) {
    return json_pack("{s:I, s:I}", "life", (json_int_t)life(api), "alive",
                     (json_int_t)(api_now_ms(api) - api->began_ms));
}

void api_effects_pass(struct api *api, const json_t *time) {
    uint64_t own = (uint64_t)api_record_integer(time, "life");
    int64_t alive = bounded(api_record_integer(time, "alive"));
    if (!time) return;
    if (own != api->recovered_life) api->recovered_alive_ms = 0;
    api->recovered_life = own;
    /* Records of two models may be appended in another order than their heads were made. */
    if (alive <= api->recovered_alive_ms) return;
    api->recovered_ms = bounded(api->recovered_ms + alive - api->recovered_alive_ms);
    api->recovered_alive_ms = alive;
    api_effects_expire(api);
}

void api_effects_recovered(struct api *api) {
    int64_t since = api_now_ms(api) - api->recovered_ms;
    pthread_mutex_lock(&api->lock);
    for (struct api_effect *effect = api->first_effect; effect; effect = effect->next)
        effect->expires_ms += since;
    pthread_mutex_unlock(&api->lock);
    api->began_ms = api_now_ms(api);
}

/* When a stored key expires. "age" is its age when it was written; in the record of its own change it is absent: 0. */
static int64_t expires(struct api *api, const json_t *key) {
    return api->recovered_ms + api->settings.limits.key_ttl_ms - bounded(api_record_integer(key, "age"));
}

/* --- records, and the file of keys --------------------------------------------------------------------- */

int api_effects_recover(struct api *api, const json_t *keys, const char *model, const char *birth,
                        uint64_t seq, struct nn_error *err) {
    const struct origin origin = {model, birth, seq};
    size_t i;
    json_t *key;
    json_array_foreach((json_t *)keys, i, key) {
        int64_t until = expires(api, key);
        if (until <= api->recovered_ms) continue;
        if (remember(api, key, &origin, until, err)) return (int)err->code;
    }
    return NN_OK;
}

struct collection {
    const struct api_model *model; /* only changes of this model without a record; NULL: all */
    struct api_effect **effects;
    size_t n;
};

/* Collects the keys whose changes are made, or about to be. */
static void collect(const void *node, VISIT visit, void *closure) {
    struct collection *all = closure;
    struct api_effect *effect = *(struct api_effect *const *)node;
    if ((visit != postorder && visit != leaf) || !effect->committed) return;
    if (all->model && (effect->seq || strcmp(effect->birth, all->model->birth) != 0)) return;
    atomic_fetch_add(&effect->refs, 1);
    all->effects[all->n++] = effect;
}

/* Describes an effect with its age. Gives up the reference. */
static json_t *describe_take(struct api *api, struct api_effect *effect) {
    int64_t now = api_now_ms(api), ttl = api->settings.limits.key_ttl_ms;
    pthread_mutex_lock(&api->lock);
    int64_t age = effect->done ? now + ttl - effect->expires_ms : 0;
    pthread_mutex_unlock(&api->lock);
    json_t *json = describe(effect);
    json_t *of = json_pack("{s:I, s:s, s:I, s:I}", "age", (json_int_t)bounded(age), "birth", effect->birth,
                           "change", (json_int_t)effect->change, "seq", (json_int_t)effect->seq);
    int failed = json_object_update(json, of);
    json_decref(of);
    api_effect_unref(api, effect);
    if (!failed) return json;
    json_decref(json);
    return NULL;
}

/* Calls keep(arg, json) for each effect; keep consumes the JSON, which is NULL where memory was out. False: memory is
 * out. */
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

static void add_line_take(struct api_text *text, json_t *json) {
    if (json)
        api_text_json(text, json);
    else
        text->failed = true;
    api_text_puts(text, "\n");
    json_decref(json);
}

/* Adds a line to the file of keys, whose first line has the format. */
static void keep_line(void *arg, json_t *json) {
    struct api_text *text = arg;
    if (text->size == 0) add_line_take(text, json_pack("{s:i}", "format", API_FORMAT));
    add_line_take(text, json);
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

/* True if the change of a key was recovered: the model contains the change; or the model was deleted since, and the
 * change's record was there. */
static bool is_recovered(struct api *api, const json_t *key, uint64_t last) {
    uint64_t seq = (uint64_t)api_record_integer(key, "seq");
    const char *birth = api_record_text(key, "birth");
    bool there;
    for (size_t i = 0; i < api->n_failed; i++)
        if (seq == api->failed[i]) return false;
    bool has = api_model_has(api, birth, (uint64_t)api_record_integer(key, "change"), seq, &there);
    return there ? has : seq && seq <= last && !is_gone(api, birth);
}

/* Reads a line of the file: a key, or the format of all of them. */
static int load(struct api *api, const char *line, size_t size, int *format, uint64_t last,
                struct nn_error *err) {
    struct nn_arena *arena = nn_arena_new();
    if (!arena) return nn_fail(err, NN_E_NOMEM, "memory is out");
    struct nn_error why = {0};
    json_t *key = api_json_read(line, size, arena, &why);
    const char *model = api_record_text(key, "model"), *birth = api_record_text(key, "birth");
    char named[API_MAX_MODEL_NAME + 1];
    if (!*model && *birth) model = api_model_name_of(api, birth, named); /* format 0 has no name */
    const struct origin origin = {model, birth, (uint64_t)api_record_integer(key, "seq")};
    int64_t until = key ? expires(api, key) : 0;
    if (!key)
        nn_fail(err, why.code == NN_E_NOMEM ? NN_E_NOMEM : NN_E_CORRUPT, "a key: %.200s", why.text);
    else if (json_object_get(key, "format"))
        api_format_read(key, "a file of keys", format, err);
    else if (until > api->recovered_ms && is_recovered(api, key, last))
        remember(api, key, &origin, until, err);
    json_decref(key);
    nn_arena_free(arena);
    return (int)err->code;
}

int api_recover_keys(struct api *api, const void *bytes, size_t size, uint64_t last, struct nn_error *err) {
    int format = 0;
    for (const char *at = bytes, *end = at + size; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        if (!newline) return nn_fail(err, NN_E_CORRUPT, "a key that is cut off");
        if (load(api, at, (size_t)(newline - at), &format, last, err)) return (int)err->code;
        at = newline + 1;
    }
    return NN_OK;
}
