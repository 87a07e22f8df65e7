/* metrics.c - GET /metrics. */
#include "../request/metrics.h"

int api_get_metrics(struct api_request *request) {
    /* The page is of all models, whose names the token's prefix may not be of. */
    if (api_query_check(request, "") || api_token_sees_all(request)) return (int)request->err.code;
    request->answer.page = api_metrics_page(request->api);
    request->answer.page_type = API_METRICS_TYPE;
    return request->answer.page ? NN_OK : nn_fail(&request->err, NN_E_NOMEM, "memory is out");
}
