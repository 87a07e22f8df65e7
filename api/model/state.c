/* state.c - see state.h. */
#include "state.h"

#include <string.h>

#define A_NAME (2 * NN_MAX_NAME + 256) /* an upper bound of jansson's bytes for a name and its value */

const char *api_state_name(struct nn_arena *arena, const char *slot, const char *param) {
    size_t n = strlen(slot), m = strlen(param);
    char *name = nn_arena_alloc(arena, n + m + 2, 1);
    if (!name) return NULL;
    memcpy(name, slot, n);
    name[n] = '.';
    memcpy(name + n + 1, param, m);
    return name;
}

static bool is_trainable(const struct api_state *state, int param) {
    return nn_graph_param(state->graph, param)->kind == NN_TRAINED;
}

static bool *fresh_of(const struct api_state *state, int slot, int param) {
    return &state->fresh[slot * nn_graph_param_count(state->graph) + param];
}

bool api_state_init(struct api_state *state, struct nn_arena *arena, const struct nn_graph *graph,
                    struct nn_optimizer *optimizer) {
    int n = nn_graph_param_count(graph), slots = nn_optimizer_slot_count(optimizer);
    *state = (struct api_state){.graph = graph, .optimizer = optimizer};
    state->steps = nn_arena_alloc(arena, (size_t)n + 1, sizeof *state->steps);
    state->fresh = nn_arena_alloc(arena, (size_t)n * (size_t)slots + 1, sizeof *state->fresh);
    if (!state->steps || !state->fresh) return false;
    for (int i = 0; i < n; i++) {
        if (!is_trainable(state, i)) continue;
        state->steps[i] = nn_optimizer_steps(optimizer, i);
        for (int slot = 0; slot < slots; slot++)
            *fresh_of(state, slot, i) = nn_optimizer_slot_fresh(optimizer, slot, i);
    }
    return true;
}

/* --- writing ------------------------------------------------------------------------------------------ */

/* The first trainable parameter, or -1. */
static int first_trainable(const struct api_state *state) {
    for (int i = 0; i < nn_graph_param_count(state->graph); i++)
        if (is_trainable(state, i)) return i;
    return -1;
}

static bool is_one_number(const struct api_state *state, uint64_t *number) {
    int first = first_trainable(state);
    *number = first >= 0 ? state->steps[first] : 0;
    for (int i = 0; i < nn_graph_param_count(state->graph); i++)
        if (is_trainable(state, i) && state->steps[i] != *number) return false;
    return true;
}

json_t *api_state_steps_json(const struct api_state *state) {
    uint64_t number;
    if (is_one_number(state, &number)) return json_integer((json_int_t)number);
    json_t *map = json_object();
    for (int i = 0; i < nn_graph_param_count(state->graph); i++) {
        const char *name = nn_graph_param(state->graph, i)->name;
        if (!is_trainable(state, i)) continue;
        if (json_object_set_new(map, name, json_integer((json_int_t)state->steps[i]))) {
            json_decref(map);
            return NULL;
        }
    }
    return map;
}

int api_state_fresh_json(const struct api_state *state, struct nn_arena *arena, json_t **fresh) {
    json_t *list = json_array();
    int failed = !list;
    for (int slot = 0; slot < nn_optimizer_slot_count(state->optimizer); slot++)
        for (int i = 0; i < nn_graph_param_count(state->graph) && !failed; i++) {
            if (!*fresh_of(state, slot, i)) continue;
            const char *name = api_state_name(arena, nn_optimizer_slot_name(state->optimizer, slot),
                                              nn_graph_param(state->graph, i)->name);
            failed = !name || json_array_append_new(list, json_string(name));
        }
    *fresh = NULL;
    if (!failed && json_array_size(list) > 0) *fresh = json_incref(list);
    json_decref(list);
    return failed ? NN_E_NOMEM : NN_OK;
}

size_t api_state_bytes(const struct api_state *state) {
    int n = nn_graph_param_count(state->graph), names = 0;
    uint64_t number;
    for (int i = 0; i < n * nn_optimizer_slot_count(state->optimizer); i++) names += state->fresh[i];
    if (!is_one_number(state, &number)) names += n;
    return (size_t)names * A_NAME;
}

/* --- reading ------------------------------------------------------------------------------------------ */

static int wrong(struct api_request *request, enum nn_code code, const char *member, const char *name,
                 const char *what) {
    nn_fail(&request->err, code, "\"%.200s\" %s", name ? name : member, what);
    return api_point(request, member, name);
}

static int read_count(struct api_request *request, const json_t *json, const char *name, uint64_t *count) {
    json_int_t number = json_integer_value(json);
    if (!json_is_integer(json) || number < 0 || number > API_MAX_SEED)
        return wrong(request, NN_E_VALUE, "steps", name,
                     "must be how many steps were taken: an integer from 0 to 9007199254740991, or an object "
                     "with one for each trainable parameter");
    *count = (uint64_t)number;
    return NN_OK;
}

/* A name among the steps that is no parameter's, or not its owner's. */
static int fail_name(struct api_request *request, const struct api_state *state, const char *name) {
    char text[NN_MAX_NAME + 64];
    const int tied = nn_graph_param_find_any(state->graph, name);
    if (tied < 0 || nn_graph_param_find(state->graph, name) >= 0)
        return wrong(request, NN_E_UNKNOWN_NAME, "steps", name, "is no trainable parameter");
    snprintf(text, sizeof text, "is tied: here it is called \"%.150s\"",
             nn_graph_param(state->graph, tied)->name);
    return wrong(request, NN_E_UNKNOWN_NAME, "steps", name, text);
}

static int read_steps(struct api_request *request, struct api_state *state, const json_t *json) {
    size_t trainable = 0;
    uint64_t number = 0;
    if (!json_is_object(json) && read_count(request, json, NULL, &number)) return (int)request->err.code;
    for (int i = 0; i < nn_graph_param_count(state->graph); i++) {
        const char *name = nn_graph_param(state->graph, i)->name;
        const json_t *own = json_object_get(json, name);
        if (!is_trainable(state, i)) continue;
        trainable++;
        state->steps[i] = number;
        if (!json_is_object(json)) continue;
        if (!own) return wrong(request, NN_E_VALUE, "steps", name, "is missing");
        if (read_count(request, own, name, &state->steps[i])) return (int)request->err.code;
    }
    if (json_object_size(json) <= trainable) return NN_OK;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)json, name, value) {
        int param = nn_graph_param_find(state->graph, name);
        if (param < 0 || !is_trainable(state, param)) return fail_name(request, state, name);
    }
    return NN_OK;
}

/* Marks the tensor of this name as fresh. False: there is none, or its slot does not heed the mark. */
static bool mark(struct api_state *state, const char *name) {
    for (int slot = 0; slot < nn_optimizer_slot_count(state->optimizer); slot++) {
        const char *of = nn_optimizer_slot_name(state->optimizer, slot);
        size_t n = strlen(of);
        if (strncmp(name, of, n) != 0 || name[n] != '.') continue;
        int param = nn_graph_param_find(state->graph, name + n + 1);
        if (param < 0 || !is_trainable(state, param)) continue;
        *fresh_of(state, slot, param) = true;
        return nn_optimizer_slot_heeds_fresh(state->optimizer, slot);
    }
    return false;
}

static int read_fresh(struct api_request *request, struct api_state *state, const json_t *json) {
    int slots = nn_optimizer_slot_count(state->optimizer);
    size_t all = (size_t)nn_graph_param_count(state->graph) * (size_t)slots, i;
    json_t *one;
    memset(state->fresh, 0, all * sizeof *state->fresh);
    if (json && !json_is_array(json))
        return wrong(request, NN_E_VALUE, "fresh", NULL, "must be a list of names, as GET tells it");
    if (json_array_size(json) > all) /* each name costs a search */
        return wrong(request, NN_E_VALUE, "fresh", NULL, "has more names than the state has tensors");
    json_array_foreach((json_t *)json, i, one) {
        const char *name = json_string_value(one);
        if (!name)
            return wrong(request, NN_E_VALUE, "fresh", NULL, "must be a list of names, as GET tells it");
        if (mark(state, name)) continue;
        nn_fail(&request->err, NN_E_UNKNOWN_NAME, "\"%.200s\" is no tensor of the state that can be fresh",
                name);
        return api_point(request, "fresh", NULL);
    }
    return NN_OK;
}

int api_state_read(struct api_request *request, struct api_state *state, const json_t *steps,
                   const json_t *fresh) {
    if (read_steps(request, state, steps) || read_fresh(request, state, fresh)) return (int)request->err.code;
    return NN_OK;
}

void api_state_set(const struct api_state *state) {
    for (int i = 0; i < nn_graph_param_count(state->graph); i++) {
        if (!is_trainable(state, i)) continue;
        nn_optimizer_set_steps(state->optimizer, i, state->steps[i]);
        for (int slot = 0; slot < nn_optimizer_slot_count(state->optimizer); slot++)
            nn_optimizer_set_slot_fresh(state->optimizer, slot, i, *fresh_of(state, slot, i));
    }
}
