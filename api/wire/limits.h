/* limits.h - limits on the service as a whole and on each request. */
#ifndef API_LIMITS_H
#define API_LIMITS_H

#include <stddef.h>
#include <stdint.h>

struct api_limits {
    size_t memory; /* bytes that models, requests and contexts may hold together */
    size_t body;   /* bytes of a request's body */
    int models;
    int contexts;            /* kept tapes */
    int64_t context_ttl_ms;  /* a kept tape that is not used for so long is freed */
    int layers;              /* of a model; likewise inputs */
    int rank;                /* dimensions of a tensor, the batch included; at most NN_MAX_RANK */
    int name;                /* bytes of a model's, an input's or a layer's name; at most NN_MAX_NAME */
    int tensors;             /* of one request */
    int json_depth;          /* of arrays and objects; at most API_JSON_DEPTH */
    int json_values;         /* values of a request's JSON, without those of tensors */
    int client_requests;     /* of one client, in flight */
    int keys;                /* Idempotency-Keys that are remembered */
    int64_t key_ttl_ms;      /* how long a key is remembered after success */
    int batch_max;           /* rows of forwards that are computed in one batch */
    int64_t batch_window_us; /* how long a batch waits for more rows, if its model had more rows lately */
    double work; /* floating-point operations of a request, counted as struct nn_work counts; 0: no limit */
};
#define API_JSON_DEPTH 64

#endif
