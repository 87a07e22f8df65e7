/* health.c - GET /healthz and GET /readyz. */
#include "../change/condition.h"
#include "../request/request.h"
#include "../request/service.h"

int api_get_healthz(struct api_request *request) {
    const char *version = request->api->settings.version;
    if (api_add(request, "status", json_string("ok")) ||
        (version && api_add(request, "version", json_string(version))))
        return (int)request->err.code;
    return api_check_conditions(request, NULL, 0);
}

int api_get_readyz(struct api_request *request) {
    if (atomic_load(&request->api->draining))
        return nn_fail(&request->err, NN_E_BUSY, "the service is stopping");
    if (atomic_load(&request->api->starting))
        return nn_fail(&request->err, NN_E_RECOVERING, "models are being read from the disk");
    return api_add(request, "status", json_string("ready")) ? (int)request->err.code
                                                            : api_check_conditions(request, NULL, 0);
}
