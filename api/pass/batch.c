/* batch.c - the memory of a batch. */
#include "batch.h"

#include <stdlib.h>
#include <string.h>

#include "../model/model.h"
#include "../request/service.h"
#include "pass.h"

int64_t api_batch_tile(const struct api *api, const struct nn_graph *graph) {
    return api->settings.tile[nn_graph_dtype(graph)];
}

static int64_t round_up(int64_t rows, int64_t tile) { return (rows + tile - 1) / tile * tile; }

void api_batch_unref(struct api_batch *batch) {
    if (!batch || atomic_fetch_sub(&batch->refs, 1) != 1) return;
    nn_run_free(batch->run);
    api_release(batch->api, batch->reserved);
    api_model_unref(batch->api, batch->model);
    free(batch);
}

/* Plans a run with room for the request's rows; with `company`, and enough memory, for a full batch. */
static struct nn_plan *plan_room(struct api_request *request, struct nn_run_options *options, bool company) {
    const struct api_limits *limits = &request->api->settings.limits;
    const struct nn_graph *graph = api_pass_graph(request);
    int64_t alone = round_up(options->rows, options->tile);
    int64_t room = round_up(limits->batch_max, options->tile);
    size_t held = api_memory_in_use(request->api),
           free_bytes = held < limits->memory ? limits->memory - held : 0;
    struct nn_error ignored = {0};
    if (company && room > alone) {
        options->rows = room;
        struct nn_plan *plan = nn_plan_forward(graph, options, &ignored);
        if (plan && nn_plan_bytes(plan) <= free_bytes / 2) return plan;
        nn_plan_free(plan);
    }
    options->rows = alone;
    return nn_plan_forward(graph, options, &request->err);
}

struct api_batch *api_batch_new(struct api_request *request, const struct nn_run_options *given,
                                const bool *wanted, bool company) {
    struct nn_run_options options = *given;
    options.tile = api_batch_tile(request->api, api_pass_graph(request));
    options.wanted = wanted;
    struct nn_plan *plan = plan_room(request, &options, company);
    if (!plan) {
        api_point(request, "inputs", NULL);
        return NULL;
    }
    size_t members = (size_t)options.rows * sizeof(struct api_request *);
    size_t bytes = nn_plan_bytes(plan) + members + api_pass_plan_bytes(api_pass_graph(request));
    struct api_batch *batch = NULL;
    if (api_reserve(request, bytes) == NN_OK && !(batch = calloc(1, sizeof *batch + members)))
        nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    if (!batch) {
        nn_plan_free(plan);
        return NULL;
    }
    *batch = (struct api_batch){.api = request->api, .model = request->model, .tile = options.tile};
    atomic_init(&batch->refs, 1);
    atomic_fetch_add(&batch->model->refs, 1);
    batch->room = options.rows;
    batch->reserved = bytes;
    api_reserve_move(request, bytes);
    if ((batch->run = nn_run_new_take(request->params, plan, &request->err))) return batch;
    api_batch_unref(batch);
    return NULL;
}

void api_batch_clear(struct api_batch *batch, int64_t first, int64_t end) {
    const struct nn_graph *graph = batch->model->graph;
    for (int i = 0; i < nn_graph_input_count(graph); i++) {
        struct nn_value_info input = nn_graph_value(graph, i);
        size_t row = (size_t)nn_shape_elements(&input.shape) * nn_dtype_size(input.dtype);
        if (nn_run_reads(batch->run, i))
            memset((char *)nn_run_input(batch->run, i) + (size_t)first * row, 0, (size_t)(end - first) * row);
    }
}

void api_batch_aim(struct api_batch *batch, struct nn_params *params) {
    int64_t padded = round_up(batch->rows, batch->tile);
    api_batch_clear(batch, batch->rows, padded);
    nn_run_aim(batch->run, params, padded);
}
