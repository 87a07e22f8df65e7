/* spec.c - reading a specification. Names of members are PyTorch's where PyTorch has them. */
#include "spec.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../request/service.h"

#define MAX_WORKERS  10000
#define MAX_ROUND_MS ((int64_t)24 * 3600 * 1000)

/* Where in the request the reader is: "/model/layers/3". */
struct place {
    struct api_request *request;
    struct api_pointer at;
};

static struct place within(const struct place *place, const char *token) {
    struct place inner = *place;
    api_pointer_add(&inner.at, token);
    return inner;
}

static struct place element(const struct place *place, size_t index) {
    char token[24];
    snprintf(token, sizeof token, "%zu", index);
    return within(place, token);
}

/* Points at `member` of the place, or at the place itself, and returns the recorded code. */
static int fail_at(const struct place *place, const char *member) {
    struct api_pointer *pointer = &place->request->pointer;
    if (!pointer->text[0]) {
        *pointer = place->at;
        if (member && *member) api_pointer_add(pointer, member);
    }
    return (int)place->request->err.code;
}

static int wrong(const struct place *place, const char *member, const char *what) {
    nn_fail(&place->request->err, NN_E_VALUE, "%s must be %s", member ? member : "this", what);
    return fail_at(place, member);
}

static int no_memory(const struct place *place) {
    return nn_fail(&place->request->err, NN_E_NOMEM, "memory is out");
}

static int check_known(const struct place *place, const json_t *object, const char *known) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value) {
        if (api_among(known, name, strlen(name))) continue;
        nn_fail(&place->request->err, NN_E_UNKNOWN_MEMBER, "known here: %s", known);
        return fail_at(place, name);
    }
    return NN_OK;
}

/* A string member; absent leaves *value alone. */
static int get_string(const struct place *place, const json_t *object, const char *name, const char **value) {
    const json_t *json = json_object_get(object, name);
    if (!json) return NN_OK;
    if (!json_is_string(json)) return wrong(place, name, "a string");
    *value = json_string_value(json);
    return NN_OK;
}

/* --- attributes ------------------------------------------------------------------------------------ */

static int read_list(const struct place *place, const char *name, const json_t *list,
                     struct nn_given *given) {
    size_t i, n = json_array_size(list);
    json_t *item;
    double *numbers = nn_arena_alloc(place->request->arena, n, sizeof *numbers);
    if (!numbers) return no_memory(place);
    json_array_foreach((json_t *)list, i, item) {
        if (!json_is_number(item)) return wrong(place, name, "a list of numbers");
        numbers[i] = json_number_value(item);
    }
    *given = (struct nn_given){.kind = NN_GIVEN_LIST, .list = numbers, .n = (int64_t)n};
    return NN_OK;
}

static int read_given(const struct place *place, const char *name, const json_t *value,
                      struct nn_given *given) {
    switch (json_typeof(value)) {
    case JSON_INTEGER:
        *given = (struct nn_given){
            .kind = NN_GIVEN_INT, .i = json_integer_value(value), .r = json_number_value(value)};
        return NN_OK;
    case JSON_REAL:
        *given = (struct nn_given){.kind = NN_GIVEN_REAL, .r = json_real_value(value)};
        return NN_OK;
    case JSON_TRUE:
    case JSON_FALSE:
        *given = (struct nn_given){.kind = NN_GIVEN_BOOL, .b = json_is_true(value)};
        return NN_OK;
    case JSON_STRING:
        *given = (struct nn_given){.kind = NN_GIVEN_TEXT, .text = json_string_value(value)};
        return NN_OK;
    case JSON_ARRAY:
        return read_list(place, name, value, given);
    case JSON_NULL:
    case JSON_OBJECT:
        break;
    }
    return wrong(place, name, "a number, a string, true, false, or a list of numbers");
}

/* All members but the reserved ones are attributes of `def`. */
static int read_attrs(const struct place *place, const json_t *object, const char *reserved,
                      const struct nn_def *def, struct nn_arena *arena, const struct nn_attrs **out) {
    const char *name;
    json_t *value;
    struct nn_given given;
    struct nn_attrs *attrs = nn_attrs_new(def, arena);
    if (!attrs) return no_memory(place);
    json_object_foreach((json_t *)object, name, value) {
        if (api_among(reserved, name, strlen(name))) continue;
        if (read_given(place, name, value, &given)) return (int)place->request->err.code;
        if (nn_attrs_set(attrs, name, &given, &place->request->err)) return fail_at(place, name);
    }
    *out = attrs;
    return NN_OK;
}

/* The definition that "op" names, by `find`. */
static int read_op(const struct place *place, const json_t *object, const char *what,
                   const struct nn_def *(*find)(const char *name), const struct nn_def **def) {
    const char *op = NULL;
    if (!json_is_object(object)) return wrong(place, NULL, "an object");
    if (get_string(place, object, "op", &op)) return (int)place->request->err.code;
    if (!op) return wrong(place, "op", "given");
    if ((*def = find(op))) return NN_OK;
    nn_fail(&place->request->err, NN_E_UNKNOWN_NAME, "no %s is named \"%.100s\"; GET /ops lists them", what,
            op);
    return fail_at(place, "op");
}

/* --- inputs, layers, losses ------------------------------------------------------------------------ */

static int read_shape(const struct place *place, const json_t *list, struct nn_shape *shape) {
    size_t i;
    json_t *dim;
    if (!json_is_array(list))
        return wrong(place, "shape", "a list of integers: of one sample, without the batch");
    int limit = place->request->api->settings.limits.rank - 1;
    if (json_array_size(list) > (size_t)limit) {
        nn_fail(&place->request->err, NN_E_SIZE, "a sample has at most %d dimensions here", limit);
        return fail_at(place, "shape");
    }
    *shape = (struct nn_shape){.rank = (int)json_array_size(list)};
    json_array_foreach((json_t *)list, i, dim) {
        if (!json_is_integer(dim)) return wrong(place, "shape", "a list of integers");
        shape->dim[i] = json_integer_value(dim);
    }
    return NN_OK;
}

/* NULL: the layer's index is its name. `member` as in fail_at. */
static int check_name(const struct place *place, const char *name, const char *member) {
    int limit = place->request->api->settings.limits.name;
    if (!name || strlen(name) <= (size_t)limit) return NN_OK;
    nn_fail(&place->request->err, NN_E_NAME, "a name has at most %d bytes here", limit);
    return fail_at(place, member);
}

/* Of what there may be `times` as many as layers. `member` as in fail_at. */
static int check_count(const struct place *place, const char *member, size_t n, int times, const char *of) {
    int64_t limit = (int64_t)place->request->api->settings.limits.layers * times;
    if ((int64_t)n <= limit) return NN_OK;
    nn_fail(&place->request->err, NN_E_TOO_LARGE, "a model has at most %lld %s here", (long long)limit, of);
    return fail_at(place, member);
}

static int read_input(const struct place *place, const char *name, const json_t *object,
                      struct nn_graph *graph) {
    struct nn_error *err = &place->request->err;
    struct nn_shape shape;
    const char *dtype = NULL, *own = nn_dtype_name(nn_graph_dtype(graph));
    if (!json_is_object(object)) return wrong(place, NULL, "an object");
    if (check_name(place, name, NULL) || check_known(place, object, "shape dtype")) return (int)err->code;
    if (read_shape(place, json_object_get(object, "shape"), &shape)) return (int)err->code;
    if (get_string(place, object, "dtype", &dtype)) return (int)err->code;
    bool ids = dtype && strcmp(dtype, nn_dtype_name(NN_I64)) == 0;
    if (dtype && !ids && strcmp(dtype, own) != 0) {
        nn_fail(err, NN_E_VALUE, "an input of this model is %s or I64", own);
        return fail_at(place, "dtype");
    }
    if (nn_graph_add_input(graph, name, ids ? NN_I64 : nn_graph_dtype(graph), &shape, err))
        return fail_at(place, NULL);
    return NN_OK;
}

static int read_inputs(const struct place *place, const json_t *inputs, struct nn_graph *graph) {
    const char *name;
    json_t *input;
    if (!json_is_object(inputs) || !json_object_size(inputs))
        return wrong(place, NULL, "an object with at least one input, {\"x\": {\"shape\": [64]}}");
    if (check_count(place, NULL, json_object_size(inputs), 1, "inputs")) return (int)place->request->err.code;
    json_object_foreach((json_t *)inputs, name, input) {
        struct place at = within(place, name);
        if (read_input(&at, name, input, graph)) return (int)place->request->err.code;
    }
    return NN_OK;
}

/* A list of names of nodes, in the arena. */
static int read_names(const struct place *place, const char *member, const json_t *list, const char ***names,
                      size_t *n) {
    size_t i;
    json_t *name;
    *n = json_array_size(list);
    if (!json_is_array(list)) return wrong(place, member, "a list of names");
    if (check_count(place, member, *n, 2, "names in one list")) return (int)place->request->err.code;
    if (!(*names = nn_arena_alloc(place->request->arena, *n, sizeof **names))) return no_memory(place);
    json_array_foreach((json_t *)list, i, name) {
        if (!json_is_string(name)) return wrong(place, member, "a list of names");
        (*names)[i] = json_string_value(name);
    }
    return NN_OK;
}

static int read_layer(const struct place *place, const json_t *object, struct nn_graph *graph) {
    struct nn_error *err = &place->request->err;
    struct nn_layer layer = {0};
    const char **names = NULL;
    size_t n = 0;
    if (read_op(place, object, "operator", nn_op_find, &layer.op)) return (int)err->code;
    if (get_string(place, object, "name", &layer.name) || check_name(place, layer.name, "name"))
        return (int)err->code;
    const json_t *inputs = json_object_get(object, "inputs"),
                 *trainable = json_object_get(object, "trainable");
    if (inputs && read_names(place, "inputs", inputs, &names, &n)) return (int)err->code;
    if (trainable && !json_is_boolean(trainable)) return wrong(place, "trainable", "true or false");
    layer.inputs = names;
    layer.n_inputs = (int)n;
    layer.frozen = json_is_false(trainable);
    if (read_attrs(place, object, "op name inputs trainable", layer.op, nn_graph_arena(graph), &layer.attrs))
        return (int)err->code;
    return nn_graph_add_layer(graph, &layer, err) ? fail_at(place, err->member) : NN_OK;
}

static int read_layers(const struct place *place, const json_t *layers, struct nn_graph *graph) {
    size_t i;
    json_t *layer;
    if (!json_is_array(layers) || !json_array_size(layers)) return wrong(place, NULL, "a list of layers");
    if (check_count(place, NULL, json_array_size(layers), 1, "layers")) return (int)place->request->err.code;
    json_array_foreach((json_t *)layers, i, layer) {
        struct place at = element(place, i);
        if (read_layer(&at, layer, graph)) return (int)place->request->err.code;
    }
    return NN_OK;
}

static int read_loss(const struct place *place, const json_t *object, struct nn_graph *graph) {
    struct nn_error *err = &place->request->err;
    struct nn_loss loss = {.scale = 1};
    const char *reduction = "mean";
    if (read_op(place, object, "loss", nn_op_find, &loss.op)) return (int)err->code;
    if (get_string(place, object, "input", &loss.input) ||
        get_string(place, object, "target", &loss.target) ||
        get_string(place, object, "sample_weight", &loss.sample_weight) ||
        get_string(place, object, "reduction", &reduction))
        return (int)err->code;
    const json_t *scale = json_object_get(object, "scale");
    if (scale && !json_is_number(scale)) return wrong(place, "scale", "a number");
    if (scale) loss.scale = json_number_value(scale);
    loss.sum = strcmp(reduction, "sum") == 0;
    if (!loss.sum && strcmp(reduction, "mean") != 0) return wrong(place, "reduction", "\"mean\" or \"sum\"");
    if (read_attrs(place, object, "op input target sample_weight reduction scale", loss.op,
                   nn_graph_arena(graph), &loss.attrs))
        return (int)err->code;
    return nn_graph_add_loss(graph, &loss, err) ? fail_at(place, err->member) : NN_OK;
}

static int read_losses(const struct place *place, const json_t *loss, struct nn_graph *graph) {
    size_t i;
    json_t *item;
    if (!json_is_array(loss)) return read_loss(place, loss, graph);
    if (check_count(place, NULL, json_array_size(loss), 1, "losses")) return (int)place->request->err.code;
    json_array_foreach((json_t *)loss, i, item) {
        struct place at = element(place, i);
        if (read_loss(&at, item, graph)) return (int)place->request->err.code;
    }
    return NN_OK;
}

static int read_outputs(const struct place *place, const json_t *outputs, struct nn_graph *graph) {
    const char **names;
    size_t n;
    if (read_names(place, NULL, outputs, &names, &n)) return (int)place->request->err.code;
    for (size_t i = 0; i < n; i++)
        if (nn_graph_add_output(graph, names[i], &place->request->err)) return fail_at(place, NULL);
    return NN_OK;
}

/* --- the whole -------------------------------------------------------------------------------------- */

/* Where a sealed graph's errors are: the part that nn_error's site and member name. */
static int fail_seal(const struct place *place, const json_t *json) {
    const struct nn_error *err = &place->request->err;
    const json_t *loss = json_object_get(json, "loss");
    struct place at = *place;
    if (err->site == NN_SITE_LAYER) {
        at = within(place, "layers");
        at = element(&at, (size_t)err->index);
    } else if (err->site == NN_SITE_LOSS) {
        at = within(place, "loss");
        if (json_is_array(loss)) at = element(&at, (size_t)err->index);
    }
    return fail_at(&at, err->member);
}

/* What layers make of their inputs may have more dimensions than these. */
static int check_ranks(const struct place *place, const struct nn_graph *graph) {
    int limit = place->request->api->settings.limits.rank - 1;
    for (int i = 0; i < nn_graph_node_count(graph); i++) {
        struct nn_node_info node = nn_graph_node(graph, i);
        if (node.shape.rank <= limit) continue;
        nn_fail(&place->request->err, NN_E_SIZE,
                "a sample has at most %d dimensions here, and one of \"%s\" has %d", limit, node.name,
                node.shape.rank);
        struct place at = within(place, "layers");
        return fail_at(&at, NULL);
    }
    return NN_OK;
}

static int read_graph(const struct place *place, const json_t *json, struct nn_graph *graph) {
    static const struct {
        const char *member;
        int (*read)(const struct place *place, const json_t *value, struct nn_graph *graph);
        bool required;
    } parts[] = {{"inputs", read_inputs, true},
                 {"layers", read_layers, true},
                 {"loss", read_losses, false},
                 {"outputs", read_outputs, false}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const json_t *value = json_object_get(json, parts[i].member);
        struct place at = within(place, parts[i].member);
        if (!value && parts[i].required) return wrong(place, parts[i].member, "given");
        if (value && parts[i].read(&at, value, graph)) return (int)place->request->err.code;
    }
    return nn_graph_seal(graph, &place->request->err) ? fail_seal(place, json) : check_ranks(place, graph);
}

static int read_seed(const struct place *place, const json_t *json, struct api_spec *spec) {
    const json_t *seed = json_object_get(json, "seed");
    if (!seed) return NN_OK;
    int64_t value = json_integer_value(seed);
    if (!json_is_integer(seed) || value < 0 || value > API_MAX_SEED)
        return wrong(place, "seed", "an integer from 0 to 9007199254740991");
    spec->has_seed = true;
    spec->seed = (uint64_t)value;
    return NN_OK;
}

/* An integer member from 1 to `max`; absent leaves *value alone. */
static int get_count(const struct place *place, const json_t *object, const char *name, int64_t max,
                     int64_t *value) {
    const json_t *json = json_object_get(object, name);
    if (!json) return NN_OK;
    *value = json_integer_value(json);
    if (json_is_integer(json) && *value >= 1 && *value <= max) return NN_OK;
    nn_fail(&place->request->err, NN_E_VALUE, "%s must be an integer from 1 to %lld", name, (long long)max);
    return fail_at(place, name);
}

/* {"mode": "async"}, or {"mode": "sync", "workers", "quorum", "timeout_ms", "reduce"}. */
static int read_aggregation(const struct place *place, const json_t *object, struct api_policy *policy) {
    const char *mode = NULL, *reduce = "mean";
    int64_t workers = 0, quorum = 0;
    policy->timeout_ms = 30000;
    if (!json_is_object(object)) return wrong(place, NULL, "an object");
    if (check_known(place, object, "mode workers quorum timeout_ms reduce") ||
        get_string(place, object, "mode", &mode) || get_string(place, object, "reduce", &reduce) ||
        get_count(place, object, "workers", MAX_WORKERS, &workers) ||
        get_count(place, object, "timeout_ms", MAX_ROUND_MS, &policy->timeout_ms))
        return (int)place->request->err.code;
    if (!mode || (strcmp(mode, "sync") != 0 && strcmp(mode, "async") != 0))
        return wrong(place, "mode", "\"sync\" or \"async\"");
    policy->sync = mode[0] == 's';
    if (policy->sync && !workers) return wrong(place, "workers", "given: how many contribute to a round");
    quorum = workers;
    if (workers && get_count(place, object, "quorum", workers, &quorum)) return (int)place->request->err.code;
    policy->sum = strcmp(reduce, "sum") == 0;
    if (!policy->sum && strcmp(reduce, "mean") != 0) return wrong(place, "reduce", "\"mean\" or \"sum\"");
    policy->workers = (int)workers;
    policy->quorum = (int)quorum;
    return NN_OK;
}

static const char *const durabilities[] = {
    [API_DURABLE_NONE] = "none", [API_DURABLE_SNAPSHOT] = "snapshot", [API_DURABLE_JOURNAL] = "journal"};

const char *api_durability_name(enum api_durability durability) { return durabilities[durability]; }

/* With a store, a model is in its snapshots unless it is asked otherwise. */
static int read_durability(const struct place *place, const json_t *json, struct api_policy *policy) {
    const char *name = NULL;
    bool stores = place->request->api->env.store != NULL;
    policy->durability = stores ? API_DURABLE_SNAPSHOT : API_DURABLE_NONE;
    if (get_string(place, json, "durability", &name)) return (int)place->request->err.code;
    if (!name) return NN_OK;
    for (int i = 0; i <= API_DURABLE_JOURNAL; i++) {
        if (strcmp(name, durabilities[i]) != 0) continue;
        policy->durability = (enum api_durability)i;
        if (!i || stores) return NN_OK;
        return wrong(place, "durability", "\"none\": the service was started without --data");
    }
    return wrong(place, "durability", "\"none\", \"snapshot\" or \"journal\"");
}

int api_spec_policy(struct api_request *request, const json_t *json, const char *prefix,
                    struct api_policy *policy) {
    struct place root = {.request = request};
    if (prefix) root = within(&root, prefix);
    const json_t *bound = json_object_get(json, "max_staleness");
    *policy = (struct api_policy){0};
    policy->max_staleness = bound ? json_integer_value(bound) : -1;
    if (bound && (!json_is_integer(bound) || policy->max_staleness < 0))
        return wrong(&root, "max_staleness", "an integer of 0 or more");
    const json_t *coalesce = json_object_get(json, "coalesce");
    if (coalesce && !json_is_boolean(coalesce)) return wrong(&root, "coalesce", "true or false");
    policy->coalesce = json_is_true(coalesce);
    if (read_durability(&root, json, policy)) return (int)request->err.code;
    const json_t *aggregation = json_object_get(json, "aggregation");
    root = within(&root, "aggregation");
    return aggregation ? read_aggregation(&root, aggregation, policy) : NN_OK;
}

int api_spec_optimizer(struct api_request *request, const json_t *json, const char *prefix,
                       const struct nn_def **def, const struct nn_attrs **attrs) {
    struct place root = {.request = request}, place;
    if (prefix) root = within(&root, prefix);
    place = within(&root, "optimizer");
    if (read_op(&place, json, "optimizer", nn_optimizer_find, def)) return (int)request->err.code;
    return read_attrs(&place, json, "op", *def, request->arena, attrs);
}

/* What a graph in the making takes, of whose reservation. */
struct room {
    struct api_request *request;
    size_t bytes;
};

static bool take(void *self, size_t bytes) {
    struct room *room = self;
    if (api_reserve(room->request, bytes)) return false;
    room->bytes += bytes;
    return true;
}

int api_spec_read(struct api_request *request, const json_t *json, const char *prefix,
                  struct api_spec *spec) {
    struct nn_error *err = &request->err;
    struct place root = {.request = request};
    if (prefix) root = within(&root, prefix);
    const char *dtype = nn_dtype_name(NN_F32);
    *spec = (struct api_spec){0};
    if (check_known(&root, json,
                    "name seed dtype inputs layers outputs loss optimizer max_staleness aggregation coalesce "
                    "durability"))
        return (int)err->code;
    if (read_seed(&root, json, spec) || get_string(&root, json, "dtype", &dtype)) return (int)err->code;
    bool is_double = strcmp(dtype, nn_dtype_name(NN_F64)) == 0;
    if (!is_double && strcmp(dtype, nn_dtype_name(NN_F32)) != 0)
        return wrong(&root, "dtype", "\"F32\" or \"F64\"");
    if (api_spec_policy(request, json, prefix, &spec->policy)) return (int)err->code;
    const json_t *optimizer = json_object_get(json, "optimizer");
    if (optimizer && !json_is_null(optimizer) &&
        api_spec_optimizer(request, optimizer, prefix, &spec->optimizer, &spec->optimizer_attrs))
        return (int)err->code;
    if (!(spec->graph = nn_graph_new(is_double ? NN_F64 : NN_F32, err))) return (int)err->code;
    struct room room = {request, 0};
    nn_arena_bound(nn_graph_arena(spec->graph), 0, take, &room);
    int code = read_graph(&root, json, spec->graph);
    nn_arena_bound(nn_graph_arena(spec->graph), 0, NULL,
                   NULL); /* it outlives the request, and does not grow */
    spec->bytes = room.bytes;
    if (code) api_spec_fini(spec);
    return (int)err->code;
}

void api_spec_fini(struct api_spec *spec) {
    nn_graph_unref(spec->graph);
    spec->graph = NULL;
}
