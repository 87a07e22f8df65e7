/* turns.h - the queue of a model's changes. One thread at a time carries them out; nobody blocks. */
#ifndef API_TURNS_H
#define API_TURNS_H

#include "../model/model.h"

/* Queues the request for its model. `turn` runs once, alone among the model's changes, and its code ends the request.
 * Returns API_LATER. */
int api_model_turn(struct api_request *request, int (*turn)(struct api_request *request));

/* With the lock held: puts the request into the queue. True: the queue was idle, and the caller must drain it, without
 * the lock. A thread that must be `brief` hands the changes behind its own to another thread. */
bool api_model_enqueue(struct api_model *model, struct api_request *request);
void api_model_drain(struct api *api, struct api_model *model, bool brief);

/* Settles the rounds whose time is up. */
void api_models_tick(struct api *api);
/* In a turn that has removed the model: the request is answered last, when no change waits any more. So the model's
 * memory is free again when its client has read the answer. Returns API_LATER. */
int api_model_farewell(struct api_request *request);

#endif
