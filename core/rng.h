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

/* The same for `n` blocks, at most NN_RNG_BLOCKS, from this one on; word i of block b goes to
 * out[i * n + b]. Inline, so that it is compiled for the instructions of who calls it. The constants are those
 * of the paper, section 3.3 and table 2. */
#define NN_RNG_BLOCKS 32
static inline void nn_rng_draw_blocks(struct nn_rng_key key, uint64_t row, uint32_t block, uint32_t n,
                                      uint32_t *out) {
    uint32_t *restrict c0 = out, *restrict c1 = c0 + n, *restrict c2 = c1 + n, *restrict c3 = c2 + n;
    uint32_t k0 = (uint32_t)key.seed, k1 = (uint32_t)(key.seed >> 32);
    for (uint32_t b = 0; b < n; b++)
        c0[b] = block + b, c1[b] = key.stream, c2[b] = (uint32_t)row, c3[b] = (uint32_t)(row >> 32);
    for (int round = 0; round < 10; round++) {
        for (uint32_t b = 0; b < n; b++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * c0[b], p1 = (uint64_t)0xCD9E8D57u * c2[b];
            c0[b] = (uint32_t)(p1 >> 32) ^ c1[b] ^ k0;
            c1[b] = (uint32_t)p1;
            c2[b] = (uint32_t)(p0 >> 32) ^ c3[b] ^ k1;
            c3[b] = (uint32_t)p0;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

/* A word as a number in [0, 1), in steps of 2^-24, which float and double both hold exactly. */
static inline double nn_rng_unit(uint32_t word) { return (double)(word >> 8) * 0x1p-24; }

#endif
