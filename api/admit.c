/* admit.c - what a request's head alone decides: token, route, encodings, length, memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "request/client.h"
#include "request/metrics.h"
#include "request/request.h"
#include "request/service.h"
#include "request/token.h"

const struct api_route api_routes[API_ROUTES] = {
#define API_ROUTE(method, path, handler, body, effect, scope, members, summary)                              \
    {method, path, handler, body, effect, API_SCOPE_##scope, members, summary},
#include "request/routes.def"
#undef API_ROUTE
};

/* --- route ----------------------------------------------------------------------------------------- */

/* Whether a path fits a pattern; {} takes one non-empty segment, copied to `name` if it has room. */
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
        int n = snprintf(request->allow + used, sizeof request->allow - used, "%s%s", used ? ", " : "",
                         api_routes[i].method);
        if (n > 0 && used + (size_t)n < sizeof request->allow) used += (size_t)n;
    }
    if (used) return nn_fail(&request->err, NN_E_METHOD, "this path takes %s", request->allow);
    return nn_fail(&request->err, NN_E_NOT_FOUND, "there is nothing at %.200s", head->path);
}

/* --- token ----------------------------------------------------------------------------------------- */

/* The set holds as long as the request: what it allows is asked again by handlers. */
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

static const struct {
    const char *type;
    enum api_encoding encoding;
} media_types[] = {{"application/json", API_JSON},
                   {"application/safetensors", API_SAFETENSORS},
                   {"application/merge-patch+json", API_JSON}};

/* The encoding of a media type, which ends at ';', ',' or white space. False if it is not known. */
static bool find_encoding(const char *type, enum api_encoding *encoding) {
    size_t size = strcspn(type, ";, \t");
    for (size_t i = 0; i < sizeof media_types / sizeof media_types[0]; i++)
        if (strlen(media_types[i].type) == size && strncasecmp(type, media_types[i].type, size) == 0) {
            *encoding = media_types[i].encoding;
            return true;
        }
    return false;
}

/* The weight of one entry of Accept (RFC 9110, section 12.4.2). */
static double quality(const char *entry, size_t size) {
    for (size_t i = 0; i + 2 < size; i++)
        if (entry[i] == ';')
            for (size_t k = i + 1; k + 1 < size && entry[k] != ';'; k++)
                if ((entry[k] == 'q' || entry[k] == 'Q') && entry[k + 1] == '=')
                    return strtod(entry + k + 2, NULL);
    return 1;
}

/* How closely a range of Accept fits an encoding: 0 not at all, 3 by its own name. */
static int closeness(const char *range, enum api_encoding encoding) {
    enum api_encoding named;
    if (find_encoding(range, &named)) return named == encoding ? 3 : 0;
    if (strncasecmp(range, "application/*", 13) == 0) return 2;
    return strncmp(range, "*/*", 3) == 0;
}

/* The best that Accept allows. The closest range decides an encoding's weight (RFC 9110, section 12.5.1);
 * of equals the first is taken, and of one range the request's own encoding. */
static int choose_output(struct api_request *request, const char *accept) {
    static const enum api_encoding encodings[] = {API_JSON, API_SAFETENSORS};
    struct {
        int close, place;
        double q;
    } of[2] = {{0}}, *own = &of[request->out == API_SAFETENSORS], *other = own == of ? &of[1] : &of[0];
    if (!accept || !*accept) return NN_OK;
    for (int place = 1; *accept; place++) {
        accept += strspn(accept, " \t,");
        size_t size = strcspn(accept, ",");
        for (int i = 0; i < 2; i++) {
            int close = closeness(accept, encodings[i]);
            if (close <= of[i].close) continue;
            of[i].close = close;
            of[i].place = place;
            of[i].q = quality(accept, size);
        }
        accept += size;
    }
    if (other->q > own->q || (other->q == own->q && other->place < own->place))
        request->out = encodings[other - of];
    if (own->q > 0 || other->q > 0) return NN_OK;
    return nn_fail(&request->err, NN_E_NOT_ACCEPTABLE,
                   "answers come as application/json or application/safetensors");
}

static int choose_encodings(struct api_request *request, const struct api_head *head) {
    request->in = request->out = API_JSON;
    if (request->route->body == API_PLAIN_TEXT) return NN_OK;
    if (request->route->body != API_NO_BODY && head->content_type) {
        if (!find_encoding(head->content_type, &request->in))
            return nn_fail(&request->err, NN_E_MEDIA_TYPE,
                           "a body is application/json or application/safetensors, not %.100s",
                           head->content_type);
        request->out = request->in;
    }
    return choose_output(request, head->accept);
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
    request->err = (struct nn_error){0}; /* it does not need so much */
    return size;
}

static int check_length(struct api_request *request, const struct api_head *head) {
    if (head->content_length > 0) api_request_room(request, (size_t)head->content_length);
    return (int)request->err.code;
}

/* A copy that lives as long as the request. */
static int keep_header(struct api_request *request, const char *value, const char **kept) {
    if (value && !(*kept = nn_arena_strdup(request->arena, value)))
        return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    return NN_OK;
}

static int admit(struct api_request *request, const struct api_head *head) {
    struct nn_error *err = &request->err;
    if (find_route(request, head) && err->code != NN_E_NOT_FOUND && err->code != NN_E_METHOD)
        return (int)err->code;
    struct nn_error no_route = *err; /* a stranger is not told what there is */
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
    if (keep_header(request, head->if_match, &request->if_match) ||
        keep_header(request, head->if_none_match, &request->if_none_match))
        return (int)err->code;
    return keep_header(request, head->idempotency_key, &request->idempotency_key);
}

struct api_admission api_admit(struct api *api, const struct api_head *head) {
    struct api_admission admission = {0};
    struct api_request *request = calloc(1, sizeof *request);
    if (!request) return admission;
    request->api = api;
    request->admitted_ns = api_now_ns(api);
    request->arena = nn_arena_new();
    if (request->arena)
        api_request_bound(request);
    else
        nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    if (request->err.code || admit(request, head)) {
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
