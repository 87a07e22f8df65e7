/* replay.c - carries out a record again, by its kind. */
#include "replay.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "change/commit.h"
#include "change/registration.h"
#include "change/turns.h"
#include "change/update.h"
#include "life.h"
#include "model/registry.h"
#include "model/snapshot.h"
#include "request/service.h"

static int no_memory(struct nn_error *err) { return nn_fail(err, NN_E_NOMEM, "memory is out"); }

static int turn_nothing(struct api_request *request) {
    (void)request;
    return NN_OK;
}

int api_list_model_take(struct api_request *request, struct api_model *model, struct nn_error *err) {
    request->model = model;
    atomic_fetch_add(&model->refs, 1);
    if (api_model_register(request, turn_nothing) == API_LATER) return NN_OK;
    nn_fail(err, request->err.code == NN_E_NOMEM ? NN_E_NOMEM : NN_E_CORRUPT, "%.200s", request->err.text);
    api_request_free(request);
    return (int)err->code;
}

int api_replay_corrupt(struct api_replaying *again, const char *what) {
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

static int again_request(struct api_replaying *again) {
    struct api_request *request = again->request;
    const json_t *head = again->record->head, *read = json_object_get(head, "read"),
                 *drawn = json_object_get(head, "drawn"), *query = json_object_get(head, "query");
    request->route = find_route(api_record_text(head, "method"), api_record_text(head, "path"));
    if (!request->route || request->route->recorded == API_RECORD_NEVER)
        return api_replay_corrupt(again, "there is no such call");
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

/* Finds the record's model; the request has the reference. */
static int find_model(struct api_replaying *again) {
    if (api_model_find(again->request, api_record_text(again->record->head, "model")) == NN_OK) return NN_OK;
    return api_replay_corrupt(again, "there is no such model");
}

static int read_only(struct api_replaying *again) {
    struct api_request *request = again->request;
    int n = nn_graph_param_count(request->model->graph);
    const char *digits = json_string_value(json_object_get(again->record->head, "only"));
    if (!digits) return NN_OK;
    if (strlen(digits) != (size_t)n) return api_replay_corrupt(again, "it is of other parameters");
    if (!(request->only = nn_arena_alloc(request->arena, (size_t)n, sizeof *request->only)))
        return no_memory(again->err);
    for (int i = 0; i < n; i++) request->only[i] = digits[i] == '1';
    return NN_OK;
}

/* Copies parameter by parameter: the padding between them stays zero, whatever the record has there. */
static void copy_block(const struct nn_graph *graph, bool gradient, void *to, const void *from) {
    for (int i = 0; i < nn_graph_param_count(graph); i++) {
        const struct nn_param *param = nn_graph_param(graph, i);
        if (param->kind == NN_FROZEN && gradient) continue;
        memcpy((char *)to + param->offset, (const char *)from + param->offset, param->bytes);
    }
}

/* Checks the counts of batches in a block. */
static int check_counts(struct api_replaying *again, const struct nn_graph *graph, const void *block) {
    for (int i = 0; i < nn_graph_param_count(graph); i++) {
        const struct nn_param *param = nn_graph_param(graph, i);
        int64_t count = 0;
        if (param->dtype == NN_I64) memcpy(&count, (const char *)block + param->offset, sizeof count);
        if (count < 0) return api_replay_corrupt(again, "a count of batches is negative");
    }
    return NN_OK;
}

static int again_gradient(struct api_replaying *again) {
    struct api_request *request = again->request;
    const json_t *head = again->record->head, *lr = json_object_get(head, "lr");
    if (find_model(again) || read_only(again)) return (int)again->err->code;
    struct nn_graph *graph = request->model->graph;
    if (again->record->size != nn_graph_gradient_bytes(graph))
        return api_replay_corrupt(again, "it has another size");
    if (check_counts(again, graph, again->record->data)) return (int)again->err->code;
    if (!(request->grads = nn_grads_new_unset(graph, again->err))) return (int)again->err->code;
    copy_block(graph, true, nn_grads_block(request->grads), again->record->data);
    nn_grads_set_averaged(request->grads, api_record_flag(head, "averaged"));
    int64_t seen = api_record_integer(head, "seen");
    request->scale = api_record_real(head, "scale");
    if (lr) request->lr = json_number_value(lr);
    if (nn_grads_is_averaged(request->grads) && api_record_flag(head, "accumulate"))
        return api_replay_corrupt(again, "a round's gradient is not accumulated");
    if (seen < 0 || (uint64_t)seen > nn_params_version(request->model->params))
        return api_replay_corrupt(again, "it is of a version that is not there yet");
    if (!isfinite(request->scale) ||
        (lr && !(json_is_number(lr) && request->lr >= 0 && request->lr <= API_MAX_LR)))
        return api_replay_corrupt(again, "its learning rate or scale is none");
    request->seen = (uint64_t)seen;
    again->request = NULL;
    api_model_turn(request, api_record_flag(head, "accumulate") ? api_turn_accumulate : api_turn_apply);
    return NN_OK;
}

/* Makes the block in request->body the model's next version. */
static int turn_parameters(struct api_request *request) {
    struct nn_params *next;
    if (api_model_next(request, &next) || api_commit(request)) return (int)request->err.code;
    copy_block(request->model->graph, false, nn_params_block(next), request->body);
    api_model_run(request);
    api_model_publish(request, next);
    return NN_OK;
}

static int again_parameters(struct api_replaying *again) {
    struct api_request *request = again->request;
    if (find_model(again)) return (int)again->err->code;
    if (again->record->size != nn_graph_param_bytes(request->model->graph))
        return api_replay_corrupt(again, "it has another size");
    if (check_counts(again, request->model->graph, again->record->data)) return (int)again->err->code;
    if (!(request->body = malloc(again->record->size))) return no_memory(again->err);
    request->size = again->record->size;
    memcpy(request->body, again->record->data, request->size);
    again->request = NULL;
    api_model_turn(request, turn_parameters);
    return NN_OK;
}

static int again_state(struct api_replaying *again) {
    struct api_request *request = again->request;
    struct api_source source = api_source_of(again->record->data, again->record->size);
    struct api_model *model = api_snapshot_read(request, &source);
    if (!model) {
        if (request->err.code == NN_E_NOMEM) return no_memory(again->err);
        if (request->err.code == NN_E_STORE) return nn_fail(again->err, NN_E_STORE, "%s", request->err.text);
        return api_replay_corrupt(again, request->err.text);
    }
    if (strcmp(model->name, api_record_text(again->record->head, "model")) != 0) {
        api_replay_corrupt(again, "it is of another model");
    } else if (api_model_find(request, model->name) == NN_OK) {
        api_model_replace(request, model);
    } else {
        request->err = (struct nn_error){0};
        again->request = NULL;
        api_list_model_take(request, model, again->err);
    }
    api_model_unref(again->api, model);
    return (int)again->err->code;
}

static const struct {
    const char *kind;
    int (*carry_out)(struct api_replaying *again);
} kinds[] = {{"request", again_request},
             {"gradient", again_gradient},
             {"parameters", again_parameters},
             {"state", again_state}};

int api_replay(struct api_replaying *again) {
    size_t i = 0, n = sizeof kinds / sizeof kinds[0];
    while (i < n && strcmp(kinds[i].kind, api_record_text(again->record->head, "kind")) != 0) i++;
    if (i == n) return api_replay_corrupt(again, "a kind that is not known");
    if (!(again->request = api_request_quiet(again->api, NULL, NULL))) return no_memory(again->err);
    again->replay.read = UINT64_MAX;
    again->replay.format = again->record->format;
    again->request->replay = &again->replay;
    kinds[i].carry_out(again);
    api_request_free(again->request);
    return (int)again->err->code;
}
