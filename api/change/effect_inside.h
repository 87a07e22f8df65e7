/* effect_inside.h - what the two files of the keys share: the table is effect.c's. */
#ifndef API_EFFECT_INSIDE_H
#define API_EFFECT_INSIDE_H

#include <xxhash.h>

#include "effect.h"
#include "../request/service.h"

#define A_NODE 64 /* bytes of the table's own for a key */

struct api_effect {
    atomic_int refs;
    XXH128_hash_t body; /* of the first request, */
    XXH64_hash_t head;  /* and of its method, path and query */
    size_t reserved;
    char *members; /* JSON; NULL until it is noted */
    int status;
    char *location; /* or NULL */

    /* Guarded by the registry's lock. */
    bool committed;  /* the change is about to be made, or made: */
    char birth[17];  /* of the model, */
    uint64_t change; /* which of its changes it is, */
    uint64_t seq;    /* and of which record; 0: of none */
    bool done;
    bool late;               /* who waited for a checkpoint with it got none, */
    int64_t durable_version; /* but this version was durable; -1: none */
    int64_t expires_ms;
    struct api_effect *next; /* the one that expires after it */
    char key[]; /* and behind it, on a line of its own, the name of the token, for each has its own keys */
};

/* The table's order. */
int api_effect_by_key(const void *a, const void *b);
/* Lets go of a reference, and with the last one of the effect and its part of the budget. */
void api_effect_unref(struct api *api, struct api_effect *effect);
/* With the lock held: one that is done expires behind those that were done before. */
void api_effect_append(struct api *api, struct api_effect *effect);
/* Visible ASCII, and not too long. */
bool api_effect_is_key(const char *key);

#endif
