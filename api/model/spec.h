/* spec.h - reads a model's specification: JSON into a sealed graph, an optimizer's definition, a seed and a policy. */
#ifndef API_SPEC_H
#define API_SPEC_H

#include "../request/request.h"

/* What survives the process: nothing; the model as of the last checkpoint; every change that was answered. */
enum api_durability { API_DURABLE_NONE, API_DURABLE_SNAPSHOT, API_DURABLE_JOURNAL };
const char *api_durability_name(enum api_durability durability);

/* How a model takes updates. */
struct api_policy {
    int64_t max_staleness; /* the most that an applied gradient may have; -1: any */
    bool sync;             /* updates are applied in rounds */
    int workers, quorum;   /* contributions that end a round; that suffice at its timeout */
    int64_t timeout_ms;    /* of a round, from its first contribution */
    bool sum;              /* contributions are summed; else averaged */
    bool coalesce;         /* eval forwards are computed together: see ../pass/coalesce.h */
    enum api_durability durability;
};

struct api_spec {
    struct nn_graph *graph; /* owned */
    size_t bytes;           /* the graph's bytes, out of the request's reservation */
    bool has_seed;
    uint64_t seed;
    const struct nn_def *optimizer;         /* NULL: none */
    const struct nn_attrs *optimizer_attrs; /* in the request's arena */
    struct api_policy policy;
};

/* Reads a specification. `prefix` says where in the request it stands ("model"); NULL: it is the whole document. The
 * caller reads the member "name". Errors are recorded in the request, with the pointer. */
int api_spec_read(struct api_request *request, const json_t *json, const char *prefix, struct api_spec *spec);
void api_spec_fini(struct api_spec *spec);

/* Reads the members of a specification that make its policy. */
int api_spec_policy(struct api_request *request, const json_t *json, const char *prefix,
                    struct api_policy *policy);
/* Reads an optimizer's object {"op", ...}: its definition, and its attributes, which live in the request's arena. */
int api_spec_optimizer(struct api_request *request, const json_t *json, const char *prefix,
                       const struct nn_def **def, const struct nn_attrs **attrs);
/* True if the definition has an attribute of this name. */
bool api_spec_has_attr(const struct nn_def *def, const char *name);

/* The members that "aggregation" may have. */
#define API_AGGREGATION "mode workers quorum timeout_ms reduce"

#endif
