/* backward.c - POST /backward: gradients of losses, of upstream gradients, or of both, for a new forward pass or a kept
 * one; returned, accumulated or applied. */
#include <math.h>
#include <string.h>

#include "../change/condition.h"
#include "../change/finish.h"
#include "../change/round.h"
#include "../change/turns.h"
#include "../change/update.h"
#include "../model/context.h"
#include "../model/model.h"
#include "../model/work.h"
#include "../pass/pass.h"

/* What "return" names: the bits of its row in members.def. */
enum { PARAMETERS = 1, INPUTS = 2, NODES = 4, OUTPUTS = 8 };

struct wish {
    unsigned returns;
    bool apply, accumulate;
    enum api_dtype as;
    const struct nn_run *run;             /* the run of the context, or of the request */
    bool *nodes;                          /* the values whose gradients are returned */
    const struct nn_loss_options *losses; /* by loss; NULL: no losses */
};

/* --- what is asked for ------------------------------------------------------------------------------ */

static int read_wish(struct api_request *request, struct wish *wish) {
    const struct api_ask *ask = &request->ask;
    wish->apply = ask->apply.on;
    wish->accumulate = ask->accumulate.on;
    request->lr = ask->apply.value;
    request->scale = ask->accumulate.value;
    if (wish->apply && wish->accumulate)
        return api_ask_wrong(request, API_MEMBER_OF_accumulate, "left out: the gradient is applied");
    wish->returns = wish->apply || wish->accumulate ? 0 : PARAMETERS;
    if (api_is_given(request, API_MEMBER_OF_return)) wish->returns = ask->returns;
    return NN_OK;
}

/* --- where the pass begins -------------------------------------------------------------------------- */

static int count_work(struct api_request *request, const struct wish *wish, double pass) {
    double change = 0;
    if (wish->apply || wish->accumulate)
        change = api_work_of_change(request, API_NUMBERS_OF_GRADIENT, wish->apply);
    return api_work(request, pass + change);
}

/* A context has its own forward pass: a request with a context may not have the members that would make one. */
static int use_context(struct api_request *request, struct wish *wish) {
    static const int others[] = {API_MEMBER_OF_model,     API_MEMBER_OF_mode,   API_MEMBER_OF_seed,
                                 API_MEMBER_OF_first_row, API_MEMBER_OF_inputs, API_MEMBER_OF_parameters};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (api_is_given(request, others[i]))
            return api_ask_wrong(request, others[i], "left out: the context has its own");
    if (api_context_claim(request, request->ask.context, request->ask.retain)) return (int)request->err.code;
    wish->run = api_context_run(request->context);
    const double rows = (double)nn_run_options(wish->run)->rows;
    return count_work(request, wish, nn_cost_of(request->model->size.work.backward, rows));
}

static int use_inputs(struct api_request *request, struct wish *wish) {
    struct nn_run_options options;
    size_t bytes;
    if (request->ask.retain)
        return api_ask_wrong(request, API_MEMBER_OF_retain, "left out: only a context can be retained");
    if (api_pass_model(request, true)) return (int)request->err.code;
    if (!request->model && (wish->apply || wish->accumulate))
        return api_ask_wrong(request, wish->apply ? API_MEMBER_OF_apply : API_MEMBER_OF_accumulate,
                             "left out: nothing is kept of this model");
    if (wish->apply && api_check_optimizer(request)) return (int)request->err.code;
    request->repeatable = request->model != NULL;
    if (api_pass_options(request, NN_TRAIN, &options)) return (int)request->err.code;
    /* The work of a stateless model was checked before its parameters were drawn. */
    const struct nn_work *work = request->model ? &request->model->size.work : NULL;
    const double rows = (double)options.rows;
    if (work && count_work(request, wish, nn_cost_of(work->forward, rows) + nn_cost_of(work->backward, rows)))
        return (int)request->err.code;
    options.tape = true;
    if (api_pass_run(request, &options, &bytes)) return (int)request->err.code;
    wish->run = request->run;
    return NN_OK;
}

static int begin(struct api_request *request, struct wish *wish) {
    const bool kept = request->ask.context;
    if (kept ? use_context(request, wish) : use_inputs(request, wish)) return (int)request->err.code;
    if (kept && wish->apply && api_check_optimizer(request)) return (int)request->err.code;
    request->seen = nn_params_version(request->params);
    if (wish->apply && api_round_check(request)) return (int)request->err.code;
    bool change = wish->apply || wish->accumulate; /* a change checks its conditions in its turn */
    if (!change && api_check_conditions(request, request->model, request->seen))
        return (int)request->err.code;
    wish->as = api_result_dtype(request, nn_graph_dtype(api_pass_graph(request)));
    return NN_OK;
}

/* --- the pass --------------------------------------------------------------------------------------- */

static int choose_values(struct api_request *request, struct wish *wish) {
    const struct nn_graph *graph = api_pass_graph(request);
    int n = nn_graph_value_count(graph), first = wish->returns & INPUTS ? 0 : nn_graph_input_count(graph);
    if (!(wish->returns & (INPUTS | NODES))) return NN_OK;
    if (wish->returns & NODES) first = 0;
    wish->nodes = nn_arena_alloc(request->arena, (size_t)n, sizeof *wish->nodes);
    if (!wish->nodes) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    for (int i = first; i < (wish->returns & NODES ? n : nn_graph_input_count(graph)); i++)
        wish->nodes[i] = nn_graph_value(graph, i).dtype != NN_I64;
    return NN_OK;
}

static int prepare(struct api_request *request, struct wish *wish) {
    struct nn_graph *graph = api_pass_graph(request);
    bool parameters = wish->apply || wish->accumulate || wish->returns & PARAMETERS;
    if (choose_values(request, wish) ||
        api_pass_backward(request, wish->run, wish->nodes, parameters, &wish->losses))
        return (int)request->err.code;
    if (!parameters) return NN_OK;
    if (api_reserve(request, nn_graph_gradient_bytes(graph))) return (int)request->err.code;
    request->grads = nn_grads_new(graph, &request->err);
    return (int)request->err.code;
}

/* A loss that is not finite prevents the change. The turn checks the gradients. */
static int check_losses(struct api_request *request, const struct wish *wish) {
    const struct nn_graph *graph = api_pass_graph(request);
    for (int i = 0; wish->losses && i < nn_graph_loss_count(graph); i++)
        if (!isfinite(nn_backward_loss(request->backward, i)))
            return nn_fail(&request->err, NN_E_NOT_FINITE, "the loss is not finite; the model is unchanged");
    return NN_OK;
}

/* A parameter that no loss and no upstream gradient reaches has no gradient: the change does not name it. Its gradient
 * is None in PyTorch, and not 0. */
static int name_reached(struct api_request *request) {
    const struct nn_graph *graph = request->model->graph;
    int n = nn_graph_param_count(graph);
    bool all = true, *reached = nn_arena_alloc(request->arena, (size_t)n + 1, sizeof *reached);
    if (!reached) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    for (int i = 0; i < n; i++) {
        reached[i] =
            nn_graph_param(graph, i)->kind == NN_TRAINED && nn_backward_reaches(request->backward, i);
        all &= reached[i] || nn_graph_param(graph, i)->kind != NN_TRAINED;
    }
    request->only = all ? NULL : reached;
    return NN_OK;
}

/* --- the answer ------------------------------------------------------------------------------------- */

/* A number; one that is not finite becomes its name, because JSON has no such number. */
static json_t *number(double value) {
    if (isfinite(value)) return json_real(value);
    return json_string(isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity");
}

static int add_losses(struct api_request *request, const struct wish *wish) {
    const struct nn_graph *graph = api_pass_graph(request);
    json_t *losses = json_array(), *normalizers = json_array();
    double sum = 0;
    int failed = 0;
    if (!wish->losses) {
        json_decref(losses);
        json_decref(normalizers);
        return NN_OK;
    }
    for (int i = 0; i < nn_graph_loss_count(graph); i++) {
        sum += nn_backward_loss(request->backward, i);
        bool skip = wish->losses[i].skip; /* null, so that the other losses keep their indices */
        double loss = nn_backward_loss(request->backward, i);
        double normalizer = nn_backward_normalizer(request->backward, i);
        failed |= json_array_append_new(losses, skip ? json_null() : number(loss));
        failed |= json_array_append_new(normalizers, skip ? json_null() : number(normalizer));
    }
    failed |= api_add(request, "losses", losses);
    failed |= api_add(request, "normalizers", normalizers);
    failed |= api_add(request, "loss", number(sum));
    return failed ? nn_fail(&request->err, NN_E_NOMEM, "memory is out") : NN_OK;
}

static int add_members(struct api_request *request, const struct wish *wish) {
    const struct nn_run_options *run = nn_run_options(wish->run);
    const struct api_model *model = request->model;
    if (model && (api_add(request, "model", json_string(model->name)) ||
                  api_add(request, "incarnation", json_string(model->incarnation)) ||
                  api_add(request, "version", json_integer((json_int_t)nn_params_version(request->params)))))
        return (int)request->err.code;
    if (add_losses(request, wish) || api_add(request, "samples", json_integer(run->rows)))
        return (int)request->err.code;
    return api_add(request, "seed", json_integer((json_int_t)run->seed));
}

/* Adds the gradients of values first to last - 1 that were computed. */
static int add_values(struct api_request *request, const struct wish *wish, const char *map, int first,
                      int last) {
    const struct nn_graph *graph = api_pass_graph(request);
    api_add_map(request, map);
    for (int i = first; i < last; i++) {
        struct nn_value_info value = nn_graph_value(graph, i);
        struct nn_shape shape = nn_value_shape(&value, nn_run_options(wish->run)->rows);
        const void *data = nn_backward_gradient(request->backward, i);
        if (data && api_add_tensor(request, map, value.name, &shape, value.dtype, data, wish->as))
            return (int)request->err.code;
    }
    return NN_OK;
}

static int add_outputs(struct api_request *request, const struct wish *wish) {
    const struct nn_graph *graph = api_pass_graph(request);
    api_add_map(request, "outputs");
    for (int i = 0; i < nn_graph_output_count(graph); i++) {
        struct nn_value_info value = nn_graph_value(graph, nn_graph_output(graph, i));
        struct nn_shape shape = nn_value_shape(&value, nn_run_options(wish->run)->rows);
        if (api_add_tensor(request, "outputs", value.name, &shape, value.dtype,
                           nn_run_value(wish->run, nn_graph_output(graph, i)),
                           value.dtype == NN_I64 ? API_I64 : wish->as))
            return (int)request->err.code;
    }
    return NN_OK;
}

static int add_returns(struct api_request *request, const struct wish *wish) {
    const struct nn_graph *graph = api_pass_graph(request);
    int inputs = nn_graph_input_count(graph), values = nn_graph_value_count(graph);
    if (wish->returns & PARAMETERS && api_add_gradients(request, wish->as)) return (int)request->err.code;
    if (wish->returns & INPUTS && add_values(request, wish, "input_gradients", 0, inputs))
        return (int)request->err.code;
    if (wish->returns & NODES && add_values(request, wish, "node_gradients", 0, values))
        return (int)request->err.code;
    if (wish->returns & OUTPUTS && add_outputs(request, wish)) return (int)request->err.code;
    return NN_OK;
}

int api_post_backward(struct api_request *request) {
    struct wish wish = {0};
    if (read_wish(request, &wish) || begin(request, &wish) || prepare(request, &wish))
        return (int)request->err.code;
    if ((!request->context && api_pass_forward(request)) || api_pass_gradients(request))
        return (int)request->err.code;
    bool change = wish.apply || wish.accumulate;
    if (change && check_losses(request, &wish)) return (int)request->err.code;
    if (add_members(request, &wish) || add_returns(request, &wish)) return (int)request->err.code;
    if (!change) return NN_OK;
    if (name_reached(request)) return (int)request->err.code; /* after the answer, which shows all */
    if (request->context && !api_context_tell(request)) nn_grads_forget(request->grads);
    request->samples = nn_run_options(wish.run)->rows;
    if (!request->answer.n_results) api_request_let_go(request);
    return api_model_turn(request, wish.apply ? api_turn_apply : api_turn_accumulate);
}
