/* job.c - see job.h. */
#include "job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double bench_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void *bench_need(void *p) {
    if (!p) {
        perror("bench");
        exit(EXIT_FAILURE);
    }
    return p;
}

void bench_fill(float *x, size_t n, float low, float high) {
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = low + (high - low) * (float)((state >> 8 | 1) + 1) * 0x1p-25F;
    }
}

/* Of "2 apply 256 784-512-512-10". */
static struct bench_job parse(const char *text) {
    struct bench_job job = {0};
    char *end;
    job.threads = (int)strtol(text, &end, 10);
    text = end + strspn(end, " ");
    size_t size = strcspn(text, " \n");
    if (size < sizeof job.what) memcpy(job.what, text, size);
    job.rows = (int)strtol(text + size, &end, 10);
    do {
        text = *end ? end + 1 : end;
        job.width[job.n_widths++] = (int)strtol(text, &end, 10);
    } while (*end == '-' && job.n_widths < BENCH_MAX_WIDTHS);
    return job;
}

static const struct bench_task *find(const struct bench_task *tasks, size_t n, const char *what) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(tasks[i].what, what) == 0) return &tasks[i];
    fprintf(stderr, "bench: no job is called \"%s\"\n", what);
    exit(EXIT_FAILURE);
}

int bench_serve(const struct bench_task *tasks, size_t n_tasks) {
    const struct bench_task *task = NULL;
    struct bench_job job;
    void *state = NULL;
    char line[4096], last[sizeof line] = "";
    while (fgets(line, sizeof line, stdin)) {
        char *key;
        long count = strtol(line, &key, 10);
        if (!task || strcmp(key, last) != 0) {
            job = parse(key);
            if (task) task->end(state);
            task = find(tasks, n_tasks, job.what);
            state = task->begin(&job);
            memcpy(last, key, strlen(key) + 1);
        }
        task->step(state);
        double begin = bench_seconds();
        for (long i = 0; i < count; i++) task->step(state);
        printf("%.9f\n", bench_seconds() - begin);
        fflush(stdout);
    }
    if (task) task->end(state);
    return EXIT_SUCCESS;
}
