/* bind.h - converts the tensors of a request into core's memory. */
#ifndef API_BIND_H
#define API_BIND_H

#include "../request/request.h"

/* Checks a tensor's shape and converts it. In `shape`, -1 stands for the batch dimension, which may have any size. */
int api_bind(struct api_request *request, const struct api_tensor *tensor, const struct nn_shape *shape,
             enum nn_dtype dtype, void *out);
/* The same for something of a parameter's shape and type. A count of batches is 0 or more. */
int api_bind_param(struct api_request *request, const struct api_tensor *tensor, const struct nn_param *param,
                   void *out);
int api_bind_shape(struct api_request *request, const struct api_tensor *tensor,
                   const struct nn_shape *shape);
/* Checks that `find` knows the name of every tensor of a map (it returns 0 or more). NN_E_UNKNOWN_NAME. */
int api_bind_names(struct api_request *request, const char *map,
                   int (*find)(const struct nn_graph *graph, const char *name), const struct nn_graph *graph);
/* Refuses names that parameters have beside their owner's, in a map that knows the owners' names alone; the message has
 * the owner's. NN_E_UNKNOWN_NAME. */
int api_bind_owned_names(struct api_request *request, const char *map, const struct nn_graph *graph);
/* Converts the map "parameters" into `params`. A parameter may be given under any of its names, or under several with
 * the same numbers. A missing parameter is an error unless `partial`. */
int api_bind_parameters(struct api_request *request, struct nn_params *params, bool partial);

#endif
