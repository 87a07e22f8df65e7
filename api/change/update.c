/* update.c - see update.h. */
#include "update.h"

#include <math.h>
#include <string.h>

#include "../model/bind.h"
#include "../model/model.h"
#include "commit.h"
#include "condition.h"
#include "round.h"
#include "takes.h"

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

/* Builds the next version by a step of the optimizer, and publishes it. `only` as in nn_optimizer_step_some. `pushed`:
 * the gradient is the request's own, and not the accumulated sum. */
static int step(struct api_request *request, struct nn_grads *grads, const bool *only, double scale,
                bool pushed) {
    struct api_model *model = request->model;
    const struct nn_parallel *par = api_parallel(request->api);
    struct nn_params *next;
    if (!model->optimizer) return no_optimizer(request);
    if (api_model_check_running(request) || api_check_takes(request, grads, scale) ||
        api_model_next(request, &next) ||
        (pushed ? api_commit_gradient(request, grads, false) : api_commit(request)))
        return (int)request->err.code;
    bool finite =
        nn_optimizer_step_some(model->optimizer, only, model->params, grads, scale, request->lr, next, par);
    if (!finite && api_takes_any(request)) finite = nn_params_first_nonfinite(next, par) < 0;
    if (!finite) return api_model_stop(request, nn_optimizer_first_nonfinite(model->optimizer, next, par));
    api_count_staleness(request);
    api_model_publish(request, next);
    return NN_OK;
}

int api_turn_apply(struct api_request *request) {
    if (request->model->policy.sync && !request->replay) return api_round_join(request);
    if (api_check_staleness(request, request->seen)) return (int)request->err.code;
    return step(request, request->grads, request->only, 1, true);
}

int api_add_round(struct api_request *request, int contributions, int64_t samples) {
    return api_add(request, "round",
                   json_pack("{s:i, s:I}", "contributions", contributions, "samples", (json_int_t)samples));
}

int api_turn_apply_alone(struct api_request *request, struct nn_grads *sum, int contributions,
                         int64_t samples) {
    if (api_add_round(request, contributions, samples)) return (int)request->err.code;
    return step(request, sum, request->only, 1, true);
}

/* Adds the names of a contribution to those of the sum. A buffer is named if batches of it were seen. */
static void name(struct api_model *model, const struct nn_grads *grads, const bool *only) {
    for (int i = 0; i < nn_graph_param_count(model->graph); i++) {
        const enum nn_kind kind = nn_graph_param(model->graph, i)->kind;
        if (kind == NN_TRAINED) model->sum_named[i] |= !only || only[i];
        if (kind == NN_BUFFER) model->sum_named[i] |= nn_grads_seen(grads, i) > 0;
    }
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
        api_make_sum(request, model))
        return (int)request->err.code;
    if (api_check_takes_sum(request) || api_commit_gradient(request, request->grads, true)) {
        if (made) api_drop_sum(request);
        return (int)request->err.code;
    }
    nn_grads_add(model->sum, request->grads, request->scale, api_parallel(request->api));
    nn_grads_follow(model->sum, request->grads);
    name(model, request->grads, request->only);
    if (!model->sum_count || request->seen < model->sum_oldest) model->sum_oldest = request->seen;
    model->sum_scale = scale;
    model->sum_count = count;
    api_model_note(request);
    return NN_OK;
}

void api_clear_sum(struct api_request *request) {
    struct api_model *model = request->model;
    if (model->sum) nn_grads_clear(model->sum);
    for (int i = 0; model->sum && i < nn_graph_param_count(model->graph); i++) model->sum_named[i] = false;
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
    if (request->ask.mean && !isfinite(1 / model->sum_scale))
        return nn_fail(&request->err, NN_E_VALUE,
                       "the scales of what was accumulated sum to 0: there is no mean");
    request->seen = model->sum_oldest;
    if (api_check_staleness(request, request->seen)) return (int)request->err.code;
    if (api_takes_any(request) && nn_grads_first_nonfinite(model->sum, api_parallel(request->api)) >= 0) {
        if (api_commit(request)) return (int)request->err.code;
        api_clear_sum(request);
        return nn_fail(&request->err, NN_E_NOT_FINITE, "the accumulated sum had overflowed");
    }
    if (api_add(request, "version", json_integer((json_int_t)nn_params_version(model->params))) ||
        api_add(request, "contributions", json_integer((json_int_t)count)) ||
        step(request, model->sum, model->sum_named, request->ask.mean ? 1 / model->sum_scale : 1, false))
        return (int)request->err.code;
    api_clear_sum(request);
    return NN_OK;
}

/* Adds "version": the version before the change. */
static int add_version(struct api_request *request) {
    return api_add(request, "version", json_integer((json_int_t)nn_params_version(request->model->params)));
}

int api_turn_set_parameters(struct api_request *request) {
    struct nn_params *next;
    if (add_version(request) || api_model_next(request, &next)) return (int)request->err.code;
    if (request->ask.partial) nn_params_copy(next, request->model->params);
    if (api_bind_parameters(request, next, request->ask.partial) || api_commit(request))
        return (int)request->err.code;
    api_model_run(request);
    api_model_publish(request, next);
    return NN_OK;
}

int api_turn_blend(struct api_request *request) {
    struct nn_params *next;
    if (add_version(request) || api_model_next(request, &next)) return (int)request->err.code;
    nn_params_copy(next, request->model->params);
    nn_params_blend(next, request->params, request->ask.tau, api_parallel(request->api));
    nn_params_unref(request->params);
    request->params = nn_params_ref(next); /* the record of it may still be on its way */
    if (api_commit_parameters(request, next)) return (int)request->err.code;
    api_model_run(request);
    api_model_publish(request, next);
    return NN_OK;
}

/* --- the answer --------------------------------------------------------------------------------------- */

/* Adds what the gradients have seen as the map "buffers", if there are buffers. */
static int add_statistics(struct api_request *request, const struct nn_graph *graph, enum api_dtype as) {
    for (int i = 0; i < nn_graph_param_count(graph); i++) {
        const struct nn_param *param = nn_graph_param(graph, i);
        if (param->kind != NN_BUFFER) continue;
        api_add_map(request, "buffers");
        if (nn_grads_seen(request->grads, i) &&
            api_add_tensor(request, "buffers", param->name, &param->shape, param->dtype,
                           nn_grads_statistic(request->grads, i), api_param_dtype(param, as)))
            return (int)request->err.code;
    }
    return NN_OK;
}

int api_add_gradients(struct api_request *request, enum api_dtype as) {
    const struct nn_graph *graph = request->model ? request->model->graph : nn_params_graph(request->params);
    api_add_map(request, "gradients");
    for (int i = 0; i < nn_graph_param_count(graph); i++) {
        const struct nn_param *param = nn_graph_param(graph, i);
        bool shown = param->kind == NN_TRAINED && (!request->only || request->only[i]);
        if (shown && api_add_tensor(request, "gradients", param->name, &param->shape, param->dtype,
                                    nn_grads_data(request->grads, i), as))
            return (int)request->err.code;
    }
    return add_statistics(request, graph, as);
}
