/* The same request answers the same bytes with 1, 2 and 8 compute threads, and in any company; and the halves
 * of a batch, told their rows and their normaliser, add up to the whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../support/e2e.h"

/* Large enough that products are split over threads, and that no two roundings agree by luck. */
enum { ROWS = 300, COLUMNS = 96, CLASSES = 10, COMPANY = 16, REPEATS = 12 };

static const char model[] =
    "{'name': '%s', 'seed': 21, 'inputs': {'x': {'shape': [96]}}, 'layers': [{'op': 'linear', "
    "'out_features': "
    "160}, {'op': 'gelu'}, {'op': 'dropout', 'p': 0.25, 'name': 'drop'}, {'op': 'linear', 'out_features': "
    "130}, {'op': 'tanh'}, {'op': 'linear', 'out_features': 10}], 'loss': {'op': 'cross_entropy'}, "
    "'optimizer': {'op': 'adam', 'lr': 0.01}}";

static float x[ROWS * COLUMNS];
static int64_t y[ROWS];

static void draw(void) {
    uint32_t state = 12345;
    for (int i = 0; i < ROWS * COLUMNS; i++)
        x[i] = (float)(int32_t)((state = state * 1664525 + 1013904223) >> 8) / (1 << 23) - 1;
    for (int i = 0; i < ROWS; i++) y[i] = (state = state * 1664525 + 1013904223) >> 16 & 7;
}

/* Rows first..first+rows-1 of the batch, as a shard of it. */
static void write_rows(struct test_writer *writer, const char *name, int first, int rows,
                       const char *wanted) {
    char number[24];
    test_write_text(writer, "model", name);
    test_write_text(writer, "seed", "77");
    if (wanted) test_write_text(writer, "return", quoted(wanted));
    snprintf(number, sizeof number, "%d", first);
    test_write_text(writer, "first_row", number);
    test_write_f32(writer, "inputs/x", SHAPE(rows, COLUMNS), x + (size_t)first * COLUMNS);
    test_write(writer, "targets/y", "I64", SHAPE(rows), y + first);
}

#define ALL "['parameters', 'inputs', 'nodes', 'outputs']"

static const struct test_file *backward(int first, int rows, const char *normalizer) {
    struct test_writer writer = {0};
    write_rows(&writer, "m", first, rows, ALL);
    if (normalizer) test_write_text(&writer, "normalizer", normalizer);
    return ask_file(200, "POST", "/backward", &writer);
}

/* A copy of all tensors' bytes, which are what may not differ. */
struct bytes {
    unsigned char *data;
    size_t size;
    char loss[64];
};

static struct bytes copy_of(const struct test_file *file) {
    struct bytes copy = {.data = malloc(file->size), .size = file->size};
    assert_non_null(copy.data);
    memcpy(copy.data, file->data, file->size);
    snprintf(copy.loss, sizeof copy.loss, "%s", test_file_text(file, "loss"));
    return copy;
}

static void same(const struct bytes *expected, const struct test_file *file) {
    assert_int_equal(file->size, expected->size);
    assert_memory_equal(file->data, expected->data, expected->size);
    assert_string_equal(test_file_text(file, "loss"), expected->loss);
}

/* --- threads ----------------------------------------------------------------------------------------- */

static void with_any_number_of_threads(void **state) {
    (void)state;
    static const char *const threads[] = {"1", "2", "8"};
    struct bytes answer = {0}, trained = {0};
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        service_start((const char *const[]){"--compute-threads", threads[t], NULL}, NULL);
        ask(201, "POST", "/models", model, "m");
        const struct test_file *file = backward(0, ROWS, NULL);
        if (t == 0) answer = copy_of(file);
        same(&answer, file);
        for (int i = 0; i < 5; i++) {
            struct test_writer writer = {0};
            write_rows(&writer, "m", 0, ROWS, NULL);
            test_write_text(&writer, "apply", "true");
            ask_file(200, "POST", "/backward", &writer);
        }
        file = ask_file(200, "GET", "/models/m/parameters", NULL);
        if (t == 0) {
            trained = (struct bytes){.data = malloc(file->size), .size = file->size};
            memcpy(trained.data, file->data, file->size);
        }
        assert_int_equal(file->size, trained.size);
        assert_memory_equal(file->data, trained.data, trained.size);
        service_stop();
    }
    free(answer.data);
    free(trained.data);
}

/* --- company ----------------------------------------------------------------------------------------- */

struct guest {
    pthread_t thread;
    struct http_client *client;
    struct http_request requests[4];
    const atomic_bool *leaving;
    atomic_int *served; /* of all guests */
    int failed;
};

static void *keep_busy(void *arg) {
    struct guest *guest = arg;
    for (int i = 0; !atomic_load(guest->leaving); i++) {
        struct http_answer answer;
        bool whole = http_call(guest->client, &guest->requests[i % 4], &answer);
        if (!whole || answer.status != 200) {
            if (!guest->failed++) fprintf(stderr, "a guest: %d %.300s\n", answer.status, (char *)answer.body);
        } else {
            atomic_fetch_add(guest->served, 1);
        }
        http_answer_fini(&answer);
    }
    return NULL;
}

/* Its own model, which it reads, trains and pulls, in batches of its own size. */
static void invite(struct guest *guest, int number) {
    char name[16];
    struct test_writer writer = {0};
    int rows = 1 + number * 17 % 90;
    snprintf(name, sizeof name, "g%d", number);
    ask(201, "POST", "/models", model, name);
    char *pull = service_keep(malloc(64));
    snprintf(pull, 64, "/models/%s/parameters", name);
    struct http_request forward = {.method = "POST", .path = "/forward", .type = FILE_TYPE}, apply = forward;
    test_write_text(&writer, "model", name);
    test_write_f32(&writer, "inputs/x", SHAPE(rows, COLUMNS), x);
    forward.body = service_keep(test_write_end(&writer, &forward.size));
    write_rows(&writer, name, 0, rows, NULL);
    test_write_text(&writer, "apply", "true");
    apply.path = "/backward";
    apply.body = service_keep(test_write_end(&writer, &apply.size));
    guest->requests[0] = guest->requests[2] = number % 2 ? forward : apply;
    guest->requests[1] = apply;
    guest->requests[3] = (struct http_request){.method = "GET", .path = pull, .accept = FILE_TYPE};
    guest->client = http_client_new(service.url);
    assert_non_null(guest->client);
}

static void beside_other_clients(void **state) {
    (void)state;
    static struct guest guests[COMPANY];
    static atomic_bool leaving;
    static atomic_int served;
    int failed = 0;
    service_start((const char *const[]){"--compute-threads", "2", NULL}, NULL);
    ask(201, "POST", "/models", model, "m");
    struct bytes alone = copy_of(backward(0, ROWS, NULL)), few = copy_of(backward(3, 7, NULL));
    for (int i = 0; i < COMPANY; i++) {
        guests[i] = (struct guest){.leaving = &leaving, .served = &served};
        invite(&guests[i], i);
    }
    for (int i = 0; i < COMPANY; i++)
        assert_int_equal(pthread_create(&guests[i].thread, NULL, keep_busy, &guests[i]), 0);
    bool differs = false;
    for (int i = 0; (i < REPEATS || atomic_load(&served) < 10 * COMPANY) && !differs; i++) {
        const struct test_file *file = backward(0, ROWS, NULL), *small = backward(3, 7, NULL);
        differs = file->size != alone.size || memcmp(file->data, alone.data, alone.size) != 0 ||
                  memcmp(small->data, few.data, few.size) != 0;
    }
    atomic_store(&leaving, true);
    for (int i = 0; i < COMPANY; i++) {
        pthread_join(guests[i].thread, NULL);
        http_client_free(guests[i].client);
        failed += guests[i].failed;
    }
    free(alone.data);
    free(few.data);
    assert_false(differs);
    assert_int_equal(failed, 0);
    service_stop();
}

/* --- shards ------------------------------------------------------------------------------------------ */

/* Row by row the same bits: row i of the part is row first + i of the whole. */
static void same_rows(const struct test_file *whole, const struct test_file *part, const char *name,
                      int first, int rows) {
    size_t n, m;
    const unsigned char *all = test_file_tensor(whole, name, "F32", &n);
    const unsigned char *some = test_file_tensor(part, name, "F32", &m);
    size_t row = n / ROWS * sizeof(float);
    assert_int_equal(m * sizeof(float), (size_t)rows * row);
    if (memcmp(all + (size_t)first * row, some, (size_t)rows * row) != 0)
        fail_msg("rows of \"%s\" differ from row %d on", name, first);
}

/* Where dropout let something through: its gradient's zeros are its mask's. */
static void same_mask(const struct test_file *whole, const struct test_file *part, int first, int rows) {
    int dropped = 0;
    for (size_t i = 0; i < (size_t)rows * 160; i++) {
        /* the gradient before dropout is 0 exactly where the mask is (or gelu's slope, which is not) */
        bool in_part = test_file_f32(part, "node_gradients/1", i) == 0;
        bool in_whole = test_file_f32(whole, "node_gradients/1", (size_t)first * 160 + i) == 0;
        assert_int_equal(in_part, in_whole);
        dropped += in_part;
    }
    assert_in_range(dropped, rows * 160 / 5, rows * 160 * 3 / 10);
}

/* |a + b - whole| <= 1e-6 |whole|, norm-wise. */
static void check_sum(const struct test_file *whole, const struct test_file *a, const struct test_file *b,
                      const char *name) {
    size_t n;
    double error = 0, norm = 0;
    test_file_tensor(whole, name, "F32", &n);
    for (size_t i = 0; i < n; i++) {
        double is = test_file_f32(whole, name, i),
               sum = (double)test_file_f32(a, name, i) + (double)test_file_f32(b, name, i);
        error += (sum - is) * (sum - is);
        norm += is * is;
    }
    assert_true(norm > 0);
    if (sqrt(error) > 1e-6 * sqrt(norm)) fail_msg("%s: off by %g", name, sqrt(error / norm));
}

static void a_batch_in_halves(void **state) {
    (void)state;
    static const int cuts[] = {150, 128, 37};
    static const char *const parameters[] = {"0.weight", "0.bias",   "3.weight",
                                             "3.bias",   "5.weight", "5.bias"};
    service_start(NULL, NULL);
    ask(201, "POST", "/models", model, "m");
    for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
        int cut = cuts[c];
        const struct test_file *whole = backward(0, ROWS, NULL),
                               *halves[2] = {backward(0, cut, "300"), backward(cut, ROWS - cut, "300")};
        same_mask(whole, halves[0], 0, cut);
        same_mask(whole, halves[1], cut, ROWS - cut);
        for (size_t p = 0; p < sizeof parameters / sizeof *parameters; p++) {
            char name[64];
            snprintf(name, sizeof name, "gradients/%s", parameters[p]);
            check_sum(whole, halves[0], halves[1], name);
        }
        near(strtod(test_file_text(halves[0], "loss"), NULL) +
                 strtod(test_file_text(halves[1], "loss"), NULL),
             strtod(test_file_text(whole, "loss"), NULL), 1e-6);
        service_forget(NULL);
    }
    service_stop();
}

/* Where nothing but dropout stands between, its rows are the same bit by bit. */
static void masks_by_row(void **state) {
    (void)state;
    static float ones[ROWS * COLUMNS];
    const struct test_file *files[3];
    static const int firsts[] = {0, 0, 111}, rows[] = {ROWS, 111, ROWS - 111};
    for (int i = 0; i < ROWS * COLUMNS; i++) ones[i] = 1;
    service_start(NULL, NULL);
    ask(201, "POST", "/models",
        "{'name': 'd', 'seed': 1, 'inputs': {'x': {'shape': [96]}}, 'layers': [{'op': 'dropout', 'p': "
        "0.5}]}");
    for (int i = 0; i < 3; i++) {
        struct test_writer writer = {0};
        char first[16];
        snprintf(first, sizeof first, "%d", firsts[i]);
        test_write_text(&writer, "model", "d");
        test_write_text(&writer, "seed", "5");
        test_write_text(&writer, "first_row", first);
        test_write_text(&writer, "return", quoted("['inputs', 'outputs']"));
        test_write_f32(&writer, "inputs/x", SHAPE(rows[i], COLUMNS), ones);
        test_write_f32(&writer, "upstream/0", SHAPE(rows[i], COLUMNS), ones);
        files[i] = ask_file(200, "POST", "/backward", &writer);
    }
    for (int i = 1; i < 3; i++) {
        same_rows(files[0], files[i], "outputs/0", firsts[i], rows[i]);
        same_rows(files[0], files[i], "input_gradients/x", firsts[i], rows[i]);
    }
    service_stop();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        service_test(with_any_number_of_threads),
        service_test(beside_other_clients),
        service_test(a_batch_in_halves),
        service_test(masks_by_row),
    };
    draw();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
