/* metrics.h - what the service counts, and the page of GET /metrics in Prometheus's text format 0.0.4.
 *
 * Counting takes no lock: each counter is exact, but a page may read two counters at slightly different instants. A
 * histogram's _count is the sum of the buckets on the same page. */
#ifndef API_METRICS_H
#define API_METRICS_H

#include "request.h"

struct api_metrics;

/* NULL when memory is out. */
struct api_metrics *api_metrics_new(void);
void api_metrics_free(struct api_metrics *metrics);

/* Counts an answer, before the reply is called. `response` is NULL where memory was out: a 503. */
void api_count_answer(struct api_request *request, const struct api_response *response);
/* Counts the bytes of a body that was read whole. */
void api_count_body(struct api *api, size_t size);
/* Counts a gradient that is applied, and how many versions old it is. */
void api_count_applied(struct api *api, uint64_t staleness);
void api_count_version(struct api *api);
/* Counts a round that ended. `code` is the error of its contributions, or NN_OK. */
void api_count_round(struct api *api, int code);

/* The buckets of the staleness of applied gradients: the bucket of a staleness, and a bucket's name. */
#define API_STALENESS_BUCKETS 8
int api_staleness_bucket(uint64_t staleness);
const char *api_staleness_name(int bucket);

/* The page, malloc'ed; NULL when memory is out. */
char *api_metrics_page(struct api *api);
#define API_METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

#endif
