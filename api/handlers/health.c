/* health.c - /healthz and /readyz. */
#include "../request/service.h"

#include "../request/request.h"

int api_get_healthz(struct api_request *request) {
    const char *version = request->api->settings.version;
    if (api_add(request, "status", json_string("ok"))) return (int)request->err.code;
    return version ? api_add(request, "version", json_string(version)) : NN_OK;
}

int api_get_readyz(struct api_request *request) {
    if (atomic_load(&request->api->draining))
        return nn_fail(&request->err, NN_E_BUSY, "the service is stopping");
    if (atomic_load(&request->api->starting))
        return nn_fail(&request->err, NN_E_RECOVERING, "models are being read from the disk");
    return api_add(request, "status", json_string("ready"));
}
