/* spec.c - see spec.h. Members have PyTorch's names where PyTorch has them. */
#include "spec.h"

#include <assert.h>
#include <string.h>

#include "../request/service.h"
#include "place.h"

/* --- attributes ------------------------------------------------------------------------------------ */

static int read_list(const struct api_place *place, const char *name, const json_t *list,
                     struct nn_given *given) {
    size_t i, n = json_array_size(list);
    json_t *item;
    double *numbers = nn_arena_alloc(place->request->arena, n, sizeof *numbers);
    if (!numbers) return api_place_no_memory(place);
    json_array_foreach((json_t *)list, i, item) {
        if (!json_is_number(item)) return api_place_wrong(place, name, "a list of numbers");
        numbers[i] = json_number_value(item);
    }
    *given = (struct nn_given){.kind = NN_GIVEN_LIST, .list = numbers, .n = (int64_t)n};
    return NN_OK;
}

static int read_given(const struct api_place *place, const char *name, const json_t *value,
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
        *given = (struct nn_given){.kind = NN_GIVEN_NULL};
        return NN_OK;
    case JSON_OBJECT:
        break;
    }
    return api_place_wrong(place, name, "a number, a string, true, false, or a list of numbers");
}

bool api_spec_has_attr(const struct nn_def *def, const char *name) {
    const struct nn_attr_def *row = def->attrs;
    while (row && row->name && strcmp(row->name, name) != 0) row++;
    return row && row->name;
}

/* Reads all members but the reserved ones as attributes of `def`. An unknown name is refused before its value is
 * read. */
static int read_attrs(const struct api_place *place, const json_t *object, const char *reserved,
                      const struct nn_def *def, struct nn_arena *arena, const struct nn_attrs **out) {
    const char *name;
    json_t *value;
    struct nn_given given = {0};
    assert(def);
    struct nn_attrs *attrs = nn_attrs_new(def, arena);
    if (!attrs) return api_place_no_memory(place);
    json_object_foreach((json_t *)object, name, value) {
        if (api_among(reserved, name, strlen(name))) continue;
        if (api_spec_has_attr(def, name) && read_given(place, name, value, &given))
            return (int)place->request->err.code;
        if (nn_attrs_set(attrs, name, &given, &place->request->err)) return api_place_fail(place, name);
    }
    *out = attrs;
    return NN_OK;
}

/* Finds the definition that "op" names. */
static int read_op(const struct api_place *place, const json_t *object, const char *what,
                   const struct nn_def *(*find)(const char *name), const struct nn_def **def) {
    const char *op = NULL;
    if (!json_is_object(object)) return api_place_wrong(place, NULL, "an object");
    if (api_place_string(place, object, "op", &op)) return (int)place->request->err.code;
    if (!op) return api_place_wrong(place, "op", "given");
    if ((*def = find(op))) return NN_OK;
    nn_fail(&place->request->err, NN_E_UNKNOWN_NAME, "no %s is named \"%.100s\"; GET /ops lists them", what,
            op);
    return api_place_fail(place, "op");
}

/* --- inputs, layers, losses ------------------------------------------------------------------------ */

static int read_shape(const struct api_place *place, const json_t *list, struct nn_shape *shape) {
    size_t i;
    json_t *dim;
    if (!json_is_array(list))
        return api_place_wrong(place, "shape", "a list of integers: of one sample, without the batch");
    int limit = place->request->api->settings.limits.rank - 1;
    if (json_array_size(list) > (size_t)limit) {
        nn_fail(&place->request->err, NN_E_SIZE, "a sample has at most %d dimensions here", limit);
        return api_place_fail(place, "shape");
    }
    *shape = (struct nn_shape){.rank = (int)json_array_size(list)};
    json_array_foreach((json_t *)list, i, dim) {
        if (!json_is_integer(dim)) return api_place_wrong(place, "shape", "a list of integers");
        shape->dim[i] = json_integer_value(dim);
    }
    return NN_OK;
}

/* Checks a name; NULL: the layer is named by its index. `member` as in fail_at. */
static int check_name(const struct api_place *place, const char *name, const char *member) {
    int limit = place->request->api->settings.limits.name;
    if (!name || strlen(name) <= (size_t)limit) return NN_OK;
    nn_fail(&place->request->err, NN_E_NAME, "a name has at most %d bytes here", limit);
    return api_place_fail(place, member);
}

/* Checks that `n` is at most `times` the limit of layers; `of` names the things that are counted. `member` as in
 * fail_at. */
static int check_count(const struct api_place *place, const char *member, size_t n, int times,
                       const char *of) {
    int64_t limit = (int64_t)place->request->api->settings.limits.layers * times;
    if ((int64_t)n <= limit) return NN_OK;
    nn_fail(&place->request->err, NN_E_TOO_LARGE, "a model has at most %lld %s here", (long long)limit, of);
    return api_place_fail(place, member);
}

static int read_input(const struct api_place *place, const char *name, const json_t *object,
                      struct nn_graph *graph) {
    struct nn_error *err = &place->request->err;
    struct nn_shape shape;
    const char *dtype = NULL, *own = nn_dtype_name(nn_graph_dtype(graph));
    if (!json_is_object(object)) return api_place_wrong(place, NULL, "an object");
    if (check_name(place, name, NULL) || api_place_check_known(place, object, "shape dtype"))
        return (int)err->code;
    if (read_shape(place, json_object_get(object, "shape"), &shape)) return (int)err->code;
    if (api_place_string(place, object, "dtype", &dtype)) return (int)err->code;
    bool ids = dtype && strcmp(dtype, nn_dtype_name(NN_I64)) == 0;
    if (dtype && !ids && strcmp(dtype, own) != 0) {
        nn_fail(err, NN_E_VALUE, "an input of this model is %s or I64", own);
        return api_place_fail(place, "dtype");
    }
    if (nn_graph_add_input(graph, name, ids ? NN_I64 : nn_graph_dtype(graph), &shape, err))
        return api_place_fail(place, NULL);
    return NN_OK;
}

static int read_inputs(const struct api_place *place, const json_t *inputs, struct nn_graph *graph) {
    const char *name;
    json_t *input;
    if (!json_is_object(inputs) || !json_object_size(inputs))
        return api_place_wrong(place, NULL, "an object with at least one input, {\"x\": {\"shape\": [64]}}");
    if (check_count(place, NULL, json_object_size(inputs), 1, "inputs")) return (int)place->request->err.code;
    json_object_foreach((json_t *)inputs, name, input) {
        struct api_place at = api_place_in(place, name);
        if (read_input(&at, name, input, graph)) return (int)place->request->err.code;
    }
    return NN_OK;
}

/* Reads a list of names of nodes into the arena. */
static int read_names(const struct api_place *place, const char *member, const json_t *list,
                      const char ***names, size_t *n) {
    size_t i;
    json_t *name;
    *n = json_array_size(list);
    if (!json_is_array(list)) return api_place_wrong(place, member, "a list of names");
    if (check_count(place, member, *n, 2, "names in one list")) return (int)place->request->err.code;
    if (!(*names = nn_arena_alloc(place->request->arena, *n, sizeof **names)))
        return api_place_no_memory(place);
    json_array_foreach((json_t *)list, i, name) {
        if (!json_is_string(name)) return api_place_wrong(place, member, "a list of names");
        (*names)[i] = json_string_value(name);
    }
    return NN_OK;
}

/* Reads the object "tied", of parameters of this layer and their owners. */
static int read_ties(const struct api_place *place, const json_t *object, struct nn_layer *layer) {
    const json_t *tied = json_object_get(object, "tied");
    const char *suffix;
    json_t *owner;
    if (!tied) return NN_OK;
    if (!json_is_object(tied))
        return api_place_wrong(place, "tied", "an object, {\"weight\": \"other.weight\"}");
    struct nn_tie *ties = nn_arena_alloc(place->request->arena, json_object_size(tied), sizeof *ties);
    if (!ties) return api_place_no_memory(place);
    json_object_foreach((json_t *)tied, suffix, owner) {
        if (!json_is_string(owner)) return api_place_wrong(place, "tied", "an object of names of parameters");
        ties[layer->n_ties++] = (struct nn_tie){suffix, json_string_value(owner)};
    }
    layer->ties = ties;
    return NN_OK;
}

static int read_layer(const struct api_place *place, const json_t *object, struct nn_graph *graph) {
    struct nn_error *err = &place->request->err;
    struct nn_layer layer = {0};
    const char **names = NULL;
    size_t n = 0;
    if (read_op(place, object, "operator", nn_op_find, &layer.op)) return (int)err->code;
    if (api_place_string(place, object, "name", &layer.name) || check_name(place, layer.name, "name"))
        return (int)err->code;
    const json_t *inputs = json_object_get(object, "inputs"),
                 *trainable = json_object_get(object, "trainable");
    if (inputs && read_names(place, "inputs", inputs, &names, &n)) return (int)err->code;
    if (trainable && !json_is_boolean(trainable)) return api_place_wrong(place, "trainable", "true or false");
    layer.inputs = names;
    layer.n_inputs = (int)n;
    layer.frozen = json_is_false(trainable);
    if (read_ties(place, object, &layer)) return (int)err->code;
    if (read_attrs(place, object, "op name inputs trainable tied", layer.op, nn_graph_arena(graph),
                   &layer.attrs))
        return (int)err->code;
    return nn_graph_add_layer(graph, &layer, err) ? api_place_fail(place, err->member) : NN_OK;
}

static int read_layers(const struct api_place *place, const json_t *layers, struct nn_graph *graph) {
    size_t i;
    json_t *layer;
    if (!json_is_array(layers) || !json_array_size(layers))
        return api_place_wrong(place, NULL, "a list of layers");
    if (check_count(place, NULL, json_array_size(layers), 1, "layers")) return (int)place->request->err.code;
    json_array_foreach((json_t *)layers, i, layer) {
        struct api_place at = api_place_element(place, i);
        if (read_layer(&at, layer, graph)) return (int)place->request->err.code;
    }
    return NN_OK;
}

static int read_loss(const struct api_place *place, const json_t *object, struct nn_graph *graph) {
    struct nn_error *err = &place->request->err;
    struct nn_loss loss = {.scale = 1};
    const char *reduction = "mean";
    if (read_op(place, object, "loss", nn_op_find, &loss.op)) return (int)err->code;
    if (api_place_string(place, object, "input", &loss.input) ||
        api_place_string(place, object, "target", &loss.target) ||
        api_place_string(place, object, "sample_weight", &loss.sample_weight) ||
        api_place_string(place, object, "reduction", &reduction))
        return (int)err->code;
    const json_t *scale = json_object_get(object, "scale");
    if (scale && !json_is_number(scale)) return api_place_wrong(place, "scale", "a number");
    if (scale) loss.scale = json_number_value(scale);
    loss.sum = strcmp(reduction, "sum") == 0;
    if (!loss.sum && strcmp(reduction, "mean") != 0)
        return api_place_wrong(place, "reduction", "\"mean\" or \"sum\"");
    if (read_attrs(place, object, "op input target sample_weight reduction scale", loss.op,
                   nn_graph_arena(graph), &loss.attrs))
        return (int)err->code;
    return nn_graph_add_loss(graph, &loss, err) ? api_place_fail(place, err->member) : NN_OK;
}

static int read_losses(const struct api_place *place, const json_t *loss, struct nn_graph *graph) {
    size_t i;
    json_t *item;
    if (!json_is_array(loss)) return read_loss(place, loss, graph);
    if (check_count(place, NULL, json_array_size(loss), 1, "losses")) return (int)place->request->err.code;
    json_array_foreach((json_t *)loss, i, item) {
        struct api_place at = api_place_element(place, i);
        if (read_loss(&at, item, graph)) return (int)place->request->err.code;
    }
    return NN_OK;
}

static int read_outputs(const struct api_place *place, const json_t *outputs, struct nn_graph *graph) {
    const char **names;
    size_t n;
    if (read_names(place, NULL, outputs, &names, &n)) return (int)place->request->err.code;
    for (size_t i = 0; i < n; i++)
        if (nn_graph_add_output(graph, names[i], &place->request->err)) return api_place_fail(place, NULL);
    return NN_OK;
}

/* --- the whole specification ------------------------------------------------------------------------ */

/* Sets the pointer of an error of nn_graph_seal. Its site and member say which part of the specification is wrong. */
static int fail_seal(const struct api_place *place, const json_t *json) {
    const struct nn_error *err = &place->request->err;
    const json_t *loss = json_object_get(json, "loss");
    struct api_place at = *place;
    if (err->site == NN_SITE_LAYER) {
        at = api_place_in(place, "layers");
        at = api_place_element(&at, (size_t)err->index);
    } else if (err->site == NN_SITE_LOSS) {
        at = api_place_in(place, "loss");
        if (json_is_array(loss)) at = api_place_element(&at, (size_t)err->index);
    }
    return api_place_fail(&at, err->member);
}

/* Checks the ranks of the values: a layer's output may have more dimensions than its inputs. */
static int check_ranks(const struct api_place *place, const struct nn_graph *graph) {
    int limit = place->request->api->settings.limits.rank - 1;
    for (int i = 0; i < nn_graph_value_count(graph); i++) {
        struct nn_value_info value = nn_graph_value(graph, i);
        if (value.shape.rank <= limit) continue;
        nn_fail(&place->request->err, NN_E_SIZE,
                "a sample has at most %d dimensions here, and one of \"%s\" has %d", limit, value.name,
                value.shape.rank);
        struct api_place at = api_place_in(place, "layers");
        return api_place_fail(&at, NULL);
    }
    return NN_OK;
}

static int read_graph(const struct api_place *place, const json_t *json, struct nn_graph *graph) {
    static const struct {
        const char *member;
        int (*read)(const struct api_place *place, const json_t *value, struct nn_graph *graph);
        bool required;
    } parts[] = {{"inputs", read_inputs, true},
                 {"layers", read_layers, true},
                 {"loss", read_losses, false},
                 {"outputs", read_outputs, false}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const json_t *value = json_object_get(json, parts[i].member);
        struct api_place at = api_place_in(place, parts[i].member);
        if (!value && parts[i].required) return api_place_wrong(place, parts[i].member, "given");
        if (value && parts[i].read(&at, value, graph)) return (int)place->request->err.code;
    }
    return nn_graph_seal(graph, &place->request->err) ? fail_seal(place, json) : check_ranks(place, graph);
}

static int read_seed(const struct api_place *place, const json_t *json, struct api_spec *spec) {
    const json_t *seed = json_object_get(json, "seed");
    if (!seed) return NN_OK;
    int64_t value = json_integer_value(seed);
    if (!json_is_integer(seed) || value < 0 || value > API_MAX_SEED)
        return api_place_wrong(place, "seed", "an integer from 0 to 9007199254740991");
    spec->has_seed = true;
    spec->seed = (uint64_t)value;
    return NN_OK;
}

int api_spec_optimizer(struct api_request *request, const json_t *json, const char *prefix,
                       const struct nn_def **def, const struct nn_attrs **attrs) {
    struct api_place root = {.request = request}, place;
    if (prefix) root = api_place_in(&root, prefix);
    place = api_place_in(&root, "optimizer");
    if (read_op(&place, json, "optimizer", nn_optimizer_find, def)) return (int)request->err.code;
    return read_attrs(&place, json, "op", *def, request->arena, attrs);
}

/* Counts the bytes that a graph reserves while it is made. */
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
    struct api_place root = {.request = request};
    if (prefix) root = api_place_in(&root, prefix);
    const char *dtype = nn_dtype_name(NN_F32);
    *spec = (struct api_spec){0};
    if (api_place_check_known(
            &root, json,
            "name seed dtype inputs layers outputs loss optimizer max_staleness aggregation coalesce "
            "durability"))
        return (int)err->code;
    if (read_seed(&root, json, spec) || api_place_string(&root, json, "dtype", &dtype)) return (int)err->code;
    bool is_double = strcmp(dtype, nn_dtype_name(NN_F64)) == 0;
    if (!is_double && strcmp(dtype, nn_dtype_name(NN_F32)) != 0)
        return api_place_wrong(&root, "dtype", "\"F32\" or \"F64\"");
    if (api_spec_policy(request, json, prefix, &spec->policy)) return (int)err->code;
    const json_t *optimizer = json_object_get(json, "optimizer");
    if (optimizer && !json_is_null(optimizer) &&
        api_spec_optimizer(request, optimizer, prefix, &spec->optimizer, &spec->optimizer_attrs))
        return (int)err->code;
    if (!(spec->graph = nn_graph_new(is_double ? NN_F64 : NN_F32, err))) return (int)err->code;
    struct room room = {request, 0};
    nn_arena_bound(nn_graph_arena(spec->graph), 0, take, &room);
    int code = read_graph(&root, json, spec->graph);
    /* The graph outlives the request, whose reservation `take` would use, and grows no more. */
    nn_arena_bound(nn_graph_arena(spec->graph), 0, NULL, NULL);
    spec->bytes = room.bytes;
    if (code) api_spec_fini(spec);
    return (int)err->code;
}

void api_spec_fini(struct api_spec *spec) {
    nn_graph_unref(spec->graph);
    spec->graph = NULL;
}
