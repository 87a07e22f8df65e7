/* tokens.h - the file of bearer tokens, or of one secret. */
#ifndef SRV_TOKENS_H
#define SRV_TOKENS_H

#include <pthread.h>
#include <stdatomic.h>

#include "../api/api.h"

/* While the daemon runs, a thread of its own reads the file, however long that takes: the file may be on another
 * machine, which is gone. It must be a regular file. Begins as zeros but for `path` and `secret`, and stays in place
 * until the process ends, because a thread that waits for a disk cannot be ended. */
struct srv_token_file {
    const char *path; /* borrowed, for as long; NULL: no file */
    bool secret;      /* the file holds one token as it is sent, in place of lines */
    bool wanted;      /* read it again; set by the thread that calls srv_token_file_tick */
    bool reading;     /* a thread is reading, */
    pthread_t thread;
    struct api_tokens *tokens;
    struct nn_error err;
    atomic_bool read; /* and has finished. Apart from the members that only the caller's thread uses */
};

/* Has the API ask for the tokens of this file from now on. After an error nothing has changed. NN_E_NOT_FOUND: it
 * cannot be read. NN_E_VALUE, NN_E_NOMEM. */
int srv_tokens_load(struct api *api, const struct srv_token_file *file, struct nn_error *err);

/* The same while the daemon runs, once `wanted` is set. To be called about ten times a second: starts reading, and
 * later has the API ask for the tokens that were read. Logs the result. */
void srv_token_file_tick(struct srv_token_file *file, struct api *api);
/* Frees tokens that were read and not taken. */
void srv_token_file_end(struct srv_token_file *file);

#endif
