/* takes.c - see takes.h. */
#include "takes.h"

#include <math.h>

#include "../model/model.h"

/* The error for a number that is not finite, or greater than the optimizer takes. */
static int refuse(struct api_request *request, int param, bool finite, const char *what) {
    const struct api_model *model = request->model;
    const char *name = nn_graph_param(model->graph, param)->name;
    if (nn_graph_param(model->graph, param)->kind == NN_BUFFER)
        return nn_fail(&request->err, NN_E_NOT_FINITE,
                       "the statistics of \"%s\" are not finite; the model is unchanged", name);
    if (!finite)
        return nn_fail(&request->err, NN_E_NOT_FINITE, "%s \"%s\" is not finite; the model is unchanged",
                       what, name);
    return nn_fail(&request->err, NN_E_NOT_FINITE,
                   "%s \"%s\" is beyond %.3g, the most that %s takes in %s; the model is unchanged", what,
                   name, nn_optimizer_limit(model->optimizer),
                   nn_optimizer_definition(model->optimizer)->name,
                   nn_dtype_name(nn_graph_dtype(model->graph)));
}

static int check(struct api_request *request, const struct nn_grads *grads, double scale,
                 const struct nn_grads *sum, const char *what) {
    const struct api_model *model = request->model;
    const struct nn_parallel *par = api_parallel(request->api);
    if (api_takes_any(request)) return NN_OK;
    double limit = model->optimizer ? nn_optimizer_limit(model->optimizer) : (double)INFINITY;
    int beyond = nn_grads_first_beyond(grads, scale, sum, limit, par);
    if (beyond < 0) return NN_OK;
    int infinite = nn_grads_first_beyond(grads, scale, sum, (double)INFINITY, par);
    return infinite < 0 ? refuse(request, beyond, true, what) : refuse(request, infinite, false, what);
}

bool api_takes_any(const struct api_request *request) {
    return request->replay && request->replay->format == 0;
}

int api_check_takes(struct api_request *request, const struct nn_grads *grads, double scale) {
    return check(request, grads, scale, NULL,
                 scale == 1 ? "the gradient of" : "the gradient, times its scale, of");
}

int api_check_takes_sum(struct api_request *request) {
    return check(request, request->grads, request->scale, request->model->sum,
                 "the accumulated sum, with this gradient, of");
}
