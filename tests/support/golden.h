/* golden.h - reference values made by tests/golden/make_golden.py, read from tests/golden/values.
 * Whatever is missing, malformed or of another shape than expected fails the test. */
#ifndef TEST_GOLDEN_H
#define TEST_GOLDEN_H

#include <jansson.h>

#include "../../core/nn.h"

struct golden;

/* The file of this name. `now` (consumed) is the description that its values have to be for; NULL: any. */
struct golden *golden_open(const char *name, json_t *now);
void golden_close(struct golden *golden);

/* How many tensors there are. */
size_t golden_count(const struct golden *golden);
/* A tensor of this shape, converted to double. Lives until golden_close. */
const double *golden_get(struct golden *golden, const struct nn_shape *shape, const char *name, ...)
    __attribute__((format(printf, 3, 4)));

#endif
