/* forward.c - POST /forward: outputs, and on request a kept tape. */
#include "../pass/coalesce.h"
#include "../model/context.h"
#include "../model/model.h"
#include "../pass/pass.h"

/* The model's outputs, where the request names none. */
static int default_outputs(struct api_request *request, bool **wanted) {
    const struct nn_graph *graph = api_pass_graph(request);
    if (*wanted) return NN_OK;
    *wanted = nn_arena_alloc(request->arena, (size_t)nn_graph_node_count(graph), sizeof **wanted);
    if (!*wanted) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    for (int i = 0; i < nn_graph_output_count(graph); i++) (*wanted)[nn_graph_output(graph, i)] = true;
    return NN_OK;
}

int api_post_forward(struct api_request *request) {
    bool retain = false, *wanted;
    struct nn_run_options options;
    size_t bytes;
    enum api_dtype as;
    if (api_query_check(request, "") || api_get_bool(request, "retain", &retain) || api_pass_model(request))
        return (int)request->err.code;
    if (retain && api_token_allows(request, API_SCOPE_TRAIN)) return api_point(request, "retain", NULL);
    if (retain && !request->model) {
        nn_fail(&request->err, NN_E_VALUE, "a tape is kept for a model that has a name only");
        return api_point(request, "retain", NULL);
    }
    if (api_result_dtype(request, nn_graph_dtype(api_pass_graph(request)), &as))
        return (int)request->err.code;
    if (api_pass_nodes(request, "outputs", &wanted) || default_outputs(request, &wanted) ||
        api_pass_options(request, retain ? NN_TRAIN : NN_EVAL, &options))
        return (int)request->err.code;
    if (options.mode == NN_EVAL && !retain && api_coalesces(request))
        return api_coalesce_forward(request, &options, wanted);
    options.tape = retain;
    options.wanted = wanted;
    if (api_pass_run(request, &options, &bytes)) return (int)request->err.code;
    nn_run_forward(request->run, api_parallel(request->api));

    const char *id;
    json_int_t seed = (json_int_t)options.seed;
    if (api_pass_add_source(request) ||
        api_pass_add_outputs(request, request->run, 0, options.rows, wanted) ||
        api_add(request, "seed", json_integer(seed)))
        return (int)request->err.code;
    if (!retain) return NN_OK;
    if (api_context_new(request, bytes, &id) || api_add(request, "context", json_string(id)) ||
        api_answer_ready(request))
        return (int)request->err.code;
    return api_context_keep(request);
}
