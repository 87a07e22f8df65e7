/* rng.h - counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy
 * as 1, 2, 3", SC 2011, section 3.3). A draw depends on its key and its counter and on nothing else, so
 * a mask can be made in any order, by any number of threads, or again. */
#ifndef NN_RNG_H
#define NN_RNG_H

#include <stdint.h>

/* Who draws: the request's or model's seed, and a node (or, for initial values, a parameter). */
struct nn_rng_key {
    uint64_t seed;
    uint32_t stream;
};

/* Streams of initial parameter values, apart from the nodes' own. */
#define NN_RNG_PARAMS 0x80000000u

/* Four independent words for columns 4*block .. 4*block+3 of a row. */
void nn_rng_draw(struct nn_rng_key key, uint64_t row, uint32_t block, uint32_t out[4]);

/* A word as a number in [0, 1), in steps of 2^-24, which float and double both hold exactly. */
static inline double nn_rng_unit(uint32_t word) { return (double)(word >> 8) * 0x1p-24; }

#endif
