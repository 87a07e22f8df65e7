/* update.h - changes of a model's parameters: each runs in the model's turn and answers the request. */
#ifndef API_UPDATE_H
#define API_UPDATE_H

#include "request.h"

/* The greatest learning rate, as in the optimizers' tables. */
#define API_MAX_LR 1e30

/* request->grads, applied by the model's optimizer; request->lr NaN means its own learning rate. */
int api_turn_apply(struct api_request *request);
/* request->scale * request->grads, added to the accumulation buffer. */
int api_turn_accumulate(struct api_request *request);
/* The accumulated sum, or with request->mean the mean, applied; the buffer is empty afterwards. */
int api_turn_step(struct api_request *request);
/* The document's "parameters", set. request->partial: some may be missing. */
int api_turn_set_parameters(struct api_request *request);

/* NN_E_NO_OPTIMIZER early, before any arithmetic. */
int api_check_optimizer(struct api_request *request);

#endif
