/* cost.c - bounds on the work of a request: rows, what a row costs, and how many numbers become text. */
#include "cost.h"

#include <string.h>

#include "model/model.h"

/* In floating-point operations, roughly: what a node adds to a pass, a name to an answer, a parameter to an
 * optimizer's step, and a number to a JSON text. */
enum { A_NODE = 20000, A_NAME = 40000, A_STEP = 16, A_NUMBER = 2500 };

#define UNKNOWN UINT64_MAX

/* Bytes of a body: in JSON, each is looked at more than once. */
enum { BRIEF_JSON = 4096, BRIEF_TENSORS = 65536 };

bool api_brief_to_read(const struct api_request *request) {
    return request->size <= (request->in == API_JSON ? BRIEF_JSON : BRIEF_TENSORS);
}

/* Dimensions are at most NN_MAX_ELEMENTS each, but their products may be anything: real numbers saturate. */
static uint64_t whole(double cost) { return cost < 1e18 ? (uint64_t)cost : UNKNOWN; }

static double text(const struct api_request *request, double numbers) {
    return request->out == API_JSON ? numbers * A_NUMBER : 0;
}

/* The most rows that any input has. */
static double rows_of(const struct api_document *doc) {
    int64_t rows = 0;
    for (size_t i = 0; i < doc->n_tensors; i++) {
        const struct nn_shape *shape = &doc->tensors[i].shape;
        if (strcmp(doc->tensors[i].member, "inputs") == 0 && shape->rank > 0 && shape->dim[0] > rows)
            rows = shape->dim[0];
    }
    return (double)rows;
}

/* The arithmetic, and all that the answer might show. A context's rows are not in the document. */
static uint64_t cost_of_pass(const struct api_request *request, const struct api_model_size *size,
                             int passes) {
    const json_t *members = request->doc.members;
    bool bare = json_object_get(members, "apply") && !json_object_get(members, "return");
    double rows = rows_of(&request->doc), numbers = passes > 1 ? size->numbers : 0;
    if (rows == 0) return UNKNOWN;
    return whole(passes * (rows * size->row_work + size->nodes * A_NODE) + numbers * A_STEP +
                 (bare ? 0 : text(request, rows * size->row_numbers + numbers)));
}

static uint64_t cost_of_forward(const struct api_request *request, const struct api_model_size *size) {
    return cost_of_pass(request, size, 1);
}

static uint64_t cost_of_backward(const struct api_request *request, const struct api_model_size *size) {
    return cost_of_pass(request, size, 3);
}

static uint64_t cost_of_description(const struct api_request *request, const struct api_model_size *size) {
    (void)request;
    return whole((size->nodes + size->params) * A_NAME);
}

/* In another type than the model's own, the answer is a copy. */
static uint64_t cost_of_pull(const struct api_request *request, const struct api_model_size *size) {
    if (request->query) return UNKNOWN;
    return whole(size->params * A_NAME + text(request, size->numbers));
}

static uint64_t cost_of_push(const struct api_request *request, const struct api_model_size *size) {
    (void)request;
    return whole(size->params * A_NAME + size->numbers * A_STEP);
}

static const struct row {
    int (*handler)(struct api_request *request);
    bool by_member; /* the model is named in the document, not in the path */
    uint64_t (*cost)(const struct api_request *request, const struct api_model_size *size);
} rows[] = {
    {api_post_forward, true, cost_of_forward},   {api_post_backward, true, cost_of_backward},
    {api_get_model, false, cost_of_description}, {api_get_parameters, false, cost_of_pull},
    {api_put_parameters, false, cost_of_push},   {api_post_gradients, false, cost_of_push},
};

uint64_t api_cost(const struct api_request *request) {
    struct api_model_size size;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (request->route->handler != rows[i].handler) continue;
        const char *name = rows[i].by_member
                               ? json_string_value(json_object_get(request->doc.members, "model"))
                               : request->name;
        bool known = name && api_model_size(request->api, name, &size);
        return known ? rows[i].cost(request, &size) : UNKNOWN;
    }
    return UNKNOWN;
}
