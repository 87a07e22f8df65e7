/* snapshot.c - writing: what changes in place is copied in the model's turn, what does not is shown as it is. */
#include "snapshot.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "../change/condition.h"
#include "../wire/json_text.h"
#include "../wire/safetensors.h"
#include "../request/service.h"

struct owned_snapshot {
    struct api_snapshot snapshot;
    struct api *api;
    struct nn_params *params; /* a reference */
    struct nn_arena *arena;   /* names, segments, lists */
    void *copy;               /* of the optimizer's state and the buffer */
    void *header;
    size_t reserved;
    struct api_tensor_out *tensors;
    struct api_segment *segments;
    size_t n; /* of tensors; segments are one more, the header */
};

void api_snapshot_free(struct api_snapshot *snapshot) {
    if (!snapshot) return;
    struct owned_snapshot *owned = (struct owned_snapshot *)snapshot;
    nn_params_unref(owned->params);
    nn_arena_free(owned->arena);
    nn_block_free(owned->copy);
    free(owned->header);
    api_release(owned->api, owned->reserved);
    free(owned);
}

static struct owned_snapshot *snapshot_new(struct api_request *request, const struct api_model *model) {
    const struct api_env *env = &request->api->env;
    struct owned_snapshot *owned = calloc(1, sizeof *owned);
    if (!owned || !(owned->arena = nn_arena_new())) {
        free(owned);
        nn_fail(&request->err, NN_E_NOMEM, "memory is out");
        return NULL;
    }
    owned->api = request->api;
    memcpy(owned->snapshot.model, model->name, sizeof owned->snapshot.model);
    memcpy(owned->snapshot.birth, model->birth, sizeof owned->snapshot.birth);
    memcpy(owned->snapshot.incarnation, model->incarnation, sizeof owned->snapshot.incarnation);
    owned->snapshot.changes = model->changes;
    owned->snapshot.version = nn_params_version(model->params);
    owned->snapshot.time_ms = env->wall_ms(env->self);
    return owned;
}

/* --- metadata ----------------------------------------------------------------------------------------- */

static json_t *fresh_json(const struct nn_optimizer *optimizer) {
    json_t *list = json_array();
    for (int i = 0; optimizer && i < nn_optimizer_slot_count(optimizer); i++)
        if (json_array_append_new(list, json_boolean(nn_optimizer_slot_fresh(optimizer, i)))) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static json_t *staleness_json(const struct api_model *model) {
    json_t *list = json_array();
    for (int i = 0; i < API_STALENESS_BUCKETS; i++)
        if (json_array_append_new(list, json_integer((json_int_t)model->staleness[i]))) {
            json_decref(list);
            return NULL;
        }
    return list;
}

/* {"gradd": "..."}, or NULL. */
static json_t *metadata(const struct owned_snapshot *owned, const struct api_model *model) {
    const struct nn_optimizer *optimizer = model->optimizer;
    const char *stopped = model->stopped ? nn_graph_param(model->graph, model->stopped_at)->name : NULL;
    json_t *json = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:O, s:I, s:o, s:o, s:s*}", "name", model->name,
                             "birth", model->birth, "incarnation", model->incarnation, "version",
                             (json_int_t)owned->snapshot.version, "changes", (json_int_t)model->changes,
                             "time", (json_int_t)owned->snapshot.time_ms, "specification", model->spec->json,
                             "steps", (json_int_t)(optimizer ? nn_optimizer_steps(optimizer) : 0), "fresh",
                             fresh_json(optimizer), "staleness", staleness_json(model), "stopped", stopped);
    if (json && model->sum_count &&
        json_object_set_new(json, "sum",
                            json_pack("{s:f, s:I, s:I}", "scale", model->sum_scale, "count",
                                      (json_int_t)model->sum_count, "oldest",
                                      (json_int_t)model->sum_oldest))) {
        json_decref(json);
        return NULL;
    }
    char *text = json ? api_json_text(json) : NULL;
    json_decref(json);
    json_t *members = text ? json_pack("{s:s}", "gradd", text) : NULL;
    free(text);
    return members;
}

/* --- tensors ------------------------------------------------------------------------------------------ */

static size_t param_bytes(const struct nn_graph *graph, int param) {
    return (size_t)nn_graph_param(graph, param)->elements * nn_dtype_size(nn_graph_dtype(graph));
}

static void add(struct owned_snapshot *owned, const struct nn_graph *graph, int param, const char *member,
                const char *name, const void *data) {
    owned->tensors[owned->n] = (struct api_tensor_out){member, name, nn_graph_param(graph, param)->shape,
                                                       api_dtype_of(nn_graph_dtype(graph))};
    owned->segments[++owned->n] = (struct api_segment){data, param_bytes(graph, param)};
    owned->snapshot.size += param_bytes(graph, param);
}

/* "exp_avg.0.weight"; NULL when memory is out. */
static const char *join(struct nn_arena *arena, const char *slot, const char *param) {
    size_t n = strlen(slot), m = strlen(param);
    char *name = nn_arena_alloc(arena, n + m + 2, 1);
    if (!name) return NULL;
    memcpy(name, slot, n);
    name[n] = '.';
    memcpy(name + n + 1, param, m);
    return name;
}

/* Copies what steps change in place, from `copy` on; 0: memory is out. */
static size_t add_state(struct owned_snapshot *owned, struct api_model *model, char *copy) {
    const struct nn_graph *graph = model->graph;
    size_t used = 0;
    int slots = model->optimizer ? nn_optimizer_slot_count(model->optimizer) : 0;
    for (int k = 0; k <= slots; k++)
        for (int i = 0; i < nn_graph_param_count(graph); i++) {
            const struct nn_param *param = nn_graph_param(graph, i);
            if (!param->trainable || (k == slots && !model->sum_count)) continue;
            const char *name =
                k == slots ? param->name
                           : join(owned->arena, nn_optimizer_slot_name(model->optimizer, k), param->name);
            const void *from =
                k == slots ? nn_grads_data(model->sum, i) : nn_optimizer_slot(model->optimizer, k, i);
            if (!name) return 0;
            memcpy(copy + used, from, param_bytes(graph, i));
            add(owned, graph, i, k == slots ? "accumulated" : "optimizer", name, copy + used);
            used += param_bytes(graph, i);
        }
    return used + 1;
}

struct api_snapshot *api_snapshot_make(struct api_request *request, struct api_model *model) {
    const struct nn_graph *graph = model->graph;
    struct owned_snapshot *owned = snapshot_new(request, model);
    size_t slots = model->optimizer ? (size_t)nn_optimizer_slot_count(model->optimizer) : 0;
    size_t lists = slots + 1 + 1, params = (size_t)nn_graph_param_count(graph), header;
    size_t copied = (slots + (model->sum_count != 0)) * nn_graph_trainable_bytes(graph) + 1;
    if (!owned || api_reserve(request, copied)) goto fail;
    api_reserve_move(request, copied);
    owned->reserved = copied;
    owned->tensors = nn_arena_alloc(owned->arena, params * lists + 1, sizeof *owned->tensors);
    owned->segments = nn_arena_alloc(owned->arena, params * lists + 2, sizeof *owned->segments);
    owned->copy = nn_block_new(copied);
    if (!owned->tensors || !owned->segments || !owned->copy) goto no_memory;
    owned->params = nn_params_ref(model->params);
    for (int i = 0; i < nn_graph_param_count(graph); i++)
        add(owned, graph, i, "", nn_graph_param(graph, i)->name, nn_params_view(owned->params, i));
    if (!add_state(owned, model, owned->copy)) goto no_memory;
    json_t *members = metadata(owned, model);
    owned->header = members ? api_safetensors_header(members, owned->tensors, owned->n, &header) : NULL;
    json_decref(members);
    if (!owned->header) goto no_memory;
    owned->segments[0] = (struct api_segment){owned->header, header};
    owned->snapshot.size += header;
    owned->snapshot.segments = owned->segments;
    owned->snapshot.n_segments = owned->n + 1;
    return &owned->snapshot;
no_memory:
    nn_fail(&request->err, NN_E_NOMEM, "no memory for a snapshot");
fail:
    if (owned) api_snapshot_free(&owned->snapshot);
    return NULL;
}

/* --- a checkpoint ------------------------------------------------------------------------------------- */

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

/* Who takes a snapshot, and waits for it. */
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
    /* Once it may wait for the next one. But a stop has none, and the journal grows meanwhile. */
    request->beyond = model->missed || atomic_load(&request->api->draining);
    if (!stored) {
        nn_fail(&request->err, NN_E_NOT_FOUND, "it is not stored");
    } else if (same) {
        struct owned_snapshot *owned = snapshot_new(request, model);
        taking->snapshot = owned ? &owned->snapshot : NULL;
        if (owned) owned->snapshot.unchanged = true;
    } else if ((taking->snapshot = api_snapshot_make(request, model))) {
        model->oldest_readable = nn_params_version(model->params);
    }
    if (taking->snapshot) taking->snapshot->seq = store->last(store->self);
    model->missed = request->err.code == NN_E_BUSY;
    *taking->err = request->err;
    return (int)request->err.code;
}

/* False: the model was deleted or replaced before its turn. */
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
    request->brief = true; /* other models wait for this thread */
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
    while (!take(&taking, api, name)) continue; /* there may be one in its place */
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
