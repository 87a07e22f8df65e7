/* backward.c - POST /backward: gradients of a loss, of an upstream gradient or of both, of a fresh forward
 * pass or of a kept one; returned, accumulated or applied. */
#include <math.h>
#include <string.h>

#include "../change/condition.h"
#include "../model/context.h"
#include "../model/model.h"
#include "../pass/pass.h"
#include "../change/round.h"
#include "../change/update.h"

/* What "return" may name. */
enum { PARAMETERS = 1, INPUTS = 2, NODES = 4, OUTPUTS = 8 };
static const struct {
    const char *name;
    unsigned bit;
} returns[] = {{"parameters", PARAMETERS}, {"inputs", INPUTS}, {"nodes", NODES}, {"outputs", OUTPUTS}};

struct wish {
    unsigned returns;
    bool apply, accumulate, retain;
    enum api_dtype as;
    const struct nn_run *run;             /* the context's, or the request's */
    bool *nodes;                          /* whose gradients are returned */
    const struct nn_loss_options *losses; /* what is evaluated of each; NULL: none */
};

static int wrong(struct api_request *request, const char *member, const char *what) {
    nn_fail(&request->err, NN_E_VALUE, "\"%s\" must be %s", member, what);
    return api_point(request, member, NULL);
}

/* --- what is asked for ------------------------------------------------------------------------------ */

static int read_returns(struct api_request *request, struct wish *wish) {
    const json_t *list = json_object_get(request->doc.members, "return"), *item;
    wish->returns = wish->apply || wish->accumulate ? 0 : PARAMETERS;
    if (!list) return NN_OK;
    wish->returns = 0;
    if (!json_is_array(list)) return wrong(request, "return", "a list");
    for (size_t i = 0; i < json_array_size(list); i++) {
        unsigned bit = 0;
        item = json_array_get(list, i);
        for (size_t k = 0; k < sizeof returns / sizeof returns[0] && json_is_string(item); k++)
            if (strcmp(json_string_value(item), returns[k].name) == 0) bit = returns[k].bit;
        if (!bit)
            return wrong(request, "return", "a list of \"parameters\", \"inputs\", \"nodes\", \"outputs\"");
        wish->returns |= bit;
    }
    return NN_OK;
}

static int read_wish(struct api_request *request, struct wish *wish) {
    request->lr = NAN;
    request->scale = 1;
    if (api_read_switch(request, "apply", "lr", &wish->apply, &request->lr) ||
        api_read_switch(request, "accumulate", "scale", &wish->accumulate, &request->scale) ||
        api_get_bool(request, "retain", &wish->retain))
        return (int)request->err.code;
    if (api_check_lr(request, "apply") || api_read_staleness(request) || api_read_worker(request))
        return (int)request->err.code;
    if (wish->apply && wish->accumulate)
        return wrong(request, "accumulate", "left out: the gradient is applied");
    return read_returns(request, wish);
}

/* --- where the pass begins -------------------------------------------------------------------------- */

/* A context brings its own forward pass: what would make one may not be given beside it. */
static int use_context(struct api_request *request, struct wish *wish, const char *id) {
    static const char *const others[] = {"model", "mode", "seed", "first_row"};
    static const char *const maps[] = {"inputs", "parameters"};
    const char *stray = NULL;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (json_object_get(request->doc.members, others[i])) stray = others[i];
    for (size_t i = 0; i < sizeof maps / sizeof maps[0]; i++)
        if (api_document_has(&request->doc, maps[i])) stray = maps[i];
    if (stray) return wrong(request, stray, "left out: the context has its own");
    if (api_context_claim(request, id, wish->retain)) return (int)request->err.code;
    wish->run = api_context_run(request->context);
    return NN_OK;
}

static int use_inputs(struct api_request *request, struct wish *wish) {
    struct nn_run_options options;
    size_t bytes;
    if (wish->retain) return wrong(request, "retain", "left out: only a context can be retained");
    if (api_pass_model(request)) return (int)request->err.code;
    if (!request->model && (wish->apply || wish->accumulate))
        return wrong(request, wish->apply ? "apply" : "accumulate",
                     "left out: nothing is kept of this model");
    if (wish->apply && api_check_optimizer(request)) return (int)request->err.code;
    request->repeatable = request->model != NULL;
    if (api_pass_options(request, NN_TRAIN, &options)) return (int)request->err.code;
    options.tape = true;
    if (api_pass_run(request, &options, &bytes)) return (int)request->err.code;
    wish->run = request->run;
    return NN_OK;
}

static int begin(struct api_request *request, struct wish *wish) {
    const char *id = NULL;
    if (api_get_string(request, "context", &id)) return (int)request->err.code;
    if (id ? use_context(request, wish, id) : use_inputs(request, wish)) return (int)request->err.code;
    if (id && wish->apply && api_check_optimizer(request)) return (int)request->err.code;
    request->seen = nn_params_version(request->params);
    if (wish->apply && api_round_check(request)) return (int)request->err.code;
    return api_result_dtype(request, nn_graph_dtype(api_pass_graph(request)), &wish->as);
}

/* --- the pass --------------------------------------------------------------------------------------- */

static int choose_nodes(struct api_request *request, struct wish *wish) {
    const struct nn_graph *graph = api_pass_graph(request);
    int n = nn_graph_node_count(graph), first = wish->returns & INPUTS ? 0 : nn_graph_input_count(graph);
    if (!(wish->returns & (INPUTS | NODES))) return NN_OK;
    if (wish->returns & NODES) first = 0;
    wish->nodes = nn_arena_alloc(request->arena, (size_t)n, sizeof *wish->nodes);
    if (!wish->nodes) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    for (int i = first; i < (wish->returns & NODES ? n : nn_graph_input_count(graph)); i++)
        wish->nodes[i] = nn_graph_node(graph, i).dtype != NN_I64;
    return NN_OK;
}

static int prepare(struct api_request *request, struct wish *wish) {
    struct nn_graph *graph = api_pass_graph(request);
    bool parameters = wish->apply || wish->accumulate || wish->returns & PARAMETERS;
    if (choose_nodes(request, wish) ||
        api_pass_backward(request, wish->run, wish->nodes, parameters, &wish->losses))
        return (int)request->err.code;
    if (!parameters) return NN_OK;
    if (api_reserve(request, nn_graph_trainable_bytes(graph))) return (int)request->err.code;
    request->grads = nn_grads_new(graph, &request->err);
    return (int)request->err.code;
}

/* Nothing that is not finite is ever applied or accumulated. */
static int check_finite(struct api_request *request, const struct wish *wish) {
    const struct nn_graph *graph = api_pass_graph(request);
    for (int i = 0; wish->losses && i < nn_graph_loss_count(graph); i++)
        if (!isfinite(nn_backward_loss(request->backward, i)))
            return nn_fail(&request->err, NN_E_NOT_FINITE, "the loss is not finite; the model is unchanged");
    int bad = nn_grads_first_nonfinite(request->grads, api_parallel(request->api));
    if (bad < 0) return NN_OK;
    return nn_fail(&request->err, NN_E_NOT_FINITE,
                   "the gradient of \"%s\" is not finite; the model is unchanged",
                   nn_graph_param(graph, bad)->name);
}

/* --- the answer ------------------------------------------------------------------------------------- */

/* A number; where it is not finite, its name, which JSON can hold. */
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
        bool skip = wish->losses[i].skip; /* null keeps the others at their index */
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

/* Gradients of nodes first..last-1 that were kept. */
static int add_nodes(struct api_request *request, const struct wish *wish, const char *map, int first,
                     int last) {
    const struct nn_graph *graph = api_pass_graph(request);
    api_add_map(request, map);
    for (int i = first; i < last; i++) {
        struct nn_node_info node = nn_graph_node(graph, i);
        struct nn_shape shape = nn_shape_batch(nn_run_options(wish->run)->rows, &node.shape);
        const void *data = nn_backward_gradient(request->backward, i);
        if (data && api_add_tensor(request, map, node.name, &shape, node.dtype, data, wish->as))
            return (int)request->err.code;
    }
    return NN_OK;
}

static int add_outputs(struct api_request *request, const struct wish *wish) {
    const struct nn_graph *graph = api_pass_graph(request);
    api_add_map(request, "outputs");
    for (int i = 0; i < nn_graph_output_count(graph); i++) {
        struct nn_node_info node = nn_graph_node(graph, nn_graph_output(graph, i));
        struct nn_shape shape = nn_shape_batch(nn_run_options(wish->run)->rows, &node.shape);
        if (api_add_tensor(request, "outputs", node.name, &shape, node.dtype,
                           nn_run_value(wish->run, nn_graph_output(graph, i)),
                           node.dtype == NN_I64 ? API_I64 : wish->as))
            return (int)request->err.code;
    }
    return NN_OK;
}

static int add_returns(struct api_request *request, const struct wish *wish) {
    const struct nn_graph *graph = api_pass_graph(request);
    int inputs = nn_graph_input_count(graph), nodes = nn_graph_node_count(graph);
    if (wish->returns & PARAMETERS && api_add_gradients(request, wish->as)) return (int)request->err.code;
    if (wish->returns & INPUTS && add_nodes(request, wish, "input_gradients", 0, inputs))
        return (int)request->err.code;
    if (wish->returns & NODES && add_nodes(request, wish, "node_gradients", 0, nodes))
        return (int)request->err.code;
    if (wish->returns & OUTPUTS && add_outputs(request, wish)) return (int)request->err.code;
    return NN_OK;
}

int api_post_backward(struct api_request *request) {
    struct wish wish = {0};
    if (api_query_check(request, "") || read_wish(request, &wish) || begin(request, &wish) ||
        prepare(request, &wish))
        return (int)request->err.code;
    if (!request->context) nn_run_forward(request->run, api_parallel(request->api));
    nn_backward_run(request->backward, request->grads, api_parallel(request->api));
    bool change = wish.apply || wish.accumulate;
    if (change && check_finite(request, &wish)) return (int)request->err.code;
    if (add_members(request, &wish) || add_returns(request, &wish)) return (int)request->err.code;
    if (!change) return NN_OK;
    request->samples = nn_run_options(wish.run)->rows;
    if (!request->answer.n_results) api_request_let_go(request);
    return api_model_turn(request, wish.apply ? api_turn_apply : api_turn_accumulate);
}
