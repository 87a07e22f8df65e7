/* metrics.c - GET /metrics. */
#include "../request/metrics.h"
#include "../change/condition.h"

int api_get_metrics(struct api_request *request) {
    /* The page covers all models. A token with a prefix may not see them all. */
    if (api_token_sees_all(request)) return (int)request->err.code;
    request->answer.page = api_metrics_page(request->api);
    request->answer.page_type = API_METRICS_TYPE;
    if (!request->answer.page) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    return api_check_conditions(request, NULL, 0);
}
