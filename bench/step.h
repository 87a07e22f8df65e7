/* step.h - the training step that all peers of the benchmark take: a perceptron, cross entropy, SGD.
 * A peer is a program that reads a count from standard input, takes so many steps, and prints how many
 * seconds they took; bench/run asks them in turn. */
#ifndef BENCH_STEP_H
#define BENCH_STEP_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { FEATURES = 784, HIDDEN = 512, CLASSES = 10 };

static inline double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Numbers in [0, 1) and labels: the values do not matter to the time, but none is 0. */
static inline void fill_batch(float *x, long *y, int rows) {
    unsigned state = 1;
    for (int i = 0; i < rows * FEATURES; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)((state >> 8) + 1) * 0x1p-25F;
    }
    for (int i = 0; i < rows; i++) y[i] = i % CLASSES;
}

/* Serves until standard input ends. */
static inline int serve_steps(void (*step)(void *peer), void *peer) {
    char line[32];
    while (fgets(line, sizeof line, stdin)) {
        long count = strtol(line, NULL, 10);
        double begin = seconds();
        for (long i = 0; i < count; i++) step(peer);
        printf("%.9f\n", seconds() - begin);
        fflush(stdout);
    }
    return EXIT_SUCCESS;
}

static inline void *need(void *p) {
    if (!p) {
        perror("bench");
        exit(EXIT_FAILURE);
    }
    return p;
}

#endif
