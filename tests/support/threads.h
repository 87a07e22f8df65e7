/* threads.h - an nn_parallel for tests, on threads that it starts for each call. */
#ifndef TEST_THREADS_H
#define TEST_THREADS_H

#include "../../core/nn.h"

#define TEST_MAX_THREADS 64

/* Work spread over this many threads, 1 to TEST_MAX_THREADS. Holds nothing. */
struct nn_parallel test_parallel(int threads);

#endif
