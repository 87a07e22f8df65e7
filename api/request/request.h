/* request.h - a request from its admission to its answer: the object that every handler works with.
 *
 * A handler reads `ask` and the tensors of `doc`, does its work, and adds to `answer`. It returns NN_OK, the code that
 * it recorded in `err`, or API_LATER once it has handed the request on. The request holds everything that its answer
 * shows (a version of the parameters, a tape, gradients) until the response is freed. */
#ifndef API_REQUEST_H
#define API_REQUEST_H

#include <jansson.h>

#include "../api.h"
#include "../wire/document.h"
#include "../wire/safetensors.h"
#include "ask.h"
#include "token.h"

#define API_LATER (-1)

struct api_model;
struct api_context;
struct api_effect;
struct api_client;
struct api_batch;
struct api_commit;
struct api_request;

/* A record may read the current version or one of so many versions before it. */
#define API_REPLAY_VERSIONS 4

/* A request that is carried out again out of a record: what it had read and drawn, and how it ended. */
struct api_replay {
    uint64_t read; /* the version that it read; UINT64_MAX: the current one */
    uint64_t drawn[4];
    int n_drawn;
    int format;          /* of the record */
    int code;            /* the code with which it ended now, */
    struct nn_error err; /* and its error */
};

/* The rules of api/cost.c. */
enum api_forecast {
    API_COST_UNKNOWN,
    API_COST_FORWARD,
    API_COST_BACKWARD,
    API_COST_DESCRIPTION,
    API_COST_PULL,
    API_COST_PUSH,
    API_FORECASTS
};

/* An endpoint: see routes.def. */
struct api_route {
    const char *method, *path;
    int (*handler)(struct api_request *request);
    enum api_body body;
    enum { API_READS, API_CHANGES, API_IF_ASKED } effect;
    enum api_scope scope;
    enum { API_RECORD_NEVER, API_RECORD_JOURNAL, API_RECORD_STORED } recorded;
    enum api_forecast cost;
    int index; /* its row */
    const char *query, *requires, *members, *summary;
};
/* The rows of routes.def, in their order. */
enum {
#define API_ROUTE(method, path, handler, ...) ROUTE_OF_##handler,
#include "routes.def"
#undef API_ROUTE
    API_ROUTES
};
extern const struct api_route api_routes[API_ROUTES];

/* A tensor of an answer. The request holds its data. */
struct api_result {
    struct api_tensor_out tensor;
    const void *data;
    enum nn_dtype from;
};

struct api_answer {
    int status;          /* the HTTP status; 0: 200 */
    json_t *members;     /* of the document, without its tensors */
    const char *maps[8]; /* the maps of tensors, in order; they may be empty */
    int n_maps;
    struct api_result *results;
    size_t n_results, room;
    size_t text;                  /* an upper bound of the results' text in JSON, in bytes */
    char location[96], etag[112]; /* "" for none */
    bool plain_names;             /* names have no map in front: the parameters resource */
    char *page;                   /* malloc'ed: a text in place of a document; or NULL, */
    const char *page_type;        /* and the text's media type */
};

/* Its members stand by what they are about, and not by their size.
 * NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding) */
struct api_request {
    /* What is asked. */
    const struct api_route *route;
    char name[80]; /* of the resource in the path */
    bool gets;     /* the method is GET */
    char *query;
    const char *if_match, *if_none_match, *idempotency_key; /* in the arena; NULL where absent */
    enum api_encoding in, out;                              /* of the body, and of the answer */
    void *body;
    size_t size; /* of the body, in bytes */
    bool read;   /* `doc` and `ask` have been read from body and query */
    struct api_document doc;
    struct api_ask ask;

    /* Whose it is. */
    struct api *api;
    void (*drop)(struct api_request *request); /* the destructor: see life.c */
    struct api_tokens *tokens;     /* the set of tokens at admission; NULL: the service asks for none */
    const struct api_token *token; /* the token that the request bears; NULL: none was asked for */
    struct api_client *client;     /* the client whose requests in flight include this one */
    bool quiet;                    /* the service's own: nobody reads the answer */
    bool brief; /* other requests wait for the thread that serves it: see cost.h and turns.c */
    int64_t admitted_ns;
    api_reply_fn *reply;
    void *reply_context;
    bool (*left)(void *reply_context); /* see api_request_peer; NULL: nobody knows */

    /* What it is answered. */
    struct api_answer answer;
    struct api_response *ready; /* the answer, encoded before the change that it reports */
    struct nn_error err;
    struct api_pointer pointer; /* where in the request `err` is */
    enum api_scope missing;     /* with NN_E_SCOPE: the scope that the token lacks */
    double work, work_limit;    /* with NN_E_WORK: what the request takes, and what it may take */
    char allow[48];             /* with NN_E_METHOD: the methods of the path */

    /* What it holds, freed with it at the latest: the answer may show it. */
    struct nn_arena *arena;
    size_t reserved; /* bytes of the service's budget, */
    size_t papers;   /* and the part of them that document and arena take beyond API_UNASKED */
    bool beyond;     /* the budget's limit does not bind it */
    struct api_model *model;
    struct nn_params *params;
    struct api_context *context;
    enum { API_CLAIM_NONE, API_CLAIM_SHARED, API_CLAIM_EXCLUSIVE } claim; /* on the context */
    bool tells; /* its change has the statistics of the context */
    struct nn_run *run;
    struct api_batch *batch; /* the batch that computes its rows, in place of `run`, */
    uint64_t seed;           /* and the seed that the answer then reports */
    struct nn_backward *backward;
    struct nn_grads *grads;
    struct nn_params *fresh; /* a block for the model's next version, not published yet */

    /* Its change of a model. */
    struct api_request *next; /* in the model's queue, its round, or the list that waits for a checkpoint */
    int (*turn)(struct api_request *request);
    double lr;                     /* for this change alone; NaN: the optimizer's own */
    double scale;                  /* of the gradient that is accumulated */
    uint64_t seen;                 /* the version that the gradient is of */
    bool *only;                    /* by parameter: whether the gradient names it; NULL: it names all */
    int64_t samples;               /* that the gradient is of */
    struct nn_grads *sum;          /* of its round, where that is not `grads` */
    struct api_request *followers; /* the rest of its round, answered with it */
    struct api_model *restored;    /* the model that is to take the place of `model` */
    bool makes;                    /* the change makes a version: */
    uint64_t made;                 /* this one */
    uint64_t change;               /* the change's number among the model's changes */
    int raised;                    /* the durability that the change gives the model: enum api_durability */
    bool unstores;                 /* after the change, nothing of the model is stored */

    /* Its recording: see commit.h and effect.h. */
    bool wait;                 /* the answer waits until the change is durable */
    bool repeatable;           /* a pass from inputs: carried out again, it gives the same gradient */
    uint64_t drawn[4];         /* the random numbers that were drawn, */
    int n_drawn;               /* and how many */
    struct api_commit *commit; /* NULL: no record is written of it */
    struct api_effect *effect; /* of its Idempotency-Key, while it is in flight */
    struct api_replay *replay; /* the record that it carries out again; NULL: none, it is new */
};

/* Bounds the arena: beyond API_UNASKED bytes, which every request may have, it reserves what it takes. */
#define API_UNASKED 32768
void api_request_bound(struct api_request *request);

/* Sets the place of `err`, "/member" or with a name "/member/name", unless a place is set. Returns err.code. */
int api_point(struct api_request *request, const char *member, const char *name);

/* Reserves `bytes` of the memory budget until the request ends. NN_E_BUSY; NN_E_TOO_LARGE where waiting cannot help. */
int api_reserve(struct api_request *request, size_t bytes);
/* Reserves the bytes that a request takes beside its body and its tensors. The first API_UNASKED bytes are free. */
int api_count(struct api_request *request, size_t bytes);
void api_release(struct api *api, size_t bytes);
/* Moves part of a request's reservation to an object that outlives it, and that calls api_release. */
void api_reserve_move(struct api_request *request, size_t bytes);

/* The wire type of results: that of "dtype", or where it is absent that of `dtype`. */
enum api_dtype api_result_dtype(const struct api_request *request, enum nn_dtype dtype);
/* The type in which a parameter, or something of its shape, is returned where reals are returned in `as`. */
static inline enum api_dtype api_param_dtype(const struct nn_param *param, enum api_dtype as) {
    return param->dtype == NN_I64 ? API_I64 : as;
}

/* [A-Za-z0-9][A-Za-z0-9._-]{0,63} */
bool api_model_name_valid(const char *name);

int api_random(struct api_request *request, uint64_t *bits);
int64_t api_now_ms(struct api *api);
int64_t api_now_ns(struct api *api);
const struct nn_parallel *api_parallel(struct api *api);

/* --- the answer --- */

/* Adds a member to the answer; `value` is consumed. NN_E_NOMEM, also where `value` is NULL. */
int api_add(struct api_request *request, const char *name, json_t *value);
/* Adds a map of tensors to the answer, so that it is there even if it stays empty. */
void api_add_map(struct api_request *request, const char *map);
/* Adds a tensor to a map, and reserves the bytes of its encoding, so that encoding does not fail for the budget later.
 * `shape` has the batch dimension; `name` and `data` live as long as the request. NN_E_BUSY, NN_E_TOO_LARGE,
 * NN_E_NOMEM. */
int api_add_tensor(struct api_request *request, const char *map, const char *name,
                   const struct nn_shape *shape, enum nn_dtype from, const void *data, enum api_dtype as);
/* Encodes the answer into request->ready. NN_E_NOMEM, NN_E_BUSY. */
int api_answer_encode(struct api_request *request);
/* Frees request->ready, if it is set. The request stays. */
void api_answer_drop(struct api_request *request);
/* Frees the request of a response that shows nothing of it: sending may take long. */
void api_response_detach(struct api_response *response);
/* True while somebody waits for the answer: the peer is there, and the service is not stopping. Once false, it stays
 * false. */
bool api_is_wanted(const struct api_request *request);
/* Fails a request that is not wanted: NN_E_LEFT, or NN_E_BUSY where the service is stopping. */
int api_give_up(struct api_request *request);

/* Adds a header. An empty value adds none. */
void api_response_add(struct api_response *response, const char *name, const char *value);
/* Adds the headers for caches: an answer depends on Accept, and an answer to GET must be revalidated each time. */
void api_response_add_caching(struct api_response *response, const struct api_request *request);
/* The response of an error. NULL: memory is out, and the request stays the caller's. */
struct api_response *api_problem(struct api_request *request);
/* The response of a malloc'ed text. It owns the text and the request; NULL: it owns neither. */
struct api_response *api_response_of_text(struct api_request *request, char *text);

#define API_ROUTE(method, path, handler, ...) int handler(struct api_request *request);
#include "routes.def"
#undef API_ROUTE

#endif
