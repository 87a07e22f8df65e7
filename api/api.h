/* api.h - the service without sockets: requests and answers as bytes.
 *
 * A request takes two steps. api_admit decides by its head: token, route, encodings, length, memory. An admitted
 * request is read to its end and handed to api_submit_take, which replies exactly once, perhaps later and from another
 * thread. api_handle does both and waits; tests and fuzzers use it.
 *
 * The outside world (clock, entropy, threads) comes in through struct api_env. */
#ifndef API_H
#define API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../core/nn.h"
#include "wire/limits.h"

struct api;
struct api_store;

/* The load of the process, for /metrics. */
struct api_load {
    uint64_t queued, room; /* jobs in the queue, and its size */
    uint64_t begun;        /* jobs begun since the start */
    uint64_t threads, busy;
    uint64_t lines_dropped; /* log lines */
};

/* Called from any thread. */
struct api_env {
    void *self;
    int64_t (*now_ms)(void *self); /* monotonic */
    int64_t (*now_ns)(void *self); /* the same, finer; NULL: now_ms is all there is */
    bool (*entropy)(void *self, void *buffer, size_t size);
    /* Runs job(arg) on another thread, once. `cost` is in floating-point operations, 0 if unknown. False: the queue is
     * full, and the job is not run. NULL: jobs run at once, on the caller's thread. */
    bool (*execute)(void *self, void (*job)(void *arg), void *arg, uint64_t cost);
    /* The same, after `delay_us` microseconds or a little later. NULL or false: no job can be delayed now. */
    bool (*execute_after)(void *self, int64_t delay_us, void (*job)(void *arg), void *arg, uint64_t cost);
    struct nn_parallel parallel;                     /* `run` NULL: serial */
    void (*load)(void *self, struct api_load *load); /* for /metrics; NULL: unknown */
    int64_t (*wall_ms)(void *self);                  /* milliseconds since 1970; needed only with a store */
    const struct api_store *store;                   /* see store.h; NULL: no store */
};

extern const struct api_limits api_default_limits;

struct api_settings {
    struct api_limits limits;
    const char *token;   /* one bearer token, with scope admin; NULL: none is asked for */
    const char *version; /* the program's version, for /healthz */
    int64_t tile[2];     /* by NN_F32 and NN_F64: see nn_blas_tile; 0: forwards cannot be coalesced */
};

/* Settings are copied. NULL: NN_E_NOMEM, or NN_E_VALUE of a token. */
struct api *api_new(const struct api_settings *settings, const struct api_env *env, struct nn_error *err);
/* No request may be in flight. */
void api_free(struct api *api);

/* Reads bearer tokens out of the text of a file; `file` names it in errors. The text is cut up in place; its `size` is
 * without the NUL behind it. Each line is
 *
 *   NAME SCOPE HASH [PREFIX] [work=N]
 *
 * and ends in a newline. # begins a comment. SCOPE is read, train or admin. HASH is the token's SHA-256 in hexadecimal
 * digits. The token sees models whose names begin with PREFIX. N limits the work of each of its requests. A text that
 * is cut off anywhere grants nothing that the whole text does not. NULL: NN_E_VALUE, with the number of the line, or
 * NN_E_NOMEM. */
struct api_tokens;
struct api_tokens *api_tokens_read(const char *file, char *text, size_t size, struct nn_error *err);
/* Reads one token of scope admin out of the text of a file that holds the token itself, on one line. NULL: NN_E_VALUE,
 * NN_E_NOMEM. */
struct api_tokens *api_tokens_read_secret(const char *file, char *text, size_t size, struct nn_error *err);
#define API_LEAST_SECRET 32 /* the least number of characters of such a token */
size_t api_tokens_count(const struct api_tokens *tokens);
void api_tokens_unref(struct api_tokens *tokens);
/* Replaces the tokens for requests that are admitted from now on. From any thread. */
void api_set_tokens_take(struct api *api, struct api_tokens *tokens);

/* While starting, all requests but the probes, /metrics and /openapi.json get 503. */
void api_set_starting(struct api *api, bool starting);
/* While draining, /readyz answers 503. */
void api_set_draining(struct api *api, bool draining);
/* The last phase of a stop. From now on passes are given up before their next node, and changes are refused. A change
 * that has begun, and may be in the journal, is completed. */
void api_set_ending(struct api *api);
/* To be called about ten times a second. Ends rounds whose time is up, frees expired contexts, and
 * forgets expired Idempotency-Keys. */
void api_tick(struct api *api);
/* The number of submitted requests without an answer. */
int api_in_flight(const struct api *api);
/* The bytes of limits.memory that are reserved. */
size_t api_memory_in_use(const struct api *api);

/* The beginning of the `type` of a problem document; the error's slug follows. */
#define API_PROBLEM_TYPE "urn:gradd:problem:"

/* The head of a request. Strings are borrowed; NULL where a header is absent. The lines of a list header are joined by
 * commas. `path` is percent-decoded, except for %2F and %25, and has no query; `query` is the raw text behind '?'. */
struct api_head {
    const char *method, *path, *query;
    const char *authorization, *content_type, *content_encoding, *accept;
    const char *client; /* the client's address; NULL: its requests are not counted */
    const char *if_match, *if_none_match, *idempotency_key;
    int64_t content_length; /* -1: unknown */
};

struct api_header {
    char name[24];
    char value[128];
};
struct api_segment {
    const void *data;
    size_t size;
};

/* An answer. Its segments live until api_response_free, which may be called from any thread, and gives up the version
 * that the answer shows. */
struct api_response {
    int status;
    struct api_header headers[8]; /* with Content-Type; the server adds Content-Length */
    int n_headers;
    const struct api_segment *segments;
    size_t n_segments;
    size_t size;         /* of all segments */
    const char *problem; /* the slug of a problem document, a constant; NULL: it is none */
};
void api_response_free(struct api_response *response);

/* An admitted request, or the response that refuses it: one of them is not NULL. Both NULL: memory is out. */
struct api_request;
#define API_TOKEN_NAME 64
struct api_admission {
    struct api_request *request;
    struct api_response *refusal;
    char token[API_TOKEN_NAME + 1]; /* the name of the request's token; "": it has none, or an unknown one */
};
struct api_admission api_admit(struct api *api, const struct api_head *head);
/* True if a body may have `size` bytes: it is within the limit, and the memory budget has room for the bytes that the
 * head did not announce; they are reserved. False: api_refuse_take tells why. */
bool api_request_room(struct api_request *request, size_t size);
/* The same for a buffer that grows. Returns the bytes that it may have: `wish` if possible, at least `size`; 0: not
 * even those. */
size_t api_request_buffer(struct api_request *request, size_t size, size_t wish);
/* The response to a body for which there was no room. Consumes the request. NULL: memory is out. */
struct api_response *api_refuse_take(struct api_request *request);
/* Frees a request that was not submitted: its peer left before its body was complete. */
void api_request_free(struct api_request *request);

/* Before the request is submitted: sets a function that tells whether its peer has left. The thread that works on the
 * request calls it, with the context of the reply. Once true, it must stay true. Then a read that still waits is not
 * begun, and a pass is given up before its next node. A change whose pass is over, or that needs none, is made all the
 * same. */
void api_request_peer(struct api_request *request, bool (*left)(void *context));

/* `response` becomes the callee's. NULL: there was no memory for a response; the status is 503. */
typedef void api_reply_fn(void *context, struct api_response *response);
/* Consumes the request and `body`, a malloc'ed buffer (NULL where size is 0), even on failure. A request that takes no
 * longer than handing it to another thread is served before this returns. */
void api_submit_take(struct api_request *request, void *body, size_t size, api_reply_fn *reply,
                     void *context);

/* Both steps, and waits for the answer. `body` is borrowed. NULL: memory is out. */
struct api_response *api_handle(struct api *api, const struct api_head *head, const void *body, size_t size);

/* The page docs/ops.md, malloc'ed. NULL: memory is out. */
char *api_ops_markdown(void);

#endif
