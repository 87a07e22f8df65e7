/* A sequence of requests at one service: each is a letter for its encodings, a method and a path on one line,
 * and a body, up to a byte of 0x1e. What is answered is a success or a problem that is no 500, and in the end
 * nothing is held. */
#include <stdlib.h>
#include <string.h>

#include "../../api/api.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define END 0x1e

static const char model[] =
    "{\"name\": \"m\", \"seed\": 1, \"inputs\": {\"x\": {\"shape\": [2]}, \"i\": {\"shape\": [], \"dtype\": "
    "\"I64\"}},"
    " \"layers\": [{\"op\": \"linear\", \"out_features\": 2, \"inputs\": [\"x\"]}, {\"op\": \"relu\"},"
    " {\"op\": \"embedding\", \"num_embeddings\": 3, \"embedding_dim\": 2, \"inputs\": [\"i\"]},"
    " {\"op\": \"add\", \"inputs\": [\"1\", \"2\"]}], \"loss\": {\"op\": \"cross_entropy\"},"
    " \"optimizer\": {\"op\": \"adam\"}}";

static int64_t clock_ms;
static unsigned char drawn;

static int64_t now_ms(void *self) {
    (void)self;
    return clock_ms += 1000;
}

static bool entropy(void *self, void *buffer, size_t size) {
    (void)self;
    memset(buffer, drawn++ / 2 % 8, size); /* ids that an input can name, and that come again */
    return true;
}

static void ask(struct api *api, const char *method, const char *path, char encodings, const void *body,
                size_t size) {
    static const char *const types[] = {"application/json", "application/safetensors"};
    char plain[256];
    const char *query = strchr(path, '?');
    size_t length = query ? (size_t)(query - path) : strlen(path);
    if (length >= sizeof plain) return;
    memcpy(plain, path, length);
    plain[length] = '\0';
    struct api_head head = {.method = method,
                            .path = plain,
                            .query = query ? query + 1 : NULL,
                            .content_type = types[encodings & 1],
                            .accept = types[encodings >> 1 & 1],
                            .content_length = (int64_t)size};
    struct api_response *response = api_handle(api, &head, body, size);
    if (response && (response->status < 200 || response->status == 500)) abort();
    api_response_free(response);
}

/* One request; the rest of the bytes follow. */
static void ask_bytes(struct api *api, const uint8_t *data, size_t size) {
    char line[300];
    const uint8_t *end = memchr(data, '\n', size);
    size_t length = end ? (size_t)(end - data) : size;
    if (length < 2 || length >= sizeof line) return;
    memcpy(line, data, length);
    line[length] = '\0';
    char *path = strchr(line + 1, ' ');
    if (!path) return;
    *path++ = '\0';
    size_t used = end ? length + 1 : length;
    ask(api, line + 1, path, line[0], data + used, size - used);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct api_settings settings = {.limits = api_default_limits};
    struct api_env env = {.now_ms = now_ms, .entropy = entropy};
    struct nn_error err = {0};
    clock_ms = 0;
    drawn = 0;
    settings.limits.memory = (size_t)4 << 20;
    settings.limits.layers = 8;
    struct api *api = api_new(&settings, &env, &err);
    if (!api) return 0;
    ask(api, "POST", "/models", 0, model, sizeof model - 1);
    while (size) {
        const uint8_t *end = memchr(data, END, size);
        size_t part = end ? (size_t)(end - data) : size;
        ask_bytes(api, data, part);
        data += end ? part + 1 : part;
        size -= end ? part + 1 : part;
    }
    api_free(api); /* which asserts that nothing is held */
    return 0;
}
