/* update.h - changes of a model's parameters: each runs in the model's turn and answers the request. */
#ifndef API_UPDATE_H
#define API_UPDATE_H

#include "../request/request.h"

/* request->grads, applied by the model's optimizer, or left with its round (API_LATER); request->lr NaN means its own learning rate. */
int api_turn_apply(struct api_request *request);
/* The same for a round's aggregate, in the name of one of its contributions. */
int api_turn_apply_alone(struct api_request *request, struct nn_grads *sum, int contributions,
                         int64_t samples);
/* What an answer tells of its round. */
int api_add_round(struct api_request *request, int contributions, int64_t samples);
/* request->scale * request->grads, added to the accumulation buffer. */
int api_turn_accumulate(struct api_request *request);
/* The accumulated sum, or with request->mean the mean, applied; the buffer is empty afterwards. */
int api_turn_step(struct api_request *request);
/* The document's "parameters", set. request->partial: some may be missing. */
int api_turn_set_parameters(struct api_request *request);

/* The version held in request->params blended into the model's: theta = tau from + (1 - tau) theta. */
int api_turn_blend(struct api_request *request);

/* In a turn: empties the accumulation buffer. */
void api_clear_sum(struct api_request *request);

/* A member that is true, false, or an object with one number: {"lr": 0.1}. */
int api_read_switch(struct api_request *request, const char *member, const char *option, bool *on,
                    double *value);
/* Whether request->lr, if one was given, may be; else an error at `member`. */
int api_check_lr(struct api_request *request, const char *member);
/* "worker", if it is given: NN_E_NAME. */
int api_read_worker(struct api_request *request);
/* request->grads as the map "gradients". */
int api_add_gradients(struct api_request *request, enum api_dtype as);

/* NN_E_NO_OPTIMIZER or NN_E_STOPPED early, before any arithmetic. */
int api_check_optimizer(struct api_request *request);

#endif
