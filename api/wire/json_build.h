/* json_build.h - builds JSON values of parts. Any part may be NULL, because memory is out. */
#ifndef API_JSON_BUILD_H
#define API_JSON_BUILD_H

#include <jansson.h>

/* Both consume their arguments and return the first. NULL, as an argument or as a result, means that memory was out;
 * like json_pack, they pass it on. */
static inline json_t *api_json_append(json_t *list, json_t *item) {
    if (json_array_append_new(list, item) == 0) return list;
    json_decref(list);
    return NULL;
}

static inline json_t *api_json_with(json_t *object, const char *name, json_t *value) {
    if (json_object_set_new(object, name, value) == 0) return object;
    json_decref(object);
    return NULL;
}

#endif
