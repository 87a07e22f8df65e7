/* expand.h - an operator that no model names: sealing inserts it where an operator that takes values with rows alone
 * reads one without rows. Every row of its output is the one sample of its input. */
#ifndef NN_EXPAND_H
#define NN_EXPAND_H

#include "op.h"

extern const struct nn_op nn_expand;

#endif
