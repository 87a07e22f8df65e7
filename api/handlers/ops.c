/* ops.c - GET /ops. */
#include "../change/condition.h"
#include "../request/request.h"
#include "catalogue.h"

int api_get_ops(struct api_request *request) {
    json_t *catalogue = api_catalogue_json();
    if (!catalogue) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    request->answer.members = catalogue;
    return api_check_conditions(request, NULL, 0);
}
