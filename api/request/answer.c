/* answer.c - encodes an answer as JSON or safetensors.
 *
 * In safetensors, tensors are sent from where they are: the segments of the response point into parameters, tapes and
 * gradients, which the request holds until the response is freed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../wire/json_text.h"
#include "../wire/safetensors.h"
#include "request.h"

/* A response, the buffers that it owns, and the request whose data it shows. */
struct owned_response {
    struct api_response response;
    struct api_request *request; /* NULL after api_response_detach */
    bool shows_request;          /* segments point into what the request holds */
    struct api_segment *segments;
    void **buffers; /* as many as n_buffers */
    size_t n_buffers;
    struct api *api; /* after api_response_detach: the service, */
    size_t reserved; /* and the bytes of its budget that the response holds */
};

void api_response_free(struct api_response *response) {
    if (!response) return;
    struct owned_response *owned = (struct owned_response *)response;
    for (size_t i = 0; i < owned->n_buffers; i++) free(owned->buffers[i]);
    free(owned->buffers);
    free(owned->segments);
    if (owned->request) owned->request->drop(owned->request);
    if (owned->api) api_release(owned->api, owned->reserved);
    free(owned);
}

void api_response_detach(struct api_response *response) {
    struct owned_response *owned = (struct owned_response *)response;
    struct api_request *request = owned->request;
    if (owned->shows_request) return;
    owned->api = request->api;
    owned->reserved = response->size < request->reserved ? response->size : request->reserved;
    api_reserve_move(request, owned->reserved);
    owned->request = NULL;
    request->drop(request);
}

static struct owned_response *response_new(struct api_request *request, size_t n_segments, size_t n_buffers) {
    struct owned_response *owned = calloc(1, sizeof *owned);
    if (!owned) return NULL;
    owned->segments = calloc(n_segments + 1, sizeof *owned->segments);
    owned->buffers = calloc(n_buffers + 1, sizeof *owned->buffers);
    if (!owned->segments || !owned->buffers) {
        api_response_free(&owned->response);
        return NULL;
    }
    owned->response.segments = owned->segments;
    owned->response.n_headers = 1;
    snprintf(owned->response.headers[0].name, sizeof owned->response.headers[0].name, "Content-Type");
    snprintf(owned->response.headers[0].value, sizeof owned->response.headers[0].value, "%s",
             request->out == API_JSON ? "application/json" : "application/safetensors");
    return owned;
}

static void add_segment(struct owned_response *owned, const void *data, size_t size) {
    if (!size) return;
    owned->segments[owned->response.n_segments++] = (struct api_segment){data, size};
    owned->response.size += size;
}

static void own(struct owned_response *owned, void *buffer) { owned->buffers[owned->n_buffers++] = buffer; }

struct api_response *api_response_of_text(struct api_request *request, char *text) {
    struct owned_response *owned = response_new(request, 1, 1);
    if (!owned) return NULL;
    own(owned, text);
    add_segment(owned, text, strlen(text));
    owned->request = request;
    return &owned->response;
}

/* --- safetensors ---------------------------------------------------------------------------------- */

/* The answer's members as __metadata__: strings without quotes, all other values as JSON text. NULL: memory is out. */
static json_t *metadata_of(const struct api_answer *answer) {
    json_t *metadata = json_object(), *value;
    const char *name;
    json_object_foreach(answer->members, name, value) {
        char *text = json_is_string(value) ? NULL : api_json_text(value);
        int failed = json_object_set_new(metadata, name, text ? json_string(text) : json_incref(value));
        free(text);
        if (failed || (!json_is_string(value) && !text)) {
            json_decref(metadata);
            return NULL;
        }
    }
    return metadata;
}

/* The tensor's elements in its wire type: its own data, or a converted copy that the response owns. */
static const void *elements_of(struct owned_response *owned, const struct api_result *result, size_t *size) {
    const struct api_tensor_out *tensor = &result->tensor;
    int64_t n = nn_shape_elements(&tensor->shape);
    *size = (size_t)n * api_dtype_size(tensor->dtype);
    if (tensor->dtype == api_dtype_of(result->from)) {
        owned->shows_request = true;
        return result->data;
    }
    void *copy = malloc(*size + 1);
    if (!copy) return NULL;
    api_elements_convert(result->data, result->from, copy, tensor->dtype, n);
    own(owned, copy);
    return copy;
}

static struct api_response *encode_safetensors(struct api_request *request) {
    struct api_answer *answer = &request->answer;
    struct owned_response *owned = response_new(request, answer->n_results + 1, answer->n_results + 1);
    struct api_tensor_out *tensors = calloc(answer->n_results + 1, sizeof *tensors);
    json_t *metadata = metadata_of(answer);
    size_t size;
    if (!owned || !tensors || !metadata) goto fail;
    for (size_t i = 0; i < answer->n_results; i++) {
        tensors[i] = answer->results[i].tensor;
        if (answer->plain_names) tensors[i].member = "";
    }
    void *header = api_safetensors_header(metadata, tensors, answer->n_results, &size);
    if (!header) goto fail;
    own(owned, header);
    add_segment(owned, header, size);
    for (size_t i = 0; i < answer->n_results; i++) {
        const void *data = elements_of(owned, &answer->results[i], &size);
        if (!data) goto fail;
        add_segment(owned, data, size);
    }
    owned->request = request;
    free(tensors);
    json_decref(metadata);
    return &owned->response;
fail:
    if (owned) api_response_free(&owned->response);
    free(tensors);
    json_decref(metadata);
    return NULL;
}

/* An upper bound of the JSON around the tensors: members, and the maps' names. */
static size_t frame_bytes(const struct api_answer *answer) {
    return api_json_text_bound(answer->members) + 64 * ((size_t)answer->n_maps + 1);
}

/* --- JSON ------------------------------------------------------------------------------------------ */

/* Adds the numbers rounded to their wire type, so that JSON shows the values that safetensors would. Numbers of 8 or 16
 * bits are widened to float for printing. */
static void add_converted(struct api_text *text, const struct api_result *result) {
    const struct api_tensor_out *tensor = &result->tensor;
    size_t n = (size_t)nn_shape_elements(&tensor->shape);
    bool widen = tensor->dtype != API_F32 && tensor->dtype != API_F64;
    void *wire = malloc(n * api_dtype_size(tensor->dtype) + 1);
    float *wide = widen ? malloc(n * sizeof *wide + 1) : NULL;
    if (wire && (wide || !widen)) {
        api_elements_convert(result->data, result->from, wire, tensor->dtype, (int64_t)n);
        if (widen) api_elements_widen(wire, tensor->dtype, wide, (int64_t)n);
        api_text_array(text, widen ? wide : wire, tensor->dtype == API_F64 ? NN_F64 : NN_F32, &tensor->shape);
    } else {
        text->failed = true;
    }
    free(wire);
    free(wide);
}

static void add_result(struct api_text *text, const struct api_result *result) {
    api_text_quote(text, result->tensor.name);
    api_text_puts(text, ":");
    if (result->tensor.dtype == api_dtype_of(result->from))
        api_text_array(text, result->data, result->from, &result->tensor.shape);
    else
        add_converted(text, result);
}

static void add_member(struct api_text *text, const char *name, const json_t *value) {
    if (text->size > 1) api_text_puts(text, ",");
    api_text_quote(text, name);
    api_text_puts(text, ":");
    api_text_json(text, value);
}

static void add_map(struct api_text *text, const struct api_answer *answer, const char *map) {
    bool first = true;
    if (text->size > 1) api_text_puts(text, ",");
    api_text_quote(text, map);
    api_text_puts(text, ":{");
    for (size_t i = 0; i < answer->n_results; i++) {
        if (strcmp(answer->results[i].tensor.member, map) != 0) continue;
        if (!first) api_text_puts(text, ",");
        first = false;
        add_result(text, &answer->results[i]);
    }
    api_text_puts(text, "}");
}

static struct api_response *encode_json(struct api_request *request) {
    const struct api_answer *answer = &request->answer;
    struct api_text text = {.room = answer->text + frame_bytes(answer)};
    const char *name;
    json_t *value;
    text.data = malloc(text.room); /* all at once: growing would copy the text again and again */
    text.failed = !text.data;
    api_text_puts(&text, "{");
    json_object_foreach(answer->members, name, value) { add_member(&text, name, value); }
    for (int i = 0; i < answer->n_maps; i++) add_map(&text, answer, answer->maps[i]);
    api_text_add(&text, "}\n", 3); /* with the NUL of a C string */
    char *fitting = text.failed ? NULL : realloc(text.data, text.size);
    if (fitting) text.data = fitting; /* so that the response holds no more than it counts */
    struct api_response *response = text.failed ? NULL : api_response_of_text(request, text.data);
    if (!response) api_text_free(&text);
    return response;
}

/* --- plain text ------------------------------------------------------------------------------------ */

static struct api_response *encode_page(struct api_request *request) {
    struct api_answer *answer = &request->answer;
    struct api_response *response = api_response_of_text(request, answer->page);
    if (!response) return NULL;
    answer->page = NULL;
    snprintf(response->headers[0].value, sizeof response->headers[0].value, "%s", answer->page_type);
    return response;
}

/* --- every encoding --------------------------------------------------------------------------------- */

void api_response_add(struct api_response *response, const char *name, const char *value) {
    if (!*value) return;
    struct api_header *header = &response->headers[response->n_headers++];
    snprintf(header->name, sizeof header->name, "%s", name);
    snprintf(header->value, sizeof header->value, "%s", value);
}

void api_response_add_caching(struct api_response *response, const struct api_request *request) {
    bool negotiated = request->route && request->route->body != API_PLAIN_TEXT;
    api_response_add(response, "Vary", negotiated ? "Accept" : "");
    api_response_add(response, "Cache-Control", request->gets ? "no-cache" : "");
}

/* Encodes a 304, which has headers and no body. */
static struct api_response *encode_nothing(struct api_request *request) {
    struct owned_response *owned = response_new(request, 0, 0);
    if (!owned) return NULL;
    owned->response.n_headers = 0;
    owned->request = request;
    return &owned->response;
}

static struct api_response *encode(struct api_request *request) {
    struct api_answer *answer = &request->answer;
    struct api_response *response = answer->status == 304      ? encode_nothing(request)
                                    : answer->page             ? encode_page(request)
                                    : request->out == API_JSON ? encode_json(request)
                                                               : encode_safetensors(request);
    if (!response) return NULL;
    response->status = answer->status ? answer->status : 200;
    api_response_add(response, "Location", answer->location);
    api_response_add(response, "ETag", answer->etag);
    api_response_add_caching(response, request);
    return response;
}

/* Reserves the bytes of the encoding around the tensors; api_add_tensor has reserved those of the tensors. Safetensors
 * takes more, because each member first becomes a text of its own. */
static int count_frame(struct api_request *request) {
    const struct api_answer *answer = &request->answer;
    if (answer->page || answer->status == 304) return NN_OK;
    return api_count(request, frame_bytes(answer) * (request->out == API_JSON ? 1 : 4));
}

int api_answer_encode(struct api_request *request) {
    if (count_frame(request)) return (int)request->err.code;
    if ((request->ready = encode(request))) return NN_OK;
    return nn_fail(&request->err, NN_E_NOMEM, "no memory for the answer");
}

void api_answer_drop(struct api_request *request) {
    if (!request->ready) return;
    ((struct owned_response *)request->ready)->request = NULL;
    api_response_free(request->ready);
    request->ready = NULL;
}

int api_add(struct api_request *request, const char *name, json_t *value) {
    struct api_answer *answer = &request->answer;
    if (!answer->members && !(answer->members = json_object())) {
        json_decref(value);
        value = NULL;
    }
    if (json_object_set_new(answer->members, name, value))
        return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    return NN_OK;
}

void api_add_map(struct api_request *request, const char *map) {
    struct api_answer *answer = &request->answer;
    for (int i = 0; i < answer->n_maps; i++)
        if (strcmp(answer->maps[i], map) == 0) return;
    answer->maps[answer->n_maps++] = map;
}

/* The bytes of the copies that encoding a tensor takes: none if it is shown in its own type; else a converted copy, and
 * in JSON perhaps a widened one (see add_converted). */
static size_t copied_bytes(enum api_encoding encoding, int64_t n, enum nn_dtype from, enum api_dtype as) {
    if (as == api_dtype_of(from)) return 0;
    bool widened = encoding == API_JSON && as != API_F32 && as != API_F64;
    return (size_t)n * (api_dtype_size(as) + (widened ? sizeof(float) : 0));
}

/* An upper bound of a tensor's JSON text: a comma, the name, a colon and the array. */
static size_t text_bytes(const char *name, const struct nn_shape *shape, enum api_dtype as) {
    enum nn_dtype printed = as == API_I64 ? NN_I64 : as == API_F64 ? NN_F64 : NN_F32;
    return 2 + api_text_quote_bound(name) + api_text_array_bound(printed, shape);
}

/* An upper bound of a tensor's bytes in a safetensors header, which doubles as it grows, and in the lists that
 * encode_safetensors makes. Names of tensors need no escapes. */
static size_t header_bytes(const char *map, const char *name) {
    return 2 * (strlen(map) + strlen(name) + 256) + sizeof(struct api_tensor_out) +
           sizeof(struct api_segment) + sizeof(void *);
}

int api_add_tensor(struct api_request *request, const char *map, const char *name,
                   const struct nn_shape *shape, enum nn_dtype from, const void *data, enum api_dtype as) {
    struct api_answer *answer = &request->answer;
    if (answer->n_results == answer->room) {
        size_t larger = answer->room ? 2 * answer->room : 4;
        struct api_result *moved = nn_arena_alloc(request->arena, larger, sizeof *moved);
        if (!moved) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
        if (answer->n_results) memcpy(moved, answer->results, answer->n_results * sizeof *moved);
        answer->results = moved;
        answer->room = larger;
    }
    if (request->out == API_SAFETENSORS && api_count(request, header_bytes(map, name)))
        return (int)request->err.code;
    size_t text = request->out == API_JSON ? text_bytes(name, shape, as) : 0;
    size_t copied = copied_bytes(request->out, nn_shape_elements(shape), from, as);
    if (api_reserve(request, text + copied)) return (int)request->err.code;
    answer->text += text;
    answer->results[answer->n_results++] = (struct api_result){{map, name, *shape, as}, data, from};
    api_add_map(request, map);
    return NN_OK;
}
