/* bind.h - tensors of a request into the places that core has for them. */
#ifndef API_BIND_H
#define API_BIND_H

#include "../request/request.h"

/* Checks a tensor's shape (a dimension of -1 in `shape` is the batch's, and may be any) and converts it. */
int api_bind(struct api_request *request, const struct api_tensor *tensor, const struct nn_shape *shape,
             enum nn_dtype dtype, void *out);
int api_bind_shape(struct api_request *request, const struct api_tensor *tensor,
                   const struct nn_shape *shape);
/* Every tensor of a map bears a name that `find` knows (0 or more). NN_E_UNKNOWN_NAME. */
int api_bind_names(struct api_request *request, const char *map,
                   int (*find)(const struct nn_graph *graph, const char *name), const struct nn_graph *graph);
/* All parameters of the map "parameters" into `params`; missing ones are an error unless `partial`. */
int api_bind_parameters(struct api_request *request, struct nn_params *params, bool partial);

#endif
