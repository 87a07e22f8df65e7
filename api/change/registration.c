/* registration.c - see registration.h. */
#include "registration.h"

#include "../model/context.h"
#include "../request/service.h"
#include "commit.h"
#include "condition.h"
#include "turns.h"

int api_model_register(struct api_request *request, int (*turn)(struct api_request *request)) {
    struct api *api = request->api;
    struct api_model *model = request->model;
    bool brief = request->brief;
    request->turn = turn;
    pthread_mutex_lock(&api->lock);
    const struct api_model *taken = api_registry_at(api, model->name);
    bool allowed = api_check_creation(request, taken) == NN_OK;
    bool full = api->n_models >= api->settings.limits.models && !request->quiet;
    bool listed = allowed && !taken && !full && api_registry_add(api, model);
    if (listed) {
        request->if_match = request->if_none_match =
            NULL; /* the conditions were about the name: the first version has none */
        api_model_enqueue(model, request);
    }
    pthread_mutex_unlock(&api->lock);
    if (listed) {
        api_model_drain(api, model, brief);
        return API_LATER;
    }
    if (!allowed) return (int)request->err.code;
    if (taken) {
        nn_fail(&request->err, NN_E_EXISTS, "a model named \"%s\" exists", model->name);
        return api_point(request, "name", NULL);
    }
    if (!full) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    return nn_fail(&request->err, NN_E_BUSY, "there are %d models, and may be no more",
                   api->settings.limits.models);
}

/* With the lock held: later changes get the error `code`. */
static void kill_model(struct api_model *model, enum nn_code code) {
    model->dead = code;
    model->nudged = true; /* wakes the thread that drains */
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
    api_registry_take(api, request->model);
    kill_model(request->model, code);
    pthread_mutex_unlock(&api->lock);
    bury(request, code);
}

void api_model_replace(struct api_request *request, struct api_model *next) {
    struct api *api = request->api;
    pthread_mutex_lock(&api->lock);
    api_registry_swap(api, next);
    kill_model(request->model, NN_E_STALE);
    pthread_mutex_unlock(&api->lock);
    bury(request, NN_E_STALE);
}
