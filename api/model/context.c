/* context.c - the table of kept tapes. */
#include "context.h"

#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../request/service.h"
#include "model.h"
#include "registry.h"

struct api_context {
    atomic_int refs;
    char id[33];
    struct api_model *model;
    struct nn_run *run;
    size_t reserved;

    /* Guarded by the registry's lock. */
    int64_t used_ms; /* when it was last used */
    int users;       /* shared claims on it */
    bool claimed;    /* there is an exclusive claim */
    bool listed;     /* it is in the table */
    bool told;       /* a change has, or is about to have, the statistics of its batch */
};

static int by_id(const void *a, const void *b) {
    return strcmp(((const struct api_context *)a)->id, ((const struct api_context *)b)->id);
}

const struct nn_run *api_context_run(const struct api_context *context) { return context->run; }

void api_context_unref(struct api *api, struct api_context *context) {
    if (!context || atomic_fetch_sub(&context->refs, 1) != 1) return;
    nn_run_free(context->run);
    api_model_unref(api, context->model);
    api_release(api, context->reserved);
    free(context);
}

/* With the lock held: takes a context out of the table. The table's reference becomes the caller's. */
static void unlist(struct api *api, struct api_context *context) {
    tdelete(context, &api->contexts, by_id);
    api->n_contexts--;
    context->listed = false;
}

/* The context of that id, if the request's token sees its model. */
static struct api_context *lookup(struct api_request *request, const char *id) {
    struct api_context key = {0};
    snprintf(key.id, sizeof key.id, "%s", id);
    void *node = strlen(id) < sizeof key.id ? tfind(&key, &request->api->contexts, by_id) : NULL;
    struct api_context *found = node ? *(struct api_context **)node : NULL;
    return found && api_token_sees(request->token, found->model->name) ? found : NULL;
}

/* --- freeing contexts ------------------------------------------------------------------------------- */

struct search {
    struct api_context *found;
    const struct api_model *model; /* searches the contexts of this model; NULL: idle ones, */
    int64_t before_ms;             /* last used before this time */
};

static void search_one(const void *node, VISIT visit, void *closure) {
    struct search *search = closure;
    struct api_context *context = *(struct api_context *const *)node;
    if (visit != postorder && visit != leaf) return;
    bool idle = !context->claimed && context->users == 0;
    if (search->model ? context->model == search->model : idle && context->used_ms < search->before_ms)
        search->found = context;
}

/* Frees all contexts that match, one at a time: the tree may not change while it is walked. */
static bool drop_all(struct api *api, struct search search) {
    bool any = false;
    for (;;) {
        search.found = NULL;
        pthread_mutex_lock(&api->lock);
        twalk_r(api->contexts, search_one, &search);
        if (search.found) unlist(api, search.found);
        pthread_mutex_unlock(&api->lock);
        if (!search.found) return any;
        api_context_unref(api, search.found);
        any = true;
    }
}

bool api_contexts_expire(struct api *api) {
    return drop_all(api, (struct search){.before_ms = api_now_ms(api) - api->settings.limits.context_ttl_ms});
}

void api_contexts_drop(struct api *api, const struct api_model *model) {
    drop_all(api, (struct search){.model = model});
}

void api_contexts_clear(struct api *api) {
    while (api->contexts) {
        struct api_context *context = *(struct api_context **)api->contexts;
        unlist(api, context);
        api_context_unref(api, context);
    }
}

static int not_found(struct api_request *request, const char *id) {
    return nn_fail(&request->err, NN_E_NOT_FOUND,
                   "no context is named \"%.40s\"; used up, expired, or never there", id);
}

int api_context_find_model(struct api_request *request, const char *id) {
    struct api *api = request->api;
    pthread_mutex_lock(&api->lock);
    const struct api_context *context = lookup(request, id);
    if (context) {
        request->model = context->model;
        atomic_fetch_add(&context->model->refs, 1);
    }
    pthread_mutex_unlock(&api->lock);
    return context ? NN_OK : not_found(request, id);
}

int api_context_delete(struct api_request *request, const char *id) {
    struct api *api = request->api;
    pthread_mutex_lock(&api->lock);
    struct api_context *context = lookup(request, id);
    bool busy = context && context->claimed;
    if (context && !busy) unlist(api, context);
    pthread_mutex_unlock(&api->lock);
    if (!context) return not_found(request, id);
    if (busy) return nn_fail(&request->err, NN_E_IN_USE, "a backward pass is using this context up");
    api_context_unref(api, context);
    return NN_OK;
}

/* --- keeping and claiming --------------------------------------------------------------------------- */

int api_context_new(struct api_request *request, size_t bytes, const char **id) {
    uint64_t high, low;
    if (api_random(request, &high) || api_random(request, &low)) return (int)request->err.code;
    struct api_context *context = calloc(1, sizeof *context);
    if (!context) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    atomic_init(&context->refs, 1);
    snprintf(context->id, sizeof context->id, "%016llx%016llx", (unsigned long long)high,
             (unsigned long long)low);
    atomic_fetch_add(&request->model->refs, 1);
    context->model = request->model;
    context->run = request->run;
    request->run = NULL;
    context->reserved = bytes;
    api_reserve_move(request, bytes);
    request->context = context;
    *id = context->id;
    return NN_OK;
}

int api_context_keep(struct api_request *request) {
    struct api *api = request->api;
    struct api_context *context = request->context;
    api_contexts_expire(api);
    context->used_ms = api_now_ms(api);
    pthread_mutex_lock(&api->lock);
    bool full = api->n_contexts >= api->settings.limits.contexts, dead = context->model->dead;
    if (!full && !dead) {
        struct api_context *const *node = tsearch(context, &api->contexts, by_id);
        context->listed = node && *node == context; /* false: memory is out, or the id was drawn before */
    }
    api->n_contexts += context->listed;
    if (context->listed) atomic_fetch_add(&context->refs, 1);
    bool listed = context->listed; /* read under the lock, because another request may change it afterwards */
    pthread_mutex_unlock(&api->lock);
    if (listed) return NN_OK;
    if (dead) return nn_fail(&request->err, NN_E_NOT_FOUND, "the model was deleted meanwhile");
    if (!full) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    return nn_fail(&request->err, NN_E_BUSY, "%d contexts are kept, and may be no more",
                   api->settings.limits.contexts);
}

int api_context_claim(struct api_request *request, const char *id, bool shared) {
    struct api *api = request->api;
    api_contexts_expire(api);
    pthread_mutex_lock(&api->lock);
    struct api_context *context = lookup(request, id);
    bool busy = context && (context->claimed || (!shared && context->users));
    if (context && !busy) {
        atomic_fetch_add(&context->refs, 1);
        atomic_fetch_add(&context->model->refs, 1);
        context->claimed = !shared;
        context->users += shared;
        context->used_ms = api_now_ms(api);
    }
    pthread_mutex_unlock(&api->lock);
    if (!context) return not_found(request, id);
    if (busy) return nn_fail(&request->err, NN_E_IN_USE, "another backward pass is using this context");
    request->context = context;
    request->claim = shared ? API_CLAIM_SHARED : API_CLAIM_EXCLUSIVE;
    request->model = context->model;
    request->params = nn_params_ref(nn_run_params(context->run));
    return NN_OK;
}

bool api_context_tell(struct api_request *request) {
    pthread_mutex_lock(&request->api->lock);
    request->tells = !request->context->told;
    request->context->told = true;
    pthread_mutex_unlock(&request->api->lock);
    return request->tells;
}

void api_context_settle(struct api_request *request) {
    struct api *api = request->api;
    request->tells = false; /* and the context stays told */
    if (request->claim != API_CLAIM_EXCLUSIVE) {
        api_context_unclaim(request);
        return;
    }
    pthread_mutex_lock(&api->lock);
    bool listed = request->context->listed; /* false if the model was deleted meanwhile */
    if (listed) unlist(api, request->context);
    pthread_mutex_unlock(&api->lock);
    request->claim = API_CLAIM_NONE;
    if (listed) api_context_unref(api, request->context);
}

void api_context_unclaim(struct api_request *request) {
    struct api *api = request->api;
    if (request->claim == API_CLAIM_NONE) return;
    pthread_mutex_lock(&api->lock);
    if (request->claim == API_CLAIM_SHARED)
        request->context->users--;
    else
        request->context->claimed = false;
    request->context->used_ms = api_now_ms(api);
    if (request->tells) request->context->told = false;
    pthread_mutex_unlock(&api->lock);
    request->claim = API_CLAIM_NONE;
    request->tells = false;
}

/* --- descriptions ------------------------------------------------------------------------------------ */

static json_t *describe(struct api *api, const void *item) {
    const struct api_context *context = item;
    const struct nn_run_options *run = nn_run_options(context->run);
    int64_t left = context->used_ms + api->settings.limits.context_ttl_ms - api_now_ms(api);
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:s, s:I, s:I, s:I}", "context", context->id, "model",
                     context->model->name, "incarnation", context->model->incarnation, "version",
                     (json_int_t)nn_params_version(nn_run_params(context->run)), "rows",
                     (json_int_t)run->rows, "mode", run->mode == NN_TRAIN ? "train" : "eval", "seed",
                     (json_int_t)run->seed, "bytes", (json_int_t)context->reserved, "expires_in_ms",
                     (json_int_t)(left > 0 ? left : 0));
}

#define LISTED 2304 /* an upper bound of a context's bytes in the list */

static const struct api_model *model_of(const void *item) {
    return ((const struct api_context *)item)->model;
}

int api_contexts_list(struct api_request *request, json_t *list) {
    api_contexts_expire(request->api);
    const struct api_registry contexts = {&request->api->contexts, &request->api->n_contexts, LISTED};
    return api_registry_list(request, &contexts, model_of, describe, list);
}

json_t *api_context_describe(struct api_request *request, const char *id) {
    struct api *api = request->api;
    api_contexts_expire(api);
    pthread_mutex_lock(&api->lock);
    const struct api_context *context = lookup(request, id);
    json_t *described = context ? describe(api, context) : NULL;
    pthread_mutex_unlock(&api->lock);
    if (!context)
        not_found(request, id);
    else if (!described)
        nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    return described;
}
