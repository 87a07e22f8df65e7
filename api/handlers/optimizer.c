/* optimizer.c - GET and PUT /models/{m}/optimizer: the state, in the model's turn, so that it is whole.
 * A tensor of the state is named SLOT.PARAMETER: "exp_avg.0.weight". */
#include <string.h>

#include "../model/bind.h"
#include "../model/model.h"

/* "exp_avg.0.weight", in the arena. */
static const char *state_name(struct api_request *request, const char *slot, const char *param) {
    size_t n = strlen(slot), m = strlen(param);
    char *name = nn_arena_alloc(request->arena, n + m + 2, 1);
    if (!name) return nn_fail(&request->err, NN_E_NOMEM, "memory is out"), NULL;
    memcpy(name, slot, n);
    name[n] = '.';
    memcpy(name + n + 1, param, m);
    return name;
}

static int check(struct api_request *request) {
    if (request->model->optimizer) return NN_OK;
    return nn_fail(&request->err, NN_E_NO_OPTIMIZER, "the model has no optimizer");
}

/* Calls fn for every tensor of the state, by name; stops at the first error. */
static int each_tensor(struct api_request *request,
                       int (*fn)(struct api_request *request, const char *name, int param, void *data,
                                 void *arg),
                       void *arg) {
    const struct api_model *model = request->model;
    for (int slot = 0; slot < nn_optimizer_slot_count(model->optimizer); slot++)
        for (int i = 0; i < nn_graph_param_count(model->graph); i++) {
            const struct nn_param *param = nn_graph_param(model->graph, i);
            if (!param->trainable) continue;
            const char *name =
                state_name(request, nn_optimizer_slot_name(model->optimizer, slot), param->name);
            if (!name || fn(request, name, i, nn_optimizer_slot(model->optimizer, slot, i), arg))
                return (int)request->err.code;
        }
    return NN_OK;
}

/* The answer outlives the turn, and the next step would change what it shows: so it shows a copy. */
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

static int turn_get(struct api_request *request) {
    const struct api_model *model = request->model;
    enum api_dtype as;
    if (check(request) || api_result_dtype(request, nn_graph_dtype(model->graph), &as))
        return (int)request->err.code;
    api_add_map(request, "state");
    if (api_add(request, "model", json_string(model->name)) ||
        api_add(request, "incarnation", json_string(model->incarnation)) ||
        api_add(request, "version", json_integer((json_int_t)nn_params_version(model->params))) ||
        api_add(request, "op", json_string(nn_optimizer_definition(model->optimizer)->name)) ||
        api_add(request, "steps", json_integer((json_int_t)nn_optimizer_steps(model->optimizer))))
        return (int)request->err.code;
    return each_tensor(request, add_copy, &as);
}

int api_get_optimizer(struct api_request *request) {
    if (api_query_check(request, "dtype") || api_model_find(request, request->name))
        return (int)request->err.code;
    return api_model_turn(request, turn_get);
}

/* One tensor that was sent, converted, and where it goes. */
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

/* First all are checked and converted, then all are written: a state is set whole or not at all. */
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

static int turn_put(struct api_request *request) {
    struct api_model *model = request->model;
    int64_t steps = -1;
    const char *op = NULL;
    struct changes changes = {0};
    if (check(request) || api_get_integer(request, "steps", 0, API_MAX_SEED, &steps) ||
        api_get_string(request, "op", &op))
        return (int)request->err.code;
    if (op && strcmp(op, nn_optimizer_definition(model->optimizer)->name) != 0) {
        nn_fail(&request->err, NN_E_VALUE, "the model's optimizer is %s",
                nn_optimizer_definition(model->optimizer)->name);
        return api_point(request, "op", NULL);
    }
    if (steps < 0) {
        nn_fail(&request->err, NN_E_VALUE, "\"steps\" must be given: how many were taken");
        return api_point(request, "steps", NULL);
    }
    if (each_tensor(request, check_tensor, &changes)) return (int)request->err.code;
    if (changes.n != request->doc.n_tensors)
        return nn_fail(&request->err, NN_E_UNKNOWN_NAME,
                       "the optimizer's state has %zu tensors, and %zu were sent", changes.n,
                       request->doc.n_tensors);
    if (api_add(request, "model", json_string(model->name)) ||
        api_add(request, "incarnation", json_string(model->incarnation)) ||
        api_add(request, "version", json_integer((json_int_t)nn_params_version(model->params))) ||
        api_add(request, "steps", json_integer((json_int_t)steps)) || api_commit(request))
        return (int)request->err.code;
    for (const struct change *c = changes.first; c; c = c->next) memcpy(c->to, c->from, c->size);
    nn_optimizer_set_steps(model->optimizer, (uint64_t)steps);
    api_model_note(request);
    return NN_OK;
}

int api_put_optimizer(struct api_request *request) {
    if (api_query_check(request, "") || api_model_find(request, request->name)) return (int)request->err.code;
    return api_model_turn(request, turn_put);
}
