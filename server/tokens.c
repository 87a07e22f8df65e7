/* tokens.c - see tokens.h. */
#include "tokens.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text_file.h"

static int load(struct api *api, const char *path, size_t *n, struct nn_error *err) {
    size_t size;
    char *text = srv_text_file(path, &size, err);
    if (!text) return (int)err->code;
    struct api_tokens *tokens = api_tokens_read(path, text, size, err);
    explicit_bzero(text, size); /* it may hold a token as it is sent */
    free(text);
    if (!tokens) return (int)err->code;
    *n = api_tokens_count(tokens);
    api_set_tokens_take(api, tokens);
    return NN_OK;
}

int srv_tokens_load(struct api *api, const char *path, struct nn_error *err) {
    size_t n;
    return load(api, path, &n, err);
}

void srv_tokens_reload(struct api *api, const char *path) {
    struct nn_error err = {0};
    size_t n = 0;
    if (load(api, path, &n, &err) == NN_OK)
        fprintf(stderr, "gradd: %s: %zu tokens read\n", path, n);
    else
        fprintf(stderr, "gradd: the tokens are what they were: %s\n", err.text);
}
