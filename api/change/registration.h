/* registration.h - how a model enters and leaves the registry. */
#ifndef API_REGISTRATION_H
#define API_REGISTRATION_H

#include "../model/registry.h"

/* Adds request->model to the registry, and queues the request as its first change. API_LATER; or NN_E_EXISTS,
 * NN_E_STALE, NN_E_CONDITION, NN_E_BUSY, NN_E_NOMEM. */
int api_model_register(struct api_request *request, int (*turn)(struct api_request *request));
/* In a turn: takes request->model out of the registry. Changes that wait get the error `code`. */
void api_model_remove(struct api_request *request, enum nn_code code);
/* In a turn: puts `next` in the place of request->model. */
void api_model_replace(struct api_request *request, struct api_model *next);

#endif
