/* coalesce.h - computes eval forwards of one model together.
 *
 * A model may ask for it ("coalesce"). All its eval forwards, single ones too, then run in tiles of one height, padded
 * with rows of zeros. At that height (nn_blas_tile) a row's bits do not depend on its place or on other rows, so each
 * request gets the bytes that it would get alone.
 *
 * While a batch is computed, new requests gather in the next batch. A request checks all that can fail, writes its
 * inputs into rows of its own in the batch's memory, and waits without a thread. The thread that computes the batch
 * answers all its requests. A batch reads the version that is current when its computing begins. The answers show the
 * batch's memory, which lives until the last of them was sent. */
#ifndef API_COALESCE_H
#define API_COALESCE_H

#include "../request/request.h"

struct api_model;
struct api_policy;

/* Checks that a model of this graph may have this policy. NN_E_NOT_COALESCABLE. */
int api_coalesce_check(struct api_request *request, const struct nn_graph *graph,
                       const struct api_policy *policy);
/* True if eval forwards of request->model are coalesced. */
bool api_coalesces(struct api_request *request);

/* The number of rows that are computed if `rows` rows of request->model come alone: a multiple of the tile. */
int64_t api_coalesce_rows(struct api_request *request, int64_t rows);
/* Runs an eval forward that shows the `wanted` nodes. API_LATER: the batch answers the request. Any other code: the
 * request failed, before any arithmetic. All checks come first, and so does memory, that of the answer included. */
int api_coalesce_forward(struct api_request *request, const struct nn_run_options *options,
                         const bool *wanted);

/* The member "coalesce" of GET /models/{m} under this policy: null where forwards are not coalesced. NULL: memory is
 * out. With the registry's lock held. */
json_t *api_coalesce_json(const struct api *api, const struct api_model *model,
                          const struct api_policy *policy);

#endif
