/* fingerprint.c - what the bits of results depend on. */
#include <stdio.h>

#include "store.h"

void api_fingerprint(char *text, size_t size) {
    snprintf(text, size, "%s; loops %s; compiler %s", nn_blas_name(), nn_loops_name(), __VERSION__);
}
