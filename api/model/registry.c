/* registry.c - models by name: a tree behind the service's lock. */
#include <search.h>
#include <stdio.h>
#include <string.h>

#include "../change/condition.h"
#include "context.h"
#include "model.h"
#include "../request/service.h"

bool api_model_name_valid(const char *name) {
    static const char allowed[] = "-._0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    size_t length = strlen(name);
    return length >= 1 && length <= API_MAX_MODEL_NAME && strspn(name, allowed) == length &&
           !strchr("-._", name[0]);
}
static int by_name(const void *a, const void *b) {
    return strcmp(((const struct api_model *)a)->name, ((const struct api_model *)b)->name);
}

int api_model_register(struct api_request *request, int (*turn)(struct api_request *request)) {
    struct api *api = request->api;
    struct api_model *model = request->model;
    bool brief = request->brief;
    request->turn = turn;
    pthread_mutex_lock(&api->lock);
    bool taken = tfind(model, &api->models, by_name) != NULL;
    bool full = api->n_models >= api->settings.limits.models && !request->quiet;
    bool listed = !taken && !full && tsearch(model, &api->models, by_name);
    api->n_models += listed;
    if (listed) {
        atomic_fetch_add(&model->refs, 1);
        api_model_enqueue(model, request);
    }
    pthread_mutex_unlock(&api->lock);
    if (listed) {
        api_model_drain(api, model, brief);
        return API_LATER;
    }
    if (taken) {
        nn_fail(&request->err, NN_E_EXISTS, "a model named \"%s\" exists", model->name);
        return api_point(request, "name", NULL);
    }
    if (!full) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    return nn_fail(&request->err, NN_E_BUSY, "there are %d models, and may be no more",
                   api->settings.limits.models);
}

/* With the lock held: no change of it is made any more. */
static void kill_model(struct api_model *model, enum nn_code code) {
    model->dead = code;
    model->nudged = true; /* whoever drains finds out */
}

static void bury(struct api_request *request, enum nn_code code) {
    struct nn_error gone = {0};
    nn_fail(&gone, code, "the model was %s meanwhile", code == NN_E_STALE ? "restored" : "deleted");
    api_contexts_drop(request->api, request->model);
    api_end_waiting(request->api, request->model, UINT64_MAX, &gone);
    api_model_unref(request->api, request->model);
}

void api_model_remove(struct api_request *request, enum nn_code code) {
    struct api *api = request->api;
    pthread_mutex_lock(&api->lock);
    tdelete(request->model, &api->models, by_name);
    api->n_models--;
    kill_model(request->model, code);
    pthread_mutex_unlock(&api->lock);
    bury(request, code);
}

void api_model_replace(struct api_request *request, struct api_model *next) {
    struct api *api = request->api;
    pthread_mutex_lock(&api->lock);
    *(struct api_model **)tfind(request->model, &api->models, by_name) = next;
    atomic_fetch_add(&next->refs, 1);
    kill_model(request->model, NN_E_STALE);
    pthread_mutex_unlock(&api->lock);
    bury(request, NN_E_STALE);
}

/* The version that a request is to read: the current one, or, carried out again, the one that it had read. */
static struct nn_params *version_for(const struct api_request *request, const struct api_model *model) {
    const struct api_replay *replay = request->replay;
    if (!replay || replay->read == UINT64_MAX || replay->read == nn_params_version(model->params))
        return model->params;
    for (int i = 0; i < API_REPLAY_VERSIONS; i++)
        if (model->past[i] && nn_params_version(model->past[i]) == replay->read) return model->past[i];
    return NULL;
}

/* The request's view of a model: a reference, and the version. With the lock held. */
static int hold(struct api_request *request, struct api_model *model) {
    struct nn_params *params = version_for(request, model);
    if (!params)
        return nn_fail(&request->err, NN_E_CORRUPT, "version %llu of \"%s\" is not there to be read",
                       (unsigned long long)request->replay->read, model->name);
    atomic_fetch_add(&model->refs, 1);
    request->model = model;
    request->params = nn_params_ref(params);
    return NN_OK;
}

/* A name to look up: `key` has the size of a model. */
static struct api_model *lookup(struct api *api, const char *name, struct api_model *key) {
    snprintf(key->name, sizeof key->name, "%s", name);
    void *node = api_model_name_valid(name) ? tfind(key, &api->models, by_name) : NULL;
    return node ? *(struct api_model **)node : NULL;
}

int api_model_find(struct api_request *request, const char *name) {
    struct api *api = request->api;
    struct api_model key = {0};
    pthread_mutex_lock(&api->lock);
    struct api_model *model = api_token_sees(request->token, name) ? lookup(api, name, &key) : NULL;
    if (model) hold(request, model);
    pthread_mutex_unlock(&api->lock);
    return model ? (int)request->err.code
                 : nn_fail(&request->err, NN_E_NOT_FOUND, "no model is named \"%.100s\"", name);
}

bool api_model_size(struct api *api, const char *name, struct api_model_size *size) {
    struct api_model key = {0};
    pthread_mutex_lock(&api->lock);
    const struct api_model *model = lookup(api, name, &key);
    if (model) *size = model->size;
    pthread_mutex_unlock(&api->lock);
    return model != NULL;
}

struct search {
    const char *birth;
    uint64_t change, seq;
    bool there, has;
};

static void search_one(const void *node, VISIT visit, void *closure) {
    struct search *search = closure;
    const struct api_model *model = *(struct api_model *const *)node;
    if ((visit != postorder && visit != leaf) || strcmp(model->birth, search->birth) != 0) return;
    if (model->policy.durability == API_DURABLE_NONE)
        return; /* of which the raise was cut short: it will go */
    search->there = true;
    search->has = search->seq ? search->seq <= model->seq : search->change <= model->read_changes;
}

bool api_model_has(struct api *api, const char *birth, uint64_t change, uint64_t seq, bool *there) {
    struct search search = {birth, change, seq, false, false};
    pthread_mutex_lock(&api->lock);
    twalk_r(api->models, search_one, &search);
    pthread_mutex_unlock(&api->lock);
    *there = search.there;
    return search.has;
}

struct listing {
    struct api_request *request;
    const struct api_model *(*model_of)(const void *item);
    json_t *(*describe)(struct api *api, const void *item);
    json_t *list;
    bool failed;
};

static void list_one(const void *node, VISIT visit, void *closure) {
    struct listing *listing = closure;
    if (visit != postorder && visit != leaf) return;
    const void *item = *(void *const *)node;
    if (!api_token_sees(listing->request->token, listing->model_of(item)->name)) return;
    json_t *described = listing->describe(listing->request->api, item);
    listing->failed |= json_array_append_new(listing->list, described) != 0;
}

int api_registry_list(struct api_request *request, const struct api_registry *registry,
                      const struct api_model *(*model_of)(const void *item),
                      json_t *(*describe)(struct api *api, const void *item), json_t *list) {
    struct listing listing = {request, model_of, describe, list, false};
    pthread_mutex_lock(&request->api->lock);
    size_t n = (size_t)*registry->n;
    pthread_mutex_unlock(&request->api->lock); /* to find room may take it */
    if (api_count(request, n * registry->described)) return (int)request->err.code;
    pthread_mutex_lock(&request->api->lock);
    twalk_r(*registry->tree, list_one, &listing);
    pthread_mutex_unlock(&request->api->lock);
    return listing.failed ? nn_fail(&request->err, NN_E_NOMEM, "memory is out") : NN_OK;
}

#define LISTED 1024 /* bytes that a model takes in the list, at most */

static const struct api_model *itself(const void *item) { return item; }

static json_t *describe(struct api *api, const void *item) {
    const struct api_model *model = item;
    (void)api;
    return json_pack("{s:s, s:s, s:I}", "name", model->name, "incarnation", model->incarnation, "version",
                     (json_int_t)nn_params_version(model->params));
}

int api_models_list(struct api_request *request, json_t *list) {
    const struct api_registry models = {&request->api->models, &request->api->n_models, LISTED};
    return api_registry_list(request, &models, itself, describe, list);
}

void api_models_clear(struct api *api) {
    while (api->models) {
        struct api_model *model = *(struct api_model **)api->models;
        tdelete(model, &api->models, by_name);
        api_model_unref(api, model);
    }
    api->n_models = 0;
}
