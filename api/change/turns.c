/* turns.c - the queue of a model's changes, and the thread that drains it.
 *
 *             enqueue, tick                        pop: a change, or a nudge
 *     IDLE  ----------------------->  DRAINING  <----------------------------+
 *      ^                               |     |                               |
 *      |   pop: nothing is left        |     +---- take_turn, settle round --+
 *      +-------------------------------+
 *
 * IDLE      `draining` is false; the queue is empty, nobody has nudged, and no farewell waits.
 * DRAINING  one thread has the turn, and a reference to the model. A change that comes joins the queue; a nudge asks
 *           for one more look at the round. Neither blocks its caller.
 *
 * A model that is dead (removed, or replaced by a restore) goes through the same states: its changes are answered
 * with the error `dead`, and its `farewell`, the request that removed it, when the queue is empty. */
#include "turns.h"

#include <assert.h>
#include <search.h>
#include <stdlib.h>

#include "../request/service.h"
#include "condition.h"
#include "finish.h"
#include "round.h"

/* With the lock held. */
static void assert_state(const struct api_model *model) {
    if (!model->draining) assert(!model->first && !model->nudged && !model->farewell);
    if (model->farewell) assert(model->dead);
    if (model->first) assert(model->last && !model->last->next);
}

bool api_model_enqueue(struct api_model *model, struct api_request *request) {
    request->next = NULL;
    if (model->first)
        model->last->next = request;
    else
        model->first = request;
    model->last = request;
    const bool idle = !model->draining;
    model->draining = true;
    if (idle) atomic_fetch_add(&model->refs, 1);
    assert_state(model);
    return idle;
}

/* Takes the next change: *request, NULL where there was only a nudge. False ends the draining: nothing is left but the
 * farewell, in *request, NULL where there is none. */
static bool pop(struct api *api, struct api_model *model, struct api_request **request, enum nn_code *dead) {
    pthread_mutex_lock(&api->lock);
    *request = model->first;
    *dead = model->dead;
    bool more = *request || model->nudged;
    model->nudged = false;
    if (*request) model->first = (*request)->next;
    if (!more) {
        model->draining = false;
        *request = model->farewell;
        model->farewell = NULL;
    }
    assert_state(model);
    pthread_mutex_unlock(&api->lock);
    return more;
}

static void take_turn(struct api_request *request, enum nn_code dead) {
    int code = dead
                   ? nn_fail(&request->err, dead, "the model was %s meanwhile",
                             dead == NN_E_STALE ? "restored from a snapshot" : "deleted")
                   : api_check_conditions(request, request->model, nn_params_version(request->model->params));
    if (code == NN_OK) code = request->turn(request);
    if (code != API_LATER) api_finish(request, code);
}

static bool waits(struct api *api, const struct api_model *model) {
    pthread_mutex_lock(&api->lock);
    bool more = model->first || model->nudged;
    pthread_mutex_unlock(&api->lock);
    return more;
}

struct drain_job {
    struct api *api;
    struct api_model *model;
};

static void run_drain(void *arg) {
    struct drain_job job = *(struct drain_job *)arg;
    free(arg);
    api_model_drain(job.api, job.model, false);
}

/* Has another thread drain the queue. False: there is no room for the job now. */
static bool hand_over(struct api *api, struct api_model *model) {
    struct drain_job *job = api->env.execute ? malloc(sizeof *job) : NULL;
    if (job) *job = (struct drain_job){api, model};
    if (job && api->env.execute(api->env.self, run_drain, job, 0)) return true;
    free(job);
    return false;
}

/* Carries out one change after the other. A thread that must be brief hands the queue to another thread after its own
 * change: later changes may keep coming. */
void api_model_drain(struct api *api, struct api_model *model, bool brief) {
    struct api_request *request;
    enum nn_code dead;
    do {
        if (!pop(api, model, &request, &dead)) {
            api_model_unref(api, model);
            if (request) api_finish(request, NN_OK);
            return;
        }
        if (request) take_turn(request, dead);
        api_round_settle(api, model, dead);
    } while (!brief || !waits(api, model) || !hand_over(api, model));
}

int api_model_farewell(struct api_request *request) {
    pthread_mutex_lock(&request->api->lock);
    request->model->farewell = request;
    assert_state(request->model);
    pthread_mutex_unlock(&request->api->lock);
    return API_LATER;
}

struct due {
    struct api *api;
    int64_t now_ms;
    struct api_model *models[16]; /* of one tick: others are due at the next */
    int n;
};

/* Nudges each model whose round is due, and claims its turn; a thread that has the turn already settles the round. */
static void find_due(const void *node, VISIT visit, void *closure) {
    struct due *due = closure;
    struct api_model *model = *(struct api_model *const *)node;
    bool room = due->n < (int)(sizeof due->models / sizeof due->models[0]);
    if ((visit != postorder && visit != leaf) || !room || !model->round.first) return;
    bool late = due->now_ms >= model->round.since_ms + model->policy.timeout_ms;
    if (!late && !atomic_load(&due->api->draining)) return;
    model->nudged = true;
    if (model->draining) return;
    model->draining = true;
    atomic_fetch_add(&model->refs, 1);
    assert_state(model);
    due->models[due->n++] = model;
}

void api_models_tick(struct api *api) {
    struct due due = {.api = api, .now_ms = api_now_ms(api)};
    pthread_mutex_lock(&api->lock);
    twalk_r(api->models, find_due, &due);
    pthread_mutex_unlock(&api->lock);
    /* Settling a round may take a step of the optimizer, and the changes behind it follow. */
    for (int i = 0; i < due.n; i++)
        if (!hand_over(api, due.models[i])) api_model_drain(api, due.models[i], true);
}

int api_model_turn(struct api_request *request, int (*turn)(struct api_request *request)) {
    struct api *api = request->api;
    struct api_model *model = request->model;
    request->turn = turn;
    pthread_mutex_lock(&api->lock);
    bool brief = request->brief, idle = api_model_enqueue(model, request);
    pthread_mutex_unlock(&api->lock);
    if (idle) api_model_drain(api, model, brief);
    return API_LATER;
}
