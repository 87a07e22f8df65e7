/* round.h - synchronous aggregation: contributions at one version are applied as one change.
 *
 * A contribution waits in the model's round until all workers have contributed, or until the time is up. Contributions
 * are added in the order of the workers' names, so the result does not depend on who came first. Their mean weighted by
 * samples, or their sum, is applied once. A parameter that only some contributions name counts as 0 in the others; a
 * parameter that none names stays untouched. A waiting request takes memory but no thread. */
#ifndef API_ROUND_H
#define API_ROUND_H

#include "../request/request.h"

struct api_model;
struct api_policy;

/* Checks, before a gradient is computed, whether request->ask.worker may contribute a gradient of version
 * request->seen. NN_OK where the model has no rounds. Errors as below. */
int api_round_check(struct api_request *request);
/* In a turn: adds request->grads to the round. The last contribution ends it. API_LATER: the round answers. NN_E_VALUE
 * (no worker's name), NN_E_STALE (of another version), NN_E_ROUND_TWICE, NN_E_NO_ROUND (a learning rate of its own),
 * NN_E_BUSY (the service is stopping). */
int api_round_join(struct api_request *request);

/* In a turn, after every change: ends a round whose time is up, whose version is no longer current, or whose model is
 * gone (`dead`). */
void api_round_settle(struct api *api, struct api_model *model, bool dead);
/* In a turn: ends a round with an error for all contributions. */
void api_round_fail(struct api *api, struct api_model *model, enum nn_code code, const char *why);

/* The round as GET /models/{m} shows it under this policy. NULL: memory is out. With the registry's lock held. */
json_t *api_round_json(struct api *api, const struct api_model *model, const struct api_policy *policy);

#endif
