/* coalesce.h - eval forwards of one model that are computed together.
 *
 * A model may ask for it ("coalesce"). Its eval forwards, a lone one too, then run in tiles of one height,
 * at which a row's bits do not depend on its place or its company (nn_blas_tile), padded with rows of zeros.
 * So each answers the bytes that it would get alone.
 *
 * While a batch of the model is computed, requests that come meanwhile gather in the next. A request checks
 * all that can fail, writes its inputs into rows of its own in the batch's block, and waits without a thread;
 * who computes the batch answers them all. A batch is computed at one version, the current one when it
 * begins. Its answers show its block, which lives until the last of them has been sent. */
#ifndef API_COALESCE_H
#define API_COALESCE_H

#include "../request/request.h"

struct api_model;
struct api_policy;

/* Whether a model of this graph may have this policy: NN_E_NOT_COALESCABLE. */
int api_coalesce_check(struct api_request *request, const struct nn_graph *graph,
                       const struct api_policy *policy);
/* Whether eval forwards of request->model are coalesced. */
bool api_coalesces(struct api_request *request);

/* An eval forward of `wanted` (by node), whose options are read. All that can fail fails now, memory for the
 * answer included. API_LATER: the batch answers. */
int api_coalesce_forward(struct api_request *request, const struct nn_run_options *options,
                         const bool *wanted);

/* What GET /models/{m} shows under a policy: null where forwards are not coalesced; NULL when memory is out.
 * With the registry's lock held. */
json_t *api_coalesce_json(const struct api *api, const struct api_model *model,
                          const struct api_policy *policy);

#endif
