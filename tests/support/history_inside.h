/* history_inside.h - what the two files of the history share. */
#ifndef TEST_HISTORY_INSIDE_H
#define TEST_HISTORY_INSIDE_H

#include "history.h"

enum { TEST_GROUPED = 1, TEST_INSIDE = 2, TEST_DURING = 4 };

struct test_step {
    const char *request, *model;
    unsigned flags;
    const char *key, *body;
};
extern const struct test_step test_steps[];
extern const char *const test_models[TEST_MODELS];

bool test_step_is(int step, const char *request);
/* Whether it is a request. */
bool test_step_sends(int step);
/* Its body as it is to be sent now, malloc'ed; NULL: none. */
char *test_step_body(struct test_stored *stored, int step, const char *context);
struct test_request test_step_request(int step, char method[16], const char *body);
/* Random numbers are those of the step, in this life. */
void test_step_seed(struct test_stored *stored, int step, int life);

void test_state_read(struct test_stored *stored, const char *model, struct test_model_state *state);
void test_state_free(struct test_model_state *state);

#endif
