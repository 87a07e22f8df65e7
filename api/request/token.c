/* token.c - see token.h.
 *
 * Tokens are kept and compared as their SHA-256: so a file of them gives none away, and the comparison is of
 * one length always. It is nettle's, which libmicrohttpd brings along through GnuTLS. A hash that is made to be
 * slow would add nothing: tokens are drawn at random, not thought up by people. */
#include "token.h"

#include <nettle/memops.h>
#include <nettle/sha2.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "../model/model.h"
#include "request.h"

struct api_token {
    char name[API_MAX_MODEL_NAME + 1];
    char prefix[API_MAX_MODEL_NAME + 1]; /* of the models that it is for; "": all */
    enum api_scope scope;
    uint8_t hash[SHA256_DIGEST_SIZE];
};

struct api_tokens {
    atomic_int refs;
    size_t n;
    struct api_token token[];
};

static const char *const scope_names[] = {[API_SCOPE_ANYONE] = "",
                                          [API_SCOPE_READ] = "read",
                                          [API_SCOPE_TRAIN] = "train",
                                          [API_SCOPE_ADMIN] = "admin"};

const char *api_scope_name(enum api_scope scope) { return scope_names[scope]; }

static void hash_of(const char *token, uint8_t hash[SHA256_DIGEST_SIZE]) {
    struct sha256_ctx sha;
    sha256_init(&sha);
    sha256_update(&sha, strlen(token), (const uint8_t *)token);
    sha256_digest(&sha, SHA256_DIGEST_SIZE, hash);
}

/* --- sets ------------------------------------------------------------------------------------------ */

static struct api_tokens *tokens_new(size_t room, struct nn_error *err) {
    struct api_tokens *tokens = calloc(1, sizeof *tokens + room * sizeof tokens->token[0]);
    if (tokens)
        atomic_init(&tokens->refs, 1);
    else
        nn_fail(err, NN_E_NOMEM, "memory is out");
    return tokens;
}

struct api_tokens *api_tokens_ref(struct api_tokens *tokens) {
    if (tokens) atomic_fetch_add(&tokens->refs, 1);
    return tokens;
}

void api_tokens_unref(struct api_tokens *tokens) {
    if (tokens && atomic_fetch_sub(&tokens->refs, 1) == 1) free(tokens);
}

size_t api_tokens_count(const struct api_tokens *tokens) { return tokens->n; }

static void add_plain(struct api_tokens *tokens, const char *token) {
    struct api_token *added = &tokens->token[tokens->n++];
    memcpy(added->name, "token", sizeof "token");
    added->scope = API_SCOPE_ADMIN;
    hash_of(token, added->hash);
}

struct api_tokens *api_tokens_of(const char *token, struct nn_error *err) {
    struct api_tokens *tokens = tokens_new(1, err);
    if (tokens) add_plain(tokens, token);
    return tokens;
}

/* --- a file of them -------------------------------------------------------------------------------- */

enum { NAME, SCOPE, HASH, PREFIX, WORDS };

/* Cuts a line into its words, in place; # begins a comment. How many, WORDS + 1 if too many. */
static int split(char *line, char *words[WORDS]) {
    int n = 0;
    for (;;) {
        line += strspn(line, " \t\r\n");
        if (!*line || *line == '#') return n;
        if (n == WORDS) return n + 1;
        words[n++] = line;
        line += strcspn(line, " \t\r\n");
        if (*line) *line++ = '\0';
    }
}

/* The value of a hexadecimal digit, -1 if it is none. */
static int hex_digit(char c) {
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) % 16 : -1;
}

static bool read_hash(const char *text, uint8_t hash[SHA256_DIGEST_SIZE]) {
    if (strlen(text) != (size_t)2 * SHA256_DIGEST_SIZE) return false;
    for (size_t i = 0; i < SHA256_DIGEST_SIZE; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        hash[i] = (uint8_t)(high * 16 + low);
    }
    return true;
}

static bool read_scope(const char *text, enum api_scope *scope) {
    for (int i = API_SCOPE_READ; i <= API_SCOPE_ADMIN; i++)
        if (strcmp(text, scope_names[i]) == 0) {
            *scope = (enum api_scope)i;
            return true;
        }
    return false;
}

/* What is wrong with a token's words; NULL: nothing, and it was added. The words themselves are not told, for
 * one of them may be a token that was to be hashed. */
static const char *add_words(struct api_tokens *tokens, int n, char *words[WORDS]) {
    struct api_token *added = &tokens->token[tokens->n];
    if (n < PREFIX || n > WORDS) return "a line is NAME SCOPE HASH, and perhaps PREFIX";
    if (!api_model_name_valid(words[NAME])) return "a token's name is made as a model's is";
    if (!read_scope(words[SCOPE], &added->scope)) return "a scope is read, train or admin";
    if (!read_hash(words[HASH], added->hash)) return "a hash is the token's SHA-256 in 64 hexadecimal digits";
    if (n == WORDS && !api_model_name_valid(words[PREFIX]))
        return "a prefix is what a model's name may begin with";
    memcpy(added->name, words[NAME], strlen(words[NAME]) + 1);
    if (n == WORDS) memcpy(added->prefix, words[PREFIX], strlen(words[PREFIX]) + 1);
    for (const struct api_token *other = tokens->token; other < added; other++) {
        if (strcmp(other->name, added->name) == 0) return "a token of this name is above";
        if (memcmp(other->hash, added->hash, sizeof added->hash) == 0)
            return "this token is above, with a name";
    }
    tokens->n++;
    return NULL;
}

/* A header carries visible ASCII without spaces; any other token could never be presented. */
static const char *add_bare(struct api_tokens *tokens, const char *word) {
    for (const char *c = word; *c; c++)
        if (*c <= ' ' || *c > '~') return "a token is made of visible ASCII characters, without spaces";
    add_plain(tokens, word);
    return NULL;
}

/* A line of one word is a token as it is sent, and has to be the only one. */
static int read_lines(struct api_tokens *tokens, const char *file, char *text, struct nn_error *err) {
    bool bare = false;
    int number = 1;
    for (char *line = text, *next; line; line = next, number++) {
        char *words[WORDS] = {0}, *end = strchr(line, '\n');
        const char *fault = NULL;
        next = end ? end + 1 : NULL;
        if (end) *end = '\0';
        int n = split(line, words);
        if (n == 0) continue;
        if (bare)
            fault = "behind a token as it is sent there may be no other";
        else if (n == 1 && tokens->n == 0 && (bare = true))
            fault = add_bare(tokens, words[0]);
        else
            fault = add_words(tokens, n, words);
        /* Cut off behind the hash, or within a prefix, it would be a token for more models. */
        if (!fault && !bare && !end) fault = "the line has no end: it may be cut off";
        if (fault) return nn_fail(err, NN_E_VALUE, "%s:%d: %s", file, number, fault);
    }
    return tokens->n ? NN_OK : nn_fail(err, NN_E_VALUE, "%s: there is no token in it", file);
}

static size_t count_lines(const char *text) {
    size_t n = 1;
    while ((text = strchr(text, '\n'))) n++, text++;
    return n;
}

struct api_tokens *api_tokens_read(const char *file, char *text, size_t size, struct nn_error *err) {
    if (strlen(text) != size) {
        nn_fail(err, NN_E_VALUE, "%s: it is no text", file);
        return NULL;
    }
    struct api_tokens *tokens = tokens_new(count_lines(text), err);
    if (tokens && read_lines(tokens, file, text, err) == NN_OK) return tokens;
    api_tokens_unref(tokens);
    return NULL;
}

/* --- what they allow ------------------------------------------------------------------------------- */

const struct api_token *api_tokens_find(const struct api_tokens *tokens, const char *sent) {
    const struct api_token *found = NULL;
    uint8_t hash[SHA256_DIGEST_SIZE];
    hash_of(sent, hash);
    for (size_t i = 0; i < tokens->n; i++)
        if (memeql_sec(hash, tokens->token[i].hash, sizeof hash)) found = &tokens->token[i];
    return found;
}

const char *api_token_name(const struct api_token *token) { return token ? token->name : ""; }

bool api_token_sees(const struct api_token *token, const char *model) {
    return !token || strncmp(model, token->prefix, strlen(token->prefix)) == 0;
}

int api_token_allows(struct api_request *request, enum api_scope scope) {
    const struct api_token *token = request->token;
    if (!token || token->scope >= scope) return NN_OK;
    request->missing = scope;
    return nn_fail(&request->err, NN_E_SCOPE, "this takes the scope \"%s\"; the token's is \"%s\"",
                   scope_names[scope], scope_names[token->scope]);
}

int api_token_sees_all(struct api_request *request) {
    if (!request->token || !*request->token->prefix) return NN_OK;
    return nn_fail(&request->err, NN_E_SCOPE, "the token is for models whose names begin with \"%s\" alone",
                   request->token->prefix);
}

int api_token_may_create(struct api_request *request, const char *model) {
    if (api_token_sees(request->token, model)) return NN_OK;
    return nn_fail(&request->err, NN_E_SCOPE, "the token is for models whose names begin with \"%s\"",
                   request->token->prefix);
}
