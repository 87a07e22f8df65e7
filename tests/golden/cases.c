/* cases.c - prints, as JSON, what golden values are wanted for: every operator's, loss's and optimizer's
 * examples. make_golden.py reads it. */
#include <stdio.h>

#include "../support/cases.h"

int main(void) {
    json_t *ops = json_array(), *optimizers = json_array();
    const struct nn_def *def;
    for (int i = 0; (def = nn_op_def(i)); i++) json_array_append_new(ops, test_case_of_op(def));
    for (int i = 0; (def = nn_optimizer_def(i)); i++)
        json_array_append_new(optimizers, test_case_of_optimizer(def));
    json_t *all = json_pack("{s:i, s:i, s:i, s:o, s:o}", "rows", CASE_ROWS, "steps", CASE_STEPS, "seed",
                            CASE_SEED, "ops", ops, "optimizers", optimizers);
    int failed = !all || json_dumpf(all, stdout, JSON_INDENT(1)) || puts("") < 0;
    json_decref(all);
    return failed;
}
