/* step.c - POST /step: the accumulated gradient, applied by the model's optimizer. */
#include "../change/turns.h"
#include "../change/update.h"
#include "../model/model.h"
#include "../model/registry.h"
#include "../model/work.h"

int api_post_step(struct api_request *request) {
    const char *name = api_asked_model(request);
    request->lr = request->ask.lr;
    if (!name) return api_ask_wrong(request, API_MEMBER_OF_model, "a model's name");
    if (api_model_find(request, name) || api_check_optimizer(request) ||
        api_work(request, api_work_of_change(request, 1, true)))
        return (int)request->err.code;
    if (api_add(request, "model", json_string(request->model->name)) ||
        api_add(request, "incarnation", json_string(request->model->incarnation)))
        return (int)request->err.code;
    return api_model_turn(request, api_turn_step);
}
