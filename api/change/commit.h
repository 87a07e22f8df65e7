/* commit.h - a change is written down before it is made.
 *
 * In a model's turn, when nothing of the change can fail any more, api_commit encodes its answer, and appends the
 * record that the model's durability asks for; then the change is made. It is answered when both are over: the
 * change made, and the record durable. So what is told as durable is, and an error has changed nothing.
 *
 * A record is the request itself where that can be carried out again, and otherwise, or where it is smaller, what came
 * of it. Carried out again (`request->quiet`), a change goes through the same functions, and is written down no
 * more. */
#ifndef API_COMMIT_H
#define API_COMMIT_H

#include "../request/request.h"
#include "../model/spec.h"

struct api_model;
struct api_snapshot;

/* Versions before the current one that a record may read. */
#define API_REPLAY_VERSIONS 4

/* With request->made set, if the change makes a version. All: NN_E_STORE, NN_E_NOMEM, NN_E_BUSY. */
int api_commit(struct api_request *request);
/* A change by a gradient, which is the request's own or its `sum`. */
int api_commit_gradient(struct api_request *request, struct nn_grads *grads, bool accumulate);
/* A change to parameters that are known: they are, and stay, the request's too. */
int api_commit_parameters(struct api_request *request, struct nn_params *next);
/* A change to a state as a snapshot has it, of a model that need not be the request's own. */
int api_commit_state_take(struct api_request *request, struct api_model *model, struct api_snapshot *state);

/* A model's state as a record of its own, for the records behind it to be based on. */
int api_append_state_take(struct api_request *request, struct api_snapshot *state);
void api_commit_fini(struct api_request *request);

/* Before a turn: whether the body is to be kept for the record. */
bool api_commit_keeps_body(const struct api_request *request);

/* Reads "wait" (or ?wait=) of a request: NN_E_VALUE. */
int api_read_wait(struct api_request *request);
/* Whether what a request waits for can come at all. In a turn, or with the lock held. NN_E_VALUE. */
int api_check_wait(struct api_request *request);
/* Adds "durable_version" to an answer. */
int api_add_durable_version(struct api_request *request);

/* The change has ended with *code. True: so has all else, and *code is what the request ends with. False: whoever
 * comes last answers it. */
bool api_commit_over(struct api_request *request, int *code);
/* Whether a request that succeeded waits for a checkpoint, which answers it then. */
bool api_wait_for_checkpoint(struct api_request *request);
/* Answers those who wait for a checkpoint of the model (NULL: of any) that has this many of its changes. */
void api_end_waiting(struct api *api, const struct api_model *model, uint64_t changes,
                     const struct nn_error *err);

#endif
