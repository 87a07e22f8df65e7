/* client.h - how many requests each client has in flight, so that none takes every place in the queue.
 * A client is an address; a request is in flight from its admission until its answer is sent, or, where the
 * answer shows nothing of it, encoded. */
#ifndef API_CLIENT_H
#define API_CLIENT_H

#include "request.h"

struct api_client;

/* Counts a request; api_client_leave is called when it ends. NN_E_TOO_MANY, NN_E_NOMEM. */
int api_client_enter(struct api_request *request, const char *name);
void api_client_leave(struct api_request *request);

#endif
