/* A snapshot that somebody has meddled with: it is refused, or makes a model that answers, and of which a snapshot
 * makes the same model again. The first byte says whether it is written out (the header up to a byte of 0x1e, and
 * behind it the data), or one of the history's, and what becomes of that: of the header, of what the service wrote
 * into it, of the data. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/history.h"
#include "support/service.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct fuzz_headed written_out(struct fuzz_bytes *bytes) {
    struct fuzz_bytes header = fuzz_part(bytes);
    return fuzz_compose(header.p, (size_t)(header.end - header.p), bytes->p, (size_t)(bytes->end - bytes->p));
}

/* What stands in the header as text. */
static void spoil_metadata(struct fuzz_bytes *bytes, json_t *header) {
    json_t *metadata = json_object_get(header, "__metadata__");
    json_t *own = json_loads(json_string_value(json_object_get(metadata, "gradd")), 0, NULL);
    if (!own) abort();
    fuzz_spoil_json(bytes, own);
    char *text = json_dumps(own, JSON_COMPACT);
    if (!text || json_object_set_new(metadata, "gradd", json_string(text))) abort();
    free(text);
    json_decref(own);
}

static void spoil(struct fuzz_bytes *bytes, json_t *header, char *data, size_t *size) {
    spoil_metadata(bytes, header);
    if (fuzz_byte(bytes, 4) == 3) fuzz_spoil_json(bytes, header);
    if (fuzz_byte(bytes, 4) == 3) fuzz_spoil_data(bytes, data, size);
}

/* The only model's name, in a block of its own; NULL: there is none. */
static void keep_name(void *arg, const char *name) {
    char **kept = arg;
    if (*kept || !(*kept = strdup(name))) abort();
}

/* Recovers the file, and takes a snapshot of what it makes: the bytes, or NULL where it is refused, or not stored. */
static char *recover(const char *bytes, size_t size, size_t *taken) {
    const char *json = "application/json";
    struct fuzz_store store;
    struct fuzz_service service;
    struct nn_error err = {0};
    char *snapshot = NULL, *name = NULL, path[API_MAX_MODEL_NAME + 32];
    fuzz_store_init(&store);
    fuzz_service_start(&service, &store.store);
    api_recover_begin(service.api);
    struct api_source source = api_source_of(bytes, size);
    int code = api_recover_model(service.api, &source, 5, &err);
    if ((!code && source.size) || code != (int)err.code ||
        (code && code != NN_E_CORRUPT && code != NN_E_STORE && code != NN_E_NOMEM))
        abort();
    err = (struct nn_error){0};
    if (api_recover_end(service.api, true, &err) || api_models_stored(service.api, keep_name, &name, &err))
        abort();
    if (name) {
        enum nn_code why;
        snapshot = fuzz_snapshot(service.api, name, taken, &why);
        snprintf(path, sizeof path, "/models/%s", name);
        if (fuzz_call(&service, "GET", path, NULL, json, NULL, 0) != 200) abort();
        fuzz_call(&service, "POST", "/backward", json, json, FUZZ_STEP, strlen(FUZZ_STEP));
    }
    free(name);
    fuzz_service_stop(&service);
    fuzz_store_fini(&store);
    return snapshot;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const struct fuzz_store *history = fuzz_history();
    struct fuzz_bytes bytes = {data, data + size};
    unsigned which = fuzz_byte(&bytes, (unsigned)history->n_saved + 1);
    const struct fuzz_saved *good = which < history->n_saved ? &history->saved[which] : NULL;
    struct fuzz_headed file =
        good ? fuzz_spoilt(&bytes, good->bytes, good->size, spoil) : written_out(&bytes);
    size_t n_first = 0, n_second = 0;
    char *first = recover(file.bytes, file.size, &n_first);
    char *second = first ? recover(first, n_first, &n_second) : NULL;
    if (first && (n_first != n_second || !second || memcmp(first, second, n_first) != 0)) abort();
    free(first);
    free(second);
    free(file.bytes);
    return 0;
}
