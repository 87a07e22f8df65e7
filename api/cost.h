/* cost.h - forecasts what a request costs, before it is worked on. */
#ifndef API_COST_H
#define API_COST_H

#include "request/request.h"

/* About 50 microseconds of work, counted as struct nn_work counts. Handing a request to another thread takes about as
 * long. */
#define API_BRIEF UINT64_C(5000000)

/* True if the body is small enough to be read on an I/O thread. */
bool api_brief_to_read(const struct api_request *request);

/* An upper bound of the work, after the document was read. UINT64_MAX: unknown. */
uint64_t api_cost(const struct api_request *request);

#endif
