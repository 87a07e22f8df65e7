/* policy.c - see spec.h: what a specification says of updates, rounds, coalescing and durability. */
#include "spec.h"

#include <string.h>

#include "../request/service.h"
#include "place.h"

#define MAX_WORKERS  10000
#define MAX_ROUND_MS ((int64_t)24 * 3600 * 1000)

/* {"mode": "async"}, or {"mode": "sync", "workers", "quorum", "timeout_ms", "reduce"}. */
static int read_aggregation(const struct api_place *place, const json_t *object, struct api_policy *policy) {
    const char *mode = NULL, *reduce = "mean";
    int64_t workers = 0, quorum = 0;
    policy->timeout_ms = 30000;
    if (!json_is_object(object)) return api_place_wrong(place, NULL, "an object");
    if (api_place_check_known(place, object, API_AGGREGATION) ||
        api_place_string(place, object, "mode", &mode) ||
        api_place_string(place, object, "reduce", &reduce) ||
        api_place_count(place, object, "workers", MAX_WORKERS, &workers) ||
        api_place_count(place, object, "timeout_ms", MAX_ROUND_MS, &policy->timeout_ms))
        return (int)place->request->err.code;
    if (!mode || (strcmp(mode, "sync") != 0 && strcmp(mode, "async") != 0))
        return api_place_wrong(place, "mode", "\"sync\" or \"async\"");
    policy->sync = mode[0] == 's';
    if (policy->sync && !workers)
        return api_place_wrong(place, "workers", "given: how many contribute to a round");
    quorum = workers;
    if (workers && api_place_count(place, object, "quorum", workers, &quorum))
        return (int)place->request->err.code;
    policy->sum = strcmp(reduce, "sum") == 0;
    if (!policy->sum && strcmp(reduce, "mean") != 0)
        return api_place_wrong(place, "reduce", "\"mean\" or \"sum\"");
    policy->workers = (int)workers;
    policy->quorum = (int)quorum;
    return NN_OK;
}

static const char *const durabilities[] = {
    [API_DURABLE_NONE] = "none", [API_DURABLE_SNAPSHOT] = "snapshot", [API_DURABLE_JOURNAL] = "journal"};

const char *api_durability_name(enum api_durability durability) { return durabilities[durability]; }

/* With a store, the default is "snapshot". */
static int read_durability(const struct api_place *place, const json_t *json, struct api_policy *policy) {
    const char *name = NULL;
    bool stores = place->request->api->env.store != NULL;
    policy->durability = stores ? API_DURABLE_SNAPSHOT : API_DURABLE_NONE;
    if (api_place_string(place, json, "durability", &name)) return (int)place->request->err.code;
    if (!name) return NN_OK;
    for (int i = 0; i <= API_DURABLE_JOURNAL; i++) {
        if (strcmp(name, durabilities[i]) != 0) continue;
        policy->durability = (enum api_durability)i;
        if (!i || stores) return NN_OK;
        return api_place_wrong(place, "durability", "\"none\": the service was started without --data");
    }
    return api_place_wrong(place, "durability", "\"none\", \"snapshot\" or \"journal\"");
}

int api_spec_policy(struct api_request *request, const json_t *json, const char *prefix,
                    struct api_policy *policy) {
    struct api_place root = {.request = request};
    if (prefix) root = api_place_in(&root, prefix);
    const json_t *bound = json_object_get(json, "max_staleness");
    *policy = (struct api_policy){0};
    policy->max_staleness = bound ? json_integer_value(bound) : -1;
    if (bound && (!json_is_integer(bound) || policy->max_staleness < 0))
        return api_place_wrong(&root, "max_staleness", "an integer of 0 or more");
    const json_t *coalesce = json_object_get(json, "coalesce");
    if (coalesce && !json_is_boolean(coalesce)) return api_place_wrong(&root, "coalesce", "true or false");
    policy->coalesce = json_is_true(coalesce);
    if (read_durability(&root, json, policy)) return (int)request->err.code;
    const json_t *aggregation = json_object_get(json, "aggregation");
    root = api_place_in(&root, "aggregation");
    return aggregation ? read_aggregation(&root, aggregation, policy) : NN_OK;
}
