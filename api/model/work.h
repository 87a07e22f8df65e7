/* work.h - the arithmetic that a request takes, in floating-point operations as struct nn_work counts them. */
#ifndef API_WORK_H
#define API_WORK_H

#include "../request/request.h"

/* The number of rows of the request's largest input. */
double api_rows(const struct api_request *request);
/* Checks the work of a request before memory is reserved for it. NN_E_WORK: it is more than the limit of the service or
 * of the token. */
int api_work(struct api_request *request, double work);
/* The work per number of a gradient that changes a model: the number is computed, checked for being finite, and may be
 * added to others. */
#define API_NUMBERS_OF_GRADIENT 5

/* The work of changing request->model: `numbers` numbers read or written for each parameter's number, and with `step` a
 * step of the optimizer. */
double api_work_of_change(struct api_request *request, int numbers, bool step);
/* The work of writing so many bytes of the graph's type. */
double api_work_of_bytes(const struct nn_graph *graph, size_t bytes);

#endif
