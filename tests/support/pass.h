/* pass.h - one pass forward and backward through a graph, with every number a double whatever the graph's
 * own type, so that one test serves float and double. (float to double and back is exact.) */
#ifndef TEST_PASS_H
#define TEST_PASS_H

#include "../../core/nn.h"

#define PASS_MAX 16 /* values, parameters, losses */

struct pass {
    /* Given. Arrays go by input, parameter, value or loss. */
    struct nn_graph *graph;
    struct nn_params *params; /* borrowed; NULL: a block of its own, filled from w */
    struct nn_run_options options;
    const double *x[PASS_MAX];
    const double *w[PASS_MAX];        /* NULL: zeros */
    const double *upstream[PASS_MAX]; /* NULL: none at this value */
    const double *target[PASS_MAX];   /* losses are evaluated if there is one for the first */
    bool target_ids[PASS_MAX];
    const double *weight[PASS_MAX];
    bool weight_full[PASS_MAX];
    double divisor[PASS_MAX]; /* the normalizer; 0: the batch's own */
    bool unwanted[PASS_MAX];  /* values whose gradient is not asked for */
    bool no_parameters;       /* nor those of the parameters */
    bool forward_only;
    int backwards; /* how many passes back, all added to the same gradients; 0: one */
    const struct nn_parallel *par;

    /* Answered, in the arena that pass_run was given. */
    double *y[PASS_MAX];     /* by value */
    double *d_x[PASS_MAX];   /* by value */
    double *d_w[PASS_MAX];   /* by parameter; NULL if it is not trained */
    double *seen[PASS_MAX];  /* by parameter: the statistics of a buffer; NULL if it is none */
    double *after[PASS_MAX]; /* and what a step makes of the buffer */
    double loss[PASS_MAX], normalizer[PASS_MAX];
};

/* All of it: plans, run, checks, forward, backward. The first error, of whatever stage. */
int pass_run(struct pass *pass, struct nn_arena *arena, struct nn_error *err);

/* n numbers between core's types and double. */
void test_narrow(const double *from, enum nn_dtype dtype, void *to, int64_t n);
void test_widen(const void *from, enum nn_dtype dtype, double *to, int64_t n);

/* A graph of this operator or loss alone, sealed: inputs "x0", "x1", ..., and a layer "op", or a loss on
 * "x0" (and a layer that nothing reads). Of `how`, a loss takes sum and sample_weight; NULL: a plain mean. NULL with `err` set. */
struct nn_graph *test_graph_of(const struct nn_def *def, const struct nn_example *example,
                               enum nn_dtype dtype, const struct nn_loss *how, struct nn_error *err);

#endif
