/* condition.c - see condition.h. */
#include "condition.h"

#include <stdio.h>
#include <string.h>

#include "../model/model.h"
#include "../request/metrics.h"
#include "../request/service.h"

/* FNV-1a, 64 bits (Fowler, Noll, Vo). An ETag has the hash of the names of the parameters shown. */
static uint64_t hash(const char *text) {
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (; *text; text++) h = (h ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    return h;
}

/* Finds the next quoted tag of a list (RFC 9110, section 13.1). False: there is none. */
static bool next_tag(const char **list, const char **tag, size_t *length) {
    const char *begin = strchr(*list, '"'), *end = begin ? strchr(begin + 1, '"') : NULL;
    if (!end) return false;
    *tag = begin + 1;
    *length = (size_t)(end - *tag);
    *list = end + 1;
    return true;
}

static bool is_any(const char *list) { return list[strspn(list, " \t")] == '*'; }

/* The end of an entity tag, weak or strong (RFC 9110, section 8.8.3). NULL: there is none. */
static const char *tag_end(const char *at) {
    if (strncmp(at, "W/", 2) == 0) at += 2;
    if (*at++ != '"') return NULL;
    while ((unsigned char)*at > ' ' && *at != '"' && *at != 0x7f) at++;
    return *at == '"' ? at + 1 : NULL;
}

bool api_is_condition(const char *list) {
    list += strspn(list, " \t");
    if (*list == '*') return list[1 + strspn(list + 1, " \t")] == '\0';
    list += strspn(list, " \t,");
    while (*list) {
        if (!(list = tag_end(list))) return false;
        list += strspn(list, " \t");
        if (*list && *list != ',') return false;
        list += strspn(list, " \t,");
    }
    return true;
}

/* Writes the part that all tags of a version share. */
static size_t write_version(char text[64], const struct api_model *model, uint64_t version) {
    return (size_t)snprintf(text, 64, "%s-%llu", model->incarnation, (unsigned long long)version);
}

/* True if the list is *, or has a tag of this version, in any representation, weak or strong. Without a model only *
 * matches. */
static bool covers(const char *list, const struct api_model *model, uint64_t version) {
    const char *tag;
    char want[64];
    size_t length;
    if (is_any(list)) return true;
    if (!model) return false;
    size_t size = write_version(want, model, version);
    while (next_tag(&list, &tag, &length))
        if (length >= size && memcmp(tag, want, size) == 0 && (length == size || tag[size] == '-'))
            return true;
    return false;
}

static int fail_match(struct api_request *request, const struct api_model *model, uint64_t version) {
    char now[64];
    if (!model)
        return nn_fail(&request->err, NN_E_CONDITION, "there is no entity tag here for If-Match to name");
    write_version(now, model, version);
    return nn_fail(&request->err, NN_E_STALE, "the model is at \"%s\"", now);
}

static int fail_none_match(struct api_request *request, const struct api_model *model, uint64_t version) {
    char now[64];
    if (!model)
        return nn_fail(&request->err, NN_E_CONDITION, "If-None-Match is *, and there is something here");
    write_version(now, model, version);
    return nn_fail(&request->err, NN_E_CONDITION, "the model is at \"%s\", which If-None-Match rules out",
                   now);
}

int api_check_conditions(struct api_request *request, const struct api_model *model, uint64_t version) {
    if (request->if_match && !covers(request->if_match, model, version))
        return fail_match(request, model, version);
    if (!request->if_none_match) return NN_OK;
    if (!request->gets && covers(request->if_none_match, model, version))
        return fail_none_match(request, model, version);
    if (request->gets && is_any(request->if_none_match)) request->answer.status = 304;
    return NN_OK;
}

int api_check_creation(struct api_request *request, const struct api_model *existing) {
    uint64_t version = existing ? nn_params_version(existing->params) : 0;
    if (request->if_match && !existing)
        return nn_fail(&request->err, NN_E_CONDITION, "there is no model of this name for If-Match to name");
    if (request->if_match && !covers(request->if_match, existing, version))
        return fail_match(request, existing, version);
    if (request->if_none_match && existing && covers(request->if_none_match, existing, version))
        return fail_none_match(request, existing, version);
    return NN_OK;
}

bool api_etag(struct api_request *request, uint64_t version, enum api_dtype dtype, const char *names) {
    struct api_answer *answer = &request->answer;
    char suffix[24] = "";
    const char *tag;
    size_t length;
    if (names) snprintf(suffix, sizeof suffix, "-%016llx", (unsigned long long)hash(names));
    snprintf(answer->etag, sizeof answer->etag, "\"%s-%llu-%s-%s%s\"", request->model->incarnation,
             (unsigned long long)version, request->out == API_JSON ? "json" : "safetensors",
             api_dtype_name(dtype), suffix);
    const char *list = request->if_none_match;
    if (!list) return false;
    if (is_any(list)) return true;
    while (next_tag(&list, &tag, &length))
        if (strlen(answer->etag) == length + 2 && memcmp(tag, answer->etag + 1, length) == 0) return true;
    return false;
}

int api_check_staleness(struct api_request *request, uint64_t seen) {
    struct api_model *model = request->model;
    uint64_t now = nn_params_version(model->params), staleness = now - seen;
    int64_t own = model->policy.max_staleness, limit = request->ask.max_staleness;
    if (limit < 0 || (own >= 0 && own < limit)) limit = own;
    if (limit >= 0 && staleness > (uint64_t)limit)
        return nn_fail(&request->err, NN_E_STALE,
                       "the gradient is of version %llu, the model at %llu, and at most %lld may lie between",
                       (unsigned long long)seen, (unsigned long long)now, (long long)limit);
    return api_add(request, "staleness", json_integer((json_int_t)staleness));
}

/* --- the staleness of applied gradients -------------------------------------------------------------- */

void api_count_staleness(struct api_request *request) {
    struct api_model *model = request->model;
    uint64_t staleness = nn_params_version(model->params) - request->seen;
    pthread_mutex_lock(&request->api->lock);
    model->staleness[api_staleness_bucket(staleness)]++;
    pthread_mutex_unlock(&request->api->lock);
    api_count_applied(request->api, staleness);
}

json_t *api_staleness_json(const struct api_model *model) {
    json_t *json = json_object();
    int failed = 0;
    for (int i = 0; i < API_STALENESS_BUCKETS; i++)
        failed |=
            json_object_set_new(json, api_staleness_name(i), json_integer((json_int_t)model->staleness[i]));
    if (!failed) return json;
    json_decref(json);
    return NULL;
}
