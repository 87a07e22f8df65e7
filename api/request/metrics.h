/* metrics.h - what the service counts, and how GET /metrics tells it: Prometheus's text format 0.0.4.
 *
 * Counting takes no lock and orders nothing: each number is right by itself, while one page may show two
 * counters at slightly different instants. A histogram's _count is the sum of the very buckets on the page. */
#ifndef API_METRICS_H
#define API_METRICS_H

#include "request.h"

struct api_metrics;

/* NULL when memory is out. */
struct api_metrics *api_metrics_new(void);
void api_metrics_free(struct api_metrics *metrics);

/* Before the request's answer is handed out; `response` NULL: memory is out. */
void api_count_answer(struct api_request *request, const struct api_response *response);
/* A body that was read whole. */
void api_count_body(struct api *api, size_t size);
/* A gradient that is applied: which of condition.c's buckets it falls into, and how many versions old it is. */
void api_count_applied(struct api *api, int bucket, uint64_t staleness);
void api_count_version(struct api *api);
/* `code` is what its contributions are answered with. */
void api_count_round(struct api *api, int code);

/* The page, malloc'ed; NULL when memory is out. */
char *api_metrics_page(struct api *api);
#define API_METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

#endif
