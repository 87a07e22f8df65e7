/* document.h - reads a request's body, in either encoding, into one kind of document.
 *
 * In JSON, arrays of numbers in the maps of tensors (members.def) are scanned in place and lifted out, so that the JSON
 * reader sees only the rest. In safetensors, tensors are named member/name, and every other member is a text in
 * __metadata__. */
#ifndef API_DOCUMENT_H
#define API_DOCUMENT_H

#include <jansson.h>

#include "limits.h"
#include "tensor.h"

enum api_encoding { API_JSON, API_SAFETENSORS };

/* What body a route takes: see routes.def. API_PLAIN_TEXT takes none; its answer is a plain text for the operator, and
 * is given at once, however full the queue is and however many requests its client has in flight. */
enum api_body {
    API_NO_BODY,
    API_PLAIN_TEXT,
    API_SPECIFICATION,
    API_PLAIN_DOCUMENT,
    API_DOCUMENT,
    API_STATE_DICT
};
#define API_HAS_BODY(body)    ((body) > API_PLAIN_TEXT)
#define API_HAS_TENSORS(body) ((body) >= API_DOCUMENT)

struct api_document {
    json_t *members; /* owned: an object without the maps of tensors */
    struct api_tensor *tensors;
    size_t n_tensors;
    const char **maps; /* names of the maps of tensors that were given, perhaps empty ones */
    size_t n_maps;
};

/* Where in a request something is wrong: a JSON Pointer (RFC 6901). */
struct api_pointer {
    char text[256];
};
/* True if the `length` bytes at `word` are one of `words`, which are separated by spaces. */
bool api_among(const char *words, const char *word, size_t length);
/* Appends "/token", escaped. The caller checks whether a pointer is set already: see api_point. */
void api_pointer_add(struct api_pointer *pointer, const char *token);

/* The members that a document may have, separated by spaces; and the call, "POST /step", for the error text. */
struct api_known {
    const char *names, *call;
};

/* Reads a body of `size` bytes, which the tensors keep pointing into. A member that is not in `known` (NULL: all are
 * known) is refused before its value is read. NN_E_UNKNOWN_MEMBER, NN_E_MALFORMED, NN_E_VALUE, NN_E_SHAPE, NN_E_DTYPE,
 * NN_E_SIZE, NN_E_TOO_LARGE (more tensors or values than the limits allow), NN_E_NOMEM. `pointer` is set where the
 * error has a place. */
int api_document_read(struct api_document *document, enum api_encoding encoding, enum api_body kind,
                      const struct api_known *known, const char *body, size_t size,
                      const struct api_limits *limits, struct nn_arena *arena, struct api_pointer *pointer,
                      struct nn_error *err);
void api_document_fini(struct api_document *document);

/* The tensor of that name in that map, or NULL. */
const struct api_tensor *api_document_tensor(const struct api_document *document, const char *member,
                                             const char *name);
/* True if the map was given, even an empty one. */
bool api_document_has(const struct api_document *document, const char *member);

#endif
