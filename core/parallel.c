/* parallel.c - cutting work into ranges by its size alone. */
#include "op.h"

struct ranges {
    int64_t n, chunk;
    void (*fn)(void *arg, int64_t begin, int64_t end);
    void *arg;
};

static void one_range(void *arg, size_t i) {
    const struct ranges *r = arg;
    int64_t begin = (int64_t)i * r->chunk, end = begin + r->chunk;
    r->fn(r->arg, begin, end < r->n ? end : r->n);
}

void nn_parallel_ranges(const struct nn_parallel *par, int64_t n, int64_t chunk,
                        void (*fn)(void *arg, int64_t begin, int64_t end), void *arg) {
    struct ranges ranges = {n, chunk, fn, arg};
    size_t count = (size_t)((n + chunk - 1) / chunk);
    if (par && par->run && count > 1) {
        par->run(par->pool, count, one_range, &ranges);
        return;
    }
    for (size_t i = 0; i < count; i++) one_range(&ranges, i);
}
