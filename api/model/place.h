/* place.h - a place in the JSON of a specification, for readers that go down into it: errors point there. */
#ifndef API_PLACE_H
#define API_PLACE_H

#include "../request/request.h"

/* "/model/layers/3" of this request. */
struct api_place {
    struct api_request *request;
    struct api_pointer at;
};

/* The place of a member, and of an item of a list, of what is at `place`. */
struct api_place api_place_in(const struct api_place *place, const char *token);
struct api_place api_place_element(const struct api_place *place, size_t index);

/* Sets the error's pointer to `member` of the place, or to the place itself. Returns the recorded code. */
int api_place_fail(const struct api_place *place, const char *member);
/* Records NN_E_VALUE: `member`, or the value itself, "must be" what is said here. */
int api_place_wrong(const struct api_place *place, const char *member, const char *what);
int api_place_no_memory(const struct api_place *place);

/* Refuses members of the object that are not among `known`, a list of words. */
int api_place_check_known(const struct api_place *place, const json_t *object, const char *known);
/* Reads a string member, or an integer member from 1 to `max`. *value stays as it is where the member is absent. */
int api_place_string(const struct api_place *place, const json_t *object, const char *name,
                     const char **value);
int api_place_count(const struct api_place *place, const json_t *object, const char *name, int64_t max,
                    int64_t *value);

#endif
