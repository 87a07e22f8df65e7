/* optimizer.c - /models/{m}/optimizer: get and set the optimizer's state, whole, in the model's turn. */
#include <string.h>

#include "../change/commit.h"
#include "../change/turns.h"
#include "../model/bind.h"
#include "../model/model.h"
#include "../model/registry.h"
#include "../model/state.h"

static int check(struct api_request *request) {
    if (request->model->optimizer) return NN_OK;
    return nn_fail(&request->err, NN_E_NO_OPTIMIZER, "the model has no optimizer");
}

/* Calls fn for every tensor of the state, until one fails. */
static int each_tensor(struct api_request *request,
                       int (*fn)(struct api_request *request, const char *name, int param, void *data,
                                 void *arg),
                       void *arg) {
    const struct api_model *model = request->model;
    for (int slot = 0; slot < nn_optimizer_slot_count(model->optimizer); slot++)
        for (int i = 0; i < nn_graph_param_count(model->graph); i++) {
            const struct nn_param *param = nn_graph_param(model->graph, i);
            if (param->kind != NN_TRAINED) continue;
            const char *name =
                api_state_name(request->arena, nn_optimizer_slot_name(model->optimizer, slot), param->name);
            if (!name) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
            if (fn(request, name, i, nn_optimizer_slot(model->optimizer, slot, i), arg))
                return (int)request->err.code;
        }
    return NN_OK;
}

/* Adds a copy: the answer outlives the turn, and the next step changes the state. */
static int add_copy(struct api_request *request, const char *name, int index, void *data, void *arg) {
    const struct nn_param *param = nn_graph_param(request->model->graph, index);
    enum nn_dtype dtype = nn_graph_dtype(request->model->graph);
    size_t size = nn_dtype_size(dtype);
    if (api_reserve(request, (size_t)param->elements * size)) return (int)request->err.code;
    void *copy = nn_arena_alloc(request->arena, (size_t)param->elements, size);
    if (!copy) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    memcpy(copy, data, (size_t)param->elements * size);
    return api_add_tensor(request, "state", name, &param->shape, dtype, copy, *(enum api_dtype *)arg);
}

/* Adds "steps", and "fresh" where there are such tensors. */
static int add_progress(struct api_request *request, const struct api_state *state) {
    json_t *fresh;
    if (api_count(request, api_state_bytes(state)) || api_add(request, "steps", api_state_steps_json(state)))
        return (int)request->err.code;
    if (api_state_fresh_json(state, request->arena, &fresh))
        return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    return fresh ? api_add(request, "fresh", fresh) : NN_OK;
}

static int read_state(struct api_request *request, struct api_state *state) {
    const struct api_model *model = request->model;
    if (api_state_init(state, request->arena, model->graph, model->optimizer)) return NN_OK;
    return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
}

static int turn_get(struct api_request *request) {
    const struct api_model *model = request->model;
    struct api_state state;
    enum api_dtype as = api_result_dtype(request, nn_graph_dtype(model->graph));
    if (check(request) || read_state(request, &state)) return (int)request->err.code;
    api_add_map(request, "state");
    if (api_add(request, "model", json_string(model->name)) ||
        api_add(request, "incarnation", json_string(model->incarnation)) ||
        api_add(request, "version", json_integer((json_int_t)nn_params_version(model->params))) ||
        api_add(request, "op", json_string(nn_optimizer_definition(model->optimizer)->name)) ||
        add_progress(request, &state))
        return (int)request->err.code;
    return each_tensor(request, add_copy, &as);
}

int api_get_optimizer(struct api_request *request) {
    if (api_model_find(request, request->name)) return (int)request->err.code;
    return api_model_turn(request, turn_get);
}

/* A tensor that was sent, converted, and its place in the state. */
struct change {
    struct change *next;
    void *to;
    const void *from;
    size_t size;
};

struct changes {
    struct change *first;
    size_t n;
};

/* Checks and converts a tensor. All are written only when all are good, so that a state is set whole or not at all. */
static int check_tensor(struct api_request *request, const char *name, int index, void *data, void *arg) {
    const struct nn_param *param = nn_graph_param(request->model->graph, index);
    enum nn_dtype dtype = nn_graph_dtype(request->model->graph);
    size_t size = (size_t)param->elements * nn_dtype_size(dtype);
    const struct api_tensor *tensor = api_document_tensor(&request->doc, "state", name);
    struct changes *changes = arg;
    if (!tensor) {
        nn_fail(&request->err, NN_E_VALUE, "\"%s\" is missing", name);
        return api_point(request, "state", name);
    }
    if (api_reserve(request, size)) return (int)request->err.code;
    void *copy = nn_arena_alloc(request->arena, size, 1);
    struct change *change = nn_arena_alloc(request->arena, 1, sizeof *change);
    if (!copy || !change) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    *change = (struct change){changes->first, data, copy, size};
    changes->first = change;
    changes->n++;
    return api_bind(request, tensor, &param->shape, dtype, copy);
}

/* Refuses a tensor under a name that its parameter has beside its owner's. */
static int check_owned(struct api_request *request) {
    const struct api_model *model = request->model;
    for (int i = 0; i < nn_graph_alias_count(model->graph); i++)
        for (int slot = 0; slot < nn_optimizer_slot_count(model->optimizer); slot++) {
            const struct nn_alias alias = nn_graph_alias(model->graph, i);
            const char *of = nn_optimizer_slot_name(model->optimizer, slot);
            const char *name = api_state_name(request->arena, of, alias.name);
            if (!name) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
            if (!api_document_tensor(&request->doc, "state", name)) continue;
            nn_fail(&request->err, NN_E_UNKNOWN_NAME, "\"%s\" is tied: here it is called \"%s\"", alias.name,
                    nn_graph_param(model->graph, alias.param)->name);
            return api_point(request, "state", name);
        }
    return NN_OK;
}

static int turn_put(struct api_request *request) {
    struct api_model *model = request->model;
    const char *op = request->ask.op;
    struct changes changes = {0};
    struct api_state state;
    if (check(request) || read_state(request, &state)) return (int)request->err.code;
    if (op && strcmp(op, nn_optimizer_definition(model->optimizer)->name) != 0) {
        nn_fail(&request->err, NN_E_VALUE, "the model's optimizer is %s",
                nn_optimizer_definition(model->optimizer)->name);
        return api_point(request, "op", NULL);
    }
    if (check_owned(request) || api_state_read(request, &state, request->ask.steps, request->ask.fresh) ||
        each_tensor(request, check_tensor, &changes))
        return (int)request->err.code;
    if (changes.n != request->doc.n_tensors)
        return nn_fail(&request->err, NN_E_UNKNOWN_NAME,
                       "the optimizer's state has %zu tensors, and %zu were sent", changes.n,
                       request->doc.n_tensors);
    if (api_add(request, "model", json_string(model->name)) ||
        api_add(request, "incarnation", json_string(model->incarnation)) ||
        api_add(request, "version", json_integer((json_int_t)nn_params_version(model->params))) ||
        add_progress(request, &state) || api_commit(request))
        return (int)request->err.code;
    for (const struct change *c = changes.first; c; c = c->next) memcpy(c->to, c->from, c->size);
    api_state_set(&state);
    api_model_note(request);
    return NN_OK;
}

int api_put_optimizer(struct api_request *request) {
    if (api_model_find(request, request->name)) return (int)request->err.code;
    return api_model_turn(request, turn_put);
}
