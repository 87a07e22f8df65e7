/* replay.h - carries out a record of the journal again. */
#ifndef API_REPLAY_H
#define API_REPLAY_H

#include "model/model.h"
#include "wire/record.h"

/* A record that is carried out. */
struct api_replaying {
    struct api *api;
    const struct api_record *record;
    uint64_t seq;
    unsigned known; /* API_MAY_BE_GONE, API_FOREIGN */
    bool wanted;
    struct api_request *request; /* NULL from when it begins */
    struct api_replay replay;    /* how it ended */
    struct nn_error *err;
};

/* Carries it out. The change's own error is in `replay`; NN_E_CORRUPT or NN_E_NOMEM in `err`: it did not begin. */
int api_replay(struct api_replaying *again);
/* Records NN_E_CORRUPT, which names the record. Returns it. */
int api_replay_corrupt(struct api_replaying *again, const char *what);
/* Adds a model to the registry; the caller keeps its reference. Consumes the request. */
int api_list_model_take(struct api_request *request, struct api_model *model, struct nn_error *err);

#endif
