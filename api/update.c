/* update.c - applying, accumulating, stepping, setting. */
#include "update.h"

#include <math.h>

#include "model.h"
#include "pass.h"

static int no_optimizer(struct api_request *request) {
    return nn_fail(&request->err, NN_E_NO_OPTIMIZER, "the model has no optimizer; PATCH /models/%s with one",
                   request->model->name);
}

int api_check_optimizer(struct api_request *request) {
    struct api_model_state state = api_model_state(request);
    bool has = json_is_object(json_object_get(state.spec->json, "optimizer"));
    api_model_spec_unref(state.spec);
    return has ? NN_OK : no_optimizer(request);
}

/* A step of the optimizer to a version of its own, and the swap. */
static int step(struct api_request *request, const struct nn_grads *grads, double scale) {
    struct api_model *model = request->model;
    struct nn_params *next;
    if (!model->optimizer) return no_optimizer(request);
    if (api_model_next(request, &next) || api_answer_ready(request)) return (int)request->err.code;
    nn_optimizer_step(model->optimizer, model->params, grads, scale, request->lr, next,
                      api_parallel(request->api));
    api_model_publish(request, next);
    return NN_OK;
}

int api_turn_apply(struct api_request *request) { return step(request, request->grads, 1); }

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

int api_turn_accumulate(struct api_request *request) {
    struct api_model *model = request->model;
    double scale = model->sum_scale + request->scale;
    uint64_t count = model->sum_count + 1;
    if (!isfinite(scale)) {
        nn_fail(&request->err, NN_E_NOT_FINITE, "the scales of what was accumulated would sum to infinity");
        return api_point(request, "accumulate", "scale");
    }
    if (api_add(request, "accumulated",
                json_pack("{s:I, s:f}", "contributions", (json_int_t)count, "scale", scale)) ||
        api_answer_ready(request) || make_sum(request))
        return (int)request->err.code;
    nn_grads_add(model->sum, request->grads, request->scale, api_parallel(request->api));
    model->sum_scale = scale;
    model->sum_count = count;
    api_model_note(request);
    return NN_OK;
}

static void clear_sum(struct api_request *request) {
    struct api_model *model = request->model;
    nn_grads_clear(model->sum);
    model->sum_scale = 0;
    model->sum_count = 0;
    api_model_note(request);
}

int api_turn_step(struct api_request *request) {
    struct api_model *model = request->model;
    uint64_t count = model->sum_count;
    if (!count) return nn_fail(&request->err, NN_E_NOTHING_ACCUMULATED, "no gradient was accumulated");
    if (request->mean && !isfinite(1 / model->sum_scale))
        return nn_fail(&request->err, NN_E_VALUE,
                       "the scales of what was accumulated sum to 0: there is no mean");
    if (nn_grads_first_nonfinite(model->sum, api_parallel(request->api)) >= 0) {
        clear_sum(request); /* it would never be finite again */
        return nn_fail(&request->err, NN_E_NOT_FINITE,
                       "the accumulated sum has overflowed; it is cleared, and the model unchanged");
    }
    if (api_add(request, "version", json_integer((json_int_t)nn_params_version(model->params))) ||
        api_add(request, "contributions", json_integer((json_int_t)count)) ||
        step(request, model->sum, request->mean ? 1 / model->sum_scale : 1))
        return (int)request->err.code;
    clear_sum(request);
    return NN_OK;
}

int api_turn_set_parameters(struct api_request *request) {
    struct nn_params *next;
    if (api_model_next(request, &next)) return (int)request->err.code;
    nn_params_copy(next, request->model->params);
    if (api_bind_parameters(request, next, request->partial) || api_answer_ready(request))
        return (int)request->err.code;
    api_model_publish(request, next);
    return NN_OK;
}
