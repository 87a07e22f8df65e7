/* round.c - see round.h. The list of contributions changes only in the model's turn with the lock held: the turn or the
 * lock is enough to read it. */
#include "round.h"

#include <math.h>
#include <string.h>

#include "../model/model.h"
#include "../request/metrics.h"
#include "../request/service.h"
#include "commit.h"
#include "finish.h"
#include "takes.h"
#include "update.h"

/* --- the list --------------------------------------------------------------------------------------- */

/* Inserts a contribution in the order of the workers' names. */
static void add(struct api *api, struct api_model *model, struct api_request *request) {
    struct api_round *round = &model->round;
    pthread_mutex_lock(&api->lock);
    struct api_request **link = &round->first;
    while (*link && strcmp((*link)->ask.worker, request->ask.worker) < 0) link = &(*link)->next;
    request->next = *link;
    *link = request;
    if (round->count++ == 0) {
        round->version = nn_params_version(model->params);
        round->since_ms = api_now_ms(api);
    }
    pthread_mutex_unlock(&api->lock);
}

/* Takes all contributions out of the round. */
static struct api_request *take_all(struct api *api, struct api_model *model) {
    pthread_mutex_lock(&api->lock);
    struct api_request *first = model->round.first;
    model->round = (struct api_round){0};
    pthread_mutex_unlock(&api->lock);
    return first;
}

static bool is_in(const struct api_round *round, const char *worker) {
    for (const struct api_request *r = round->first; r; r = r->next)
        if (strcmp(r->ask.worker, worker) == 0) return true;
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
    struct api_request *first = take_all(api, model);
    if (first) api_count_round(api, (int)code);
    fail_all(first, code, why);
}

/* Makes the buffers of the round's gradient the mean of what each worker's replica would hold, by samples. */
static int average_buffers(struct api_request *first, struct nn_grads *sum, int64_t samples) {
    const struct nn_graph *graph = first->model->graph;
    size_t n = 0;
    if (nn_graph_gradient_bytes(graph) == nn_graph_trained_bytes(graph)) return NN_OK;
    for (const struct api_request *r = first; r; r = r->next) n++;
    const struct nn_grads **each = nn_arena_alloc(first->arena, n, sizeof *each);
    double *weights = nn_arena_alloc(first->arena, n, sizeof *weights);
    if (!each || !weights) return nn_fail(&first->err, NN_E_NOMEM, "memory is out");
    n = 0;
    for (const struct api_request *r = first; r; r = r->next, n++) {
        each[n] = r->grads;
        weights[n] = (double)r->samples / (double)samples;
    }
    nn_grads_average_buffers(sum, each, weights, n, first->model->params);
    return NN_OK;
}

/* The mean or the sum of the contributions, in their order. It is computed in the first one's gradient; in a copy if
 * that one's answer shows its gradient. */
static struct nn_grads *aggregate(struct api_request *first, const struct api_policy *policy,
                                  int64_t samples) {
    const struct nn_parallel *par = api_parallel(first->api);
    struct nn_grads *sum = first->grads;
    double total = policy->sum ? 1 : (double)samples;
    if (first->answer.n_results) {
        if (api_reserve(first, nn_graph_gradient_bytes(first->model->graph))) return NULL;
        if (!(sum = nn_grads_new_unset(first->model->graph, &first->err))) return NULL;
        nn_grads_copy(sum, first->grads);
    }
    nn_grads_scale(sum, (policy->sum ? 1 : (double)first->samples) / total, par);
    for (struct api_request *r = first->next; r; r = r->next)
        nn_grads_add(sum, r->grads, (policy->sum ? 1 : (double)r->samples) / total, par);
    if (sum != first->grads) first->sum = sum;
    return average_buffers(first, sum, samples) ? NULL : sum;
}

/* Sets the names of the first to those that any contribution names. */
static void unite_names(struct api_request *first) {
    int n = nn_graph_param_count(first->model->graph);
    bool *only = first->only;
    for (struct api_request *r = first; r; r = r->next)
        if (!r->only) only = NULL;
    for (struct api_request *r = first->next; r && only; r = r->next)
        for (int i = 0; i < n; i++) only[i] |= r->only[i];
    first->only = only;
}

/* Encodes the answers of all contributions but the first, before the change: an error has changed nothing. */
static int prepare_answers(struct api_request *first, int contributions, int64_t samples) {
    uint64_t version = nn_params_version(first->model->params) + 1;
    for (struct api_request *r = first->next; r; r = r->next) {
        r->makes = true;
        r->made = version;
        r->wait = first->wait;
        if (api_add(r, "applied_version", json_integer((json_int_t)version)) == NN_OK &&
            api_add_round(r, contributions, samples) == NN_OK && api_add_durable_version(r) == NN_OK &&
            api_answer_ready(r) == NN_OK)
            continue;
        first->err = r->err;
        return (int)first->err.code;
    }
    return NN_OK;
}

/* Applies the round as one change, in the name of its first contribution. */
static void apply_all(struct api *api, struct api_model *model) {
    int contributions = model->round.count;
    struct api_request *first = take_all(api, model);
    int64_t samples = 0;
    for (struct api_request *r = first; r; r = r->next) {
        samples += r->samples;
        r->followers = r->next;
        first->wait |= r->wait; /* all are answered together */
    }
    struct nn_grads *sum = aggregate(first, &model->policy, samples);
    unite_names(first);
    int code = sum ? prepare_answers(first, contributions, samples) : (int)first->err.code;
    if (code == NN_OK) code = api_turn_apply_alone(first, sum, contributions, samples);
    api_count_round(api, code);
    api_finish(first, code);
}

/* --- joining ---------------------------------------------------------------------------------------- */

/* In a turn, or with the lock held. */
static int check(struct api_request *request) {
    const struct api_model *model = request->model;
    uint64_t now = nn_params_version(model->params);
    if (!request->ask.worker) {
        nn_fail(&request->err, NN_E_VALUE, "\"worker\" must be given: the model aggregates in rounds");
        return api_point(request, "worker", NULL);
    }
    if (!isnan(request->lr))
        return nn_fail(&request->err, NN_E_NO_ROUND, "a round has the model's own learning rate");
    if (request->seen != now)
        return nn_fail(&request->err, NN_E_STALE,
                       "the round is at version %llu, and this is of %llu: pull, and compute anew",
                       (unsigned long long)now, (unsigned long long)request->seen);
    if (is_in(&model->round, request->ask.worker))
        return nn_fail(&request->err, NN_E_ROUND_TWICE, "\"%.100s\" is in this round already",
                       request->ask.worker);
    if (atomic_load(&request->api->draining))
        return nn_fail(&request->err, NN_E_BUSY, "the service is stopping, and begins no rounds");
    return api_check_wait(request);
}

int api_round_check(struct api_request *request) {
    pthread_mutex_lock(&request->api->lock);
    if (request->model->policy.sync) check(request);
    pthread_mutex_unlock(&request->api->lock);
    return (int)request->err.code;
}

int api_round_join(struct api_request *request) {
    struct api *api = request->api;
    struct api_model *model = request->model;
    /* Each contribution to a sum may have its share of the greatest gradient: no finite contribution is refused because
     * of the others. */
    double share = model->policy.sum ? model->policy.workers : 1;
    if (check(request) || api_check_takes(request, request->grads, share)) return (int)request->err.code;
    add(api, model, request);
    if (model->round.count >= model->policy.workers) apply_all(api, model);
    return API_LATER;
}

void api_round_settle(struct api *api, struct api_model *model, bool dead) {
    struct api_round *round = &model->round;
    if (!round->first) return;
    bool due = api_now_ms(api) >= round->since_ms + model->policy.timeout_ms || atomic_load(&api->draining);
    if (dead)
        api_round_fail(api, model, NN_E_NOT_FOUND, "the model was deleted meanwhile");
    else if (round->version != nn_params_version(model->params))
        api_round_fail(api, model, NN_E_STALE, "the parameters were changed while the round waited");
    else if (due && round->count >= model->policy.quorum)
        apply_all(api, model);
    else if (due)
        api_round_fail(api, model, NN_E_ROUND_FAILED, "the time was up before there was a quorum");
}

/* --- telling ---------------------------------------------------------------------------------------- */

json_t *api_round_json(struct api *api, const struct api_model *model, const struct api_policy *policy) {
    const struct api_round *round = &model->round;
    json_t *workers = json_array();
    int failed = !workers;
    for (const struct api_request *r = round->first; r; r = r->next)
        failed |= json_array_append_new(workers, json_string(r->ask.worker));
    json_int_t since = round->first ? api_now_ms(api) - round->since_ms : 0;
    json_t *json =
        failed ? NULL
               : json_pack("{s:I, s:O, s:i, s:I}", "version", (json_int_t)nn_params_version(model->params),
                           "workers", workers, "missing", policy->workers - round->count, "since_ms", since);
    json_decref(workers);
    return json;
}
