/* request.h - one request from its admission to its answer: what every handler works with.
 *
 * A handler reads `doc`, does its work, and adds to `answer`; it returns NN_OK, the code it recorded in
 * `err`, or API_LATER once it has handed the request on. All that an answer shows (a parameter version, a
 * tape, gradients) is held by the request, which lives until the response is freed. */
#ifndef API_REQUEST_H
#define API_REQUEST_H

#include <jansson.h>

#include "../api.h"
#include "../wire/document.h"
#include "../wire/safetensors.h"
#include "token.h"

#define API_LATER (-1)

struct api_model;
struct api_context;
struct api_effect;
struct api_client;
struct api_batch;
struct api_commit;
struct api_request;

/* Of a request that is carried out again: what it had found, and drawn. */
struct api_replay {
    uint64_t read; /* the version; UINT64_MAX: whichever is current */
    uint64_t drawn[4];
    int n_drawn;
    int code;            /* with which it ended, */
    struct nn_error err; /* and why */
};

struct api_route {
    const char *method, *path;
    int (*handler)(struct api_request *request);
    enum api_body body;
    enum { API_READS, API_CHANGES, API_IF_ASKED } effect;
    enum api_scope scope; /* the least that it asks for */
    const char *members;
    const char *summary;
};
/* The rows of routes.def, in their order. */
enum {
#define API_ROUTE(method, path, handler, ...) ROUTE_OF_##handler,
#include "routes.def"
#undef API_ROUTE
    API_ROUTES
};
extern const struct api_route api_routes[API_ROUTES];

/* A tensor of an answer; its data are the request's. */
struct api_result {
    struct api_tensor_out tensor;
    const void *data;
    enum nn_dtype from;
};

struct api_answer {
    int status;          /* 0: 200 */
    json_t *members;     /* of the document, without its tensors */
    const char *maps[8]; /* tensor maps, in order, perhaps empty */
    int n_maps;
    struct api_result *results;
    size_t n_results, room;
    size_t text;                  /* bytes that the results' text in JSON takes at most */
    char location[96], etag[112]; /* "" for none */
    bool plain_names;             /* the parameters resource: names without their map */
    char *page;                   /* malloc'ed; NULL, or a text instead of a document, */
    const char *page_type;        /* and its media type */
};

struct api_request {
    struct api *api;
    const struct api_route *route;
    struct api_tokens *tokens;     /* when it was admitted; NULL: none was asked for */
    const struct api_token *token; /* the one that it bears; NULL: none was asked for */
    enum api_scope missing;        /* why it was refused, in NN_E_SCOPE */
    char name[80];                 /* of the resource in the path */
    char allow[48];                /* the methods of a path that has others than the one asked for */
    char *query;
    const char *if_match, *if_none_match, *idempotency_key; /* in the arena; NULL where absent */
    enum api_encoding in, out;
    struct nn_arena *arena;
    int64_t admitted_ns;
    void *body;
    size_t size;
    api_reply_fn *reply;
    void *reply_context;

    struct api_document doc;
    bool read;   /* the document has been */
    bool beyond; /* the limit of the budget is not for it */
    bool brief;  /* it is served by a thread that others wait for: see cost.h and turns.c */
    struct api_answer answer;
    struct nn_error err;
    struct api_pointer pointer; /* where err is, in the request */
    struct api_effect *effect;  /* what its Idempotency-Key stands for, while it is in flight */
    struct api_client *client;  /* whose count it is in */
    size_t reserved;            /* bytes of the api's budget, */
    size_t papers;              /* and of these, what the document and the arena take beyond API_UNASKED */
    struct api_response *ready; /* the answer, where it was encoded before the change that it tells of */

    /* What the answer may show; let go with the request. */
    struct api_model *model;
    struct nn_params *params;
    struct api_context *context;
    enum { API_CLAIM_NONE, API_CLAIM_SHARED, API_CLAIM_EXCLUSIVE } claim; /* on the context */
    struct nn_run *run;
    struct api_batch *batch; /* whose rows it shows, instead of a run of its own */
    uint64_t seed;           /* that it tells of then */
    struct nn_backward *backward;
    struct nn_grads *grads;
    struct nn_params *fresh; /* a block for the model's next version, which is not the model's yet */

    /* While it waits for its turn at the model. */
    struct api_request *next;
    int (*turn)(struct api_request *request);
    double lr, scale; /* of the change; see update.h */
    bool mean, partial;
    uint64_t seen;         /* the version that a gradient is of */
    int64_t max_staleness; /* -1: the model's own bound alone */
    bool *only;            /* by parameter: which a push names; NULL: all */
    double tau;            /* of a blend */
    const char *worker;    /* who contributes to a round, in the document; NULL: nobody said */
    int64_t samples;       /* that the gradient is of */

    /* To be durable: see commit.h. */
    bool repeatable;               /* a pass from inputs: carried out again, it gives the same gradient */
    bool wait;                     /* the answer waits until the change is durable */
    bool quiet;                    /* the service's own: nobody reads its answer */
    bool makes;                    /* another version: `made` */
    int raised;                    /* the durability that it gives the model: enum api_durability */
    bool unstores;                 /* nothing of the model is stored then */
    uint64_t made, change;         /* and which of the model's changes it is */
    uint64_t drawn[4];             /* random numbers */
    int n_drawn;                   /* of them */
    struct api_model *restored;    /* that is to take the model's place */
    struct nn_grads *sum;          /* of its round, where that is not `grads` */
    struct api_commit *commit;     /* NULL: nothing is written down of it */
    struct api_request *followers; /* that are answered with it: the rest of its round */
    struct api_replay *replay;     /* quiet, too; NULL: it is carried out for the first time */
};

/* Has the arena reserve what it takes, as far as that is more than any request may have: see papers. */
#define API_UNASKED 32768
void api_request_bound(struct api_request *request);

/* Says where `err` is, unless that is said: "/member" or, with a name, "/member/name". Returns err.code. */
int api_point(struct api_request *request, const char *member, const char *name);

/* Frees what a change does not need while it waits for its turn, or in a round: its body, its tape, the
 * version that it read. Its gradient stays. For requests whose answer shows no tensors. */
void api_request_let_go(struct api_request *request);

/* Takes `bytes` of the memory budget until the request ends. NN_E_BUSY, or NN_E_TOO_LARGE where no
 * waiting would help. */
int api_reserve(struct api_request *request, size_t bytes);
/* Counts what a request takes beside its body and its tensors: as api_reserve, but for the API_UNASKED bytes that any
 * may have. */
int api_count(struct api_request *request, size_t bytes);
void api_release(struct api *api, size_t bytes);
/* Moves part of a request's reservation to something that outlives it, which calls api_release. */
void api_reserve_move(struct api_request *request, size_t bytes);

/* Members of the document, checked. Absent: NN_OK and *value untouched. NN_E_VALUE with the pointer. */
int api_get_string(struct api_request *request, const char *name, const char **value);
int api_get_bool(struct api_request *request, const char *name, bool *value);
int api_get_integer(struct api_request *request, const char *name, int64_t min, int64_t max, int64_t *value);
int api_get_real(struct api_request *request, const char *name, double *value);
#define API_MAX_SEED ((INT64_C(1) << 53) - 1)

/* Names not in `known` (separated by spaces): NN_E_UNKNOWN_MEMBER. The value of ?wanted= in the query, percent-
 * decoded, in the arena; NULL if absent. NN_E_NOMEM. */
int api_query_check(struct api_request *request, const char *known);
int api_query(struct api_request *request, const char *wanted, const char **value);
/* The wire type that "dtype" or ?dtype= asks for; else that of `dtype`. */
int api_result_dtype(struct api_request *request, enum nn_dtype dtype, enum api_dtype *out);

/* Whether a word of `length` bytes is one of `words`, which are separated by spaces. */
bool api_among(const char *words, const char *word, size_t length);

int api_random(struct api_request *request, uint64_t *bits);
int64_t api_now_ms(struct api *api);
int64_t api_now_ns(struct api *api);
const struct nn_parallel *api_parallel(struct api *api);

/* --- the answer --- */

/* Adds a member; `value` is consumed. NULL: memory is out. */
int api_add(struct api_request *request, const char *name, json_t *value);
/* Opens a map of tensors, so that it is there even when it stays empty. */
void api_add_map(struct api_request *request, const char *map);
/* Adds a tensor to a map, and reserves what its encoding will take, so that encoding itself does not fail
 * for the budget. `shape` is whole; `name` and `data` live as long as the request. NN_E_BUSY, NN_E_TOO_LARGE,
 * NN_E_NOMEM. */
int api_add_tensor(struct api_request *request, const char *map, const char *name,
                   const struct nn_shape *shape, enum nn_dtype from, const void *data, enum api_dtype as);
/* Encodes the answer ahead of the change that it tells of, so that an error has changed nothing. What
 * still fails afterwards drops it. NN_E_NOMEM. */
int api_answer_ready(struct api_request *request);
void api_answer_drop(struct api_request *request);
/* Lets go of the request of a response that shows nothing of it, though it may be long in sending. */
void api_response_detach(struct api_response *response);
/* Ends a request, as soon as its change is durable where it is to be: encodes its answer, if that is not ready, or its error, and replies. A context that it
 * claimed for itself is used up by success. */
void api_finish(struct api_request *request, int code);
/* The same, without waiting for anything. */
void api_finish_now(struct api_request *request, int code);
/* A request of the service's own, with `reply` called at its end, without a response. NULL: no memory. */
struct api_request *api_request_quiet(struct api *api, api_reply_fn *reply, void *context);
/* Carries out a request that was admitted. */
void api_serve(struct api_request *request);

/* Responses; NULL when memory is out, and the request is still the caller's. */
struct api_response *api_encode(struct api_request *request);
struct api_response *api_problem(struct api_request *request);
/* Of a malloc'ed text. The response owns the text and the request; on failure (NULL) neither. */
struct api_response *api_response_of_text(struct api_request *request, char *text);

#define API_ROUTE(method, path, handler, ...) int handler(struct api_request *request);
#include "routes.def"
#undef API_ROUTE

#endif
