/* checkpoint.c - when snapshots are taken, and which requests they answer. model/snapshot.c makes them. */
#include <search.h>
#include <string.h>

#include "change/commit.h"
#include "change/turns.h"
#include "life.h"
#include "model/registry.h"
#include "model/snapshot.h"
#include "request/service.h"

struct names {
    struct nn_arena *arena;
    const char **name;
    size_t n, room;
    bool failed;
};

static void collect(const void *node, VISIT visit, void *closure) {
    struct names *names = closure;
    const struct api_model *model = *(struct api_model *const *)node;
    if ((visit != postorder && visit != leaf) || names->n == names->room) return;
    if (model->policy.durability == API_DURABLE_NONE && !model->raising) return;
    const char *name = nn_arena_strdup(names->arena, model->name);
    if (name)
        names->name[names->n++] = name;
    else
        names->failed = true;
}

int api_models_stored(struct api *api, void (*each)(void *arg, const char *name), void *arg,
                      struct nn_error *err) {
    struct names names = {.arena = nn_arena_new()};
    if (!names.arena) return nn_fail(err, NN_E_NOMEM, "memory is out");
    pthread_mutex_lock(&api->lock);
    names.room = (size_t)api->n_models;
    names.name = nn_arena_alloc(names.arena, names.room + 1, sizeof *names.name);
    if (names.name)
        twalk_r(api->models, collect, &names);
    else
        names.failed = true;
    pthread_mutex_unlock(&api->lock);
    if (names.failed) nn_fail(err, NN_E_NOMEM, "memory is out");
    for (size_t i = 0; i < names.n && !names.failed; i++) each(arg, names.name[i]);
    nn_arena_free(names.arena);
    return (int)err->code;
}

/* A thread that takes a snapshot, and waits for the model's turn. */
struct taking {
    pthread_mutex_t lock;
    pthread_cond_t over;
    bool done, ran;
    const char *birth;
    uint64_t changes;
    struct api_snapshot *snapshot;
    struct nn_error *err;
};

static void wake(void *context, struct api_response *response) {
    struct taking *taking = context;
    (void)response;
    pthread_mutex_lock(&taking->lock);
    taking->done = true;
    pthread_cond_signal(&taking->over);
    pthread_mutex_unlock(&taking->lock);
}

static int turn_take(struct api_request *request) {
    struct taking *taking = request->reply_context;
    struct api_model *model = request->model;
    const struct api_store *store = request->api->env.store;
    bool stored = model->policy.durability != API_DURABLE_NONE;
    bool same =
        taking->birth && strcmp(taking->birth, model->birth) == 0 && taking->changes == model->changes;
    taking->ran = true;
    /* The budget may refuse this model once; not twice, nor at shutdown, or the journal keeps growing. */
    request->beyond = model->missed || atomic_load(&request->api->draining);
    if (!stored) {
        nn_fail(&request->err, NN_E_NOT_FOUND, "it is not stored");
    } else if (same) {
        taking->snapshot = api_snapshot_unchanged(request, model);
    } else if ((taking->snapshot = api_snapshot_make(request, model))) {
        model->oldest_readable = nn_params_version(model->params);
    }
    if (taking->snapshot) taking->snapshot->seq = store->last(store->self);
    model->missed = request->err.code == NN_E_BUSY;
    *taking->err = request->err;
    return (int)request->err.code;
}

/* False: the model was deleted or replaced before its turn came. */
static bool take(struct taking *taking, struct api *api, const char *name) {
    struct api_request *request = api_request_quiet(api, wake, taking);
    if (!request) {
        nn_fail(taking->err, NN_E_NOMEM, "memory is out");
        return true;
    }
    if (api_model_find(request, name)) {
        *taking->err = request->err;
        api_request_free(request);
        return true;
    }
    taking->done = false;
    request->brief = true; /* the next model's snapshot waits for this thread */
    api_model_turn(request, turn_take);
    pthread_mutex_lock(&taking->lock);
    while (!taking->done) pthread_cond_wait(&taking->over, &taking->lock);
    pthread_mutex_unlock(&taking->lock);
    return taking->ran;
}

struct api_snapshot *api_snapshot_take(struct api *api, const char *name, const char *birth, uint64_t changes,
                                       struct nn_error *err) {
    struct taking taking = {.lock = PTHREAD_MUTEX_INITIALIZER,
                            .over = PTHREAD_COND_INITIALIZER,
                            .birth = birth,
                            .changes = changes,
                            .err = err};
    while (!take(&taking, api, name)) continue; /* another model may have its name now */
    return taking.snapshot;
}

void api_snapshot_durable(struct api *api, const struct api_snapshot *snapshot) {
    struct api_request *request = api_request_quiet(api, NULL, NULL);
    if (!request || api_model_find(request, snapshot->model)) {
        api_request_free(request);
        return;
    }
    struct api_model *model = request->model;
    if (strcmp(model->incarnation, snapshot->incarnation) == 0) {
        pthread_mutex_lock(&api->lock);
        bool stored = model->policy.durability != API_DURABLE_NONE;
        if (stored && (int64_t)snapshot->version > model->durable_version)
            model->durable_version = (int64_t)snapshot->version;
        pthread_mutex_unlock(&api->lock);
        api_end_waiting(api, model, snapshot->changes, NULL);
    }
    api_request_free(request);
}

void api_checkpoint_failed(struct api *api, const struct nn_error *err) {
    api_end_waiting(api, NULL, UINT64_MAX, err);
}

void api_store_failed(struct api *api, const struct nn_error *err) {
    api->store_error = *err;
    atomic_store(&api->store_failed, true);
    api_checkpoint_failed(api, err);
}
