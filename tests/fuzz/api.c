/* Requests one after another at one service, as the bytes tell: built by the grammar, made of what the service
 * answered last, or written out: a letter for the encodings, method and path on one line, and a body up to a
 * byte of 0x1e. Time passes, rounds fill up, slow clients hold their answers, the store fills up or fails, and
 * checkpoints are taken. A service that starts from what was stored has each model of the journal as it is, to the
 * byte. In the end nothing is held. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/grammar.h"
#include "support/service.h"
#include "support/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define END      0x1e
#define REQUESTS 64 /* an input makes at most */

static const struct {
    const char *method, *path, *members;
} routes[] = {
#define API_ROUTE(method, path, handler, body, effect, scope, recorded, cost, query, requires, members,      \
                  summary)                                                                                   \
    {method, path, members},
#include "../../api/request/routes.def"
#undef API_ROUTE
};

/* /openapi.json, the last, is the same whatever was asked before. */
enum { ROUTES = sizeof routes / sizeof routes[0] - 1 };

static const char *const types[] = {"application/json", "application/safetensors"};

#define MODELS 3
static const char *const names[MODELS] = {"m", "n", "o.2"};

struct fuzz {
    struct fuzz_service service;
    struct fuzz_store store;
    bool lossy; /* changes were made that could not be written down */
    struct fuzz_bytes bytes;
    struct fuzz_model models[MODELS];
};

static unsigned take(struct fuzz *fuzz, unsigned n) { return fuzz_byte(&fuzz->bytes, n); }

/* A header that most requests lack. */
static const char *maybe(struct fuzz *fuzz, const char *const *values, unsigned n) {
    unsigned i = take(fuzz, 12 * n);
    return i >= 11 * n ? values[i - 11 * n] : NULL;
}

static void add_headers(struct fuzz *fuzz, struct api_head *head, bool safetensors) {
    const char *const clients[] = {"10.0.0.1", "::1"},
                      *const tags[] = {fuzz->service.etag, "*", "\"x\"", "W/"},
                      *const tokens[] = {"Bearer t", "Bearer r", "Bearer x", NULL},
                      *const keys[] = {"k1", "k2", "k3", "k4", "k5"},
                      *const queries[] = {"partial=true",
                                          "dtype=F16",
                                          "names=h.bias",
                                          "names=op.weight,h.bias",
                                          "dtype=F64&names=%68.bias",
                                          "x=%zz&&"};
    head->content_type = types[safetensors];
    head->accept = types[take(fuzz, 2)];
    unsigned token = take(fuzz, 24);
    head->authorization = token < 20 ? "Bearer a" : tokens[token - 20];
    head->client = maybe(fuzz, clients, 2);
    head->query = maybe(fuzz, queries, 6);
    head->idempotency_key = maybe(fuzz, keys, 5);
    head->if_match = maybe(fuzz, tags, 4);
    head->if_none_match = maybe(fuzz, tags, 4);
}

/* A request at one of the routes. With `body` NULL, the grammar's. */
static void ask_route(struct fuzz *fuzz, unsigned route, const struct api_text *body, bool safetensors) {
    char path[128], context[sizeof fuzz->service.context];
    unsigned model = take(fuzz, MODELS);
    struct api_text text = {0};
    const char *pattern = routes[route].path, *hole = strstr(pattern, "{}");
    memcpy(context, fuzz->service.context, sizeof context);
    if (hole)
        snprintf(path, sizeof path, "%.*s%s%s", (int)(hole - pattern), pattern,
                 strncmp(pattern, "/contexts", 9) == 0 ? context : names[model], hole + 2);
    else
        snprintf(path, sizeof path, "%s", pattern);
    struct api_head head = {.method = routes[route].method, .path = path};
    add_headers(fuzz, &head, safetensors);
    bool creates = strcmp(routes[route].method, "POST") == 0 && strcmp(pattern, "/models") == 0;
    if (!body && creates) {
        struct fuzz_model made;
        fuzz_specification(&fuzz->bytes, names[model], &made, &text);
        head.content_length = (int64_t)text.size;
        if (fuzz_ask(&fuzz->service, &head, text.data, text.size) == 201) fuzz->models[model] = made;
    } else {
        if (!body && *routes[route].members)
            fuzz_document(&fuzz->bytes, routes[route].members, names[model], context, &fuzz->models[model],
                          &text);
        const struct api_text *sent = body ? body : &text;
        head.content_length = take(fuzz, 8) == 7 ? -1 : (int64_t)sent->size;
        fuzz_ask(&fuzz->service, &head, sent->data, sent->size);
    }
    api_text_free(&text);
}

/* What the last success answered comes back: parameters that were pulled are pushed, and so on. */
static void ask_last(struct fuzz *fuzz) {
    struct api_text body = {0};
    unsigned route = take(fuzz, ROUTES), change = take(fuzz, 4);
    api_text_add(&body, fuzz->service.body.data, fuzz->service.body.size);
    if (change == 3 && body.size) body.data[take(fuzz, 256) * body.size / 256] = (char)take(fuzz, 256);
    ask_route(fuzz, route, &body, fuzz->service.safetensors);
    api_text_free(&body);
}

static void ask_text(struct fuzz *fuzz) {
    const uint8_t *begin = fuzz->bytes.p;
    size_t size = (size_t)(fuzz->bytes.end - begin), part;
    const uint8_t *end = size ? memchr(begin, END, size) : NULL;
    part = end ? (size_t)(end - begin) : size;
    fuzz->bytes.p += end ? part + 1 : part;

    char line[300];
    const uint8_t *newline = part ? memchr(begin, '\n', part) : NULL;
    size_t length = newline ? (size_t)(newline - begin) : part;
    if (length < 2 || length >= sizeof line) return;
    memcpy(line, begin, length);
    line[length] = '\0';
    char *path = strchr(line + 1, ' ');
    if (!path) return;
    *path++ = '\0';
    size_t used = newline ? length + 1 : length;
    fuzz_call(&fuzz->service, line + 1, path, types[line[0] & 1], types[line[0] >> 1 & 1], begin + used,
              part - used);
}

/* --- what is stored ------------------------------------------------------------------------------------ */

/* All that was appended is durable, and nothing waits for a thread. */
static void settle(struct fuzz *fuzz) {
    fuzz_service_work(&fuzz->service);
    fuzz_store_sync(&fuzz->store);
    fuzz_service_work(&fuzz->service);
}

static void compare_model(struct fuzz *fuzz, struct api *again, const char *name) {
    static const char journalled[] = "durability\\\":\\\"journal";
    enum nn_code code, other;
    size_t size, found_size;
    char *bytes = fuzz_snapshot(fuzz->service.api, name, &size, &code);
    char *found = fuzz_snapshot(again, name, &found_size, &other);
    if (code == NN_E_NOT_FOUND && found) abort();
    if (bytes && memmem(bytes, size, journalled, sizeof journalled - 1) &&
        (found ? size != found_size || memcmp(bytes, found, size) != 0 : other == NN_E_NOT_FOUND))
        abort();
    free(bytes);
    free(found);
}

/* Starts another service with what is stored. */
static void compare(struct fuzz *fuzz, bool snapshots) {
    struct fuzz_service again;
    struct fuzz_store empty;
    struct nn_error err = {0};
    settle(fuzz);
    if (fuzz->lossy) return;
    fuzz_store_init(&empty);
    fuzz_service_start(&again, &empty.store);
    again.now_ms = fuzz->service.now_ms;
    if (fuzz_store_recover(&fuzz->store, again.api, snapshots, &err)) abort();
    for (int i = 0; i < MODELS; i++) compare_model(fuzz, again.api, names[i]);
    fuzz_service_stop(&again);
    fuzz_store_fini(&empty);
}

static void meddle(struct fuzz *fuzz) {
    struct fuzz_store *store = &fuzz->store;
    switch (take(fuzz, 8)) {
    case 0:
        store->hold = !store->hold;
        break;
    case 1:
        store->full = !store->full;
        break;
    case 2:
        if (store->durable < store->n && take(fuzz, 4) == 3) fuzz->lossy = store->failed = true;
        break;
    case 3:
    case 4:
        settle(fuzz);
        if (!store->failed) fuzz_store_checkpoint(store, fuzz->service.api);
        break;
    case 5:
        fuzz_store_sync(store);
        break;
    default:
        compare(fuzz, take(fuzz, 2));
    }
}

static void set_tokens(struct fuzz *fuzz) {
    char text[] = "all admin ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb\n"
                  "trainer train e3b98a4da31a127d4bde6e43033f66ba274cab0eb7eb1c70ec41402bf6273dd8 m\n"
                  "reader read 454349e422f05297191ead13e21d3db520e5abef52055e4964b82fb213f593a1\n";
    struct nn_error err = {0};
    struct api_tokens *tokens = api_tokens_read("tokens", text, sizeof text - 1, &err);
    if (!tokens) abort();
    api_set_tokens_take(fuzz->service.api, tokens);
}

/* Everybody is answered, whatever they waited for. */
static void end(struct fuzz *fuzz) {
    const struct nn_error over = {.code = NN_E_STORE, .text = "there is no checkpoint"};
    const int64_t day = (int64_t)24 * 3600 * 1000;
    fuzz->service.busy = false;
    settle(fuzz);
    fuzz->store.hold = fuzz->store.full = fuzz->store.failed = false;
    compare(fuzz, true);
    api_set_tokens_take(fuzz->service.api, NULL);
    fuzz_service_pass(&fuzz->service, day);
    settle(fuzz);
    api_checkpoint_failed(fuzz->service.api, &over);
    fuzz_service_stop(&fuzz->service);
    fuzz_store_fini(&fuzz->store);
}

static void act(struct fuzz *fuzz) {
    switch (take(fuzz, 18)) {
    case 16:
    case 17:
        meddle(fuzz);
        break;
    case 0:
        ask_text(fuzz);
        break;
    case 1:
        fuzz_service_pass(&fuzz->service, (int64_t)1 << take(fuzz, 16));
        break;
    case 2:
        fuzz_service_drop(&fuzz->service);
        fuzz_service_work(&fuzz->service);
        fuzz->service.busy = take(fuzz, 2);
        break;
    case 3:
    case 4:
        ask_last(fuzz);
        break;
    default:
        ask_route(fuzz, take(fuzz, ROUTES), NULL, false);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz fuzz = {.bytes = {data, data + size}};
    fuzz_store_init(&fuzz.store);
    fuzz_service_start(&fuzz.service, &fuzz.store.store);
    if (fuzz_byte(&fuzz.bytes, 4) == 3) set_tokens(&fuzz);
    for (int i = 0; i < MODELS; i++) {
        struct api_text text = {0};
        fuzz_specification(&fuzz.bytes, names[i], &fuzz.models[i], &text);
        if (i < 2) fuzz_call(&fuzz.service, "POST", "/models", types[0], types[0], text.data, text.size);
        api_text_free(&text);
    }
    for (int i = 0; i < REQUESTS && fuzz.bytes.p < fuzz.bytes.end; i++) act(&fuzz);
    end(&fuzz);
    return 0;
}
