/* step.c - POST /step: the accumulated gradient, applied by the model's optimizer. */
#include <math.h>

#include "../change/condition.h"
#include "../model/model.h"
#include "../change/update.h"

int api_post_step(struct api_request *request) {
    const char *name = NULL;
    request->lr = NAN;
    if (api_query_check(request, "") || api_get_string(request, "model", &name) ||
        api_get_bool(request, "mean", &request->mean) || api_get_real(request, "lr", &request->lr) ||
        api_check_lr(request, "lr") || api_read_staleness(request))
        return (int)request->err.code;
    if (!name) {
        nn_fail(&request->err, NN_E_VALUE, "\"model\" must name a model");
        return api_point(request, "model", NULL);
    }
    if (api_model_find(request, name) || api_check_optimizer(request)) return (int)request->err.code;
    if (api_add(request, "model", json_string(request->model->name)) ||
        api_add(request, "incarnation", json_string(request->model->incarnation)))
        return (int)request->err.code;
    return api_model_turn(request, api_turn_step);
}
