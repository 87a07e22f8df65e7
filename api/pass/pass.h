/* pass.h - what /forward and /backward share: from a document to a run with its inputs in place, and to a
 * backward pass with its targets and upstream gradients in place. */
#ifndef API_PASS_H
#define API_PASS_H

#include "../request/request.h"

/* The model that "model" names or specifies: request->params, and ->model unless it is stateless. */
int api_pass_model(struct api_request *request);
/* The graph of request->params. */
struct nn_graph *api_pass_graph(const struct api_request *request);

/* A list of node names, or NULL-terminated words, as flags by node, in the arena. Absent: NULL. */
int api_pass_nodes(struct api_request *request, const char *member, bool **flags);

/* "mode" (default `mode`), "seed" (drawn where it is not given), "first_row", and the rows of "inputs". */
int api_pass_options(struct api_request *request, enum nn_mode mode, struct nn_run_options *options);
/* "inputs" into rows of a run from `first` on, checked. */
int api_pass_fill(struct api_request *request, struct nn_run *run, int64_t first, int64_t rows);
/* A run over request->params. It is planned, reserved (*bytes), allocated, filled and checked, but not yet
 * run. */
int api_pass_run(struct api_request *request, const struct nn_run_options *options, size_t *bytes);

/* "outputs" of the answer: of a run, the nodes that are `wanted`, rows from `first` on. */
int api_pass_add_outputs(struct api_request *request, const struct nn_run *run, int64_t first, int64_t rows,
                         const bool *wanted);
/* The request's model and version, if it is not stateless. */
int api_pass_add_source(struct api_request *request);

/* A backward pass over `run`: losses (all, or those that "losses" names) if "targets" are given, "upstream",
 * "normalizer"; planned, reserved, allocated, filled and checked. `nodes` and `parameters` as in
 * nn_backward_options; *evaluated says what is evaluated of each loss, or is NULL. */
int api_pass_backward(struct api_request *request, const struct nn_run *run, const bool *nodes,
                      bool parameters, const struct nn_loss_options **evaluated);

/* What a plan over the graph takes at most, and what a pass does beside its numbers. */
size_t api_pass_plan_bytes(const struct nn_graph *graph);

#endif
