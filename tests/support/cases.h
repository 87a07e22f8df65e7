/* cases.h - what the golden values of a definition are for: its examples, described as JSON.
 *
 * tests/golden/make_golden.py reads this description and keeps it in the file that it makes; the tests
 * make it again and compare, so that values for examples, defaults or shapes of the past are noticed. */
#ifndef TEST_CASES_H
#define TEST_CASES_H

#include <jansson.h>

#include "../../core/nn.h"

#define CASE_ROWS  5  /* the batch of every golden case */
#define CASE_STEPS 20 /* of an optimizer */
#define CASE_SEED  42 /* of passes that draw random numbers */

/* {"name", "loss", "kinks", "rng", "defaults": {attribute: value}, "examples": [...]}; an example is
 * {"attrs": {...}, "inputs": [shape, ...], "ids", "classes"} and, of an operator, "params": {suffix: shape};
 * of a loss, "unreduced": shape and "target": shape. New reference. */
json_t *test_case_of_op(const struct nn_def *def);
json_t *test_case_of_optimizer(const struct nn_def *def);

/* "weight" of "op.weight"; "op" of "op" */
const char *test_suffix(const struct nn_param *param);

#endif
