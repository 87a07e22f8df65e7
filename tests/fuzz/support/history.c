/* history.c - see history.h. */
#include "history.h"

#include <stdlib.h>
#include <string.h>

#include "service.h"

#define END 0x1e

/* --- a life -------------------------------------------------------------------------------------------- */

#define LAYERS                                                                                               \
    "\"inputs\": {\"x\": {\"shape\": [3]}}, \"layers\": [{\"op\": \"linear\", \"out_features\": 2}, "        \
    "{\"op\": \"dropout\", \"p\": 0.5}, {\"op\": \"linear\", \"out_features\": 2, \"bias\": false}, "        \
    "{\"op\": \"batch_norm\", \"name\": \"bn\"}], "                                                          \
    "\"loss\": {\"op\": \"mse\"}"
#define BATCH "\"inputs\": {\"x\": [[1, 2, 3], [3, 2, 0]]}, \"targets\": {\"y\": [[0, 1], [1, 0]]}"
#define NUMBERS                                                                                              \
    "\"gradients\": {\"0.weight\": [[1, 2, 3], [4, 5, 6]], \"0.bias\": [1, 2], \"2.weight\": [[1, 2], [3, "  \
    "4]]}, \"buffers\": {\"bn.running_mean\": [1, 2], \"bn.running_var\": [3, 4], "                          \
    "\"bn.num_batches_tracked\": 2}"

/* With an Idempotency-Key where `key` is. */
static const struct {
    const char *method, *path, *body, *key;
} life[] = {{"POST", "/models",
             "{\"name\": \"m\", " LAYERS ", \"optimizer\": {\"op\": \"adam\", \"lr\": 0.01}, \"durability\": "
             "\"journal\"}",
             "created"},
            {"POST", "/models", "{\"name\": \"n\", " LAYERS "}", NULL},
            {"POST", "/models",
             "{\"name\": \"f64\", \"dtype\": \"F64\", " LAYERS
             ", \"optimizer\": {\"op\": \"sgd\", \"lr\": 0.01, "
             "\"momentum\": 0.9}, \"durability\": \"journal\"}",
             NULL},
            {"POST", "/backward", FUZZ_STEP, "stepped"},
            {"POST", "/backward", "{\"model\": \"m\", \"accumulate\": {\"scale\": 0.5}, " BATCH "}", NULL},
            {"POST", "/models/m/gradients",
             "{\"model\": \"m\", \"incarnation\": \"0000000000000001\", \"version\": 1, \"accumulate\": "
             "true, " NUMBERS "}",
             NULL},
            {"POST", "/step", "{\"model\": \"m\", \"mean\": true, \"lr\": 0.1}", NULL},
            {"POST", "/models/m/gradients",
             "{\"model\": \"m\", \"incarnation\": \"0000000000000001\", \"version\": 1, \"apply\": {\"lr\": "
             "0.5}, " NUMBERS "}",
             "pushed"},
            {"PATCH", "/models/m", "{\"optimizer\": {\"lr\": 0.02, \"amsgrad\": true}}", NULL},
            {"PUT", "/models/m/parameters?partial=true", "{\"parameters\": {\"0.bias\": [0.5, -0.5]}}", NULL},
            {"PUT", "/models/n/parameters?partial=true", "{\"parameters\": {\"0.bias\": [0.5, -0.5]}}", NULL},
            {"POST", "/models/m/parameters", "{\"from\": \"n\", \"tau\": 0.25}", NULL},
            {"POST", "/backward", "{\"model\": \"f64\", \"apply\": true, " BATCH "}", NULL},
            {"POST", "/backward", "{\"model\": \"f64\", \"accumulate\": true, " BATCH "}", NULL},
            {"PATCH", "/models/n", "{\"durability\": \"journal\"}", NULL},
            {"POST", "/models/n/restore", "{}", NULL},
            {"DELETE", "/models/m/gradients", NULL, NULL},
            {"PATCH", "/models/m", "{\"aggregation\": {\"mode\": \"sync\", \"workers\": 1}}", NULL},
            {"POST", "/backward", "{\"model\": \"m\", \"apply\": true, \"worker\": \"a\", " BATCH "}", NULL},
            {"DELETE", "/models/n", NULL, NULL}};

static void ask(struct fuzz_service *service, size_t i) {
    const char *body = life[i].body, *query = strchr(life[i].path, '?');
    char *path = strndup(life[i].path, strcspn(life[i].path, "?"));
    if (!path) abort();
    const struct api_head head = {.method = life[i].method,
                                  .path = path,
                                  .query = query ? query + 1 : NULL,
                                  .content_type = body ? "application/json" : NULL,
                                  .accept = "application/json",
                                  .idempotency_key = life[i].key,
                                  .content_length = body ? (int64_t)strlen(body) : 0};
    int code = fuzz_ask(service, &head, body, body ? strlen(body) : 0);
    if (code != 200 && code != 201) abort();
    free(path);
}

const struct fuzz_store *fuzz_history(void) {
    static struct fuzz_store store;
    static bool lived;
    struct fuzz_service service;
    if (lived) return &store;
    lived = true;
    fuzz_store_init(&store);
    fuzz_service_start(&service, &store.store);
    for (size_t i = 0; i < sizeof life / sizeof life[0]; i++) {
        if (strstr(life[i].path, "restore")) fuzz_store_checkpoint(&store, service.api);
        ask(&service, i);
    }
    fuzz_store_checkpoint(&store, service.api);
    size_t n = store.n;
    fuzz_service_stop(&service);
    while (store.n > n) free(store.records[--store.n].bytes); /* of the stop, which deletes models */
    return &store;
}

/* --- meddling ------------------------------------------------------------------------------------------ */

struct fuzz_bytes fuzz_part(struct fuzz_bytes *bytes) {
    size_t size = (size_t)(bytes->end - bytes->p);
    const uint8_t *end = size ? memchr(bytes->p, END, size) : NULL;
    struct fuzz_bytes part = {bytes->p, end ? end : bytes->end};
    bytes->p = end ? end + 1 : bytes->end;
    return part;
}

static json_t *value_of(struct fuzz_bytes *bytes) {
    static const char *const values[] = {"null",
                                         "-1",
                                         "0",
                                         "1",
                                         "2",
                                         "\"\"",
                                         "[]",
                                         "{}",
                                         "true",
                                         "false",
                                         "1e308",
                                         "9007199254740991",
                                         "9007199254740992",
                                         "9223372036854775807",
                                         "-9223372036854775808",
                                         "\"m\"",
                                         "\"n\"",
                                         "\"f64\"",
                                         "\"../m\"",
                                         "\"a\\r\\nb: c\"",
                                         "\"POST\"",
                                         "\"GET\"",
                                         "\"DELETE\"",
                                         "\"/models\"",
                                         "\"/models/{}\"",
                                         "\"/models/{}/restore\"",
                                         "\"/contexts/{}\"",
                                         "\"/forward\"",
                                         "\"/backward\"",
                                         "\"request\"",
                                         "\"gradient\"",
                                         "\"parameters\"",
                                         "\"state\"",
                                         "\"safetensors\"",
                                         "\"json\"",
                                         "[4294967296]",
                                         "[65536,65536]",
                                         "1000000000",
                                         "0.5",
                                         "\"none\"",
                                         "\"journal\"",
                                         "\"0.bias\"",
                                         "\"000000000000000f\"",
                                         "\"{}\"",
                                         "\"partial=true\"",
                                         "\"01\"",
                                         "\"010\""};
    unsigned i = fuzz_byte(bytes, sizeof values / sizeof values[0] + 8);
    if (i < sizeof values / sizeof values[0]) return json_loads(values[i], JSON_DECODE_ANY, NULL);
    struct fuzz_bytes part = fuzz_part(bytes);
    size_t size = (size_t)(part.end - part.p);
    json_t *json = json_loadb((const char *)part.p, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    return json ? json : json_stringn((const char *)part.p, size);
}

/* The n-th member's name, n counting from the beginning again past the end. NULL: there are none. */
static const char *name_of(json_t *object, unsigned n) {
    void *at = json_object_iter(object);
    size_t size = json_object_size(object);
    if (!size) return NULL;
    for (size_t i = n % size; i > 0; i--) at = json_object_iter_next(object, at);
    return json_object_iter_key(at);
}

static void spoil_one(struct fuzz_bytes *bytes, json_t *json) {
    unsigned how = fuzz_byte(bytes, 8), which = fuzz_byte(bytes, 64);
    const char *name = json_is_object(json) ? name_of(json, which) : NULL;
    size_t n = json_array_size(json), index = n ? which % n : 0;
    json_t *member = name ? json_object_get(json, name) : json_array_get(json, index);
    if (!member) return;
    if (how > 2 && (json_is_object(member) || json_is_array(member))) {
        spoil_one(bytes, member);
    } else if (how == 0) {
        if (name)
            json_object_del(json, name);
        else
            json_array_remove(json, index);
    } else {
        json_t *value = value_of(bytes);
        int failed =
            name ? json_object_set_new_nocheck(json, name, value) : json_array_set_new(json, index, value);
        (void)failed; /* bytes that are no text: it stays as it was */
    }
}

void fuzz_spoil_json(struct fuzz_bytes *bytes, json_t *object) {
    static const char *const more[] = {"only",    "lr",    "keys",  "read",  "hash",
                                       "query",   "sum",   "drawn", "fresh", "seen",
                                       "stopped", "steps", "data",  "scale", "version"};
    for (unsigned n = fuzz_byte(bytes, 4); n > 0; n--) spoil_one(bytes, object);
    if (fuzz_byte(bytes, 4) == 3)
        json_object_set_new(object, more[fuzz_byte(bytes, sizeof more / sizeof more[0])], value_of(bytes));
}

void fuzz_spoil_data(struct fuzz_bytes *bytes, char *data, size_t *size) {
    unsigned how = fuzz_byte(bytes, 8);
    for (unsigned n = how & 3; n > 0 && *size; n--) {
        size_t at = (fuzz_byte(bytes, 256) << 8 | fuzz_byte(bytes, 256)) % *size;
        data[at] = (char)fuzz_byte(bytes, 256);
    }
    if (how > 5) *size -= *size * (1 + fuzz_byte(bytes, 255)) / 256;
}

struct fuzz_headed fuzz_compose(const void *head, size_t head_size, const void *data, size_t size) {
    struct fuzz_headed made = {malloc(8 + head_size + size), 8 + head_size + size};
    uint64_t length = head_size;
    if (!made.bytes) abort();
    memcpy(made.bytes, &length, 8);
    if (head_size) memcpy(made.bytes + 8, head, head_size);
    if (size) memcpy(made.bytes + 8 + head_size, data, size);
    return made;
}

struct fuzz_headed fuzz_spoilt(struct fuzz_bytes *bytes, const char *good, size_t good_size,
                               void (*spoil)(struct fuzz_bytes *bytes, json_t *head, char *data,
                                             size_t *size)) {
    uint64_t length;
    memcpy(&length, good, 8);
    size_t size = good_size - 8 - (size_t)length;
    char *data = fuzz_copy(good + 8 + length, size);
    json_t *head = json_loadb(good + 8, (size_t)length, 0, NULL);
    if (!head) abort();
    spoil(bytes, head, data, &size);
    char *text = json_dumps(head, JSON_COMPACT);
    if (!text) abort();
    struct fuzz_headed made = fuzz_compose(text, strlen(text), data, size);
    free(text);
    free(data);
    json_decref(head);
    return made;
}
