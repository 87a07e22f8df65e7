/* fingerprint.c - names everything that the bits of results depend on. */
#include <inttypes.h>
#include <stdio.h>

#include "store.h"

extern const char
    api_build_hash[]; /* a hash of the sources and flags of core/ and api/; the Makefile writes it */

void api_fingerprint(char *text, size_t size) {
    snprintf(text, size, "%s; loops %s; libm %016" PRIx64 "; compiler %s; build %s", nn_blas_name(),
             nn_loops_name(), nn_libm_bits(), __VERSION__, api_build_hash);
}
