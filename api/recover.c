/* recover.c - the service as it was: models out of snapshots, and the records behind them carried out again. */
#include <assert.h>
#include <limits.h>
#include <math.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "change/effect.h"
#include "wire/json_read.h"
#include "model/model.h"
#include "wire/record.h"
#include "request/service.h"
#include "model/snapshot.h"
#include "change/update.h"

/* What was within the limits when it came is not to be refused now. */
void api_recover_begin(struct api *api) {
    struct api_limits *limits = &api->settings.limits;
    assert(!atomic_load(&api->recovering));
    api->own_limits = *limits;
    limits->layers = limits->tensors = limits->json_values = INT_MAX;
    limits->rank = NN_MAX_RANK;
    limits->name = NN_MAX_NAME;
    limits->json_depth = API_JSON_DEPTH;
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
}

static int no_memory(struct nn_error *err) { return nn_fail(err, NN_E_NOMEM, "memory is out"); }

/* --- models ------------------------------------------------------------------------------------------- */

static int turn_nothing(struct api_request *request) {
    (void)request;
    return NN_OK;
}

/* Lists a model, which is the caller's reference still. Consumes the request. */
static int list_take(struct api_request *request, struct api_model *model, struct nn_error *err) {
    request->model = model;
    atomic_fetch_add(&model->refs, 1);
    if (api_model_register(request, turn_nothing) == API_LATER) return NN_OK;
    nn_fail(err, request->err.code == NN_E_NOMEM ? NN_E_NOMEM : NN_E_CORRUPT, "%.200s", request->err.text);
    api_request_free(request);
    return (int)err->code;
}

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
    list_take(request, model, err);
    api_model_unref(api, model);
    return (int)err->code;
}

/* --- records ------------------------------------------------------------------------------------------ */

/* A request that stands for a record, and the model that it concerns, if it is there. */
struct again {
    struct api *api;
    const struct api_record *record;
    uint64_t seq;
    bool may_be_gone, wanted;
    struct api_request *request; /* until it is carried out */
    struct api_replay replay;
    struct nn_error *err;
};

static int corrupt(struct again *again, const char *what) {
    return nn_fail(again->err, NN_E_CORRUPT, "record %llu, %s of \"%.64s\": %s",
                   (unsigned long long)again->seq, api_record_text(again->record->head, "kind"),
                   api_record_text(again->record->head, "model"), what);
}

static const struct api_route *find_route(const char *method, const char *path) {
    for (int i = 0; i < API_ROUTES; i++)
        if (strcmp(api_routes[i].method, method) == 0 && strcmp(api_routes[i].path, path) == 0)
            return &api_routes[i];
    return NULL;
}

/* Whether the service writes down requests of it. */
static bool is_recorded(const struct api_route *route) {
    return route->effect != API_READS && route != &api_routes[ROUTE_OF_api_post_restore] &&
           route != &api_routes[ROUTE_OF_api_delete_context];
}

static int again_request(struct again *again) {
    struct api_request *request = again->request;
    const json_t *head = again->record->head, *read = json_object_get(head, "read"),
                 *drawn = json_object_get(head, "drawn"), *query = json_object_get(head, "query");
    request->route = find_route(api_record_text(head, "method"), api_record_text(head, "path"));
    if (!request->route || !is_recorded(request->route)) return corrupt(again, "there is no such call");
    snprintf(request->name, sizeof request->name, "%s", api_record_text(head, "name"));
    if (query && !(request->query = strdup(api_record_text(head, "query")))) return no_memory(again->err);
    request->in = strcmp(api_record_text(head, "encoding"), "json") == 0 ? API_JSON : API_SAFETENSORS;
    if (read) again->replay.read = (uint64_t)json_integer_value(read);
    for (size_t i = 0; i < json_array_size(drawn) && i < 4; i++)
        again->replay.drawn[again->replay.n_drawn++] = api_record_bits(json_array_get(drawn, i));
    request->size = again->record->size;
    if (request->size && !(request->body = malloc(request->size))) return no_memory(again->err);
    if (request->size) memcpy(request->body, again->record->data, request->size);
    again->request = NULL;
    api_serve(request);
    return NN_OK;
}

/* The model, held by the request. */
static int find_model(struct again *again) {
    if (api_model_find(again->request, api_record_text(again->record->head, "model")) == NN_OK) return NN_OK;
    return corrupt(again, "there is no such model");
}

static int read_only(struct again *again) {
    struct api_request *request = again->request;
    int n = nn_graph_param_count(request->model->graph);
    const char *digits = json_string_value(json_object_get(again->record->head, "only"));
    if (!digits) return NN_OK;
    if (strlen(digits) != (size_t)n) return corrupt(again, "it is of other parameters");
    if (!(request->only = nn_arena_alloc(request->arena, (size_t)n, sizeof *request->only)))
        return no_memory(again->err);
    for (int i = 0; i < n; i++) request->only[i] = digits[i] == '1';
    return NN_OK;
}

/* Parameter by parameter: what lies between them stays zero, whatever the record has there. */
static void copy_block(const struct nn_graph *graph, bool trainable, void *to, const void *from) {
    for (int i = 0; i < nn_graph_param_count(graph); i++) {
        const struct nn_param *param = nn_graph_param(graph, i);
        size_t size = (size_t)param->elements * nn_dtype_size(nn_graph_dtype(graph));
        if (param->trainable || !trainable)
            memcpy((char *)to + param->offset, (const char *)from + param->offset, size);
    }
}

static int again_gradient(struct again *again) {
    struct api_request *request = again->request;
    const json_t *head = again->record->head, *lr = json_object_get(head, "lr");
    if (find_model(again) || read_only(again)) return (int)again->err->code;
    struct nn_graph *graph = request->model->graph;
    if (again->record->size != nn_graph_trainable_bytes(graph)) return corrupt(again, "it has another size");
    if (!(request->grads = nn_grads_new_unset(graph, again->err))) return (int)again->err->code;
    copy_block(graph, true, nn_grads_block(request->grads), again->record->data);
    int64_t seen = api_record_integer(head, "seen");
    request->scale = api_record_real(head, "scale");
    if (lr) request->lr = json_number_value(lr);
    if (seen < 0 || (uint64_t)seen > nn_params_version(request->model->params))
        return corrupt(again, "it is of a version that is not there yet");
    if (!isfinite(request->scale) || (lr && !json_is_number(lr)) || api_check_lr(request, "lr"))
        return corrupt(again, "its learning rate or scale is none");
    request->seen = (uint64_t)seen;
    again->request = NULL;
    api_model_turn(request, api_record_flag(head, "accumulate") ? api_turn_accumulate : api_turn_apply);
    return NN_OK;
}

/* The block that stands in request->body becomes the model's next version. */
static int turn_parameters(struct api_request *request) {
    struct nn_params *next;
    if (api_model_next(request, &next) || api_commit(request)) return (int)request->err.code;
    copy_block(request->model->graph, false, nn_params_block(next), request->body);
    api_model_run(request);
    api_model_publish(request, next);
    return NN_OK;
}

static int again_parameters(struct again *again) {
    struct api_request *request = again->request;
    if (find_model(again)) return (int)again->err->code;
    if (again->record->size != nn_graph_param_bytes(request->model->graph))
        return corrupt(again, "it has another size");
    if (!(request->body = malloc(again->record->size))) return no_memory(again->err);
    request->size = again->record->size;
    memcpy(request->body, again->record->data, request->size);
    again->request = NULL;
    api_model_turn(request, turn_parameters);
    return NN_OK;
}

static int again_state(struct again *again) {
    struct api_request *request = again->request;
    struct api_source source = api_source_of(again->record->data, again->record->size);
    struct api_model *model = api_snapshot_read(request, &source);
    if (!model) {
        if (request->err.code == NN_E_NOMEM) return no_memory(again->err);
        return corrupt(again, request->err.text);
    }
    if (strcmp(model->name, api_record_text(again->record->head, "model")) != 0) {
        corrupt(again, "it is of another model");
    } else if (api_model_find(request, model->name) == NN_OK) {
        api_model_replace(request, model);
    } else {
        request->err = (struct nn_error){0};
        again->request = NULL;
        list_take(request, model, again->err);
    }
    api_model_unref(again->api, model);
    return (int)again->err->code;
}

static const struct {
    const char *kind;
    int (*carry_out)(struct again *again);
} kinds[] = {{"request", again_request},
             {"gradient", again_gradient},
             {"parameters", again_parameters},
             {"state", again_state}};

/* A look at a model between two records: *model NULL if it is not there. The reference is the request's. */
static int look(struct api *api, const char *name, struct api_request **request, struct api_model **model,
                struct nn_error *err) {
    *model = NULL;
    if (!(*request = api_request_quiet(api, NULL, NULL))) return no_memory(err);
    if (api_model_find(*request, name) == NN_OK) *model = (*request)->model;
    return NN_OK;
}

/* What the model has to be like before. */
static int check_before(struct again *again, const struct api_model *model) {
    const json_t *hash = json_object_get(again->record->head, "hash");
    if (!hash || !model) return NN_OK;
    uint64_t now = XXH3_64bits(nn_params_block(model->params), nn_graph_param_bytes(model->graph));
    return now == api_record_bits(hash) ? NN_OK : corrupt(again, "what came before it led to other numbers");
}

/* And after it. A step that leads to numbers that are not finite does so again. */
static int check_after(struct again *again, struct api_model *model) {
    uint64_t version = (uint64_t)api_record_integer(again->record->head, "version");
    if (again->replay.code == NN_E_NOMEM) /* which says nothing of the record */
        return nn_fail(again->err, NN_E_NOMEM, "%.200s", again->replay.err.text);
    if (again->replay.code && again->replay.code != NN_E_NOT_FINITE)
        return corrupt(again, again->replay.err.text);
    if (!model) return NN_OK; /* it was deleted */
    model->seq = again->seq;
    /* Others come from a snapshot that lacks some changes. */
    bool follows = model->policy.durability == API_DURABLE_JOURNAL;
    if (again->replay.code || !follows || nn_params_version(model->params) == version) return NN_OK;
    return corrupt(again, "it led to another version");
}

/* A model that has nothing to do here any more: it is stored no more, or it stays behind and another one takes its name. */
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

/* Whether there need be no model before it. */
static bool is_beginning(const json_t *head) {
    return strcmp(api_record_text(head, "kind"), "state") == 0 || is_creation(head);
}

static int carry_out(struct again *again, const char *name) {
    size_t i = 0, n = sizeof kinds / sizeof kinds[0];
    while (i < n && strcmp(kinds[i].kind, api_record_text(again->record->head, "kind")) != 0) i++;
    if (i == n) return corrupt(again, "a kind that is not known");
    if (!(again->request = api_request_quiet(again->api, NULL, NULL))) return no_memory(again->err);
    again->replay.read = UINT64_MAX;
    again->request->replay = &again->replay;
    kinds[i].carry_out(again);
    api_request_free(again->request);
    if (again->err->code) return (int)again->err->code;
    struct api_request *request;
    struct api_model *model;
    if (look(again->api, name, &request, &model, again->err) == NN_OK) check_after(again, model);
    api_request_free(request);
    return (int)again->err->code;
}

static bool is_wanted(const struct again *again, const struct api_model *model) {
    const json_t *head = again->record->head;
    if (!model) return !again->may_be_gone || is_beginning(head);
    return again->seq > model->seq && (!model->stays || is_beginning(head) || is_deletion(head));
}

/* Its keys may have been saved while nobody knew yet. */
static int note_failed(struct again *again) {
    struct api *api = again->api;
    uint64_t *failed = realloc(api->failed, (api->n_failed + 1) * sizeof *failed);
    if (!failed) return no_memory(again->err);
    api->failed = failed;
    failed[api->n_failed++] = again->seq;
    return NN_OK;
}

/* Of the change that was carried out. `birth`: that the model had before, if there was one. */
static int recover_keys(struct again *again, char birth[17]) {
    const json_t *head = again->record->head;
    struct api_request *request;
    struct api_model *model;
    int code = look(again->api, api_record_text(head, "model"), &request, &model, again->err);
    /* A state goes again, unless the patch comes that it was written down for, and has them too. */
    bool wanted = strcmp(api_record_text(head, "kind"), "state") != 0 || !model || !is_unstored(model);
    if (model) memcpy(birth, model->birth, sizeof model->birth);
    api_request_free(request);
    if (code || !wanted) return code;
    return api_effects_recover(again->api, json_object_get(head, "keys"), birth, again->seq,
                               api_record_integer(head, "time"), again->err);
}

static int recover(struct again *again) {
    struct api *api = again->api;
    const json_t *head = again->record->head;
    const char *name = api_record_text(head, "model");
    char birth[17] = "";
    struct api_request *request;
    struct api_model *model;
    if (look(api, name, &request, &model, again->err)) return (int)again->err->code;
    bool wanted = is_wanted(again, model);
    /* What begins anew does not rest on what is there, and one that stays behind is not what it was. */
    if (wanted && !is_beginning(head) && !(model && model->stays)) check_before(again, model);
    if (model) memcpy(birth, model->birth, sizeof birth);
    api_request_free(request);
    if (!wanted || again->err->code) return (int)again->err->code;
    /* What was to raise its durability never came, or its deletion is lost: there was no such model any more. */
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

/* On one that is refused nothing is built; and what it was to create is not there, nor are its keys. */
static int recover_or_stay(struct again *again) {
    struct nn_error memory = {0};
    struct again aside = *again;
    struct api_request *request;
    struct api_model *model;
    if (recover(again) != NN_E_CORRUPT) return (int)again->err->code;
    aside.err = &memory;
    int code = look(again->api, api_record_text(again->record->head, "model"), &request, &model, &memory);
    if (model) model->stays = true;
    if (!code && !model) code = note_failed(&aside);
    if (code) *again->err = memory;
    api_request_free(request);
    return (int)again->err->code;
}

static int look_whether_wanted(struct again *again) {
    struct api_request *request;
    struct api_model *model;
    int code = look(again->api, api_record_text(again->record->head, "model"), &request, &model, again->err);
    if (!code) again->wanted = is_wanted(again, model);
    api_request_free(request);
    return code;
}

/* Reads the record that `again` is of. */
static int with_record(struct again *again, struct api_record *record, const void *bytes, size_t size,
                       int (*what)(struct again *again)) {
    struct nn_arena *arena = nn_arena_new();
    if (!arena) return no_memory(again->err);
    if (api_record_read(bytes, size, arena, record, again->err) == NN_OK) {
        what(again);
        api_record_fini(record);
    }
    nn_arena_free(arena);
    return (int)again->err->code;
}

int api_recover_record(struct api *api, uint64_t seq, const void *bytes, size_t size, bool may_be_gone,
                       struct nn_error *err) {
    struct api_record record;
    struct again again = {.api = api, .record = &record, .seq = seq, .may_be_gone = may_be_gone, .err = err};
    return with_record(&again, &record, bytes, size, recover_or_stay);
}

int api_recover_wants(struct api *api, uint64_t seq, const void *bytes, size_t size, bool may_be_gone,
                      bool *wanted, struct nn_error *err) {
    struct api_record record;
    struct again again = {.api = api, .record = &record, .seq = seq, .may_be_gone = may_be_gone, .err = err};
    int code = with_record(&again, &record, bytes, size, look_whether_wanted);
    *wanted = again.wanted;
    return code;
}

/* --- the end ------------------------------------------------------------------------------------------ */

/* One that nothing but its state was written down of, in vain. */
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
    free(api->failed);
    free(api->gone);
    api->failed = NULL;
    api->gone = NULL;
    api->n_failed = api->n_gone = 0;
    atomic_store(&api->recovering, false);
    return ending.failed ? nn_fail(err, NN_E_INTERNAL, "the source of entropy failed") : NN_OK;
}
