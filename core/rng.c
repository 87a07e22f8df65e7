/* rng.c - one block of random numbers. */
#include "rng.h"

void nn_rng_draw(struct nn_rng_key key, uint64_t row, uint32_t block, uint32_t out[4]) {
    nn_rng_draw_blocks(key, row, block, 1, out);
}
