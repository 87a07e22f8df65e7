/* budget.c - no request takes more memory than the budget has for it: each is sent to services whose budget is too
 * small for it, and to ever larger ones until it succeeds; what it takes in each is held against what there was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/malloc.h"
#include "../support/service.h"

/* What any request may take beside: see API_UNASKED; its head, its answer's list of headers, a problem. */
enum { ASIDE = 32 * 1024 + 8 * 1024 };

enum { LEAST = 128 * 1024, MOST = 128 * 1024 * 1024 };

struct body {
    char *bytes;
    size_t size;
};

static FILE *begin(struct body *body) {
    FILE *f = open_memstream(&body->bytes, &body->size);
    assert_non_null(f);
    return f;
}

/* `n` times, with the number of the time for its argument. */
static void repeat(FILE *f, int n, const char *first, const char *format, const char *last) {
    fputs(first, f);
    for (int i = 0; i < n; i++) {
        if (i) fputc(',', f);
        for (const char *c = format; *c; c++)
            if (*c == '#')
                fprintf(f, "%d", i);
            else
                fputc(*c, f);
    }
    fputs(last, f);
}

/* --- documents ---------------------------------------------------------------------------------------- */

#define SMALL                                                                                                \
    "{\"name\": \"m\", \"seed\": 1, \"inputs\": {\"x\": {\"shape\": [1]}}, \"layers\": [{\"op\": "           \
    "\"relu\"}]}"

static void write_base64(FILE *f) {
    fputs(
        "{\"model\": \"m\", \"inputs\": {\"x\": {\"dtype\": \"F32\", \"shape\": [300000, 1], \"base64\": \"",
        f);
    for (int i = 0; i < 400000; i++) fputs("AAAA", f);
    fputs("\"}}}", f);
}

/* A shape alone, which promises what does not come. */
static void write_promise(FILE *f) {
    fputs("{\"model\": \"m\", \"inputs\": {\"x\": {\"dtype\": \"F64\", \"shape\": [2147483647], \"base64\": "
          "\"AAAA\"}}}",
          f);
}

static void write_numbers(FILE *f) { repeat(f, 50000, "{\"normalizer\": [", "0", "]}"); }
static void write_objects(FILE *f) { repeat(f, 50000, "{\"normalizer\": [", "{}", "]}"); }
static void write_names(FILE *f) { repeat(f, 20000, "{\"accumulate\": {", "\"#\": \"\"", "}}"); }
static void write_pairs(FILE *f) { repeat(f, 20000, "{\"accumulate\": [", "{\"a\": [\"b\"]}", "]}"); }

static void write_text(FILE *f) {
    fputs("{\"model\": \"", f);
    for (int i = 0; i < 500000; i++) fputc('a', f);
    fputs("\"}", f);
}

static void write_digits(FILE *f) {
    fputs("{\"normalizer\": 1", f);
    for (int i = 0; i < 500000; i++) fputc('0', f);
    fputs("e-500000}", f);
}

static void write_depth(FILE *f) {
    fputs("{\"normalizer\": [0", f);
    for (int i = 0; i < 1000; i++) {
        fputc(',', f);
        for (int k = 0; k < 60; k++) fputc('[', f);
        for (int k = 0; k < 60; k++) fputc(']', f);
    }
    fputs("]}", f);
}

static void write_arrays(FILE *f) { repeat(f, 9000, "{\"model\": \"m\", \"inputs\": {", "\"#\": [1]", "}}"); }

static void write_many_base64(FILE *f) {
    repeat(f, 9000, "{\"model\": \"m\", \"inputs\": {",
           "\"#\": {\"dtype\": \"F32\", \"shape\": [1], \"base64\": \"AAAAAA==\"}", "}}");
}

/* A safetensors file, of a header alone. */
static void write_header(FILE *f, void (*write)(FILE *f)) {
    struct body header;
    FILE *inner = begin(&header);
    write(inner);
    fclose(inner);
    uint64_t size = header.size;
    assert_int_equal(fwrite(&size, sizeof size, 1, f), 1);
    assert_int_equal(fwrite(header.bytes, header.size, 1, f), 1);
    free(header.bytes);
}

static void write_entries(FILE *f) {
    repeat(f, 9000, "{", "\"inputs/#\": {\"dtype\": \"F32\", \"shape\": [0], \"data_offsets\": [0, 0]}", "}");
}
static void write_tensors(FILE *f) { write_header(f, write_entries); }

static void write_members(FILE *f) { repeat(f, 20000, "{\"__metadata__\": {", "\"#\": \"[0]\"", "}}"); }
static void write_metadata(FILE *f) { write_header(f, write_members); }

static void write_optimized(FILE *f, const char *end) {
    repeat(f, 1000, "{\"name\": \"m\", \"inputs\": {\"x\": {\"shape\": [1]}}, \"layers\": [",
           "{\"op\": \"linear\", \"name\": \"a_name_of_usual_length_#\", \"out_features\": 1}", end);
}
static void write_layers(FILE *f) {
    write_optimized(f, "], \"loss\": {\"op\": \"mse\"}, \"optimizer\": {\"op\": \"adam\"}}");
}
static void write_plain(FILE *f) { write_optimized(f, "], \"optimizer\": {\"op\": \"sgd\"}}"); }
static void write_momentum(FILE *f) {
    write_optimized(f, "], \"optimizer\": {\"op\": \"sgd\", \"momentum\": 0.5}}");
}

static void write_counts(FILE *f) {
    repeat(f, 1000, "{\"steps\": {",
           "\"a_name_of_usual_length_#.weight\": 123456, \"a_name_of_usual_length_#.bias\": 0",
           "}, \"state\": {}}");
}

static void write_losses(FILE *f) {
    repeat(f, 1000,
           "{\"name\": \"m\", \"inputs\": {\"x\": {\"shape\": [1]}}, \"layers\": [{\"op\": \"relu\"}], "
           "\"loss\": [",
           "{\"op\": \"mse\", \"target\": \"t#\"}", "]}");
}

static void write_edges(FILE *f) {
    fputs("{\"name\": \"m\", \"inputs\": {\"x\": {\"shape\": [1]}}, \"layers\": [", f);
    for (int i = 0; i < 20; i++) {
        if (i) fputc(',', f);
        repeat(f, 2000, "{\"op\": \"concat\", \"dim\": 1, \"inputs\": [", "\"x\"", "]}");
    }
    fputs("]}", f);
}

static void write_graph(FILE *f) {
    repeat(f, 1000, "{\"model\": {\"seed\": 1, \"inputs\": {\"x\": {\"shape\": [1]}}, \"layers\": [",
           "{\"op\": \"linear\", \"out_features\": 1}", "]}, \"inputs\": {\"x\": [[1]]}}");
}

static void write_small(FILE *f) { fputs(SMALL, f); }
static void write_pass(FILE *f) { fputs("{\"model\": \"m\", \"inputs\": {\"x\": [[1]]}}", f); }
static void write_step(FILE *f) {
    fputs("{\"model\": \"m\", \"inputs\": {\"x\": [[1]]}, \"targets\": {\"y\": [[1]]}}", f);
}
static void write_patch(FILE *f) { fputs("{\"optimizer\": {\"lr\": 0.5}}", f); }

/* --- what they take ------------------------------------------------------------------------------------ */

#define FILES "application/safetensors"

static const struct request {
    const char *name;
    void (*model)(FILE *f); /* that is there before; NULL: none */
    const char *method, *path, *type;
    void (*write)(FILE *f); /* NULL: no body */
    int status;             /* where there is room enough */
    bool fits;              /* in the smallest of the budgets */
} requests[] = {
    {"a base64 tensor", write_small, "POST", "/forward", NULL, write_base64, 200, false},
    {"a base64 tensor's promise", write_small, "POST", "/forward", NULL, write_promise, 422, true},
    {"an array of numbers", NULL, "POST", "/backward", NULL, write_numbers, 422, false},
    {"an array of objects", NULL, "POST", "/backward", NULL, write_objects, 422, false},
    {"an object of many members", NULL, "POST", "/backward", NULL, write_names, 422, false},
    {"objects of one member", NULL, "POST", "/backward", NULL, write_pairs, 422, false},
    {"a long text", NULL, "POST", "/backward", NULL, write_text, 404, false},
    {"a long number", NULL, "POST", "/backward", NULL, write_digits, 422, false},
    {"deep arrays", NULL, "POST", "/backward", NULL, write_depth, 422, false},
    {"many arrays", write_small, "POST", "/forward", NULL, write_arrays, 422, false},
    {"many base64 tensors", write_small, "POST", "/forward", NULL, write_many_base64, 422, false},
    {"many tensors", write_small, "POST", "/forward", FILES, write_tensors, 422, false},
    {"much metadata", write_small, "POST", "/forward", FILES, write_metadata, 422, false},
    {"a model of many layers", NULL, "POST", "/models", NULL, write_layers, 201, false},
    {"a model of many losses", NULL, "POST", "/models", NULL, write_losses, 201, false},
    {"a model of many edges", NULL, "POST", "/models", NULL, write_edges, 201, false},
    {"a graph", NULL, "POST", "/forward", NULL, write_graph, 200, false},
    {"a description", write_layers, "GET", "/models/m", NULL, NULL, 200, false},
    {"a patch", write_layers, "PATCH", "/models/m", NULL, write_patch, 200, false},
    {"a pass over many layers", write_layers, "POST", "/forward", NULL, write_pass, 200, false},
    {"a gradient of many layers", write_layers, "POST", "/backward", NULL, write_step, 200, false},
    {"many parameters", write_layers, "GET", "/models/m/parameters", FILES, NULL, 200, false},
    {"an optimizer of many layers", write_layers, "GET", "/models/m/optimizer", FILES, NULL, 200, false},
    {"a fresh optimizer of many layers", write_momentum, "GET", "/models/m/optimizer", FILES, NULL, 200,
     false},
    {"steps of many layers", write_plain, "PUT", "/models/m/optimizer", NULL, write_counts, 200, false},
};

static struct body body_of(void (*write)(FILE *f)) {
    struct body body = {0};
    if (!write) return body;
    FILE *f = begin(&body);
    write(f);
    fclose(f);
    return body;
}

static bool is_refusal(int status) { return status == 503 || status == 413; }

/* The status, in a service of this budget. */
static int send(const struct request *row, const struct body *model, const struct body *body, size_t budget) {
    struct api_settings settings = {.limits = api_default_limits};
    struct test_service service;
    settings.limits.memory = budget;
    test_service_start(&service, &settings, 0);
    if (model->size) {
        struct test_answer made = test_request(
            &service, &(struct test_request){
                          .method = "POST", .path = "/models", .body = model->bytes, .size = model->size});
        int status = made.status;
        test_answer_free(&made);
        if (status != 201) {
            assert_true(is_refusal(status));
            test_service_stop(&service);
            return status;
        }
    }
    const struct test_request request = {.method = row->method,
                                         .path = row->path,
                                         .content_type = body->size ? row->type : NULL,
                                         .accept = row->type,
                                         .body = body->bytes,
                                         .size = body->size};
    size_t before = api_memory_in_use(service.api);
    long held = atomic_load(&test_bytes);
    atomic_store(&test_peak, held);
    struct api_response *response = test_respond(&service, &request);
    assert_non_null(response);
    long took = atomic_load(&test_peak) - held;
    int status = response->status;
    if (took > (long)(budget - before) + ASIDE)
        fail_msg("%s took %ld bytes, and the budget had %zu: %d", row->name, took, budget - before, status);
    if (status != row->status && !is_refusal(status))
        fail_msg("%s: %d, %.*s", row->name, status, (int)response->segments[0].size,
                 (const char *)response->segments[0].data);
    api_response_free(response);
    if (status >= 400) {
        if (api_memory_in_use(service.api) != before) fail_msg("%s: not all was given back", row->name);
        if (atomic_load(&test_bytes) > held + ASIDE) fail_msg("%s: not all was freed", row->name);
    }
    test_service_stop(&service);
    return status;
}

static void within_the_budget(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        const struct request *row = &requests[i];
        struct body model = body_of(row->model), body = body_of(row->write);
        bool fits = false, refused = false;
        for (size_t budget = LEAST; !fits && budget <= MOST; budget += budget / 8) {
            fits = send(row, &model, &body, budget) == row->status;
            refused |= !fits;
        }
        if (!fits) fail_msg("%s fits no budget", row->name);
        if (refused == row->fits) fail_msg("%s: %s", row->name, refused ? "was refused" : "was not refused");
        free(model.bytes);
        free(body.bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(within_the_budget)};
    nn_blas_init();
    atomic_store(&test_counts_bytes, true);
    return cmocka_run_group_tests_name("the budget of memory", tests, NULL, NULL);
}
