/* document.h - a request's body, in either encoding, as one and the same document.
 *
 * In JSON, arrays of numbers in the maps of tensors (members.def) are scanned where they stand and lifted
 * out, so that the reader of JSON sees only the rest. In safetensors, tensors are named member/name, and every other
 * member is a text in __metadata__. */
#ifndef API_DOCUMENT_H
#define API_DOCUMENT_H

#include <jansson.h>

#include "../api.h"
#include "tensor.h"

enum api_encoding { API_JSON, API_SAFETENSORS };

/* API_PLAIN_TEXT: no body comes, and the answer is a text for whoever runs the service, in no other encoding. It is
 * given at once, however full the queue is, and whatever the client has in flight. */
enum api_body { API_NO_BODY, API_PLAIN_TEXT, API_SPECIFICATION, API_DOCUMENT, API_STATE_DICT };
#define API_HAS_BODY(body) ((body) > API_PLAIN_TEXT)

struct api_document {
    json_t *members; /* an object; maps of tensors are not in it; owned */
    struct api_tensor *tensors;
    size_t n_tensors;
    const char **maps; /* names of the tensor maps that were given, perhaps empty */
    size_t n_maps;
};

/* Where in a request something is wrong: a JSON Pointer (RFC 6901). */
struct api_pointer {
    char text[256];
};
/* Appends "/token", escaped. The first to write a pointer wins: see api_point. */
void api_pointer_add(struct api_pointer *pointer, const char *token);

/* Reads `size` bytes, to which the tensors keep pointing. NN_E_MALFORMED, NN_E_VALUE, NN_E_SHAPE, NN_E_DTYPE,
 * NN_E_SIZE, NN_E_TOO_LARGE (more tensors or values than the limits allow), NN_E_NOMEM; `pointer` says where, if it
 * can. */
int api_document_read(struct api_document *document, enum api_encoding encoding, enum api_body kind,
                      const char *body, size_t size, const struct api_limits *limits, struct nn_arena *arena,
                      struct api_pointer *pointer, struct nn_error *err);
void api_document_fini(struct api_document *document);

/* A tensor by map and name, or NULL. */
const struct api_tensor *api_document_tensor(const struct api_document *document, const char *member,
                                             const char *name);
/* Whether the map is there at all. */
bool api_document_has(const struct api_document *document, const char *member);

#endif
