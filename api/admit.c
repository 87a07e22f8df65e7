/* admit.c - what a request's head decides: token, route, encodings, length, memory. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "change/condition.h"
#include "life.h"
#include "request/client.h"
#include "request/metrics.h"
#include "request/negotiate.h"
#include "request/request.h"
#include "request/service.h"
#include "request/token.h"

/* --- route ----------------------------------------------------------------------------------------- */

/* Matches a path with a pattern. {} matches one non-empty segment, which is copied to `name`; it must fit `room`. */
static bool path_fits(const char *pattern, const char *path, char *name, size_t room) {
    while (*pattern && *path) {
        if (pattern[0] == '{') {
            size_t size = strcspn(path, "/");
            if (size == 0 || size >= room) return false;
            memcpy(name, path, size);
            name[size] = '\0';
            path += size;
            pattern += 2;
        } else if (*pattern++ != *path++) {
            return false;
        }
    }
    return !*pattern && !*path;
}

static int find_route(struct api_request *request, const struct api_head *head) {
    size_t used = 0;
    for (int i = 0; i < API_ROUTES; i++) {
        if (!path_fits(api_routes[i].path, head->path, request->name, sizeof request->name)) continue;
        if (strcmp(api_routes[i].method, head->method) == 0) {
            request->route = &api_routes[i];
            return NN_OK;
        }
        bool reads = strcmp(api_routes[i].method, "GET") == 0;
        int n = snprintf(request->allow + used, sizeof request->allow - used, "%s%s%s", used ? ", " : "",
                         api_routes[i].method, reads ? ", HEAD" : "");
        if (n > 0 && used + (size_t)n < sizeof request->allow) used += (size_t)n;
    }
    if (used) return nn_fail(&request->err, NN_E_METHOD, "this path takes %s", request->allow);
    return nn_fail(&request->err, NN_E_NOT_FOUND, "there is nothing at %.200s", head->path);
}

/* --- token ----------------------------------------------------------------------------------------- */

/* Keeps the set of tokens for the request's life: handlers ask it again. */
static void hold_tokens(struct api_request *request) {
    struct api *api = request->api;
    pthread_mutex_lock(&api->lock);
    request->tokens = api_tokens_ref(api->tokens);
    pthread_mutex_unlock(&api->lock);
}

static int check_token(struct api_request *request, const struct api_head *head) {
    const char *sent = head->authorization;
    hold_tokens(request);
    if (!request->tokens || (request->route && request->route->scope == API_SCOPE_ANYONE)) return NN_OK;
    if (sent && strncasecmp(sent, "Bearer ", 7) == 0)
        request->token = api_tokens_find(request->tokens, sent + 7 + strspn(sent + 7, " "));
    if (request->token) return NN_OK;
    return nn_fail(&request->err, NN_E_UNAUTHORIZED, "send \"Authorization: Bearer TOKEN\"%s",
                   sent ? " with the right token" : "");
}

/* --- encodings ------------------------------------------------------------------------------------- */

static int check_coding(struct api_request *request, const struct api_head *head) {
    if (api_coding_is_identity(head->content_encoding)) return NN_OK;
    return nn_fail(&request->err, NN_E_CODING, "a body comes as it is, and not as %.100s",
                   head->content_encoding);
}

static int choose_encodings(struct api_request *request, const struct api_head *head) {
    request->in = request->out = API_JSON;
    if (check_coding(request, head)) return (int)request->err.code;
    if (request->route->body == API_PLAIN_TEXT) return NN_OK;
    if (request->route->body != API_NO_BODY && head->content_type) {
        if (!api_encoding_of_type(head->content_type, &request->in))
            return nn_fail(&request->err, NN_E_MEDIA_TYPE,
                           "a body is application/json or application/safetensors, not %.100s",
                           head->content_type);
        request->out = request->in;
    }
    if (api_encoding_accepted(head->accept, &request->out)) return NN_OK;
    return nn_fail(&request->err, NN_E_NOT_ACCEPTABLE,
                   "answers come as application/json or application/safetensors");
}

/* --- all of it ------------------------------------------------------------------------------------- */

static size_t body_limit(const struct api_request *request) {
    return API_HAS_BODY(request->route->body) ? request->api->settings.limits.body : 0;
}

bool api_request_room(struct api_request *request, size_t size) {
    size_t limit = body_limit(request);
    if (size > limit)
        nn_fail(&request->err, NN_E_TOO_LARGE, "a body has at most %zu bytes here", limit);
    else if (size > request->reserved - request->papers)
        api_reserve(request, size - (request->reserved - request->papers));
    return request->err.code == NN_OK;
}

size_t api_request_buffer(struct api_request *request, size_t size, size_t wish) {
    if (!api_request_room(request, size)) return 0;
    if (wish > body_limit(request)) wish = body_limit(request);
    if (wish <= size) return size;
    if (api_request_room(request, wish)) return wish;
    request->err = (struct nn_error){0}; /* the wish was more than it needs */
    return size;
}

static int check_length(struct api_request *request, const struct api_head *head) {
    if (head->content_length > 0) api_request_room(request, (size_t)head->content_length);
    return (int)request->err.code;
}

/* Copies a header into the arena. */
static int keep_header(struct api_request *request, const char *value, const char **kept) {
    if (value && !(*kept = nn_arena_strdup(request->arena, value)))
        return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    return NN_OK;
}

static int keep_condition(struct api_request *request, const char *name, const char *value,
                          const char **kept) {
    if (value && !api_is_condition(value))
        return nn_fail(&request->err, NN_E_MALFORMED,
                       "%s is *, or a list of entity tags in quotes, not %.100s", name, value);
    return keep_header(request, value, kept);
}

static int admit(struct api_request *request, const struct api_head *head) {
    struct nn_error *err = &request->err;
    if (find_route(request, head) && err->code != NN_E_NOT_FOUND && err->code != NN_E_METHOD)
        return (int)err->code;
    struct nn_error no_route = *err; /* without a token, a client does not learn which paths exist */
    *err = (struct nn_error){0};
    if (check_token(request, head)) return (int)err->code;
    *err = no_route;
    if (!err->code && api_token_allows(request, request->route->scope)) return (int)err->code;
    bool probe =
        !err->code && (request->route->scope == API_SCOPE_ANYONE || request->route->body == API_PLAIN_TEXT);
    if (!err->code && !probe && atomic_load(&request->api->starting))
        return nn_fail(err, NN_E_RECOVERING, "models are being read from the disk");
    bool counted = !err->code && request->route->scope && request->route->body != API_PLAIN_TEXT;
    if (counted && head->client && api_client_enter(request, head->client)) return (int)err->code;
    if (err->code || choose_encodings(request, head) || check_length(request, head)) return (int)err->code;
    if (head->query && !(request->query = strdup(head->query)))
        return nn_fail(err, NN_E_NOMEM, "memory is out");
    if (keep_condition(request, "If-Match", head->if_match, &request->if_match) ||
        keep_condition(request, "If-None-Match", head->if_none_match, &request->if_none_match))
        return (int)err->code;
    return keep_header(request, head->idempotency_key, &request->idempotency_key);
}

struct api_admission api_admit(struct api *api, const struct api_head *head) {
    struct api_admission admission = {0};
    struct api_request *request = api_request_new(api);
    if (!request) return admission;
    request->gets = strcmp(head->method, "GET") == 0;
    request->admitted_ns = api_now_ns(api);
    bool refused = request->err.code || admit(request, head);
    snprintf(admission.token, sizeof admission.token, "%s", api_token_name(request->token));
    if (refused) {
        admission.refusal = api_problem(request);
        api_count_answer(request, admission.refusal);
        if (!admission.refusal) api_request_free(request);
        return admission;
    }
    admission.request = request;
    return admission;
}

struct api_response *api_refuse_take(struct api_request *request) {
    struct api_response *response = api_problem(request);
    api_count_answer(request, response);
    if (!response) api_request_free(request);
    return response;
}
