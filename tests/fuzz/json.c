/* A document in either encoding, by a first byte that says which and of what kind. The reader of JSON accepts what
 * jansson's accepts, and reads the same; the tensors of a document lie within it, and convert or are refused. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../api/api.h"
#include "../../api/wire/document.h"
#include "../../api/wire/json_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int depth_of(const char *text, size_t size) {
    int depth = 0, most = 0;
    bool quoted = false;
    for (size_t i = 0; i < size; i++) {
        if (quoted && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            quoted = !quoted;
        else if (!quoted && strchr("[{", text[i]) && text[i])
            depth++;
        else if (!quoted && strchr("]}", text[i]) && text[i])
            depth--;
        if (depth > most) most = depth;
    }
    return most;
}

static void compare_with_jansson(const char *text, size_t size) {
    struct nn_arena *arena = nn_arena_new();
    struct nn_error err = {0};
    json_error_t why;
    if (!arena) abort();
    json_t *ours = api_json_read(text, size, arena, &err);
    json_t *theirs = json_loadb(text, size, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &why);
    if (!ours != !!err.code) abort();
    if (ours && (!theirs || !json_equal(ours, theirs))) abort();
    bool skipped = memchr(text, 0, size); /* jansson steps over a NUL */
    if (ours && skipped) abort();
    if (!ours && theirs && !skipped && depth_of(text, size) <= API_JSON_DEPTH) abort();
    json_decref(ours);
    json_decref(theirs);
    nn_arena_free(arena);
}

static void convert(const struct api_tensor *tensor) {
    struct nn_error err = {0};
    if (!tensor->member || !tensor->name || !tensor->json == !tensor->data) abort();
    size_t elements = (size_t)nn_shape_elements(&tensor->shape);
    void *out = malloc(elements * 8 + 1);
    for (enum nn_dtype to = NN_F32; out && to <= NN_I64; to++) {
        err.code = NN_OK;
        if (api_tensor_convert(tensor, to, out, &err) != (int)err.code) abort();
    }
    free(out);
}

static void read_document(enum api_encoding encoding, enum api_body kind, const char *text, size_t size) {
    struct nn_arena *arena = nn_arena_new();
    struct nn_error err = {0};
    struct api_pointer pointer = {""};
    struct api_document document;
    if (!arena) abort();
    int code = api_document_read(&document, encoding, kind, NULL, text, size, &api_default_limits, arena,
                                 &pointer, &err);
    if (code != (int)err.code) abort();
    if (code == NN_OK && !json_is_object(document.members)) abort();
    for (size_t i = 0; code == NN_OK && i < document.n_tensors; i++) {
        const struct api_tensor *tensor = &document.tensors[i];
        convert(tensor);
        if (tensor->json && (tensor->json < text || tensor->json + tensor->json_size > text + size)) abort();
        if (!api_document_has(&document, tensor->member)) abort();
    }
    api_document_fini(&document);
    nn_arena_free(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    char *text = malloc(size - 1 ? size - 1 : 1); /* of just this size, for the sanitizer's sake */
    if (!text) return 0;
    memcpy(text, data + 1, size - 1);
    enum api_encoding encoding = data[0] & 1 ? API_SAFETENSORS : API_JSON;
    static const enum api_body kinds[] = {API_DOCUMENT, API_SPECIFICATION, API_STATE_DICT};
    read_document(encoding, kinds[data[0] / 2 % 3], text, size - 1);
    if (encoding == API_JSON) compare_with_jansson(text, size - 1);
    free(text);
    return 0;
}
