/* ask.h - what a request asks for: the members of its document and its query, read once, before its handler begins. */
#ifndef API_ASK_H
#define API_ASK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "../wire/members.h"

struct api_request;

/* true, false, or {"option": value}: `value` is members.def's `absent` unless it is given. */
struct api_switch {
    bool on;
    double value;
};

/* The type of each kind of member. Strings are NULL and JSON values are NULL where absent; they live as long as the
 * request. API_CHOICES has a bit for each of its words, the first word lowest. */
#define API_TYPE_TEXT    const char *
#define API_TYPE_TEXTS   const char *
#define API_TYPE_NAME    const char *
#define API_TYPE_CHOICE  const char *
#define API_TYPE_CHOICES unsigned
#define API_TYPE_FLAG    bool
#define API_TYPE_INTEGER int64_t
#define API_TYPE_REAL    double
#define API_TYPE_SWITCH  struct api_switch
#define API_TYPE_MODEL   const json_t *
#define API_TYPE_VALUE   const json_t *
#define API_TYPE_TENSORS bool /* whether the map is there; its tensors are the document's */

/* A field for each row of members.def. */
struct api_ask {
    uint64_t given; /* a bit for each member that is there, in the order of the rows */
#define API_MEMBER(name, kind, field, ...) API_TYPE_##kind field;
#include "../wire/members.def"
#undef API_MEMBER
};
_Static_assert(API_MEMBERS <= 64, "a bit for each member");

/* Nothing is asked for: each field has the value of a member that is absent. */
void api_ask_init(struct api_ask *ask);
/* Reads request->doc and request->query into request->ask. NN_E_VALUE, NN_E_NAME, NN_E_UNKNOWN_MEMBER, NN_E_MALFORMED,
 * NN_E_NOMEM, with the pointer where the member is the document's. */
int api_ask_read(struct api_request *request);
/* Whether the member of a row is given: API_MEMBER_OF_... */
bool api_is_given(const struct api_request *request, int member);
/* NN_E_VALUE, at the member, which must be what `is` says: "left out: the context has its own". */
int api_ask_wrong(struct api_request *request, int member, const char *is);
/* The name of the model that the document names; NULL: it names none. */
const char *api_asked_model(const struct api_request *request);

#endif
