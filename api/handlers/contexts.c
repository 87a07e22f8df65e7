/* contexts.c - /contexts: list, describe and free the kept tapes. */
#include "../change/condition.h"
#include "../change/finish.h"
#include "../model/context.h"

int api_get_contexts(struct api_request *request) {
    json_t *list = json_array();
    if (api_contexts_list(request, list)) {
        json_decref(list);
        return (int)request->err.code;
    }
    return api_add(request, "contexts", list) ? (int)request->err.code
                                              : api_check_conditions(request, NULL, 0);
}

int api_get_context(struct api_request *request) {
    json_t *described = api_context_describe(request, request->name);
    if (!described) return (int)request->err.code;
    json_decref(request->answer.members);
    request->answer.members = described;
    return api_check_conditions(request, NULL, 0);
}

int api_delete_context(struct api_request *request) {
    if (api_context_find_model(request, request->name) || api_check_conditions(request, NULL, 0) ||
        api_add(request, "deleted", json_string(request->name)) || api_answer_ready(request))
        return (int)request->err.code;
    return api_context_delete(request, request->name);
}
