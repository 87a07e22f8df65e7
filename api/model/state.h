/* state.h - the part of an optimizer's state that is not in its tensors: the steps taken, by parameter. Answers,
 * requests and snapshots have two members for it:
 *
 *   steps   the number of steps that each trainable parameter has taken: one number where all have taken the same,
 *           else an object by their names
 *   fresh   the names of the state's tensors that the next step overwrites without reading them, as SGD's first step
 *           does with the momentum; absent where there are none
 *
 * A tensor of the state is named SLOT.PARAMETER: "exp_avg.0.weight". */
#ifndef API_STATE_H
#define API_STATE_H

#include "../request/request.h"

struct api_state {
    const struct nn_graph *graph;
    struct nn_optimizer *optimizer;
    uint64_t *steps; /* by parameter; 0 for frozen ones */
    bool *fresh;     /* by slot, and within a slot by parameter */
};

/* Copies the optimizer's state into lists in the arena. False: memory is out. */
bool api_state_init(struct api_state *state, struct nn_arena *arena, const struct nn_graph *graph,
                    struct nn_optimizer *optimizer);
/* The tensor's name, "exp_avg.0.weight", in the arena. NULL: memory is out. */
const char *api_state_name(struct nn_arena *arena, const char *slot, const char *param);

/* The members as JSON. *fresh is NULL where the member is absent. NULL, or nonzero: memory is out. */
json_t *api_state_steps_json(const struct api_state *state);
int api_state_fresh_json(const struct api_state *state, struct nn_arena *arena, json_t **fresh);
/* An upper bound of the bytes of the two members as jansson's values. */
size_t api_state_bytes(const struct api_state *state);

/* Reads the members; `fresh` is NULL where it is absent. NN_E_VALUE, NN_E_UNKNOWN_NAME, NN_E_NOMEM, with the
 * pointer. */
int api_state_read(struct api_request *request, struct api_state *state, const json_t *steps,
                   const json_t *fresh);
/* Sets the optimizer's state to this one. */
void api_state_set(const struct api_state *state);

#endif
