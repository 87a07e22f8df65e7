/* document.c - reads the bytes of a body into a document. */
#include "document.h"

#include <string.h>

#include "json_read.h"
#include "members.h"
#include "safetensors.h"

void api_pointer_add(struct api_pointer *pointer, const char *token) {
    size_t used = strlen(pointer->text), room = sizeof pointer->text - 1;
    if (used < room) pointer->text[used++] = '/';
    for (; *token && used + 2 < room; token++) {
        if (*token == '~' || *token == '/') {
            pointer->text[used++] = '~';
            pointer->text[used++] = *token == '~' ? '0' : '1';
        } else {
            pointer->text[used++] = *token;
        }
    }
    pointer->text[used] = '\0';
}

static void point(struct api_pointer *pointer, const char *member, const char *name) {
    if (pointer->text[0]) return;
    api_pointer_add(pointer, member);
    if (name) api_pointer_add(pointer, name);
}

bool api_among(const char *words, const char *word, size_t length) {
    while (*words) {
        size_t size = strcspn(words, " ");
        if (size == length && memcmp(words, word, size) == 0) return true;
        words += size;
        words += strspn(words, " ");
    }
    return false;
}

static int no_memory(struct nn_error *err) { return nn_fail(err, NN_E_NOMEM, "memory is out"); }

/* --- tensors, while they are read --------------------------------------------------------------- */

/* The state of reading JSON. `list` holds the tensors that never become jansson's values: arrays, which are measured in
 * place, and base64 texts, which are decoded and have no shape yet. `json_size` of a base64 text is its decoded size,
 * or SIZE_MAX if it is not base64. */
struct arrays {
    struct api_document list; /* in the order of the text */
    size_t room, taken;
    const struct api_known *known;
    const struct api_limits *limits;
    struct nn_arena *arena;
    struct api_pointer *pointer;
    struct nn_error *err;
};

static int check_member(const struct api_known *known, const char *name, struct api_pointer *pointer,
                        struct nn_error *err) {
    if (!known || api_among(known->names, name, strlen(name))) return NN_OK;
    nn_fail(err, NN_E_UNKNOWN_MEMBER, "%s takes: %s", known->call, known->names);
    point(pointer, name, NULL);
    return (int)err->code;
}

static bool allow(void *self, const char *member) {
    const struct arrays *arrays = self;
    return check_member(arrays->known, member, arrays->pointer, arrays->err) == NN_OK;
}

/* Appends a tensor; the list lies in the arena and doubles as it grows. NULL: an error, which is recorded. */
static struct api_tensor *add_tensor(struct api_document *document, size_t *room, struct arrays *arrays) {
    if (document->n_tensors >= (size_t)arrays->limits->tensors) {
        nn_fail(arrays->err, NN_E_TOO_LARGE, "a request has at most %d tensors here",
                arrays->limits->tensors);
        return NULL;
    }
    if (document->n_tensors == *room) {
        size_t larger = *room ? 2 * *room : 4;
        struct api_tensor *moved = nn_arena_alloc(arrays->arena, larger, sizeof *moved);
        if (!moved) return no_memory(arrays->err), NULL;
        if (document->n_tensors) memcpy(moved, document->tensors, document->n_tensors * sizeof *moved);
        document->tensors = moved;
        *room = larger;
    }
    return &document->tensors[document->n_tensors++];
}

static int add_map(struct api_document *document, const char *name, struct nn_arena *arena) {
    if (api_document_has(document, name)) return NN_OK;
    if (!document->maps && !(document->maps = nn_arena_alloc(arena, API_MEMBERS, sizeof *document->maps)))
        return NN_E_NOMEM;
    document->maps[document->n_maps++] = name;
    return NN_OK;
}

const struct api_tensor *api_document_tensor(const struct api_document *document, const char *member,
                                             const char *name) {
    for (size_t i = 0; i < document->n_tensors; i++) {
        const struct api_tensor *tensor = &document->tensors[i];
        if (strcmp(tensor->name, name) == 0 && strcmp(tensor->member, member) == 0) return tensor;
    }
    return NULL;
}

bool api_document_has(const struct api_document *document, const char *member) {
    for (size_t i = 0; i < document->n_maps; i++)
        if (strcmp(document->maps[i], member) == 0) return true;
    return false;
}

void api_document_fini(struct api_document *document) {
    json_decref(document->members);
    *document = (struct api_document){0};
}

/* --- JSON --------------------------------------------------------------------------------------- */

static bool lift_array(void *self, const char *map, const char *name, const char *text, size_t size,
                       size_t *span) {
    struct arrays *arrays = self;
    const struct api_member *member = api_member_find(map, strlen(map));
    if (!member || member->kind != API_TENSORS) return true;
    struct api_tensor *tensor = add_tensor(&arrays->list, &arrays->room, arrays);
    if (!tensor) return false;
    *tensor = (struct api_tensor){.member = member->name, .name = name, .json = text};
    *span = tensor->json_size = api_json_array_scan(text, size, &tensor->shape, arrays->err);
    if (*span && tensor->shape.rank > arrays->limits->rank) {
        nn_fail(arrays->err, NN_E_SHAPE, "a tensor has at most %d dimensions here", arrays->limits->rank);
        *span = 0;
    }
    if (!*span) point(arrays->pointer, map, name);
    return *span;
}

/* Decodes the text in place, because the bytes are fewer than the characters. */
static bool lift_base64(void *self, const char *map, const char *name, char *text) {
    struct arrays *arrays = self;
    const struct api_member *member = api_member_find(map, strlen(map));
    if (!member || member->kind != API_TENSORS || strcmp(name, "base64") != 0) return false;
    struct api_tensor *tensor = add_tensor(&arrays->list, &arrays->room, arrays);
    if (!tensor) return false;
    size_t size = strlen(text);
    *tensor = (struct api_tensor){.data = text};
    tensor->json_size = (size_t)api_base64_decode(text, size, text, size);
    return true;
}

/* Reads a tensor of the form {"dtype", "shape", "base64"}, whose base64 text was lifted out. */
static int read_base64(struct api_tensor *tensor, json_t *object, struct arrays *arrays) {
    struct nn_error *err = arrays->err;
    json_t *shape = json_object_get(object, "shape"), *dim;
    const char *dtype = json_string_value(json_object_get(object, "dtype"));
    json_t *text = json_object_get(object, "base64");
    size_t i, bytes;
    int64_t elements = 1;
    if (!json_is_object(object))
        return nn_fail(err, NN_E_VALUE, "a tensor is a nested array, or {\"dtype\", \"shape\", \"base64\"}");
    if (!dtype || !json_is_array(shape) || !json_is_string(text) || json_object_size(object) != 3)
        return nn_fail(err, NN_E_VALUE, "a tensor object has exactly \"dtype\", \"shape\" and \"base64\"");
    if ((tensor->dtype = api_dtype_find(dtype)) == API_DTYPES)
        return nn_fail(err, NN_E_DTYPE, "no dtype is named \"%s\"", dtype);
    if (json_array_size(shape) > (size_t)arrays->limits->rank)
        return nn_fail(err, NN_E_SHAPE, "a tensor has at most %d dimensions here", arrays->limits->rank);
    json_array_foreach(shape, i, dim) {
        tensor->shape.dim[tensor->shape.rank++] = json_integer_value(dim);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return nn_fail(err, NN_E_VALUE, "a dimension is an integer of 0 or more");
        if (__builtin_mul_overflow(elements, json_integer_value(dim), &elements) ||
            elements > NN_MAX_ELEMENTS)
            return nn_fail(err, NN_E_SIZE, "a tensor has at most %lld elements", (long long)NN_MAX_ELEMENTS);
    }
    bytes = (size_t)elements * api_dtype_size(tensor->dtype);
    const struct api_tensor *lifted = &arrays->list.tensors[arrays->taken++];
    if (lifted->json_size != bytes)
        return nn_fail(err, NN_E_VALUE, "\"base64\" is not the %zu bytes that dtype and shape tell of",
                       bytes);
    tensor->data = lifted->data;
    return NN_OK;
}

/* Reads a number alone, a tensor without dimensions. */
static int read_scalar(struct api_tensor *tensor, const json_t *number, struct arrays *arrays) {
    union {
        int64_t i;
        double r;
    } *data = nn_arena_alloc(arrays->arena, 1, sizeof *data);
    if (!data) return no_memory(arrays->err);
    const bool is_integer = json_is_integer(number);
    if (is_integer)
        data->i = json_integer_value(number);
    else
        data->r = json_real_value(number);
    tensor->dtype = is_integer ? API_I64 : API_F64;
    tensor->data = data;
    return NN_OK;
}

/* Takes a map's tensors in their order. Arrays were lifted out and are in arrays->list; {"dtype", ...} are in `map`. */
static int take_map(struct api_document *document, size_t *room, const char *member, json_t *map,
                    struct arrays *arrays) {
    const char *name;
    json_t *value;
    if (!json_is_object(map)) {
        point(arrays->pointer, member, NULL);
        return nn_fail(arrays->err, NN_E_VALUE, "must be an object whose members are tensors");
    }
    if (add_map(document, member, arrays->arena)) return no_memory(arrays->err);
    json_object_foreach(map, name, value) {
        struct api_tensor *tensor = add_tensor(document, room, arrays);
        if (!tensor) return (int)arrays->err->code;
        if (json_is_array(value)) {
            *tensor = arrays->list.tensors[arrays->taken++];
            continue;
        }
        *tensor = (struct api_tensor){.member = member, .name = nn_arena_strdup(arrays->arena, name)};
        if (!tensor->name) return no_memory(arrays->err);
        if (json_is_number(value) ? read_scalar(tensor, value, arrays) : read_base64(tensor, value, arrays))
            return point(arrays->pointer, member, name), (int)arrays->err->code;
    }
    return NN_OK;
}

static int read_json(struct api_document *document, enum api_body kind, const char *text, size_t size,
                     struct arrays *arrays) {
    bool tensors = API_HAS_TENSORS(kind);
    const struct api_json_lifter lifter = {tensors ? lift_array : NULL, tensors ? lift_base64 : NULL, allow,
                                           arrays};
    const char *name;
    size_t room = 0;
    json_t *value;
    void *position;
    int64_t values = 0;
    document->members =
        api_json_read_lifting(text, size, &lifter, arrays->limits, &values, arrays->arena, arrays->err);
    if (!document->members) return (int)arrays->err->code;
    if (!json_is_object(document->members))
        return nn_fail(arrays->err, NN_E_MALFORMED, "the document must be an object");
    if (!tensors) return NN_OK;
    json_object_foreach_safe(document->members, position, name, value) {
        const struct api_member *member = api_member_find(name, strlen(name));
        if (!member || member->kind != API_TENSORS) continue;
        if (take_map(document, &room, member->name, value, arrays)) return (int)arrays->err->code;
        json_object_del(document->members, name);
    }
    return NN_OK;
}

/* --- safetensors ---------------------------------------------------------------------------------- */

static bool is_bare(const struct api_member *member, const char *text) {
    if (!member) return false;
    return member->kind <= API_CHOICE || (member->kind == API_MODEL && text[0] != '{');
}

static json_t *read_metadata_text(const struct api_member *member, const char *text,
                                  const struct api_limits *limits, int64_t *values, struct nn_arena *arena,
                                  struct nn_error *err) {
    if (!is_bare(member, text))
        return api_json_read_lifting(text, strlen(text), NULL, limits, values, arena, err);
    json_t *value = json_string(text);
    if (!value) no_memory(err);
    return value;
}

static int read_metadata(struct api_document *document, enum api_body kind, const struct api_known *known,
                         const json_t *metadata, const struct api_limits *limits, struct nn_arena *arena,
                         struct api_pointer *pointer, struct nn_error *err) {
    const char *name;
    json_t *text;
    int64_t values = 0;
    json_object_foreach((json_t *)metadata, name, text) {
        const struct api_member *member = api_member_find(name, strlen(name));
        if (check_member(known, name, pointer, err)) return (int)err->code;
        if (kind == API_DOCUMENT && member && member->kind == API_TENSORS) {
            nn_fail(err, NN_E_VALUE, "\"%s\" is a map of tensors, which are named %s/...", name, name);
            return point(pointer, name, NULL), (int)err->code;
        }
        if (!nn_arena_count(arena, api_json_member_bytes(name, json_string_value(text))))
            return no_memory(err);
        json_t *value = read_metadata_text(member, json_string_value(text), limits, &values, arena, err);
        if (!value) return point(pointer, name, NULL), (int)err->code;
        if (json_object_set_new(document->members, name, value)) return no_memory(err);
    }
    return NN_OK;
}

/* Splits "inputs/x" into map and name. */
static int split_name(struct api_document *document, const struct api_known *known, struct api_tensor *tensor,
                      struct nn_arena *arena, struct api_pointer *pointer, struct nn_error *err) {
    const char *slash = strchr(tensor->name, '/');
    const struct api_member *member =
        slash ? api_member_find(tensor->name, (size_t)(slash - tensor->name)) : NULL;
    if (!member || member->kind != API_TENSORS)
        return nn_fail(err, NN_E_UNKNOWN_NAME, "tensor \"%s\" stands in no map that this service knows",
                       tensor->name);
    if (check_member(known, member->name, pointer, err)) return (int)err->code;
    tensor->member = member->name;
    tensor->name = slash + 1;
    return add_map(document, member->name, arena) ? no_memory(err) : NN_OK;
}

static int read_safetensors(struct api_document *document, enum api_body kind, const struct api_known *known,
                            const char *body, size_t size, const struct api_limits *limits,
                            struct nn_arena *arena, struct api_pointer *pointer, struct nn_error *err) {
    struct api_safetensors file = {0};
    if (!(document->members = json_object())) return no_memory(err);
    if (api_safetensors_read_within(body, size, limits, arena, &file, err)) goto out;
    document->tensors = file.tensors;
    document->n_tensors = file.n_tensors;
    if (kind == API_STATE_DICT) { /* plain names; the metadata belong to another program */
        if (add_map(document, "parameters", arena)) no_memory(err);
        for (size_t i = 0; i < file.n_tensors; i++) file.tensors[i].member = "parameters";
        goto out;
    }
    for (size_t i = 0; i < file.n_tensors; i++)
        if (split_name(document, known, &file.tensors[i], arena, pointer, err)) goto out;
    read_metadata(document, kind, known, file.metadata, limits, arena, pointer, err);
out:
    api_safetensors_fini(&file);
    return (int)err->code;
}

int api_document_read(struct api_document *document, enum api_encoding encoding, enum api_body kind,
                      const struct api_known *known, const char *body, size_t size,
                      const struct api_limits *limits, struct nn_arena *arena, struct api_pointer *pointer,
                      struct nn_error *err) {
    *document = (struct api_document){0};
    if (encoding == API_SAFETENSORS)
        return read_safetensors(document, kind, known, body, size, limits, arena, pointer, err);
    struct arrays arrays = {.known = known, .limits = limits, .arena = arena, .pointer = pointer, .err = err};
    return read_json(document, kind, body, size, &arrays);
}
