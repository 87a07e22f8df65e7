/* condition.h - the conditions that a request may set on a model's version: If-Match, If-None-Match, max_staleness.
 *
 * An entity tag is "INCARNATION-VERSION" with a suffix for the representation (RFC 9110, section 8.8.3). If-None-Match
 * of a pull compares whole tags. All other conditions compare incarnation and version; those of a change are checked at
 * the instant of the change. A weak tag counts as a strong one: a proxy that compresses an answer weakens its tag, and
 * all representations of a version hold the same numbers. A resource that belongs to no model has no tag; only *
 * matches it. max_staleness bounds how many versions old an applied gradient may be. */
#ifndef API_CONDITION_H
#define API_CONDITION_H

#include "../request/request.h"

/* Sets the answer's ETag for `version` of request->model; `names` are the parameters shown, NULL for all. True:
 * If-None-Match has the tag, and the answer must be 304, without a body. */
bool api_etag(struct api_request *request, uint64_t version, enum api_dtype dtype, const char *names);

/* True if a header's value is * or a list of entity tags. */
bool api_is_condition(const char *list);

/* Checks If-Match, then If-None-Match: of a read, against the version that is read; of a change, in its turn, against
 * the current version. `model` is NULL for a resource without a model. NN_E_STALE, NN_E_CONDITION. If-None-Match: * of
 * a GET makes the answer 304. */
int api_check_conditions(struct api_request *request, const struct api_model *model, uint64_t version);
/* The same for a model that is created. `existing` is the model that has its name, or NULL. With the registry's lock
 * held. */
int api_check_creation(struct api_request *request, const struct api_model *existing);

/* In a turn: checks that a gradient of version `seen` is not too old. NN_E_STALE. */
int api_check_staleness(struct api_request *request, uint64_t seen);
/* In a turn, before an update is published: counts the staleness of request->seen. */
void api_count_staleness(struct api_request *request);
/* The number of applied gradients by staleness. NULL: memory is out. With the lock held. */
json_t *api_staleness_json(const struct api_model *model);

#endif
