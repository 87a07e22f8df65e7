/* token.c - see token.h.
 *
 * Tokens are kept and compared as SHA-256 hashes: a leaked token file reveals no token, and all comparisons have one
 * length. The hash is nettle's, which comes with libmicrohttpd through GnuTLS. A slow hash would
 * add nothing, because tokens are drawn at random and not chosen by people. */
#include "token.h"

#include <math.h>
#include <nettle/memops.h>
#include <nettle/sha2.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "request.h"

_Static_assert(API_TOKEN_NAME == API_MAX_MODEL_NAME, "a token's name is made as a model's is");

struct api_token {
    char name[API_MAX_MODEL_NAME + 1];
    char prefix[API_MAX_MODEL_NAME + 1]; /* the token sees models whose names begin so; "": all models */
    enum api_scope scope;
    double work; /* the greatest work of one of its requests; 0: no limit of its own */
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

/* --- a file of tokens ------------------------------------------------------------------------------ */

enum { NAME, SCOPE, HASH, PREFIX, WORK, WORDS };

/* Cuts a line into words, in place. # begins a comment. Returns the number of words; WORDS + 1: there are more than
 * WORDS. */
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

/* The value of a hexadecimal digit, or -1. */
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

/* True for the word "work=N" (N in floating-point operations). A prefix never contains "=". */
static bool is_work(const char *word) { return strncmp(word, "work=", 5) == 0; }

static bool read_work(const char *word, double *work) {
    char *end;
    if (strspn(word + 5, "0123456789.e+") != strlen(word + 5)) return false;
    *work = strtod(word + 5, &end);
    return end > word + 5 && !*end && isfinite(*work) && *work >= 1;
}

/* Adds the token of a line. Returns NULL, or the text of the fault, which does not quote the words: one of them may be
 * a token that somebody forgot to hash. */
static const char *add_words(struct api_tokens *tokens, int n, char *words[WORDS]) {
    struct api_token *added = &tokens->token[tokens->n];
    if (n == 1)
        return "a line is NAME SCOPE HASH, and perhaps PREFIX and work=N; one secret alone is for "
               "--secret-file";
    const bool bounded = n > PREFIX && n <= WORDS && is_work(words[n - 1]);
    if (bounded && !read_work(words[n - 1], &added->work))
        return "work= is a number of operations, such as 2e12";
    n -= bounded;
    if (n < PREFIX || n > WORK) return "a line is NAME SCOPE HASH, and perhaps PREFIX and work=N";
    if (!api_model_name_valid(words[NAME])) return "a token's name is made as a model's is";
    if (!read_scope(words[SCOPE], &added->scope)) return "a scope is read, train or admin";
    if (!read_hash(words[HASH], added->hash)) return "a hash is the token's SHA-256 in 64 hexadecimal digits";
    if (n == WORK && !api_model_name_valid(words[PREFIX]))
        return "a prefix is what a model's name may begin with";
    memcpy(added->name, words[NAME], strlen(words[NAME]) + 1);
    if (n == WORK) memcpy(added->prefix, words[PREFIX], strlen(words[PREFIX]) + 1);
    for (const struct api_token *other = tokens->token; other < added; other++) {
        if (strcmp(other->name, added->name) == 0) return "a token of this name is above";
        if (memcmp(other->hash, added->hash, sizeof added->hash) == 0)
            return "this token is above, with a name";
    }
    tokens->n++;
    return NULL;
}

static int read_lines(struct api_tokens *tokens, const char *file, char *text, struct nn_error *err) {
    int number = 1;
    for (char *line = text, *next; line; line = next, number++) {
        char *words[WORDS] = {0}, *end = strchr(line, '\n');
        next = end ? end + 1 : NULL;
        if (end) *end = '\0';
        int n = split(line, words);
        if (n == 0) continue;
        const char *fault = add_words(tokens, n, words);
        /* If a line lost its PREFIX or work=N, its token would be allowed more than the operator wrote. */
        if (!fault && !end) fault = "the line has no end: it may be cut off";
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

/* --- a file of one secret ----------------------------------------------------------------------------- */

/* The text of a secret's fault, or NULL. A client can send only visible ASCII without spaces in a header. The least
 * length also refuses most secrets that were cut off. */
static const char *fault_of(const char *secret) {
    for (const char *c = secret; *c; c++)
        if (*c <= ' ' || *c > '~') return "a secret is made of visible ASCII characters, without spaces";
    return strlen(secret) < API_LEAST_SECRET ? "a secret has 32 characters or more" : NULL;
}

struct api_tokens *api_tokens_read_secret(const char *file, char *text, size_t size, struct nn_error *err) {
    const char *fault = strlen(text) == size ? NULL : "it is no text";
    size_t length = strcspn(text, "\r\n");
    if (!fault && text[length + strspn(text + length, "\r\n")]) fault = "it holds more than one line";
    text[length] = '\0';
    if (!fault) fault = fault_of(text);
    if (!fault) return api_tokens_of(text, err);
    nn_fail(err, NN_E_VALUE, "%s: %s", file, fault);
    return NULL;
}

/* --- what a token allows --------------------------------------------------------------------------- */

const struct api_token *api_tokens_find(const struct api_tokens *tokens, const char *sent) {
    const struct api_token *found = NULL;
    uint8_t hash[SHA256_DIGEST_SIZE];
    hash_of(sent, hash);
    for (size_t i = 0; i < tokens->n; i++)
        if (memeql_sec(hash, tokens->token[i].hash, sizeof hash)) found = &tokens->token[i];
    return found;
}

enum { OWNER_BYTES = 16 }; /* of the hash: enough that no two secrets have the same owner */

void api_token_owner(const struct api_token *token, char owner[API_OWNER + 1]) {
    *owner = '\0';
    for (int i = 0; token && i < OWNER_BYTES; i++)
        snprintf(owner + 2 * (size_t)i, 3, "%02x", (unsigned)token->hash[i]);
}

void api_token_owner_by_name(const char *name, char owner[API_OWNER + 1]) {
    snprintf(owner, API_OWNER + 1, "%s%s", *name ? "@" : "", name);
}

bool api_token_is_owner(const char *text) {
    if (*text == '@') return api_model_name_valid(text + 1);
    return !*text || (strlen(text) == (size_t)2 * OWNER_BYTES &&
                      strspn(text, "0123456789abcdef") == (size_t)2 * OWNER_BYTES);
}

const char *api_token_name(const struct api_token *token) { return token ? token->name : ""; }

double api_token_work(const struct api_token *token) { return token ? token->work : 0; }

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
