/* round.h - synchronous aggregation: contributions at one version, applied as one.
 *
 * A contribution waits in the model's round until all workers' are in, or until the time is up. Their mean
 * weighted by samples (or their sum) is added in the order of the worker ids, so that the result does not
 * depend on who came first, and applied once. A parameter that some of them do not name counts as 0 there;
 * one that nobody names stays untouched. A request that waits costs memory, but no thread. */
#ifndef API_ROUND_H
#define API_ROUND_H

#include "../request/request.h"

struct api_model;
struct api_policy;

/* Of one contribution; 10,000 of them still add up in 64 bits. */
#define API_MAX_SAMPLES (INT64_C(1) << 40)

/* Whether request->worker may contribute a gradient of version request->seen to the model's round, as far as
 * that can be told before the gradient is computed; NN_OK where the model has no rounds. Errors as below. */
int api_round_check(struct api_request *request);
/* In a turn: request->grads joins the round; the last to come ends it. NN_E_VALUE (no worker id),
 * NN_E_STALE (late for its version), NN_E_ROUND_TWICE, NN_E_NO_ROUND (an own learning rate), NN_E_BUSY (the
 * service is stopping), or API_LATER: the round answers. */
int api_round_join(struct api_request *request);

/* In a turn, after every change: ends a round whose time is up, whose version has passed, or whose model is
 * gone (`dead`). */
void api_round_settle(struct api *api, struct api_model *model, bool dead);
/* In a turn: ends a round with an error for all who wait. */
void api_round_fail(struct api *api, struct api_model *model, enum nn_code code, const char *why);

/* The round as GET /models/{m} shows it under a policy; NULL when memory is out. With the registry's lock
 * held. */
json_t *api_round_json(struct api *api, const struct api_model *model, const struct api_policy *policy);

#endif
