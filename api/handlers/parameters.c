/* parameters.c - GET and PUT /models/{m}/parameters. */
#include <string.h>

#include "../model.h"
#include "../update.h"

int api_get_parameters(struct api_request *request) {
    enum api_dtype as;
    if (api_query_check(request, "dtype") || api_model_find(request, request->name))
        return (int)request->err.code;
    const struct nn_graph *graph = request->model->graph;
    if (api_result_dtype(request, nn_graph_dtype(graph), &as)) return (int)request->err.code;
    request->answer.plain_names = true;
    api_add_map(request, "parameters");
    for (int i = 0; i < nn_graph_param_count(graph); i++) {
        const struct nn_param *param = nn_graph_param(graph, i);
        if (api_add_tensor(request, "parameters", param->name, &param->shape, nn_graph_dtype(graph),
                           nn_params_view(request->params, i), as))
            return (int)request->err.code;
    }
    if (api_add(request, "incarnation", json_string(request->model->incarnation)))
        return (int)request->err.code;
    return api_add(request, "version", json_integer((json_int_t)nn_params_version(request->params)));
}

int api_put_parameters(struct api_request *request) {
    const char *partial;
    if (api_query_check(request, "partial") || api_query(request, "partial", &partial) ||
        api_model_find(request, request->name))
        return (int)request->err.code;
    request->partial = partial && strcmp(partial, "true") == 0;
    if (partial && !request->partial && strcmp(partial, "false") != 0)
        return nn_fail(&request->err, NN_E_VALUE, "?partial= is true or false");
    if (!api_document_has(&request->doc, "parameters")) {
        nn_fail(&request->err, NN_E_VALUE, "\"parameters\" must be given");
        return api_point(request, "parameters", NULL);
    }
    if (api_add(request, "model", json_string(request->model->name)) ||
        api_add(request, "incarnation", json_string(request->model->incarnation)))
        return (int)request->err.code;
    return api_model_turn(request, api_turn_set_parameters);
}
