/* finish.h - the end of a request: its answer is encoded before its change, and sent or dropped after it. */
#ifndef API_FINISH_H
#define API_FINISH_H

#include "../request/request.h"

/* Frees what a change does not need while it waits for its turn or in a round: the body, the tape, the version that was
 * read. The gradient stays. For requests whose answer shows no tensors. */
void api_request_let_go(struct api_request *request);

/* Encodes the answer before the change, so that an error changes nothing. A later error drops the answer.
 * NN_E_NOMEM. */
int api_answer_ready(struct api_request *request);

/* Ends a request with `code`, once its change is as durable as it must be. Sends the answer, encoded now if it was not
 * before; or the problem document of request->err. On success, an exclusive claim uses its context up. */
void api_finish(struct api_request *request, int code);
/* The same, without waiting for durability. */
void api_finish_now(struct api_request *request, int code);

#endif
