/* recover.c - restores the service at a start: models out of snapshots, then the records behind them. */
#include <assert.h>
#include <limits.h>
#include <search.h>
#include <string.h>
#include <xxhash.h>

#include "change/effect.h"
#include "change/registration.h"
#include "life.h"
#include "model/registry.h"
#include "model/snapshot.h"
#include "replay.h"
#include "request/service.h"

/* Widens the limits of requests: a record that kept the limits of its time must not be refused now. */
void api_recover_begin(struct api *api) {
    struct api_limits *limits = &api->settings.limits;
    assert(!atomic_load(&api->recovering));
    api->own_limits = *limits;
    limits->layers = limits->tensors = limits->json_values = INT_MAX;
    limits->rank = NN_MAX_RANK;
    limits->name = NN_MAX_NAME;
    limits->json_depth = API_JSON_DEPTH;
    limits->work = 0;
    atomic_store(&api->recovering, true);
}

static void restore_limits(struct api *api) {
    struct api_limits *limits = &api->settings.limits;
    const struct api_limits *own = &api->own_limits;
    limits->layers = own->layers;
    limits->tensors = own->tensors;
    limits->json_values = own->json_values;
    limits->rank = own->rank;
    limits->name = own->name;
    limits->json_depth = own->json_depth;
    limits->work = own->work;
}

static int no_memory(struct nn_error *err) { return nn_fail(err, NN_E_NOMEM, "memory is out"); }

/* --- models ------------------------------------------------------------------------------------------- */

int api_recover_model(struct api *api, struct api_source *source, uint64_t seq, struct nn_error *err) {
    struct api_request *request = api_request_quiet(api, NULL, NULL);
    if (!request) return no_memory(err);
    struct api_model *model = api_snapshot_read(request, source);
    if (!model) {
        *err = request->err;
        api_request_free(request);
        return (int)err->code;
    }
    model->seq = seq;
    api_list_model_take(request, model, err);
    api_model_unref(api, model);
    return (int)err->code;
}

/* --- records ------------------------------------------------------------------------------------------ */

/* Finds a model between two records. *model is NULL if there is none; the request has the reference. */
static int look(struct api *api, const char *name, struct api_request **request, struct api_model **model,
                struct nn_error *err) {
    *model = NULL;
    if (!(*request = api_request_quiet(api, NULL, NULL))) return no_memory(err);
    if (api_model_find(*request, name) == NN_OK) *model = (*request)->model;
    return NN_OK;
}

/* Checks the parameters before a record: they must have the hash that the record tells. */
static int check_before(struct api_replaying *again, const struct api_model *model) {
    const json_t *hash = json_object_get(again->record->head, "hash");
    /* Another format computed by other rules, and another build may compute other bits. */
    bool same = again->record->format == API_FORMAT && !(again->known & API_FOREIGN);
    if (!hash || !model || !same) return NN_OK;
    uint64_t now = XXH3_64bits(nn_params_block(model->params), nn_graph_param_bytes(model->graph));
    return now == api_record_bits(hash)
               ? NN_OK
               : api_replay_corrupt(again, "what came before it led to other numbers");
}

/* Checks the model after a record. A step that made numbers that are not finite makes them again. */
static int check_after(struct api_replaying *again, struct api_model *model) {
    uint64_t version = (uint64_t)api_record_integer(again->record->head, "version");
    if (again->replay.code == NN_E_NOMEM) /* the record may be good */
        return nn_fail(again->err, NN_E_NOMEM, "%.200s", again->replay.err.text);
    if (again->replay.code && again->replay.code != NN_E_NOT_FINITE)
        return api_replay_corrupt(again, again->replay.err.text);
    if (!model) return NN_OK; /* the record deleted it */
    model->seq = again->seq;
    /* Under "snapshot", the journal has only some of the changes. */
    bool follows = model->policy.durability == API_DURABLE_JOURNAL;
    if (again->replay.code || !follows || nn_params_version(model->params) == version) return NN_OK;
    return api_replay_corrupt(again, "it led to another version");
}

/* Removes a model that is `unwanted`. */
static int drop_if(struct api *api, const char *name, bool (*unwanted)(const struct api_model *model),
                   struct nn_error *err) {
    struct api_request *request;
    struct api_model *model;
    int code = look(api, name, &request, &model, err);
    if (model && unwanted(model)) api_model_remove(request, NN_E_NOT_FOUND);
    api_request_free(request);
    return code;
}

static bool is_unstored(const struct api_model *model) {
    return model->policy.durability == API_DURABLE_NONE;
}
static bool has_no_future(const struct api_model *model) { return model->stays || is_unstored(model); }

static bool is_creation(const json_t *head) { return strcmp(api_record_text(head, "path"), "/models") == 0; }

static bool is_deletion(const json_t *head) {
    return strcmp(api_record_text(head, "method"), "DELETE") == 0 &&
           strcmp(api_record_text(head, "path"), "/models/{}") == 0;
}

/* True if the record does not need the model before it. */
static bool is_beginning(const json_t *head) {
    return strcmp(api_record_text(head, "kind"), "state") == 0 || is_creation(head);
}

static int carry_out(struct api_replaying *again, const char *name) {
    struct api_request *request;
    struct api_model *model;
    if (api_replay(again)) return (int)again->err->code;
    if (look(again->api, name, &request, &model, again->err) == NN_OK) check_after(again, model);
    api_request_free(request);
    return (int)again->err->code;
}

static bool is_wanted(const struct api_replaying *again, const struct api_model *model) {
    const json_t *head = again->record->head;
    if (!model) return !(again->known & API_MAY_BE_GONE) || is_beginning(head);
    return again->seq > model->seq && (!model->stays || is_beginning(head) || is_deletion(head));
}

/* Notes that the change of a record failed: a file of keys, written before, may have its keys. */
static int note_failed(struct api_replaying *again) {
    struct api *api = again->api;
    uint64_t *failed = realloc(api->failed, (api->n_failed + 1) * sizeof *failed);
    if (!failed) return no_memory(again->err);
    api->failed = failed;
    failed[api->n_failed++] = again->seq;
    return NN_OK;
}

/* Remembers the Idempotency-Keys of a record that was carried out. Sets `birth` to that of the model as it is now. If
 * the record has deleted the model, `birth` stays as passed: that of the model before the record, or "". */
static int recover_keys(struct api_replaying *again, char birth[17]) {
    const json_t *head = again->record->head;
    struct api_request *request;
    struct api_model *model;
    int code = look(again->api, api_record_text(head, "model"), &request, &model, again->err);
    /* The state of a model that is not stored waits for the patch that raises its durability, and that has the keys
     * too. */
    bool wanted = strcmp(api_record_text(head, "kind"), "state") != 0 || !model || !is_unstored(model);
    if (model) memcpy(birth, model->birth, sizeof model->birth);
    api_request_free(request);
    if (code || !wanted) return code;
    return api_effects_recover(again->api, json_object_get(head, "keys"), api_record_text(head, "model"),
                               birth, again->seq, again->err);
}

static int recover(struct api_replaying *again) {
    struct api *api = again->api;
    const json_t *head = again->record->head;
    const char *name = api_record_text(head, "model");
    char birth[17] = "";
    struct api_request *request;
    struct api_model *model;
    if (look(api, name, &request, &model, again->err)) return (int)again->err->code;
    bool wanted = is_wanted(again, model);
    /* A record that begins anew needs no earlier state, and a model that stays behind lacks changes. */
    if (wanted && !is_beginning(head) && !(model && model->stays)) check_before(again, model);
    if (model) memcpy(birth, model->birth, sizeof birth);
    api_request_free(request);
    if (!wanted || again->err->code) return (int)again->err->code;
    /* The record creates a model of a name that is taken. The deletion of the old model was lost, or the patch that
     * should raise its durability: the old one must go. */
    if (is_creation(head) && drop_if(api, name, has_no_future, again->err)) return (int)again->err->code;
    if (carry_out(again, name)) return (int)again->err->code;
    if (again->replay.code)
        note_failed(again);
    else
        recover_keys(again, birth);
    bool is_request = strcmp(api_record_text(head, "kind"), "request") == 0;
    if (!again->err->code && is_request) drop_if(api, name, is_unstored, again->err);
    return (int)again->err->code;
}

int api_recover_stay(struct api *api, const char *name, struct nn_error *err) {
    struct api_request *request;
    struct api_model *model;
    int code = look(api, name, &request, &model, err);
    if (model) model->stays = true;
    api_request_free(request);
    return code;
}

int api_recover_gone(struct api *api, const char *birth, struct nn_error *err) {
    char(*gone)[17] = realloc(api->gone, (api->n_gone + 1) * sizeof *gone);
    if (!gone) return no_memory(err);
    api->gone = gone;
    snprintf(gone[api->n_gone++], sizeof *gone, "%s", birth);
    return NN_OK;
}

/* If a record is refused, its model stays as it is, and later records of it are refused too. A model that the record
 * should create is missing, and so are its keys. */
static int recover_or_stay(struct api_replaying *again) {
    struct nn_error memory = {0};
    struct api_replaying aside = *again;
    struct api_request *request;
    struct api_model *model;
    api_effects_pass(again->api, json_object_get(again->record->head, "lived"));
    if (recover(again) != NN_E_CORRUPT) return (int)again->err->code;
    aside.err = &memory;
    int code = look(again->api, api_record_text(again->record->head, "model"), &request, &model, &memory);
    if (model) model->stays = true;
    if (!code && !model) code = note_failed(&aside);
    if (code) *again->err = memory;
    api_request_free(request);
    return (int)again->err->code;
}

static int look_whether_wanted(struct api_replaying *again) {
    struct api_request *request;
    struct api_model *model;
    int code = look(again->api, api_record_text(again->record->head, "model"), &request, &model, again->err);
    if (!code) again->wanted = is_wanted(again, model);
    api_request_free(request);
    return code;
}

/* Reads a record, and calls `what` with it. */
static int with_record(struct api_replaying *again, struct api_record *record, const void *bytes, size_t size,
                       int (*what)(struct api_replaying *again)) {
    struct nn_arena *arena = nn_arena_new();
    if (!arena) return no_memory(again->err);
    if (api_record_read(bytes, size, arena, record, again->err) == NN_OK) {
        what(again);
        api_record_fini(record);
    }
    nn_arena_free(arena);
    return (int)again->err->code;
}

int api_recover_record(struct api *api, uint64_t seq, const void *bytes, size_t size, unsigned known,
                       struct nn_error *err) {
    struct api_record record;
    struct api_replaying again = {.api = api, .record = &record, .seq = seq, .known = known, .err = err};
    return with_record(&again, &record, bytes, size, recover_or_stay);
}

int api_recover_wants(struct api *api, uint64_t seq, const void *bytes, size_t size, unsigned known,
                      bool *wanted, struct nn_error *err) {
    struct api_record record;
    struct api_replaying again = {.api = api, .record = &record, .seq = seq, .known = known, .err = err};
    int code = with_record(&again, &record, bytes, size, look_whether_wanted);
    *wanted = again.wanted;
    return code;
}

/* --- the end ------------------------------------------------------------------------------------------ */

/* Finds a model whose state was recorded, but whose durability was not raised. */
static void find_unstored(const void *node, VISIT visit, void *closure) {
    const struct api_model *model = *(struct api_model *const *)node;
    if ((visit == postorder || visit == leaf) && model->policy.durability == API_DURABLE_NONE)
        *(const char **)closure = model->name;
}

static int drop_unstored(struct api *api, struct nn_error *err) {
    for (;;) {
        const char *name = NULL;
        pthread_mutex_lock(&api->lock);
        twalk_r(api->models, find_unstored, &name);
        pthread_mutex_unlock(&api->lock);
        if (!name) return NN_OK;
        if (drop_if(api, name, is_unstored, err)) return (int)err->code;
    }
}

struct ending {
    struct api *api;
    bool clean, failed;
};

static void end_one(const void *node, VISIT visit, void *closure) {
    struct ending *ending = closure;
    struct api_model *model = *(struct api_model *const *)node;
    const struct api_env *env = &ending->api->env;
    uint64_t bits;
    if (visit != postorder && visit != leaf) return;
    api_model_forget_past(model);
    api_model_trim(ending->api, model);
    model->durable_version = (int64_t)nn_params_version(model->params);
    if (ending->clean) return;
    ending->failed |= !env->entropy(env->self, &bits, sizeof bits);
    snprintf(model->incarnation, sizeof model->incarnation, "%016llx", (unsigned long long)bits);
}

int api_recover_end(struct api *api, bool clean, struct nn_error *err) {
    struct ending ending = {api, clean, false};
    if (drop_unstored(api, err)) return (int)err->code;
    pthread_mutex_lock(&api->lock);
    twalk_r(api->models, end_one, &ending);
    pthread_mutex_unlock(&api->lock);
    restore_limits(api);
    api_effects_recovered(api);
    free(api->failed);
    free(api->gone);
    api->failed = NULL;
    api->gone = NULL;
    api->n_failed = api->n_gone = 0;
    atomic_store(&api->recovering, false);
    return ending.failed ? nn_fail(err, NN_E_INTERNAL, "the source of entropy failed") : NN_OK;
}
