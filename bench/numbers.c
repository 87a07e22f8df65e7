/* numbers.c - arrays of numbers in JSON, in this process: the daemon's reader and writer, and jansson's. See
 * support/job.h. The array is [ROWS, first of WIDTHS], of float32; jansson reads and writes double.
 *
 *     read, write                   text to float32 and back, as the daemon does it
 *     jansson-read, jansson-write   text to jansson's values and back */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../api/wire/tensor.h"
#include "support/job.h"

struct peer {
    struct nn_shape shape;
    float *numbers;
    struct api_text text;
    json_t *values; /* jansson's */
};

static void *begin(const struct bench_job *job) {
    struct peer *p = bench_need(calloc(1, sizeof *p));
    p->shape = (struct nn_shape){2, {job->rows, job->width[0]}};
    size_t n = (size_t)nn_shape_elements(&p->shape);
    p->numbers = bench_need(malloc(n * sizeof *p->numbers));
    bench_fill(p->numbers, n, 0, 1);
    api_text_array(&p->text, p->numbers, NN_F32, &p->shape);
    p->values = bench_need(json_loadb(p->text.data, p->text.size, 0, NULL));
    return p;
}

static void end(void *state) {
    struct peer *p = state;
    free(p->numbers);
    api_text_free(&p->text);
    json_decref(p->values);
    free(p);
}

static void read_array(void *state) {
    struct peer *p = state;
    struct nn_error err = {0};
    struct api_tensor tensor = {.member = "inputs", .name = "x", .json = p->text.data};
    tensor.json_size = api_json_array_scan(p->text.data, p->text.size, &tensor.shape, &err);
    if (tensor.json_size) api_tensor_convert(&tensor, NN_F32, p->numbers, &err);
    if (!err.code) return;
    fprintf(stderr, "numbers: %s\n", err.text);
    exit(EXIT_FAILURE);
}

static void write_array(void *state) {
    struct peer *p = state;
    p->text.size = 0;
    api_text_array(&p->text, p->numbers, NN_F32, &p->shape);
}

static void jansson_read(void *state) {
    struct peer *p = state;
    json_decref(bench_need(json_loadb(p->text.data, p->text.size, 0, NULL)));
}

static void jansson_write(void *state) {
    struct peer *p = state;
    free(bench_need(json_dumps(p->values, JSON_COMPACT | JSON_REAL_PRECISION(9))));
}

int main(void) {
    static const struct bench_task tasks[] = {
        {"read", begin, read_array, end},
        {"write", begin, write_array, end},
        {"jansson-read", begin, jansson_read, end},
        {"jansson-write", begin, jansson_write, end},
    };
    return bench_serve(tasks, sizeof tasks / sizeof *tasks);
}
