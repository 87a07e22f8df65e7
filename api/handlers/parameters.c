/* parameters.c - /models/{m}/parameters: pull, set, blend. */
#include <string.h>

#include "../change/condition.h"
#include "../change/turns.h"
#include "../change/update.h"
#include "../model/model.h"
#include "../model/registry.h"
#include "../model/work.h"

/* --- pull ------------------------------------------------------------------------------------------- */

/* Checks the names in "a,b": each must be a parameter. */
static int check_names(struct api_request *request, const char *names) {
    const struct nn_graph *graph = request->model->graph;
    while (names && *names) {
        size_t size = strcspn(names, ",");
        char *name = nn_arena_alloc(request->arena, size + 1, 1);
        if (!name) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
        memcpy(name, names, size);
        if (nn_graph_param_find_any(graph, name) < 0)
            return nn_fail(&request->err, NN_E_UNKNOWN_NAME, "no parameter is named \"%.100s\"", name);
        names += size;
        names += *names == ',';
    }
    return NN_OK;
}

/* True if `name` is in the list "a,b", or the list is NULL. */
static bool is_among(const char *names, const char *name) {
    size_t length = strlen(name);
    for (; names && *names; names += strcspn(names, ","), names += *names == ',')
        if (strcspn(names, ",") == length && memcmp(names, name, length) == 0) return true;
    return !names;
}

/* Adds a parameter under a name that the list has. */
static int add_parameter(struct api_request *request, const char *names, const char *name, int param,
                         enum api_dtype as) {
    const struct nn_param *info = nn_graph_param(request->model->graph, param);
    if (!is_among(names, name)) return NN_OK;
    return api_add_tensor(request, "parameters", name, &info->shape, info->dtype,
                          nn_params_view(request->params, param), api_param_dtype(info, as));
}

int api_get_parameters(struct api_request *request) {
    const char *names = request->ask.names;
    if (api_model_find(request, request->name) || check_names(request, names)) return (int)request->err.code;
    const struct nn_graph *graph = request->model->graph;
    uint64_t version = nn_params_version(request->params);
    const enum api_dtype as = api_result_dtype(request, nn_graph_dtype(graph));
    if (api_check_conditions(request, request->model, version)) return (int)request->err.code;
    if (api_etag(request, version, as, names)) {
        request->answer.status = 304;
        return NN_OK;
    }
    request->answer.plain_names = true;
    api_add_map(request, "parameters");
    for (int i = 0; i < nn_graph_param_count(graph); i++)
        if (add_parameter(request, names, nn_graph_param(graph, i)->name, i, as))
            return (int)request->err.code;
    for (int i = 0; i < nn_graph_alias_count(graph); i++) {
        const struct nn_alias alias = nn_graph_alias(graph, i);
        if (add_parameter(request, names, alias.name, alias.param, as)) return (int)request->err.code;
    }
    if (api_add(request, "incarnation", json_string(request->model->incarnation)))
        return (int)request->err.code;
    return api_add(request, "version", json_integer((json_int_t)version));
}

/* --- set -------------------------------------------------------------------------------------------- */

int api_put_parameters(struct api_request *request) {
    if (api_model_find(request, request->name)) return (int)request->err.code;
    if (api_work(request, api_work_of_change(request, 2, false)) ||
        api_add(request, "model", json_string(request->model->name)) ||
        api_add(request, "incarnation", json_string(request->model->incarnation)))
        return (int)request->err.code;
    return api_model_turn(request, api_turn_set_parameters);
}

/* --- blend ------------------------------------------------------------------------------------------ */

/* Sets request->params to the current version of the other model, and request->model to the model that changes. */
static int find_both(struct api_request *request, const char *from) {
    if (api_model_find(request, from)) { /* the document names the model, so the error is not 404 */
        request->err = (struct nn_error){0};
        nn_fail(&request->err, NN_E_UNKNOWN_NAME, "no model is named \"%.100s\"", from);
        return api_point(request, "from", NULL);
    }
    struct nn_params *params = request->params;
    api_model_unref(request->api, request->model);
    request->model = NULL;
    request->params = NULL;
    if (api_model_find(request, request->name) == NN_OK) nn_params_unref(request->params);
    request->params = params;
    return (int)request->err.code;
}

int api_post_parameters(struct api_request *request) {
    if (find_both(request, request->ask.from)) return (int)request->err.code;
    if (nn_params_alike(request->model->graph, nn_params_graph(request->params), &request->err))
        return api_point(request, "from", NULL);
    if (api_work(request, api_work_of_change(request, 5, false)) || /* one copy, and the blend */
        api_add(request, "model", json_string(request->model->name)) ||
        api_add(request, "incarnation", json_string(request->model->incarnation)) ||
        api_add(request, "from_version", json_integer((json_int_t)nn_params_version(request->params))))
        return (int)request->err.code;
    return api_model_turn(request, api_turn_blend);
}
