/* witness.h - an ordinary client that goes on working while a test does something to the daemon.
 *
 * It asks for forwards on a thread of its own, on one connection that stays open and now and then on a new one, and
 * remembers whether any was not answered as it should. */
#ifndef TEST_WITNESS_H
#define TEST_WITNESS_H

/* Makes a model of its own at `url` and begins. One at a time. */
void test_witness_start(const char *url);
/* Has it make some more calls, and ends it. Fails the test if one of all was not answered as the first. */
void test_witness_stop(void);

#endif
