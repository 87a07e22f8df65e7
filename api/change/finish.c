/* finish.c - see finish.h. */
#include "finish.h"

#include <assert.h>
#include <stdlib.h>

#include "../model/context.h"
#include "../model/model.h"
#include "../request/metrics.h"
#include "../request/service.h"
#include "commit.h"
#include "effect.h"

void api_request_let_go(struct api_request *request) {
    nn_backward_free(request->backward);
    nn_run_free(request->run);
    nn_params_unref(request->params);
    size_t kept = request->papers;
    if (request->grads) kept += nn_graph_gradient_bytes(request->model->graph);
    if (api_commit_keeps_body(request)) {
        kept += request->size;
    } else {
        free(request->body);
        request->body = NULL;
        request->size = 0;
    }
    if (request->reserved > kept) {
        api_release(request->api, request->reserved - kept);
        request->reserved = kept;
    }
    request->backward = NULL;
    request->run = NULL;
    request->params = NULL;
    request->doc.n_tensors = 0;
}

int api_answer_ready(struct api_request *request) {
    return api_effect_note(request) ? (int)request->err.code : api_answer_encode(request);
}

/* Answers one request, without its followers. */
static void answer(struct api_request *request, int code) {
    struct api *api = request->api;
    api_reply_fn *reply = request->reply;
    void *context = request->reply_context;
    struct api_response *response;
    if (code == NN_OK && !request->ready) code = api_answer_ready(request);
    if (code == NN_OK) {
        api_context_settle(request);
        api_effect_end(request, true);
        response = request->ready;
        request->ready = NULL;
    } else {
        assert(request->err.code);
        api_context_unclaim(request); /* a failed request does not use its context up */
        api_effect_end(request, false);
        api_answer_drop(request);
        response = api_problem(request);
    }
    api_count_answer(request, response);
    if (response)
        api_response_detach(response);
    else
        request->drop(request);
    reply(context, response);
    atomic_fetch_sub(&api->in_flight, 1);
}

/* Ends a request that has no peer. */
static void end_quietly(struct api_request *request, int code) {
    api_reply_fn *reply = request->reply;
    void *context = request->reply_context;
    if (request->replay) request->replay->code = code;
    if (request->replay && code) request->replay->err = request->err;
    request->drop(request);
    reply(context, NULL);
}

void api_finish_now(struct api_request *request, int code) {
    struct nn_error err = request->err;
    for (struct api_request *next; request; request = next) {
        next = request->followers;
        if (code) request->err = err;
        if (request->quiet)
            end_quietly(request, code);
        else
            answer(request, code);
    }
}

void api_finish(struct api_request *request, int code) {
    assert(code != API_LATER);
    if (code) api_effects_revoke(request);
    if (!api_commit_over(request, &code)) return;
    if (code == NN_OK && api_wait_for_checkpoint(request)) return;
    api_finish_now(request, code);
}
