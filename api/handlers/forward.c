/* forward.c - POST /forward: outputs, and if asked, a kept tape. */
#include "../change/condition.h"
#include "../change/finish.h"
#include "../model/context.h"
#include "../model/model.h"
#include "../model/work.h"
#include "../pass/coalesce.h"
#include "../pass/pass.h"

/* Without "outputs": the model's outputs. */
static int default_outputs(struct api_request *request, bool **wanted) {
    const struct nn_graph *graph = api_pass_graph(request);
    if (*wanted) return NN_OK;
    *wanted = nn_arena_alloc(request->arena, (size_t)nn_graph_value_count(graph), sizeof **wanted);
    if (!*wanted) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    for (int i = 0; i < nn_graph_output_count(graph); i++) (*wanted)[nn_graph_output(graph, i)] = true;
    return NN_OK;
}

/* The work of a stateless model was checked before its parameters were drawn. */
static int count_work(struct api_request *request, int64_t rows, bool together) {
    if (!request->model) return NN_OK;
    if (together) rows = api_coalesce_rows(request, rows);
    return api_work(request, nn_cost_of(request->model->size.work.forward, (double)rows));
}

int api_post_forward(struct api_request *request) {
    const bool retain = request->ask.retain;
    bool *wanted;
    struct nn_run_options options;
    size_t bytes;
    if (api_pass_model(request, false)) return (int)request->err.code;
    if (retain && api_token_allows(request, API_SCOPE_TRAIN)) return api_point(request, "retain", NULL);
    if (retain && !request->model) {
        nn_fail(&request->err, NN_E_VALUE, "a tape is kept for a model that has a name only");
        return api_point(request, "retain", NULL);
    }
    if (api_check_conditions(request, request->model, nn_params_version(request->params)))
        return (int)request->err.code;
    if (api_pass_outputs(request, &wanted) || default_outputs(request, &wanted) ||
        api_pass_options(request, retain ? NN_TRAIN : NN_EVAL, &options))
        return (int)request->err.code;
    bool together = options.mode == NN_EVAL && !retain && api_coalesces(request);
    if (count_work(request, options.rows, together)) return (int)request->err.code;
    if (together) return api_coalesce_forward(request, &options, wanted);
    options.tape = retain;
    options.wanted = wanted;
    if (api_pass_run(request, &options, &bytes) || api_pass_forward(request)) return (int)request->err.code;

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
