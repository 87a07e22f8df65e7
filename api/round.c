/* round.c - one model's round. The list of those who wait is changed in the model's turn, with the
 * registry's lock held, so that either is enough to read it. */
#include "round.h"

#include <math.h>
#include <string.h>

#include "model.h"
#include "service.h"
#include "update.h"

/* --- the list --------------------------------------------------------------------------------------- */

/* In the order of the worker ids. */
static void add(struct api *api, struct api_model *model, struct api_request *request) {
    struct api_round *round = &model->round;
    pthread_mutex_lock(&api->lock);
    struct api_request **link = &round->first;
    while (*link && strcmp((*link)->worker, request->worker) < 0) link = &(*link)->next;
    request->next = *link;
    *link = request;
    if (round->count++ == 0) {
        round->version = nn_params_version(model->params);
        round->since_ms = api_now_ms(api);
    }
    pthread_mutex_unlock(&api->lock);
}

/* All who wait; the round is empty afterwards. */
static struct api_request *take_all(struct api *api, struct api_model *model) {
    pthread_mutex_lock(&api->lock);
    struct api_request *first = model->round.first;
    model->round = (struct api_round){0};
    pthread_mutex_unlock(&api->lock);
    return first;
}

static bool is_in(const struct api_round *round, const char *worker) {
    for (const struct api_request *r = round->first; r; r = r->next)
        if (strcmp(r->worker, worker) == 0) return true;
    return false;
}

/* --- ending ----------------------------------------------------------------------------------------- */

static void fail_all(struct api_request *first, enum nn_code code, const char *why) {
    for (struct api_request *next; first; first = next) {
        next = first->next;
        api_finish(first, nn_fail(&first->err, code, "%s", why));
    }
}

void api_round_fail(struct api *api, struct api_model *model, enum nn_code code, const char *why) {
    fail_all(take_all(api, model), code, why);
}

/* The contributions' mean or sum, in the first one's gradient, in their order. */
static void aggregate(struct api_request *first, const struct api_policy *policy, int64_t samples) {
    const struct nn_parallel *par = api_parallel(first->api);
    double total = policy->sum ? 1 : (double)samples;
    nn_grads_scale(first->grads, (policy->sum ? 1 : (double)first->samples) / total, par);
    for (struct api_request *r = first->next; r; r = r->next)
        nn_grads_add(first->grads, r->grads, (policy->sum ? 1 : (double)r->samples) / total, par);
}

/* A parameter that nobody named stays untouched. */
static void unite_names(struct api_request *first) {
    int n = nn_graph_param_count(first->model->graph);
    bool *only = first->only;
    for (struct api_request *r = first; r; r = r->next)
        if (!r->only) only = NULL;
    for (struct api_request *r = first->next; r && only; r = r->next)
        for (int i = 0; i < n; i++) only[i] |= r->only[i];
    first->only = only;
}

static int add_round(struct api_request *request, json_int_t version, int contributions, int64_t samples) {
    if (api_add(request, "applied_version", json_integer(version))) return (int)request->err.code;
    return api_add(request, "round",
                   json_pack("{s:i, s:I}", "contributions", contributions, "samples", (json_int_t)samples));
}

/* Applies the round as one change, made in the name of its first contribution. */
static void apply_all(struct api *api, struct api_model *model) {
    int contributions = model->round.count;
    struct api_request *first = take_all(api, model);
    int64_t samples = 0;
    for (struct api_request *r = first; r; r = r->next) samples += r->samples;
    aggregate(first, &model->policy, samples);
    unite_names(first);
    int code = api_turn_apply_alone(first, contributions, samples);
    if (code != NN_OK) {
        struct nn_error err = first->err;
        for (struct api_request *next; first; first = next) {
            next = first->next;
            first->err = err;
            api_finish(first, code);
        }
        return;
    }
    json_int_t version = (json_int_t)nn_params_version(model->params);
    for (struct api_request *r = first->next, *next; r; r = next) {
        next = r->next;
        api_finish(r, add_round(r, version, contributions, samples));
    }
    api_finish(first, NN_OK);
}

/* --- joining ---------------------------------------------------------------------------------------- */

static int check(struct api_request *request) {
    const struct api_model *model = request->model;
    uint64_t now = nn_params_version(model->params);
    if (!request->worker) {
        nn_fail(&request->err, NN_E_VALUE, "\"worker\" must be given: the model aggregates in rounds");
        return api_point(request, "worker", NULL);
    }
    if (!isnan(request->lr))
        return nn_fail(&request->err, NN_E_NO_ROUND, "a round has the model's own learning rate");
    if (request->seen != now)
        return nn_fail(&request->err, NN_E_STALE,
                       "the round is at version %llu, and this is of %llu: pull, and compute anew",
                       (unsigned long long)now, (unsigned long long)request->seen);
    if (is_in(&model->round, request->worker))
        return nn_fail(&request->err, NN_E_ROUND_TWICE, "\"%.100s\" is in this round already",
                       request->worker);
    if (atomic_load(&request->api->draining))
        return nn_fail(&request->err, NN_E_BUSY, "the service is stopping, and begins no rounds");
    return NN_OK;
}

int api_round_join(struct api_request *request) {
    struct api *api = request->api;
    struct api_model *model = request->model;
    if (check(request)) return (int)request->err.code;
    add(api, model, request);
    if (model->round.count >= model->policy.workers) apply_all(api, model);
    return API_LATER;
}

void api_round_settle(struct api *api, struct api_model *model) {
    struct api_round *round = &model->round;
    if (!round->first) return;
    bool due = api_now_ms(api) >= round->since_ms + model->policy.timeout_ms || atomic_load(&api->draining);
    if (model->dead)
        api_round_fail(api, model, NN_E_NOT_FOUND, "the model was deleted meanwhile");
    else if (round->version != nn_params_version(model->params))
        api_round_fail(api, model, NN_E_STALE, "the parameters were changed while the round waited");
    else if (due && round->count >= model->policy.quorum)
        apply_all(api, model);
    else if (due)
        api_round_fail(api, model, NN_E_ROUND_FAILED, "the time was up before there was a quorum");
}

/* --- telling ---------------------------------------------------------------------------------------- */

json_t *api_round_json(struct api *api, const struct api_model *model) {
    const struct api_round *round = &model->round;
    json_t *workers = json_array();
    int failed = !workers;
    for (const struct api_request *r = round->first; r; r = r->next)
        failed |= json_array_append_new(workers, json_string(r->worker));
    json_int_t since = round->first ? api_now_ms(api) - round->since_ms : 0;
    json_t *json = failed ? NULL
                          : json_pack("{s:I, s:O, s:i, s:I}", "version",
                                      (json_int_t)nn_params_version(model->params), "workers", workers,
                                      "missing", model->policy.workers - round->count, "since_ms", since);
    json_decref(workers);
    return json;
}
