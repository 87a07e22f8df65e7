/* registry.c - a tree of models by name, behind the service's lock. */
#include <search.h>
#include <stdio.h>
#include <string.h>

#include "../request/service.h"
#include "registry.h"

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct api_model *)a)->name, ((const struct api_model *)b)->name);
}

/* The version for a request to read: the current one; for a request that is carried out again, the one that it had
 * read. */
static struct nn_params *version_for(const struct api_request *request, const struct api_model *model) {
    const struct api_replay *replay = request->replay;
    if (!replay || replay->read == UINT64_MAX || replay->read == nn_params_version(model->params))
        return model->params;
    for (int i = 0; i < API_REPLAY_VERSIONS; i++)
        if (model->past[i] && nn_params_version(model->past[i]) == replay->read) return model->past[i];
    return NULL;
}

/* With the lock held: the request takes a reference to the model, and a version. */
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

struct api_model *api_registry_at(struct api *api, const char *name) {
    struct api_model key = {0};
    snprintf(key.name, sizeof key.name, "%s", name);
    void *node = api_model_name_valid(name) ? tfind(&key, &api->models, by_name) : NULL;
    return node ? *(struct api_model **)node : NULL;
}

bool api_registry_add(struct api *api, struct api_model *model) {
    if (!tsearch(model, &api->models, by_name)) return false;
    atomic_fetch_add(&model->refs, 1);
    api->n_models++;
    return true;
}

void api_registry_take(struct api *api, struct api_model *model) {
    tdelete(model, &api->models, by_name);
    api->n_models--;
}

void api_registry_swap(struct api *api, struct api_model *next) {
    *(struct api_model **)tfind(next, &api->models, by_name) = next;
    atomic_fetch_add(&next->refs, 1);
}

int api_model_find(struct api_request *request, const char *name) {
    struct api *api = request->api;
    pthread_mutex_lock(&api->lock);
    struct api_model *model = api_token_sees(request->token, name) ? api_registry_at(api, name) : NULL;
    if (model) hold(request, model);
    pthread_mutex_unlock(&api->lock);
    return model ? (int)request->err.code
                 : nn_fail(&request->err, NN_E_NOT_FOUND, "no model is named \"%.100s\"", name);
}

bool api_model_size(struct api *api, const char *name, struct api_model_size *size) {
    pthread_mutex_lock(&api->lock);
    const struct api_model *model = api_registry_at(api, name);
    if (model) *size = model->size;
    pthread_mutex_unlock(&api->lock);
    return model != NULL;
}

bool api_model_lags(struct api *api, const char *name, uint64_t *version, int64_t *durable) {
    pthread_mutex_lock(&api->lock);
    const struct api_model *model = api_registry_at(api, name);
    bool stored = model && model->policy.durability != API_DURABLE_NONE;
    *version = stored ? nn_params_version(model->params) : 0;
    *durable = stored ? model->durable_version : 0;
    pthread_mutex_unlock(&api->lock);
    return (int64_t)*version > *durable;
}

struct api_model_size api_model_measured(struct api_request *request) {
    pthread_mutex_lock(&request->api->lock);
    struct api_model_size size = request->model->size;
    pthread_mutex_unlock(&request->api->lock);
    return size;
}

struct search {
    const char *birth;
    uint64_t change, seq;
    bool there, has;
    char name[API_MAX_MODEL_NAME + 1];
};

static void search_one(const void *node, VISIT visit, void *closure) {
    struct search *search = closure;
    const struct api_model *model = *(struct api_model *const *)node;
    if ((visit != postorder && visit != leaf) || strcmp(model->birth, search->birth) != 0) return;
    if (model->policy.durability == API_DURABLE_NONE)
        return; /* raising its durability was cut short: the model will be removed */
    search->there = true;
    memcpy(search->name, model->name, sizeof search->name);
    search->has = search->seq ? search->seq <= model->seq : search->change <= model->read_changes;
}

bool api_model_has(struct api *api, const char *birth, uint64_t change, uint64_t seq, bool *there) {
    struct search search = {.birth = birth, .change = change, .seq = seq};
    pthread_mutex_lock(&api->lock);
    twalk_r(api->models, search_one, &search);
    pthread_mutex_unlock(&api->lock);
    *there = search.there;
    return search.has;
}

const char *api_model_name_of(struct api *api, const char *birth, char name[API_MAX_MODEL_NAME + 1]) {
    struct search search = {.birth = birth};
    pthread_mutex_lock(&api->lock);
    twalk_r(api->models, search_one, &search);
    pthread_mutex_unlock(&api->lock);
    memcpy(name, search.name, sizeof search.name);
    return name;
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
    pthread_mutex_unlock(&request->api->lock); /* making room takes the lock */
    if (api_count(request, n * registry->described)) return (int)request->err.code;
    pthread_mutex_lock(&request->api->lock);
    twalk_r(*registry->tree, list_one, &listing);
    pthread_mutex_unlock(&request->api->lock);
    return listing.failed ? nn_fail(&request->err, NN_E_NOMEM, "memory is out") : NN_OK;
}

#define LISTED 1024 /* an upper bound of a model's bytes in the list */

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
