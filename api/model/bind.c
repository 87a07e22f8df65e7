/* bind.c - see bind.h. */
#include <string.h>

#include "bind.h"

static int point_tensor(struct api_request *request, const struct api_tensor *tensor) {
    return api_point(request, tensor->member, tensor->name);
}

int api_bind_shape(struct api_request *request, const struct api_tensor *tensor,
                   const struct nn_shape *shape) {
    bool same = tensor->shape.rank == shape->rank;
    for (int i = 0; same && i < shape->rank; i++)
        same = shape->dim[i] < 0 || tensor->shape.dim[i] == shape->dim[i];
    if (same && shape->rank && tensor->shape.dim[0] == 0) {
        nn_fail_shape(&request->err, shape, &tensor->shape, "a batch has at least one row");
        return point_tensor(request, tensor);
    }
    if (same) return NN_OK;
    nn_fail_shape(&request->err, shape, &tensor->shape, "\"%s\" has the wrong shape", tensor->name);
    return point_tensor(request, tensor);
}

int api_bind(struct api_request *request, const struct api_tensor *tensor, const struct nn_shape *shape,
             enum nn_dtype dtype, void *out) {
    if (api_bind_shape(request, tensor, shape)) return (int)request->err.code;
    bool same = tensor->data && tensor->dtype == api_dtype_of(dtype);
    if (same && api_elements_copy(tensor->data, dtype, out, nn_shape_elements(&tensor->shape),
                                  api_parallel(request->api)))
        return NN_OK;
    if (api_tensor_convert(tensor, dtype, out, &request->err)) return point_tensor(request, tensor);
    return NN_OK;
}

int api_bind_param(struct api_request *request, const struct api_tensor *tensor, const struct nn_param *param,
                   void *out) {
    if (api_bind(request, tensor, &param->shape, param->dtype, out)) return (int)request->err.code;
    if (param->dtype != NN_I64) return NN_OK;
    const int64_t count = *(const int64_t *)out;
    if (count >= 0 && count <= API_MAX_SEED) return NN_OK;
    nn_fail(&request->err, NN_E_VALUE, "\"%s\" counts batches, from 0 to 2^53 - 1", param->name);
    return point_tensor(request, tensor);
}

int api_bind_names(struct api_request *request, const char *map,
                   int (*find)(const struct nn_graph *graph, const char *name),
                   const struct nn_graph *graph) {
    for (size_t i = 0; i < request->doc.n_tensors; i++) {
        const struct api_tensor *tensor = &request->doc.tensors[i];
        if (strcmp(tensor->member, map) != 0 || find(graph, tensor->name) >= 0) continue;
        nn_fail(&request->err, NN_E_UNKNOWN_NAME, "nothing in \"%s\" is named \"%.100s\" here", map,
                tensor->name);
        return point_tensor(request, tensor);
    }
    return NN_OK;
}

int api_bind_owned_names(struct api_request *request, const char *map, const struct nn_graph *graph) {
    for (int i = 0; i < nn_graph_alias_count(graph); i++) {
        const struct nn_alias alias = nn_graph_alias(graph, i);
        const struct api_tensor *tensor = api_document_tensor(&request->doc, map, alias.name);
        if (!tensor) continue;
        nn_fail(&request->err, NN_E_UNKNOWN_NAME, "\"%s\" is tied: in \"%s\" it is called \"%s\"", alias.name,
                map, nn_graph_param(graph, alias.param)->name);
        return point_tensor(request, tensor);
    }
    return NN_OK;
}

static int bind_parameter(struct api_request *request, const struct api_tensor *tensor,
                          struct nn_params *params, int param) {
    const struct nn_param *info = nn_graph_param(nn_params_graph(params), param);
    return api_bind_param(request, tensor, info, nn_params_data(params, param));
}

/* Checks a tensor against what its parameter has got under another name. */
static int compare_alias(struct api_request *request, const struct api_tensor *tensor, const char *first,
                         const struct nn_params *params, int param) {
    const struct nn_graph *graph = nn_params_graph(params);
    const struct nn_param *of = nn_graph_param(graph, param);
    const size_t bytes = of->bytes;
    if (api_reserve(request, bytes)) return (int)request->err.code;
    void *again = nn_arena_alloc(request->arena, bytes, 1);
    if (!again) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    if (api_bind_param(request, tensor, of, again)) return (int)request->err.code;
    if (memcmp(again, nn_params_view(params, param), bytes) == 0) return NN_OK;
    nn_fail(&request->err, NN_E_VALUE, "\"%s\" and \"%s\" are one parameter, and differ here", tensor->name,
            first);
    return point_tensor(request, tensor);
}

/* Converts what is given under the other names of parameters. `by` tells, by parameter, the name that it was given
 * under; NULL: it was not. */
static int bind_aliases(struct api_request *request, struct nn_params *params, const char **by) {
    const struct nn_graph *graph = nn_params_graph(params);
    for (int i = 0; i < nn_graph_alias_count(graph); i++) {
        const struct nn_alias alias = nn_graph_alias(graph, i);
        const struct api_tensor *tensor = api_document_tensor(&request->doc, "parameters", alias.name);
        if (!tensor) continue;
        if (by[alias.param] ? compare_alias(request, tensor, by[alias.param], params, alias.param)
                            : bind_parameter(request, tensor, params, alias.param))
            return (int)request->err.code;
        by[alias.param] = alias.name;
    }
    return NN_OK;
}

int api_bind_parameters(struct api_request *request, struct nn_params *params, bool partial) {
    const struct nn_graph *graph = nn_params_graph(params);
    const int n = nn_graph_param_count(graph);
    if (api_bind_names(request, "parameters", nn_graph_param_find_any, graph)) return (int)request->err.code;
    const char **by = nn_arena_alloc(request->arena, (size_t)n + 1, sizeof *by);
    if (!by) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    for (int i = 0; i < n; i++) {
        const char *name = nn_graph_param(graph, i)->name;
        const struct api_tensor *tensor = api_document_tensor(&request->doc, "parameters", name);
        if (!tensor) continue;
        if (bind_parameter(request, tensor, params, i)) return (int)request->err.code;
        by[i] = name;
    }
    if (bind_aliases(request, params, by)) return (int)request->err.code;
    for (int i = 0; i < n && !partial; i++) {
        if (by[i]) continue;
        nn_fail(&request->err, NN_E_VALUE, "parameter \"%s\" is missing", nn_graph_param(graph, i)->name);
        return api_point(request, "parameters", nn_graph_param(graph, i)->name);
    }
    return NN_OK;
}
