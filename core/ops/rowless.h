/* rowless.h - operators without inputs: their output has no rows, and its shape is an attribute. */
#ifndef NN_ROWLESS_H
#define NN_ROWLESS_H

#include <string.h>

#include "../op.h"

#define NN_SHAPE_ROW                                                                                         \
    {                                                                                                        \
        .name = "shape", .type = NN_INTS, .required = true, .min = 1, .max = NN_MAX_ELEMENTS,                \
        .list_max = NN_MAX_RANK - 1, .text = "dimensions of the value, which has no batch dimension"         \
    }

/* The shape that an attribute gives. NN_E_VALUE, NN_E_SIZE. */
static inline int nn_infer_given_shape(struct nn_infer *infer, const union nn_attr_value *shape,
                                       struct nn_error *err) {
    infer->out.rank = (int)shape->list.n;
    for (int i = 0; i < infer->out.rank; i++) infer->out.dim[i] = shape->list.ints[i];
    return nn_shape_check(&infer->out, err);
}

#endif
