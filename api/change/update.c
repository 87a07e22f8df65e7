/* update.c - applying, accumulating, stepping, setting. */
#include "update.h"

#include <math.h>

#include "../model/bind.h"
#include "condition.h"
#include "../model/model.h"
#include "round.h"

/* The greatest learning rate, as in the optimizers' tables. */
#define MAX_LR 1e30

static int no_optimizer(struct api_request *request) {
    return nn_fail(&request->err, NN_E_NO_OPTIMIZER, "the model has no optimizer; PATCH /models/%s with one",
                   request->model->name);
}

int api_check_optimizer(struct api_request *request) {
    struct api_model_state state = api_model_state(request);
    bool has = json_is_object(json_object_get(state.spec->json, "optimizer"));
    api_model_spec_unref(state.spec);
    return has ? api_model_check_running(request) : no_optimizer(request);
}

/* A step of the optimizer to a version of its own, and the swap. `pushed`: by a gradient that is the request's, and not
 * by what was accumulated. */
static int step(struct api_request *request, struct nn_grads *grads, double scale, bool pushed) {
    struct api_model *model = request->model;
    struct nn_params *next;
    if (!model->optimizer) return no_optimizer(request);
    if (api_model_check_running(request) || api_model_next(request, &next) ||
        (pushed ? api_commit_gradient(request, grads, false) : api_commit(request)))
        return (int)request->err.code;
    if (!nn_optimizer_step_some(model->optimizer, request->only, model->params, grads, scale, request->lr,
                                next, api_parallel(request->api)))
        return api_model_stop(request, nn_params_first_nonfinite(next, api_parallel(request->api)));
    api_count_staleness(request);
    api_model_publish(request, next);
    return NN_OK;
}

int api_turn_apply(struct api_request *request) {
    if (request->model->policy.sync && !request->replay) return api_round_join(request);
    if (api_check_staleness(request, request->seen)) return (int)request->err.code;
    return step(request, request->grads, 1, true);
}

int api_add_round(struct api_request *request, int contributions, int64_t samples) {
    return api_add(request, "round",
                   json_pack("{s:i, s:I}", "contributions", contributions, "samples", (json_int_t)samples));
}

int api_turn_apply_alone(struct api_request *request, struct nn_grads *sum, int contributions,
                         int64_t samples) {
    if (nn_grads_first_nonfinite(sum, api_parallel(request->api)) >= 0)
        return nn_fail(&request->err, NN_E_NOT_FINITE,
                       "the round's gradient has overflowed; the model is unchanged");
    if (api_add_round(request, contributions, samples)) return (int)request->err.code;
    return step(request, sum, 1, true);
}

static int make_sum(struct api_request *request) {
    struct api_model *model = request->model;
    size_t bytes = nn_graph_trainable_bytes(model->graph);
    if (model->sum) return NN_OK;
    if (api_reserve(request, bytes)) return (int)request->err.code;
    if (!(model->sum = nn_grads_new(model->graph, &request->err))) return (int)request->err.code;
    api_reserve_move(request, bytes);
    model->reserved += bytes;
    return NN_OK;
}

/* What was made for a change that does not come. */
static void drop_sum(struct api_request *request) {
    struct api_model *model = request->model;
    size_t bytes = nn_graph_trainable_bytes(model->graph);
    nn_grads_free(model->sum);
    model->sum = NULL;
    model->reserved -= bytes;
    api_release(request->api, bytes);
}

int api_turn_accumulate(struct api_request *request) {
    struct api_model *model = request->model;
    double scale = model->sum_scale + request->scale;
    uint64_t count = model->sum_count + 1;
    if (!isfinite(scale)) {
        nn_fail(&request->err, NN_E_NOT_FINITE, "the scales of what was accumulated would sum to infinity");
        return api_point(request, "accumulate", "scale");
    }
    if (api_check_staleness(request, request->seen)) return (int)request->err.code;
    bool made = !model->sum;
    if (api_add(request, "accumulated",
                json_pack("{s:I, s:f}", "contributions", (json_int_t)count, "scale", scale)) ||
        make_sum(request))
        return (int)request->err.code;
    if (api_commit_gradient(request, request->grads, true)) {
        if (made) drop_sum(request);
        return (int)request->err.code;
    }
    nn_grads_add(model->sum, request->grads, request->scale, api_parallel(request->api));
    if (!model->sum_count || request->seen < model->sum_oldest) model->sum_oldest = request->seen;
    model->sum_scale = scale;
    model->sum_count = count;
    api_model_note(request);
    return NN_OK;
}

void api_clear_sum(struct api_request *request) {
    struct api_model *model = request->model;
    if (model->sum) nn_grads_clear(model->sum);
    model->sum_scale = 0;
    model->sum_count = 0;
    api_model_note(request);
}

int api_turn_step(struct api_request *request) {
    struct api_model *model = request->model;
    uint64_t count = model->sum_count;
    if (model->policy.sync)
        return nn_fail(&request->err, NN_E_NO_ROUND, "the model's updates come in rounds");
    if (!count) return nn_fail(&request->err, NN_E_NOTHING_ACCUMULATED, "no gradient was accumulated");
    if (request->mean && !isfinite(1 / model->sum_scale))
        return nn_fail(&request->err, NN_E_VALUE,
                       "the scales of what was accumulated sum to 0: there is no mean");
    request->seen = model->sum_oldest;
    if (api_check_staleness(request, request->seen)) return (int)request->err.code;
    if (nn_grads_first_nonfinite(model->sum, api_parallel(request->api)) >= 0) {
        if (api_commit(request)) return (int)request->err.code;
        api_clear_sum(request); /* it would never be finite again */
        return nn_fail(&request->err, NN_E_NOT_FINITE,
                       "the accumulated sum has overflowed; it is cleared, and the model unchanged");
    }
    if (api_add(request, "version", json_integer((json_int_t)nn_params_version(model->params))) ||
        api_add(request, "contributions", json_integer((json_int_t)count)) ||
        step(request, model->sum, request->mean ? 1 / model->sum_scale : 1, false))
        return (int)request->err.code;
    api_clear_sum(request);
    return NN_OK;
}

/* The version that a change begins with. */
static int add_version(struct api_request *request) {
    return api_add(request, "version", json_integer((json_int_t)nn_params_version(request->model->params)));
}

int api_turn_set_parameters(struct api_request *request) {
    struct nn_params *next;
    if (add_version(request) || api_model_next(request, &next)) return (int)request->err.code;
    if (request->partial) nn_params_copy(next, request->model->params);
    if (api_bind_parameters(request, next, request->partial) || api_commit(request))
        return (int)request->err.code;
    api_model_run(request);
    api_model_publish(request, next);
    return NN_OK;
}

int api_turn_blend(struct api_request *request) {
    struct nn_params *next;
    if (add_version(request) || api_model_next(request, &next)) return (int)request->err.code;
    nn_params_copy(next, request->model->params);
    nn_params_blend(next, request->params, request->tau, api_parallel(request->api));
    nn_params_unref(request->params);
    request->params = nn_params_ref(next); /* a record of it may be on its way */
    if (api_commit_parameters(request, next)) return (int)request->err.code;
    api_model_run(request);
    api_model_publish(request, next);
    return NN_OK;
}

/* --- what changes are asked with ---------------------------------------------------------------------- */

int api_read_switch(struct api_request *request, const char *member, const char *option, bool *on,
                    double *value) {
    const json_t *json = json_object_get(request->doc.members, member), *number;
    if (!json || json_is_boolean(json)) {
        *on = json_is_true(json);
        return NN_OK;
    }
    number = json_object_get(json, option);
    if (json_object_size(json) != 1 || !json_is_number(number) || !isfinite(json_number_value(number))) {
        nn_fail(&request->err, NN_E_VALUE, "\"%s\" must be true, false, or {\"%s\": a number}", member,
                option);
        return api_point(request, member, NULL);
    }
    *on = true;
    *value = json_number_value(number);
    return NN_OK;
}

int api_check_lr(struct api_request *request, const char *member) {
    if (!(request->lr < 0 || request->lr > MAX_LR)) return NN_OK; /* NaN: none was given */
    nn_fail(&request->err, NN_E_VALUE, "a learning rate is 0 to 1e30");
    return api_point(request, member, NULL);
}

int api_add_gradients(struct api_request *request, enum api_dtype as) {
    const struct nn_graph *graph = request->model ? request->model->graph : nn_params_graph(request->params);
    api_add_map(request, "gradients");
    for (int i = 0; i < nn_graph_param_count(graph); i++) {
        const struct nn_param *param = nn_graph_param(graph, i);
        if (param->trainable && api_add_tensor(request, "gradients", param->name, &param->shape,
                                               nn_graph_dtype(graph), nn_grads_data(request->grads, i), as))
            return (int)request->err.code;
    }
    return NN_OK;
}

int api_read_worker(struct api_request *request) {
    if (api_get_string(request, "worker", &request->worker)) return (int)request->err.code;
    if (!request->worker || nn_name_valid(request->worker)) return NN_OK;
    nn_fail(&request->err, NN_E_NAME, "a worker is named as layers are");
    return api_point(request, "worker", NULL);
}
