/* job.c - see job.h. */
#include "job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_LINE 4096

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

/* What a job's line says behind its count, and what its task made of that. */
struct kept {
    char key[MAX_LINE];
    struct bench_job job;
    const struct bench_task *task; /* NULL: none */
    void *state;
};

static void drop(struct kept *k) {
    if (k->task) k->task->end(k->state);
    k->task = NULL;
}

static void prepare(struct kept *k, const char *key, const struct bench_task *tasks, size_t n) {
    drop(k);
    memcpy(k->key, key, strlen(key) + 1);
    k->job = parse(key);
    k->task = find(tasks, n, k->job.what);
    k->state = k->task->begin(&k->job);
}

int bench_serve(const struct bench_task *tasks, size_t n_tasks) {
    static struct kept kept[BENCH_KEPT];
    int oldest = 0;
    char line[MAX_LINE];
    while (fgets(line, sizeof line, stdin)) {
        char *key;
        long count = strtol(line, &key, 10);
        struct kept *k = kept;
        while (k < kept + BENCH_KEPT && !(k->task && strcmp(k->key, key) == 0)) k++;
        if (k == kept + BENCH_KEPT) {
            k = &kept[oldest];
            oldest = (oldest + 1) % BENCH_KEPT;
            prepare(k, key, tasks, n_tasks);
        }
        k->task->step(k->state);
        double begin = bench_seconds();
        for (long i = 0; i < count; i++) k->task->step(k->state);
        printf("%.9f\n", bench_seconds() - begin);
        fflush(stdout);
    }
    for (int i = 0; i < BENCH_KEPT; i++) drop(&kept[i]);
    return EXIT_SUCCESS;
}
