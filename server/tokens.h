/* tokens.h - the file of bearer tokens. */
#ifndef SRV_TOKENS_H
#define SRV_TOKENS_H

#include "../api/api.h"

/* Has the API ask for the tokens of this file from now on. On an error nothing has changed. NN_E_NOT_FOUND:
 * it cannot be read; NN_E_VALUE, NN_E_NOMEM. */
int srv_tokens_load(struct api *api, const char *path, struct nn_error *err);

/* The same for a daemon that runs, with a line on standard error that says how it went. */
void srv_tokens_reload(struct api *api, const char *path);

#endif
