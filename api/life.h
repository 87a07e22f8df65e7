/* life.h - how a request is made. api_request_free of api.h is its one destructor. */
#ifndef API_LIFE_H
#define API_LIFE_H

#include "request/request.h"

/* A request that asks for nothing yet. When memory is out: NULL, or a request with NN_E_NOMEM in `err`. */
struct api_request *api_request_new(struct api *api);
/* A request of the service's own. `reply` (or NULL) is called at its end, without a response. NULL: memory is out. */
struct api_request *api_request_quiet(struct api *api, api_reply_fn *reply, void *context);

/* Carries out an admitted request: reads its document and calls its handler. */
void api_serve(struct api_request *request);

#endif
