/* work.c - see work.h. */
#include "work.h"

#include <string.h>

#include "../request/service.h"
#include "registry.h"

double api_rows(const struct api_request *request) {
    const struct api_document *doc = &request->doc;
    int64_t rows = 0;
    for (size_t i = 0; i < doc->n_tensors; i++) {
        const struct nn_shape *shape = &doc->tensors[i].shape;
        if (strcmp(doc->tensors[i].member, "inputs") == 0 && shape->rank > 0 && shape->dim[0] > rows)
            rows = shape->dim[0];
    }
    return (double)rows;
}

int api_work(struct api_request *request, double work) {
    const double service = request->api->settings.limits.work, token = api_token_work(request->token);
    const bool is_tokens = token > 0 && (service == 0 || token < service);
    const double limit = is_tokens ? token : service;
    if (limit == 0 || work <= limit) return NN_OK;
    request->work = work;
    request->work_limit = limit;
    return nn_fail(&request->err, NN_E_WORK,
                   "this takes some %.3g floating-point operations, and %s may take %.3g", work,
                   is_tokens ? "a request of this token" : "a request", limit);
}

double api_work_of_change(struct api_request *request, int numbers, bool step) {
    struct api_model_size size = api_model_measured(request);
    return numbers * NN_WORK_NUMBER * size.numbers + (step ? size.step : 0);
}

double api_work_of_bytes(const struct nn_graph *graph, size_t bytes) {
    return NN_WORK_NUMBER * (double)bytes / (double)nn_dtype_size(nn_graph_dtype(graph));
}
