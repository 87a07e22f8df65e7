/* cost.c - forecasts the cost of a request from its rows, the work of a row, and the numbers that become text. */
#include "cost.h"

#include <string.h>

#include "model/registry.h"
#include "model/work.h"
#include "request/service.h"

/* Rough costs, counted as struct nn_work counts: of a node in a pass, of a name in an answer, of a number in a JSON
 * text. */
enum { A_NODE = 20000, A_NAME = 40000, A_NUMBER = 2500 };

#define UNKNOWN UINT64_MAX

/* Bytes of a body that may be read at once. JSON is looked at more than once. */
enum { BRIEF_JSON = 4096, BRIEF_TENSORS = 65536 };

bool api_brief_to_read(const struct api_request *request) {
    return request->size <= (request->in == API_JSON ? BRIEF_JSON : BRIEF_TENSORS);
}

/* Each dimension is at most NN_MAX_ELEMENTS, but a product of them may be any number: doubles do not overflow. */
static uint64_t whole(double cost) { return cost < 1e18 ? (uint64_t)cost : UNKNOWN; }

static double text(const struct api_request *request, double numbers) {
    return request->out == API_JSON ? numbers * A_NUMBER : 0;
}

/* The arithmetic, and the whole answer. The document of a context has no rows. */
static uint64_t cost_of_pass(const struct api_request *request, const struct api_model_size *size,
                             double pass, double change, double numbers) {
    if (api_rows(request) == 0) return UNKNOWN;
    return whole(pass + size->values * A_NODE + change + text(request, numbers));
}

static uint64_t cost_of_forward(const struct api_request *request, const struct api_model_size *size) {
    const double rows = api_rows(request);
    return cost_of_pass(request, size, nn_cost_of(size->work.forward, rows), 0,
                        nn_cost_of(size->numbers_of_values, rows));
}

/* Besides the passes, the gradient is read and written; where it is applied, there is a step. */
static uint64_t cost_of_backward(const struct api_request *request, const struct api_model_size *size) {
    bool apply = request->ask.apply.on;
    bool bare = apply && !api_is_given(request, API_MEMBER_OF_return);
    const double rows = api_rows(request);
    const double pass = nn_cost_of(size->work.forward, rows) + nn_cost_of(size->work.backward, rows);
    const double step = apply ? size->step : 2 * NN_WORK_NUMBER * size->numbers;
    return cost_of_pass(request, size, pass, 2 * A_NODE * size->values + step,
                        bare ? 0 : nn_cost_of(size->numbers_of_values, rows) + size->numbers);
}

static uint64_t cost_of_description(const struct api_request *request, const struct api_model_size *size) {
    (void)request;
    return whole((size->values + size->params) * A_NAME);
}

/* An answer in another type than the model's is a copy. */
static uint64_t cost_of_pull(const struct api_request *request, const struct api_model_size *size) {
    if (request->query) return UNKNOWN;
    return whole(size->params * A_NAME + text(request, size->numbers));
}

/* Parameters that are set, or gradients that are accumulated, are read and written at most twice. */
static uint64_t cost_of_push(const struct api_request *request, const struct api_model_size *size) {
    const double moved = 4 * NN_WORK_NUMBER * size->numbers;
    (void)request;
    return whole(size->params * A_NAME + (size->step > moved ? size->step : moved));
}

static uint64_t (*const rules[API_FORECASTS])(const struct api_request *request,
                                              const struct api_model_size *size) = {
    [API_COST_FORWARD] = cost_of_forward,
    [API_COST_BACKWARD] = cost_of_backward,
    [API_COST_DESCRIPTION] = cost_of_description,
    [API_COST_PULL] = cost_of_pull,
    [API_COST_PUSH] = cost_of_push,
};

uint64_t api_cost(const struct api_request *request) {
    struct api_model_size size;
    const bool by_path = strchr(request->route->path, '{');
    const char *name = by_path ? request->name : api_asked_model(request);
    if (request->route->cost == API_COST_UNKNOWN || !name || !api_model_size(request->api, name, &size))
        return UNKNOWN;
    return rules[request->route->cost](request, &size);
}
