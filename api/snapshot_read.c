/* snapshot_read.c - a model out of a snapshot. */
#include <string.h>

#include "json_read.h"
#include "record.h"
#include "safetensors.h"
#include "snapshot.h"

struct reader {
    struct api_request *request;
    struct api_safetensors file;
    json_t *json; /* the metadata; owned */
    struct api_model *model;
};

static int corrupt(struct reader *reader, const char *what, const char *name) {
    return nn_fail(&reader->request->err, NN_E_CORRUPT, "a snapshot %s \"%.100s\"", what, name);
}

/* "member/name", or name alone, into `out`: of the graph's type and the parameter's shape. */
static int take(struct reader *reader, const char *member, const char *slot, int param, void *out) {
    const struct nn_graph *graph = reader->model->graph;
    const struct nn_param *info = nn_graph_param(graph, param);
    char path[4 * NN_MAX_NAME];
    snprintf(path, sizeof path, "%s%s%s%s%s", member, *member ? "/" : "", slot, *slot ? "." : "", info->name);
    for (size_t i = 0; i < reader->file.n_tensors; i++) {
        const struct api_tensor *tensor = &reader->file.tensors[i];
        if (strcmp(tensor->name, path) != 0) continue;
        if (tensor->dtype != api_dtype_of(nn_graph_dtype(graph)) ||
            !nn_shape_equal(&tensor->shape, &info->shape))
            return corrupt(reader, "has another type or shape for", path);
        memcpy(out, tensor->data, (size_t)info->elements * nn_dtype_size(nn_graph_dtype(graph)));
        return NN_OK;
    }
    return corrupt(reader, "lacks", path);
}

static int take_parameters(struct reader *reader) {
    struct api_model *model = reader->model;
    for (int i = 0; i < nn_graph_param_count(model->graph); i++)
        if (take(reader, "", "", i, nn_params_data(model->params, i))) return (int)reader->request->err.code;
    nn_params_set_version(model->params, (uint64_t)api_record_integer(reader->json, "version"));
    return NN_OK;
}

static int take_optimizer(struct reader *reader) {
    struct api_model *model = reader->model;
    struct nn_optimizer *optimizer = model->optimizer;
    const json_t *fresh = json_object_get(reader->json, "fresh");
    if (!optimizer) return NN_OK;
    nn_optimizer_set_steps(optimizer, (uint64_t)api_record_integer(reader->json, "steps"));
    for (int slot = 0; slot < nn_optimizer_slot_count(optimizer); slot++) {
        for (int i = 0; i < nn_graph_param_count(model->graph); i++)
            if (nn_graph_param(model->graph, i)->trainable &&
                take(reader, "optimizer", nn_optimizer_slot_name(optimizer, slot), i,
                     nn_optimizer_slot(optimizer, slot, i)))
                return (int)reader->request->err.code;
        nn_optimizer_set_slot_fresh(optimizer, slot, json_is_true(json_array_get(fresh, (size_t)slot)));
    }
    return NN_OK;
}

static int take_sum(struct reader *reader) {
    struct api_request *request = reader->request;
    struct api_model *model = reader->model;
    const json_t *sum = json_object_get(reader->json, "sum");
    size_t bytes = nn_graph_trainable_bytes(model->graph);
    if (!sum) return NN_OK;
    if (api_reserve(request, bytes)) return (int)request->err.code;
    if (!(model->sum = nn_grads_new_unset(model->graph, &request->err))) return (int)request->err.code;
    api_reserve_move(request, bytes);
    model->reserved += bytes;
    model->sum_scale = api_record_real(sum, "scale");
    model->sum_count = (uint64_t)api_record_integer(sum, "count");
    model->sum_oldest = (uint64_t)api_record_integer(sum, "oldest");
    for (int i = 0; i < nn_graph_param_count(model->graph); i++)
        if (nn_graph_param(model->graph, i)->trainable &&
            take(reader, "accumulated", "", i, nn_grads_data(model->sum, i)))
            return (int)request->err.code;
    return NN_OK;
}

/* What a model is beside its numbers. */
static int take_rest(struct reader *reader) {
    struct api_model *model = reader->model;
    const json_t *json = reader->json, *staleness = json_object_get(json, "staleness");
    const char *stopped = api_record_text(json, "stopped");
    snprintf(model->birth, sizeof model->birth, "%s", api_record_text(json, "birth"));
    snprintf(model->incarnation, sizeof model->incarnation, "%s", api_record_text(json, "incarnation"));
    model->changes = model->read_changes = (uint64_t)api_record_integer(json, "changes");
    model->oldest_readable = nn_params_version(model->params);
    model->stopped = *stopped;
    model->stopped_at = *stopped ? nn_graph_param_find(model->graph, stopped) : 0;
    if (model->stopped_at < 0) return corrupt(reader, "stopped at the unknown parameter", stopped);
    for (int i = 0; i < API_STALENESS_BUCKETS; i++)
        model->staleness[i] = (uint64_t)json_integer_value(json_array_get(staleness, (size_t)i));
    model->steps = model->optimizer ? nn_optimizer_steps(model->optimizer) : 0;
    model->contributions = model->sum_count;
    return NN_OK;
}

/* A model as its specification says, its parameters still to be set. */
static int make(struct reader *reader) {
    struct api_request *request = reader->request;
    json_t *specification = json_object_get(reader->json, "specification");
    const char *name = api_record_text(reader->json, "name");
    struct api_spec spec;
    if (!api_model_name_valid(name)) return corrupt(reader, "has the model name", name);
    if (!json_is_object(specification)) return corrupt(reader, "lacks the specification of", name);
    if (api_spec_read(request, specification, NULL, &spec)) return (int)request->err.code;
    reader->model = api_model_new(request, name, &spec, specification, false);
    api_spec_fini(&spec);
    return (int)request->err.code;
}

static int read_all(struct reader *reader, const void *bytes, size_t size) {
    struct api_request *request = reader->request;
    struct nn_error *err = &request->err;
    if (api_safetensors_read(bytes, size, request->arena, &reader->file, err)) return (int)err->code;
    const char *text = api_record_text(reader->file.metadata, "gradd");
    if (!(reader->json = api_json_read(text, strlen(text), request->arena, err))) return (int)err->code;
    if (make(reader) || take_parameters(reader) || take_optimizer(reader) || take_sum(reader))
        return (int)err->code;
    return take_rest(reader);
}

struct api_model *api_snapshot_read(struct api_request *request, const void *bytes, size_t size) {
    struct reader reader = {.request = request};
    struct nn_error *err = &request->err;
    int code = read_all(&reader, bytes, size);
    api_safetensors_fini(&reader.file);
    json_decref(reader.json);
    if (!code) return reader.model;
    if (reader.model) api_model_unref(request->api, reader.model);
    if (code == NN_E_NOMEM || code == NN_E_BUSY || code == NN_E_CORRUPT) return NULL;
    struct nn_error why = *err; /* a client's fault elsewhere is damage here */
    *err = (struct nn_error){0};
    nn_fail(err, NN_E_CORRUPT, "a snapshot that does not hold: %.200s", why.text);
    return NULL;
}
