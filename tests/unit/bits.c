/* bits.c - the bytes of results are those of the releases before: a hash of each, kept in bits.def. Products are kept for
 * each kernel of the BLAS, which the test runs with in turn, as far as this CPU can. What has to differ on purpose says so
 * in CHANGELOG.md, and its row is written anew: `build/tests/unit/bits print` prints all rows that this machine can tell. */
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../core/rng.h"
#include "../support/attrs.h"
#include "../support/check.h"
#include "../support/model.h"

#define VECTOR(n) ((struct nn_shape){1, {n}})

static uint64_t hash; /* FNV-1a, 64 bits */

static void add(const void *data, size_t size) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++) hash = (hash ^ bytes[i]) * 0x100000001b3;
}

/* Numbers in [-1, 1) that float holds exactly. */
static void fill(void *to, enum nn_dtype dtype, int64_t n, uint32_t stream) {
    uint32_t word[4];
    for (int64_t i = 0; i < n; i++) {
        nn_rng_draw((struct nn_rng_key){29, stream}, 0, (uint32_t)i, word);
        const double x = 2 * nn_rng_unit(word[0]) - 1;
        if (dtype == NN_F32)
            ((float *)to)[i] = (float)x;
        else
            ((double *)to)[i] = x;
    }
}

static struct nn_params *params_of(struct nn_graph *graph) {
    struct nn_error err = {0};
    struct nn_params *params = nn_params_new(graph, &err);
    assert_non_null(params);
    return params;
}

/* --- what is hashed -------------------------------------------------------------------------------------------- */

/* Each kind that is drawn: uniform ones, normal ones in float, where the last bit of a logarithm does not show. */
static void initial_values(enum nn_dtype dtype) {
    static const struct row rows[] = {{.op = "linear", .attrs = "\"out_features\": 40"},
                                      {.op = "matmul", .attrs = "\"out_features\": 30"},
                                      {.op = "linear", .attrs = "\"out_features\": 3, \"bias\": false"},
                                      {0}};
    static const struct nn_shape id = {0};
    struct nn_error err = {0};
    struct nn_params *params = params_of(test_model(dtype, VECTOR(50), rows));
    nn_params_init(params, 12345);
    for (int i = 0; i < nn_graph_param_count(nn_params_graph(params)); i++)
        add(nn_params_view(params, i),
            (size_t)nn_graph_param(nn_params_graph(params), i)->elements * nn_dtype_size(dtype));
    nn_graph_unref(nn_params_graph(params));
    nn_params_unref(params);
    if (dtype != NN_F32) return;
    struct nn_graph *graph = nn_graph_new(dtype, &err);
    test_ok(nn_graph_add_input(graph, "id", NN_I64, &id, &err), &err, "input");
    struct nn_layer layer = {.op = nn_op_find("embedding")};
    layer.attrs =
        test_attrs(layer.op, "\"num_embeddings\": 30, \"embedding_dim\": 7", nn_graph_arena(graph), &err);
    test_ok(nn_graph_add_layer(graph, &layer, &err), &err, "layer");
    test_ok(nn_graph_seal(graph, &err), &err, "sealing");
    params = params_of(graph);
    nn_params_init(params, 54321);
    add(nn_params_view(params, 0), sizeof(float[30][7]));
    nn_params_unref(params);
    nn_graph_unref(graph);
}

/* Forward and back, without losses: the output, the gradients of the input and of the parameters. */
static void pass(struct nn_graph *graph, int64_t rows, uint64_t seed) {
    struct nn_error err = {0};
    const enum nn_dtype dtype = nn_graph_dtype(graph);
    const int last = nn_graph_value_count(graph) - 1;
    const size_t size = nn_dtype_size(dtype);
    struct nn_run_options options = {
        .rows = rows, .mode = NN_TRAIN, .seed = seed, .first_row = 3, .tape = true};
    bool upstream[8] = {0}, nodes[8] = {true};
    assert_true(last < 8);
    upstream[last] = true;
    const struct nn_backward_options back = {.upstream = upstream, .nodes = nodes, .parameters = true};
    struct nn_params *params = params_of(graph);
    for (int i = 0; i < nn_graph_param_count(graph); i++)
        fill(nn_params_data(params, i), dtype, nn_graph_param(graph, i)->elements, (uint32_t)i + 10);
    struct nn_plan *plan = nn_plan_forward(graph, &options, &err);
    struct nn_run *run = plan ? nn_run_new_take(params, plan, &err) : NULL;
    test_ok(0, &err, "a run");
    if (!run) abort();
    struct nn_value_info x = nn_graph_value(graph, 0), y = nn_graph_value(graph, last);
    const int64_t in = rows * nn_shape_elements(&x.shape), out = rows * nn_shape_elements(&y.shape);
    fill(nn_run_input(run, 0), dtype, in, 1);
    assert_true(nn_run_forward(run, NULL));
    add(nn_run_value(run, last), (size_t)out * size);
    plan = nn_plan_backward(graph, &options, &back, &err);
    struct nn_backward *b = plan ? nn_backward_new_take(run, plan, &err) : NULL;
    struct nn_grads *grads = nn_grads_new(graph, &err);
    test_ok(0, &err, "a backward pass");
    if (!b) abort();
    fill(nn_backward_upstream(b, last), dtype, out, 2);
    assert_true(nn_backward_run(b, grads, NULL));
    add(nn_backward_gradient(b, 0), (size_t)in * size);
    for (int i = 0; i < nn_graph_param_count(graph); i++)
        add(nn_grads_data(grads, i), (size_t)nn_graph_param(graph, i)->elements * size);
    nn_grads_free(grads);
    nn_backward_free(b);
    nn_run_free(run);
    nn_params_unref(params);
    nn_graph_unref(graph);
}

static void dropout(enum nn_dtype dtype) {
    static const struct row rows[] = {{.op = "dropout", .attrs = "\"p\": 0.3"}, {.op = "dropout"}, {0}};
    pass(test_model(dtype, VECTOR(37), rows), 19, 77);
}

/* Small and large, at the edges of kernels, in one task and in several. */
static void products(enum nn_dtype dtype) {
    static const struct row small[] = {{.op = "linear", .attrs = "\"out_features\": 5"},
                                       {.op = "matmul", .attrs = "\"out_features\": 3, \"bias\": true"},
                                       {0}};
    static const struct row large[] = {{.op = "linear", .attrs = "\"out_features\": 130"},
                                       {.op = "relu"},
                                       {.op = "matmul", .attrs = "\"out_features\": 65"},
                                       {0}};
    pass(test_model(dtype, VECTOR(7), small), 3, 1);
    pass(test_model(dtype, VECTOR(97), large), 300, 1);
}

/* Three steps, the last with another scale and learning rate. */
static void optimizer(const struct nn_def *def) {
    static const struct row rows[] = {{.op = "linear", .attrs = "\"out_features\": 9"}, {0}};
    struct nn_error err = {0};
    struct nn_graph *graph = test_model(NN_F32, VECTOR(11), rows);
    const struct nn_attrs *attrs = test_attrs(def, "", nn_graph_arena(graph), &err);
    struct nn_optimizer *optimizer = nn_optimizer_new(graph, def, attrs, &err);
    struct nn_params *params[2] = {params_of(graph), params_of(graph)};
    struct nn_grads *grads = nn_grads_new(graph, &err);
    test_ok(0, &err, "%s", def->name);
    for (int i = 0; i < 2; i++)
        fill(nn_params_data(params[0], i), NN_F32, nn_graph_param(graph, i)->elements, (uint32_t)i + 10);
    for (int step = 0; step < 3; step++) {
        for (int i = 0; i < 2; i++)
            fill(nn_grads_data(grads, i), NN_F32, nn_graph_param(graph, i)->elements,
                 (uint32_t)(20 + 2 * step + i));
        assert_true(nn_optimizer_step(optimizer, params[step % 2], grads, step == 2 ? 0.25 : 1,
                                      step == 2 ? 0.125 : (double)NAN, params[1 - step % 2], NULL));
    }
    for (int i = 0; i < 2; i++)
        add(nn_params_view(params[1], i), (size_t)nn_graph_param(graph, i)->elements * sizeof(float));
    nn_grads_free(grads);
    nn_optimizer_free(optimizer);
    for (int i = 0; i < 2; i++) nn_params_unref(params[i]);
    nn_graph_unref(graph);
}

/* --- rows ------------------------------------------------------------------------------------------------------- */

static const struct bits {
    const char *kernel, *what;
    uint64_t hash;
} kept[] = {
#define BITS(kernel, what, hash) {kernel, what, hash},
#include "bits.def"
#undef BITS
};
enum { KEPT = sizeof kept / sizeof kept[0] };

/* "OpenBLAS 0.3.21 Haswell", out of the library's text. */
static const char *kernel_here(void) {
    static char name[96];
    char text[256], version[32] = "", *word, *rest = NULL;
    snprintf(text, sizeof text, "%s", nn_blas_name());
    for (word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        if (!*version && strchr(word, '.')) snprintf(version, sizeof version, "%.31s", word);
        if (strncmp(word, "MAX_THREADS", 11) == 0) break;
        snprintf(name, sizeof name, "OpenBLAS %.20s %.40s", version, word);
    }
    return name;
}

/* Calls found(arg, row) for everything that can be told of this process. */
static void each(void (*found)(const struct bits *bits, void *arg), void *arg, bool with_products) {
    static const char *const types[] = {"F32", "F64"};
    static const struct {
        const char *what;
        void (*make)(enum nn_dtype dtype);
        bool of_kernel;
    } items[] = {
        {"initial values", initial_values, false}, {"dropout", dropout, false}, {"products", products, true}};
    char what[64];
    struct bits bits = {.what = what};
    for (size_t i = 0; i < sizeof items / sizeof items[0]; i++)
        for (int d = 0; d < 2; d++) {
            if (items[i].of_kernel != with_products) continue;
            hash = 0xcbf29ce484222325;
            items[i].make(d ? NN_F64 : NN_F32);
            snprintf(what, sizeof what, "%s, %s", items[i].what, types[d]);
            bits.kernel = items[i].of_kernel ? kernel_here() : "any";
            bits.hash = hash;
            found(&bits, arg);
        }
    const struct nn_def *def;
    for (int i = 0; !with_products && (def = nn_optimizer_def(i)); i++) {
        hash = 0xcbf29ce484222325;
        optimizer(def);
        snprintf(what, sizeof what, "%s, F32", def->name);
        bits.kernel = "any";
        bits.hash = hash;
        found(&bits, arg);
    }
}

static const struct bits *row_of(const struct bits *bits) {
    for (int i = 0; i < KEPT; i++)
        if (strcmp(kept[i].kernel, bits->kernel) == 0 && strcmp(kept[i].what, bits->what) == 0)
            return &kept[i];
    return NULL;
}

static void print(const struct bits *bits, void *arg) {
    (void)arg;
    printf("BITS(\"%s\", \"%s\", 0x%016" PRIx64 ")\n", bits->kernel, bits->what, bits->hash);
}

/* --- each kernel, in a process of its own ------------------------------------------------------------------------ */

static const struct kernel {
    const char *name, *needs;
} kernels[] = {{"Prescott", ""},    {"Core2", ""},   {"Nehalem", ""},        {"Sandybridge", "avx"},
               {"Haswell", "avx2"}, {"Zen", "avx2"}, {"SkylakeX", "avx512"}, {NULL, NULL}};

/* Whether this CPU has the instructions that a kernel needs. */
static bool can(const struct kernel *kernel) {
#ifdef __x86_64__
    if (strcmp(kernel->needs, "avx512") == 0)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
    if (strcmp(kernel->needs, "avx2") == 0)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (strcmp(kernel->needs, "avx") == 0) return __builtin_cpu_supports("avx");
    return true;
#else
    return !kernel;
#endif
}

/* Runs this program again, as `how`, with that kernel. Its exit status. */
static int again(const char *kernel, const char *how) {
    fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        setenv("OPENBLAS_CORETYPE", kernel, 1);
        execl("/proc/self/exe", "bits", how, (char *)NULL);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* --- tests ------------------------------------------------------------------------------------------------------ */

static void compare(const struct bits *bits, void *arg) {
    const struct bits *row = row_of(bits);
    bool *good = arg;
    if (!row)
        return (void)(*good = false,
                      printf("# bits.def has no row \"%s\", \"%s\"\n", bits->kernel, bits->what));
    if (row->hash == bits->hash) return;
    printf("# %s: %s: %016" PRIx64 ", and was %016" PRIx64 "\n", bits->kernel, bits->what, bits->hash,
           row->hash);
    *good = false;
}

static void without_products(void **state) {
    (void)state;
    bool good = true;
    each(compare, &good, false);
    assert_true(good);
}

static void products_with_each_kernel(void **state) {
    (void)state;
    int tried = 0;
    for (const struct kernel *kernel = kernels; kernel->name; kernel++) {
        if (!can(kernel)) continue;
        if (again(kernel->name, "products") != 0) fail_msg("%s: products have other bytes", kernel->name);
        tried++;
    }
#ifdef __x86_64__
    assert_true(tried >= 3);
#endif
    print_message("%d kernels; on its own this CPU takes %s\n", tried, kernel_here());
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_products),
        cmocka_unit_test(products_with_each_kernel),
    };
    nn_blas_init();
    if (argc == 1) return cmocka_run_group_tests(tests, NULL, NULL);
    bool good = true;
    if (strcmp(argv[1], "products") == 0) return each(compare, &good, true), !good;
    if (strcmp(argv[1], "rows") == 0) return each(print, NULL, true), 0;
    each(print, NULL, false);
    for (const struct kernel *kernel = kernels; kernel->name; kernel++)
        if (can(kernel)) again(kernel->name, "rows");
    return 0;
}
