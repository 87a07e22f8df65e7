/* model.c - models by name, their versions and their turns. */
#include "model.h"

#include <assert.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "condition.h"
#include "context.h"
#include "metrics.h"
#include "round.h"
#include "service.h"

bool api_model_name_valid(const char *name) {
    static const char allowed[] = "-._0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    size_t length = strlen(name);
    return length >= 1 && length <= API_MAX_MODEL_NAME && strspn(name, allowed) == length &&
           !strchr("-._", name[0]);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct api_model *)a)->name, ((const struct api_model *)b)->name);
}

/* --- life ------------------------------------------------------------------------------------------- */

struct api_model_spec *api_model_spec_new_take(json_t *json) {
    struct api_model_spec *spec = json ? malloc(sizeof *spec) : NULL;
    if (!spec) {
        json_decref(json);
        return NULL;
    }
    atomic_init(&spec->refs, 1);
    spec->json = json;
    return spec;
}

void api_model_spec_unref(struct api_model_spec *spec) {
    if (!spec || atomic_fetch_sub(&spec->refs, 1) != 1) return;
    json_decref(spec->json);
    free(spec);
}

void api_model_forget_past(struct api_model *model) {
    for (int i = 0; i < API_REPLAY_VERSIONS; i++) {
        nn_params_unref(model->past[i]);
        model->past[i] = NULL;
    }
}

void api_model_unref(struct api *api, struct api_model *model) {
    if (!model || atomic_fetch_sub(&model->refs, 1) != 1) return;
    for (int i = 0; i < model->n_blocks; i++) nn_params_unref(model->blocks[i]);
    nn_optimizer_free(model->optimizer);
    nn_grads_free(model->sum);
    api_model_forget_past(model);
    nn_graph_unref(model->graph);
    api_model_spec_unref(model->spec);
    api_release(api, model->reserved);
    free(model);
}

/* Makes bytes of the request's reservation the model's own. */
static void keep(struct api_request *request, struct api_model *model, size_t bytes) {
    api_reserve_move(request, bytes);
    model->reserved += bytes;
}

/* What a model holds beside its numbers: the graph, the specification. */
static size_t overhead(const struct nn_graph *graph) {
    return sizeof(struct api_model) + 4096 * (size_t)nn_graph_node_count(graph);
}

static struct api_model_size measure(const struct nn_graph *graph) {
    struct api_model_size size = {.nodes = nn_graph_node_count(graph),
                                  .params = nn_graph_param_count(graph),
                                  .row_work = nn_graph_work(graph)};
    for (int i = 0; i < size.nodes; i++) {
        struct nn_node_info node = nn_graph_node(graph, i);
        size.row_numbers += (double)nn_shape_elements(&node.shape);
    }
    for (int i = 0; i < size.params; i++) size.numbers += (double)nn_graph_param(graph, i)->elements;
    return size;
}

/* Its numbers: the first version, and the optimizer's state. */
static int fill(struct api_request *request, struct api_model *model, const struct api_spec *spec,
                bool draw) {
    struct nn_error *err = &request->err;
    if (!(model->blocks[0] = nn_params_new(model->graph, err))) return (int)err->code;
    model->n_blocks = 1;
    model->params = model->blocks[0];
    if (draw) nn_params_init(model->params, model->seed);
    if (!spec->optimizer) return NN_OK;
    model->optimizer = nn_optimizer_new(model->graph, spec->optimizer, spec->optimizer_attrs, err);
    if (model->optimizer) return NN_OK;
    return api_point(request, "optimizer", err->member[0] ? err->member : NULL);
}

int api_model_draw_incarnation(struct api_request *request, struct api_model *model) {
    uint64_t incarnation;
    if (api_random(request, &incarnation)) return (int)request->err.code;
    snprintf(model->incarnation, sizeof model->incarnation, "%016llx", (unsigned long long)incarnation);
    return NN_OK;
}

/* What tells it from others, and how it is described. */
static int identify(struct api_request *request, struct api_model *model, const struct api_spec *spec,
                    const json_t *json, bool draw) {
    uint64_t seed = 0;
    if (draw && (api_model_draw_incarnation(request, model) || api_random(request, &seed)))
        return (int)request->err.code;
    memcpy(model->birth, model->incarnation, sizeof model->birth);
    model->seed = spec->has_seed ? spec->seed : seed & (uint64_t)API_MAX_SEED;
    model->spec = api_model_spec_new_take(json_deep_copy(json));
    int failed =
        !model->spec || json_object_set_new(model->spec->json, "seed", json_integer((json_int_t)model->seed));
    if (!failed && request->api->env.store)
        failed = json_object_set_new(model->spec->json, "durability",
                                     json_string(api_durability_name(spec->policy.durability)));
    return failed ? nn_fail(&request->err, NN_E_NOMEM, "memory is out") : NN_OK;
}

struct api_model *api_model_new(struct api_request *request, const char *name, const struct api_spec *spec,
                                const json_t *json, bool draw) {
    size_t bytes = overhead(spec->graph) + nn_graph_param_bytes(spec->graph), optimizer_bytes = 0;
    if (spec->optimizer)
        optimizer_bytes = nn_optimizer_bytes(spec->graph, spec->optimizer, spec->optimizer_attrs);
    if (api_reserve(request, bytes + optimizer_bytes)) return NULL;
    struct api_model *model = calloc(1, sizeof *model);
    if (!model) return nn_fail(&request->err, NN_E_NOMEM, "memory is out"), NULL;
    atomic_init(&model->refs, 1);
    keep(request, model, bytes + optimizer_bytes);
    model->optimizer_bytes = optimizer_bytes;
    model->durable_version = -1;
    model->policy = spec->policy;
    snprintf(model->name, sizeof model->name, "%s", name);
    model->graph = nn_graph_ref(spec->graph);
    model->size = measure(spec->graph);
    if (identify(request, model, spec, json, draw) == NN_OK && fill(request, model, spec, draw) == NN_OK)
        return model;
    api_model_unref(request->api, model);
    return NULL;
}

/* Behind those that wait for the model's turn; true: for the first, whose thread is to drain. With the lock held. */
static bool enqueue(struct api_model *model, struct api_request *request) {
    request->next = NULL;
    if (model->first)
        model->last->next = request;
    else
        model->first = request;
    model->last = request;
    if (model->draining) return false;
    model->draining = true;
    atomic_fetch_add(&model->refs, 1);
    return true;
}

static void drain(struct api *api, struct api_model *model, bool brief);

int api_model_register(struct api_request *request, int (*turn)(struct api_request *request)) {
    struct api *api = request->api;
    struct api_model *model = request->model;
    bool brief = request->brief;
    request->turn = turn;
    pthread_mutex_lock(&api->lock);
    bool taken = tfind(model, &api->models, by_name) != NULL;
    bool full = api->n_models >= api->settings.limits.models && !request->quiet;
    bool listed = !taken && !full && tsearch(model, &api->models, by_name);
    api->n_models += listed;
    if (listed) {
        atomic_fetch_add(&model->refs, 1);
        enqueue(model, request);
    }
    pthread_mutex_unlock(&api->lock);
    if (listed) {
        drain(api, model, brief);
        return API_LATER;
    }
    if (taken) {
        nn_fail(&request->err, NN_E_EXISTS, "a model named \"%s\" exists", model->name);
        return api_point(request, "name", NULL);
    }
    if (!full) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    return nn_fail(&request->err, NN_E_BUSY, "there are %d models, and may be no more",
                   api->settings.limits.models);
}

/* With the lock held: no change of it is made any more. */
static void kill_model(struct api_model *model, enum nn_code code) {
    model->dead = code;
    model->nudged = true; /* whoever drains finds out */
}

static void bury(struct api_request *request) {
    const struct nn_error gone = {.code = NN_E_NOT_FOUND, .text = "the model was deleted meanwhile"};
    api_contexts_drop(request->api, request->model);
    api_end_waiting(request->api, request->model, UINT64_MAX, &gone);
    api_model_unref(request->api, request->model);
}

void api_model_remove(struct api_request *request, enum nn_code code) {
    struct api *api = request->api;
    pthread_mutex_lock(&api->lock);
    tdelete(request->model, &api->models, by_name);
    api->n_models--;
    kill_model(request->model, code);
    pthread_mutex_unlock(&api->lock);
    bury(request);
}

void api_model_replace(struct api_request *request, struct api_model *next) {
    struct api *api = request->api;
    pthread_mutex_lock(&api->lock);
    *(struct api_model **)tfind(request->model, &api->models, by_name) = next;
    atomic_fetch_add(&next->refs, 1);
    kill_model(request->model, NN_E_STALE);
    pthread_mutex_unlock(&api->lock);
    bury(request);
}

/* The version that a request is to read: the current one, or, carried out again, the one that it had read. */
static struct nn_params *version_for(const struct api_request *request, const struct api_model *model) {
    const struct api_replay *replay = request->replay;
    if (!replay || replay->read == UINT64_MAX || replay->read == nn_params_version(model->params))
        return model->params;
    for (int i = 0; i < API_REPLAY_VERSIONS; i++)
        if (model->past[i] && nn_params_version(model->past[i]) == replay->read) return model->past[i];
    return NULL;
}

/* The request's view of a model: a reference, and the version. With the lock held. */
static int hold(struct api_request *request, struct api_model *model) {
    struct nn_params *params = version_for(request, model);
    if (!params)
        return nn_fail(&request->err, NN_E_CORRUPT, "version %llu of \"%s\" is not there to be read",
                       (unsigned long long)request->replay->read, model->name);
    atomic_fetch_add(&model->refs, 1);
    request->model = model;
    request->params = nn_params_ref(params);
    return NN_OK;
}

/* A name to look up: `key` has the size of a model. */
static struct api_model *lookup(struct api *api, const char *name, struct api_model *key) {
    snprintf(key->name, sizeof key->name, "%s", name);
    void *node = api_model_name_valid(name) ? tfind(key, &api->models, by_name) : NULL;
    return node ? *(struct api_model **)node : NULL;
}

int api_model_find(struct api_request *request, const char *name) {
    struct api *api = request->api;
    struct api_model key = {0};
    pthread_mutex_lock(&api->lock);
    struct api_model *model = api_token_sees(request->token, name) ? lookup(api, name, &key) : NULL;
    if (model) hold(request, model);
    pthread_mutex_unlock(&api->lock);
    return model ? (int)request->err.code
                 : nn_fail(&request->err, NN_E_NOT_FOUND, "no model is named \"%.100s\"", name);
}

bool api_model_size(struct api *api, const char *name, struct api_model_size *size) {
    struct api_model key = {0};
    pthread_mutex_lock(&api->lock);
    const struct api_model *model = lookup(api, name, &key);
    if (model) *size = model->size;
    pthread_mutex_unlock(&api->lock);
    return model != NULL;
}

struct search {
    const char *birth;
    uint64_t changes;
    bool found;
};

static void search_one(const void *node, VISIT visit, void *closure) {
    struct search *search = closure;
    const struct api_model *model = *(struct api_model *const *)node;
    if (visit != postorder && visit != leaf) return;
    search->found |= strcmp(model->birth, search->birth) == 0 && model->read_changes >= search->changes;
}

bool api_model_has_changes(struct api *api, const char *birth, uint64_t changes) {
    struct search search = {birth, changes, false};
    pthread_mutex_lock(&api->lock);
    twalk_r(api->models, search_one, &search);
    pthread_mutex_unlock(&api->lock);
    return search.found;
}

struct listing {
    json_t *list;
    const struct api_token *token;
    bool failed;
};

static void list_one(const void *node, VISIT visit, void *closure) {
    struct listing *listing = closure;
    if (visit != postorder && visit != leaf) return;
    const struct api_model *model = *(struct api_model *const *)node;
    if (!api_token_sees(listing->token, model->name)) return;
    json_t *item = json_pack("{s:s, s:s, s:I}", "name", model->name, "incarnation", model->incarnation,
                             "version", (json_int_t)nn_params_version(model->params));
    listing->failed |= json_array_append_new(listing->list, item) != 0;
}

int api_models_list(struct api_request *request, json_t *list) {
    struct api *api = request->api;
    struct listing listing = {list, request->token, false};
    pthread_mutex_lock(&api->lock);
    twalk_r(api->models, list_one, &listing);
    pthread_mutex_unlock(&api->lock);
    return listing.failed ? nn_fail(&request->err, NN_E_NOMEM, "memory is out") : NN_OK;
}

void api_models_clear(struct api *api) {
    while (api->models) {
        struct api_model *model = *(struct api_model **)api->models;
        tdelete(model, &api->models, by_name);
        api_model_unref(api, model);
    }
    api->n_models = 0;
}

/* --- turns ------------------------------------------------------------------------------------------ */

/* The next change, or NULL. False, which also ends the draining: there is nothing left to do. */
static bool pop(struct api *api, struct api_model *model, struct api_request **request, enum nn_code *dead) {
    pthread_mutex_lock(&api->lock);
    *request = model->first;
    *dead = model->dead;
    bool more = *request || model->nudged;
    model->nudged = false;
    if (*request) model->first = (*request)->next;
    if (!more) model->draining = false;
    pthread_mutex_unlock(&api->lock);
    return more;
}

static void take_turn(struct api_request *request, enum nn_code dead) {
    int code = dead ? nn_fail(&request->err, dead, "the model was %s meanwhile",
                              dead == NN_E_STALE ? "restored from a snapshot" : "deleted")
                    : api_check_match(request, nn_params_version(request->model->params));
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
    drain(job.api, job.model, false);
}

/* For a thread that has other things to look after, as long as another will do it: to settle a round may mean
 * a step, and then the changes that wait behind it. */
static void drain_elsewhere(struct api *api, struct api_model *model) {
    struct drain_job *job = api->env.execute ? malloc(sizeof *job) : NULL;
    if (job) *job = (struct drain_job){api, model};
    if (job && api->env.execute(api->env.self, run_drain, job, 0)) return;
    free(job);
    drain(api, model, false);
}

/* One change after the other. A thread that has to be brief leaves those that come behind its own to
 * another. */
static void drain(struct api *api, struct api_model *model, bool brief) {
    struct api_request *request;
    enum nn_code dead;
    for (bool own = true; own || !brief || !waits(api, model); own = false) {
        if (!pop(api, model, &request, &dead)) {
            api_model_unref(api, model);
            return;
        }
        if (request) take_turn(request, dead);
        api_round_settle(api, model, dead);
    }
    drain_elsewhere(api, model);
}

void api_model_nudge(struct api *api, struct api_model *model) {
    pthread_mutex_lock(&api->lock);
    bool idle = !model->draining;
    model->nudged = model->draining = true;
    if (idle) atomic_fetch_add(&model->refs, 1);
    pthread_mutex_unlock(&api->lock);
    if (idle) drain(api, model, false);
}

struct due {
    struct api *api;
    int64_t now_ms;
    struct api_model *models[16]; /* of one tick; others are due at the next */
    int n;
};

/* Claims the turn of each model whose round is due, unless somebody has it, who will see to it. */
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
    due->models[due->n++] = model;
}

void api_models_tick(struct api *api) {
    struct due due = {.api = api, .now_ms = api_now_ms(api)};
    pthread_mutex_lock(&api->lock);
    twalk_r(api->models, find_due, &due);
    pthread_mutex_unlock(&api->lock);
    for (int i = 0; i < due.n; i++) drain_elsewhere(api, due.models[i]);
}

int api_model_turn(struct api_request *request, int (*turn)(struct api_request *request)) {
    struct api *api = request->api;
    struct api_model *model = request->model;
    request->turn = turn;
    pthread_mutex_lock(&api->lock);
    bool brief = request->brief, idle = enqueue(model, request);
    pthread_mutex_unlock(&api->lock);
    if (idle) drain(api, model, brief);
    return API_LATER;
}

/* A block that nobody reads, or a new one, which is the request's until it is published. */
static struct nn_params *spare_block(struct api_request *request) {
    struct api_model *model = request->model;
    for (int i = 0; i < model->n_blocks; i++)
        if (model->blocks[i] != model->params && nn_params_unshared(model->blocks[i]))
            return model->blocks[i];
    if (model->n_blocks == API_MAX_VERSIONS) {
        nn_fail(&request->err, NN_E_BUSY, "%d versions of this model are being read", API_MAX_VERSIONS);
        return NULL;
    }
    if (api_reserve(request, nn_graph_param_bytes(model->graph))) return NULL;
    return request->fresh = nn_params_new(model->graph, &request->err);
}

int api_model_next(struct api_request *request, struct nn_params **next) {
    uint64_t version = nn_params_version(request->model->params) + 1;
    if (!(*next = spare_block(request))) return (int)request->err.code;
    nn_params_set_version(*next, version);
    request->makes = true;
    request->made = version;
    return api_add(request, "applied_version", json_integer((json_int_t)version));
}

void api_model_note(struct api_request *request) {
    struct api_model *model = request->model;
    pthread_mutex_lock(&request->api->lock);
    model->steps = model->optimizer ? nn_optimizer_steps(model->optimizer) : 0;
    model->contributions = model->sum_count;
    pthread_mutex_unlock(&request->api->lock);
}

/* Versions that nobody reads any more are let go of, all but one, in which the next will be built. */
static void trim_blocks(struct api *api, struct api_model *model) {
    bool spare = false;
    for (int i = 0; i < model->n_blocks;) {
        struct nn_params *block = model->blocks[i];
        if (block == model->params || !nn_params_unshared(block) || !spare) {
            spare |= block != model->params && nn_params_unshared(block);
            i++;
            continue;
        }
        size_t bytes = nn_graph_param_bytes(model->graph);
        nn_params_unref(block);
        model->blocks[i] = model->blocks[--model->n_blocks];
        model->reserved -= bytes;
        api_release(api, bytes);
    }
}

/* While recovering: what follows may have read the version that now becomes an old one. */
static void keep_past(struct api_model *model) {
    nn_params_unref(model->past[API_REPLAY_VERSIONS - 1]);
    memmove(model->past + 1, model->past, (API_REPLAY_VERSIONS - 1) * sizeof *model->past);
    model->past[0] = nn_params_ref(model->params);
}

void api_model_publish(struct api_request *request, struct nn_params *next) {
    struct api_model *model = request->model;
    if (atomic_load(&request->api->recovering)) keep_past(model);
    if (next == request->fresh) {
        request->fresh = NULL;
        keep(request, model, nn_graph_param_bytes(model->graph));
        model->blocks[model->n_blocks++] = next;
    }
    pthread_mutex_lock(&request->api->lock);
    model->params = next;
    pthread_mutex_unlock(&request->api->lock);
    api_count_version(request->api);
    trim_blocks(request->api, model);
    api_model_note(request);
}

void api_model_set_optimizer_take(struct api_request *request, struct nn_optimizer *optimizer, size_t bytes,
                                  struct api_model_spec *spec) {
    struct api_model *model = request->model;
    if (optimizer != model->optimizer) {
        nn_optimizer_free(model->optimizer);
        model->reserved -= model->optimizer_bytes;
        api_release(request->api, model->optimizer_bytes);
        model->optimizer_bytes = 0;
    }
    keep(request, model, bytes);
    model->optimizer_bytes += bytes;
    model->optimizer = optimizer;
    pthread_mutex_lock(&request->api->lock);
    struct api_model_spec *old = model->spec;
    model->spec = spec;
    pthread_mutex_unlock(&request->api->lock);
    api_model_spec_unref(old);
    api_model_note(request);
}

struct api_model_state api_model_state(struct api_request *request) {
    struct api_model *model = request->model;
    pthread_mutex_lock(&request->api->lock);
    struct api_model_state state = {model->spec,
                                    nn_params_version(model->params),
                                    model->steps,
                                    model->contributions,
                                    model->durable_version,
                                    model->policy.durability,
                                    model->stopped,
                                    model->stopped_at};
    atomic_fetch_add(&state.spec->refs, 1);
    pthread_mutex_unlock(&request->api->lock);
    return state;
}

int api_model_stop(struct api_request *request, int param) {
    struct api_model *model = request->model;
    pthread_mutex_lock(&request->api->lock);
    model->stopped = true;
    model->stopped_at = param;
    pthread_mutex_unlock(&request->api->lock);
    api_model_note(request);
    return nn_fail(
        &request->err, NN_E_NOT_FINITE,
        "the step made \"%s\" infinite or NaN; the model is stopped at version %llu, with the optimizer "
        "one step ahead: restore a snapshot, or set parameters",
        nn_graph_param(model->graph, param)->name, (unsigned long long)nn_params_version(model->params));
}

int api_model_check_running(struct api_request *request) {
    struct api_model *model = request->model;
    pthread_mutex_lock(&request->api->lock);
    bool stopped = model->stopped;
    int param = model->stopped_at;
    pthread_mutex_unlock(&request->api->lock);
    if (!stopped) return NN_OK;
    return nn_fail(&request->err, NN_E_STOPPED,
                   "a step made \"%s\" infinite or NaN: restore a snapshot, or set parameters",
                   nn_graph_param(model->graph, param)->name);
}

void api_model_run(struct api_request *request) {
    pthread_mutex_lock(&request->api->lock);
    request->model->stopped = false;
    pthread_mutex_unlock(&request->api->lock);
}
