/* context.h - kept tapes: forward passes whose backward pass comes in a later request.
 *
 * A context has its own version, mode and seed. One backward pass uses it up, unless the request asks to retain it;
 * several passes may share a retained context. A context that is not used for its time to live is freed. */
#ifndef API_CONTEXT_H
#define API_CONTEXT_H

#include "../request/request.h"

struct api_context;

/* Makes request->context of the request's model, its run and `bytes` of its reservation. The run becomes the context's;
 * the request's answer may still show it. *id lives as long as the request. NN_E_NOMEM. */
int api_context_new(struct api_request *request, size_t bytes, const char **id);
/* Puts the context into the table, so that it outlives the request. NN_E_BUSY, NN_E_NOMEM, NN_E_NOT_FOUND (the model is
 * gone). */
int api_context_keep(struct api_request *request);
/* Claims a context for a backward pass: sets request->context, ->model and ->params. A claim that is not `shared`
 * excludes all others until the request ends. NN_E_NOT_FOUND, NN_E_IN_USE. */
int api_context_claim(struct api_request *request, const char *id, bool shared);
/* Before a change by a gradient of the request's context: whether the change has the statistics that the context's pass
 * saw. Only the first that succeeds has them, so that buffers move once for each batch. */
bool api_context_tell(struct api_request *request);
/* Ends the claim of a request that succeeded. An exclusive claim uses the context up: it leaves the table. */
void api_context_settle(struct api_request *request);
/* Ends the request's claim, if it has one. The context may be claimed again. */
void api_context_unclaim(struct api_request *request);

const struct nn_run *api_context_run(const struct api_context *context);

/* Sets request->model to the context's model. NN_E_NOT_FOUND. */
int api_context_find_model(struct api_request *request, const char *id);
/* Frees a context. NN_E_NOT_FOUND, NN_E_IN_USE. */
int api_context_delete(struct api_request *request, const char *id);
/* The descriptions of all contexts, appended to `list`; and of one. NULL: an error, which is recorded. */
int api_contexts_list(struct api_request *request, json_t *list);
json_t *api_context_describe(struct api_request *request, const char *id);

/* Frees the contexts whose time to live is over. True: there were some. */
bool api_contexts_expire(struct api *api);
/* Frees the contexts of a model. */
void api_contexts_drop(struct api *api, const struct api_model *model);
void api_contexts_clear(struct api *api);
void api_context_unref(struct api *api, struct api_context *context);

#endif
