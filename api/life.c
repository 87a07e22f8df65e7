/* life.c - makes a request, and frees it. */
#include <math.h>
#include <stdlib.h>

#include "change/commit.h"
#include "life.h"
#include "model/context.h"
#include "model/model.h"
#include "pass/batch.h"
#include "request/client.h"
#include "request/service.h"

void api_request_free(struct api_request *request) {
    if (!request) return;
    api_client_leave(request);
    nn_backward_free(request->backward);
    nn_run_free(request->run);
    api_batch_unref(request->batch);
    api_commit_fini(request);
    nn_grads_free(request->grads);
    nn_grads_free(request->sum);
    nn_params_unref(request->params);
    nn_params_unref(request->fresh);
    api_context_unclaim(request);
    if (request->context) api_context_unref(request->api, request->context);
    if (request->model) api_model_unref(request->api, request->model);
    if (request->restored) api_model_unref(request->api, request->restored);
    api_document_fini(&request->doc);
    json_decref(request->answer.members);
    free(request->answer.page);
    api_release(request->api, request->reserved);
    nn_arena_free(request->arena);
    api_tokens_unref(request->tokens);
    free(request->body);
    free(request->query);
    free(request);
}

struct api_request *api_request_new(struct api *api) {
    struct api_request *request = calloc(1, sizeof *request);
    if (!request) return NULL;
    request->api = api;
    request->drop = api_request_free;
    request->lr = NAN;
    request->scale = 1;
    request->samples = 1;
    api_ask_init(&request->ask);
    if ((request->arena = nn_arena_new()))
        api_request_bound(request);
    else
        nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    return request;
}

static void reply_nobody(void *context, struct api_response *response) {
    (void)context;
    (void)response;
}

struct api_request *api_request_quiet(struct api *api, api_reply_fn *reply, void *context) {
    struct api_request *request = api_request_new(api);
    if (!request || request->err.code) return api_request_free(request), NULL;
    request->quiet = true;
    request->out = API_SAFETENSORS; /* an answer in safetensors takes no memory until it is encoded */
    request->reply = reply ? reply : reply_nobody;
    request->reply_context = context;
    return request;
}
