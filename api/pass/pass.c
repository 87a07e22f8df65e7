/* pass.c - see pass.h. Everything that can fail fails before arithmetic. */
#include "pass.h"

#include <math.h>
#include <string.h>

#include "../model/bind.h"
#include "../model/model.h"
#include "../model/registry.h"
#include "../model/work.h"

struct nn_graph *api_pass_graph(const struct api_request *request) {
    return nn_params_graph(request->params);
}

/* --- the model -------------------------------------------------------------------------------------- */

/* The parameters of a stateless model: given, or drawn from the specification's seed. */
static int stateless_params(struct api_request *request, const struct api_spec *spec, bool backward) {
    const struct nn_work work = nn_graph_work(spec->graph);
    bool given = api_document_has(&request->doc, "parameters");
    size_t bytes = nn_graph_param_bytes(spec->graph);
    if (nn_graph_param_count(spec->graph) && !given && !spec->has_seed)
        return api_ask_wrong(request, API_MEMBER_OF_parameters,
                             "given, unless the model has a \"seed\" to draw them from");
    const double rows = api_rows(request);
    const double pass = nn_cost_of(work.forward, rows) + (backward ? nn_cost_of(work.backward, rows) : 0);
    if (api_work(request, pass + (given ? 0 : work.draw)) || api_reserve(request, bytes))
        return (int)request->err.code;
    if (!(request->params = nn_params_new(spec->graph, &request->err))) return (int)request->err.code;
    if (!given) nn_params_init(request->params, spec->seed);
    return given ? api_bind_parameters(request, request->params, false) : NN_OK;
}

int api_pass_model(struct api_request *request, bool backward) {
    const json_t *model = request->ask.model;
    if (!model) return api_ask_wrong(request, API_MEMBER_OF_model, "given, or \"context\"");
    if (json_is_string(model)) {
        if (!api_document_has(&request->doc, "parameters"))
            return api_model_find(request, json_string_value(model));
        return api_ask_wrong(request, API_MEMBER_OF_parameters, "left out: the model has its own");
    }
    struct api_spec spec;
    if (api_spec_read(request, model, "model", &spec)) return (int)request->err.code;
    stateless_params(request, &spec, backward);
    api_spec_fini(&spec); /* the parameters hold the graph */
    return (int)request->err.code;
}

int api_pass_outputs(struct api_request *request, bool **flags) {
    const struct nn_graph *graph = api_pass_graph(request);
    const json_t *list = request->ask.outputs;
    json_t *name;
    size_t i;
    *flags = NULL;
    if (!list) return NN_OK;
    if (!json_is_array(list)) return api_ask_wrong(request, API_MEMBER_OF_outputs, "a list of names");
    *flags = nn_arena_alloc(request->arena, (size_t)nn_graph_value_count(graph), sizeof **flags);
    if (!*flags) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    json_array_foreach((json_t *)list, i, name) {
        int value = json_is_string(name) ? nn_graph_find(graph, json_string_value(name)) : -1;
        if (!json_is_string(name)) return api_ask_wrong(request, API_MEMBER_OF_outputs, "a list of names");
        if (value < 0) {
            nn_fail(&request->err, NN_E_UNKNOWN_NAME, "no input or layer is named \"%.100s\"",
                    json_string_value(name));
            return api_point(request, "outputs", NULL);
        }
        (*flags)[value] = true;
    }
    return NN_OK;
}

size_t api_pass_plan_bytes(const struct nn_graph *graph) {
    return 8192 + 160 * (size_t)nn_graph_value_count(graph) + 512 * (size_t)nn_graph_loss_count(graph);
}

/* --- a run ------------------------------------------------------------------------------------------ */

static int find_input(const struct nn_graph *graph, const char *name) {
    int value = nn_graph_find(graph, name);
    return value < nn_graph_input_count(graph) ? value : -1;
}

/* Checks the shapes of the inputs, and the number of rows, which must be the same for all. */
static int count_rows(struct api_request *request, int64_t *rows) {
    const struct nn_graph *graph = api_pass_graph(request);
    *rows = -1;
    if (api_bind_names(request, "inputs", find_input, graph)) return (int)request->err.code;
    for (int i = 0; i < nn_graph_input_count(graph); i++) {
        struct nn_value_info input = nn_graph_value(graph, i);
        const struct api_tensor *tensor = api_document_tensor(&request->doc, "inputs", input.name);
        struct nn_shape shape = nn_shape_batch(*rows, &input.shape);
        if (!tensor) continue;
        if (api_bind_shape(request, tensor, &shape)) return (int)request->err.code;
        *rows = tensor->shape.dim[0];
    }
    if (*rows > 0) return NN_OK;
    return api_ask_wrong(request, API_MEMBER_OF_inputs, "given, a tensor for each input");
}

int api_pass_options(struct api_request *request, enum nn_mode mode, struct nn_run_options *options) {
    const struct api_ask *ask = &request->ask;
    uint64_t seed = (uint64_t)ask->seed;
    if (ask->seed < 0 && api_random(request, &seed)) return (int)request->err.code;
    *options = (struct nn_run_options){
        .mode = mode, .seed = seed & (uint64_t)API_MAX_SEED, .first_row = ask->first_row};
    if (ask->mode) options->mode = strcmp(ask->mode, "train") == 0 ? NN_TRAIN : NN_EVAL;
    return count_rows(request, &options->rows);
}

int api_pass_fill(struct api_request *request, struct nn_run *run, int64_t first, int64_t rows) {
    const struct nn_graph *graph = api_pass_graph(request);
    for (int i = 0; i < nn_graph_input_count(graph); i++) {
        struct nn_value_info input = nn_graph_value(graph, i);
        const struct api_tensor *tensor = api_document_tensor(&request->doc, "inputs", input.name);
        struct nn_shape shape = nn_shape_batch(rows, &input.shape);
        size_t row = (size_t)nn_shape_elements(&input.shape) * nn_dtype_size(input.dtype);
        if (!nn_run_reads(run, i)) continue;
        if (!tensor) {
            nn_fail(&request->err, NN_E_VALUE, "input \"%s\" is missing", input.name);
            return api_point(request, "inputs", input.name);
        }
        if (api_bind(request, tensor, &shape, input.dtype,
                     (char *)nn_run_input(run, i) + (size_t)first * row))
            return (int)request->err.code;
    }
    if (nn_run_check_rows(run, first, rows, &request->err) == NN_OK) return NN_OK;
    const bool of_input = request->err.site == NN_SITE_INPUT;
    return api_point(request, "inputs", of_input ? nn_graph_value(graph, request->err.index).name : NULL);
}

int api_pass_run(struct api_request *request, const struct nn_run_options *options, size_t *bytes) {
    struct nn_error *err = &request->err;
    *bytes = api_pass_plan_bytes(api_pass_graph(request));
    if (api_reserve(request, *bytes)) return (int)err->code;
    struct nn_plan *plan = nn_plan_forward(api_pass_graph(request), options, err);
    if (!plan) return api_point(request, "inputs", NULL);
    if (api_reserve(request, nn_plan_bytes(plan))) {
        nn_plan_free(plan);
        return (int)err->code;
    }
    *bytes += nn_plan_bytes(plan);
    if (!(request->run = nn_run_new_take(request->params, plan, err))) return (int)err->code;
    return api_pass_fill(request, request->run, 0, options->rows);
}

static bool is_unwanted(void *request) { return !api_is_wanted(request); }

static struct nn_parallel parallel_of(struct api_request *request) {
    struct nn_parallel par = *api_parallel(request->api);
    par.given_up = is_unwanted;
    par.asked = request;
    return par;
}

int api_pass_forward(struct api_request *request) {
    const struct nn_parallel par = parallel_of(request);
    return nn_run_forward(request->run, &par) ? NN_OK : api_give_up(request);
}

int api_pass_gradients(struct api_request *request) {
    const struct nn_parallel par = parallel_of(request);
    return nn_backward_run(request->backward, request->grads, &par) ? NN_OK : api_give_up(request);
}

int api_pass_add_outputs(struct api_request *request, const struct nn_run *run, int64_t first, int64_t rows,
                         const bool *wanted) {
    const struct nn_graph *graph = api_pass_graph(request);
    const enum api_dtype as = api_result_dtype(request, nn_graph_dtype(graph));
    api_add_map(request, "outputs");
    for (int i = 0; i < nn_graph_value_count(graph); i++) {
        struct nn_value_info value = nn_graph_value(graph, i);
        struct nn_shape shape = nn_value_shape(&value, rows);
        size_t row = (size_t)nn_shape_elements(&value.shape) * nn_dtype_size(value.dtype);
        size_t before = value.rows ? (size_t)first * row : 0;
        if (wanted[i] &&
            api_add_tensor(request, "outputs", value.name, &shape, value.dtype,
                           (const char *)nn_run_value(run, i) + before, value.dtype == NN_I64 ? API_I64 : as))
            return (int)request->err.code;
    }
    return NN_OK;
}

int api_pass_add_source(struct api_request *request) {
    if (!request->model) return NN_OK;
    if (api_add(request, "model", json_string(request->model->name)) ||
        api_add(request, "incarnation", json_string(request->model->incarnation)))
        return (int)request->err.code;
    return api_add(request, "version", json_integer((json_int_t)nn_params_version(request->params)));
}

/* --- a backward pass -------------------------------------------------------------------------------- */

static int find_target(const struct nn_graph *graph, const char *name) {
    for (int i = 0; i < nn_graph_loss_count(graph); i++) {
        struct nn_loss_info loss = nn_graph_loss(graph, i);
        if (strcmp(loss.target, name) == 0) return i;
        if (loss.sample_weight && strcmp(loss.sample_weight, name) == 0) return i;
    }
    return -1;
}

static const struct api_tensor *target_of(struct api_request *request, const char *name) {
    const struct api_tensor *tensor = api_document_tensor(&request->doc, "targets", name);
    if (tensor) return tensor;
    nn_fail(&request->err, NN_E_VALUE, "target \"%s\" is missing", name);
    api_point(request, "targets", name);
    return NULL;
}

/* The shape of what a loss is given, of which each sample has the shape `sample`. */
static struct nn_shape given_shape(const struct nn_loss_info *loss, int64_t rows,
                                   const struct nn_shape *sample) {
    return loss->rows ? nn_shape_batch(rows, sample) : *sample;
}

static bool shape_fits(const struct api_tensor *tensor, const struct nn_loss_info *loss, int64_t rows,
                       const struct nn_shape *sample) {
    struct nn_shape shape = given_shape(loss, rows, sample);
    return nn_shape_equal(&tensor->shape, &shape);
}

/* Chooses the form of a target by its shape. Where no form fits, the error is that of the first form. */
static int choose_form(struct api_request *request, const struct nn_loss_info *loss, int64_t rows,
                       struct nn_loss_options *options) {
    const struct api_tensor *tensor = target_of(request, loss->target);
    if (!tensor) return (int)request->err.code;
    int form = 0;
    while (form < loss->n_forms && !shape_fits(tensor, loss, rows, &loss->forms[form].shape)) form++;
    if (form == loss->n_forms) {
        struct nn_shape shape = given_shape(loss, rows, &loss->forms[0].shape);
        return api_bind_shape(request, tensor, &shape);
    }
    options->target_ids = loss->forms[form].ids;
    if (!loss->sample_weight) return NN_OK;
    const struct api_tensor *weight = target_of(request, loss->sample_weight);
    struct nn_shape one_each = nn_shape_batch(rows, &(struct nn_shape){0});
    if (!weight) return (int)request->err.code;
    options->weight_full = loss->shape.rank > 0 && shape_fits(weight, loss, rows, &loss->shape);
    return options->weight_full ? NN_OK : api_bind_shape(request, weight, &one_each);
}

/* "normalizer": a number, or a list with one for each loss. */
static int read_normalizers(struct api_request *request, struct nn_loss_options *options, int n) {
    const json_t *given = request->ask.normalizer;
    for (int i = 0; i < n; i++) {
        const json_t *number = json_is_array(given) ? json_array_get(given, (size_t)i) : given;
        options[i].normalizer = number ? json_number_value(number) : (double)NAN;
        if (number &&
            (!json_is_number(number) || options[i].normalizer == 0 || !isfinite(options[i].normalizer)))
            return api_ask_wrong(request, API_MEMBER_OF_normalizer,
                                 "a number that is not 0, or a list of one for each loss");
    }
    if (json_is_array(given) && json_array_size(given) != (size_t)n)
        return api_ask_wrong(request, API_MEMBER_OF_normalizer,
                             "a number that is not 0, or a list of one for each loss");
    return NN_OK;
}

/* "losses": which ones are evaluated, by their index; all if it is left out. */
static int choose_losses(struct api_request *request, struct nn_loss_options *options, int n) {
    const json_t *list = request->ask.losses, *item;
    for (int i = 0; list && i < n; i++) options[i].skip = true;
    if (list && (!json_is_array(list) || !json_array_size(list)))
        return api_ask_wrong(request, API_MEMBER_OF_losses, "a list of indices into the model's losses");
    for (size_t k = 0; k < json_array_size(list); k++) {
        item = json_array_get(list, k);
        if (!json_is_integer(item) || json_integer_value(item) < 0 || json_integer_value(item) >= n)
            return api_ask_wrong(request, API_MEMBER_OF_losses, "a list of indices into the model's losses");
        options[json_integer_value(item)].skip = false;
    }
    return NN_OK;
}

/* "losses" and "normalizer" have no effect without losses. */
static int check_no_losses(struct api_request *request) {
    static const int members[] = {API_MEMBER_OF_losses, API_MEMBER_OF_normalizer};
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        if (api_is_given(request, members[i]) && !request->replay) /* earlier releases took them */
            return api_ask_wrong(request, members[i], "left out: there are no \"targets\"");
    return NN_OK;
}

static int read_losses(struct api_request *request, int64_t rows, struct nn_loss_options **options) {
    const struct nn_graph *graph = api_pass_graph(request);
    int n = nn_graph_loss_count(graph);
    *options = NULL;
    if (!api_document_has(&request->doc, "targets")) return check_no_losses(request);
    if (!n) return api_ask_wrong(request, API_MEMBER_OF_targets, "left out: the model has no loss");
    if (api_bind_names(request, "targets", find_target, graph)) return (int)request->err.code;
    *options = nn_arena_alloc(request->arena, (size_t)n, sizeof **options);
    if (!*options) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    if (choose_losses(request, *options, n)) return (int)request->err.code;
    for (int i = 0; i < n; i++) {
        struct nn_loss_info loss = nn_graph_loss(graph, i);
        if (!(*options)[i].skip && choose_form(request, &loss, rows, &(*options)[i]))
            return (int)request->err.code;
    }
    return read_normalizers(request, *options, n);
}

static int find_real_value(const struct nn_graph *graph, const char *name) {
    int value = nn_graph_find(graph, name);
    return value >= 0 && nn_graph_value(graph, value).dtype != NN_I64 ? value : -1;
}

static int read_upstream(struct api_request *request, bool **flags) {
    const struct nn_graph *graph = api_pass_graph(request);
    *flags = NULL;
    if (!api_document_has(&request->doc, "upstream")) return NN_OK;
    if (api_bind_names(request, "upstream", find_real_value, graph)) return (int)request->err.code;
    *flags = nn_arena_alloc(request->arena, (size_t)nn_graph_value_count(graph), sizeof **flags);
    if (!*flags) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    for (int i = 0; i < nn_graph_value_count(graph); i++)
        (*flags)[i] = api_document_tensor(&request->doc, "upstream", nn_graph_value(graph, i).name) != NULL;
    return NN_OK;
}

static int fill_upstream(struct api_request *request, int64_t rows, const bool *upstream) {
    const struct nn_graph *graph = api_pass_graph(request);
    for (int i = 0; upstream && i < nn_graph_value_count(graph); i++) {
        if (!upstream[i]) continue;
        struct nn_value_info value = nn_graph_value(graph, i);
        struct nn_shape shape = nn_value_shape(&value, rows);
        if (api_bind(request, api_document_tensor(&request->doc, "upstream", value.name), &shape,
                     nn_graph_dtype(graph), nn_backward_upstream(request->backward, i)))
            return (int)request->err.code;
    }
    return NN_OK;
}

static int fill_loss(struct api_request *request, int index, const struct nn_loss_options *options) {
    const struct nn_graph *graph = api_pass_graph(request);
    struct nn_loss_info loss = nn_graph_loss(graph, index);
    const struct api_tensor *target = target_of(request, loss.target);
    if (api_bind(request, target, &target->shape, options->target_ids ? NN_I64 : nn_graph_dtype(graph),
                 nn_backward_target(request->backward, index)))
        return (int)request->err.code;
    if (!loss.sample_weight) return NN_OK;
    const struct api_tensor *weight = target_of(request, loss.sample_weight);
    return api_bind(request, weight, &weight->shape, nn_graph_dtype(graph),
                    nn_backward_sample_weight(request->backward, index));
}

static int fill_losses(struct api_request *request, const struct nn_loss_options *options) {
    const struct nn_graph *graph = api_pass_graph(request);
    for (int i = 0; options && i < nn_graph_loss_count(graph); i++)
        if (!options[i].skip && fill_loss(request, i, &options[i])) return (int)request->err.code;
    if (nn_backward_check(request->backward, &request->err) == NN_OK) return NN_OK;
    return api_point(request, "targets", nn_graph_loss(graph, request->err.index).target);
}

int api_pass_backward(struct api_request *request, const struct nn_run *run, const bool *nodes,
                      bool parameters, const struct nn_loss_options **evaluated) {
    const struct nn_run_options *made = nn_run_options(run);
    struct nn_error *err = &request->err;
    struct nn_loss_options *losses;
    bool *upstream;
    if (read_losses(request, made->rows, &losses) || read_upstream(request, &upstream)) return (int)err->code;
    if (!losses && !upstream)
        return api_ask_wrong(request, API_MEMBER_OF_targets,
                             "given, or \"upstream\": a gradient begins somewhere");
    *evaluated = losses;
    if (api_reserve(request, api_pass_plan_bytes(api_pass_graph(request)))) return (int)err->code;
    struct nn_backward_options options = {losses, upstream, nodes, parameters};
    struct nn_plan *plan = nn_plan_backward(api_pass_graph(request), made, &options, err);
    if (!plan) return (int)err->code;
    if (api_reserve(request, nn_plan_bytes(plan))) {
        nn_plan_free(plan);
        return (int)err->code;
    }
    if (!(request->backward = nn_backward_new_take(run, plan, err))) return (int)err->code;
    if (fill_upstream(request, made->rows, upstream)) return (int)err->code;
    return fill_losses(request, losses);
}
