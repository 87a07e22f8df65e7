/* spec.h - a model's specification: JSON into a sealed graph, an optimizer's definition and a seed. */
#ifndef API_SPEC_H
#define API_SPEC_H

#include "../request/request.h"

/* What outlives the process: nothing; the model as of the last checkpoint; every change that was answered. */
enum api_durability { API_DURABLE_NONE, API_DURABLE_SNAPSHOT, API_DURABLE_JOURNAL };
const char *api_durability_name(enum api_durability durability);

/* How a model takes its updates. */
struct api_policy {
    int64_t max_staleness; /* of a gradient that is applied; -1: any */
    bool sync;             /* updates come in rounds: */
    int workers, quorum;   /* how many contribute, and how many are enough when the time is up */
    int64_t timeout_ms;    /* from the first contribution */
    bool sum;              /* their sum is applied, rather than their mean */
    bool coalesce;         /* eval forwards are computed together: see coalesce.h */
    enum api_durability durability;
};

struct api_spec {
    struct nn_graph *graph; /* owned, */
    size_t bytes;           /* and what it takes, of the request's reservation */
    bool has_seed;
    uint64_t seed;
    const struct nn_def *optimizer;         /* NULL: none */
    const struct nn_attrs *optimizer_attrs; /* in the request's arena */
    struct api_policy policy;
};

/* Reads a specification that stands at `prefix` in the request ("model"), or is the request itself (NULL).
 * A member "name" is left to the caller. Errors are the request's, pointer included. */
int api_spec_read(struct api_request *request, const json_t *json, const char *prefix, struct api_spec *spec);
void api_spec_fini(struct api_spec *spec);

/* The members of a specification that are its policy. */
int api_spec_policy(struct api_request *request, const json_t *json, const char *prefix,
                    struct api_policy *policy);
/* An optimizer's object {"op", ...} into its definition and attributes, which live in the request's arena. */
int api_spec_optimizer(struct api_request *request, const json_t *json, const char *prefix,
                       const struct nn_def **def, const struct nn_attrs **attrs);

#endif
