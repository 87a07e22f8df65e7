/* cost.h - what a request will cost, known from its document before it is worked on. */
#ifndef API_COST_H
#define API_COST_H

#include "request/request.h"

/* In floating-point operations, some 50 microseconds of them: below this, to hand a request to another thread
 * takes about as long as to serve it. */
#define API_BRIEF UINT64_C(5000000)

/* Whether the body is so small that it may be read at once, to learn what the request costs. */
bool api_brief_to_read(const struct api_request *request);

/* No less than the request takes, once its document has been read, as long as no output is more than a sum of
 * products over its operator's inputs. UINT64_MAX where that cannot be told. */
uint64_t api_cost(const struct api_request *request);

#endif
