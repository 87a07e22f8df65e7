/* token.h - bearer tokens: what each token may do, and which models it sees.
 *
 * A set of tokens is immutable and shared: by the service, until another set replaces it, and by the requests that were
 * admitted under it. */
#ifndef API_TOKEN_H
#define API_TOKEN_H

#include "../api.h"
#include "../store.h"

struct api_request;

/* Each scope includes those before it. A route of API_SCOPE_ANYONE asks for no token. */
enum api_scope { API_SCOPE_ANYONE, API_SCOPE_READ, API_SCOPE_TRAIN, API_SCOPE_ADMIN };
const char *api_scope_name(enum api_scope scope);

struct api_token;
struct api_tokens *api_tokens_ref(struct api_tokens *tokens);
/* A set of one token with scope admin, for all models. `token` is the secret itself, not its hash. NULL: NN_E_NOMEM. */
struct api_tokens *api_tokens_of(const char *token, struct nn_error *err);

/* The token that a client sent, or NULL if it is not in the set. The time depends on the length of `sent` and on the
 * number of tokens, not on how much of `sent` agrees with a token. */
const struct api_token *api_tokens_find(const struct api_tokens *tokens, const char *sent);

/* The owner of Idempotency-Keys that a token sends. Keys belong to the token's secret, whatever its name; keys of
 * requests without a token belong to nobody. Up to API_OWNER characters:
 *
 *   ""      nobody
 *   DIGITS  the first 32 hexadecimal digits of the secret's SHA-256
 *   @NAME   the token of that name, because format 0 (see ../wire/record.h) stored only names */
#define API_OWNER (API_MAX_MODEL_NAME + 1)
void api_token_owner(const struct api_token *token, char owner[API_OWNER + 1]);
void api_token_owner_by_name(const char *name, char owner[API_OWNER + 1]);
bool api_token_is_owner(const char *text);

/* A NULL token, of a service that asks for none, may do everything. */
const char *api_token_name(const struct api_token *token); /* "" for NULL */
double api_token_work(const struct api_token *token);      /* like struct api_limits.work */
/* True if the token sees models of this name. To a token that does not see them, they do not exist. */
bool api_token_sees(const struct api_token *token, const char *model);
/* NN_E_SCOPE, with the missing scope in request->missing. */
int api_token_allows(struct api_request *request, enum api_scope scope);
/* NN_E_SCOPE: the token has a prefix. */
int api_token_sees_all(struct api_request *request);
/* NN_E_SCOPE: the token would not see a model of this name. */
int api_token_may_create(struct api_request *request, const char *model);

#endif
