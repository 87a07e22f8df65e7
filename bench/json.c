/* json.c - numbers in and out of JSON: ns a number, and beside it what jansson alone takes for the same array.
 *
 * Prints a line a case: its name, ours, jansson's, and ours over jansson's; medians of rounds in which all cases
 * take turns. "in" is text to tensor, "out" tensor to text, through the functions of api/; "forward" and
 * "backward" are whole requests through api_handle, with safetensors on their other side, so that JSON is all
 * but the whole of their time. Usage: json [ROUNDS] */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "../api/api.h"
#include "../api/wire/tensor.h"
#include "support/job.h"

enum { ROWS = 64, FEATURES = 784, N = ROWS * FEATURES, MAX_ROUNDS = 101, CALLS = 4 };

static const struct nn_shape shape = {2, {ROWS, FEATURES}};

/* --- the numbers ------------------------------------------------------------------------------------ */

static float uniform(void) { /* in (0, 1) */
    static unsigned state = 1;
    state = state * 1664525u + 1013904223u;
    return (float)((state >> 8) + 1) * 0x1p-25F;
}

static double fraction(void) { return (double)uniform(); }
static double normal(void) { return (double)(sqrtf(-2 * logf(uniform())) * cosf(6.2831855F * uniform())); }
static double gradient(void) { return (double)((float)normal() * 0x1p-16F); }
static double pixel(void) { return (double)(int)(uniform() * 256); }
static double any(void) { return (double)(ldexpf(uniform() - 0.5F, (int)(uniform() * 200) - 100)); }

static const struct kind {
    const char *name;
    double (*draw)(void);
    const char *format; /* of the text that comes in; NULL: the shortest, as our answers have it */
} kinds[] = {
    {"fraction", fraction, "%.9g"},         /* 0.123456791 */
    {"fraction-shortest", fraction, NULL},  /* 0.12345679 */
    {"fraction-double", fraction, "%.17g"}, /* 0.12345679104328156, as Python writes a float32 */
    {"normal", normal, "%.9g"},             /* -1.23456788 */
    {"gradient-shortest", gradient, NULL},  /* -1.2345679e-6 */
    {"any-exponent", any, "%.9g"},          /* 1.23456794e+18 */
    {"integer", pixel, "%.0f"},             /* 123 */
};
enum { KINDS = sizeof kinds / sizeof *kinds };

struct data {
    float values[N];
    char *text; /* of the values, as they come in */
    size_t size;
    json_t *tree;
};

static char *write_array(const struct kind *kind, const float *x, size_t *size) {
    char *text = NULL;
    if (!kind->format) {
        struct api_text out = {0};
        api_text_array(&out, x, NN_F32, &shape);
        *size = out.size;
        return bench_need(out.data);
    }
    FILE *f = bench_need(open_memstream(&text, size));
    for (int i = 0; i < N; i++) {
        fputs(i % FEATURES ? ", " : i ? "], [" : "[[", f);
        fprintf(f, kind->format, (double)x[i]);
    }
    fputs("]]", f);
    fclose(f);
    return text;
}

static json_t *make_tree(const float *x) {
    json_t *tree = bench_need(json_array());
    for (int i = 0; i < N; i++) {
        if (i % FEATURES == 0) json_array_append_new(tree, bench_need(json_array()));
        json_array_append_new(json_array_get(tree, (size_t)(i / FEATURES)),
                              bench_need(json_real((double)x[i])));
    }
    return tree;
}

static void fill(struct data *data, const struct kind *kind) {
    for (int i = 0; i < N; i++) data->values[i] = (float)kind->draw();
    data->text = write_array(kind, data->values, &data->size);
    data->tree = make_tree(data->values);
}

/* --- the functions ---------------------------------------------------------------------------------- */

static void check(bool good, const char *what) {
    if (good) return;
    fprintf(stderr, "json: %s\n", what);
    exit(EXIT_FAILURE);
}

static void read_ours(void *arg) {
    static float out[N];
    const struct data *data = arg;
    struct nn_error err = {0};
    struct api_tensor tensor = {.json = data->text};
    tensor.json_size = api_json_array_scan(data->text, data->size, &tensor.shape, &err);
    check(tensor.json_size && !api_tensor_convert(&tensor, NN_F32, out, &err), err.text);
    check(memcmp(out, data->values, sizeof out) == 0, "a number did not come in as it was");
}

static void read_jansson(void *arg) {
    const struct data *data = arg;
    json_t *tree = json_loadb(data->text, data->size, 0, NULL);
    check(tree, "jansson did not read an array");
    json_decref(tree);
}

static void write_ours(void *arg) {
    const struct data *data = arg;
    struct api_text text = {0};
    api_text_array(&text, data->values, NN_F32, &shape);
    check(!text.failed, "memory is out");
    api_text_free(&text);
}

static void write_jansson(void *arg) {
    const struct data *data = arg;
    char *text = json_dumps(data->tree, JSON_COMPACT);
    check(text, "jansson did not write an array");
    free(text);
}

/* --- whole requests --------------------------------------------------------------------------------- */

struct call {
    struct api *api;
    struct api_head head;
    char *body;
    size_t size;
};

static void call(void *arg) {
    const struct call *call = arg;
    struct api_response *response = api_handle(call->api, &call->head, call->body, call->size);
    check(response && response->status < 300, "the service refused a request");
    api_response_free(response);
}

static int64_t no_time(void *self) { return (void)self, 0; }
static bool no_entropy(void *self, void *buffer, size_t size) {
    return (void)self, memset(buffer, 1, size), true;
}

static struct api *service(void) {
    static char model[] =
        "{\"name\": \"m\", \"inputs\": {\"x\": {\"shape\": [784]}}, \"seed\": 1, \"layers\": "
        "[{\"op\": \"relu\", \"name\": \"y\"}], \"loss\": {\"op\": \"mse\"}}";
    struct api_settings settings = {.limits = api_default_limits};
    struct api_env env = {.now_ms = no_time, .entropy = no_entropy};
    struct nn_error err = {0};
    struct call make = {.api = bench_need(api_new(&settings, &env, &err)),
                        .head = {.method = "POST", .path = "/models", .content_type = "application/json"},
                        .body = model,
                        .size = strlen(model)};
    call(&make);
    return make.api;
}

static void put(FILE *f, const void *data, size_t size) {
    check(fwrite(data, 1, size, f) == size, "memory is out");
}

static void write_json(FILE *f, const char *rest, const struct data *x, const struct data *y) {
    fprintf(f, "{\"model\": \"m\", \"seed\": 1%s, \"inputs\": {\"x\": ", rest);
    put(f, x->text, x->size);
    if (y) fputs("}, \"targets\": {\"y\": ", f);
    if (y) put(f, y->text, y->size);
    fputs("}}", f);
}

static void write_safetensors(FILE *f, const char *rest, const struct data *x, const struct data *y) {
    static const char tensor[] =
        ", \"%s\": {\"dtype\": \"F32\", \"shape\": [%d, %d], \"data_offsets\": [%zu, %zu]}";
    char header[512];
    size_t bytes = sizeof x->values, room = sizeof header;
    int n = snprintf(header, room, "{\"__metadata__\": {\"model\": \"m\", \"seed\": \"1\"%s}", rest);
    n += snprintf(header + n, room - (size_t)n, tensor, "inputs/x", ROWS, FEATURES, (size_t)0, bytes);
    if (y) n += snprintf(header + n, room - (size_t)n, tensor, "targets/y", ROWS, FEATURES, bytes, 2 * bytes);
    n += snprintf(header + n, room - (size_t)n, "}");
    uint64_t size = (uint64_t)n;
    put(f, &size, sizeof size);
    put(f, header, (size_t)n);
    put(f, x->values, bytes);
    if (y) put(f, y->values, bytes);
}

/* A request with its arrays in JSON, answered in safetensors, or the other way round. */
static struct call request(struct api *api, const char *path, const char *rest, const struct data *x,
                           const struct data *y, bool json_in) {
    static const char *const types[] = {"application/json", "application/safetensors"};
    struct call call = {.api = api, .head = {.method = "POST", .path = path}};
    FILE *f = bench_need(open_memstream(&call.body, &call.size));
    call.head.content_type = types[!json_in];
    call.head.accept = types[json_in];
    (json_in ? write_json : write_safetensors)(f, rest, x, y);
    fclose(f);
    return call;
}

/* --- measuring -------------------------------------------------------------------------------------- */

struct side {
    void (*run)(void *arg);
    void *arg;
    int numbers;
    double ns[MAX_ROUNDS];
};

static void measure(struct side *side, int round) {
    free(bench_need(malloc(
        (size_t)1 << 20))); /* lest what the side before has freed be put in order at this one's expense */
    double begin = bench_seconds();
    side->run(side->arg);
    side->ns[round] = (bench_seconds() - begin) * 1e9 / side->numbers;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(struct side *side, int rounds) {
    qsort(side->ns, (size_t)rounds, sizeof *side->ns, by_size);
    return side->ns[rounds / 2];
}

struct pair {
    char name[64];
    struct side ours, jansson;
};

static void add_pair(struct pair *pair, const char *what, const char *kind, struct side ours,
                     struct side jansson) {
    snprintf(pair->name, sizeof pair->name, "%s %s", what, kind);
    pair->ours = ours;
    pair->jansson = jansson;
}

static void run(struct pair *pairs, int n, int rounds) {
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < n; i++) {
            measure(&pairs[i].ours, round);
            measure(&pairs[i].jansson, round);
        }
    for (int i = 0; i < n; i++) {
        double ours = median(&pairs[i].ours, rounds), jansson = median(&pairs[i].jansson, rounds);
        printf("%-22s %7.1f %7.1f %6.3f\n", pairs[i].name, ours, jansson, ours / jansson);
    }
}

int main(int argc, char **argv) {
    static struct data data[KINDS];
    static struct pair pairs[2 * KINDS + CALLS];
    int rounds = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 31;
    if (argc > 2 || rounds < 1 || rounds > MAX_ROUNDS) {
        fputs("usage: json [ROUNDS]\n", stderr);
        return EXIT_FAILURE;
    }
    for (int i = 0; i < KINDS; i++) {
        struct data *d = &data[i];
        fill(d, &kinds[i]);
        add_pair(&pairs[i], "in", kinds[i].name, (struct side){read_ours, d, N, {0}},
                 (struct side){read_jansson, d, N, {0}});
        add_pair(&pairs[KINDS + i], "out", kinds[i].name, (struct side){write_ours, d, N, {0}},
                 (struct side){write_jansson, d, N, {0}});
    }
    struct api *api = service();
    struct data *x = &data[0], *y = &data[3];
    struct call calls[CALLS] = {
        request(api, "/forward", "", x, NULL, true),
        request(api, "/forward", "", x, NULL, false),
        request(api, "/backward", ", \"return\": []", x, y, true),
        request(api, "/backward", ", \"return\": \"[\\\"inputs\\\"]\"", x, y, false),
    };
    for (int i = 0; i < CALLS; i++) {
        bool in = i % 2 == 0;
        int numbers = i == 2 ? 2 * N : N; /* x and y come in */
        add_pair(&pairs[2 * KINDS + i], calls[i].head.path + 1, in ? "in" : "out",
                 (struct side){call, &calls[i], numbers, {0}},
                 (struct side){in ? read_jansson : write_jansson, x, N, {0}});
    }
    run(pairs, 2 * KINDS + CALLS, rounds);
    for (int i = 0; i < KINDS; i++) {
        free(data[i].text);
        json_decref(data[i].tree);
    }
    for (int i = 0; i < CALLS; i++) free(calls[i].body);
    api_free(api);
    return EXIT_SUCCESS;
}
