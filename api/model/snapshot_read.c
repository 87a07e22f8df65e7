/* snapshot_read.c - reads a model out of a snapshot. The file is trusted no more than a client: each claim is checked
 * against the file before memory is allocated for it. */
#include <math.h>
#include <string.h>

#include "../wire/json_read.h"
#include "../wire/record.h"
#include "../wire/safetensors.h"
#include "snapshot.h"
#include "state.h"

#define MOST ((uint64_t)API_MAX_SEED) /* the greatest count: JSON's numbers are exact up to 2^53 - 1 */

static int read_memory(struct api_source *source, void *to, size_t size, struct nn_error *err) {
    if (size > source->size) return nn_fail(err, NN_E_CORRUPT, "a snapshot that is cut off");
    memcpy(to, source->self, size);
    source->self = (char *)source->self + size;
    source->size -= size;
    return NN_OK;
}

struct api_source api_source_of(const void *bytes, size_t size) {
    return (struct api_source){(void *)(uintptr_t)bytes, size, read_memory};
}

struct reader {
    struct api_request *request;
    struct api_source *source;
    struct api_safetensors file; /* the header; the data come later */
    size_t taken;                /* the tensors that were read */
    json_t *json;                /* the metadata; owned */
    int format;
    struct api_model *model;
};

static int corrupt(struct reader *reader, const char *what, const char *name) {
    return nn_fail(&reader->request->err, NN_E_CORRUPT, "a snapshot %s \"%.100s\"", what, name);
}

/* Checks that tensor `at` of the file is named "member/slot.name", without the parts that are "", and has the
 * parameter's type and shape. */
static int check(struct reader *reader, size_t at, const struct nn_graph *graph, const char *member,
                 const char *slot, int param) {
    const struct nn_param *info = nn_graph_param(graph, param);
    char path[4 * NN_MAX_NAME];
    snprintf(path, sizeof path, "%s%s%s%s%s", member, *member ? "/" : "", slot, *slot ? "." : "", info->name);
    if (at >= reader->file.n_tensors || strcmp(reader->file.tensors[at].name, path) != 0)
        return corrupt(reader, "lacks in its place", path);
    const struct api_tensor *tensor = &reader->file.tensors[at];
    if (tensor->dtype != api_dtype_of(info->dtype) || !nn_shape_equal(&tensor->shape, &info->shape))
        return corrupt(reader, "has another type or shape for", path);
    return NN_OK;
}

/* Reads the data of the file's next tensor into `out`, once check has accepted its name. */
static int take(struct reader *reader, const char *member, const char *slot, int param, void *out) {
    const struct nn_graph *graph = reader->model->graph;
    struct nn_error *err = &reader->request->err;
    size_t bytes = nn_graph_param(graph, param)->bytes;
    if (check(reader, reader->taken, graph, member, slot, param)) return (int)err->code;
    reader->taken++;
    if (reader->source->read(reader->source, out, bytes, err)) return (int)err->code;
    const bool counts = nn_graph_param(graph, param)->dtype == NN_I64;
    if (counts && (*(int64_t *)out < 0 || (uint64_t) * (int64_t *)out > MOST))
        return corrupt(reader, "has a bad", nn_graph_param(graph, param)->name);
    return NN_OK;
}

/* Reads a count from 0 to `most`. `name` names it in the error's text. */
static int count_of(struct reader *reader, const json_t *json, const char *name, uint64_t most,
                    uint64_t *count) {
    json_int_t i = json_integer_value(json);
    if (!json_is_integer(json) || i < 0 || (uint64_t)i > most) return corrupt(reader, "has a bad", name);
    *count = (uint64_t)i;
    return NN_OK;
}

static int get_count(struct reader *reader, const json_t *object, const char *name, uint64_t most,
                     uint64_t *count) {
    return count_of(reader, json_object_get(object, name), name, most, count);
}

static int take_parameters(struct reader *reader) {
    struct api_model *model = reader->model;
    uint64_t version = 0;
    for (int i = 0; i < nn_graph_param_count(model->graph); i++)
        if (take(reader, "", "", i, nn_params_data(model->params, i))) return (int)reader->request->err.code;
    if (get_count(reader, reader->json, "version", MOST, &version)) return (int)reader->request->err.code;
    nn_params_set_version(model->params, version);
    return NN_OK;
}

/* Format 0 has "fresh" by slot: converts it to the names of all tensors of these slots. */
static json_t *fresh_of_slots(struct reader *reader) {
    const struct api_model *model = reader->model;
    const json_t *flags = json_object_get(reader->json, "fresh");
    json_t *list = json_array();
    for (int slot = 0; slot < nn_optimizer_slot_count(model->optimizer); slot++)
        for (int i = 0; i < nn_graph_param_count(model->graph); i++) {
            const struct nn_param *param = nn_graph_param(model->graph, i);
            const char *of = nn_optimizer_slot_name(model->optimizer, slot);
            if (param->kind != NN_TRAINED || !json_is_true(json_array_get(flags, (size_t)slot)) ||
                !nn_optimizer_slot_heeds_fresh(model->optimizer, slot))
                continue;
            const char *name = api_state_name(reader->request->arena, of, param->name);
            if (name && json_array_append_new(list, json_string(name)) == 0) continue;
            json_decref(list);
            return NULL;
        }
    return list;
}

static int take_progress(struct reader *reader) {
    struct api_request *request = reader->request;
    const struct api_model *model = reader->model;
    json_t *fresh =
        reader->format == 0 ? fresh_of_slots(reader) : json_incref(json_object_get(reader->json, "fresh"));
    struct api_state state;
    if (!api_state_init(&state, request->arena, model->graph, model->optimizer) ||
        (reader->format == 0 && !fresh))
        nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    else if (api_state_read(request, &state, json_object_get(reader->json, "steps"), fresh) == NN_OK)
        api_state_set(&state);
    json_decref(fresh);
    return (int)request->err.code;
}

static int take_optimizer(struct reader *reader) {
    struct api_model *model = reader->model;
    struct nn_optimizer *optimizer = model->optimizer;
    if (!optimizer) return NN_OK;
    for (int slot = 0; slot < nn_optimizer_slot_count(optimizer); slot++) {
        for (int i = 0; i < nn_graph_param_count(model->graph); i++)
            if (nn_graph_param(model->graph, i)->kind == NN_TRAINED &&
                take(reader, "optimizer", nn_optimizer_slot_name(optimizer, slot), i,
                     nn_optimizer_slot(optimizer, slot, i)))
                return (int)reader->request->err.code;
    }
    return take_progress(reader);
}

static bool is_next(const struct reader *reader, int param) {
    char path[2 * NN_MAX_NAME + 32];
    snprintf(path, sizeof path, "accumulated/%s", nn_graph_param(reader->model->graph, param)->name);
    return reader->taken < reader->file.n_tensors &&
           strcmp(reader->file.tensors[reader->taken].name, path) == 0;
}

static int take_sum(struct reader *reader) {
    struct api_request *request = reader->request;
    struct api_model *model = reader->model;
    const json_t *sum = json_object_get(reader->json, "sum");
    if (!sum) return NN_OK;
    if (get_count(reader, sum, "count", MOST, &model->sum_count) ||
        get_count(reader, sum, "oldest", nn_params_version(model->params), &model->sum_oldest))
        return (int)request->err.code;
    model->sum_scale = api_record_real(sum, "scale");
    if (!model->sum_count || !isfinite(model->sum_scale)) return corrupt(reader, "has a bad", "sum");
    if (api_make_sum(request, model)) return (int)request->err.code;
    for (int i = 0; i < nn_graph_param_count(model->graph); i++) {
        const struct nn_param *param = nn_graph_param(model->graph, i);
        if (param->kind == NN_FROZEN) continue;
        model->sum_named[i] = reader->format == 0 || is_next(reader, i);
        char *at = (char *)nn_grads_block(model->sum) + param->offset;
        if (model->sum_named[i] && take(reader, "accumulated", "", i, at)) return (int)request->err.code;
    }
    return NN_OK;
}

/* Reads 16 hexadecimal digits, such as an incarnation. Other texts are refused, because it becomes part of headers. */
static int get_hex(struct reader *reader, const char *name, char out[17]) {
    const char *text = api_record_text(reader->json, name);
    if (strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
        return corrupt(reader, "has a bad", name);
    memcpy(out, text, 17);
    return NN_OK;
}

static int take_staleness(struct reader *reader) {
    const json_t *list = json_object_get(reader->json, "staleness");
    for (size_t i = 0; i < API_STALENESS_BUCKETS; i++)
        if (count_of(reader, json_array_get(list, i), "staleness", MOST, &reader->model->staleness[i]))
            return (int)reader->request->err.code;
    return NN_OK;
}

/* Reads everything of a model that is not in its tensors. */
static int take_rest(struct reader *reader) {
    struct api_model *model = reader->model;
    const json_t *json = reader->json;
    const char *stopped = api_record_text(json, "stopped");
    if (get_hex(reader, "birth", model->birth) || get_hex(reader, "incarnation", model->incarnation) ||
        get_count(reader, json, "changes", MOST, &model->changes) || take_staleness(reader))
        return (int)reader->request->err.code;
    model->read_changes = model->changes;
    model->oldest_readable = nn_params_version(model->params);
    model->stopped = *stopped;
    model->stopped_at = *stopped ? nn_graph_param_find(model->graph, stopped) : 0;
    if (model->stopped_at < 0) return corrupt(reader, "stopped at the unknown parameter", stopped);
    model->steps = model->optimizer ? nn_optimizer_most_steps(model->optimizer) : 0;
    model->contributions = model->sum_count;
    return NN_OK;
}

/* Checks that the file has all parameters before the model is allocated, so that a damaged file cannot make it take
 * more than a small multiple of the file's size. */
static int check_parameters(struct reader *reader, const struct nn_graph *graph) {
    for (int i = 0; i < nn_graph_param_count(graph); i++)
        if (check(reader, (size_t)i, graph, "", "", i)) return (int)reader->request->err.code;
    return NN_OK;
}

/* Makes the model of the specification. The parameters are not set yet. NULL: an error, which is recorded. */
static struct api_model *make(struct reader *reader) {
    struct api_request *request = reader->request;
    json_t *specification = json_object_get(reader->json, "specification");
    const char *name = api_record_text(reader->json, "name");
    struct api_spec spec;
    struct api_model *model = NULL;
    if (!api_model_name_valid(name)) return corrupt(reader, "has the model name", name), NULL;
    if (!json_is_object(specification)) return corrupt(reader, "lacks the specification of", name), NULL;
    if (api_spec_read(request, specification, NULL, &spec)) return NULL;
    if (check_parameters(reader, spec.graph) == NN_OK)
        model = api_model_new(request, name, &spec, specification, false);
    api_spec_fini(&spec);
    return model;
}

static int read_header(struct reader *reader) {
    struct api_source *source = reader->source;
    struct nn_arena *arena = reader->request->arena;
    struct nn_error *err = &reader->request->err;
    char prefix[API_SAFETENSORS_PREFIX];
    uint64_t whole = source->size;
    size_t size;
    if (whole >= sizeof prefix && source->read(source, prefix, sizeof prefix, err)) return (int)err->code;
    if (api_safetensors_header_size(prefix, whole, &size, err)) return (int)err->code;
    char *header = nn_arena_alloc(arena, size, 1);
    if (!header) return nn_fail(err, NN_E_NOMEM, "no memory for a snapshot's header");
    if (source->read(source, header, size, err)) return (int)err->code;
    return api_safetensors_read_header(header, size, source->size, arena, &reader->file, err);
}

static int read_all(struct reader *reader) {
    struct api_request *request = reader->request;
    struct nn_error *err = &request->err;
    if (read_header(reader)) return (int)err->code;
    const char *text = api_record_text(reader->file.metadata, "gradd");
    if (!(reader->json = api_json_read(text, strlen(text), request->arena, err)) ||
        api_format_read(reader->json, "a snapshot", &reader->format, err))
        return (int)err->code;
    if (!(reader->model = make(reader))) return (int)err->code;
    if (take_parameters(reader) || take_optimizer(reader) || take_sum(reader)) return (int)err->code;
    if (reader->taken < reader->file.n_tensors)
        return corrupt(reader, "has in excess", reader->file.tensors[reader->taken].name);
    return take_rest(reader);
}

struct api_model *api_snapshot_read(struct api_request *request, struct api_source *source) {
    struct reader reader = {.request = request, .source = source};
    struct nn_error *err = &request->err;
    int code = read_all(&reader);
    api_safetensors_fini(&reader.file);
    json_decref(reader.json);
    if (!code) return reader.model;
    if (reader.model) api_model_unref(request->api, reader.model);
    if (code == NN_E_NOMEM || code == NN_E_BUSY || code == NN_E_CORRUPT || code == NN_E_STORE) return NULL;
    struct nn_error why = *err; /* in a snapshot, an error such as NN_E_SHAPE means damage */
    *err = (struct nn_error){0};
    nn_fail(err, NN_E_CORRUPT, "an invalid snapshot: %.200s", why.text);
    return NULL;
}
