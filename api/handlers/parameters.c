/* parameters.c - /models/{m}/parameters: pull, set, blend. */
#include <math.h>
#include <string.h>

#include "../change/condition.h"
#include "../model/model.h"
#include "../change/update.h"

/* --- pull ------------------------------------------------------------------------------------------- */

/* "a,b" as words: each must be a parameter. */
static int check_names(struct api_request *request, const char *names) {
    const struct nn_graph *graph = request->model->graph;
    while (names && *names) {
        size_t size = strcspn(names, ",");
        char *name = nn_arena_alloc(request->arena, size + 1, 1);
        if (!name) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
        memcpy(name, names, size);
        if (nn_graph_param_find(graph, name) < 0)
            return nn_fail(&request->err, NN_E_UNKNOWN_NAME, "no parameter is named \"%.100s\"", name);
        names += size;
        names += *names == ',';
    }
    return NN_OK;
}

/* Whether `name` is in "a,b"; NULL has all. */
static bool is_among(const char *names, const char *name) {
    size_t length = strlen(name);
    for (; names && *names; names += strcspn(names, ","), names += *names == ',')
        if (strcspn(names, ",") == length && memcmp(names, name, length) == 0) return true;
    return !names;
}

int api_get_parameters(struct api_request *request) {
    enum api_dtype as;
    const char *names;
    if (api_query_check(request, "dtype names") || api_query(request, "names", &names) ||
        api_model_find(request, request->name) || check_names(request, names))
        return (int)request->err.code;
    const struct nn_graph *graph = request->model->graph;
    uint64_t version = nn_params_version(request->params);
    if (api_result_dtype(request, nn_graph_dtype(graph), &as)) return (int)request->err.code;
    if (api_etag(request, version, as, names)) {
        request->answer.status = 304;
        return NN_OK;
    }
    request->answer.plain_names = true;
    api_add_map(request, "parameters");
    for (int i = 0; i < nn_graph_param_count(graph); i++) {
        const struct nn_param *param = nn_graph_param(graph, i);
        if (is_among(names, param->name) &&
            api_add_tensor(request, "parameters", param->name, &param->shape, nn_graph_dtype(graph),
                           nn_params_view(request->params, i), as))
            return (int)request->err.code;
    }
    if (api_add(request, "incarnation", json_string(request->model->incarnation)))
        return (int)request->err.code;
    return api_add(request, "version", json_integer((json_int_t)version));
}

/* --- set -------------------------------------------------------------------------------------------- */

int api_put_parameters(struct api_request *request) {
    const char *partial, *wait;
    if (api_query_check(request, "partial wait") || api_query(request, "partial", &partial) ||
        api_query(request, "wait", &wait) || api_model_find(request, request->name))
        return (int)request->err.code;
    request->partial = partial && strcmp(partial, "true") == 0;
    if (partial && !request->partial && strcmp(partial, "false") != 0)
        return nn_fail(&request->err, NN_E_VALUE, "?partial= is true or false");
    if (wait && strcmp(wait, "durable") != 0)
        return nn_fail(&request->err, NN_E_VALUE, "?wait= is durable, or left out");
    request->wait |= wait != NULL;
    if (!api_document_has(&request->doc, "parameters")) {
        nn_fail(&request->err, NN_E_VALUE, "\"parameters\" must be given");
        return api_point(request, "parameters", NULL);
    }
    if (api_add(request, "model", json_string(request->model->name)) ||
        api_add(request, "incarnation", json_string(request->model->incarnation)))
        return (int)request->err.code;
    return api_model_turn(request, api_turn_set_parameters);
}

/* --- blend ------------------------------------------------------------------------------------------ */

/* The current version of another model, as request->params; request->model is the one that changes. */
static int find_both(struct api_request *request, const char *from) {
    if (api_model_find(request, from)) { /* a name within the request, not the resource that it addresses */
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
    const char *from = NULL;
    request->tau = NAN;
    if (api_query_check(request, "") || api_get_string(request, "from", &from) ||
        api_get_real(request, "tau", &request->tau))
        return (int)request->err.code;
    if (!from || !(request->tau >= 0 && request->tau <= 1)) {
        nn_fail(&request->err, NN_E_VALUE,
                from ? "\"tau\" must be a number from 0 to 1" : "\"from\" must name a model");
        return api_point(request, from ? "tau" : "from", NULL);
    }
    if (find_both(request, from)) return (int)request->err.code;
    if (nn_params_alike(request->model->graph, nn_params_graph(request->params), &request->err))
        return api_point(request, "from", NULL);
    if (api_add(request, "model", json_string(request->model->name)) ||
        api_add(request, "incarnation", json_string(request->model->incarnation)) ||
        api_add(request, "from_version", json_integer((json_int_t)nn_params_version(request->params))))
        return (int)request->err.code;
    return api_model_turn(request, api_turn_blend);
}
