/* condition.h - the conditions that a request may set on a model's version.
 *
 * An entity tag is "INCARNATION-VERSION" with a suffix for the representation (RFC 9110, section 8.8.3).
 * If-None-Match compares whole tags; If-Match compares incarnation and version, at the instant of the
 * change; max_staleness bounds how many versions old a gradient may be when it is applied. */
#ifndef API_CONDITION_H
#define API_CONDITION_H

#include "../request/request.h"

/* Sets the answer's ETag for `version` of request->model; `names` (NULL: all) are those of the parameters
 * shown. True: If-None-Match names it, and the answer is to be 304, without a body. */
bool api_etag(struct api_request *request, uint64_t version, enum api_dtype dtype, const char *names);

/* In a turn, or under the registry's lock: whether If-Match names this version of request->model, or is
 * absent. NN_E_STALE. */
int api_check_match(struct api_request *request, uint64_t version);

/* Reads "max_staleness" of the request. */
int api_read_staleness(struct api_request *request);
/* In a turn: whether a gradient of version `seen` may still be applied. NN_E_STALE. */
int api_check_staleness(struct api_request *request, uint64_t seen);
/* In a turn, before an update is published: counts how old request->seen has become. */
void api_count_staleness(struct api_request *request);
/* The greatest staleness that a bucket counts. */
uint64_t api_staleness_most(int bucket);
/* How many gradients were applied at which staleness; NULL when memory is out. With the lock held. */
json_t *api_staleness_json(const struct api_model *model);

#endif
