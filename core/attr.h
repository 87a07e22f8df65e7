/* attr.h - what core itself does with attributes; nn.h has the setting of them. */
#ifndef NN_ATTR_H
#define NN_ATTR_H

#include "nn.h"

/* How many rows a definition's attribute table has. */
int nn_attrs_count(const struct nn_def *def);

/* Whether every required attribute was set. NN_E_VALUE with the missing one's name. */
int nn_attrs_require(const struct nn_attrs *attrs, struct nn_error *err);

const struct nn_def *nn_attrs_definition(const struct nn_attrs *attrs);
/* The values in the order of the table; they live as long as the attributes' arena. */
const union nn_attr_value *nn_attrs_values(const struct nn_attrs *attrs);

/* A copy, lists included, that lives in `arena`: of an array, so that the caller may change a scalar in
 * it. NULL when memory is out. */
union nn_attr_value *nn_attrs_copy(const struct nn_attrs *attrs, struct nn_arena *arena);

#endif
