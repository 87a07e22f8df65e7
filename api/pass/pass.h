/* pass.h - the steps that /forward and /backward share: a run with its inputs, and a backward pass with its targets and
 * upstream gradients. */
#ifndef API_PASS_H
#define API_PASS_H

#include "../request/request.h"

/* Sets request->params, and request->model unless the model is stateless (given by a specification). Over a stateless
 * model the work of the pass, with its backward pass if `backward`, is checked here, before parameters are drawn. Over
 * a registered model the caller checks it. */
int api_pass_model(struct api_request *request, bool backward);
/* The graph of request->params. */
struct nn_graph *api_pass_graph(const struct api_request *request);

/* "outputs": a flag for each node, in the arena; NULL where the member is absent. NN_E_VALUE, NN_E_UNKNOWN_NAME. */
int api_pass_outputs(struct api_request *request, bool **flags);

/* Reads "mode" (default `mode`), "seed" (drawn if absent), "first_row", and counts the rows of "inputs". */
int api_pass_options(struct api_request *request, enum nn_mode mode, struct nn_run_options *options);
/* Converts "inputs" into the rows of a run from `first` on, and checks them. */
int api_pass_fill(struct api_request *request, struct nn_run *run, int64_t first, int64_t rows);
/* Makes request->run over request->params: planned, reserved (*bytes), allocated, filled and checked. Nothing is
 * computed yet. */
int api_pass_run(struct api_request *request, const struct nn_run_options *options, size_t *bytes);

/* api_pass_forward runs request->run. api_pass_gradients runs request->backward, into request->grads. NN_E_LEFT,
 * NN_E_BUSY: the request was given up before the end (api_give_up). */
int api_pass_forward(struct api_request *request);
int api_pass_gradients(struct api_request *request);

/* Adds "outputs" to the answer: of each `wanted` node of a run, `rows` rows from `first` on. */
int api_pass_add_outputs(struct api_request *request, const struct nn_run *run, int64_t first, int64_t rows,
                         const bool *wanted);
/* Adds the model and its version to the answer; nothing if the model is stateless. */
int api_pass_add_source(struct api_request *request);

/* Makes request->backward over `run`: planned, reserved, allocated, filled and checked. Losses are evaluated if
 * "targets" are given: those that "losses" names, or all. *evaluated has an entry for each loss, or is NULL. `nodes`
 * and `parameters` as in nn_backward_options. */
int api_pass_backward(struct api_request *request, const struct nn_run *run, const bool *nodes,
                      bool parameters, const struct nn_loss_options **evaluated);

/* An upper bound of the bytes that a plan over the graph takes, and a pass beside its numbers. */
size_t api_pass_plan_bytes(const struct nn_graph *graph);

#endif
