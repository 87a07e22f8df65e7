/* gradients.c - /models/{m}/gradients: push gradients that were computed elsewhere; the accumulation buffer. */
#include <string.h>

#include "../change/commit.h"
#include "../change/condition.h"
#include "../change/finish.h"
#include "../change/round.h"
#include "../change/turns.h"
#include "../change/update.h"
#include "../model/bind.h"
#include "../model/model.h"
#include "../model/registry.h"
#include "../model/work.h"

/* --- push ------------------------------------------------------------------------------------------- */

/* Sets request->seen: a version that this incarnation has had. */
static int read_version(struct api_request *request) {
    const uint64_t now = nn_params_version(request->params), version = (uint64_t)request->ask.version;
    if (strcmp(request->ask.incarnation, request->model->incarnation) != 0)
        return nn_fail(&request->err, NN_E_STALE, "the model's incarnation is %s; pull its parameters",
                       request->model->incarnation);
    if (version > now) {
        nn_fail(&request->err, NN_E_VALUE, "the model is at version %llu only", (unsigned long long)now);
        return api_point(request, "version", NULL);
    }
    request->seen = version;
    return NN_OK;
}

static int find_trained(const struct nn_graph *graph, const char *name) {
    int param = nn_graph_param_find(graph, name);
    return param >= 0 && nn_graph_param(graph, param)->kind == NN_TRAINED ? param : -1;
}

static int find_buffer(const struct nn_graph *graph, const char *name) {
    int param = nn_graph_param_find(graph, name);
    return param >= 0 && nn_graph_param(graph, param)->kind == NN_BUFFER ? param : -1;
}

/* Converts the map "buffers" into the statistics of request->grads. A layer's are given together. */
static int read_statistics(struct api_request *request) {
    const struct nn_graph *graph = request->model->graph;
    if (api_bind_names(request, "buffers", find_buffer, graph)) return (int)request->err.code;
    for (int i = 0; i < nn_graph_param_count(graph); i++) {
        const struct nn_param *param = nn_graph_param(graph, i);
        const struct api_tensor *tensor = api_document_tensor(&request->doc, "buffers", param->name);
        if (tensor && api_bind_param(request, tensor, param, nn_grads_statistic(request->grads, i)))
            return (int)request->err.code;
    }
    for (int i = 0; i < nn_graph_param_count(graph); i++) {
        const struct nn_param *param = nn_graph_param(graph, i);
        if (param->kind != NN_BUFFER) continue;
        const bool given = api_document_tensor(&request->doc, "buffers", param->name) != NULL;
        if (given == (nn_grads_seen(request->grads, i) > 0)) continue;
        nn_fail(&request->err, NN_E_VALUE,
                given ? "the statistics of \"%s\" need the number of batches that they are of, 1 or more"
                      : "\"%s\" is missing: a layer's statistics are given together",
                param->name);
        return api_point(request, "buffers", given ? param->name : NULL);
    }
    return NN_OK;
}

static bool has_tensor(const struct api_request *request, const char *map) {
    for (size_t i = 0; i < request->doc.n_tensors; i++)
        if (strcmp(request->doc.tensors[i].member, map) == 0) return true;
    return false;
}

/* Converts the map "gradients" into request->grads. request->only tells which parameters it names; NULL: all. */
static int read_gradients(struct api_request *request) {
    struct nn_graph *graph = request->model->graph;
    int n = nn_graph_param_count(graph), given = 0, trained = 0;
    if (!has_tensor(request, "gradients"))
        return api_ask_wrong(request, API_MEMBER_OF_gradients, "a map of at least one tensor");
    if (api_bind_owned_names(request, "gradients", graph) ||
        api_bind_names(request, "gradients", find_trained, graph) ||
        api_reserve(request, nn_graph_gradient_bytes(graph)))
        return (int)request->err.code;
    if (!(request->grads = nn_grads_new_unset(graph, &request->err))) return (int)request->err.code;
    bool *only = nn_arena_alloc(request->arena, (size_t)n, sizeof *only);
    if (!only) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    for (int i = 0; i < n; i++) {
        const struct nn_param *param = nn_graph_param(graph, i);
        const struct api_tensor *tensor = api_document_tensor(&request->doc, "gradients", param->name);
        trained += param->kind == NN_TRAINED;
        if (!tensor && param->kind == NN_TRAINED) memset(nn_grads_data(request->grads, i), 0, param->bytes);
        if (!tensor) continue;
        if (api_bind_param(request, tensor, param, nn_grads_data(request->grads, i)))
            return (int)request->err.code;
        only[i] = true;
        given++;
    }
    request->only = given < trained ? only : NULL;
    return read_statistics(request);
}

int api_post_gradients(struct api_request *request) {
    const struct api_ask *ask = &request->ask;
    const bool accumulate = ask->accumulate.on;
    request->lr = ask->apply.value;
    request->scale = ask->accumulate.value;
    request->samples = ask->samples;
    if (api_model_find(request, request->name)) return (int)request->err.code;
    if (!ask->apply.on && !accumulate && api_is_given(request, API_MEMBER_OF_apply))
        return api_ask_wrong(request, API_MEMBER_OF_apply,
                             "true, or left out: what else is to be done with the gradient?");
    if (ask->apply.on && accumulate)
        return api_ask_wrong(request, API_MEMBER_OF_accumulate, "left out: the gradient is applied");
    if (!accumulate && api_check_optimizer(request)) return (int)request->err.code;
    if (read_version(request) || (!accumulate && api_round_check(request)) ||
        api_work(request, api_work_of_change(request, API_NUMBERS_OF_GRADIENT, !accumulate)) ||
        read_gradients(request))
        return (int)request->err.code;
    if (api_add(request, "model", json_string(request->model->name)) ||
        api_add(request, "incarnation", json_string(request->model->incarnation)) ||
        api_add(request, "version", json_integer((json_int_t)request->seen)))
        return (int)request->err.code;
    api_request_let_go(request);
    return api_model_turn(request, accumulate ? api_turn_accumulate : api_turn_apply);
}

/* --- the accumulation buffer ------------------------------------------------------------------------ */

/* Copies the buffer, which may change while the answer is sent. request->only tells which parameters contributions
 * named. */
static int copy_sum(struct api_request *request) {
    struct api_model *model = request->model;
    size_t n = (size_t)nn_graph_param_count(model->graph);
    if (!(request->only = nn_arena_alloc(request->arena, n + 1, sizeof *request->only)))
        return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    memcpy(request->only, model->sum_named, n * sizeof *request->only);
    if (api_reserve(request, nn_graph_gradient_bytes(model->graph))) return (int)request->err.code;
    if (!(request->grads = nn_grads_new_unset(model->graph, &request->err))) return (int)request->err.code;
    nn_grads_copy(request->grads, model->sum);
    return NN_OK;
}

static int turn_get(struct api_request *request) {
    const struct api_model *model = request->model;
    if (!model->sum_count)
        return nn_fail(&request->err, NN_E_NOTHING_ACCUMULATED, "no gradient was accumulated");
    if (copy_sum(request) || api_add(request, "model", json_string(model->name)) ||
        api_add(request, "incarnation", json_string(model->incarnation)) ||
        api_add(request, "version", json_integer((json_int_t)nn_params_version(model->params))) ||
        api_add(request, "contributions", json_integer((json_int_t)model->sum_count)) ||
        api_add(request, "scale", json_real(model->sum_scale)) ||
        api_add(request, "oldest_version", json_integer((json_int_t)model->sum_oldest)))
        return (int)request->err.code;
    return api_add_gradients(request, api_result_dtype(request, nn_graph_dtype(model->graph)));
}

int api_get_gradients(struct api_request *request) {
    if (api_model_find(request, request->name)) return (int)request->err.code;
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
    if (api_model_find(request, request->name)) return (int)request->err.code;
    return api_model_turn(request, turn_delete);
}
