/* floor.c - what no implementation on this machine goes below, in this process. See support/job.h.
 *
 *     forward, gradients, apply   the matrix products of a perceptron's pass, alone: one call of BLAS each,
 *                                 on as many of its own threads, into memory that is written and not read
 *     copy                        ROWS megabytes from one place to another
 *
 * Both passes that go back take dW of every layer and dX of all but the first. */
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../server/pool.h"
#include "support/job.h"

/* --- products -------------------------------------------------------------------------------------- */

struct products {
    struct bench_job job;
    float *value[BENCH_MAX_WIDTHS];  /* [rows, width]: what a layer puts out, and the gradient there */
    float *weight[BENCH_MAX_WIDTHS]; /* [width, width before]: of layer i; none of the input */
    float *d_weight[BENCH_MAX_WIDTHS];
};

/* Numbers of a variance of 1 / k: products of k of them stay as large as they are. */
static float *filled(size_t n, int k) {
    float *x = bench_need(malloc(n * sizeof *x)), bound = sqrtf(3 / (float)k);
    bench_fill(x, n, -bound, bound);
    return x;
}

static void *begin_products(const struct bench_job *job) {
    struct products *p = bench_need(calloc(1, sizeof *p));
    p->job = *job;
    openblas_set_num_threads(job->threads);
    for (int i = 0; i < job->n_widths; i++) {
        p->value[i] = filled((size_t)job->rows * (size_t)job->width[i], 1);
        if (i == 0) continue;
        size_t numbers = (size_t)job->width[i] * (size_t)job->width[i - 1];
        p->weight[i] = filled(numbers, job->width[i - 1]);
        p->d_weight[i] = filled(numbers, 1);
    }
    return p;
}

static void end_products(void *state) {
    struct products *p = state;
    for (int i = 0; i < p->job.n_widths; i++) {
        free(p->value[i]);
        free(p->weight[i]);
        free(p->d_weight[i]);
    }
    free(p);
}

static void forward(void *state) {
    const struct products *p = state;
    for (int i = 1; i < p->job.n_widths; i++) {
        int m = p->job.rows, n = p->job.width[i], k = p->job.width[i - 1];
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, p->value[i - 1], k, p->weight[i], k,
                    0, p->value[i], n);
    }
}

static void forward_and_backward(void *state) {
    const struct products *p = state;
    forward(state);
    for (int i = p->job.n_widths - 1; i > 0; i--) {
        int m = p->job.rows, n = p->job.width[i], k = p->job.width[i - 1];
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, k, m, 1, p->value[i], n, p->value[i - 1], k,
                    0, p->d_weight[i], k);
        if (i == 1) break;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, k, n, 1, p->value[i], n, p->weight[i], k, 0,
                    p->value[i - 1], k);
    }
}

/* --- memory ---------------------------------------------------------------------------------------- */

#define PIECE ((size_t)1 << 20)

struct copy {
    struct srv_pool *pool; /* NULL: this thread alone */
    size_t pieces;
    char *from, *to;
};

static void *begin_copy(const struct bench_job *job) {
    struct nn_error err = {0};
    struct copy *c = bench_need(calloc(1, sizeof *c));
    if (job->threads > 1) c->pool = bench_need(srv_pool_new(job->threads - 1, 16, &err));
    c->pieces = (size_t)job->rows;
    c->from = bench_need(malloc(c->pieces * PIECE));
    c->to = bench_need(malloc(c->pieces * PIECE));
    memset(c->from, 1, c->pieces * PIECE);
    memset(c->to, 2, c->pieces * PIECE);
    return c;
}

static void end_copy(void *state) {
    struct copy *c = state;
    if (c->pool) srv_pool_free(c->pool);
    free(c->from);
    free(c->to);
    free(c);
}

static void copy_piece(void *state, size_t i) {
    const struct copy *c = state;
    memcpy(c->to + i * PIECE, c->from + i * PIECE, PIECE);
}

static void copy(void *state) {
    struct copy *c = state;
    for (size_t i = 0; !c->pool && i < c->pieces; i++) copy_piece(c, i);
    if (c->pool) srv_pool_parallel(c->pool, c->pieces, copy_piece, c);
}

int main(void) {
    static const struct bench_task tasks[] = {
        {"forward", begin_products, forward, end_products},
        {"gradients", begin_products, forward_and_backward, end_products},
        {"apply", begin_products, forward_and_backward, end_products},
        {"copy", begin_copy, copy, end_copy},
    };
    return bench_serve(tasks, sizeof tasks / sizeof *tasks);
}
