/* A model's specification as text. A model that is made of it tells of a specification that makes the same model. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/service.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char as_json[] = "application/json";

/* What the last answer says of the model, but for what differs from one to the next. */
static json_t *description(const struct fuzz_service *service) {
    json_t *answer = json_loadb(service->body.data, service->body.size, 0, NULL);
    if (!answer || json_object_del(answer, "incarnation")) abort();
    return answer;
}

static void make_again(struct fuzz_service *service) {
    char path[128];
    json_t *first = description(service), *spec = json_object_get(first, "specification");
    char *text = json_dumps(spec, JSON_COMPACT);
    snprintf(path, sizeof path, "/models/%s", json_string_value(json_object_get(first, "name")));
    if (!text || fuzz_call(service, "DELETE", path, NULL, as_json, NULL, 0) != 200) abort();
    if (fuzz_call(service, "POST", "/models", as_json, as_json, text, strlen(text)) != 201) abort();
    json_t *second = description(service);
    if (!json_equal(first, second)) abort();
    free(text);
    json_decref(first);
    json_decref(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_service service;
    fuzz_service_start(&service, NULL);
    if (fuzz_call(&service, "POST", "/models", as_json, as_json, data, size) == 201) {
        make_again(&service);
        fuzz_call(&service, "PATCH", "/models/m", as_json, as_json, data, size);
    }
    fuzz_service_stop(&service);
    return 0;
}
