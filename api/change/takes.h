/* takes.h - checks that a gradient is within the optimizer's bound (nn_optimizer_limit), before anything is
 * recorded. */
#ifndef API_TAKES_H
#define API_TAKES_H

#include "../request/request.h"

/* True if a record of format 0 is carried out again. Format 0 had no bound, so sums and optimizer states could
 * overflow, and later records build on the versions that resulted. */
bool api_takes_any(const struct api_request *request);
/* In a turn: checks `scale` times the gradient. NN_E_NOT_FINITE, with the parameter's name. */
int api_check_takes(struct api_request *request, const struct nn_grads *grads, double scale);
/* In a turn: checks the accumulation buffer as it would be with request->scale times request->grads added. A
 * contribution that would make it too great is refused, and the sum of the others stays. */
int api_check_takes_sum(struct api_request *request);

#endif
