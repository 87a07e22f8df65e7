/* tokens.c - see tokens.h. */
#include "tokens.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/text_file.h"

static struct api_tokens *read_file(const struct srv_token_file *file, bool regular, struct nn_error *err) {
    size_t size;
    char *text = srv_text_file(file->path, regular, &size, err);
    if (!text) return NULL;
    struct api_tokens *tokens = file->secret ? api_tokens_read_secret(file->path, text, size, err)
                                             : api_tokens_read(file->path, text, size, err);
    explicit_bzero(text, size); /* it may hold a token */
    free(text);
    return tokens;
}

int srv_tokens_load(struct api *api, const struct srv_token_file *file, struct nn_error *err) {
    struct api_tokens *tokens = read_file(file, false, err);
    if (tokens) api_set_tokens_take(api, tokens);
    return (int)err->code;
}

/* --- again -------------------------------------------------------------------------------------------------- */

static void *read_again(void *self) {
    struct srv_token_file *file = self;
    pthread_setname_np(pthread_self(), "gradd-tokens");
    file->tokens = read_file(file, true, &file->err);
    atomic_store(&file->read, true);
    return NULL;
}

static void begin(struct srv_token_file *file) {
    file->wanted = false;
    if (!file->path) return;
    file->err = (struct nn_error){0};
    atomic_store(&file->read, false);
    file->reading = pthread_create(&file->thread, NULL, read_again, file) == 0;
    if (!file->reading) srv_log_say("the tokens are what they were: there is no thread to read them");
}

static void take(struct srv_token_file *file, struct api *api) {
    if (file->tokens) {
        srv_log_say("%s: %zu tokens read", file->path, api_tokens_count(file->tokens));
        api_set_tokens_take(api, file->tokens);
        file->tokens = NULL;
    } else {
        srv_log_say("the tokens are what they were: %s", file->err.text);
    }
}

static bool is_over(struct srv_token_file *file) {
    if (!file->reading || !atomic_load(&file->read)) return false;
    pthread_join(file->thread, NULL);
    file->reading = false;
    return true;
}

void srv_token_file_tick(struct srv_token_file *file, struct api *api) {
    if (is_over(file)) take(file, api);
    if (file->wanted && !file->reading) begin(file);
}

void srv_token_file_end(struct srv_token_file *file) {
    if (!is_over(file)) return;
    api_tokens_unref(file->tokens);
    file->tokens = NULL;
}
