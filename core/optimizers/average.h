/* average.h - a running average, as torch.lerp computes it: exact at both ends. The formula old + share (now - old)
 * alone would lose a small `now` beside a large `old` where the share is large: 1e4 + (1e-4 - 1e4) is 0 in float. */
#ifndef NN_AVERAGE_H
#define NN_AVERAGE_H

#include <stdbool.h>

#include "../real.h"

/* (1 - share) old + share now; `keep` is 1 - share. The condition chooses operands rather than one of two sums, so
 * that a loop over the function vectorises. */
static inline real nn_average(real old, real now, real keep, real share) {
    const bool mostly_old = nn_re(share) < nn_re((real)0.5);
    return (mostly_old ? old : now) + (mostly_old ? share : -keep) * (now - old);
}

#endif
