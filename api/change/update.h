/* update.h - changes of a model's parameters. Each runs in the model's turn and answers its request. */
#ifndef API_UPDATE_H
#define API_UPDATE_H

#include "../request/request.h"

struct api_model;

/* Applies request->grads by the model's optimizer, or adds it to the round (API_LATER). request->lr: NaN means the
 * optimizer's own learning rate. */
int api_turn_apply(struct api_request *request);
/* Applies a round's aggregate, in the name of one of its contributions. */
int api_turn_apply_alone(struct api_request *request, struct nn_grads *sum, int contributions,
                         int64_t samples);
/* Adds "round" to an answer. */
int api_add_round(struct api_request *request, int contributions, int64_t samples);
/* Adds request->scale * request->grads to the accumulation buffer. */
int api_turn_accumulate(struct api_request *request);
/* Applies the accumulated sum, or with request->ask.mean the mean, to the parameters that a contribution named. The
 * buffer is empty afterwards. */
int api_turn_step(struct api_request *request);
/* Sets the document's "parameters". With request->ask.partial some may be missing. */
int api_turn_set_parameters(struct api_request *request);

/* Blends the version in request->params into the model's: theta = tau from + (1 - tau) theta. */
int api_turn_blend(struct api_request *request);

/* In a turn: empties the accumulation buffer. */
void api_clear_sum(struct api_request *request);

/* Adds request->grads to the answer: as the map "gradients" the parameters of request->only, and as the map "buffers"
 * the statistics, where the model has buffers. */
int api_add_gradients(struct api_request *request, enum api_dtype as);

/* NN_E_NO_OPTIMIZER or NN_E_STOPPED, before any arithmetic. */
int api_check_optimizer(struct api_request *request);

#endif
