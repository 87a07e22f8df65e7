/* client.h - counts the requests that each client has in flight, so that no client fills the queue alone. A client is
 * an address. A request is in flight from its admission until its answer is sent; or, if the answer shows no memory of
 * the request, until the answer is encoded. */
#ifndef API_CLIENT_H
#define API_CLIENT_H

#include "request.h"

struct api_client;

/* Counts a request of the client of that address, up to the limit client_requests. api_client_leave must be called when
 * the request ends. NN_E_TOO_MANY, NN_E_NOMEM. */
int api_client_enter(struct api_request *request, const char *name);
void api_client_leave(struct api_request *request);

#endif
