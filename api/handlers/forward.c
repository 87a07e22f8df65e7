/* forward.c - POST /forward: outputs, and on request a kept tape. */
#include "../context.h"
#include "../model.h"
#include "../pass.h"

/* The model's outputs, where the request names none. */
static int default_outputs(struct api_request *request, bool **wanted) {
    const struct nn_graph *graph = api_pass_graph(request);
    if (*wanted) return NN_OK;
    *wanted = nn_arena_alloc(request->arena, (size_t)nn_graph_node_count(graph), sizeof **wanted);
    if (!*wanted) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    for (int i = 0; i < nn_graph_output_count(graph); i++) (*wanted)[nn_graph_output(graph, i)] = true;
    return NN_OK;
}

static int add_outputs(struct api_request *request, const bool *wanted) {
    const struct nn_graph *graph = api_pass_graph(request);
    int64_t rows = nn_run_options(request->run)->rows;
    enum api_dtype as;
    if (api_result_dtype(request, nn_graph_dtype(graph), &as)) return (int)request->err.code;
    api_add_map(request, "outputs");
    for (int i = 0; i < nn_graph_node_count(graph); i++) {
        struct nn_node_info node = nn_graph_node(graph, i);
        struct nn_shape shape = nn_shape_batch(rows, &node.shape);
        if (wanted[i] && api_add_tensor(request, "outputs", node.name, &shape, node.dtype,
                                        nn_run_value(request->run, i), node.dtype == NN_I64 ? API_I64 : as))
            return (int)request->err.code;
    }
    return NN_OK;
}

/* The request's model and version, if it is not stateless. */
static int add_source(struct api_request *request) {
    if (!request->model) return NN_OK;
    if (api_add(request, "model", json_string(request->model->name)) ||
        api_add(request, "incarnation", json_string(request->model->incarnation)))
        return (int)request->err.code;
    return api_add(request, "version", json_integer((json_int_t)nn_params_version(request->params)));
}

int api_post_forward(struct api_request *request) {
    bool retain = false, *wanted;
    size_t bytes;
    enum api_dtype as;
    if (api_query_check(request, "") || api_get_bool(request, "retain", &retain) || api_pass_model(request))
        return (int)request->err.code;
    if (retain && !request->model) {
        nn_fail(&request->err, NN_E_VALUE, "a tape is kept for a model that has a name only");
        return api_point(request, "retain", NULL);
    }
    if (api_result_dtype(request, nn_graph_dtype(api_pass_graph(request)), &as))
        return (int)request->err.code;
    if (api_pass_nodes(request, "outputs", &wanted) || default_outputs(request, &wanted) ||
        api_pass_run(request, retain, retain ? NN_TRAIN : NN_EVAL, wanted, &bytes))
        return (int)request->err.code;
    nn_run_forward(request->run, api_parallel(request->api));

    const char *id;
    json_int_t seed = (json_int_t)nn_run_options(request->run)->seed;
    if (add_source(request) || add_outputs(request, wanted) || api_add(request, "seed", json_integer(seed)))
        return (int)request->err.code;
    if (!retain) return NN_OK;
    if (api_context_new(request, bytes, &id) || api_add(request, "context", json_string(id)) ||
        api_answer_ready(request))
        return (int)request->err.code;
    return api_context_keep(request);
}
