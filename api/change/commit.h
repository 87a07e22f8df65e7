/* commit.h - a change is recorded before it is made.
 *
 * In a model's turn, when nothing of the change can fail any more, api_commit encodes the answer and appends the record
 * that the model's durability asks for. Then the change is made. The request is answered when both are done: the change
 * is made and the record is durable. So an answer that says "durable" is true, and an error has changed nothing.
 *
 * A record holds the request itself where it can be carried out again. Otherwise, or where the result is smaller, it
 * holds the result. A request that is carried out again (`request->quiet`) goes through the same functions, and is not
 * recorded again. */
#ifndef API_COMMIT_H
#define API_COMMIT_H

#include "../model/model.h"

struct api_snapshot;

/* Records a change. If the change makes a version, request->makes is set, and request->made is the version's number.
 * Errors of this and the next three: NN_E_STORE, NN_E_NOMEM, NN_E_BUSY. */
int api_commit(struct api_request *request);
/* Records a change by a gradient: the request's own, or the `sum` of its round. */
int api_commit_gradient(struct api_request *request, struct nn_grads *grads, bool accumulate);
/* Records a change by the parameters that it makes. The request shares them until its record is durable. */
int api_commit_parameters(struct api_request *request, struct nn_params *next);
/* Records a change by the state that it makes, as a snapshot. `model` may be another than request->model. */
int api_commit_state_take(struct api_request *request, struct api_model *model, struct api_snapshot *state);

/* Appends a model's state as a record that no request waits for: later records build on it. */
int api_append_state_take(struct api_request *request, struct api_snapshot *state);
void api_commit_fini(struct api_request *request);

/* Before a turn: true if the record will need the body. */
bool api_commit_keeps_body(const struct api_request *request);

/* Checks that "wait" can be fulfilled. In a turn, or with the lock held. NN_E_VALUE. */
int api_check_wait(struct api_request *request);
/* Adds "durable_version" to an answer. */
int api_add_durable_version(struct api_request *request);

/* The change has ended with *code. True: its record is done too, and *code is the request's. False: the record is not
 * done; the request is answered when it is. */
bool api_commit_over(struct api_request *request, int *code);
/* True if a request that succeeded waits for a checkpoint, which will answer it. */
bool api_wait_for_checkpoint(struct api_request *request);
/* Answers the requests that wait for a checkpoint of the model (NULL: of any model) with this many of its changes. With
 * an error: fails them. */
void api_end_waiting(struct api *api, const struct api_model *model, uint64_t changes,
                     const struct nn_error *err);

#endif
