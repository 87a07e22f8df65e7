/* condition.c - entity tags and versions. */
#include "condition.h"

#include <stdio.h>
#include <string.h>

#include "../request/metrics.h"
#include "../model/model.h"
#include "../request/service.h"

/* FNV-1a, 64 bits (Fowler, Noll, Vo): tells one list of names from another. */
static uint64_t hash(const char *text) {
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (; *text; text++) h = (h ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    return h;
}

/* The next quoted tag of a list (RFC 9110, section 13.1): where it begins, and its length. */
static bool next_tag(const char **list, const char **tag, size_t *length) {
    const char *begin = strchr(*list, '"'), *end = begin ? strchr(begin + 1, '"') : NULL;
    if (!end) return false;
    *tag = begin + 1;
    *length = (size_t)(end - *tag);
    *list = end + 1;
    return true;
}

static bool is_any(const char *list) { return list[strspn(list, " \t")] == '*'; }

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

int api_check_match(struct api_request *request, uint64_t version) {
    const char *list = request->if_match, *tag;
    char want[64];
    size_t length;
    if (!list || is_any(list)) return NN_OK;
    size_t size = (size_t)snprintf(want, sizeof want, "%s-%llu", request->model->incarnation,
                                   (unsigned long long)version);
    while (next_tag(&list, &tag, &length))
        if (length >= size && memcmp(tag, want, size) == 0 && (length == size || tag[size] == '-'))
            return NN_OK;
    return nn_fail(&request->err, NN_E_STALE, "the model is at \"%s\"", want);
}

int api_read_staleness(struct api_request *request) {
    request->max_staleness = -1;
    return api_get_integer(request, "max_staleness", 0, API_MAX_SEED, &request->max_staleness);
}

int api_check_staleness(struct api_request *request, uint64_t seen) {
    struct api_model *model = request->model;
    uint64_t now = nn_params_version(model->params), staleness = now - seen;
    int64_t own = model->policy.max_staleness, limit = request->max_staleness;
    if (limit < 0 || (own >= 0 && own < limit)) limit = own;
    if (limit >= 0 && staleness > (uint64_t)limit)
        return nn_fail(&request->err, NN_E_STALE,
                       "the gradient is of version %llu, the model at %llu, and at most %lld may lie between",
                       (unsigned long long)seen, (unsigned long long)now, (long long)limit);
    return api_add(request, "staleness", json_integer((json_int_t)staleness));
}

/* --- how stale the applied gradients were ------------------------------------------------------------- */

static const struct {
    uint64_t most;
    const char *name;
} buckets[API_STALENESS_BUCKETS] = {{0, "0"},   {1, "1"},     {2, "2"},      {4, "3-4"},
                                    {8, "5-8"}, {16, "9-16"}, {32, "17-32"}, {UINT64_MAX, "33-"}};

uint64_t api_staleness_most(int bucket) { return buckets[bucket].most; }

void api_count_staleness(struct api_request *request) {
    struct api_model *model = request->model;
    uint64_t staleness = nn_params_version(model->params) - request->seen;
    int i = 0;
    while (staleness > buckets[i].most) i++;
    pthread_mutex_lock(&request->api->lock);
    model->staleness[i]++;
    pthread_mutex_unlock(&request->api->lock);
    api_count_applied(request->api, i, staleness);
}

json_t *api_staleness_json(const struct api_model *model) {
    json_t *json = json_object();
    int failed = 0;
    for (int i = 0; i < API_STALENESS_BUCKETS; i++)
        failed |= json_object_set_new(json, buckets[i].name, json_integer((json_int_t)model->staleness[i]));
    if (!failed) return json;
    json_decref(json);
    return NULL;
}
