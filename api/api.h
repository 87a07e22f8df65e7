/* api.h - the service without its sockets: requests and answers as bytes.
 *
 * A request goes through two steps. api_admit looks at its head alone: token, route, encodings, length,
 * memory. What it admits is read to its end and handed to api_submit, which answers exactly once, perhaps
 * later and from another thread. api_handle does both at once and waits; tests and fuzzers use it.
 *
 * The outside world (clock, entropy, threads) comes in through struct api_env. */
#ifndef API_H
#define API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../core/nn.h"

struct api;
struct api_store;

/* What the threads are at that api_env.execute hands jobs to. */
struct api_load {
    uint64_t queued, room; /* jobs that wait, and that may */
    uint64_t begun;        /* jobs, since the beginning */
    uint64_t threads, busy;
};

/* Called from any thread. */
struct api_env {
    void *self;
    int64_t (*now_ms)(void *self); /* monotonic */
    int64_t (*now_ns)(void *self); /* the same, finer; NULL: there is no finer one */
    bool (*entropy)(void *self, void *buffer, size_t size);
    /* Runs job(arg) on another thread, once. `cost` is in floating-point operations, 0 if unknown. False:
     * there is no room in the queue, and job is not run. NULL: jobs run at once, on the caller's thread. */
    bool (*execute)(void *self, void (*job)(void *arg), void *arg, uint64_t cost);
    /* The same after `delay_us` microseconds, or a little later. NULL or false: nothing can be delayed now. */
    bool (*execute_after)(void *self, int64_t delay_us, void (*job)(void *arg), void *arg, uint64_t cost);
    struct nn_parallel parallel;                     /* `run` NULL: serial */
    void (*load)(void *self, struct api_load *load); /* for /metrics; NULL: nothing is known of it */
    int64_t (*wall_ms)(void *self);                  /* since 1970; needed with a store alone */
    const struct api_store *store;                   /* see store.h; NULL: nothing outlives the process */
};

struct api_limits {
    size_t memory; /* bytes that models, requests and contexts may hold together */
    size_t body;   /* bytes of a request's body */
    int models;
    int contexts;
    int64_t context_ttl_ms;  /* a kept tape that nobody used for so long is let go */
    int layers;              /* of a model, and inputs likewise */
    int rank;                /* dimensions of a tensor, the batch included; at most NN_MAX_RANK */
    int name;                /* bytes of a model's, an input's or a layer's name; at most NN_MAX_NAME */
    int tensors;             /* of a request */
    int json_depth;          /* how deep arrays and objects are nested; at most API_JSON_DEPTH */
    int json_values;         /* of a request, those of tensors not counted */
    int client_requests;     /* in flight, of one client */
    int keys;                /* Idempotency-Keys remembered */
    int64_t key_ttl_ms;      /* for so long after success */
    int batch_max;           /* rows of forwards that are computed together */
    int64_t batch_window_us; /* how long such rows wait for as many as there were lately */
};
#define API_JSON_DEPTH 64
extern const struct api_limits api_default_limits;

struct api_settings {
    struct api_limits limits;
    const char *token;   /* one bearer token, with scope admin; NULL: none is asked for */
    const char *version; /* the program's, for /healthz */
    int64_t tile[2];     /* of NN_F32 and NN_F64: see nn_blas_tile; 0: forwards cannot be coalesced */
};

/* Settings are copied. NULL and `err` filled when memory is out. */
struct api *api_new(const struct api_settings *settings, const struct api_env *env, struct nn_error *err);
/* No request may be in flight. */
void api_free(struct api *api);

/* Bearer tokens with scopes, out of the text of a file, whose name is for errors. The text is cut up in place;
 * `size` does not count the zero behind it. Each line is
 *     NAME SCOPE HASH [PREFIX]
 * with a newline at its end, where # begins a comment, SCOPE is read, train or admin, HASH the token's SHA-256 in hexadecimal digits, and
 * PREFIX what the names of its models begin with. Or the file is of one word, a token as it is sent, of scope
 * admin. NULL: NN_E_VALUE, with the number of the line, or NN_E_NOMEM. */
struct api_tokens;
struct api_tokens *api_tokens_read(const char *file, char *text, size_t size, struct nn_error *err);
size_t api_tokens_count(const struct api_tokens *tokens);
void api_tokens_unref(struct api_tokens *tokens);
/* In place of those before, for requests whose head comes from now on. From any thread. */
void api_set_tokens_take(struct api *api, struct api_tokens *tokens);

/* While starting, requests other than the probes, /metrics and /openapi.json get 503. */
void api_set_starting(struct api *api, bool starting);
/* While draining, /readyz answers 503. */
void api_set_draining(struct api *api, bool draining);
/* To be called some ten times a second: ends rounds whose time is up, lets go of what has expired. */
void api_tick(struct api *api);
/* Requests submitted and not yet answered. */
int api_in_flight(const struct api *api);
/* Bytes reserved now of limits.memory. */
size_t api_memory_in_use(const struct api *api);

/* What the `type` of every problem document begins with; the error's slug follows. */
#define API_PROBLEM_TYPE "urn:gradd:problem:"

/* A request's head. Strings are borrowed, NULL where a header is absent. `path` is percent-decoded by the
 * caller and holds no query; `query` is the raw text behind '?'. */
struct api_head {
    const char *method, *path, *query;
    const char *authorization, *content_type, *accept;
    const char *client; /* who asks: an address; NULL: not counted */
    const char *if_match, *if_none_match, *idempotency_key;
    int64_t content_length; /* -1: not told */
};

struct api_header {
    char name[24];
    char value[128];
};
struct api_segment {
    const void *data;
    size_t size;
};

/* An answer. Its segments live until api_response_free, which also lets go of the parameter version that
 * they show; it may be called from any thread. */
struct api_response {
    int status;
    struct api_header headers[8]; /* Content-Type among them; Content-Length is the server's to add */
    int n_headers;
    const struct api_segment *segments;
    size_t n_segments;
    size_t size; /* of all segments */
};
void api_response_free(struct api_response *response);

/* An admitted request, or the answer that refuses it: exactly one is not NULL. Both NULL: no memory. */
struct api_request;
struct api_admission {
    struct api_request *request;
    struct api_response *refusal;
};
struct api_admission api_admit(struct api *api, const struct api_head *head);
/* Whether a body may come to `size` bytes: within the limit, and, beyond what its head told, within the
 * memory budget, of which it takes them. If not, api_refuse_take says why. */
bool api_request_room(struct api_request *request, size_t size);
/* The same for a buffer that grows: how many bytes it may have, at least `size`, and `wish` where that is possible.
 * 0: not even `size`. */
size_t api_request_buffer(struct api_request *request, size_t size, size_t wish);
/* The answer to a body that found no room; consumes the request. NULL: no memory. */
struct api_response *api_refuse_take(struct api_request *request);
/* For a request whose peer left before its body was whole. */
void api_request_free(struct api_request *request);

/* `response` is the callee's; NULL only when there was no memory even to say so: answer 503. */
typedef void api_reply_fn(void *context, struct api_response *response);
/* Consumes the request and `body`, a malloc'ed buffer (NULL when size is 0), even on failure. What takes no
 * longer than to hand it to another thread is served, and answered, before this returns. */
void api_submit_take(struct api_request *request, void *body, size_t size, api_reply_fn *reply,
                     void *context);

/* Both steps, waiting for the answer. `body` is borrowed. NULL: no memory. */
struct api_response *api_handle(struct api *api, const struct api_head *head, const void *body, size_t size);

/* "/ops" as a Markdown page, for docs/ops.md; malloc'ed, NULL when memory is out. */
char *api_ops_markdown(void);

#endif
