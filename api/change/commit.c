/* commit.c - records of changes, and the requests that wait for them. */
#include "commit.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "../model/model.h"
#include "../request/service.h"
#include "../wire/record.h"
#include "effect.h"
#include "finish.h"

struct api_commit {
    struct api_request *request;
    struct api_model *model;    /* a reference: the model after the change */
    struct api_snapshot *state; /* the state in the record, or NULL */
    uint64_t version;
    bool tells;         /* `version` is durable when the record is */
    uint64_t lowerings; /* unless the model's durability was lowered in between */
    void *head;
    struct api_segment *segments;
    atomic_int awaited; /* two: the change, and the record's durability */
    bool durable;
    int code; /* the change's result */
};

void api_commit_fini(struct api_request *request) {
    struct api_commit *commit = request->commit;
    if (!commit) return;
    api_snapshot_free(commit->state);
    api_model_unref(request->api, commit->model);
    free(commit->head);
    free(commit->segments);
    request->commit = NULL;
}

/* --- what is durable ---------------------------------------------------------------------------------- */

static int durability(const struct api_request *request) {
    int own = (int)request->model->policy.durability;
    return request->raised > own ? request->raised : own;
}

static bool is_written(const struct api_request *request) {
    if (request->quiet || durability(request) == API_DURABLE_NONE) return false;
    return durability(request) == API_DURABLE_JOURNAL || request->route->recorded == API_RECORD_STORED ||
           request->restored;
}

static uint64_t version_after(const struct api_request *request) {
    return request->makes ? request->made : nn_params_version(request->model->params);
}

/* True if syncing this record makes the new version durable. A state contains the version; a model's first version
 * follows from its specification. */
static bool is_durable_then(const struct api_request *request) {
    return durability(request) == API_DURABLE_JOURNAL || version_after(request) == 0 || request->raised ||
           request->restored;
}

int api_add_durable_version(struct api_request *request) {
    struct api_model *model = request->model;
    if (!request->api->env.store) return NN_OK;
    pthread_mutex_lock(&request->api->lock);
    int64_t version = model->durable_version;
    pthread_mutex_unlock(&request->api->lock);
    if (request->wait || (is_written(request) && is_durable_then(request)))
        version = (int64_t)version_after(request);
    bool none = durability(request) == API_DURABLE_NONE || request->unstores || version < 0;
    return api_add(request, "durable_version", none ? json_null() : json_integer(version));
}

static void tell_durable(struct api *api, struct api_model *model, uint64_t version, uint64_t lowerings) {
    pthread_mutex_lock(&api->lock);
    bool higher = (int64_t)version > model->durable_version;
    if (higher && lowerings == model->lowerings) model->durable_version = (int64_t)version;
    pthread_mutex_unlock(&api->lock);
}

/* --- records ------------------------------------------------------------------------------------------ */

static json_t *describe(struct api_request *request, const struct api_model *model, const char *kind,
                        uint64_t version) {
    const struct api_env *env = &request->api->env;
    json_t *head = json_pack("{s:i, s:s, s:I, s:o, s:s, s:I}", "format", API_FORMAT, "kind", kind, "time",
                             (json_int_t)env->wall_ms(env->self), "lived", api_effects_time(request->api),
                             "model", model->name, "version", (json_int_t)version);
    json_t *keys = head ? api_effects_json(request) : NULL;
    if (keys && request->raised && model->policy.durability == API_DURABLE_NONE) {
        /* If only this state record survives a crash, it must carry the keys of changes that have no record. */
        json_t *before = api_effects_unrecorded(request->api, model);
        if (!before || json_array_extend(keys, before)) {
            json_decref(keys);
            keys = NULL;
        }
        json_decref(before);
    }
    if (head && keys && json_array_size(keys) == 0) {
        json_decref(keys);
    } else if (json_object_set_new(head, "keys", keys)) {
        json_decref(head);
        return NULL;
    }
    if (durability(request) != API_DURABLE_JOURNAL || model != request->model ||
        nn_params_version(model->params) % API_HASH_VERSIONS != 0)
        return head;
    uint64_t hash = XXH3_64bits(nn_params_block(model->params), nn_graph_param_bytes(model->graph));
    if (json_object_set_new(head, "hash", api_record_hex(hash)) == 0) return head;
    json_decref(head);
    return NULL;
}

static json_t *describe_request(struct api_request *request, uint64_t version) {
    json_t *head = describe(request, request->model, "request", version), *drawn = json_array();
    int failed = !head || !drawn;
    for (int i = 0; i < request->n_drawn; i++)
        failed |= json_array_append_new(drawn, api_record_hex(request->drawn[i]));
    json_t *how = json_pack("{s:s, s:s, s:s, s:s*, s:s, s:O}", "method", request->route->method, "path",
                            request->route->path, "name", request->name, "query", request->query, "encoding",
                            request->in == API_JSON ? "json" : "safetensors", "drawn", drawn);
    failed |= json_object_update(head, how);
    if (request->repeatable)
        failed |= json_object_set_new(head, "read", json_integer((json_int_t)request->seen));
    json_decref(how);
    json_decref(drawn);
    if (!failed) return head;
    json_decref(head);
    return NULL;
}

/* The parameters that a gradient names, as a digit for each, in the arena. NULL: all of them. */
static const char *names_of(struct api_request *request) {
    int n = nn_graph_param_count(request->model->graph);
    char *digits = request->only ? nn_arena_alloc(request->arena, (size_t)n + 1, 1) : NULL;
    for (int i = 0; digits && i < n; i++) digits[i] = request->only[i] ? '1' : '0';
    return digits;
}

static json_t *describe_gradient(struct api_request *request, const struct nn_grads *grads, bool accumulate,
                                 uint64_t version) {
    json_t *head = describe(request, request->model, "gradient", version);
    const char *only = names_of(request);
    json_t *how = json_pack("{s:b, s:I, s:f, s:s*}", "accumulate", accumulate, "seen",
                            (json_int_t)request->seen, "scale", request->scale, "only", only);
    int failed = json_object_update(head, how) || (request->only && !only);
    if (nn_grads_is_averaged(grads)) failed |= json_object_set_new(head, "averaged", json_true());
    if (!isnan(request->lr)) failed |= json_object_set_new(head, "lr", json_real(request->lr));
    json_decref(how);
    if (!failed) return head;
    json_decref(head);
    return NULL;
}

/* --- appending ---------------------------------------------------------------------------------------- */

static int fail_durable(struct api_request *request) {
    return nn_fail(&request->err, NN_E_STORE,
                   "the change was made, but could not be written down: after the next "
                   "start it may be gone");
}

static void on_durable(void *arg, bool durable) {
    struct api_commit *commit = arg;
    struct api_request *request = commit->request;
    commit->durable = durable;
    if (durable && commit->tells)
        tell_durable(request->api, commit->model, commit->version, commit->lowerings);
    if (atomic_fetch_sub(&commit->awaited, 1) != 1) return;
    int code = commit->code;
    if (!durable) code = fail_durable(request);
    api_finish_now(request, code);
}

bool api_commit_over(struct api_request *request, int *code) {
    struct api_commit *commit = request->commit;
    if (!commit) return true;
    commit->code = *code;
    if (atomic_fetch_sub(&commit->awaited, 1) != 1) return false;
    if (!commit->durable) *code = fail_durable(request);
    return true;
}

/* Appends the head and the data behind it. */
static int append(struct api_request *request, struct api_commit *commit, json_t *head,
                  const struct api_segment *data, size_t n) {
    const struct api_store *store = request->api->env.store;
    struct nn_error *err = &request->err;
    size_t size;
    uint64_t seq;
    commit->head = api_record_head_take(head, &size);
    commit->segments = calloc(n + 1, sizeof *commit->segments);
    if (!commit->head || !commit->segments) return nn_fail(err, NN_E_NOMEM, "memory is out");
    commit->segments[0] = (struct api_segment){commit->head, size};
    memcpy(commit->segments + 1, data, n * sizeof *data);
    commit->request = request;
    atomic_init(&commit->awaited, 2);
    request->commit = commit; /* from now on on_durable may be called */
    if (store->append(store->self, commit->segments, n + 1, on_durable, commit, &seq, err)) {
        api_commit_fini(request);
        return (int)err->code;
    }
    commit->model->seq = seq;
    return NN_OK;
}

/* Appends the record of a change that leads to `model`. */
static int write_down(struct api_request *request, struct api_model *model, json_t *head,
                      const struct api_segment *data, size_t n, struct api_snapshot *state) {
    struct api_commit *commit = nn_arena_alloc(request->arena, 1, sizeof *commit);
    if (!commit) {
        json_decref(head);
        api_snapshot_free(state);
        return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    }
    request->commit = commit;
    commit->model = model;
    atomic_fetch_add(&model->refs, 1);
    commit->state = state;
    commit->version = state ? state->version : version_after(request);
    commit->tells = is_durable_then(request) && !request->unstores;
    commit->lowerings = model->lowerings;
    if (append(request, commit, head, data, n) == NN_OK) return NN_OK;
    api_commit_fini(request);
    return (int)request->err.code;
}

int api_check_wait(struct api_request *request) {
    if (!request->wait || durability(request) != API_DURABLE_NONE) return NN_OK;
    nn_fail(&request->err, NN_E_VALUE, "the model's durability is none: its changes are never durable");
    return api_point(request, "wait", NULL);
}

/* The checks and the encoded answer that come before every change. */
static int get_ready(struct api_request *request) {
    struct api *api = request->api;
    if (request->quiet) return NN_OK;
    if (atomic_load(&api->ending)) return api_give_up(request); /* the last checkpoint may be over */
    if (api_check_wait(request)) return (int)request->err.code;
    if (durability(request) != API_DURABLE_NONE && atomic_load(&api->store_failed))
        return nn_fail(&request->err, NN_E_STORE, "%s; a restart is needed", api->store_error.text);
    return api_add_durable_version(request) ? (int)request->err.code : api_answer_ready(request);
}

/* Counts a change, after its record was appended. */
static void count(struct api_request *request, struct api_model *model) {
    request->change = ++model->changes;
    api_effects_commit(request, model, request->commit ? model->seq : 0);
}

int api_commit(struct api_request *request) {
    struct api_model *model = request->model;
    const struct api_segment body = {request->body, request->size};
    if (get_ready(request)) return (int)request->err.code;
    if (is_written(request) && write_down(request, model, describe_request(request, version_after(request)),
                                          &body, request->size != 0, NULL))
        return (int)request->err.code;
    count(request, model);
    return NN_OK;
}

/* True if carrying out the request again gives the same gradient: the version that it read will be there. */
static bool is_repeatable(const struct api_request *request) {
    const struct api_model *model = request->model;
    uint64_t now = nn_params_version(model->params);
    return request->body && api_commit_keeps_body(request) && now - request->seen <= API_REPLAY_VERSIONS &&
           request->seen >= model->oldest_readable;
}

int api_commit_gradient(struct api_request *request, struct nn_grads *grads, bool accumulate) {
    struct api_model *model = request->model;
    if (is_repeatable(request)) return api_commit(request);
    if (get_ready(request)) return (int)request->err.code;
    if (is_written(request)) {
        const struct api_segment data = {nn_grads_block(grads), nn_graph_gradient_bytes(model->graph)};
        if (write_down(request, model, describe_gradient(request, grads, accumulate, version_after(request)),
                       &data, 1, NULL))
            return (int)request->err.code;
    }
    count(request, model);
    return NN_OK;
}

int api_commit_parameters(struct api_request *request, struct nn_params *next) {
    struct api_model *model = request->model;
    if (get_ready(request)) return (int)request->err.code;
    if (is_written(request)) {
        const struct api_segment data = {nn_params_block(next), nn_graph_param_bytes(model->graph)};
        if (write_down(request, model, describe(request, model, "parameters", version_after(request)), &data,
                       1, NULL))
            return (int)request->err.code;
    }
    count(request, model);
    return NN_OK;
}

int api_commit_state_take(struct api_request *request, struct api_model *model, struct api_snapshot *state) {
    if (get_ready(request)) {
        api_snapshot_free(state);
        return (int)request->err.code;
    }
    if (!is_written(request))
        api_snapshot_free(state);
    else if (write_down(request, model, describe(request, model, "state", state->version), state->segments,
                        state->n_segments, state))
        return (int)request->err.code;
    count(request, model);
    return NN_OK;
}

/* --- a state on its own ------------------------------------------------------------------------------- */

/* A record that no request waits for. */
struct loose {
    struct api_snapshot *state;
    void *head;
    struct api_segment *segments;
};

static void loose_free(void *arg, bool durable) {
    struct loose *loose = arg;
    (void)durable; /* a later record tells whether the store failed */
    api_snapshot_free(loose->state);
    free(loose->head);
    free(loose->segments);
    free(loose);
}

int api_append_state_take(struct api_request *request, struct api_snapshot *state) {
    const struct api_store *store = request->api->env.store;
    struct api_model *model = request->model;
    struct nn_error *err = &request->err;
    size_t size;
    struct loose *loose = calloc(1, sizeof *loose);
    if (!loose) {
        api_snapshot_free(state);
        return nn_fail(err, NN_E_NOMEM, "memory is out");
    }
    loose->state = state;
    const struct api_env *env = &request->api->env;
    json_t *keys =
        api_effects_unrecorded(request->api, model); /* the state contains the changes of these keys */
    json_t *head =
        json_pack("{s:i, s:s, s:I, s:o, s:s, s:I, s:o}", "format", API_FORMAT, "kind", "state", "time",
                  (json_int_t)env->wall_ms(env->self), "lived", api_effects_time(request->api), "model",
                  model->name, "version", (json_int_t)state->version, "keys", keys);
    loose->head = api_record_head_take(head, &size);
    loose->segments = calloc(state->n_segments + 1, sizeof *loose->segments);
    if (!loose->head || !loose->segments) {
        loose_free(loose, false);
        return nn_fail(err, NN_E_NOMEM, "memory is out");
    }
    loose->segments[0] = (struct api_segment){loose->head, size};
    memcpy(loose->segments + 1, state->segments, state->n_segments * sizeof *state->segments);
    int code = store->append(store->self, loose->segments, state->n_segments + 1, loose_free, loose,
                             &model->seq, err);
    if (code) loose_free(loose, false);
    return code; /* cppcheck-suppress memleak ; the store calls loose_free */
}

/* --- before a turn ------------------------------------------------------------------------------------ */

bool api_commit_keeps_body(const struct api_request *request) {
    const struct api_model *model = request->model;
    if (!model || !request->repeatable || request->size > nn_graph_gradient_bytes(model->graph)) return false;
    pthread_mutex_lock(&request->api->lock);
    bool keeps = model->policy.durability == API_DURABLE_JOURNAL && !model->policy.sync;
    pthread_mutex_unlock(&request->api->lock);
    return keeps;
}

/* --- waiting for a checkpoint --------------------------------------------------------------------------- */

bool api_wait_for_checkpoint(struct api_request *request) {
    struct api *api = request->api;
    struct api_model *model = request->model;
    if (!request->wait || !request->change || request->quiet) return false;
    request->wait = false; /* a request waits once */
    pthread_mutex_lock(&api->lock);
    bool waits = model->policy.durability == API_DURABLE_SNAPSHOT && !model->dead && !request->commit;
    if (waits) {
        request->next = api->waiting;
        api->waiting = request;
    }
    pthread_mutex_unlock(&api->lock);
    if (waits) api->env.store->want_checkpoint(api->env.store->self);
    return waits;
}

void api_end_waiting(struct api *api, const struct api_model *model, uint64_t changes,
                     const struct nn_error *err) {
    struct api_request *first = NULL;
    pthread_mutex_lock(&api->lock);
    for (struct api_request **link = &api->waiting; *link;) {
        struct api_request *request = *link;
        if (model && (request->model != model || request->change > changes)) {
            link = &request->next;
            continue;
        }
        *link = request->next;
        request->next = first;
        first = request;
    }
    pthread_mutex_unlock(&api->lock);
    for (struct api_request *next; first; first = next) {
        next = first->next;
        if (err) first->err = *err;
        if (err) api_effects_keep(first);
        api_finish_now(first, err ? (int)err->code : NN_OK);
    }
}
