/* Records of a journal that somebody has meddled with, after some that are as they were: a record is carried out or
 * refused, and leaves a service that answers. The first byte says how many come first; then of each record another
 * whether it is written out (its head up to a byte of 0x1e, and its data up to the next), or one of the history's,
 * and what becomes of that. */
#include <stdlib.h>
#include <string.h>

#include "support/history.h"
#include "support/service.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RECORDS 8 /* that an input gives at most, beside those that come first */

static struct fuzz_headed written_out(struct fuzz_bytes *bytes) {
    struct fuzz_bytes head = fuzz_part(bytes), data = fuzz_part(bytes);
    struct fuzz_headed record =
        fuzz_compose(head.p, (size_t)(head.end - head.p), data.p, (size_t)(data.end - data.p));
    if (fuzz_byte(bytes, 8) == 7) record.bytes[fuzz_byte(bytes, 8)] = (char)fuzz_byte(bytes, 256);
    return record;
}

static void spoil(struct fuzz_bytes *bytes, json_t *head, char *data, size_t *size) {
    fuzz_spoil_json(bytes, head);
    fuzz_spoil_data(bytes, data, size);
}

static void recover(struct api *api, uint64_t seq, const char *bytes, size_t size, bool good) {
    struct nn_error err = {0};
    int code = api_recover_record(api, seq, bytes, size, !good && size % 2, &err);
    if (code != (int)err.code || (good && code)) abort();
    if (code && code != NN_E_CORRUPT && code != NN_E_STORE && code != NN_E_NOMEM) abort();
    char *line = api_record_describe(bytes, size);
    if (!line) abort();
    free(line);
}

static void use(struct fuzz_service *service) {
    const char *json = "application/json";
    if (fuzz_call(service, "GET", "/models", NULL, json, NULL, 0) != 200) abort();
    fuzz_call(service, "GET", "/models/m", NULL, json, NULL, 0);
    fuzz_call(service, "GET", "/models/m/parameters", NULL, json, NULL, 0);
    fuzz_call(service, "POST", "/backward", json, json, FUZZ_STEP, strlen(FUZZ_STEP));
    fuzz_call(service, "GET", "/models/m/optimizer", NULL, json, NULL, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const struct fuzz_store *history = fuzz_history();
    struct fuzz_bytes bytes = {data, data + size};
    struct fuzz_store store;
    struct fuzz_service service;
    struct nn_error err = {0};
    fuzz_store_init(&store);
    fuzz_service_start(&service, &store.store);
    api_recover_begin(service.api);
    uint64_t seq = 0;
    for (size_t n = fuzz_byte(&bytes, (unsigned)history->n + 1); seq < n; seq++)
        recover(service.api, seq + 1, history->records[seq].bytes, history->records[seq].size, true);
    for (int i = 0; i < RECORDS && bytes.p < bytes.end; i++) {
        unsigned which = fuzz_byte(&bytes, (unsigned)history->n + 4);
        const struct fuzz_record *good = which < history->n ? &history->records[which] : NULL;
        struct fuzz_headed record =
            good ? fuzz_spoilt(&bytes, good->bytes, good->size, spoil) : written_out(&bytes);
        recover(service.api, ++seq, record.bytes, record.size, false);
        free(record.bytes);
    }
    if (api_recover_end(service.api, size & 1, &err)) abort();
    use(&service);
    fuzz_service_stop(&service);
    fuzz_store_fini(&store);
    return 0;
}
