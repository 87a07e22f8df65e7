/* gradients.c - /models/{m}/gradients: gradients computed elsewhere, and the accumulation buffer. */
#include <math.h>
#include <string.h>

#include "../model/bind.h"
#include "../change/condition.h"
#include "../model/model.h"
#include "../change/round.h"
#include "../change/update.h"

/* --- push ------------------------------------------------------------------------------------------- */

static int wrong(struct api_request *request, const char *member, const char *what) {
    nn_fail(&request->err, NN_E_VALUE, "\"%s\" must be %s", member, what);
    return api_point(request, member, NULL);
}

/* The version that the gradient is of: one that this incarnation has had. */
static int read_version(struct api_request *request) {
    const char *incarnation = NULL;
    int64_t version = -1;
    uint64_t now = nn_params_version(request->params);
    if (api_get_string(request, "incarnation", &incarnation) ||
        api_get_integer(request, "version", 0, INT64_MAX, &version))
        return (int)request->err.code;
    if (!incarnation) return wrong(request, "incarnation", "given: that of the parameters pulled");
    if (version < 0) return wrong(request, "version", "given: that of the parameters pulled");
    if (strcmp(incarnation, request->model->incarnation) != 0)
        return nn_fail(&request->err, NN_E_STALE, "the model's incarnation is %s; pull its parameters",
                       request->model->incarnation);
    if ((uint64_t)version > now) {
        nn_fail(&request->err, NN_E_VALUE, "the model is at version %llu only", (unsigned long long)now);
        return api_point(request, "version", NULL);
    }
    request->seen = (uint64_t)version;
    return NN_OK;
}

static int find_trainable(const struct nn_graph *graph, const char *name) {
    int param = nn_graph_param_find(graph, name);
    return param >= 0 && nn_graph_param(graph, param)->trainable ? param : -1;
}

/* The map "gradients" into request->grads; what it does not name stays untouched: request->only. */
static int read_gradients(struct api_request *request) {
    struct nn_graph *graph = request->model->graph;
    int n = nn_graph_param_count(graph), given = 0, trainable = 0;
    if (!request->doc.n_tensors) return wrong(request, "gradients", "given");
    if (api_bind_names(request, "gradients", find_trainable, graph) ||
        api_reserve(request, nn_graph_trainable_bytes(graph)))
        return (int)request->err.code;
    if (!(request->grads = nn_grads_new_unset(graph, &request->err))) return (int)request->err.code;
    bool *only = nn_arena_alloc(request->arena, (size_t)n, sizeof *only);
    if (!only) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    for (int i = 0; i < n; i++) {
        const struct nn_param *param = nn_graph_param(graph, i);
        const struct api_tensor *tensor = api_document_tensor(&request->doc, "gradients", param->name);
        trainable += param->trainable;
        if (!tensor && param->trainable)
            memset(nn_grads_data(request->grads, i), 0,
                   (size_t)param->elements * nn_dtype_size(nn_graph_dtype(graph)));
        if (!tensor) continue;
        if (api_bind(request, tensor, &param->shape, nn_graph_dtype(graph), nn_grads_data(request->grads, i)))
            return (int)request->err.code;
        only[i] = true;
        given++;
    }
    request->only = given < trainable ? only : NULL;
    return NN_OK;
}

int api_post_gradients(struct api_request *request) {
    bool apply = false, accumulate = false;
    request->lr = NAN;
    request->scale = 1;
    request->samples = 1;
    if (api_query_check(request, "") || api_read_switch(request, "apply", "lr", &apply, &request->lr) ||
        api_read_switch(request, "accumulate", "scale", &accumulate, &request->scale) ||
        api_check_lr(request, "apply") || api_read_worker(request) ||
        api_get_integer(request, "samples", 1, API_MAX_SAMPLES, &request->samples) ||
        api_read_staleness(request) || api_model_find(request, request->name))
        return (int)request->err.code;
    if (!apply && !accumulate && json_object_get(request->doc.members, "apply"))
        return wrong(request, "apply", "true, or left out: what else is to be done with it?");
    if (apply && accumulate) return wrong(request, "accumulate", "left out: the gradient is applied");
    if (!accumulate && api_check_optimizer(request)) return (int)request->err.code;
    if (read_version(request) || (!accumulate && api_round_check(request)) || read_gradients(request))
        return (int)request->err.code;
    if (api_add(request, "model", json_string(request->model->name)) ||
        api_add(request, "incarnation", json_string(request->model->incarnation)) ||
        api_add(request, "version", json_integer((json_int_t)request->seen)))
        return (int)request->err.code;
    api_request_let_go(request);
    return api_model_turn(request, accumulate ? api_turn_accumulate : api_turn_apply);
}

/* --- the accumulation buffer ------------------------------------------------------------------------ */

/* A copy, for the buffer goes on while the answer is sent. */
static int copy_sum(struct api_request *request) {
    struct api_model *model = request->model;
    if (api_reserve(request, nn_graph_trainable_bytes(model->graph))) return (int)request->err.code;
    if (!(request->grads = nn_grads_new_unset(model->graph, &request->err))) return (int)request->err.code;
    nn_grads_copy(request->grads, model->sum);
    return NN_OK;
}

static int turn_get(struct api_request *request) {
    const struct api_model *model = request->model;
    enum api_dtype as;
    if (!model->sum_count)
        return nn_fail(&request->err, NN_E_NOTHING_ACCUMULATED, "no gradient was accumulated");
    if (api_result_dtype(request, nn_graph_dtype(model->graph), &as) || copy_sum(request) ||
        api_add(request, "model", json_string(model->name)) ||
        api_add(request, "incarnation", json_string(model->incarnation)) ||
        api_add(request, "version", json_integer((json_int_t)nn_params_version(model->params))) ||
        api_add(request, "contributions", json_integer((json_int_t)model->sum_count)) ||
        api_add(request, "scale", json_real(model->sum_scale)) ||
        api_add(request, "oldest_version", json_integer((json_int_t)model->sum_oldest)))
        return (int)request->err.code;
    return api_add_gradients(request, as);
}

int api_get_gradients(struct api_request *request) {
    if (api_query_check(request, "dtype") || api_model_find(request, request->name))
        return (int)request->err.code;
    return api_model_turn(request, turn_get);
}

static int turn_delete(struct api_request *request) {
    struct api_model *model = request->model;
    if (api_add(request, "model", json_string(model->name)) ||
        api_add(request, "incarnation", json_string(model->incarnation)) ||
        api_add(request, "cleared", json_integer((json_int_t)model->sum_count)) || api_commit(request))
        return (int)request->err.code;
    api_clear_sum(request);
    return NN_OK;
}

int api_delete_gradients(struct api_request *request) {
    if (api_query_check(request, "") || api_model_find(request, request->name)) return (int)request->err.code;
    return api_model_turn(request, turn_delete);
}
