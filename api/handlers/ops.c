/* ops.c - GET /ops. */
#include "catalogue.h"
#include "../request/request.h"

int api_get_ops(struct api_request *request) {
    json_t *catalogue = api_catalogue_json();
    if (api_query_check(request, "")) {
        json_decref(catalogue);
        return (int)request->err.code;
    }
    if (!catalogue) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    request->answer.members = catalogue;
    return NN_OK;
}
