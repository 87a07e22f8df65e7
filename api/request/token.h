/* token.h - bearer tokens: what each may do, and to which models.
 *
 * A set of tokens is immutable and shared: by the service, until another takes its place, and by the requests
 * that were admitted with one of them. */
#ifndef API_TOKEN_H
#define API_TOKEN_H

#include "../api.h"

struct api_request;

/* Each includes those before it. A route of API_SCOPE_ANYONE asks for no token. */
enum api_scope { API_SCOPE_ANYONE, API_SCOPE_READ, API_SCOPE_TRAIN, API_SCOPE_ADMIN };
const char *api_scope_name(enum api_scope scope);

struct api_token;
struct api_tokens *api_tokens_ref(struct api_tokens *tokens);
/* Of one token, given as it is sent, with scope admin and for all models. */
struct api_tokens *api_tokens_of(const char *token, struct nn_error *err);

/* What was sent, NULL if it is none of them. The time that it takes depends on what was sent and on how many
 * tokens there are, not on how much of one is right. */
const struct api_token *api_tokens_find(const struct api_tokens *tokens, const char *sent);

/* For all of these, a NULL token may do anything, as where none is asked for. */
const char *api_token_name(const struct api_token *token); /* "" for NULL */
/* Whether the models of this name are the token's: for others, they are not there. */
bool api_token_sees(const struct api_token *token, const char *model);
/* NN_E_SCOPE, with the scope that is missing. */
int api_token_allows(struct api_request *request, enum api_scope scope);
/* NN_E_SCOPE: it has a prefix. */
int api_token_sees_all(struct api_request *request);
/* NN_E_SCOPE: a model of this name would not be the token's. */
int api_token_may_create(struct api_request *request, const char *model);

#endif
