/* effect_inside.h - struct api_effect, which effect.c and effect_stored.c share. */
#ifndef API_EFFECT_INSIDE_H
#define API_EFFECT_INSIDE_H

#include <xxhash.h>

#include "../request/service.h"
#include "effect.h"

struct api_effect {
    atomic_int refs;
    XXH128_hash_t body; /* hash of the first request's body, */
    XXH64_hash_t head;  /* and of its method, path and query */
    size_t reserved;
    char *members; /* of the answer, as JSON; NULL until it is noted */
    int status;
    char *location; /* or NULL */
    char *model;    /* the name of the model that changed; "": unknown, of a key that format 0 stored */

    /* Guarded by the registry's lock. */
    bool committed;          /* the change is made, or about to be made */
    char birth[17];          /* of the model */
    uint64_t change;         /* its number among the model's changes */
    uint64_t seq;            /* its record; 0: none */
    bool done;               /* the request has succeeded; the key expires at expires_ms */
    bool late;               /* the checkpoint that the request waited for failed, */
    int64_t durable_version; /* and this version was durable then; -1: none */
    int64_t expires_ms;      /* by api_effects_now */
    struct api_effect *next; /* the next in the order in which they expire */
    const char *key; /* behind the struct: the key, and on a second line its owner (see ../request/token.h) */
};

/* An effect without an answer. `key` and `owner` are copied. NULL: memory is out. */
struct api_effect *api_effect_new(const char *key, const char *owner);
/* The clock by which keys expire: that of the process; while recovering, the time of the records. */
int64_t api_effects_now(struct api *api);
/* The order of the table. */
int api_effect_by_key(const void *a, const void *b);
/* Gives up a reference. The last one frees the effect and its reservation. */
void api_effect_unref(struct api *api, struct api_effect *effect);
/* With the lock held: appends a finished effect to the list in which effects expire. */
void api_effect_append(struct api *api, struct api_effect *effect);
/* True if the text is a key: visible ASCII, and not too long. */
bool api_effect_is_key(const char *key);

#endif
