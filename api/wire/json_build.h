/* json_build.h - JSON values out of parts, where any part may be NULL because memory is out. */
#ifndef API_JSON_BUILD_H
#define API_JSON_BUILD_H

#include <jansson.h>

/* Both take their arguments, and return the first; or NULL where memory was out, now or before: a NULL among the arguments
 * is passed on, as json_pack does. */
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
