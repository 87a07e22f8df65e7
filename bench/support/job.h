/* job.h - what the benchmark's programs have in common. Each reads jobs from standard input, one a line,
 *
 *     COUNT THREADS WHAT ROWS WIDTHS        20 2 apply 256 784-512-512-10
 *
 * does WHAT so many times, and prints how many seconds that took. WIDTHS are those of a perceptron: the
 * input's, then every linear layer's, with a relu between two of them. */
#ifndef BENCH_JOB_H
#define BENCH_JOB_H

#include <stddef.h>
#include <stdint.h>

#define BENCH_MAX_WIDTHS 256

struct bench_job {
    int threads;
    char what[32];
    int rows;
    int n_widths; /* at least 2 */
    int width[BENCH_MAX_WIDTHS];
};

/* A row of a program's table. `begin` prepares what `step` takes, untimed; the states of the last BENCH_KEPT
 * jobs that differ in more than their count are kept. */
#define BENCH_KEPT 4
struct bench_task {
    const char *what;
    void *(*begin)(const struct bench_job *job);
    void (*step)(void *state);
    void (*end)(void *state);
};

/* Serves until standard input ends. Each job is preceded by one step that is not timed. */
int bench_serve(const struct bench_task *tasks, size_t n_tasks);

double bench_seconds(void);
/* `p`, or the end of the program if it is NULL. */
void *bench_need(void *p);
/* Numbers in [low, high), never 0: the same each time. */
void bench_fill(float *x, size_t n, float low, float high);

#endif
