/* attrs.h - attributes written as JSON, as the examples in the operators' tables are. */
#ifndef TEST_ATTRS_H
#define TEST_ATTRS_H

#include "../../core/nn.h"

/* `members` are those of a JSON object, without the braces. The result lives in `arena`. NULL with `err`
 * set if an attribute is refused; text that is not JSON fails the test. */
struct nn_attrs *test_attrs(const struct nn_def *def, const char *members, struct nn_arena *arena,
                            struct nn_error *err);

#endif
