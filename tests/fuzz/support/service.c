/* service.c - see service.h. */
#include "service.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../api/wire/safetensors.h"

#define DAYS ((int64_t)3 * 24 * 3600 * 1000) /* longer than anything waits */

static int64_t now_ms(void *self) { return ((struct fuzz_service *)self)->now_ms; }

static int64_t wall_ms(void *self) { return INT64_C(1700000000000) + now_ms(self); }

static bool entropy(void *self, void *buffer, size_t size) {
    struct fuzz_service *service = self;
    if (service->stored) {
        service->drawn++;
        memset(buffer, 0, size);
        memcpy(buffer, &service->drawn, size < sizeof service->drawn ? size : sizeof service->drawn);
        return true;
    }
    memset(buffer, (int)(service->drawn++ / 2 % 8),
           size); /* ids that an input can name, and that come again */
    return true;
}

static bool execute(void *self, void (*run)(void *arg), void *arg, uint64_t cost) {
    struct fuzz_service *service = self;
    (void)cost;
    if (service->n_jobs == FUZZ_JOBS) return false;
    service->jobs[service->n_jobs].run = run;
    service->jobs[service->n_jobs++].arg = arg;
    return true;
}

void fuzz_service_work(struct fuzz_service *service) {
    while (service->n_jobs) {
        service->n_jobs--; /* first, as it may leave another */
        service->jobs[service->n_jobs].run(service->jobs[service->n_jobs].arg);
    }
}

void fuzz_service_start(struct fuzz_service *service, const struct api_store *store) {
    static const struct api_limits limits = {.memory = (size_t)4 << 20,
                                             .body = (size_t)64 << 10,
                                             .models = 4,
                                             .contexts = 4,
                                             .context_ttl_ms = 10000,
                                             .layers = 8,
                                             .rank = NN_MAX_RANK,
                                             .name = 32,
                                             .tensors = 32,
                                             .json_depth = 16,
                                             .json_values = 500,
                                             .client_requests = 3,
                                             .keys = 4,
                                             .key_ttl_ms = 5000,
                                             .batch_max = 8};
    const struct api_settings settings = {.limits = limits, .version = "fuzz", .tile = {4, 4}};
    struct nn_error err = {0};
    *service = (struct fuzz_service){.stored = store != NULL};
    const struct api_env env = {.self = service,
                                .now_ms = now_ms,
                                .wall_ms = wall_ms,
                                .entropy = entropy,
                                .execute = execute,
                                .store = store};
    if (!(service->api = api_new(&settings, &env, &err))) abort();
}

/* --- what is true of any answer ---------------------------------------------------------------------- */

static const char *header_of(const struct api_response *response, const char *name) {
    for (int i = 0; i < response->n_headers; i++)
        if (strcmp(response->headers[i].name, name) == 0) return response->headers[i].value;
    return "";
}

static void check_headers(const struct api_response *response) {
    if (response->n_headers < 0 || response->n_headers > 8) abort();
    for (int i = 0; i < response->n_headers; i++) {
        const struct api_header *header = &response->headers[i];
        if (!memchr(header->name, 0, sizeof header->name) || !header->name[0]) abort();
        if (!memchr(header->value, 0, sizeof header->value)) abort();
        for (const char *c = header->value; *c; c++) /* else a name would end the header */
            if ((unsigned char)*c < ' ' || *c == 0x7f) abort();
    }
}

static json_t *check_json(const struct api_text *body) {
    json_error_t why;
    json_t *json = json_loadb(body->data, body->size, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(json)) abort();
    return json;
}

/* The document tells of an error in the table, and of the status that it came with; none is the service's own
 * fault, as nothing here fails. */
static void check_problem(const struct api_response *response, const struct api_text *body) {
    if (strcmp(header_of(response, "Content-Type"), "application/problem+json") != 0) abort();
    json_t *json = check_json(body);
    const char *type = json_string_value(json_object_get(json, "type"));
    const struct nn_code_info *info = NULL;
    size_t prefix = strlen(API_PROBLEM_TYPE);
    if (!type || strncmp(type, API_PROBLEM_TYPE, prefix) != 0) abort();
    for (int code = 1; code < NN_CODE_COUNT; code++)
        if (strcmp(nn_code_info((enum nn_code)code)->slug, type + prefix) == 0)
            info = nn_code_info((enum nn_code)code);
    if (!info || info->status != response->status || info->status == 500) abort();
    if (json_integer_value(json_object_get(json, "status")) != info->status) abort();
    if (!json_is_string(json_object_get(json, "title")) || !json_is_string(json_object_get(json, "detail")))
        abort();
    json_decref(json);
}

static void check_safetensors(const struct api_text *body) {
    struct nn_arena *arena = nn_arena_new();
    struct nn_error err = {0};
    struct api_safetensors file;
    if (!arena || api_safetensors_read(body->data, body->size, arena, &file, &err)) abort();
    api_safetensors_fini(&file);
    nn_arena_free(arena);
}

static void check_success(struct fuzz_service *service, const struct api_response *response,
                          const struct api_text *body) {
    const char *type = header_of(response, "Content-Type");
    service->safetensors = strcmp(type, "application/safetensors") == 0;
    if (service->safetensors) {
        check_safetensors(body);
        return;
    }
    if (strncmp(type, "text/plain", 10) == 0) { /* metrics: a page of lines */
        if (!body->size || body->data[body->size - 1] != '\n') abort();
        return;
    }
    if (strcmp(type, "application/json") != 0) abort();
    json_t *json = check_json(body);
    const char *context = json_string_value(json_object_get(json, "context"));
    if (context) snprintf(service->context, sizeof service->context, "%s", context);
    json_decref(json);
}

static void check(struct fuzz_service *service, const struct api_response *response) {
    struct api_text body = {0};
    check_headers(response);
    for (size_t i = 0; i < response->n_segments; i++)
        api_text_add(&body, response->segments[i].data, response->segments[i].size);
    if (body.failed || body.size != response->size) abort();
    if (*header_of(response, "ETag"))
        snprintf(service->etag, sizeof service->etag, "%s", header_of(response, "ETag"));
    if (response->status >= 400) {
        check_problem(response, &body);
        api_text_free(&body);
    } else if (response->status == 304) {
        if (body.size) abort();
        api_text_free(&body);
    } else if (response->status == 200 || response->status == 201) {
        check_success(service, response, &body);
        api_text_free(&service->body);
        service->body = body;
    } else {
        abort();
    }
}

/* --- requests ---------------------------------------------------------------------------------------- */

static int take(struct fuzz_service *service, struct api_response *response) {
    if (!response) abort();
    struct api_response **place = &service->held[service->n_held++ % FUZZ_HELD];
    int status = response->status;
    check(service, response);
    api_response_free(*place);
    *place = response;
    return status;
}

/* A request on its way: freed by whoever comes last, the asker or the answer. */
struct asked {
    struct fuzz_service *service;
    int status;
    bool left, answered;
};

static void answered(void *context, struct api_response *response) {
    struct asked *asked = context;
    if (asked->answered) abort();
    asked->answered = true;
    asked->status = take(asked->service, response);
    if (asked->left) free(asked);
}

int fuzz_ask(struct fuzz_service *service, const struct api_head *head, const void *body, size_t size) {
    struct api_admission admission = api_admit(service->api, head);
    if (!admission.request) return take(service, admission.refusal);
    if (!api_request_room(admission.request, size)) return take(service, api_refuse_take(admission.request));
    void *copy = size ? malloc(size) : NULL;
    struct asked *asked = calloc(1, sizeof *asked);
    if ((size && !copy) || !asked) abort();
    if (size) memcpy(copy, body, size);
    asked->service = service;
    api_submit_take(admission.request, copy, size, answered, asked);
    if (!service->busy) fuzz_service_work(service);
    int status = asked->status;
    asked->left = true;
    if (asked->answered) free(asked);
    return status;
}

int fuzz_call(struct fuzz_service *service, const char *method, const char *target, const char *type,
              const char *accept, const void *body, size_t size) {
    size_t length = strcspn(target, "?");
    char *path = strndup(target, length);
    if (!path) abort();
    const struct api_head head = {.method = method,
                                  .path = path,
                                  .query = target[length] ? target + length + 1 : NULL,
                                  .content_type = type,
                                  .accept = accept,
                                  .content_length = (int64_t)size};
    int status = fuzz_ask(service, &head, body, size);
    free(path);
    return status;
}

void fuzz_service_pass(struct fuzz_service *service, int64_t ms) {
    service->now_ms += ms;
    api_tick(service->api);
}

void fuzz_service_drop(struct fuzz_service *service) {
    for (int i = 0; i < FUZZ_HELD; i++) {
        api_response_free(service->held[i]);
        service->held[i] = NULL;
    }
}

/* --- the end ----------------------------------------------------------------------------------------- */

static void delete_models(struct fuzz_service *service) {
    json_t *list, *model;
    size_t i;
    if (fuzz_call(service, "GET", "/models", NULL, "application/json", NULL, 0) != 200) abort();
    json_t *answer = check_json(&service->body);
    list = json_object_get(answer, "models");
    json_array_foreach(list, i, model) {
        char path[128];
        snprintf(path, sizeof path, "/models/%s", json_string_value(json_object_get(model, "name")));
        if (fuzz_call(service, "DELETE", path, NULL, "application/json", NULL, 0) != 200) abort();
    }
    json_decref(answer);
}

void fuzz_service_stop(struct fuzz_service *service) {
    service->busy = false;
    fuzz_service_work(service);
    fuzz_service_pass(service, DAYS);
    if (api_in_flight(service->api)) abort();
    fuzz_service_drop(service);
    delete_models(service);
    fuzz_service_drop(service);
    fuzz_service_pass(service, DAYS); /* keys that rounds ended */
    if (api_memory_in_use(service->api)) abort();
    api_free(service->api);
    api_text_free(&service->body);
}
