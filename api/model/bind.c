/* bind.c - tensors of a request into the places that core has for them. */
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

int api_bind_parameters(struct api_request *request, struct nn_params *params, bool partial) {
    const struct nn_graph *graph = nn_params_graph(params);
    if (api_bind_names(request, "parameters", nn_graph_param_find, graph)) return (int)request->err.code;
    for (int i = 0; i < nn_graph_param_count(graph); i++) {
        const struct nn_param *param = nn_graph_param(graph, i);
        const struct api_tensor *tensor = api_document_tensor(&request->doc, "parameters", param->name);
        if (!tensor && partial) continue;
        if (!tensor) {
            nn_fail(&request->err, NN_E_VALUE, "parameter \"%s\" is missing", param->name);
            return api_point(request, "parameters", param->name);
        }
        if (api_bind(request, tensor, &param->shape, nn_graph_dtype(graph), nn_params_data(params, i)))
            return (int)request->err.code;
    }
    return NN_OK;
}
