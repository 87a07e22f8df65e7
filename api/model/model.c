/* model.c - a model's life, its versions, and its accumulation buffer. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../request/metrics.h"
#include "../request/service.h"
#include "../wire/json_read.h"
#include "work.h"

/* --- life ------------------------------------------------------------------------------------------- */

struct api_model_spec *api_model_spec_new_take(json_t *json) {
    struct api_model_spec *spec = json ? malloc(sizeof *spec) : NULL;
    if (!spec) {
        json_decref(json);
        return NULL;
    }
    atomic_init(&spec->refs, 1);
    spec->json = json;
    return spec;
}

void api_model_spec_unref(struct api_model_spec *spec) {
    if (!spec || atomic_fetch_sub(&spec->refs, 1) != 1) return;
    json_decref(spec->json);
    free(spec);
}

void api_model_forget_past(struct api_model *model) {
    for (int i = 0; i < API_REPLAY_VERSIONS; i++) {
        nn_params_unref(model->past[i]);
        model->past[i] = NULL;
    }
}

void api_model_unref(struct api *api, struct api_model *model) {
    if (!model || atomic_fetch_sub(&model->refs, 1) != 1) return;
    for (int i = 0; i < model->n_blocks; i++) nn_params_unref(model->blocks[i]);
    nn_optimizer_free(model->optimizer);
    nn_grads_free(model->sum);
    free(model->sum_named);
    api_model_forget_past(model);
    nn_graph_unref(model->graph);
    api_model_spec_unref(model->spec);
    api_release(api, model->reserved);
    free(model);
}

/* Moves bytes of the request's reservation to the model. */
static void keep(struct api_request *request, struct api_model *model, size_t bytes) {
    api_reserve_move(request, bytes);
    model->reserved += bytes;
}

/* The bytes of a model beside its graph and its numbers: the specification, and room for what patches may add to it. */
static size_t overhead(const json_t *json) { return sizeof(struct api_model) + api_json_bytes(json) + 8192; }

static struct api_model_size measure(const struct nn_graph *graph) {
    struct api_model_size size = {.values = nn_graph_value_count(graph),
                                  .params = nn_graph_param_count(graph),
                                  .work = nn_graph_work(graph)};
    for (int i = 0; i < size.values; i++) {
        struct nn_value_info value = nn_graph_value(graph, i);
        *(value.rows ? &size.numbers_of_values.a_row : &size.numbers_of_values.once) +=
            (double)nn_shape_elements(&value.shape);
    }
    for (int i = 0; i < size.params; i++) size.numbers += (double)nn_graph_param(graph, i)->elements;
    return size;
}

/* Makes the first version and the optimizer. */
static int fill(struct api_request *request, struct api_model *model, const struct api_spec *spec,
                bool draw) {
    struct nn_error *err = &request->err;
    if (!(model->blocks[0] = nn_params_new_unset(model->graph, err))) return (int)err->code;
    model->n_blocks = 1;
    model->params = model->blocks[0];
    if (draw) nn_params_init(model->params, model->seed);
    if (!spec->optimizer) return NN_OK;
    model->optimizer = (draw ? nn_optimizer_new : nn_optimizer_new_unset)(model->graph, spec->optimizer,
                                                                          spec->optimizer_attrs, err);
    if (model->optimizer) {
        model->size.step = nn_optimizer_work(model->optimizer);
        return NN_OK;
    }
    return api_point(request, "optimizer", err->member[0] ? err->member : NULL);
}

int api_model_draw_incarnation(struct api_request *request, struct api_model *model) {
    uint64_t incarnation;
    if (api_random(request, &incarnation)) return (int)request->err.code;
    snprintf(model->incarnation, sizeof model->incarnation, "%016llx", (unsigned long long)incarnation);
    return NN_OK;
}

/* Sets incarnation, birth, seed and specification. */
static int identify(struct api_request *request, struct api_model *model, const struct api_spec *spec,
                    const json_t *json, bool draw) {
    uint64_t seed = 0;
    if (draw && (api_model_draw_incarnation(request, model) || api_random(request, &seed)))
        return (int)request->err.code;
    memcpy(model->birth, model->incarnation, sizeof model->birth);
    model->seed = spec->has_seed ? spec->seed : seed & (uint64_t)API_MAX_SEED;
    model->spec = api_model_spec_new_take(json_deep_copy(json));
    int failed =
        !model->spec || json_object_set_new(model->spec->json, "seed", json_integer((json_int_t)model->seed));
    if (!failed && request->api->env.store)
        failed = json_object_set_new(model->spec->json, "durability",
                                     json_string(api_durability_name(spec->policy.durability)));
    return failed ? nn_fail(&request->err, NN_E_NOMEM, "memory is out") : NN_OK;
}

struct api_model *api_model_new(struct api_request *request, const char *name, const struct api_spec *spec,
                                const json_t *json, bool draw) {
    size_t bytes = overhead(json) + nn_graph_param_bytes(spec->graph), optimizer_bytes = 0;
    if (spec->optimizer)
        optimizer_bytes = nn_optimizer_bytes(spec->graph, spec->optimizer, spec->optimizer_attrs);
    if (draw &&
        api_work(request, nn_graph_work(spec->graph).draw + api_work_of_bytes(spec->graph, optimizer_bytes)))
        return NULL;
    if (api_reserve(request, bytes + optimizer_bytes)) return NULL;
    struct api_model *model = calloc(1, sizeof *model);
    if (!model) return nn_fail(&request->err, NN_E_NOMEM, "memory is out"), NULL;
    atomic_init(&model->refs, 1);
    keep(request, model, bytes + optimizer_bytes + spec->bytes);
    model->optimizer_bytes = optimizer_bytes;
    model->durable_version = -1;
    model->policy = spec->policy;
    snprintf(model->name, sizeof model->name, "%s", name);
    model->graph = nn_graph_ref(spec->graph);
    model->size = measure(spec->graph);
    if (identify(request, model, spec, json, draw) == NN_OK && fill(request, model, spec, draw) == NN_OK)
        return model;
    api_model_unref(request->api, model);
    return NULL;
}

/* --- versions --------------------------------------------------------------------------------------- */

/* A block that nobody reads; or a new one, which belongs to the request until it is published. */
static struct nn_params *spare_block(struct api_request *request) {
    struct api_model *model = request->model;
    for (int i = 0; i < model->n_blocks; i++)
        if (model->blocks[i] != model->params && nn_params_unshared(model->blocks[i]))
            return model->blocks[i];
    if (model->n_blocks == API_MAX_VERSIONS) {
        nn_fail(&request->err, NN_E_BUSY, "%d versions of this model are being read", API_MAX_VERSIONS);
        return NULL;
    }
    if (api_reserve(request, nn_graph_param_bytes(model->graph))) return NULL;
    return request->fresh = nn_params_new_unset(model->graph, &request->err);
}

int api_model_next(struct api_request *request, struct nn_params **next) {
    uint64_t version = nn_params_version(request->model->params) + 1;
    if (!(*next = spare_block(request))) return (int)request->err.code;
    nn_params_set_version(*next, version);
    request->makes = true;
    request->made = version;
    return api_add(request, "applied_version", json_integer((json_int_t)version));
}

void api_model_note(struct api_request *request) {
    struct api_model *model = request->model;
    pthread_mutex_lock(&request->api->lock);
    model->steps = model->optimizer ? nn_optimizer_most_steps(model->optimizer) : 0;
    model->contributions = model->sum_count;
    pthread_mutex_unlock(&request->api->lock);
}

void api_model_trim(struct api *api, struct api_model *model) {
    bool spare = false;
    for (int i = 0; i < model->n_blocks;) {
        struct nn_params *block = model->blocks[i];
        if (block == model->params || !nn_params_unshared(block) || !spare) {
            spare |= block != model->params && nn_params_unshared(block);
            i++;
            continue;
        }
        size_t bytes = nn_graph_param_bytes(model->graph);
        nn_params_unref(block);
        model->blocks[i] = model->blocks[--model->n_blocks];
        model->reserved -= bytes;
        api_release(api, bytes);
    }
}

/* While recovering: keeps the version that a change replaces, because later records may have read it. */
static void keep_past(struct api_model *model) {
    nn_params_unref(model->past[API_REPLAY_VERSIONS - 1]);
    memmove(model->past + 1, model->past, (API_REPLAY_VERSIONS - 1) * sizeof *model->past);
    model->past[0] = nn_params_ref(model->params);
}

void api_model_publish(struct api_request *request, struct nn_params *next) {
    struct api_model *model = request->model;
    if (atomic_load(&request->api->recovering)) keep_past(model);
    if (next == request->fresh) {
        request->fresh = NULL;
        keep(request, model, nn_graph_param_bytes(model->graph));
        model->blocks[model->n_blocks++] = next;
    }
    pthread_mutex_lock(&request->api->lock);
    model->params = next;
    pthread_mutex_unlock(&request->api->lock);
    api_count_version(request->api);
    api_model_trim(request->api, model);
    api_model_note(request);
}

void api_model_set_optimizer_take(struct api_request *request, struct nn_optimizer *optimizer, size_t bytes,
                                  size_t more, struct api_model_spec *spec) {
    struct api_model *model = request->model;
    size_t less = model->optimizer_bytes + more - bytes;
    if (optimizer != model->optimizer) nn_optimizer_free(model->optimizer);
    keep(request, model, more);
    model->reserved -= less;
    api_release(request->api, less);
    model->optimizer_bytes = bytes;
    model->optimizer = optimizer;
    pthread_mutex_lock(&request->api->lock);
    model->size.step = optimizer ? nn_optimizer_work(optimizer) : 0;
    struct api_model_spec *old = model->spec;
    model->spec = spec;
    pthread_mutex_unlock(&request->api->lock);
    api_model_spec_unref(old);
    api_model_note(request);
}

struct api_model_state api_model_state(struct api_request *request) {
    struct api_model *model = request->model;
    pthread_mutex_lock(&request->api->lock);
    struct api_model_state state = {model->spec,
                                    nn_params_version(model->params),
                                    model->steps,
                                    model->contributions,
                                    model->durable_version,
                                    model->policy.durability,
                                    model->stopped,
                                    model->stopped_at};
    atomic_fetch_add(&state.spec->refs, 1);
    pthread_mutex_unlock(&request->api->lock);
    return state;
}

int api_model_stop(struct api_request *request, int param) {
    struct api_model *model = request->model;
    pthread_mutex_lock(&request->api->lock);
    model->stopped = true;
    model->stopped_at = param;
    pthread_mutex_unlock(&request->api->lock);
    api_model_note(request);
    return nn_fail(&request->err, NN_E_NOT_FINITE,
                   "the step made \"%s\", or the optimizer's state of it, infinite or NaN; the model is "
                   "stopped at version %llu, "
                   "with the optimizer one step ahead: restore a snapshot, or set parameters and that state",
                   nn_graph_param(model->graph, param)->name,
                   (unsigned long long)nn_params_version(model->params));
}

int api_model_check_running(struct api_request *request) {
    struct api_model *model = request->model;
    pthread_mutex_lock(&request->api->lock);
    bool stopped = model->stopped;
    int param = model->stopped_at;
    pthread_mutex_unlock(&request->api->lock);
    if (!stopped) return NN_OK;
    return nn_fail(
        &request->err, NN_E_STOPPED,
        "a step made \"%s\", or the optimizer's state of it, infinite or NaN: restore a snapshot, or set "
        "parameters and that state",
        nn_graph_param(model->graph, param)->name);
}

void api_model_run(struct api_request *request) {
    pthread_mutex_lock(&request->api->lock);
    request->model->stopped = false;
    pthread_mutex_unlock(&request->api->lock);
}

/* --- the accumulation buffer ----------------------------------------------------------------------- */

static size_t sum_bytes(const struct nn_graph *graph) {
    return nn_graph_gradient_bytes(graph) + (size_t)nn_graph_param_count(graph);
}

int api_make_sum(struct api_request *request, struct api_model *model) {
    size_t bytes = sum_bytes(model->graph);
    if (model->sum) return NN_OK;
    if (api_reserve(request, bytes)) return (int)request->err.code;
    bool *named = calloc((size_t)nn_graph_param_count(model->graph) + 1, sizeof *named);
    if (!named) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    if (!(model->sum = nn_grads_new(model->graph, &request->err))) {
        free(named);
        return (int)request->err.code;
    }
    model->sum_named = named;
    api_reserve_move(request, bytes);
    model->reserved += bytes;
    return NN_OK;
}

void api_drop_sum(struct api_request *request) {
    struct api_model *model = request->model;
    size_t bytes = sum_bytes(model->graph);
    nn_grads_free(model->sum);
    free(model->sum_named);
    model->sum = NULL;
    model->sum_named = NULL;
    model->reserved -= bytes;
    api_release(request->api, bytes);
}
