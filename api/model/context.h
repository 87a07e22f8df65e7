/* context.h - kept tapes: forward passes whose backward comes in a later request.
 *
 * A context brings its own version, mode and seed. It is used up by one backward pass, unless that asks to
 * retain it; several may share a retained one. One that nobody used for the time to live is let go. */
#ifndef API_CONTEXT_H
#define API_CONTEXT_H

#include "../request/request.h"

struct api_context;

/* Makes a context of the request's run (with its model and memory), with an id that lives as long as the
 * request, which goes on showing the run. NN_E_NOMEM. */
int api_context_new(struct api_request *request, size_t bytes, const char **id);
/* Lists it, so that it outlives the request. NN_E_BUSY, NN_E_NOMEM, NN_E_NOT_FOUND (the model is gone). */
int api_context_keep(struct api_request *request);
/* Finds a context for a backward pass: request->context, ->model and ->params. An exclusive claim (not
 * `shared`) keeps others out until the request ends. NN_E_NOT_FOUND, NN_E_IN_USE. */
int api_context_claim(struct api_request *request, const char *id, bool shared);
/* Ends the claim of a request that succeeded: an exclusive one uses the context up, so that it is gone. */
void api_context_settle(struct api_request *request);
/* Ends the request's claim, if it has one; the context may be claimed again. */
void api_context_unclaim(struct api_request *request);

const struct nn_run *api_context_run(const struct api_context *context);

/* Lets one go. NN_E_NOT_FOUND, NN_E_IN_USE. */
int api_context_delete(struct api_request *request, const char *id);
/* Appends a description of each to `list`; of one, to the answer. */
int api_contexts_list(struct api_request *request, json_t *list);
json_t *api_context_describe(struct api_request *request, const char *id);

/* Lets go of all that have outlived their time; true if there were any. */
bool api_contexts_expire(struct api *api);
/* Lets go of a model's. */
void api_contexts_drop(struct api *api, const struct api_model *model);
void api_contexts_clear(struct api *api);
void api_context_unref(struct api *api, struct api_context *context);

#endif
