/* models.c - /models: create, list, describe, patch, remove. */
#include <stdio.h>
#include <string.h>

#include "../change/commit.h"
#include "../change/condition.h"
#include "../change/registration.h"
#include "../change/round.h"
#include "../change/turns.h"
#include "../model/model.h"
#include "../model/registry.h"
#include "../model/snapshot.h"
#include "../model/work.h"
#include "../pass/coalesce.h"
#include "../request/service.h"
#include "../wire/json_build.h"
#include "../wire/json_read.h"

static json_t *shape_json(const struct nn_shape *shape) {
    json_t *list = json_array();
    for (int i = 0; i < shape->rank; i++) list = api_json_append(list, json_integer(shape->dim[i]));
    return list;
}

static json_t *parameter_json(const struct nn_param *param) {
    json_t *json = json_pack("{s:s, s:o, s:b}", "name", param->name, "shape", shape_json(&param->shape),
                             "trainable", param->kind == NN_TRAINED);
    if (param->kind != NN_BUFFER) return json;
    json = api_json_with(json, "buffer", json_true());
    return api_json_with(json, "dtype", json_string(nn_dtype_name(param->dtype)));
}

static json_t *parameters_json(const struct nn_graph *graph) {
    json_t *list = json_array();
    for (int i = 0; i < nn_graph_param_count(graph); i++)
        list = api_json_append(list, parameter_json(nn_graph_param(graph, i)));
    return list;
}

static json_t *value_json(const struct nn_value_info *value) {
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:o}", "name", value->name, "op", value->op ? value->op->name : "input",
                  "dtype", nn_dtype_name(value->dtype), "shape", shape_json(&value->shape));
    return value->rows ? json : api_json_with(json, "rows", json_false());
}

static json_t *values_json(const struct nn_graph *graph) {
    json_t *list = json_array();
    for (int i = 0; i < nn_graph_value_count(graph); i++) {
        const struct nn_value_info value = nn_graph_value(graph, i);
        list = api_json_append(list, value_json(&value));
    }
    return list;
}

static json_t *outputs_json(const struct nn_graph *graph) {
    json_t *list = json_array();
    for (int i = 0; i < nn_graph_output_count(graph); i++)
        list = api_json_append(list, json_string(nn_graph_value(graph, nn_graph_output(graph, i)).name));
    return list;
}

static int64_t count_numbers(const struct nn_graph *graph) {
    int64_t n = 0;
    for (int i = 0; i < nn_graph_param_count(graph); i++) n += nn_graph_param(graph, i)->elements;
    return n;
}

/* Adds the state that changes from moment to moment: the round, the staleness of gradients, the batches of forwards. */
static int add_moment(struct api_request *request, const struct api_policy *policy) {
    const struct api_model *model = request->model;
    pthread_mutex_lock(&request->api->lock);
    if (!policy) policy = &model->policy;
    json_t *round = policy->sync ? api_round_json(request->api, model, policy) : json_null();
    json_t *staleness = api_staleness_json(model);
    json_t *coalescing = api_coalesce_json(request->api, model, policy);
    pthread_mutex_unlock(&request->api->lock);
    int failed = api_add(request, "round", round);
    failed |= api_add(request, "staleness", staleness);
    return api_add(request, "coalescing", coalescing) || failed;
}

#define SHOWN_SNAPSHOTS 100
#define A_PART          2048 /* an upper bound of the bytes of a node, a parameter or a snapshot in a description */

/* Adds the model's durability and the snapshots that could be restored. Adds nothing without a store. */
static int add_stored(struct api_request *request, const struct api_model_state *state) {
    const struct api_store *store = request->api->env.store;
    const struct api_model *model = request->model;
    struct api_stored stored[SHOWN_SNAPSHOTS];
    bool none = state->durability == API_DURABLE_NONE || state->durable_version < 0;
    if (!store) return NN_OK;
    size_t n = store->list(store->self, model->name, model->birth, stored, SHOWN_SNAPSHOTS);
    if (api_count(request, n * A_PART)) return (int)request->err.code;
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        list = api_json_append(list, json_pack("{s:I, s:I}", "version", (json_int_t)stored[i].version,
                                               "time_ms", (json_int_t)stored[i].time_ms));
    int failed =
        api_add(request, "durable_version", none ? json_null() : json_integer(state->durable_version));
    return api_add(request, "snapshots", list) || failed;
}

/* Describes request->model in this state. `policy` NULL: its own policy. */
static int describe_state(struct api_request *request, struct api_model_state state,
                          const struct api_policy *policy) {
    const struct api_model *model = request->model;
    size_t parts = (size_t)nn_graph_value_count(model->graph) + (size_t)nn_graph_param_count(model->graph);
    int failed = api_count(request, parts * A_PART + api_json_bytes(state.spec->json));
    if (failed) return failed;
    failed |= api_add(request, "name", json_string(model->name));
    failed |= api_add(request, "incarnation", json_string(model->incarnation));
    failed |= api_add(request, "version", json_integer((json_int_t)state.version));
    failed |= api_add(request, "seed", json_integer((json_int_t)model->seed));
    failed |= api_add(request, "dtype", json_string(nn_dtype_name(nn_graph_dtype(model->graph))));
    failed |= api_add(request, "numbers", json_integer(count_numbers(model->graph)));
    failed |= api_add(request, "nodes", values_json(model->graph));
    failed |= api_add(request, "outputs", outputs_json(model->graph));
    failed |= api_add(request, "parameters", parameters_json(model->graph));
    failed |= api_add(request, "steps", json_integer((json_int_t)state.steps));
    failed |= api_add(request, "accumulated", json_integer((json_int_t)state.contributions));
    failed |= api_add(request, "stopped",
                      state.stopped ? json_string(nn_graph_param(model->graph, state.stopped_at)->name)
                                    : json_null());
    failed |= add_moment(request, policy);
    failed |= add_stored(request, &state);
    failed |= api_add(request, "specification", json_deep_copy(state.spec->json));
    return failed ? (int)request->err.code : NN_OK;
}

static int describe(struct api_request *request, uint64_t *version) {
    struct api_model_state state = api_model_state(request);
    int code = describe_state(request, state, NULL);
    api_model_spec_unref(state.spec);
    *version = state.version;
    return code;
}

int api_get_models(struct api_request *request) {
    json_t *list = json_array();
    if (api_models_list(request, list)) {
        json_decref(list);
        return (int)request->err.code;
    }
    return api_add(request, "models", list) ? (int)request->err.code : api_check_conditions(request, NULL, 0);
}

/* The model is in the registry already, so that no other request takes its name while the creation is recorded. */
static int turn_create(struct api_request *request) {
    if (api_commit(request)) api_model_remove(request, NN_E_NOT_FOUND);
    return (int)request->err.code;
}

int api_post_models(struct api_request *request) {
    struct api_spec spec;
    uint64_t first;
    const char *name = request->ask.name;
    if (!api_model_name_valid(name)) {
        nn_fail(&request->err, NN_E_NAME,
                "\"name\" has 1 to %d characters of A-Z a-z 0-9 . _ -, the first a letter or digit",
                API_MAX_MODEL_NAME);
        return api_point(request, "name", NULL);
    }
    if (strlen(name) > (size_t)request->api->settings.limits.name) {
        nn_fail(&request->err, NN_E_NAME, "a name has at most %d bytes here",
                request->api->settings.limits.name);
        return api_point(request, "name", NULL);
    }
    if (api_token_may_create(request, name)) return api_point(request, "name", NULL);
    if (api_spec_read(request, request->doc.members, NULL, &spec)) return (int)request->err.code;
    if (api_coalesce_check(request, spec.graph, &spec.policy) == NN_OK)
        request->model = api_model_new(request, name, &spec, request->doc.members, true);
    api_spec_fini(&spec);
    if (request->err.code) return (int)request->err.code;
    request->answer.status = 201;
    snprintf(request->answer.location, sizeof request->answer.location, "/models/%s", name);
    if (describe(request, &first)) return (int)request->err.code;
    return api_model_register(request, turn_create);
}

int api_get_model(struct api_request *request) {
    uint64_t version;
    if (api_model_find(request, request->name) || describe(request, &version)) return (int)request->err.code;
    return api_check_conditions(request, request->model, version);
}

static int turn_delete(struct api_request *request) {
    request->unstores = true;
    if (api_commit(request)) return (int)request->err.code;
    api_model_remove(request, NN_E_NOT_FOUND);
    return api_model_farewell(request);
}

int api_delete_model(struct api_request *request) {
    if (api_model_find(request, request->name) || api_add(request, "deleted", json_string(request->name)))
        return (int)request->err.code;
    return api_model_turn(request, turn_delete);
}

/* --- changing hyper-parameters ----------------------------------------------------------------------- */

/* JSON Merge Patch (RFC 7396, section 2): null removes, objects merge, everything else replaces. NULL: memory is
 * out. */
static json_t *merge_patch(const json_t *target, const json_t *patch) {
    const char *name;
    json_t *value;
    if (!json_is_object(patch)) return json_deep_copy(patch);
    json_t *merged = json_is_object(target) ? json_deep_copy(target) : json_object();
    json_object_foreach((json_t *)patch, name, value) {
        if (json_is_null(value)) {
            json_object_del(merged, name);
        } else if (json_object_set_new(merged, name, merge_patch(json_object_get(merged, name), value))) {
            json_decref(merged);
            return NULL;
        }
    }
    return merged;
}

/* A patch, made ready before anything changes. */
struct patch {
    struct api_model_spec *spec;
    struct api_policy policy;
    bool keeps;                         /* the model keeps its optimizer, */
    struct nn_optimizer_change *change; /* with these attributes; */
    struct nn_optimizer *optimizer;     /* or gets this one; NULL: none */
    size_t bytes, more; /* the bytes of the optimizer, and those to be added to the model's reservation */
};

/* Makes the optimizer that the specification asks for: none, the present one with other attributes, or another. */
static int make_optimizer(struct api_request *request, struct patch *patch) {
    struct api_model *model = request->model;
    struct nn_error *err = &request->err;
    const json_t *json = json_object_get(patch->spec->json, "optimizer");
    const struct nn_def *def = NULL;
    const struct nn_attrs *attrs = NULL;
    if (!json || json_is_null(json)) return NN_OK;
    if (api_spec_optimizer(request, json, NULL, &def, &attrs)) return (int)err->code;
    patch->keeps = model->optimizer && nn_optimizer_definition(model->optimizer) == def;
    patch->bytes = nn_optimizer_bytes(model->graph, def, attrs);
    patch->more = patch->keeps ? nn_optimizer_change_bytes(model->optimizer, attrs) : patch->bytes;
    if (api_work(request, api_work_of_bytes(model->graph, patch->more)) || api_reserve(request, patch->more))
        return (int)err->code;
    if (patch->keeps)
        patch->change = nn_optimizer_change_new(model->optimizer, attrs, err);
    else
        patch->optimizer = nn_optimizer_new(model->graph, def, attrs, err);
    return err->code ? api_point(request, "optimizer", err->member[0] ? err->member : NULL) : NN_OK;
}

/* Adds the description of the model as the patch will make it. */
static int describe_patched(struct api_request *request, const struct patch *patch) {
    struct api_model_state state = api_model_state(request);
    api_model_spec_unref(state.spec);
    state.spec = patch->spec;
    state.durability = patch->policy.durability;
    request->unstores = patch->policy.durability == API_DURABLE_NONE;
    if (!patch->keeps) state.steps = 0;
    return describe_state(request, state, &patch->policy);
}

/* While the durability is being raised, a checkpoint must take a snapshot of the model: it drops the records that come
 * before. */
static void set_raising(struct api_request *request, bool raising) {
    pthread_mutex_lock(&request->api->lock);
    request->model->raising = raising;
    pthread_mutex_unlock(&request->api->lock);
}

/* Records the state of a model that was not stored, before the changes that follow. */
static int raise_durability(struct api_request *request, const struct patch *patch) {
    struct api_model *model = request->model;
    if (request->quiet || patch->policy.durability <= model->policy.durability) return NN_OK;
    request->raised = (int)patch->policy.durability;
    set_raising(request, true);
    struct api_snapshot *state = api_snapshot_make(request, model);
    model->oldest_readable = nn_params_version(model->params);
    return state ? api_append_state_take(request, state) : (int)request->err.code;
}

/* A round that waits ends with an error, because its contributions were made under the old policy. */
static void set_policy(struct api_request *request, const struct api_policy *policy) {
    static const struct nn_error never = {.code = NN_E_STORE, .text = "the model is stored no more"};
    struct api_model *model = request->model;
    if (json_object_get(request->doc.members, "aggregation"))
        api_round_fail(request->api, model, NN_E_ROUND_FAILED,
                       "the model's aggregation was changed meanwhile");
    pthread_mutex_lock(&request->api->lock);
    model->policy = *policy;
    if (policy->durability == API_DURABLE_NONE) {
        model->durable_version = -1;
        model->lowerings++;
    }
    pthread_mutex_unlock(&request->api->lock);
    if (policy->durability == API_DURABLE_NONE) api_end_waiting(request->api, model, UINT64_MAX, &never);
}

static void adopt(struct api_request *request, struct patch *patch) {
    struct nn_optimizer *optimizer = patch->keeps ? request->model->optimizer : patch->optimizer;
    if (patch->keeps) nn_optimizer_configure_take(optimizer, patch->change);
    api_model_set_optimizer_take(request, optimizer, patch->bytes, patch->more, patch->spec);
    set_policy(request, &patch->policy);
}

static int patch_model(struct api_request *request) {
    struct patch patch = {0};
    size_t bytes = api_json_bytes(request->model->spec->json) + api_json_bytes(request->doc.members);
    if (api_count(request, bytes)) return (int)request->err.code;
    patch.spec = api_model_spec_new_take(merge_patch(request->model->spec->json, request->doc.members));
    if (!patch.spec) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    if (api_spec_policy(request, patch.spec->json, NULL, &patch.policy) == NN_OK &&
        api_coalesce_check(request, request->model->graph, &patch.policy) == NN_OK &&
        make_optimizer(request, &patch) == NN_OK && describe_patched(request, &patch) == NN_OK &&
        raise_durability(request, &patch) == NN_OK && api_commit(request) == NN_OK) {
        adopt(request, &patch);
        return NN_OK;
    }
    nn_optimizer_change_free(patch.change);
    nn_optimizer_free(patch.optimizer);
    api_model_spec_unref(patch.spec);
    return (int)request->err.code;
}

static int turn_patch(struct api_request *request) {
    int code = patch_model(request);
    if (request->raised) set_raising(request, false);
    return code;
}

/* True if any optimizer has this attribute: the model's optimizer may be another when the patch is applied. */
static bool is_of_some_optimizer(const char *name) {
    const struct nn_def *def;
    for (int i = 0; (def = nn_optimizer_def(i)); i++)
        if (api_spec_has_attr(def, name)) return true;
    return strcmp(name, "op") == 0;
}

static bool is_of_an_aggregation(const char *name) { return api_among(API_AGGREGATION, name, strlen(name)); }

/* Checks the names of members that a null removes. Other values are checked when the patch is merged. */
static int check_removals(struct api_request *request, const char *member, bool (*known)(const char *name)) {
    const json_t *patch = json_object_get(request->doc.members, member);
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)patch, name, value) {
        if (!json_is_null(value) || known(name) || request->replay) continue; /* earlier releases took them */
        nn_fail(&request->err, NN_E_UNKNOWN_MEMBER, "nothing that \"%s\" may be has a \"%.60s\"", member,
                name);
        return api_point(request, member, name);
    }
    return NN_OK;
}

int api_patch_model(struct api_request *request) {
    const json_t *optimizer = json_object_get(request->doc.members, "optimizer");
    if (api_model_find(request, request->name)) return (int)request->err.code;
    if (optimizer && !json_is_object(optimizer) && !json_is_null(optimizer)) {
        nn_fail(&request->err, NN_E_VALUE, "\"optimizer\" must be an object, or null for none");
        return api_point(request, "optimizer", NULL);
    }
    if (check_removals(request, "optimizer", is_of_some_optimizer) ||
        check_removals(request, "aggregation", is_of_an_aggregation))
        return (int)request->err.code;
    return api_model_turn(request, turn_patch);
}
