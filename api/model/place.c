/* place.c - see place.h. */
#include "place.h"

#include <stdio.h>
#include <string.h>

#include "../request/service.h"

struct api_place api_place_in(const struct api_place *place, const char *token) {
    struct api_place inner = *place;
    api_pointer_add(&inner.at, token);
    return inner;
}

struct api_place api_place_element(const struct api_place *place, size_t index) {
    char token[24];
    snprintf(token, sizeof token, "%zu", index);
    return api_place_in(place, token);
}

int api_place_fail(const struct api_place *place, const char *member) {
    struct api_pointer *pointer = &place->request->pointer;
    if (!pointer->text[0]) {
        *pointer = place->at;
        if (member && *member) api_pointer_add(pointer, member);
    }
    return (int)place->request->err.code;
}

int api_place_wrong(const struct api_place *place, const char *member, const char *what) {
    nn_fail(&place->request->err, NN_E_VALUE, "%s must be %s", member ? member : "this", what);
    return api_place_fail(place, member);
}

int api_place_no_memory(const struct api_place *place) {
    return nn_fail(&place->request->err, NN_E_NOMEM, "memory is out");
}

int api_place_check_known(const struct api_place *place, const json_t *object, const char *known) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value) {
        if (api_among(known, name, strlen(name))) continue;
        nn_fail(&place->request->err, NN_E_UNKNOWN_MEMBER, "known here: %s", known);
        return api_place_fail(place, name);
    }
    return NN_OK;
}

int api_place_string(const struct api_place *place, const json_t *object, const char *name,
                     const char **value) {
    const json_t *json = json_object_get(object, name);
    if (!json) return NN_OK;
    if (!json_is_string(json)) return api_place_wrong(place, name, "a string");
    *value = json_string_value(json);
    return NN_OK;
}

int api_place_count(const struct api_place *place, const json_t *object, const char *name, int64_t max,
                    int64_t *value) {
    const json_t *json = json_object_get(object, name);
    if (!json) return NN_OK;
    *value = json_integer_value(json);
    if (json_is_integer(json) && *value >= 1 && *value <= max) return NN_OK;
    nn_fail(&place->request->err, NN_E_VALUE, "%s must be an integer from 1 to %lld", name, (long long)max);
    return api_place_fail(place, name);
}
