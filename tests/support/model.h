/* model.h - small graphs, written down as rows. */
#ifndef TEST_MODEL_H
#define TEST_MODEL_H

#include "../../core/nn.h"

/* One layer; members that are left out are NULL, as in nn_layer. Rows end with a NULL op. */
struct row {
    const char *op, *name;
    const char *inputs[4]; /* ends with NULL; none: the default */
    const char *attrs;     /* members of a JSON object */
    bool frozen;
    struct nn_tie ties[3]; /* ends with a NULL suffix */
};

/* An unsealed graph with the real inputs "x" and, unless its rank is negative, "z". Cannot fail. */
struct nn_graph *test_inputs(enum nn_dtype dtype, struct nn_shape x, struct nn_shape z);
#define NO_INPUT ((struct nn_shape){.rank = -1})

/* Adds rows; stops at the first error. */
int test_add(struct nn_graph *graph, const struct row *rows, struct nn_error *err);
/* A loss on `input`, with all else at its default. */
int test_add_loss(struct nn_graph *graph, const char *op, const char *input, struct nn_error *err);

/* All of it, sealed: a graph over "x". Fails the test where that fails. */
struct nn_graph *test_model(enum nn_dtype dtype, struct nn_shape x, const struct row *rows);
/* The same, which has to be refused with this code at this layer. The error is handed on. */
struct nn_error test_model_refused(struct nn_shape x, struct nn_shape z, const struct row *rows,
                                   enum nn_code code, int layer);

#endif
