/* snapshot.c - writes a snapshot. In the model's turn it copies the state that steps change in place; the parameters of
 * a version never change, and are shown from where they are. */
#include "snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "../request/service.h"
#include "../wire/json_text.h"
#include "../wire/record.h"
#include "../wire/safetensors.h"
#include "state.h"

struct owned_snapshot {
    struct api_snapshot snapshot;
    struct api *api;
    struct nn_params *params; /* a reference */
    struct nn_arena *arena;   /* names, segments, lists */
    void *copy;               /* a copy of the optimizer's state and of the buffer */
    void *header;
    size_t reserved;
    struct api_tensor_out *tensors;
    struct api_segment *segments;
    size_t n; /* the number of tensors; segments are one more, for the header */
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

/* {"steps": ..., "fresh": ...}; {} without an optimizer. */
static json_t *progress_json(const struct owned_snapshot *owned, const struct api_model *model) {
    struct api_state state;
    json_t *fresh;
    if (!model->optimizer) return json_object();
    if (!api_state_init(&state, owned->arena, model->graph, model->optimizer) ||
        api_state_fresh_json(&state, owned->arena, &fresh))
        return NULL;
    return json_pack("{s:o, s:o*}", "steps", api_state_steps_json(&state), "fresh", fresh);
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
    const char *stopped = model->stopped ? nn_graph_param(model->graph, model->stopped_at)->name : NULL;
    json_t *json =
        json_pack("{s:i, s:s, s:s, s:s, s:I, s:I, s:I, s:O, s:o, s:s*}", "format", API_FORMAT, "name",
                  model->name, "birth", model->birth, "incarnation", model->incarnation, "version",
                  (json_int_t)owned->snapshot.version, "changes", (json_int_t)model->changes, "time",
                  (json_int_t)owned->snapshot.time_ms, "specification", model->spec->json, "staleness",
                  staleness_json(model), "stopped", stopped);
    json_t *progress = progress_json(owned, model);
    if (json && json_object_update(json, progress)) {
        json_decref(json);
        json = NULL;
    }
    json_decref(progress);
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

static void add(struct owned_snapshot *owned, const struct nn_graph *graph, int param, const char *member,
                const char *name, const void *data) {
    const struct nn_param *info = nn_graph_param(graph, param);
    owned->tensors[owned->n] = (struct api_tensor_out){member, name, info->shape, api_dtype_of(info->dtype)};
    owned->segments[++owned->n] = (struct api_segment){data, info->bytes};
    owned->snapshot.size += info->bytes;
}

/* Copies the state that steps change in place. Returns 0 when memory is out. */
static size_t add_state(struct owned_snapshot *owned, struct api_model *model, char *copy) {
    const struct nn_graph *graph = model->graph;
    size_t used = 0;
    int slots = model->optimizer ? nn_optimizer_slot_count(model->optimizer) : 0;
    for (int k = 0; k <= slots; k++)
        for (int i = 0; i < nn_graph_param_count(graph); i++) {
            const struct nn_param *param = nn_graph_param(graph, i);
            if (k == slots ? !(model->sum_count && model->sum_named[i]) : param->kind != NN_TRAINED) continue;
            const char *name =
                k == slots
                    ? param->name
                    : api_state_name(owned->arena, nn_optimizer_slot_name(model->optimizer, k), param->name);
            const void *from = k == slots ? (const char *)nn_grads_block(model->sum) + param->offset
                                          : nn_optimizer_slot(model->optimizer, k, i);
            if (!name) return 0;
            memcpy(copy + used, from, param->bytes);
            add(owned, graph, i, k == slots ? "accumulated" : "optimizer", name, copy + used);
            used += param->bytes;
        }
    return used + 1;
}

struct api_snapshot *api_snapshot_unchanged(struct api_request *request, const struct api_model *model) {
    struct owned_snapshot *owned = snapshot_new(request, model);
    if (!owned) return NULL;
    owned->snapshot.unchanged = true;
    return &owned->snapshot;
}

struct api_snapshot *api_snapshot_make(struct api_request *request, struct api_model *model) {
    const struct nn_graph *graph = model->graph;
    struct owned_snapshot *owned = snapshot_new(request, model);
    size_t slots = model->optimizer ? (size_t)nn_optimizer_slot_count(model->optimizer) : 0;
    size_t lists = slots + 1 + 1, params = (size_t)nn_graph_param_count(graph), header;
    size_t copied = slots * nn_graph_trained_bytes(graph) + 1;
    if (model->sum_count) copied += nn_graph_gradient_bytes(graph);
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
