/* same_shape.h - shape inference of the operators whose inputs and output all have one shape. */
#ifndef NN_SAME_SHAPE_H
#define NN_SAME_SHAPE_H

#include "../op.h"

static inline int nn_infer_same_shape(struct nn_infer *infer, struct nn_error *err) {
    for (int i = 1; i < infer->n_inputs; i++)
        if (!nn_shape_equal(&infer->in[i], &infer->in[0]))
            return nn_fail_shape(err, &infer->in[0], &infer->in[i],
                                 "all inputs must have the shape of the first");
    infer->out = infer->in[0];
    return NN_OK;
}

/* Of a loss whose target has the shape of its input. */
static inline int nn_infer_like_target(struct nn_infer *infer, struct nn_error *err) {
    infer->n_forms = 1;
    infer->form[0] = (struct nn_target_form){.ids = false, .shape = infer->in[0]};
    return nn_infer_same_shape(infer, err);
}

#endif
